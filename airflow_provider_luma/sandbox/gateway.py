"""The gateway's API, under `/luma`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

from airflow_provider_luma.sandbox import cdn
from airflow_provider_luma.sandbox import gateway_answers as answers
from airflow_provider_luma.sandbox.api import Call, PlayedApi, query, read_json, submit
from airflow_provider_luma.sandbox.failures import Refused, page
from airflow_provider_luma.sandbox.generation import Failure

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from airflow_provider_luma.sandbox.generation import Generation

FAILURE_REASONS = {"fail": "Job failed", "moderated": "Advanced prompt moderation failed"}
FIELDS = {
    "user_prompt": str,
    "model_name": str,
    "duration": str,
    "resolution": str,
    "aspect_ratio": str,
    "image_url": str,
    "image_end_url": str,
    "notify_hook": str,
    "expand_prompt": bool,
    "loop": bool,
}


class Api(PlayedApi):
    """The gateway, by its wire contract."""

    created_status = 200

    def routes(self) -> list[Route]:
        """Return the calls under `/luma`, and under the prefix of the settings as well."""
        prefix = self.memory.settings.prefix.strip("/")
        return [
            *self.routes_under("/luma"),
            *(self.routes_under(f"/{prefix}/luma") if prefix else ()),
        ]

    def routes_under(self, path: str) -> list[Route]:
        """Return the four calls under this path."""
        submission = Call(self, "submissions", submit)
        return [
            Route(f"{path}/generations", submission, methods=["POST"]),
            Route(f"{path}/generations/{{generation_id}}/extend", submission, methods=["POST"]),
            Route(f"{path}/generations/{{generation_id}}", Call(self, "polls", query), methods=["GET"]),
            Route(f"{path}/tasks", Call(self, "batch_polls", query_many), methods=["POST"]),
        ]

    def is_known(self, scheme: str, token: str) -> bool:
        """Return whether the gateway accepts this token; it also accepts `bearer`."""
        return super().is_known(scheme.capitalize(), token)

    def accept(self, body: Any, parent: str | None = None) -> Generation:
        """Accept a submission of `POST /luma/generations` or `POST /luma/generations/{id}/extend`."""
        if parent is not None:
            self.check_parent(parent)
        check_submission(body)
        prompt = body.get("user_prompt", "")
        self.refuse_by_words(prompt)
        return self.add(prompt, body, parent)

    def submission(self, prompt: str) -> dict[str, Any]:
        """Return the shortest body that submits this prompt."""
        return {"user_prompt": prompt}

    def failure(self, words: dict[str, str]) -> Failure | None:
        """Return the reason without a code; the gateway has no codes."""
        return next((Failure(reason) for word, reason in FAILURE_REASONS.items() if word in words), None)

    def check_parent(self, parent: str) -> None:
        """Refuse to extend a generation that is unknown or not completed."""
        generation = self.memory.find(parent, self.name)
        if generation is None:
            raise Refused(self.not_found())
        if generation.state != "completed":
            raise Refused(answers.error(400, "task_not_completed", f"the generation is {generation.state}"))

    def created(self, generation: Generation) -> Response:
        """Answer in the shape of the settings."""
        return JSONResponse(answers.submit_body(self.memory.settings.submit_shape, generation))

    def found(self, generation: Generation, request: Request) -> Response:
        """Answer `GET /luma/generations/{id}`."""
        address = cdn.address(self.memory, str(request.base_url), self.memory.settings.url_seconds)
        return JSONResponse(answers.generation_body(generation, generation.state, address))

    def failed(self, failure: str, retry_after: int = 0) -> Response:
        """Answer with the gateway's own error, or with the page of a proxy."""
        if failure == "401":
            return answers.unauthorized()
        if failure in ("429", "busy"):
            return answers.too_many_requests(retry_after or None)
        if failure == "402":
            return answers.error(402, "insufficient_user_quota", "用户额度不足")
        if failure in ("400", "403", "413", "422"):
            return answers.error(int(failure), "refused")
        return page(int(failure))

    def too_many_polls(self, retry_after: int) -> Response:
        """Answer with the same 429 as a submission."""
        return self.failed("429", retry_after)

    def invalid(self, message: str) -> Response:
        """Answer 400."""
        return answers.error(400, "invalid_request", message)

    def not_found(self) -> Response:
        """Answer 400: the gateway has no 404 for an unknown id."""
        return answers.error(400, "task_not_exist")


async def query_many(gateway: Api, request: Request) -> Response:
    """Answer `POST /luma/tasks`."""
    memory = gateway.memory
    settings = memory.settings
    if settings.batch_shape == "none":
        message = f"Invalid URL (POST {request.url.path})"
        raise Refused(answers.openai_error(404, "invalid_request_error", "", message))
    gateway.refuse_by_weather()
    ids = ids_of(await read_json(gateway, request))
    if settings.batch_limit and len(ids) > settings.batch_limit:
        raise Refused(answers.error(400, "too_many_ids", f"at most {settings.batch_limit} ids in one request"))
    # The answer is in reverse order: callers must not rely on the order.
    queried = [memory.find(generation_id, gateway.name) for generation_id in reversed(dict.fromkeys(ids))]
    generations = [generation for generation in queried if generation is not None]
    for generation in generations:
        generation.polls += 1
    address = cdn.address(memory, str(request.base_url), settings.url_seconds)
    return JSONResponse(answers.tasks_body(settings.batch_shape, generations, address))


def ids_of(body: Any) -> list[str]:
    """Read the ids of a batch query."""
    ids = body.get("ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(isinstance(generation_id, str) for generation_id in ids):
        raise invalid("ids must be a list of strings")
    return ids


def check_submission(body: Any) -> None:
    """Refuse a body that the gateway does not accept."""
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    for name, kind in FIELDS.items():
        if name in body and not isinstance(body[name], kind):
            raise invalid(f"{name} must be a {'string' if kind is str else 'boolean'}")
    for name in ("image_url", "image_end_url"):
        if not body.get(name, "https://").startswith(("http://", "https://", "data:image/")):
            raise invalid(f"{name} must be an http(s) URL or data:image/<type>;base64,...")
    prompt = body.get("user_prompt", "")
    if not prompt.strip() and not body.get("image_url"):
        raise invalid("user_prompt is required")
    if prompt and not 3 <= len(prompt) <= 5000:
        raise invalid("user_prompt must have 3 to 5000 characters")
    if body.get("loop") and body.get("image_end_url"):
        raise invalid("loop is not supported with image_end_url")


def invalid(message: str) -> Refused:
    """Refuse the request with 400 and this message."""
    return Refused(answers.error(400, "invalid_request", message))

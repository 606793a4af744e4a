"""
The gateway: a third party's API for Luma's models, whose argument names are the ones that users type.

Source: its documentation, and that of its siblings where it documents one thing in two ways.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_provider_luma.api.arguments import check_generation_id, merge_arguments
from airflow_provider_luma.api.dialects.protocol import Answer, Request
from airflow_provider_luma.api.dialects.values import (
    content_kind,
    error_code,
    json_value,
    mapping,
    number,
    short_text,
    text,
    time,
    whole_number,
)
from airflow_provider_luma.api.errors import (
    LumaApiError,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.generation import Generation, GenerationState
from airflow_provider_luma.api.retry import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

NAME = "a Luma gateway"
DEFAULT_URL = "https://www.kkiai.com"
BATCH_SIZE = 100
"""The gateway does not say how many it takes; to parse the answer for so many takes 3 ms of the event loop's time."""
REQUESTS_PER_SECOND = float("inf")

GENERATIONS = "/luma/generations"
UNKNOWN_ID = "task_not_exist"
PROMPT_LENGTH = range(3, 5001)

_STATES = {
    "pending": GenerationState.PENDING,
    "queued": GenerationState.PENDING,
    "not_start": GenerationState.PENDING,
    "submitted": GenerationState.PENDING,
    "processing": GenerationState.PROCESSING,
    "dreaming": GenerationState.PROCESSING,
    "in_progress": GenerationState.PROCESSING,
    "completed": GenerationState.COMPLETED,
    "success": GenerationState.COMPLETED,
    "succeed": GenerationState.COMPLETED,
    "failed": GenerationState.FAILED,
    "failure": GenerationState.FAILED,
}
_SUCCESS_CODES = ("success", "0", "200", "")
_NO_GATEWAY = "Is the host a Luma gateway, with its path where it has one?"
_ADVICE: Mapping[type[LumaApiError], str] = {
    LumaAuthenticationError: "Check the token, and that it may use this model from this address.",
    LumaQuotaError: "Top up the balance of the token's account.",
    LumaInvalidRequest: "Change the request; sending it again as it is cannot help.",
    LumaRateLimited: "Wait, or run fewer generations at once (an Airflow pool limits them).",
    LumaServerError: "The gateway, or a proxy before it, is in trouble: try again later.",
}


def base_path(path: str) -> str:
    """Return the path before the gateway's own, for a host that was typed with or without that."""
    return path.removesuffix(GENERATIONS)


def check(arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None, templated: Collection[str] = ()) -> None:
    """Raise LumaInvalidRequest for what the gateway would refuse; values that it does not document are let through."""
    _body(arguments, extra_body, templated)


def submission(arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None) -> Request[Generation]:
    """Return the request that submits a generation."""
    body = _body(arguments, extra_body)
    return Request("Submitting a generation", "POST", GENERATIONS, _read_generation, body)


def extension(
    generation_id: str, arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None
) -> Request[Generation]:
    """Return the request that submits the continuation of a generation."""
    body = _body(arguments, extra_body)
    path = f"{_generation_path(generation_id)}/extend"
    return Request(f"Extending generation {generation_id}", "POST", path, _read_generation, body)


def query(generation_id: str) -> Request[Generation]:
    """Return the request that polls one generation."""
    path = _generation_path(generation_id)

    def read(answer: Answer, call: str) -> Generation:
        return parse_generation(read_answer(answer, call), call, generation_id)

    return Request(f"Polling generation {generation_id}", "GET", path, read)


def batch_query(generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
    """Return the request that polls many, whose answer leaves out those that the gateway does not know."""

    def read(answer: Answer, call: str) -> dict[str, Generation]:
        return parse_generations(read_answer(answer, call), call)

    call = f"Polling {len(generation_ids)} generations"
    return Request(call, "POST", "/luma/tasks", read, {"ids": list(generation_ids)})


def _generation_path(generation_id: str) -> str:
    return f"{GENERATIONS}/{quote(check_generation_id(generation_id), safe='')}"


def _body(
    arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None, templated: Collection[str] = ()
) -> dict[str, Any]:
    body = merge_arguments(arguments, extra_body, templated)
    if not body.keys() & {"user_prompt", "image_url", "image_end_url"}:
        raise LumaInvalidRequest("A generation needs a user_prompt, or an image_url to start from.")
    if "user_prompt" in body and "user_prompt" not in templated:
        length = len(body["user_prompt"])
        if length not in PROMPT_LENGTH:
            raise LumaInvalidRequest(
                f"user_prompt must have {PROMPT_LENGTH.start} to {PROMPT_LENGTH.stop - 1:,} characters, got {length:,}."
            )
    if body.get("loop") is True and "image_end_url" in body:
        raise LumaInvalidRequest("loop does not go with image_end_url: a loop ends where it began.")
    return body


def read_answer(answer: Answer, call: str) -> Any:
    """
    Return the JSON of an answer, out of its envelope where it has one.

    :param call: what was called where, to begin an error's message with.
    :raises LumaApiError: the answer is an error, in any of the documented shapes, or cannot be read.
    """
    payload = json_value(answer.content)
    if not 200 <= answer.status < 300:
        raise _error(answer, payload, call, answer.status)
    if payload is None:
        raise LumaServerError(
            f"{call}: HTTP {answer.status}, {content_kind(answer.content)}. {_NO_GATEWAY}", status=answer.status
        )
    if not isinstance(payload, dict) or payload.keys() & {"id", "state"}:
        return payload
    code = _error_fields(payload)[0] or ""
    if payload.keys() & {"error", "detail"} or code.lower() not in _SUCCESS_CODES:
        # Some answer 200 and give the status in the body.
        raise _error(answer, payload, call, int(code) if re.fullmatch("[45][0-9][0-9]", code) else answer.status)
    return payload["data"] if payload.keys() >= {"code", "data"} else payload


def _read_generation(answer: Answer, call: str) -> Generation:
    return parse_generation(read_answer(answer, call), call)


def parse_generation(payload: Any, call: str, generation_id: str | None = None) -> Generation:
    """
    Return the generation in an answer: flat, a row of the gateway's task table, or a bare id.

    :param generation_id: the one that was asked for, for an answer that has a state and leaves the id out.
    :raises LumaServerError: there is none in it.
    """
    if isinstance(payload, str) and payload.strip():
        payload = {"task_id": payload.strip(), "status": "submitted"}
    row = mapping(payload)
    # A row has the generation below it, which may not be there yet.
    work = mapping(row.get("data")) if "task_id" in row else row
    state, state_name = _state(work.get("state"), row.get("status"), row.get("task_status"))
    own_id = text(row.get("task_id")) or text(work.get("id"))
    # A gateway may nest the id that its own supplier knows; the one that was asked for is the one it answers to.
    found_id = generation_id if generation_id and (own_id or state_name) else own_id
    if found_id is None:
        raise LumaServerError(f"{call}: answered with JSON that holds no generation. {_NO_GATEWAY}", status=200)
    reason = text(work.get("failure_reason")) or text(row.get("fail_reason"))
    moderated = re.search("moderation|moderated|审核|违规|敏感", reason or "", re.IGNORECASE) is not None
    return Generation(
        id=found_id,
        state=state,
        state_name=state_name,
        created_at=time(work.get("created_at")) or time(row.get("created_at")),
        failure_reason=reason,
        moderated=moderated,
        retry_may_help=not moderated,
        estimate_wait_seconds=number(work.get("estimate_wait_seconds")),
        finished_at=time(row.get("finish_time") or None),
        raw=row,
        **_files(work),
    )


def parse_generations(payload: Any, call: str) -> dict[str, Generation]:
    """Return the generations of a batch query's answer by their ids; raise LumaServerError where it is no list."""
    if not isinstance(payload, list):
        raise LumaServerError(f"{call}: answered with JSON that is no list of generations.", status=200)
    generations: dict[str, Generation] = {}
    for item in payload:
        # One that cannot be read counts as left out, and does not hide the others.
        with suppress(LumaServerError):
            generation = parse_generation(item, call)
            generations[generation.id] = generation
    return generations


def _state(*names: Any) -> tuple[GenerationState, str]:
    """Return the state that says most, of those that an answer has at different places, and the gateway's word."""
    words = [word for word in map(text, names) if word]
    states = [(_STATES.get(word.lower(), GenerationState.UNKNOWN), word) for word in words]
    states.sort(key=lambda known: (not known[0].terminal, known[0] is GenerationState.UNKNOWN))
    return states[0] if states else (GenerationState.UNKNOWN, "")


def _files(work: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answer has about the files; what is missing at the top may be in the artifact."""
    artifact = mapping(work.get("artifact"))
    video, video_raw, thumbnail, last_frame = (
        mapping(work.get(name)) or mapping(artifact.get(name))
        for name in ("video", "video_raw", "thumbnail", "last_frame")
    )
    return {
        "video_url": text(video.get("url")),
        "download_url": text(video.get("download_url")),
        "video_raw_url": text(video_raw.get("url")),
        "thumbnail_url": text(thumbnail.get("url")),
        "last_frame_url": text(last_frame.get("url")),
        "width": whole_number(video.get("width")) or whole_number(video_raw.get("width")),
        "height": whole_number(video.get("height")) or whole_number(video_raw.get("height")),
        "duration": number(video_raw.get("duration")) or number(video.get("duration")),
    }


def _error(answer: Answer, payload: Any, call: str, effective_status: int) -> LumaApiError:
    """Return the error for an answer; ``effective_status`` is that of the body where that has another than HTTP."""
    code, message = _error_fields(payload)
    # Only with these two statuses is this body known to be the gateway's own refusal, and not something before it.
    detailed = "detail" in mapping(payload) and answer.status in (401, 500)
    kind = _kind(effective_status, code, about_token=detailed and _is_about_token(message))
    unknown_id = code == UNKNOWN_ID
    said = ", ".join(dict.fromkeys(filter(None, (code, message)))) or content_kind(answer.content)
    advice = _ADVICE.get(kind, "")
    if 300 <= answer.status < 400:
        said = f"a redirect{_to_host(answer.headers.get('Location', ''))}, which is not followed"
        advice = "Set the host to the gateway's own address."
    elif kind is LumaNotFound and not unknown_id:
        advice = _NO_GATEWAY
    more: dict[str, Any] = {}
    if kind is LumaNotFound:
        more = {"from_gateway": bool(code or message), "unknown_id": unknown_id}
    elif kind is LumaServerError:
        more = {"maybe_charged": answer.status >= 400 and not detailed}
    return kind(
        f"{call}: HTTP {answer.status}, {said}. {advice}".rstrip(),
        status=answer.status,
        code=code,
        request_id=text(mapping(payload).get("request_id")) or answer.headers.get("X-Oneapi-Request-Id"),
        retry_after=parse_retry_after(answer.headers.get("Retry-After")),
        **more,
    )


def _kind(status: int, code: str | None, *, about_token: bool) -> type[LumaApiError]:
    if status == 402 or code == "insufficient_user_quota":
        return LumaQuotaError
    if status in (404, 405) or code == UNKNOWN_ID:
        return LumaNotFound
    if status in (401, 403) or about_token:
        return LumaAuthenticationError
    if status == 429:
        return LumaRateLimited
    if status >= 500 or status == 408:
        return LumaServerError
    return LumaInvalidRequest if status >= 300 else LumaApiError


def _error_fields(payload: Any) -> tuple[str | None, str | None]:
    """Return the code and the message of an error body, in whichever of its three shapes."""
    body = mapping(payload)
    for key in ("error", "detail"):
        if key in body:
            inner = mapping(body[key])
            return error_code(inner.get("code")), short_text(inner.get("message") or inner.get("reason") or body[key])
    return error_code(body.get("code")), short_text(body.get("message"))


def _is_about_token(message: str | None) -> bool:
    words = (
        r"unauthori[sz]ed|(invalid|bad|missing|expired|no) (api )?(key|token)|(key|token) is (invalid|missing|expired)"
    )
    return re.search(words, message or "", re.IGNORECASE) is not None


def _to_host(location: str) -> str:
    """Return where a redirect leads, without its path and query, which may hold a secret."""
    with suppress(ValueError):
        target = urlsplit(location)
        if target.hostname:
            return f" to {target.scheme}://{target.hostname}"
    return ""

"""Luma's own API, "Agents" v1, under `/v1`."""

from __future__ import annotations

import math
import time
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_luma.sandbox import agents_rules, cdn
from airflow_provider_luma.sandbox.agents_values import InvalidSubmission
from airflow_provider_luma.sandbox.api import Call, PlayedApi, query, submit
from airflow_provider_luma.sandbox.failures import Refused, page
from airflow_provider_luma.sandbox.generation import Failure

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_luma.sandbox.generation import Generation

API_VERSION = "2026-04-01"
URL_SECONDS = 3600.0
SLOT_SECONDS = 3600.0
RATE_SECONDS = 60.0
PLENTY = 10_000
STATES = {"pending": "queued"}
FAILURE_REASONS = {
    "content_moderated": "The output was held back by content moderation",
    "generation_failed": "The model could not finish",
    "output_not_found": "What was made could not be found",
    "budget_exhausted": "The balance ran out while it was being made",
    "image_too_large": "video.start_frame is over the size limit",
    "unsupported_format": "video.start_frame is of a kind that is not taken",
    "corrupt_input": "video.start_frame could not be decoded",
    "invalid_request": "The parts of the request do not go together",
    "rate_limited": "Too busy to start",
}
DETAILS = {
    "400": "Bad request",
    "401": "Missing or invalid API key",
    "402": "Insufficient credits. Please add credits to continue.",
    "403": "API client is suspended",
    "404": "Generation not found",
    "413": "video.start_frame: image exceeds 50 MB limit",
    "422": "video.start_frame: failed to fetch URL",
    "429": "Rate limit exceeded",
    "500": "Internal server error",
    "502": "Upstream service unavailable",
    "503": "Image URL ingestion unavailable",
}


class Api(PlayedApi):
    """Luma's own API, by its wire contract."""

    created_status = 201

    def routes(self) -> list[Route]:
        """Return the calls; the last answers every other path under `/v1` with the API's own 404."""
        return [
            Route("/v1/generations", Call(self, "submissions", submit), methods=["POST"]),
            Route("/v1/generations/{generation_id}", Call(self, "polls", query), methods=["GET"]),
            Route("/v1/files", Call(self, "others", list_files), methods=["GET"]),
            Route("/v1/{path:path}", Call(self, "others", unknown)),
        ]

    def headers(self, request: Request) -> dict[str, str]:
        """Return the request id and the version; every answer has these headers."""
        request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
        return {"X-Request-Id": request_id, "X-API-Version": API_VERSION}

    def accept(self, body: Any, parent: str | None = None) -> Generation:  # noqa: ARG002 - the parent is in the body
        """Accept a submission of `POST /generations`."""
        self.count_submission()
        try:
            read = agents_rules.check(body, self.state_of)
        except InvalidSubmission as error:
            raise Refused(self.error(error.status, error.detail)) from error
        self.refuse_by_words(read["prompt"])
        limit = self.memory.settings.running_limit
        if limit and self.running() >= limit:
            raise Refused(self.failed("busy"))
        return self.add(read["prompt"], body, parent_of(read))

    def submission(self, prompt: str) -> dict[str, Any]:
        """Return the shortest body that submits this prompt as a video."""
        return {"type": "video", "model": agents_rules.VIDEO_MODELS[0], "prompt": prompt}

    def failure(self, words: dict[str, str]) -> Failure | None:
        """Return the reason and the code; `[fail:...]` contains the code."""
        if "fail" in words:
            code = words["fail"] or "generation_failed"
        elif "moderated" in words:
            code = "content_moderated"
        else:
            return None
        reason = FAILURE_REASONS.get(code, "Something went wrong")
        # If the balance ran out, a part of the charge may be kept.
        return Failure(reason, None if code == "none" else code, refunded=code != "budget_exhausted")

    def count_submission(self) -> None:
        """Refuse a submission over the limit of submissions in 60 seconds."""
        now, times, limit = self.memory.clock(), self.memory.submission_times, self.memory.settings.rate_limit
        while times and times[0] <= now - RATE_SECONDS:
            times.popleft()
        if limit and len(times) >= limit:
            raise Refused(self.failed("429", max(math.ceil(times[0] + RATE_SECONDS - now), 1)))
        times.append(now)

    def running(self) -> int:
        """Count the running generations; each of them counts for an hour at most."""
        return sum(
            generation.api == self.name and not generation.ended and generation.age < SLOT_SECONDS
            for generation in self.memory.generations.values()
        )

    def state_of(self, generation_id: str) -> str | None:
        """Return the state of a generation; None if its id is unknown."""
        generation = self.memory.find(generation_id, self.name)
        return generation.state if generation else None

    def created(self, generation: Generation) -> Response:
        """Answer 201 with the remaining submissions of this minute."""
        times, limit = self.memory.submission_times, self.memory.settings.rate_limit or PLENTY
        wait = times[0] + RATE_SECONDS - self.memory.clock() if times else RATE_SECONDS
        return JSONResponse(
            {**body_of(generation, ""), "state": "queued", "output": []},
            self.created_status,
            rate_limit_headers(limit, max(limit - len(times), 0), wait),
        )

    def found(self, generation: Generation, request: Request) -> Response:
        """Answer `GET /generations/{id}`; every answer has a new URL."""
        seconds = self.memory.settings.url_seconds or URL_SECONDS
        folder = f"{cdn.address(self.memory, str(request.base_url), seconds)}/{generation.id}"
        signature = f"?X-Amz-Expires={seconds:.0f}&X-Amz-Signature={uuid.uuid4().hex}"
        return JSONResponse(body_of(generation, folder, signature))

    def failed(self, failure: str, retry_after: int = 0) -> Response:
        """Answer with the API's own error, or with the page of a proxy."""
        if failure == "busy":
            return self.error(429, "Too many concurrent jobs", {"Retry-After": "60"})
        if failure == "429":
            wait = retry_after or 1
            limits = rate_limit_headers(self.memory.settings.rate_limit or PLENTY, 0, wait)
            return self.error(429, DETAILS["429"], {**limits, "Retry-After": str(wait)})
        if failure == "401" and self.memory.weather.revoked:
            return self.error(401, "API key has been revoked")
        return self.error(int(failure), DETAILS[failure]) if failure in DETAILS else page(int(failure))

    def too_many_polls(self, retry_after: int) -> Response:
        """Answer like the guard against thousands of calls per minute: without the limits of submissions."""
        return self.error(429, "Too many requests", {"Retry-After": str(retry_after or 1)})

    def error(self, status: int, detail: Any, headers: dict[str, str] | None = None) -> Response:
        """Answer with an error."""
        return JSONResponse({"detail": detail}, status, headers)

    def invalid(self, message: str) -> Response:
        """Answer 422."""
        return self.error(422, [{"type": "json_invalid", "loc": ["body", 0], "msg": message, "input": {}}])

    def not_found(self) -> Response:
        """Answer 404."""
        return self.failed("404")


def body_of(generation: Generation, folder: str, signature: str = "") -> dict[str, Any]:
    """
    Write a generation; of its request, the answer contains only type and model.

    :param folder: the address of its files.
    :param signature: the query string of their URLs.
    """
    state, failure = generation.state, generation.reported_failure
    kind = generation.body.get("type", "image")
    medium, file = ("video", "video.mp4") if kind.startswith("video") else ("image", "thumbnail.jpg")
    url = generation.video_url or f"{folder}/{file}{signature}"
    return {
        "id": generation.id,
        "type": kind,
        "state": STATES.get(state, state),
        "model": generation.body.get("model", agents_rules.IMAGE_MODELS[0]),
        "created_at": generation.submitted.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "output": [{"type": medium, "url": url}] if state == "completed" else [],
        "failure_reason": failure.reason or None,
        "failure_code": failure.code,
        **generation.answer,
    }


def parent_of(read: dict[str, Any]) -> str | None:
    """Return the id of the generation that a submission extends or edits, if any."""
    video = read.get("video", {})
    for reference in (video.get("start_frame"), video.get("end_frame"), read.get("source")):
        parent = (reference or {}).get("generation_id")
        if parent:
            return str(parent)
    return None


def rate_limit_headers(limit: int, remaining: int, wait: float) -> dict[str, str]:
    """Write the remaining submissions, and when the limit is reset (`wait` is in seconds)."""
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(math.ceil(time.time() + wait)),
    }


async def list_files(agents: Api, request: Request) -> Response:
    """Answer `GET /files` with an empty list."""
    limit = request.query_params.get("limit", "25")
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        raise Refused(agents.error(422, "limit: 1 to 100"))
    return JSONResponse({"data": [], "has_more": False, "next_cursor": None})


async def unknown(agents: Api, _: Request) -> Response:
    """Answer 404 to a call that the sandbox does not have."""
    raise Refused(agents.error(404, "Not found"))

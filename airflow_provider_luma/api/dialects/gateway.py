"""
The gateway: a third party's API for Luma's models, whose argument names are the ones that users type.

Source: its documentation, and that of its siblings where it documents one thing in two ways.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_luma.api.arguments import check_generation_id, check_length
from airflow_provider_luma.api.dialects.protocol import Answer, Request
from airflow_provider_luma.api.dialects.values import (
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
    LumaServerError,
)
from airflow_provider_luma.api.generation import Generation, GenerationState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = "a Luma gateway"
DEFAULT_URL = "https://www.kkiai.com"
BATCH_SIZE = 100
"""The gateway does not say how many it takes; to parse the answer for so many takes 3 ms of the event loop's time."""
REQUESTS_PER_SECOND = float("inf")

GENERATIONS = "/luma/generations"
PROMPT_LENGTH = range(3, 5001)

_STATES = {
    **dict.fromkeys(("pending", "queued", "not_start", "submitted"), GenerationState.PENDING),
    **dict.fromkeys(("processing", "dreaming", "in_progress"), GenerationState.PROCESSING),
    **dict.fromkeys(("completed", "success"), GenerationState.COMPLETED),
    **dict.fromkeys(("failed", "failure"), GenerationState.FAILED),
}
_SUCCESS_CODES = ("success", "0", "200")
_UNKNOWN_ID = "task_not_exist"
_ERROR_CODES = {_UNKNOWN_ID: LumaNotFound, "insufficient_user_quota": LumaQuotaError}
"""Codes that say more than the status that they come with."""
_NO_GATEWAY = (
    "Is the host a Luma gateway, with its path where it has one? If it leads to Luma's own API, set the connection's "
    "extra 'api' to agents."
)


def base_path(path: str) -> str:
    """Return the path before the gateway's own, for a host that was typed with or without that."""
    return path.removesuffix(GENERATIONS)


def submission(given: Mapping[str, Any]) -> Request[Generation]:
    """Return the request that submits a generation; values that the gateway does not document are let through."""
    _check(given)
    return Request("Submitting a generation", "POST", GENERATIONS, _read_generation, given)


def extension(generation_id: str, given: Mapping[str, Any]) -> Request[Generation]:
    """Return the request that submits the continuation of a generation."""
    _check(given)
    path = f"{_path(generation_id)}/extend"
    return Request(f"Extending generation {generation_id}", "POST", path, _read_generation, given)


def query(generation_id: str) -> Request[Generation]:
    """Return the request that polls one generation."""
    return Request(f"Polling generation {generation_id}", "GET", _path(generation_id), _read_generation)


def batch_query(generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
    """Return the request that polls many, whose answer leaves out those that the gateway does not know."""
    call = f"Polling {len(generation_ids)} generations"
    return Request(call, "POST", "/luma/tasks", _read_generations, {"ids": list(generation_ids)})


def _path(generation_id: str) -> str:
    return f"{GENERATIONS}/{quote(check_generation_id(generation_id), safe='')}"


def _check(body: Mapping[str, Any]) -> None:
    if not body.keys() & {"user_prompt", "image_url", "image_end_url"}:
        raise LumaInvalidRequest("A generation needs a user_prompt, or an image_url to start from.")
    check_length(body.get("user_prompt"), PROMPT_LENGTH)
    if body.get("loop") is True and "image_end_url" in body:
        raise LumaInvalidRequest("loop does not go with image_end_url: a loop ends where it began.")


def _read_generation(answer: Answer, call: str) -> Generation:
    return parse_generation(read_answer(answer, call), call)


def _read_generations(answer: Answer, call: str) -> dict[str, Generation]:
    return parse_generations(read_answer(answer, call), call)


def read_answer(answer: Answer, call: str) -> Any:
    """
    Return the JSON of an answer, out of its envelope where it has one.

    :param call: what was called where, to begin an error's message with.
    :raises LumaApiError: the answer is an error, in any of the documented shapes, or cannot be read.
    """
    payload = json_value(answer.content)
    if answer.ok and payload is None:
        raise answer.error(call, LumaServerError, advice=_NO_GATEWAY)
    if answer.ok and (not isinstance(payload, dict) or payload.keys() & {"id", "state"}):
        return payload
    code, message = _error_fields(payload)
    if not answer.ok or (code or "success").lower() not in _SUCCESS_CODES:
        raise _error(answer, call, payload, code, message)
    return payload["data"] if payload.keys() >= {"code", "data"} else payload


def parse_generation(payload: Any, call: str) -> Generation:
    """
    Return the generation in an answer: flat, a row of the gateway's task table, or a bare id.

    :raises LumaServerError: there is none in it.
    """
    row = {"task_id": payload, "status": "submitted"} if isinstance(payload, str) else mapping(payload)
    # A row has the generation below it, which may not be there yet, or be older than the row.
    work = mapping(row.get("data")) if "task_id" in row else row
    generation_id = text(row.get("task_id")) or text(work.get("id"))
    if generation_id is None:
        raise LumaServerError(f"{call}: answered with JSON that holds no generation. {_NO_GATEWAY}", status=200)
    state_name = text(row.get("status")) or text(row.get("task_status")) or text(work.get("state")) or ""
    reason = text(work.get("failure_reason")) or text(row.get("fail_reason"))
    moderated = re.search("moderation|moderated|审核|违规|敏感", reason or "", re.IGNORECASE) is not None
    return Generation(
        id=generation_id,
        state=_STATES.get(state_name.lower(), GenerationState.UNKNOWN),
        state_name=state_name,
        created_at=time(work.get("created_at")) or time(row.get("created_at")),
        failure_reason=reason,
        moderated=moderated,
        retry_may_help=not moderated,
        estimate_wait_seconds=number(work.get("estimate_wait_seconds")),
        finished_at=time(row.get("finish_time")),
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


def _files(work: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answer has about the files; what is missing at the top may be in the artifact."""
    artifact = mapping(work.get("artifact"))
    names = ("video", "video_raw", "thumbnail", "last_frame")
    files = {name: mapping(work.get(name)) or mapping(artifact.get(name)) for name in names}
    return {
        **{f"{name}_url": text(file.get("url")) for name, file in files.items()},
        "download_url": text(files["video"].get("download_url")),
        "width": whole_number(files["video"].get("width")),
        "height": whole_number(files["video"].get("height")),
        "duration": number(files["video_raw"].get("duration")),
    }


def _error_fields(payload: Any) -> tuple[str | None, str | None]:
    """Return the code and the message of an error body, in whichever of its three shapes."""
    body = mapping(payload)
    for key in ("error", "detail"):
        if key in body:
            inner = mapping(body[key])
            return error_code(inner.get("code")), short_text(inner.get("message") or inner.get("reason") or body[key])
    return error_code(body.get("code")), short_text(body.get("message"))


def _error(answer: Answer, call: str, payload: Any, code: str | None, message: str | None) -> LumaApiError:
    # Only with these two statuses is this body known to be the gateway's own refusal, and not something before it.
    refused = answer.status in (401, 500) and "detail" in mapping(payload)
    kind = _ERROR_CODES.get(code or "", answer.kind)
    more: dict[str, Any] = {}
    if refused and "unauthorized" in (message or "").lower():
        kind = LumaAuthenticationError
    elif kind is LumaNotFound:
        more = {"from_api": bool(code or message), "unknown_id": code == _UNKNOWN_ID}
    elif kind is LumaServerError:
        more = {"maybe_charged": not refused}
    return answer.error(
        call,
        kind,
        ", ".join(dict.fromkeys(filter(None, (code, message)))),
        advice=_NO_GATEWAY if kind is LumaNotFound and code != _UNKNOWN_ID else None,
        code=code,
        request_id=text(mapping(payload).get("request_id")) or answer.headers.get("X-Oneapi-Request-Id"),
        **more,
    )

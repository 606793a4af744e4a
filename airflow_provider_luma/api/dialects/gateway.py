"""
The gateway: a third party's API for Luma's models. Users type its argument names.

Sources: its documentation, and that of its siblings if it documents something in two ways.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_luma.api import errors
from airflow_provider_luma.api.arguments import check_generation_id, merge
from airflow_provider_luma.api.dialects.protocol import Answer, Request
from airflow_provider_luma.api.dialects.values import (
    detail_text,
    error_code,
    identifier,
    mapping,
    number,
    short_text,
    text,
    time,
    whole_number,
)
from airflow_provider_luma.api.generation import Generation, GenerationState
from airflow_provider_luma.apis import APIS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

API = APIS["gateway"]
BATCH_SIZE = 100
"""The gateway does not document a limit. To parse the answer for 100 ids blocks the event loop for 3 ms."""
REQUESTS_PER_SECOND = float("inf")

GENERATIONS = "/luma/generations"

_STATES = {
    **dict.fromkeys(("pending", "queued", "not_start", "submitted"), GenerationState.PENDING),
    **dict.fromkeys(("processing", "dreaming", "in_progress"), GenerationState.PROCESSING),
    **dict.fromkeys(("completed", "success"), GenerationState.COMPLETED),
    **dict.fromkeys(("failed", "failure"), GenerationState.FAILED),
}
_SUCCESS_CODES = ("success", "0", "200")
_UNKNOWN_ID = "task_not_exist"
_ERROR_CODES = {_UNKNOWN_ID: errors.LumaNotFound, "insufficient_user_quota": errors.LumaQuotaError}
"""Codes that say more than their HTTP status."""
_NO_GATEWAY = (
    "Is the host a Luma gateway, and does it have the right path? For another API, set the connection's extra 'api'."
)


def base_path(path: str) -> str:
    """Remove the gateway's own path from that of the host: users type both."""
    return path.removesuffix(GENERATIONS)


def submission(given: Mapping[str, Any], extra: Any) -> Request[Generation]:
    """Return the request that submits a generation; values that the gateway does not document pass unchanged."""
    return Request("Submitting a generation", "POST", GENERATIONS, _read_submitted, merge(given, extra))


def extension(generation_id: str, given: Mapping[str, Any], extra: Any) -> Request[Generation]:
    """Return the request that extends a generation."""
    path = f"{_path(generation_id)}/extend"
    return Request(f"Extending generation {generation_id}", "POST", path, _read_submitted, merge(given, extra))


def query(generation_id: str) -> Request[Generation]:
    """Return the request that polls one generation."""
    return Request(f"Polling generation {generation_id}", "GET", _path(generation_id), _read_generation)


def batch_query(generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
    """Return the request that polls many generations; its answer leaves out ids that the gateway does not know."""
    call = f"Polling {len(generation_ids)} generations"
    return Request(call, "POST", "/luma/tasks", _read_generations, {"ids": list(generation_ids)})


def _path(generation_id: str) -> str:
    return f"{GENERATIONS}/{quote(check_generation_id(generation_id), safe='')}"


def _read_submitted(answer: Answer, call: str) -> Generation:
    found = read_answer(answer, call)
    # A sibling answers with the id alone.
    bare = identifier(found)
    return parse_generation({"task_id": bare, "status": "submitted"} if bare else found, call)


def _read_generation(answer: Answer, call: str) -> Generation:
    return parse_generation(read_answer(answer, call), call)


def _read_generations(answer: Answer, call: str) -> dict[str, Generation]:
    return parse_generations(read_answer(answer, call), call)


def read_answer(answer: Answer, call: str) -> Any:
    """
    Return the JSON of an answer, without its envelope.

    :param call: the call and its host, for messages.
    :raises LumaApiError: the answer is a documented error, or the gateway did not give it.
    """
    body = mapping(answer.payload)
    if answer.ok and (isinstance(answer.payload, list) or body.keys() & {"id", "state"}):
        return answer.payload
    code, message = _error_fields(body)
    if answer.ok and (code or "").lower() in _SUCCESS_CODES:
        return body.get("data")
    # A success without a code is not a refusal, whatever its text says.
    if not code and (answer.ok or not message):
        raise answer.trouble(call, "" if answer.status >= 500 else _NO_GATEWAY)
    raise _error(answer, call, code, message)


def parse_generation(payload: Any, call: str) -> Generation:
    """
    Parse a generation, alone or in a row of the gateway's task table.

    :raises LumaServerError: the payload has no generation.
    """
    row = mapping(payload)
    # In a row, "data" is the generation. It may be missing, or older than the row.
    work = mapping(row.get("data")) if "task_id" in row else row
    generation_id = identifier(row.get("task_id")) or identifier(work.get("id"))
    if generation_id is None:
        raise errors.LumaServerError(f"{call}: the answer is JSON, but not a generation. {_NO_GATEWAY}", status=200)
    state_name = short_text(row.get("status") or row.get("task_status") or work.get("state")) or ""
    state = _STATES.get(state_name.lower(), GenerationState.UNKNOWN)
    # In the row of a completed generation, this field is the URL of the result.
    failed = state is GenerationState.FAILED
    reason = short_text(work.get("failure_reason")) or short_text(row.get("fail_reason")) if failed else None
    moderated = re.search("moderat|content policy|审核|违规|敏感", reason or "", re.IGNORECASE) is not None
    return Generation(
        id=generation_id,
        state=state,
        state_name=state_name,
        created_at=time(work.get("created_at")) or time(row.get("created_at")),
        failure_reason=reason,
        moderated=moderated,
        retry_may_help=not moderated,
        refunded=True,
        estimate_wait_seconds=number(work.get("estimate_wait_seconds")),
        raw=row,
        **_files(work),
    )


def parse_generations(payload: Any, call: str) -> dict[str, Generation]:
    """Parse the answer to a batch query, by id; raise LumaServerError if it is not a list."""
    if not isinstance(payload, list):
        raise errors.LumaServerError(f"{call}: the answer is JSON, but not a list of generations.", status=200)
    generations: list[Generation] = []
    for item in payload:
        # An item that cannot be read counts as left out, and does not hide the others.
        with suppress(errors.LumaServerError):
            generations.append(parse_generation(item, call))
    # If a generation is in the list twice, its furthest state counts.
    generations.sort(key=lambda found: (found.state.terminal, found.state is GenerationState.PROCESSING))
    return {generation.id: generation for generation in generations}


def _files(work: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields about files. If a file is missing at the top, the artifact may have it."""
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


def _error_fields(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the code and the message of an error. There are three shapes."""
    for key in ("error", "detail"):
        if key in body:
            inner = mapping(body[key])
            said = short_text(inner.get("message") or inner.get("reason")) or detail_text(body[key])
            return error_code(inner.get("code")), said
    return error_code(body.get("code")), short_text(body.get("message"))


def _error(answer: Answer, call: str, code: str | None, message: str | None) -> errors.LumaApiError:
    body = mapping(answer.payload)
    # Only with these statuses is this shape known to be the gateway's own refusal.
    refused = answer.status in (401, 500) and "detail" in body
    kind = _ERROR_CODES.get(code or "", answer.kind)
    more: dict[str, Any] = {}
    if refused and "unauthorized" in (message or "").lower():
        kind = errors.LumaAuthenticationError
    elif kind is errors.LumaNotFound:
        more = {"unknown_id": code == _UNKNOWN_ID}
    elif kind is errors.LumaServerError:
        more = {"maybe_charged": not refused}
    return answer.error(
        call,
        kind,
        ", ".join(dict.fromkeys(filter(None, (code, message)))),
        _NO_GATEWAY if kind is errors.LumaNotFound and code != _UNKNOWN_ID else "",
        code=code,
        request_id=text(body.get("request_id")) or answer.headers.get("X-Oneapi-Request-Id"),
        **more,
    )

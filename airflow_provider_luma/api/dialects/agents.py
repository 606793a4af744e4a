"""
Luma's own API, "Agents" v1.

Sources: its documentation and its Python SDK, luma-agents 0.5.0, both of 2026. Nothing here was tried against Luma.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_luma.api.arguments import check_generation_id, merge
from airflow_provider_luma.api.dialects.protocol import Answer, Request, refuse
from airflow_provider_luma.api.dialects.values import (
    array,
    detail_text,
    error_code,
    identifier,
    mapping,
    short_text,
    text,
    time,
)
from airflow_provider_luma.api.errors import LumaApiError, LumaInvalidRequest, LumaNotFound, LumaServerError
from airflow_provider_luma.api.generation import Generation, GenerationState
from airflow_provider_luma.apis import APIS

if TYPE_CHECKING:
    from collections.abc import Mapping

API = APIS["agents"]
BATCH_SIZE = 1
REQUESTS_PER_SECOND = 19.5
"""
Polls are not counted, but a guard stops thousands of calls a minute.

At this pace the API receives at most 20 a second, although some are up to 25 ms late.
"""

GENERATIONS = "/generations"
DEFAULT_MODEL = "ray-3.2"

FIELDS = {"user_prompt": "prompt", "model_name": "model", "aspect_ratio": "aspect_ratio"}
"""Arguments at the top of a request, and their names there. Others are under its ``video``, with the same names."""
FRAMES = {"image_url": "start_frame", "image_end_url": "end_frame"}
"""Images under the request's ``video``, and their names there."""

NO_COUNTERPART = {
    "expand_prompt": "It uses the prompt unchanged: leave this out.",
    "notify_hook": "It calls nobody back: leave this out, and wait with LumaGenerationSensor or wait_for_completion.",
}
NO_COUNTERPART_IN_EXTENSIONS = {
    **NO_COUNTERPART,
    **dict.fromkeys(FRAMES, "The extended generation is the only image: leave this out."),
}
GATEWAY_MODELS = ("ray-v1", "ray-v2")

_STATES = {
    "queued": GenerationState.PENDING,
    "processing": GenerationState.PROCESSING,
    "completed": GenerationState.COMPLETED,
    "failed": GenerationState.FAILED,
}
_RETRY_MAY_HELP = ("generation_failed", "output_not_found", "rate_limited")
"""Failure codes after which the same request may succeed."""
_REFUNDED = ("content_moderated", "generation_failed", "output_not_found")
"""Failure codes with a documented refund."""
_ADVICE = {
    401: "Check the API key of the connection.",
    403: "Ask Luma about the account of this key.",
    404: "Does the generation belong to the account of this key?",
}
_NOT_LUMA = "Something in front of Luma's own API gave this answer: check the host, firewall and proxy."


def base_path(path: str) -> str:
    """Return the API's path below that of the host, which users type with or without the version."""
    return f"{path.removesuffix(GENERATIONS).removesuffix('/v1')}/v1"


def submission(given: Mapping[str, Any], extra: Any) -> Request[Generation]:
    """Return the request that submits a generation."""
    refuse(given, NO_COUNTERPART, API)
    return _request("Submitting a generation", given, extra, {})


def extension(generation_id: str, given: Mapping[str, Any], extra: Any) -> Request[Generation]:
    """Return the request that extends a generation: the generation is the first frame."""
    refuse(given, NO_COUNTERPART_IN_EXTENSIONS, API)
    earlier = {"start_frame": {"generation_id": check_generation_id(generation_id)}}
    return _request(f"Extending generation {generation_id}", given, extra, earlier)


def query(generation_id: str) -> Request[Generation]:
    """Return the request that polls one generation."""
    path = f"{GENERATIONS}/{quote(check_generation_id(generation_id), safe='')}"
    return Request(f"Polling generation {generation_id}", "GET", path, read_generation)


def _request(call: str, given: Mapping[str, Any], extra: Any, frames: Mapping[str, Any]) -> Request[Generation]:
    if (model := given.get("model_name")) in GATEWAY_MODELS:
        raise LumaInvalidRequest(
            f"{model} is a gateway model. {API.label} does not have it: leave model_name out for {DEFAULT_MODEL}."
        )
    fields = {field: given[name] for name, field in FIELDS.items() if name in given}
    video = {name: value for name, value in given.items() if name not in FIELDS and name not in FRAMES}
    video |= {field: _reference(name, given[name]) for name, field in FRAMES.items() if name in given}
    further = merge({}, extra)
    video = merge({**video, **frames}, further.pop("video", None), "extra_body's video")
    body = {"model": DEFAULT_MODEL, "type": "video", **merge(fields, further), **({"video": video} if video else {})}
    return Request(call, "POST", GENERATIONS, read_generation, body, request_id=str(uuid.uuid4()))


def _reference(argument: str, image: str) -> dict[str, Any]:
    """Convert an image to the request's form."""
    if image.lower().startswith("https:"):
        return {"url": image}
    if inline := re.fullmatch(r"data:([^,;]+)(?:;[^,;]+)*;base64,(.+)", image, re.IGNORECASE | re.DOTALL):
        return {"data": inline[2], "media_type": inline[1]}
    raise LumaInvalidRequest(
        f"On {API.label}, {argument} must be an https URL or a data: URI with an image type and base64, got "
        f"{image!r:.60}. LumaGenerateVideoOperator also accepts a path in storage."
    )


def read_generation(answer: Answer, call: str) -> Generation:
    """
    Return the generation of an answer.

    :param call: the call and its host, for messages.
    :raises LumaApiError: the answer is an error, or the API did not give it.
    """
    found = mapping(answer.payload)
    generation_id, state_name = identifier(found.get("id")), short_text(found.get("state"))
    if not answer.ok or not generation_id or not state_name:
        raise _error(answer, call, detail_text(found.get("detail")))
    state = _STATES.get(state_name, GenerationState.UNKNOWN)
    code, reason = error_code(found.get("failure_code")), short_text(found.get("failure_reason"))
    outputs = map(mapping, array(found.get("output")))
    return Generation(
        id=generation_id,
        state=state,
        state_name=state_name,
        video_url=next((text(item.get("url")) for item in outputs if item.get("type") == "video"), None),
        created_at=time(found.get("created_at")),
        failure_reason=": ".join(filter(None, (code, reason))) or None,
        moderated=code == "content_moderated",
        retry_may_help=state is not GenerationState.FAILED or code in _RETRY_MAY_HELP,
        refunded=True if code in _REFUNDED else None,
        raw=found,
    )


def _error(answer: Answer, call: str, detail: str | None) -> LumaApiError:
    request_id = answer.headers.get("X-Request-Id")
    # Every error of the API has these.
    if answer.ok or not (detail and request_id):
        return answer.trouble(call, _NOT_LUMA)
    more: dict[str, Any] = {}
    if answer.kind is LumaNotFound:
        more = {"unknown_id": "X-API-Version" in answer.headers}
    elif answer.kind is LumaServerError:
        more = {"maybe_charged": answer.status not in (502, 503)}
    return answer.error(call, said=detail, advice=_ADVICE.get(answer.status, ""), request_id=request_id, **more)

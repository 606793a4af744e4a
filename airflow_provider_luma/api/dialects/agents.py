"""
Luma's own API, "Agents" v1.

Source: its documentation and its Python SDK, luma-agents 0.5.0, both of 2026; nothing here was tried against Luma.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_luma.api.arguments import (
    ARGUMENT_TYPES,
    Template,
    check_generation_id,
    check_length,
    merge,
)
from airflow_provider_luma.api.dialects.protocol import Answer, Request
from airflow_provider_luma.api.dialects.values import json_value, mapping, short_text, text, time
from airflow_provider_luma.api.errors import (
    LumaApiError,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaServerError,
)
from airflow_provider_luma.api.generation import Generation, GenerationState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME = "Luma's own API"
HOST = "agents.lumalabs.ai"
DEFAULT_URL = f"https://{HOST}"
BATCH_SIZE = 1
REQUESTS_PER_SECOND = 19.5
"""
Polls are not counted, but thousands of calls a minute meet a guard.

At this pace it receives 20 in a second at most, though some are up to 25 ms late.
"""

GENERATIONS = "/generations"
DEFAULT_MODEL = "ray-3.2"
PROMPT_LENGTH = range(1, 6001)

FIELDS = {"user_prompt": "prompt", "model_name": "model", "aspect_ratio": "aspect_ratio"}
FRAMES = {"image_url": "start_frame", "image_end_url": "end_frame"}
"""What arguments are called in a request, at its top and under its ``video``, where they are called otherwise."""

NO_COUNTERPART = {
    "expand_prompt": "The prompt is used as it is written: leave this out.",
    "notify_hook": "It calls nobody back: leave this out, and wait with LumaGenerationSensor or wait_for_completion.",
}
"""What there is in place of arguments that this API does not have."""

NO_COUNTERPART_IN_EXTENSIONS = {
    **NO_COUNTERPART,
    **dict.fromkeys(FRAMES, "The generation that is extended is the only image: leave this out."),
}

EXTENDING = "extending an earlier generation"
START = "image_url (video.start_frame)"
END = "image_end_url (video.end_frame)"
NOT_TOGETHER = (
    (EXTENDING, ("another frame", "duration 10s", "hdr"), "It makes 5 s, without HDR, from one frame."),
    ("duration 10s", (START, END), "10 s from images is keyframes in extra_body's video."),
    ("loop", ("duration 10s", "hdr", END, "keyframes"), "Leave one of them out."),
    ("hdr", ("resolution 360p", "resolution 540p", "duration 10s"), "It needs 720p or 1080p, and keyframes for 10 s."),
    ("keyframes", (START, END), "Put all images into keyframes."),
)
"""One thing, others that do not go with it, and what to do."""

_STATES = {
    "queued": GenerationState.PENDING,
    "processing": GenerationState.PROCESSING,
    "completed": GenerationState.COMPLETED,
    "failed": GenerationState.FAILED,
}
_RETRY_MAY_HELP = ("generation_failed", "output_not_found", "rate_limited")
"""Failure codes; another request is needed after any other one, or a person's decision."""
_ADVICE = {
    401: "Check the API key of the connection.",
    403: "Ask Luma about the account that the key belongs to.",
    404: "Is it a generation of the account that the key belongs to?",
}
_NOT_LUMA = "This did not come from Luma's own API but from something before it: check the host, firewall and proxy."


def base_path(path: str) -> str:
    """Return the path before the API's own, for a host that was typed with or without its version."""
    return f"{path.removesuffix(GENERATIONS).removesuffix('/v1')}/v1"


def submission(given: Mapping[str, Any]) -> Request[Generation]:
    """Return the request that submits a generation."""
    return _request("Submitting a generation", _body(given, {}, NO_COUNTERPART))


def extension(generation_id: str, given: Mapping[str, Any]) -> Request[Generation]:
    """Return the request that submits the continuation of a generation, of which it is the first frame."""
    earlier = {"start_frame": {"generation_id": check_generation_id(generation_id)}}
    body = _body(given, earlier, NO_COUNTERPART_IN_EXTENSIONS)
    return _request(f"Extending generation {generation_id}", body)


def query(generation_id: str) -> Request[Generation]:
    """Return the request that polls one generation."""
    path = f"{GENERATIONS}/{quote(check_generation_id(generation_id), safe='')}"
    return Request(f"Polling generation {generation_id}", "GET", path, read_generation)


def batch_query(generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
    """Raise LumaNotFound: there is no such call."""
    raise LumaNotFound(f"{NAME} has no batch query for {len(generation_ids)} generations: poll each by itself.")


def _request(call: str, body: Mapping[str, Any]) -> Request[Generation]:
    return Request(call, "POST", GENERATIONS, read_generation, body, request_id=str(uuid.uuid4()))


def _body(given: Mapping[str, Any], frames: Mapping[str, Any], no_counterpart: Mapping[str, str]) -> dict[str, Any]:
    for name, instead in no_counterpart.items():
        if name in given:
            raise LumaInvalidRequest(f"{NAME} has no {name}. {instead}")
    if (model := given.get("model_name")) in ("ray-v1", "ray-v2"):
        raise LumaInvalidRequest(
            f"model_name {model} is a gateway's, and none on {NAME}: leave it out for {DEFAULT_MODEL}."
        )
    extra = {name: value for name, value in given.items() if name not in ARGUMENT_TYPES}
    fields = {field: given[name] for name, field in FIELDS.items() if name in given}
    video: dict[str, Any] = {name: given[name] for name in ("duration", "resolution", "loop") if name in given}
    video |= {field: _reference(name, given[name]) for name, field in FRAMES.items() if name in given}
    video = merge({**video, **frames}, extra.pop("video", {}), "extra_body's video")
    body = {"model": DEFAULT_MODEL, "type": "video", **merge(fields, extra), **({"video": video} if video else {})}
    if not body.get("prompt"):
        raise LumaInvalidRequest(f"user_prompt is needed on {NAME}, also beside an image.")
    check_length(given.get("user_prompt"), PROMPT_LENGTH)
    if body["type"] == "video":
        _check_together(video)
    return body


def _reference(argument: str, image: str) -> dict[str, Any]:
    """Return an image as a request has it."""
    if image.lower().startswith("https:") or isinstance(image, Template):
        return {"url": image}
    if inline := re.fullmatch(r"data:([^,;]+)(?:;[^,;]+)*;base64,(.+)", image, re.IGNORECASE | re.DOTALL):
        return {"data": inline[2], "media_type": inline[1]}
    raise LumaInvalidRequest(
        f"{argument} is an https URL, or a data: URI with an image type and base64, on {NAME}, got {image!r:.60}. "
        "LumaGenerateVideoOperator also takes a path in storage."
    )


def _check_together(video: Mapping[str, Any]) -> None:
    """Raise LumaInvalidRequest for what is documented not to go together."""
    frames = [mapping(video[name]) for name in FRAMES.values() if name in video]
    present = {
        EXTENDING: any("generation_id" in frame for frame in frames),
        START: "start_frame" in video,
        END: "end_frame" in video,
        "another frame": len(frames) > 1,
        f"resolution {video.get('resolution')}": True,
        # Keyframes are the one way to 10 s from images, and with HDR.
        f"duration {video.get('duration')}": "keyframes" not in video,
        **{name: bool(video.get(name)) for name in ("loop", "hdr", "keyframes")},
    }
    for one, others, advice in NOT_TOGETHER:
        for other in others:
            if present.get(one) and present.get(other):
                raise LumaInvalidRequest(f"{one} does not go with {other} on {NAME}. {advice}")


def read_generation(answer: Answer, call: str) -> Generation:
    """
    Return the generation that an answer holds.

    :param call: what was called where, to begin an error's message with.
    :raises LumaApiError: the answer is an error, or holds none.
    """
    found = mapping(json_value(answer.content))
    if not answer.ok:
        raise _error(answer, call, _detail(found.get("detail")))
    generation_id, state_name = text(found.get("id")), text(found.get("state"))
    if not generation_id or not state_name:
        said = "JSON that holds no generation" if found else None
        raise answer.error(call, LumaServerError, said, _NOT_LUMA)
    state = _STATES.get(state_name, GenerationState.UNKNOWN)
    code, reason = text(found.get("failure_code")), text(found.get("failure_reason"))
    videos = [one for one in map(mapping, _list(found.get("output"))) if one.get("type") == "video"]
    return Generation(
        id=generation_id,
        state=state,
        state_name=state_name,
        video_url=text(videos[0].get("url")) if videos else None,
        created_at=time(found.get("created_at")),
        failure_reason=": ".join(filter(None, (code, reason))) or None,
        moderated=code == "content_moderated",
        retry_may_help=state is not GenerationState.FAILED or code in _RETRY_MAY_HELP,
        raw=found,
    )


def _error(answer: Answer, call: str, detail: str | None) -> LumaApiError:
    request_id = answer.headers.get("X-Request-Id")
    from_api = bool(detail and request_id)
    kind = answer.kind
    more: dict[str, Any] = {}
    if kind is LumaNotFound:
        more = {"from_api": from_api, "unknown_id": from_api and "X-API-Version" in answer.headers}
    elif kind is LumaServerError or (kind is LumaAuthenticationError and not from_api):
        # A network's own page, also one that forbids, is no verdict on the key, and says nothing of a submission.
        kind, more = LumaServerError, {"maybe_charged": not (from_api and answer.status in (502, 503))}
    advice = _ADVICE.get(answer.status) if from_api else _NOT_LUMA
    return answer.error(call, kind, detail, advice, request_id=request_id, **more)


def _detail(value: Any) -> str | None:
    """Return an error's text, which may be a list of what is wrong with which field."""
    if isinstance(value, list):
        places = [(".".join(map(str, _list(one.get("loc")))), one.get("msg")) for one in map(mapping, value)]
        value = "; ".join(f"{place}: {message}" for place, message in places)
    return short_text(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

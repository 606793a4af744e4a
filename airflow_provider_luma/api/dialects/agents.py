"""
Luma's own API, "Agents" v1.

Source: its documentation and its Python SDK, luma-agents 0.5.0, both of 2026; nothing here was tried against Luma.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_luma.api.arguments import ARGUMENT_TYPES, check_generation_id, merge_arguments
from airflow_provider_luma.api.dialects.protocol import Answer, Request
from airflow_provider_luma.api.dialects.values import content_kind, json_value, mapping, short_text, text, time
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

NAME = "Luma's own API"
HOST = "agents.lumalabs.ai"
DEFAULT_URL = f"https://{HOST}"
BATCH_SIZE = 1
REQUESTS_PER_SECOND = 20.0
"""Polls are not counted, but thousands of calls a minute meet a guard."""

GENERATIONS = "/generations"
DEFAULT_MODEL = "ray-3.2"
PROMPT_LENGTH = range(1, 6001)
VALUES = {
    "duration": ("5s", "10s"),
    "resolution": ("360p", "540p", "720p", "1080p"),
    "aspect_ratio": ("9:16", "3:4", "1:1", "4:3", "16:9", "21:9"),
}
"""What arguments may be; what is in extra_body is sent as it is."""

INSTEAD = {
    "expand_prompt": "The prompt is used as it is written: leave this out.",
    "notify_hook": "It calls nobody back: leave this out, and wait with LumaGenerationSensor or wait_for_completion.",
}
"""What there is in place of arguments that this API has no counterpart for."""

_STATES = {
    "queued": GenerationState.PENDING,
    "processing": GenerationState.PROCESSING,
    "completed": GenerationState.COMPLETED,
    "failed": GenerationState.FAILED,
}
_RETRY_MAY_HELP = ("generation_failed", "output_not_found", "rate_limited")
"""Failure codes; another request is needed after any other one, or a person's decision."""

_KINDS: Mapping[int, tuple[type[LumaApiError], str]] = {
    401: (LumaAuthenticationError, "Check the API key of the connection."),
    402: (LumaQuotaError, "Top up the balance of the key's account."),
    403: (LumaAuthenticationError, "Ask Luma about the account that the key belongs to."),
    404: (LumaNotFound, "Is it a generation of the account that the key belongs to?"),
    429: (LumaRateLimited, "Wait, or run fewer generations at once (an Airflow pool limits them)."),
}
_NOT_LUMA = "This did not come from Luma's own API but from something before it: check the host, firewall and proxy."


def base_path(path: str) -> str:
    """Return the path before the API's own, for a host that was typed with or without its version."""
    return f"{path.removesuffix(GENERATIONS).removesuffix('/v1')}/v1"


def check(arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None, templated: Collection[str] = ()) -> None:
    """Raise LumaInvalidRequest for what this API has no counterpart for, or documents that it refuses."""
    _body(arguments, extra_body, templated)


def submission(arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None) -> Request[Generation]:
    """Return the request that submits a generation."""
    return _request("Submitting a generation", _body(arguments, extra_body))


def extension(
    generation_id: str, arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None
) -> Request[Generation]:
    """Return the request that submits the continuation of a generation, of which it is the first frame."""
    body = _body(arguments, extra_body, extends=check_generation_id(generation_id))
    return _request(f"Extending generation {generation_id}", body)


def query(generation_id: str) -> Request[Generation]:
    """Return the request that polls one generation."""
    path = f"{GENERATIONS}/{quote(check_generation_id(generation_id), safe='')}"
    return Request(f"Polling generation {generation_id}", "GET", path, read_generation)


def batch_query(generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
    """Raise LumaNotFound: there is no such call."""
    raise LumaNotFound(f"{NAME} has no batch query for {len(generation_ids)} generations: poll each by itself.")


def read_generation(answer: Answer, call: str) -> Generation:
    """
    Return the generation that an answer holds.

    :param call: what was called where, to begin an error's message with.
    :raises LumaApiError: the answer is an error, or holds none.
    """
    payload = json_value(answer.content)
    if not 200 <= answer.status < 300:
        raise _error(answer, payload, call)
    found = mapping(payload)
    generation_id, state_name = text(found.get("id")), text(found.get("state"))
    if not generation_id or not state_name:
        what = "JSON that holds no generation" if found else content_kind(answer.content)
        raise LumaServerError(f"{call}: HTTP {answer.status}, {what}. {_NOT_LUMA}", status=answer.status)
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


def _request(call: str, body: Mapping[str, Any]) -> Request[Generation]:
    return Request(call, "POST", GENERATIONS, read_generation, body, request_id=str(uuid.uuid4()))


def _body(
    arguments: Mapping[str, Any],
    extra_body: Mapping[str, Any] | None,
    templated: Collection[str] = (),
    extends: str | None = None,
) -> dict[str, Any]:
    extra = merge_arguments(arguments, extra_body, templated)
    given = {name: extra.pop(name) for name in ARGUMENT_TYPES if name in extra}
    for name, instead in INSTEAD.items():
        if name in given:
            raise LumaInvalidRequest(f"{NAME} has no {name}. {instead}")
    for name, values in VALUES.items():
        if arguments.get(name) and name not in templated and arguments[name] not in values:
            raise LumaInvalidRequest(
                f"{name} is {', '.join(values[:-1])} or {values[-1]} on {NAME}, got {arguments[name]!r:.80}. "
                "A newer value goes into extra_body."
            )
    names = {"user_prompt": "prompt", "model_name": "model", "aspect_ratio": "aspect_ratio"}
    body = {to: given[name] for name, to in names.items() if name in given}
    video, extra_video = _video(given, templated, extends), extra.pop("video", {})
    if not isinstance(extra_video, dict):
        raise LumaInvalidRequest(f"video in extra_body must be a dict of fields, got {extra_video!r:.80}.")
    twice = [*(body.keys() & extra.keys()), *(f"video.{name}" for name in video.keys() & extra_video.keys())]
    if twice:
        raise LumaInvalidRequest(f"Given twice, as an argument and in extra_body: {', '.join(sorted(twice))}.")
    body = {"model": DEFAULT_MODEL, "type": "video", **body, **extra}
    if video or extra_video:
        body["video"] = {**video, **extra_video}
    _check_body(body, templated)
    return body


def _video(given: Mapping[str, Any], templated: Collection[str], extends: str | None) -> dict[str, Any]:
    """Return the part of a request that says how the video is to be."""
    video: dict[str, Any] = {name: given[name] for name in ("duration", "resolution", "loop") if name in given}
    for name, frame in (("image_url", "start_frame"), ("image_end_url", "end_frame")):
        if name in given and extends:
            raise LumaInvalidRequest(
                f"{name} does not go with extending on {NAME}, which takes the earlier generation and no image "
                "beside it. Leave it out."
            )
        if name in given:
            video[frame] = {} if name in templated else _reference(name, given[name])
    if extends:
        video["start_frame"] = {"generation_id": extends}
    return video


def _reference(argument: str, image: str) -> dict[str, Any]:
    """Return an image as a request has it."""
    scheme, _, rest = image.partition(":")
    if scheme.lower() == "https":
        return {"url": image}
    kind, _, encoded = rest.partition(",")
    media_type, *parameters = kind.split(";")
    if scheme.lower() == "data" and media_type and encoded and "base64" in parameters:
        return {"data": encoded, "media_type": media_type}
    raise LumaInvalidRequest(
        f"{argument} is an https URL, or a data: URI with an image type and base64, on {NAME}, got {image!r:.60}. "
        "LumaGenerateVideoOperator also takes a path in storage."
    )


def _check_body(body: Mapping[str, Any], templated: Collection[str]) -> None:
    length = len(str(body.get("prompt", "")))
    if length not in PROMPT_LENGTH and "user_prompt" not in templated:
        raise LumaInvalidRequest(
            f"user_prompt is needed on {NAME}, also beside an image, and has {PROMPT_LENGTH.start} to "
            f"{PROMPT_LENGTH.stop - 1:,} characters, got {length:,}."
        )
    if body["model"] in ("ray-v1", "ray-v2"):
        raise LumaInvalidRequest(
            f"model_name {body['model']} is a gateway's, and none on {NAME}: leave it out for {DEFAULT_MODEL}."
        )
    if body["type"] == "video" and (conflict := _conflict(body.get("video", {}))):
        raise LumaInvalidRequest(f"{conflict[0]} does not go with {conflict[1]} on {NAME}. {conflict[2]}".rstrip())


def _conflict(video: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return two things that do not go together, by the names that users know, and what there is instead."""
    named = {"start_frame": "image_url (video.start_frame)", "end_frame": "image_end_url (video.end_frame)"}
    has = {name: named.get(name, name) for name, value in video.items() if value or name in named}
    if video.get("duration") == "10s":
        has["10s"] = "duration 10s"
    if video.get("resolution") in VALUES["resolution"][:2]:
        has["low"] = f"resolution {video['resolution']}"
    if any("generation_id" in mapping(video.get(frame)) for frame in named):
        has["extend"] = "extending an earlier generation"
        if has.keys() >= named.keys():
            return has["extend"], "another frame", "It takes one anchor only."
    rules = (
        ("extend", ("10s", "hdr"), "It makes 5 s, without HDR."),
        ("10s", ("start_frame", "end_frame"), "10 s from images is keyframes in extra_body's video."),
        ("10s", ("loop",), ""),
        ("loop", ("hdr", "end_frame", "keyframes"), ""),
        ("hdr", ("low",) if "keyframes" in has else ("low", "10s"), "It needs 720p or 1080p, and keyframes for 10 s."),
        ("keyframes", ("start_frame", "end_frame"), "Put all images into keyframes."),
    )
    found = (
        (has[one], has[other], more) for one, others, more in rules if one in has for other in others if other in has
    )
    return next(found, None)


def _error(answer: Answer, payload: Any, call: str) -> LumaApiError:
    detail = _detail(mapping(payload).get("detail"))
    request_id = answer.headers.get("X-Request-Id")
    from_api = bool(detail and request_id)
    kind, advice = _KINDS.get(answer.status, (LumaInvalidRequest, "Change the request; nothing was charged."))
    more: dict[str, Any] = {}
    if answer.status >= 500 or answer.status == 408 or (answer.status in (401, 403) and not from_api):
        # A network's own page, also one that forbids, is no verdict on the key, and says nothing of a submission.
        kind, advice = LumaServerError, "Try again later."
        more = {"maybe_charged": not (from_api and answer.status in (502, 503))}
    if kind is LumaNotFound:
        more = {"from_gateway": from_api, "unknown_id": from_api and "X-API-Version" in answer.headers}
    if answer.status < 400:
        detail, advice = "a redirect, which is not followed", "Set the host to the API's own address."
    elif not from_api:
        advice = _NOT_LUMA
    return kind(
        f"{call}: HTTP {answer.status}, {detail or content_kind(answer.content)}. {advice}".rstrip(),
        status=answer.status,
        request_id=request_id,
        retry_after=parse_retry_after(answer.headers.get("Retry-After")),
        **more,
    )


def _detail(value: Any) -> str | None:
    """Return an error's text, which may be a list of what is wrong with which field."""
    if isinstance(value, list):
        places = [(".".join(map(str, _list(one.get("loc")))), one.get("msg")) for one in map(mapping, value)]
        value = "; ".join(f"{place}: {message}" for place, message in places)
    return short_text(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

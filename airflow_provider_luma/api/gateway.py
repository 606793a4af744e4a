"""
This gateway's dialect: its paths, field names and shapes, and nothing else knows them.

Source: the gateway's documentation, and that of its siblings where it documents one thing two ways.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pendulum

from airflow_provider_luma.api.errors import (
    UNKNOWN_ID,
    LumaApiError,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.generation import Generation, GenerationState

if TYPE_CHECKING:
    from pendulum import DateTime

DEFAULT_HOST = "https://www.kkiai.com"
SUBMIT_PATH = "/luma/generations"
QUERY_MANY_PATH = "/luma/tasks"

ARGUMENT_TYPES: Mapping[str, type] = {
    "user_prompt": str,
    "model_name": str,
    "duration": str,
    "resolution": str,
    "expand_prompt": bool,
    "loop": bool,
    "image_url": str,
    "image_end_url": str,
    "notify_hook": str,
}
EXTEND_ARGUMENTS = ("user_prompt", "expand_prompt", "image_url", "image_end_url", "notify_hook")
PROMPT_LENGTH = range(3, 5001)
LONGEST_RETRY_AFTER = 86400.0

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
_ADVICE: Mapping[type[LumaApiError], str] = {
    LumaAuthenticationError: "Check the token, and that it may use this model from this address.",
    LumaQuotaError: "Top up the balance of the token's account.",
    LumaInvalidRequest: "Change the request; sending it again as it is cannot help.",
    LumaRateLimited: "Wait, or run fewer generations at once (an Airflow pool limits them).",
}


def gateway_url(host: str | None, *, schema: str | None = None, port: int | None = None) -> str:
    """
    Return the URL that every path is appended to, for a host in any form a person would type.

    :param host: bare, with scheme, port or path, or empty for :data:`DEFAULT_HOST`.
    :param schema: ``http`` or ``https``, where the host names none; the default is ``https``, and ``http`` for
        this machine.
    :param port: where the host names none.
    :raises LumaInvalidRequest: what was given is no host.
    """
    typed = (host or "").strip() or DEFAULT_HOST
    if schema and schema not in ("http", "https"):
        raise LumaInvalidRequest(f"The schema must be http or https, got {schema!r}; a path belongs to the host.")
    try:
        parts = urlsplit(typed if "://" in typed else f"//{typed}")
        name, own_port = parts.hostname, parts.port
    except ValueError:
        # What was typed may hold a password, and so may the exception.
        raise LumaInvalidRequest("The host cannot be read: it is no address, or its port is no number.") from None
    if parts.username is not None or parts.query or parts.fragment or not name or set(name) & set(" \\"):
        raise LumaInvalidRequest(
            "The host must look like gateway.example.com, https://gateway.example.com:8443 or "
            "https://gateway.example.com/prefix. No user name, password or query; the token has a field of its own."
        )
    scheme = parts.scheme or schema or ("http" if is_this_machine(name) else "https")
    if scheme not in ("http", "https"):
        raise LumaInvalidRequest(f"The host must be reached by http or https, not {scheme}.")
    final_port = own_port or port
    netloc = f"[{name}]" if ":" in name else name
    if final_port:
        netloc = f"{netloc}:{final_port}"
    path = parts.path.rstrip("/").removesuffix(SUBMIT_PATH)
    return f"{scheme}://{netloc}{path}"


def is_this_machine(name: str) -> bool:
    """Say whether a host name or address means the machine that this runs on."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def generation_path(task_id: str) -> str:
    """Return the path of one generation; raise LumaInvalidRequest for what cannot be a task id."""
    if not isinstance(task_id, str) or not task_id.strip(". "):
        raise LumaInvalidRequest(f"A generation's task id must be a string such as a UUID, got {task_id!r:.80}.")
    return f"{SUBMIT_PATH}/{quote(task_id.strip(), safe='')}"


def extend_path(task_id: str) -> str:
    """Return the path that extends a generation."""
    return f"{generation_path(task_id)}/extend"


def request_body(
    arguments: Mapping[str, Any],
    extra_body: Mapping[str, Any] | None = None,
    *,
    not_known_yet: Collection[str] = (),
) -> dict[str, Any]:
    """
    Check the arguments of a submission or an extension and return its body.

    What is None or an empty string is left out. Values that the documentation does not list are let through.

    :param arguments: by the gateway's own names.
    :param extra_body: fields that the gateway takes and ``arguments`` has no name for.
    :param not_known_yet: names whose values are still templates, and count as given.
    :raises LumaInvalidRequest: what is missing, of the wrong type, too short, too long, or contradicts itself.
    """
    if extra_body is not None and not isinstance(extra_body, Mapping):
        raise LumaInvalidRequest(f"extra_body must be a dict of fields, got {extra_body!r:.80}.")
    extra = dict(extra_body or {})
    body = {name: value for name, value in arguments.items() if value is not None and value != ""}
    if twice := sorted(body.keys() & extra.keys()):
        raise LumaInvalidRequest(f"Given twice, as an argument and in extra_body: {', '.join(twice)}.")
    body.update(extra)

    for name, kind in ARGUMENT_TYPES.items():
        if name in body and name not in not_known_yet and not isinstance(body[name], kind):
            raise LumaInvalidRequest(
                f"{name} must be {'a string' if kind is str else 'True or False'}, "
                f"got {type(body[name]).__name__} {body[name]!r:.80}."
            )
    if not body.keys() & {"user_prompt", "image_url", "image_end_url"}:
        raise LumaInvalidRequest("A generation needs a user_prompt, or an image_url to start from.")
    if "user_prompt" in body and "user_prompt" not in not_known_yet:
        length = len(body["user_prompt"])
        if length not in PROMPT_LENGTH:
            raise LumaInvalidRequest(
                f"user_prompt must have {PROMPT_LENGTH.start} to {PROMPT_LENGTH.stop - 1:,} characters, got {length:,}."
            )
    if body.get("loop") is True and "image_end_url" in body:
        raise LumaInvalidRequest("loop does not go with image_end_url: a loop ends where it began.")
    if not not_known_yet:
        encode(body)
    return body


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as it is sent; raise LumaInvalidRequest for what JSON cannot hold."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LumaInvalidRequest(f"The request cannot be written as JSON: {error}.") from error


def read_answer(status: int, content: bytes, headers: Mapping[str, str], *, call: str) -> Any:
    """
    Return the JSON that the gateway answered, out of its envelope where it has one.

    :param call: what was asked of whom, to begin an error's message with.
    :raises LumaApiError: the answer is an error, in any of the documented shapes, or cannot be read.
    """
    try:
        payload = json.loads(content)
    except (ValueError, RecursionError):
        payload = None
    if not 200 <= status < 300:
        raise _error(status, payload, content, headers, call=call)
    if payload is None:
        raise LumaServerError(f"{call}: answered {status} with {_glimpse(content)}.", status=status)
    if not isinstance(payload, dict) or payload.keys() & {"id", "state"}:
        return payload
    code = _described(payload)[0] or ""
    if payload.keys() & {"error", "detail"} or code.lower() not in _SUCCESS_CODES:
        # Some answer 200 and say the status in the body.
        meant = int(code) if re.fullmatch("[45][0-9][0-9]", code) else None
        raise _error(status, payload, content, headers, call=call, meant=meant)
    return payload["data"] if payload.keys() >= {"code", "data"} else payload


def parse_generation(payload: Any, *, call: str, task_id: str | None = None) -> Generation:
    """
    Return the generation in an answer: flat, a row of the gateway's task table, or a bare task id.

    :param task_id: the id that was asked for, for an answer that has a state and leaves the id out.
    :raises LumaServerError: there is none in it.
    """
    if isinstance(payload, str) and payload.strip():
        payload = {"task_id": payload.strip(), "status": "submitted"}
    row = _object(payload)
    work = _object(row.get("data")) if "task_id" in row else row
    artifact = _object(work.get("artifact"))

    def part(name: str) -> Mapping[str, Any]:
        return _object(work.get(name)) or _object(artifact.get(name))

    names = [name for name in map(_text, (work.get("state"), row.get("status"), row.get("task_status"))) if name]
    states = [(_STATES.get(name.lower(), GenerationState.UNKNOWN), name) for name in names]
    states.sort(key=lambda known: (not known[0].terminal, known[0] is GenerationState.UNKNOWN))
    state, state_name = states[0] if states else (GenerationState.UNKNOWN, "")

    own_id = _text(row.get("task_id")) or _text(work.get("id"))
    # A gateway may nest the id that its own supplier knows; the one that was asked for is the one it answers to.
    found_id = task_id if task_id and (own_id or names) else own_id
    if found_id is None:
        raise LumaServerError(f"{call}: answered with JSON that holds no generation.", status=200)
    video, video_raw = part("video"), part("video_raw")
    return Generation(
        id=found_id,
        state=state,
        state_name=state_name,
        video_url=_text(video.get("url")),
        download_url=_text(video.get("download_url")),
        video_raw_url=_text(video_raw.get("url")),
        thumbnail_url=_text(part("thumbnail").get("url")),
        last_frame_url=_text(part("last_frame").get("url")),
        width=_whole(video.get("width")) or _whole(video_raw.get("width")),
        height=_whole(video.get("height")) or _whole(video_raw.get("height")),
        duration=_number(video_raw.get("duration")) or _number(video.get("duration")),
        created_at=_time(work.get("created_at")) or _time(row.get("created_at")),
        failure_reason=_text(work.get("failure_reason")) or _text(row.get("fail_reason")),
        estimate_wait_seconds=_number(work.get("estimate_wait_seconds")),
        finished_at=_time(row.get("finish_time") or None),
        raw=row,
    )


def parse_generations(payload: Any, *, call: str) -> dict[str, Generation]:
    """Return the generations of a query-many answer by their ids; raise LumaServerError where it is no list."""
    if not isinstance(payload, list):
        raise LumaServerError(f"{call}: answered with JSON that is no list of generations.", status=200)
    generations: dict[str, Generation] = {}
    for item in payload:
        # What cannot be read is as good as left out, and does not blind us to the others.
        with suppress(LumaServerError):
            generation = parse_generation(item, call=call)
            generations[generation.id] = generation
    return generations


def parse_state(name: str) -> GenerationState:
    """Return the state that a word of the gateway's, or of one of its siblings, means; raise ValueError for others."""
    try:
        return _STATES[str(name).lower()]
    except KeyError:
        choices = "pending, processing, completed or failed"
        raise LumaInvalidRequest(f"A generation's state is {choices}, got {name!r:.80}.") from None


def _error(
    status: int,
    payload: Any,
    content: bytes,
    headers: Mapping[str, str],
    *,
    call: str,
    meant: int | None = None,
) -> LumaApiError:
    """Return the error for an answer, by ``meant`` where the body says another status than HTTP does."""
    code, text = _described(payload)
    meant = meant or status
    # Only with these two statuses is this body known to be the gateway's own refusal, and not something before it.
    detailed = "detail" in _object(payload) and status in (401, 500)
    kind: type[LumaApiError]
    if meant == 402 or code == "insufficient_user_quota":
        kind = LumaQuotaError
    elif meant in (404, 405) or code == UNKNOWN_ID:
        kind = LumaNotFound
    elif meant in (401, 403) or (detailed and _speaks_of_token(text)):
        kind = LumaAuthenticationError
    elif meant == 429:
        kind = LumaRateLimited
    elif meant >= 500 or meant == 408:
        kind = LumaServerError
    elif meant >= 300:
        kind = LumaInvalidRequest
    else:
        kind = LumaApiError

    said = ", ".join(dict.fromkeys(filter(None, (code, text)))) or _glimpse(content)
    advice = _ADVICE.get(kind, "")
    if 300 <= status < 400:
        said = f"a redirect{_to_host(headers.get('Location', ''))}, which is not followed"
        advice = "Set the host to the gateway's own address."
    elif kind is LumaNotFound and code is None:
        advice = "Is the host a Luma gateway, with its path where it has one?"
    error = kind(
        f"{call}: HTTP {status}, {said}. {advice}".rstrip(),
        status=status,
        code=code,
        request_id=_text(_object(payload).get("request_id")) or headers.get("X-Oneapi-Request-Id"),
    )
    if isinstance(error, LumaRateLimited | LumaServerError):
        error.retry_after = seconds_until(headers.get("Retry-After"))
    if isinstance(error, LumaNotFound):
        error.of_gateway = bool(code or text)
    if isinstance(error, LumaServerError):
        error.maybe_charged = status >= 400 and not detailed
    return error


def _described(payload: Any) -> tuple[str | None, str | None]:
    """Return the code and the message of an error body, in whichever of its three shapes."""
    body = _object(payload)
    for key in ("error", "detail"):
        if key in body:
            inner = _object(body[key])
            text = inner.get("message") or inner.get("reason") or body[key]
            return _word(inner.get("code")), _shortened(_text(text))
    return _word(body.get("code")), _shortened(_text(body.get("message")))


def _speaks_of_token(text: str | None) -> bool:
    words = (
        r"unauthori[sz]ed|(invalid|bad|missing|expired|no) (api )?(key|token)|(key|token) is (invalid|missing|expired)"
    )
    return re.search(words, text or "", re.IGNORECASE) is not None


def _to_host(location: str) -> str:
    """Return where a redirect leads, without its path and query, which may hold a secret."""
    with suppress(ValueError):
        target = urlsplit(location)
        if target.hostname:
            return f" to {target.scheme}://{target.hostname}"
    return ""


def _glimpse(content: bytes) -> str:
    """Say what kind of thing came instead of JSON; never the thing itself, which may be a whole page."""
    start = content[:200].lstrip().lower()
    if not start:
        return "nothing in it"
    if start.startswith(b"<"):
        return "an HTML page"
    return "JSON that says nothing" if start[:1] in b'{["n' else "something that is not JSON"


def _shortened(text: str | None) -> str | None:
    return " ".join(text[:300].split()) if text else None


def seconds_until(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header means, given as seconds or as a date: a day at most."""
    if not retry_after:
        return None
    try:
        seconds = _number(float(retry_after)) or 0.0
    except ValueError:
        try:
            moment = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _word(value: Any) -> str | None:
    """Return an error code, which is a word for one gateway and a number for another."""
    return str(value)[:80] if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e15 and math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _time(value: Any) -> DateTime | None:
    """Return a time given in RFC 3339, or in seconds or milliseconds since 1970; the gateway's year 1 is none."""
    if isinstance(value, str):
        return _written_time(value)
    number = _number(value)
    try:
        return None if number is None else pendulum.from_timestamp(number / 1000 if number > 1e11 else number)
    except (ValueError, OverflowError, OSError):
        return None


# To read the time is half the work of reading a generation, which is asked about again and again.
@functools.lru_cache(maxsize=10_000)
def _written_time(text: str) -> DateTime | None:
    try:
        parsed = pendulum.parse(text)
        return parsed.in_timezone("UTC") if isinstance(parsed, pendulum.DateTime) and parsed.year > 1 else None
    except (TypeError, ValueError, OverflowError, OSError):
        # pendulum has a TypeError for some strings that look like a time.
        return None

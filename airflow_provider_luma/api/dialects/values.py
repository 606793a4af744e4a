"""A value out of JSON as the type that it should have, or None: an API may have written anything there."""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Any

import pendulum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pendulum import DateTime


def json_value(content: bytes) -> Any:
    """Return what JSON holds, None also where it is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    """Return a text that is not blank."""
    return value.strip() or None if isinstance(value, str) else None


def short_text(value: Any) -> str | None:
    """Return a text on one line, of 300 characters at most."""
    found = text(value)
    return " ".join(found[:300].split()) if found else None


def error_code(value: Any) -> str | None:
    """Return an error code, which is a word for one API and a number for another."""
    return str(value)[:80] if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


def number(value: Any) -> float | None:
    """Return a number of a size that makes sense."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e15 and math.isfinite(value) else None


def whole_number(value: Any) -> int | None:
    """Return a number without its fraction."""
    found = number(value)
    return None if found is None else int(found)


def time(value: Any) -> DateTime | None:
    """Return a time given in RFC 3339, or in seconds or milliseconds since 1970; the gateway's year 1 is none."""
    if isinstance(value, str):
        return _written_time(value)
    found = number(value)
    try:
        return None if found is None else pendulum.from_timestamp(found / 1000 if found > 1e11 else found)
    except (ValueError, OverflowError, OSError):
        return None


# Reading the time is half the work of reading a generation, which is polled again and again.
@functools.lru_cache(maxsize=10_000)
def _written_time(written: str) -> DateTime | None:
    try:
        parsed = pendulum.parse(written)
        return parsed.in_timezone("UTC") if isinstance(parsed, pendulum.DateTime) and parsed.year > 1 else None
    except (TypeError, ValueError, OverflowError, OSError):
        # pendulum has a TypeError for some strings that look like a time.
        return None


def content_kind(content: bytes) -> str:
    """Return what kind of thing came in place of a readable answer; never the thing, which may be a whole page."""
    start = content[:200].lstrip().lower()
    if not start:
        return "nothing in it"
    if start.startswith(b"<"):
        return "an HTML page"
    return "JSON without an error message" if start[:1] in b'{["n' else "something that is not JSON"

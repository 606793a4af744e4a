"""A value out of JSON as the type that it should have, or None: an API may have written anything there."""

from __future__ import annotations

import functools
import json
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
    return " ".join((text(value) or "")[:300].split()) or None


def error_code(value: Any) -> str | None:
    """Return an error code, which is a word for one API and a number for another."""
    return str(value)[:80] or None if isinstance(value, str | int) else None


def number(value: Any) -> float | None:
    """Return a number of a size that makes sense."""
    return value if isinstance(value, int | float) and abs(value) < 1e15 else None


def whole_number(value: Any) -> int | None:
    """Return a number without its fraction."""
    found = number(value)
    return None if found is None else int(found)


def time(value: Any) -> DateTime | None:
    """Return a time given in RFC 3339, or in seconds or milliseconds since 1970; 0 is none."""
    return _time(value) if value and isinstance(value, str | int | float) else None


# Reading the time is half the work of reading a generation, which is polled again and again.
@functools.lru_cache(maxsize=10_000)
def _time(value: str | float) -> DateTime | None:
    try:
        if isinstance(value, str):
            parsed = pendulum.parse(value)
            return parsed.in_timezone("UTC") if isinstance(parsed, pendulum.DateTime) else None
        return pendulum.from_timestamp(value / 1000 if value > 1e11 else value)
    except (TypeError, ValueError, OverflowError, OSError):
        # pendulum has a TypeError for some strings that look like a time.
        return None


def content_kind(content: bytes) -> str:
    """Return what kind of thing came in place of a readable answer; never the thing, which may be a whole page."""
    return "an HTML page" if content.lstrip().startswith(b"<") else "no message that can be read"

"""JSON values as the types they should have, or None: an answer may contain anything."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import pendulum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pendulum import DateTime


def json_value(content: bytes) -> Any:
    """Parse JSON; return None if it is invalid."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def array(value: Any) -> list[Any]:
    """Return a JSON array, or an empty one."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """Return a text that is not blank."""
    return value.strip() or None if isinstance(value, str) else None


def identifier(value: Any) -> str | None:
    """Return an id; some APIs use numbers."""
    return text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def short_text(value: Any) -> str | None:
    """Return a text on one line, with at most 300 characters."""
    return " ".join((text(value) or "")[:300].split()) or None


def detail_text(value: Any) -> str | None:
    """Return the text of an error's ``detail``: a text, or a list of the fields that are wrong."""
    if isinstance(value, list):
        places = [(".".join(map(str, array(item.get("loc")))), item.get("msg")) for item in map(mapping, value)]
        value = "; ".join(f"{place}: {message}" for place, message in places)
    return short_text(value)


def error_code(value: Any) -> str | None:
    """Return an error code; some APIs use a word, others a number."""
    return str(value)[:80] or None if isinstance(value, str | int) else None


def number(value: Any) -> float | None:
    """Return a number of a plausible size."""
    return value if isinstance(value, int | float) and abs(value) < 1e15 else None


def whole_number(value: Any) -> int | None:
    """Return a number without its fraction."""
    found = number(value)
    return None if found is None else int(found)


def time(value: Any) -> DateTime | None:
    """Return a time from RFC 3339, or from seconds or milliseconds since 1970; 0 means unknown."""
    return _time(value) if value and isinstance(value, str | int | float) else None


# A generation is polled again and again, and its time is half the work of reading it.
@functools.lru_cache(maxsize=10_000)
def _time(value: str | float) -> DateTime | None:
    try:
        if isinstance(value, str):
            parsed = pendulum.parse(value)
            return parsed.in_timezone("UTC") if isinstance(parsed, pendulum.DateTime) else None
        return pendulum.from_timestamp(value / 1000 if value > 1e11 else value)
    except (TypeError, ValueError, OverflowError, OSError):
        # pendulum raises TypeError for some texts that look like a time.
        return None

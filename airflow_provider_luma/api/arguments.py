"""The table of a submission's arguments, under the names that users type. All lists of arguments are made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from airflow_provider_luma.api.errors import LumaInvalidRequest


class Argument(NamedTuple):
    """
    One row of :data:`ARGUMENTS`.

    :param read: converts a rendered value to the argument's type; raises LumaInvalidRequest for a wrong value.
    :param extends: an extension accepts it.
    :param shown: the Luma tab shows it. ``extra_body`` and ``notify_hook`` may contain secrets.
    """

    read: Callable[[str, Any], Any]
    extends: bool = False
    shown: bool = False


def text(name: str, value: Any) -> str:
    """Read a text; a whole number is one, too, because native rendering turns ``"2024"`` into 2024."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LumaInvalidRequest(f"{name} must be a string, got {type(value).__name__} {value!r:.80}.")
    return str(value)


def image(name: str, value: Any) -> str:
    """Read an image: a URL, a ``data:`` URI, or a path."""
    return text(name, str(value) if hasattr(value, "joinpath") else value).strip()


def boolean(name: str, value: Any) -> bool:
    """Read a boolean, or the word for it that a template renders."""
    flag: bool = parse_bool(value)
    check_flags(**{name: flag})
    return flag


ARGUMENTS: Mapping[str, Argument] = {
    "user_prompt": Argument(text, extends=True, shown=True),
    "model_name": Argument(text, shown=True),
    "duration": Argument(text, shown=True),
    "resolution": Argument(text, shown=True),
    "aspect_ratio": Argument(text, shown=True),
    "expand_prompt": Argument(boolean, extends=True),
    "loop": Argument(boolean),
    "image_url": Argument(image, extends=True, shown=True),
    "image_end_url": Argument(image, extends=True, shown=True),
    "notify_hook": Argument(text, extends=True),
}
EXTEND_ARGUMENTS = tuple(name for name, argument in ARGUMENTS.items() if argument.extends)
IMAGES = tuple(name for name, argument in ARGUMENTS.items() if argument.read is image)


def read_arguments(given: Mapping[str, Any], allowed: tuple[str, ...] = tuple(ARGUMENTS)) -> dict[str, Any]:
    """
    Convert rendered values to the arguments' types; None, ``"None"`` and an empty text are left out.

    :param given: values by name.
    :param allowed: the arguments that this call accepts.
    :raises LumaInvalidRequest: an argument does not exist here, or its value has a wrong type.
    """
    if unknown := sorted(given.keys() - {*allowed}):
        raise LumaInvalidRequest(f"There is no argument {', '.join(unknown)} here: put it into extra_body.")
    found = {name: given[name] for name in allowed if given.get(name) not in (None, "None")}
    read = {name: ARGUMENTS[name].read(name, value) for name, value in found.items() if value != ""}
    return {name: value for name, value in read.items() if value != ""}


def merge(fields: Mapping[str, Any], extra: Any, where: str = "extra_body") -> dict[str, Any]:
    """
    Add further fields to those of a request.

    :param extra: the further fields, a dict or None.
    :param where: the name of ``extra`` in a message.
    :raises LumaInvalidRequest: ``extra`` is not a dict, or a field is in both.
    """
    if not isinstance(extra, Mapping | None) or not all(isinstance(name, str) for name in extra or ()):
        raise LumaInvalidRequest(f"{where} must be a dict with strings as keys, got {extra!r:.80}.")
    if twice := sorted(fields.keys() & (extra or {}).keys()):
        raise LumaInvalidRequest(f"Given twice, as an argument and in {where}: {', '.join(twice)}.")
    return {**fields, **(extra or {})}


def check_generation_id(value: Any, advice: str = "") -> str:
    """Return a generation id without spaces around it; raise LumaInvalidRequest, with the advice, for other values."""
    generation_id = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    # A template turns a missing XCom into "None", and a list into "['a', 'b']".
    if not generation_id.strip(".") or generation_id == "None" or re.search(r"[\[\]{}'\",]", generation_id):
        raise LumaInvalidRequest(
            f"A generation id must be a string such as a UUID, got {value!r:.80}. {advice}".rstrip()
        )
    return generation_id


def check_poll_interval(value: Any, name: str = "poll_interval") -> float:
    """
    Return a poll interval in seconds.

    :param value: a positive number of seconds, or a ``timedelta``.
    :param name: the argument's name, for the message.
    :raises LumaInvalidRequest: the value is something else, such as 0, NaN or text.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    # The limit is about thirty years: no sleep can be longer.
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e9:
        return float(seconds)
    raise LumaInvalidRequest(f"{name} must be a positive number of seconds or a timedelta, got {value!r:.80}.")


def check_flags(**flags: Any) -> None:
    """Raise LumaInvalidRequest if a flag is not a boolean: the text "False" would be true."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise LumaInvalidRequest(f"{name} must be True or False, got {type(value).__name__} {value!r:.80}.")


def parse_bool(value: Any) -> Any:
    """Convert the words true and false to booleans; return any other value unchanged."""
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value


def encode(body: Mapping[str, Any]) -> bytes:
    """
    Encode a request's body as JSON; equal bodies give equal texts.

    :raises LumaInvalidRequest: it has a value or a key that JSON cannot express.
    """
    try:
        return json.dumps(body, allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LumaInvalidRequest(f"The request cannot be written as JSON: {error}.") from error

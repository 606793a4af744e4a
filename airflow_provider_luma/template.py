"""Arguments that are only known when the task runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_template(value: Any) -> bool:
    """Return whether a value is only known when the task runs: an XComArg, or text with Jinja in it."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_template(part) for part in value.values())
    if hasattr(value, "joinpath"):
        return is_template(str(value))
    return hasattr(value, "resolve")


def parse_bool(value: Any) -> Any:
    """Return what a text means that says true or false, as of a template or a URI; anything else as it is."""
    return {"true": True, "false": False}.get(value.strip().lower(), value) if isinstance(value, str) else value

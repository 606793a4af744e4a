"""The arguments of a submission, by the names that users type, before any API has its say."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from airflow_provider_luma.api.errors import LumaInvalidRequest

ARGUMENT_TYPES: Mapping[str, type] = {
    "user_prompt": str,
    "model_name": str,
    "duration": str,
    "resolution": str,
    "aspect_ratio": str,
    "expand_prompt": bool,
    "loop": bool,
    "image_url": str,
    "image_end_url": str,
    "notify_hook": str,
}
EXTEND_ARGUMENTS = ("user_prompt", "expand_prompt", "image_url", "image_end_url", "notify_hook")


def merge_arguments(
    arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None, templated: Collection[str] = ()
) -> dict[str, Any]:
    """
    Return the arguments and the fields of ``extra_body`` in one; what is None or an empty string is left out.

    :param arguments: by the names of :data:`ARGUMENT_TYPES`.
    :param extra_body: further fields.
    :param templated: names whose values are still templates.
    :raises LumaInvalidRequest: one has the wrong type, is given twice, or cannot be written as JSON.
    """
    if extra_body is not None and not isinstance(extra_body, Mapping):
        raise LumaInvalidRequest(f"extra_body must be a dict of fields, got {extra_body!r:.80}.")
    extra = dict(extra_body or {})
    merged = {name: value for name, value in arguments.items() if value is not None and value != ""}
    if twice := sorted(merged.keys() & extra.keys()):
        raise LumaInvalidRequest(f"Given twice, as an argument and in extra_body: {', '.join(twice)}.")
    merged.update(extra)
    for name, kind in ARGUMENT_TYPES.items():
        if name in merged and name not in templated and not isinstance(merged[name], kind):
            raise LumaInvalidRequest(
                f"{name} must be {'a string' if kind is str else 'True or False'}, "
                f"got {type(merged[name]).__name__} {merged[name]!r:.80}."
            )
    if not templated:
        encode(merged)
    return merged


def check_generation_id(generation_id: Any) -> str:
    """Return a generation id; raise LumaInvalidRequest for what cannot be one."""
    if not isinstance(generation_id, str) or not generation_id.strip(". "):
        raise LumaInvalidRequest(f"A generation id must be a string such as a UUID, got {generation_id!r:.80}.")
    return generation_id.strip()


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as it is sent; raise LumaInvalidRequest for what JSON cannot hold."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LumaInvalidRequest(f"The request cannot be written as JSON: {error}.") from error

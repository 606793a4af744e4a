"""The arguments of a submission, by the names that users type, before any API has its say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypedDict, get_args, get_type_hints

from airflow_provider_luma.api.errors import LumaInvalidRequest


class ExtendArguments(TypedDict, total=False):
    """What an extension may have beside its prompt."""

    expand_prompt: bool | None
    image_url: str | None
    image_end_url: str | None
    notify_hook: str | None


class SubmitArguments(ExtendArguments, total=False):
    """What a submission may have beside its prompt."""

    model_name: str | None
    duration: str | None
    resolution: str | None
    aspect_ratio: str | None
    loop: bool | None


ARGUMENT_TYPES: Mapping[str, type] = {
    "user_prompt": str,
    **{name: get_args(hint)[0] for name, hint in get_type_hints(SubmitArguments).items()},
}
EXTEND_ARGUMENTS = ("user_prompt", *ExtendArguments.__annotations__)


class Template(str):
    """An argument whose value is still a template: it counts as given, and as right."""

    __slots__ = ()


def merge_arguments(arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    Return the arguments and the fields of ``extra_body`` in one; what is None or an empty string is left out.

    :param arguments: by the names of :data:`ARGUMENT_TYPES`.
    :param extra_body: further fields.
    :raises LumaInvalidRequest: one has another name or type, is given twice, or cannot be written as JSON.
    """
    if unknown := sorted(arguments.keys() - ARGUMENT_TYPES.keys()):
        raise LumaInvalidRequest(f"There is no argument {', '.join(unknown)}: put it into extra_body.")
    given = {name: value for name, value in arguments.items() if value is not None and value != ""}
    merged = merge(given, {} if extra_body is None else extra_body)
    for name, kind in ARGUMENT_TYPES.items():
        if name in merged and not isinstance(merged[name], (kind, Template)):
            raise LumaInvalidRequest(
                f"{name} must be {'a string' if kind is str else 'True or False'}, "
                f"got {type(merged[name]).__name__} {merged[name]!r:.80}."
            )
    encode(merged)
    return merged


def merge(given: Mapping[str, Any], extra: Any, where: str = "extra_body") -> dict[str, Any]:
    """
    Return fields that arguments have become, and further ones, in one.

    :param where: what ``extra`` is, for a message.
    :raises LumaInvalidRequest: ``extra`` is no dict, or a field is in both.
    """
    if not isinstance(extra, Mapping):
        raise LumaInvalidRequest(f"{where} must be a dict of fields, got {extra!r:.80}.")
    if twice := sorted(given.keys() & extra.keys()):
        raise LumaInvalidRequest(f"Given twice, as an argument and in {where}: {', '.join(twice)}.")
    return {**given, **extra}


def check_length(prompt: str | None, allowed: range) -> None:
    """Raise LumaInvalidRequest for a prompt that is too short or too long."""
    if prompt and not isinstance(prompt, Template) and len(prompt) not in allowed:
        raise LumaInvalidRequest(
            f"user_prompt must have {allowed.start} to {allowed.stop - 1:,} characters, got {len(prompt):,}."
        )


def check_generation_id(generation_id: Any, advice: str = "") -> str:
    """Return a generation id; raise LumaInvalidRequest, which ends with the advice, for what cannot be one."""
    if not isinstance(generation_id, str) or not generation_id.strip(". "):
        raise LumaInvalidRequest(
            f"A generation id must be a string such as a UUID, got {generation_id!r:.80}. {advice}".rstrip()
        )
    return generation_id.strip()


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as it is sent; raise LumaInvalidRequest for what JSON cannot hold."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LumaInvalidRequest(f"The request cannot be written as JSON: {error}.") from error

"""Luma's own SDK as the judge of what is submitted to Luma's own API."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from luma_agents.types.generation_create_params import GenerationCreateParams
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import is_typeddict


def judge(body: Any, params: Any = GenerationCreateParams) -> None:
    """
    Check a body by the SDK's request types: its names, its types and its words.

    The SDK knows no rule between two fields, such as 10 s with a first frame; the sandbox does.

    :param params: the SDK's type for the call.
    :raises pydantic.ValidationError: if the SDK's types do not have it.
    """
    exhaust(_adapter(params).validate_python(body, strict=True))


def judge_submissions(requests: Iterable[Any]) -> int:
    """Check every submission to Luma's own API among these requests of a sandbox, and return how many there were."""
    bodies = [request.body for request in requests if (request.method, request.path) == ("POST", "/v1/generations")]
    for body in bodies:
        judge(body)
    return len(bodies)


@cache
def _adapter(params: Any) -> TypeAdapter[Any]:
    for one in nested(params):
        one.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(params)


def nested(annotation: Any) -> Iterator[Any]:
    """Find the typed dictionaries in an annotation, itself included."""
    if is_typeddict(annotation):
        yield annotation
        for inner in typing.get_type_hints(annotation).values():
            yield from nested(inner)
    for argument in typing.get_args(annotation):
        yield from nested(argument)


def exhaust(value: Any) -> None:
    """Go through all that was validated: pydantic validates what is in an iterable only when it is taken out."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, str) or not isinstance(value, Iterable):
        return
    for inner in value:
        exhaust(inner)

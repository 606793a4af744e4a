"""Luma's own SDK judges the submissions to Luma's own API."""

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
    Check the names, types and words of a body with the SDK's request types.

    The SDK has no rules between fields, such as 10 s with a first frame; the sandbox has them.

    :param params: the SDK's type for the call.
    :raises pydantic.ValidationError: if the body does not fit the type.
    """
    exhaust(_adapter(params).validate_python(body, strict=True))


def judge_submissions(requests: Iterable[Any]) -> int:
    """Check every submission to Luma's own API in a sandbox's requests; return the number of submissions."""
    bodies = [request.body for request in requests if (request.method, request.path) == ("POST", "/v1/generations")]
    for body in bodies:
        judge(body)
    return len(bodies)


@cache
def _adapter(params: Any) -> TypeAdapter[Any]:
    for typed_dict in nested(params):
        typed_dict.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(params)


def nested(annotation: Any) -> Iterator[Any]:
    """Return all typed dictionaries in an annotation."""
    if is_typeddict(annotation):
        yield annotation
        for inner in typing.get_type_hints(annotation).values():
            yield from nested(inner)
    for argument in typing.get_args(annotation):
        yield from nested(argument)


def exhaust(value: Any) -> None:
    """Iterate over the whole value, because pydantic validates the items of an iterable only on iteration."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, str) or not isinstance(value, Iterable):
        return
    for inner in value:
        exhaust(inner)

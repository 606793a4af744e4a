"""
The APIs that offer Luma's models: one module each, which alone knows its paths, names, shapes and errors.

A new one is a module with what :class:`~airflow_provider_luma.api.dialects.protocol.Dialect` lists, and a line in
:data:`DIALECTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_luma.api.dialects import gateway
from airflow_provider_luma.api.dialects.protocol import Answer, Dialect, Request
from airflow_provider_luma.api.errors import LumaInvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["DIALECTS", "Answer", "Dialect", "Request", "check_arguments"]

DIALECTS: Mapping[str, Dialect] = {"gateway": gateway}


def check_arguments(
    arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None, templated: Collection[str] = ()
) -> None:
    """
    Raise LumaInvalidRequest for arguments that every API would refuse: which one it is, only a running task knows.

    :param arguments: by the names that users type.
    :param extra_body: fields that ``arguments`` has no name for.
    :param templated: names whose values are still templates, and count as given.
    """
    refused: list[LumaInvalidRequest] = []
    for dialect in DIALECTS.values():
        try:
            dialect.check(arguments, extra_body, templated)
        except LumaInvalidRequest as error:
            refused.append(error)
    if len(refused) == len(DIALECTS):
        raise refused[0]

"""
The APIs that offer Luma's models: one module each, which alone knows its paths, names, shapes and errors.

A new one is a module with what :class:`~airflow_provider_luma.api.dialects.protocol.Dialect` lists, and a line in
:data:`DIALECTS`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_luma.api.arguments import merge_arguments
from airflow_provider_luma.api.dialects import agents, gateway
from airflow_provider_luma.api.dialects.protocol import Answer, Dialect, Request
from airflow_provider_luma.api.errors import LumaInvalidRequest
from airflow_provider_luma.api.url import base_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DIALECTS", "Answer", "Dialect", "Request", "check_arguments", "choose_dialect"]

DIALECTS: Mapping[str, Dialect] = {"gateway": gateway, "agents": agents}

_FORMER_HOST = "api.lumalabs.ai"
_FORMER_API = (
    "Luma's former API (Dream Machine, api.lumalabs.ai) is not supported. Its current one, at agents.lumalabs.ai, "
    "needs a key of its own, which begins with luma-api-. Nothing was sent."
)


def choose_dialect(chosen: Any, host: str | None, token: str) -> str:
    """
    Return which API is meant, a key of :data:`DIALECTS`: the one chosen, else the host's, else the token's.

    A key of Luma's goes to nobody else, unless the gateway was chosen in so many words.

    :param chosen: a key of :data:`DIALECTS`, or nothing.
    :param host: as a person typed it, or nothing.
    :param token: the API token, which Luma begins with ``luma-``.
    :raises LumaInvalidRequest: the choice is none, the host or the key is of Luma's former API, or a key of Luma's
        would go to a gateway.
    """
    choice = str(chosen or "").strip().lower()
    if choice and choice not in DIALECTS:
        raise LumaInvalidRequest(f"the extra 'api' must be {' or '.join(DIALECTS)}, got {chosen!r:.40}.")
    # Which dialect the host is read with makes no difference to its name.
    name = (urlsplit(base_url(host, gateway)).hostname or "").rstrip(".") if (host or "").strip() else ""
    lumas = re.match(r"(?i)\W*(bearer\W+)?luma-(api-)?", token)
    at_luma = name == agents.HOST or (not name and lumas is not None)
    found = choice or ("agents" if at_luma else "gateway")
    if name == _FORMER_HOST or (lumas and not lumas[2] and found == "agents" and at_luma):
        raise LumaInvalidRequest(_FORMER_API)
    if lumas and found == "gateway" and not choice:
        raise LumaInvalidRequest(
            f"the API token begins with luma-, so it is a key of Luma's own, which is not sent to {name}. For Luma's "
            f"own API, leave the host empty or set it to {agents.HOST}; for a proxy before that, or a sandbox, set the "
            "extra 'api' to agents. If the gateway itself gave you this token, set the extra 'api' to gateway. "
            "Nothing was sent."
        )
    return found


def check_arguments(arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None) -> None:
    """
    Raise LumaInvalidRequest for arguments that every API would refuse: which one it is, only a running task knows.

    :param arguments: by the names that users type.
    :param extra_body: fields that ``arguments`` has no name for.
    """
    given = merge_arguments(arguments, extra_body)
    refused: list[LumaInvalidRequest] = []
    for dialect in DIALECTS.values():
        try:
            dialect.submission(given)
        except LumaInvalidRequest as error:
            refused.append(error)
    if len(refused) == len(DIALECTS):
        raise refused[0]

"""
The dialects: one module for each API of :mod:`airflow_provider_luma.apis`. Only they know paths, names and shapes.

A new API is a module with the names of :class:`~airflow_provider_luma.api.dialects.protocol.Dialect`, and a row in
``apis.py``.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_luma.api.errors import LumaInvalidRequest
from airflow_provider_luma.apis import APIS, RETIRED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_luma.api.dialects.protocol import Dialect
    from airflow_provider_luma.apis import Api

DIALECTS: Mapping[str, Dialect] = {name: cast("Dialect", import_module(f"{__name__}.{name}")) for name in APIS}


def choose_api(chosen: Any, host: str, token: str) -> Api:
    """
    Return the API of a connection: the chosen one, else the host's, else the key's, else the default.

    A key that belongs to an API is sent to another API only if that API is ``chosen``.

    :param chosen: the connection's extra ``api``: a name of :data:`~airflow_provider_luma.apis.APIS`, or empty.
    :param host: the host's name, or empty.
    :param token: the API token.
    :raises LumaInvalidRequest: ``chosen`` is unknown, the host or key belongs to an API that is not supported, or a
        key would be sent to a host that it does not belong to.
    """
    name = str(chosen or "").strip().lower()
    if name and name not in APIS:
        raise LumaInvalidRequest(f"the extra 'api' must be {' or '.join(APIS)}, got {chosen!r:.40}.")
    key, host = re.sub(r"(?i)^\W*(bearer\W+)?", "", token).lower(), host.rstrip(".")
    known = (*APIS.values(), *RETIRED)
    host_owner = next((api for api in known if host in api.hosts), None)
    # The longest prefix counts: the keys of a company's APIs may begin alike.
    owners = [api for api in known if api.key_prefix and key.startswith(api.key_prefix)]
    key_owner = max(owners, key=lambda api: len(api.key_prefix), default=None)
    if host_owner and host_owner.retired:
        raise LumaInvalidRequest(host_owner.retired)
    owner = host_owner if host else key_owner
    found = APIS.get(name or (owner.name if owner else ""), next(iter(APIS.values())))
    is_at_home = bool(found.hosts) and (not host or host in found.hosts)
    if key_owner and key_owner is not found and (not name or (key_owner.retired and is_at_home)):
        may_choose = host and not is_at_home
        by_choice = f" If {host} gave you this token, set the extra 'api' to {found.name}." if may_choose else ""
        raise LumaInvalidRequest((key_owner.retired or _not_sent(key_owner, host)) + by_choice)
    return found


def _not_sent(owner: Api, host: str) -> str:
    return (
        f"the API token is a key of {owner.label}, which is not sent to {host}. Nothing was sent. For {owner.label}, "
        f"leave the host empty or set it to {owner.hosts[0]}. For a proxy or a sandbox in front of it, set the extra "
        f"'api' to {owner.name}."
    )

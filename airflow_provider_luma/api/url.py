"""Addresses: of an API, out of what a person typed; and of anything, as it may be shown."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from airflow_provider_luma.api.errors import LumaInvalidRequest

if TYPE_CHECKING:
    from airflow_provider_luma.api.dialects import Dialect

_HOST = re.compile(r"(?:(https?)://)?(\[[0-9a-f:.]+]|[^\s/\\?#@:[\]]+)(?::(\d+))?(/[^\s?#]*)?", re.IGNORECASE)
"""Scheme, name or address, port, and path."""


def base_url(host: str | None, dialect: Dialect, *, schema: str | None = None, port: int | None = None) -> str:
    """
    Return the URL that every path of an API is appended to.

    :param host: bare, with scheme, port or path, or empty for the dialect's default.
    :param dialect: the API's.
    :param schema: ``http`` or ``https``, where the host names none; the default is ``https``, and ``http`` for
        this machine.
    :param port: where the host names none.
    :raises LumaInvalidRequest: what was given is no host.
    """
    if schema and schema not in ("http", "https"):
        raise LumaInvalidRequest(f"The schema must be http or https, got {schema!r}; a path belongs to the host.")
    found = _HOST.fullmatch((host or "").strip() or dialect.DEFAULT_URL)
    if not found:
        # Without what was typed, which may hold a password.
        raise LumaInvalidRequest(
            "The host must look like gateway.example.com, https://gateway.example.com:8443 or "
            "http://gateway.example.com/prefix. No user name, password or query; the token has a field of its own."
        )
    scheme, name, own_port, path = (part or "" for part in found.groups())
    scheme = scheme or schema or ("http" if is_this_machine(name) else "https")
    netloc = f"{name}:{own_port or port}" if own_port or port else name
    return f"{scheme}://{netloc}".lower() + dialect.base_path(path.rstrip("/"))


def is_this_machine(name: str) -> bool:
    """Return whether a host name or address means the machine that this runs on."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def redact_uri(uri: str) -> str:
    """Return a URI without what may be a key to it: a name before its host, and the query of a web address."""
    scheme, _, rest = uri.partition("://")
    if scheme.lower() in ("http", "https"):
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"

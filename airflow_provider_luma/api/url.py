"""Addresses: the API's, from the text of a connection, and any address in a form that may be shown."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_luma.api.errors import LumaInvalidRequest

if TYPE_CHECKING:
    from airflow_provider_luma.api.dialects.protocol import Dialect

_HOST = re.compile(r"(?:(https?)://)?(\[[0-9a-f:.]+]|[^\s/\\?#@:[\]]+)(?::(\d+))?(/[^\s?#]*)?", re.IGNORECASE)
"""Scheme, name or address, port, and path."""


class Host(NamedTuple):
    """A host as a person typed it: the scheme, name, port and path may be empty."""

    scheme: str
    name: str
    port: str
    path: str


def parse_host(typed: str | None) -> Host:
    """
    Parse a host with or without scheme, port and path; an empty text gives an empty host.

    :raises LumaInvalidRequest: the text is not a host.
    """
    stripped = (typed or "").strip()
    # Airflow removes the brackets of an address in a connection's URI.
    found = _HOST.fullmatch(f"[{stripped}]" if _is_ipv6(stripped) else stripped)
    if stripped and (not found or (found[2].startswith("[") and not _is_ipv6(found[2][1:-1]))):
        # The message does not repeat the text: it may contain a password.
        raise LumaInvalidRequest(
            "The host must look like gateway.example.com, https://gateway.example.com:8443 or "
            "http://gateway.example.com/prefix, without user name, password or query. The token has its own field."
        )
    scheme, name, port, path = (part or "" for part in found.groups()) if found else ("", "", "", "")
    return Host(scheme.lower(), name.lower(), port, path.rstrip("/"))


def base_url(host: Host, dialect: Dialect, *, schema: str | None = None, port: int | None = None) -> str:
    """
    Return an API's URL; its paths are appended to it.

    :param host: the connection's host; if it is empty, the API's default address is used.
    :param dialect: the API.
    :param schema: ``http`` or ``https``, used if the host has no scheme. The default is ``http`` for this machine,
        else ``https``.
    :param port: used if the host has no port.
    :raises LumaInvalidRequest: the schema is neither http nor https.
    """
    if schema and schema.lower() not in ("http", "https"):
        raise LumaInvalidRequest(f"The schema must be http or https, got {schema!r}; a path belongs to the host.")
    if not host.name:
        host = parse_host(dialect.API.url)
    scheme = host.scheme or (schema or "").lower() or ("http" if is_this_machine(host.name) else "https")
    shown_port = host.port or port
    netloc = f"{host.name}:{shown_port}" if shown_port else host.name
    return f"{scheme}://{netloc}{dialect.base_path(host.path)}"


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def is_this_machine(name: str) -> bool:
    """Return whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def redact_uri(uri: str) -> str:
    """Return a URI without its secrets: the user name and password, and the query of a web address."""
    scheme, _, rest = uri.partition("://")
    if scheme.lower() in ("http", "https"):
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"

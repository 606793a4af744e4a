"""The address of an API, out of what a person typed."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_luma.api.errors import LumaInvalidRequest

if TYPE_CHECKING:
    from airflow_provider_luma.api.dialects import Dialect


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
    typed = (host or "").strip() or dialect.DEFAULT_URL
    if schema and schema not in ("http", "https"):
        raise LumaInvalidRequest(f"The schema must be http or https, got {schema!r}; a path belongs to the host.")
    try:
        parts = urlsplit(typed if "://" in typed else f"//{typed}")
        name, own_port = parts.hostname, parts.port
    except ValueError:
        # What was typed may hold a password, and so may the exception.
        raise LumaInvalidRequest("The host cannot be read: it is no address, or its port is no number.") from None
    if parts.username is not None or parts.query or parts.fragment or not name or set(name) & set(" \\"):
        raise LumaInvalidRequest(
            "The host must look like gateway.example.com, https://gateway.example.com:8443 or "
            "https://gateway.example.com/prefix. No user name, password or query; the token has a field of its own."
        )
    scheme = parts.scheme or schema or ("http" if is_this_machine(name) else "https")
    if scheme not in ("http", "https"):
        raise LumaInvalidRequest(f"The host must be reached by http or https, not {scheme}.")
    netloc = f"[{name}]" if ":" in name else name
    if final_port := own_port or port:
        netloc = f"{netloc}:{final_port}"
    return f"{scheme}://{netloc}{dialect.base_path(parts.path.rstrip('/'))}"


def is_this_machine(name: str) -> bool:
    """Return whether a host name or address means the machine that this runs on."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")

"""Keeping a request whose URL came from outside out of private networks."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection

from airflow_provider_luma.api.errors import LumaInvalidRequest

if TYPE_CHECKING:
    import requests

_HOLDING_IPV4 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""Prefixes whose last 32 bits are an IPv4 address: https://www.iana.org/assignments/iana-ipv6-special-registry/."""


def guard(session: requests.Session, url: str, host: str) -> None:
    """
    Keep a session from an address that is not public.

    The name is looked up before anything is contacted. Where no proxy connects, the address that is connected to is
    checked as well: a name may lead elsewhere a moment after it was looked up.

    :raises LumaInvalidRequest: here, or when the session is used: the address is not public.
    """
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        # Connecting will say so; and a name that only a proxy can resolve is left to the proxy.
        addresses = set()
    for address in addresses:
        _refuse_private(address, host)
    if not select_proxy(url, get_environ_proxies(url)):
        adapter = _PublicAdapter()
        session.mount("http://", adapter)
        session.mount("https://", adapter)


def checked(connected: socket.socket, host: str) -> socket.socket:
    """Return a connection to a public address; close any other, and raise LumaInvalidRequest."""
    try:
        _refuse_private(connected.getpeername()[0], host)
    except BaseException:
        connected.close()
        raise
    return connected


def _refuse_private(address: str, host: str) -> None:
    if not _is_public(address):
        raise LumaInvalidRequest(
            f"The API gave a URL whose host {host} is at {address}, in a private network. Nothing was fetched: "
            "only the connection's own host may be there."
        )


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        holding = any(parsed in network for network in _HOLDING_IPV4)
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if holding and int(parsed) & 0xFFFFFFFF > 1:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner or parsed.is_site_local:
            return inner is not None and _is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return checked(super()._new_conn(), self.host)


class _TLSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return checked(super()._new_conn(), self.host)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _PublicAdapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

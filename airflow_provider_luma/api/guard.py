"""Keep requests to URLs from outside away from private networks."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from airflow_provider_luma.api.errors import LumaInvalidRequest

_NOT_PUBLIC = [ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24")]
"""Services of cloud platforms for their virtual machines, which some versions of Python call global."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All other public IPv6 addresses: https://www.iana.org/assignments/ipv6-address-space/."""


def guard(url: str) -> list[type]:
    """
    Check that a URL points to public addresses only.

    The host name is looked up before the request. If no proxy is used, the address of the connection must be checked as
    well, because the name can resolve differently a moment later.

    :return: the mixins for the connections to this host.
    :raises LumaInvalidRequest: an address is not public.
    """
    host = urlsplit(url).hostname or ""
    for address in _addresses_of(host):
        _refuse_private(address, host)
    return [] if select_proxy(url, get_environ_proxies(url)) else [_PublicOnly]


def is_private(host: str) -> bool:
    """Return whether a host is known and has no public address."""
    addresses = _addresses_of(host)
    return bool(addresses) and not any(map(is_public, addresses))


def _addresses_of(host: str) -> set[str]:
    # If the lookup fails, the connection will fail too, unless a proxy knows the name.
    with suppress(OSError, UnicodeError):
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    return set()


def _refuse_private(address: str, host: str) -> None:
    if not is_public(address):
        raise LumaInvalidRequest(
            f"The host {host} of the file's URL has the address {address}, in a private network. It was not contacted: "
            "only the connection's own host and port may be in a private network."
        )


def is_public(address: str) -> bool:
    """Return whether an IP address, and any IPv4 address inside it, belong to the public internet."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.is_global and not parsed.is_multicast and not any(parsed in network for network in _NOT_PUBLIC)
    translated = parsed in _NAT64
    inner = parsed.ipv4_mapped or parsed.sixtofour
    # NAT64 and ISATAP (...:0:5efe:a.b.c.d) have the IPv4 address in the last 32 bits.
    if translated or int(parsed) >> 32 & 0xFDFFFFFF == 0x5EFE:
        inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    if inner and not is_public(str(inner)):
        return False
    return translated or bool(parsed.ipv4_mapped) or (parsed in _GLOBAL_UNICAST and parsed.is_global)


class _PublicOnly:
    """A mixin for connections of urllib3: closes a connection to an address that is not public."""

    host: str

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            _refuse_private(connected.getpeername()[0], self.host)
        except BaseException:
            connected.close()
            raise
        return connected

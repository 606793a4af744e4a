"""What is wrong between here and a gateway, in one sentence that says what to do."""

from __future__ import annotations

import socket

from airflow_provider_luma.api.errors import (
    LumaAuthenticationError,
    LumaConnectionError,
    LumaError,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
    cause,
)


def diagnose(error: LumaError, url: str) -> str:
    """
    Return what an answer to a question that costs nothing means for whoever sets up the connection.

    :param error: what asking about a generation that cannot exist led to.
    :param url: the gateway's.
    """
    status = f"HTTP {error.status}" if error.status else "no status"
    if isinstance(error, LumaConnectionError):
        return _unreachable(error, url)
    if isinstance(error, LumaAuthenticationError):
        return (
            f"The token is refused by {url} ({error.code or status}): put one that is good, and may be used from this "
            "address, into the API token."
        )
    if isinstance(error, LumaRateLimited):
        return f"{url} asks to wait ({status}): test again in a minute."
    if isinstance(error, LumaQuotaError):
        return f"{url} takes the token, but its balance is too low: top it up."
    if isinstance(error, LumaServerError) and (error.status or 0) >= 500:
        return f"{url}, or a proxy before it, is in trouble ({status}): test again later."
    return (
        f"{url} answers ({status}), but not as a Luma gateway does: check the host in the Gateway field, its path, "
        "and any proxy on the way."
    )


def _unreachable(error: LumaError, url: str) -> str:
    import requests

    chain = _chain(error)
    what = cause(error)
    said = f"The host cannot be reached: {url} "

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if is_any(requests.exceptions.ProxyError):
        return (
            f"The host cannot be reached: the proxy on the way to {url} fails ({what}); check HTTPS_PROXY, HTTP_PROXY "
            "and NO_PROXY where Airflow runs."
        )
    if is_any(requests.exceptions.SSLError):
        if "mismatch" in what or "expired" in what:
            return f"{said}shows a certificate that is not good for it ({what}); check the host in the Gateway field."
        if "CERTIFICATE_VERIFY_FAILED" in what:
            return (
                f"{said}shows a certificate that is not trusted here ({what}); set the extra 'verify' to the path of "
                "its CA's bundle."
            )
        return f"{said}does not speak TLS as it should ({what}); check whether it is http:// rather than https://."
    if is_any(socket.gaierror):
        return f"The host cannot be reached: there is none of the name in {url}; check the Gateway field, and DNS."
    if is_any(requests.Timeout):
        return f"{said}does not answer in time; check the Gateway field, firewall and proxy, or raise the timeout."
    return f"{said}gives no answer ({what}); check the host and port in the Gateway field, firewall and proxy."


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found

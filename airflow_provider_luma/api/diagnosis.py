"""Why a host cannot be reached, in one sentence that says what to do."""

from __future__ import annotations

import socket


def unreachable(error: BaseException, where: str) -> str:
    """
    Return what an exception of `requests`, or of the socket below it, means.

    :param error: what was raised while something was sent or received.
    :param where: whose host it is, as it may be shown.
    """
    import requests

    chain = _chain(error)
    what = str(chain[-1])[:200].rstrip(".") or type(chain[-1]).__name__
    kinds = {kind for one in chain for kind in type(one).__mro__}
    if requests.exceptions.ProxyError in kinds:
        return (
            f"the proxy on the way to {where} fails ({what}); check HTTPS_PROXY, HTTP_PROXY and NO_PROXY where "
            "Airflow runs"
        )
    if requests.exceptions.SSLError in kinds:
        return f"{where} {_tls_problem(what)}"
    if socket.gaierror in kinds:
        return f"the host name in {where} does not resolve; check the host, and DNS"
    if requests.exceptions.ConnectTimeout in kinds:
        return f"{where} cannot be reached in time; check the host, firewall and proxy"
    if requests.Timeout in kinds or TimeoutError in kinds:
        return f"{where} gave no answer in time; try again, or raise the timeout"
    if ConnectionRefusedError in kinds:
        return f"{where} refuses connections ({what}); check host and port, and that it runs"
    return f"the connection to {where} broke ({what}); check host and port, firewall and proxy"


def _tls_problem(what: str) -> str:
    if "mismatch" in what or "expired" in what:
        return f"shows a certificate that is not valid for it ({what}); check the host"
    if "CERTIFICATE_VERIFY_FAILED" in what:
        return (
            f"shows a certificate that is not trusted here ({what}); set the connection's extra 'verify' to the path "
            "of its CA's bundle"
        )
    return f"does not speak TLS as it should ({what}); check whether it is http:// rather than https://"


def _chain(error: BaseException) -> list[BaseException]:
    """Return the exception and what is below it: `requests` wraps what urllib3 wraps."""
    found = [error]
    while below := found[-1].__cause__ or found[-1].__context__:
        found.append(below)
    return found

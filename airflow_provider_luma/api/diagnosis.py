"""Why a host cannot be reached, in one sentence that says what to do."""

from __future__ import annotations

import socket


def unreachable(error: BaseException, where: str) -> str:
    """
    Return what an exception of `requests`, or of the socket below it, means.

    :param error: what was raised while something was sent or received.
    :param where: whose host it is, as it may be shown.
    """
    from requests import exceptions

    chain = [error]
    # What requests raises wraps what urllib3 raises, which wraps what the socket raised.
    while below := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(below)
    what = str(chain[-1])[:200].rstrip(".") or type(chain[-1]).__name__
    untrusted = "CERTIFICATE_VERIFY_FAILED" in what
    reasons: tuple[tuple[type[BaseException], str], ...] = (
        (
            exceptions.ProxyError,
            f"the proxy on the way to {where} fails ({what}); check HTTPS_PROXY, HTTP_PROXY and NO_PROXY where "
            "Airflow runs",
        ),
        (
            exceptions.SSLError,
            f"{where} shows a certificate that is not trusted here ({what}); check the host, or set the connection's "
            "extra 'verify' to the path of its CA's bundle"
            if untrusted
            else f"{where} does not speak TLS ({what}); check whether it is http:// rather than https://",
        ),
        (socket.gaierror, f"the host name in {where} does not resolve; check the host, and DNS"),
        (exceptions.ConnectTimeout, f"{where} cannot be reached in time; check the host, firewall and proxy"),
        (TimeoutError, f"{where} gave no answer in time; try again, or raise the timeout"),
        (ConnectionRefusedError, f"{where} refuses connections ({what}); check host and port, and that it runs"),
        (BaseException, f"the connection to {where} broke ({what}); check host and port, firewall and proxy"),
    )
    return next(reason for kind, reason in reasons if any(isinstance(one, kind) for one in chain))

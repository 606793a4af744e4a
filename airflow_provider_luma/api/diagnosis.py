"""Explain in one sentence why a host cannot be reached, and what to do."""

from __future__ import annotations

import re
import socket


def unreachable(error: BaseException, where: str) -> str:
    """
    Explain an exception of `requests`, or of the socket below it.

    :param error: the exception.
    :param where: the URL to show.
    """
    from requests import exceptions
    from requests.utils import get_environ_proxies, select_proxy

    chain = [error]
    # requests wraps the exception of urllib3, which wraps the exception of the socket.
    while below := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(below)
    invalid = isinstance(error, exceptions.InvalidURL)
    why = "invalid URL" if invalid else str(chain[-1])[:200].rstrip(".") or type(chain[-1]).__name__
    # Only the host of the proxy: the rest of its URL, which an InvalidURL repeats, may contain a password.
    proxy = re.split("@|://", select_proxy(where, get_environ_proxies(where)) or "")[-1]
    chain += [exceptions.ProxyError()] if invalid and proxy else []
    reasons: dict[type[BaseException], str] = {
        exceptions.ProxyError: f"the proxy on the way to {where} fails ({proxy}: {why}); check HTTPS_PROXY, HTTP_PROXY "
        "and NO_PROXY on the machine that runs Airflow",
        exceptions.SSLError: f"the certificate of {where} is not trusted ({why}); check the host, or set the "
        "connection's extra 'verify', or REQUESTS_CA_BUNDLE, to the path of its CA bundle"
        if "CERTIFICATE_VERIFY_FAILED" in why
        else f"{where} does not speak TLS ({why}); check whether the URL must begin with http://, not https://",
        socket.gaierror: f"the host name in {where} does not resolve; check the host, and DNS",
        exceptions.ConnectTimeout: f"connecting to {where} timed out; check the host, firewall and proxy",
        TimeoutError: f"{where} gave no answer in time; try again, or raise the timeout",
        ConnectionRefusedError: f"{where} refuses connections ({why}); check host and port, and that it runs",
        BaseException: f"the connection to {where} broke ({why}); check host and port, firewall and proxy",
    }
    return next(reason for kind, reason in reasons.items() if any(isinstance(one, kind) for one in chain))

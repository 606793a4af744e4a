"""HTTP connections that limit the time of a whole answer, not only the time between two bytes."""

from __future__ import annotations

import io
import math
import time
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context


class _TimedReader(io.RawIOBase):
    """Reads from a socket until a deadline."""

    deadline = math.inf

    def __init__(self, sock: Any, raw: Any) -> None:
        self._sock, self._raw, self.timeout = sock, raw, sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        left = min(self.timeout, self.deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    """Gives a server the read timeout for all headers, and again for each piece of the body."""

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._reader = _TimedReader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        self._reader.deadline = time.monotonic() + self._reader.timeout
        super().begin()
        self._reader.deadline = math.inf

    def read1(self, n: int = -1) -> bytes:
        self._reader.deadline = time.monotonic() + self._reader.timeout
        return super().read1(n)


class TimedAdapter(HTTPAdapter):
    """
    An adapter for sessions of `requests`; each request needs a timeout.

    :param mixins: more base classes for each connection, such as a check of its address.
    :param bundle: the path of a CA bundle (a file or folder) to trust in addition to the session's own.
    """

    def __init__(self, *mixins: type, bundle: str | None = None) -> None:
        super().__init__()
        self._mixins, self._bundle = mixins, bundle

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        """Return the pool of connections for a request, with or without a proxy."""
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = type(
            "Timed", (*self._mixins, type(pool).ConnectionCls), {"response_class": _TimedResponse}
        )
        if self._bundle and pool.scheme == "https":
            context = pool.conn_kw["ssl_context"] = create_urllib3_context()
            context.load_verify_locations(**{"capath" if Path(self._bundle).is_dir() else "cafile": self._bundle})
        return pool

"""Plain HTTP against a sandbox, without the package's own client, and a clock for it."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Clock:
    """A clock that stands still until the test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def call(sandbox, method, path, body=None, *, headers, timeout=10.0) -> Answer:
    """Make a request, with `bytes` as they are and anything else as JSON."""
    connection = HTTPConnection("127.0.0.1", sandbox.port, timeout=timeout)
    content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    try:
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()

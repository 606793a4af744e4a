"""A sandbox that listens."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.sandbox.app import create_app
from airflow_provider_luma.sandbox.gateway import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from starlette.applications import Starlette
    from typing_extensions import Self


def listen(host: str, port: int) -> socket.socket:
    """Open a port; 0 is a free one."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)


def address(listener: socket.socket) -> str:
    """Return the URL that reaches this port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: Starlette) -> uvicorn.Server:
    """Make a quiet uvicorn whose connections can be cut."""
    import uvicorn

    from airflow_provider_luma.sandbox.wire import CuttableProtocol

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=CuttableProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
    )


class Sandbox:
    """
    Run a sandbox for as long as a `with` block lasts, for tests of your own DAGs.

    :param port: where it listens on 127.0.0.1; 0, the default, is a free port.
    :param clock: what tells the seconds; replace it in tests that should not wait.
    :param settings: the fields of `Settings` by name, such as `seconds=0`.
    """

    def __init__(self, *, port: int = 0, clock: Callable[[], float] = time.monotonic, **settings: Any) -> None:
        self.port = port
        self.app = create_app(Settings(**settings), clock=clock)
        self.url = ""

    def __enter__(self) -> Self:
        """Start to listen; `url` says where."""
        self.listener = listen("127.0.0.1", self.port)
        self.port = self.listener.getsockname()[1]
        self.url = address(self.listener)
        self.server = make_server(self.app)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listener]}, name="luma-sandbox", daemon=True
        )
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every connection and stop."""
        self.server.should_exit = True
        self.thread.join()

    def report(self) -> dict[str, Any]:
        """Say what was submitted, polled and charged, as `GET /sandbox` has it."""
        report: dict[str, Any] = json.loads(self.call("GET", "/sandbox"))
        return report

    def weather(self, **weather: Any) -> None:
        """
        Change the weather; without arguments it is good again.

        :param weather: the fields of `Weather` by name, such as `status={"500": 0.05}` or `down=True`.
        :raises ValueError: if there is no such weather.
        """
        self.call("POST", "/sandbox/weather", json.dumps(weather))

    def reset(self) -> None:
        """Forget everything, and make the weather good."""
        self.call("DELETE", "/sandbox")

    def call(self, method: str, path: str, body: str | None = None) -> bytes:
        """Ask the sandbox something that the gateway itself does not have."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise ValueError(answer.decode())
        return answer

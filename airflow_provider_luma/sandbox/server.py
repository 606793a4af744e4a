"""A sandbox that listens."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.sandbox import cdn
from airflow_provider_luma.sandbox.agents import Agents
from airflow_provider_luma.sandbox.app import app_with
from airflow_provider_luma.sandbox.gateway import Gateway
from airflow_provider_luma.sandbox.memory import Memory, Settings
from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from starlette.applications import Starlette
    from typing_extensions import Self

    from airflow_provider_luma.sandbox.memory import ApiName, ReceivedRequest

KEEP_REQUESTS = 10_000


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
            # Longer than a client pauses between two polls, or some meet a connection that is just being closed.
            timeout_keep_alive=75,
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
        self.memory = Memory(Settings(**settings), clock, KEEP_REQUESTS)
        self.app = app_with(self.memory)
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

    @property
    def requests(self) -> list[ReceivedRequest]:
        """What the APIs and the CDN were asked, oldest first: the latest 10,000 requests since the last reset."""
        return list(self.memory.requests)

    def add_generation(
        self,
        prompt: str = "A paper boat",
        *,
        api: ApiName = "gateway",
        generation_id: str = "",
        state: str = "",
        seconds: float | None = None,
        age: float = 0.0,
        failure_reason: str = "",
        failure_code: str = "",
        video_url: str = "",
        answer: dict[str, Any] | None = None,
    ) -> str:
        """
        Put a generation into the sandbox without submitting it, and return its id; it counts as charged.

        :param prompt: its prompt, in which `[fail]`, `[moderated]`, `[slow]` and `[flaky]` work.
        :param api: the API that has it, `gateway` or `agents`; the other does not know its id.
        :param generation_id: its id; a new one, if empty.
        :param state: a state that it keeps until `finish`: `pending`, `processing`, `completed`, `failed`, or another
            word, which is sent as it is. If empty, its age decides.
        :param seconds: how long it takes; the sandbox's own `seconds` if left out.
        :param age: how many seconds ago it was submitted, 0 by default.
        :param failure_reason: the reason why it fails; the API's own for `failure_code`, if empty.
        :param failure_code: the code with which it fails on Luma's own API; `none` is a failure without one.
        :param video_url: the URL of its video, in place of the sandbox's own.
        :param answer: fields of the API's JSON that replace those of the answer to a poll.
        """
        fields: dict[str, Any] = {
            "id": generation_id,
            "fixed_state": state,
            "seconds": seconds,
            "age_at_start": age,
            "video_url": video_url,
            "answer": answer,
        }
        maker = {"gateway": Gateway, "agents": Agents}[api](self.memory)
        if state == "failed" or failure_reason or failure_code:
            reason, fields["failure_code"] = maker.failure({"fail": failure_code})
            fields["failure_reason"] = failure_reason or reason
        given = {name: value for name, value in fields.items() if value not in (None, "")}
        return maker.add(prompt, maker.submission(prompt), **given).id

    def finish(self, generation_id: str, *, after: float = 0.0) -> None:
        """
        Let a generation end.

        :param after: in how many seconds from now; 0, the default, is at once.
        :raises KeyError: if there is no such generation.
        """
        self.memory.generations[generation_id].finish(after)

    def remove_generation(self, generation_id: str) -> None:
        """
        Let neither API know a generation any more; `add_generation` can bring its id back.

        :raises KeyError: if there is no such generation.
        """
        del self.memory.generations[generation_id]

    def change(self, **settings: Any) -> None:
        """
        Change settings while it runs; what was submitted before stays as it is.

        :param settings: the fields of `Settings` by name, such as `token="another"`.
        """
        self.memory.settings = replace(self.memory.settings, **settings)

    def report(self) -> dict[str, Any]:
        """Return what was submitted, polled and charged, as `GET /sandbox` has it."""
        return self.memory.report(cdn.address(self.memory, self.url, self.memory.settings.url_seconds))

    def weather(self, **weather: Any) -> None:
        """
        Change the weather; without arguments it is good again.

        :param weather: the fields of `Weather` by name, such as `status={"500": 0.05}` or `down=True`.
        :raises ValueError: if there is no such weather.
        """
        self.memory.weather = Weather.parse(weather)

    def reset(self) -> None:
        """Forget everything, and make the weather good."""
        self.memory.reset()

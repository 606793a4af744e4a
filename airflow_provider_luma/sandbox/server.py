"""A sandbox that listens on a port."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.sandbox import cdn
from airflow_provider_luma.sandbox.app import app_with
from airflow_provider_luma.sandbox.generation import Failure
from airflow_provider_luma.sandbox.memory import Memory, Settings
from airflow_provider_luma.sandbox.played import DEFAULT_API, play
from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from starlette.applications import Starlette
    from typing_extensions import Self

    from airflow_provider_luma.sandbox.memory import ReceivedRequest

KEEP_REQUESTS = 10_000


def listen(host: str, port: int) -> socket.socket:
    """Open a port; 0 means any free port."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)


def address(listener: socket.socket) -> str:
    """Return the URL of this port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: Starlette) -> uvicorn.Server:
    """Make a uvicorn server that logs only warnings and can cut connections."""
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
            # Longer than the pause between two polls, so that no client uses a connection while it is being closed.
            timeout_keep_alive=75,
        )
    )


class Sandbox:
    """
    Run a sandbox in a `with` block, to test your own DAGs.

    :param port: the port on 127.0.0.1; 0 (the default) means any free port.
    :param clock: returns the time in seconds; replace it in tests that should not wait.
    :param settings: the fields of `Settings` by name, such as `seconds=0`.
    """

    def __init__(self, *, port: int = 0, clock: Callable[[], float] = time.monotonic, **settings: Any) -> None:
        self.port = port
        self.memory = Memory(Settings(**settings), clock, KEEP_REQUESTS)
        self.apis = play(self.memory)
        self.app = app_with(self.memory, self.apis)
        self.url = ""

    def __enter__(self) -> Self:
        """Start to listen; `url` is the address."""
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
        """The latest 10,000 requests to the APIs and the CDN since the last reset, oldest first."""
        return list(self.memory.requests)

    def add_generation(
        self,
        prompt: str = "A paper boat",
        *,
        api: str = DEFAULT_API,
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

        :param prompt: its prompt; the words `[fail]`, `[moderated]`, `[slow]` and `[flaky]` work in it.
        :param api: the name of its API in the connection's extra `api`; the other APIs do not know its id.
        :param generation_id: its id; if empty, a new id.
        :param state: a state that it keeps until `finish`: `pending`, `processing`, `completed`, `failed`, or any other
            word, which the answer repeats unchanged. If empty, its age decides.
        :param seconds: how long it takes, in seconds; by default the sandbox's own `seconds`.
        :param age: its age, in seconds; 0 by default.
        :param failure_reason: the reason of its failure; if empty, the API's own reason for `failure_code`.
        :param failure_code: the code of its failure, if the API has codes; `none` means a failure without a code.
        :param video_url: the URL of its video; if empty, a clip of the sandbox.
        :param answer: fields of the API's JSON that replace those of the answer to a poll.
        :raises ValueError: if the sandbox does not play this API.
        """
        if api not in self.apis:
            raise ValueError(f"The sandbox does not play the API {api!r}. Use api={' or '.join(map(repr, self.apis))}.")
        played = self.apis[api]
        fields: dict[str, Any] = {
            "id": generation_id,
            "fixed_state": state,
            "seconds": seconds,
            "age_at_start": age,
            "video_url": video_url,
            "answer": answer,
        }
        if state == "failed" or failure_reason or failure_code:
            failure = played.failure({"fail": failure_code}) or Failure("")
            fields["failure"] = failure._replace(reason=failure_reason or failure.reason)
        given = {name: value for name, value in fields.items() if value not in (None, "")}
        return played.add(prompt, played.submission(prompt), **given).id

    def finish(self, generation_id: str, *, after: float = 0.0) -> None:
        """
        Let a generation end.

        :param after: the delay, in seconds; 0 by default.
        :raises KeyError: if there is no such generation.
        """
        self.memory.generations[generation_id].finish(after)

    def remove_generation(self, generation_id: str) -> None:
        """
        Remove a generation: its id becomes unknown. `add_generation` can add the id again.

        :raises KeyError: if there is no such generation.
        """
        del self.memory.generations[generation_id]

    def change(self, **settings: Any) -> None:
        """
        Change settings while the sandbox runs; generations that exist keep their `seconds`.

        :param settings: the fields of `Settings` by name, such as `token="another"`.
        """
        self.memory.settings = replace(self.memory.settings, **settings)

    def report(self) -> dict[str, Any]:
        """Return the report of `GET /sandbox`: all generations, polls, charges and refunds."""
        return self.memory.report(cdn.address(self.memory, self.url, self.memory.settings.url_seconds))

    def weather(self, **weather: Any) -> None:
        """
        Set the weather; without arguments, no call fails by chance.

        :param weather: the fields of `Weather` by name, such as `status={"500": 0.05}` or `down=True`.
        :raises ValueError: if a field or a failure is unknown, or a chance is impossible.
        """
        self.memory.weather = Weather.parse(weather)

    def reset(self) -> None:
        """Forget all generations, requests and counts, and make the weather good."""
        self.memory.reset()

"""The sandbox's memory, shared by its APIs: settings, generations, requests and counts."""

from __future__ import annotations

import json
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

    from airflow_provider_luma.sandbox.generation import Generation

COUNTS = ("refused", "polls", "batch_polls", "requests", "at_once", "downloads", "tokens_at_cdn")


@dataclass(frozen=True)
class Settings:
    """
    The behaviour of a sandbox.

    :param token: the only Bearer token it accepts. If empty (the default), each API accepts every token with its key
        prefix, such as `luma-api-`; a gateway's tokens have no prefix.
    :param seconds: how long a generation takes, in seconds; 10 by default. With 0 it is completed immediately.
    :param submit_shape: the gateway's answer to a submission: `flat` (the default), `envelope` or `bare`.
    :param batch_shape: the gateway's answer to `POST /luma/tasks`: `list` (the default), `envelope`, or `none` for a
        gateway without this call.
    :param batch_limit: the highest number of ids in one `POST /luma/tasks`; 0 (the default) means no limit.
    :param running_limit: the highest number of running generations on Luma's own API; 0 (the default) means no limit.
    :param rate_limit: the highest number of submissions to Luma's own API per minute; 0 (the default) means no limit.
    :param latency: the delay before every answer of an API, in seconds; 0 by default.
    :param visible_after: how long a new id is unknown, in seconds; 0 by default.
    :param video: the path of a file to send as the video, instead of the sandbox's own clips.
    :param url_seconds: how long the URL of a file is valid, in seconds. If 0 (the default), the API decides: an hour on
        Luma's own API, no limit on a gateway.
    :param ranges: whether a client can download a part of a file; true by default.
    :param prefix: a second path for the gateway's calls, such as `/proxy`.
    """

    token: str = ""
    seconds: float = 10.0
    submit_shape: Literal["flat", "envelope", "bare"] = "flat"
    batch_shape: Literal["list", "envelope", "none"] = "list"
    batch_limit: int = 0
    running_limit: int = 0
    rate_limit: int = 0
    latency: float = 0.0
    visible_after: float = 0.0
    video: str = ""
    url_seconds: float = 0.0
    ranges: bool = True
    prefix: str = ""


@dataclass
class ReceivedRequest:
    """
    A request that reached the sandbox.

    :param method: such as `POST`.
    :param path: such as `/luma/generations`.
    :param query: the text after the path's question mark.
    :param headers: by name, in lower case; the token is replaced by `***`.
    :param at: when it arrived, in seconds by the sandbox's clock.
    :param content: the body's bytes.
    :param status: the answer's status; None before the answer, and if the connection was cut.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    at: float
    content: bytes = field(default=b"", repr=False)
    status: int | None = None

    @property
    def body(self) -> Any:
        """The body's JSON; None if the body is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


class Memory:
    """
    Settings, generations, requests and counts; nothing is stored on disk.

    :param clock: returns the time in seconds.
    :param keep_requests: how many of the latest requests to keep.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float], keep_requests: int = 0) -> None:
        self.settings = settings
        self.clock = clock
        self.at_once = 0
        self.requests: deque[ReceivedRequest] = deque(maxlen=keep_requests)
        self.reset()

    def reset(self) -> None:
        """Forget all generations, requests and counts, and make the weather good."""
        self.generations: dict[str, Generation] = {}
        self.weather = Weather()
        self.counts: Counter[str] = Counter()
        self.user_agents: dict[str, None] = {}
        self.submissions_by_prompt: Counter[str] = Counter()
        self.submission_times: deque[float] = deque()
        self.requests.clear()

    @contextmanager
    def counted(self, kind: str, user_agent: str) -> Iterator[None]:
        """Count a call; during the call, count it as a parallel call."""
        self.counts["requests"] += 1
        self.counts[kind] += 1
        if user_agent:
            self.user_agents[user_agent] = None
        self.at_once += 1
        self.counts["at_once"] = max(self.counts["at_once"], self.at_once)
        try:
            yield
        finally:
            self.at_once -= 1

    def note(self, request: Request) -> ReceivedRequest:
        """Keep a request without its token."""
        headers = dict(request.headers)
        if "authorization" in headers:
            scheme, separator, _ = headers["authorization"].partition(" ")
            headers["authorization"] = f"{scheme} ***" if separator else "***"
        received = ReceivedRequest(request.method, request.url.path, request.url.query, headers, self.clock())
        self.requests.append(received)
        return received

    def find(self, generation_id: str, api: str | None = None) -> Generation | None:
        """Return the generation with this id, if it is visible and belongs to this API (to any API, if None)."""
        generation = self.generations.get(generation_id)
        if generation is None or generation.age < self.settings.visible_after:
            return None
        return generation if api in (None, generation.api) else None

    def report(self, cdn: str) -> dict[str, Any]:
        """Return all generations and counts, over all APIs; `cdn` is the address of the files."""
        generations = [generation.summary(cdn) for generation in list(self.generations.values())]
        return {
            "submitted": len(generations),
            "charged": len(generations),
            "refunded": sum(generation["refunded"] for generation in generations),
            **{name: self.counts[name] for name in COUNTS},
            "user_agents": list(self.user_agents),
            "generations": generations,
        }

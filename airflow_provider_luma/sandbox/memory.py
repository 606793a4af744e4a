"""What the sandbox remembers, whichever API was asked: generations, requests, and what they cost."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_luma.sandbox import clips
from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

ApiName = Literal["gateway", "agents"]
WORDS = re.compile(
    r"\[(moderated|slow|flaky|429|busy|400|402|403|413|422|500|502|503|hang|drop|html|proxy)(?::(\d{1,6}))?\]"
    r"|\[(fail)(?::([a-z_]{1,40}))?\]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Settings:
    """
    How this sandbox answers.

    :param token: the only Bearer token it accepts; if empty (the default), any for the gateway, and any that begins
        with `luma-api-` for Luma's own API.
    :param seconds: how long a generation takes, 10 by default; 0 completes it at once.
    :param submit_shape: how the gateway answers a submission: `flat` (the default), `envelope` or `bare`.
    :param batch_shape: how the gateway answers `POST /luma/tasks`: `list` (the default), `envelope`, or `none`, which
        is a gateway without that call.
    :param batch_limit: how many ids `POST /luma/tasks` takes; 0, the default, is any number.
    :param running_limit: how many generations can run at once on Luma's own API; 0, the default, is any number.
    :param rate_limit: how many submissions Luma's own API takes in 60 seconds; 0, the default, is any number.
    :param latency: seconds before every answer of either API, 0 by default.
    :param visible_after: seconds for which a new id is answered as not found, 0 by default.
    :param video: path of a file that is sent as the video, in place of the sandbox's own clips.
    :param url_seconds: for how long the URL of a file is good; 0, the default, is for ever on the gateway and an hour
        on Luma's own API.
    :param ranges: whether a part of a file can be asked for, true by default.
    :param prefix: a path under which the gateway's calls are served as well, such as `/proxy`.
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
class Generation:
    """
    One video in the making.

    :param body: the submission, as the report shows it.
    :param seconds: how long it takes.
    :param fixed_state: a state that it keeps, in place of the one that its age gives it.
    :param age_at_start: seconds that it is old already.
    :param answer: fields that replace those of the answer to a poll.
    """

    api: ApiName
    prompt: str
    clock: Callable[[], float]
    seconds: float
    body: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    failure_reason: str = ""
    failure_code: str | None = None
    fixed_state: str = ""
    age_at_start: float = 0.0
    video_url: str = ""
    answer: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    polls: int = 0

    def __post_init__(self) -> None:
        """Start the clock."""
        self.began = self.clock() - self.age_at_start
        self.submitted = datetime.now(timezone.utc) - timedelta(seconds=self.age_at_start)
        self.clip = clips.pick(self.prompt, self.body.get("aspect_ratio", ""))

    @property
    def age(self) -> float:
        """Seconds since the submission."""
        return self.clock() - self.began

    @property
    def seconds_left(self) -> float:
        """Seconds until the end."""
        return max(self.seconds - self.age, 0.0)

    @property
    def progress(self) -> float:
        """How much is done, 0 to 1."""
        return min(self.age / self.seconds, 1.0) if self.seconds > 0 else 1.0

    @property
    def state(self) -> str:
        """Pending for the first fifth, then processing until the end."""
        if self.fixed_state:
            return self.fixed_state
        progress = self.progress
        if progress < 1:
            return "pending" if progress < 0.2 else "processing"
        return "failed" if self.failure_reason else "completed"

    @property
    def ended(self) -> bool:
        """Whether it is completed or failed."""
        return self.state in ("completed", "failed")

    @property
    def refunded(self) -> bool:
        """Whether the charge was given back; when the balance ran out, part of it may be kept."""
        return self.state == "failed" and self.failure_code != "budget_exhausted"

    def finish(self, after: float = 0.0) -> None:
        """Let it end so many seconds from now."""
        self.fixed_state = ""
        self.seconds = self.age + after

    def summary(self, cdn: str) -> dict[str, Any]:
        """Return what the report has on it."""
        state = self.state
        completed = state == "completed"
        return {
            "id": self.id,
            "api": self.api,
            "prompt": self.prompt,
            "state": state,
            "failure_reason": self.failure_reason if state == "failed" else None,
            "body": self.body,
            "parent": self.parent,
            "submitted_at": self.submitted.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "polls": self.polls,
            "charged": True,
            "refunded": self.refunded,
            "video_url": f"{cdn}/{self.id}/video.mp4" if completed else None,
            "thumbnail_url": f"{cdn}/{self.id}/thumbnail.jpg" if completed else None,
        }


@dataclass
class ReceivedRequest:
    """
    A request that reached the sandbox.

    :param method: such as `POST`.
    :param path: such as `/luma/generations`; for a file, what follows the address of the CDN too.
    :param query: what follows the path's question mark.
    :param headers: by name, in lower case; the token is `***`.
    :param at: when it came, in seconds by the sandbox's clock.
    :param content: the body as it was sent.
    :param status: the status that it was answered with; None as long as it is not, and where the connection was cut.
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
        """The JSON that it sent; None if it sent none."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


class Memory:
    """
    All that the sandbox remembers, in memory.

    :param settings: how it answers.
    :param clock: what tells the seconds.
    :param keep_requests: how many of the latest requests are kept.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float], keep_requests: int = 0) -> None:
        self.settings = settings
        self.clock = clock
        self.at_once = 0
        self.requests: deque[ReceivedRequest] = deque(maxlen=keep_requests)
        self.reset()

    def reset(self) -> None:
        """Forget everything, and make the weather good."""
        self.generations: dict[str, Generation] = {}
        self.weather = Weather()
        self.counts: Counter[str] = Counter()
        self.most_at_once = 0
        self.user_agents: dict[str, None] = {}
        self.submissions_by_prompt: Counter[str] = Counter()
        self.submission_times: deque[float] = deque()
        self.requests.clear()

    @contextmanager
    def counted(self, kind: str, user_agent: str) -> Iterator[None]:
        """Count a call while it lasts."""
        self.counts["requests"] += 1
        self.counts[kind] += 1
        if user_agent:
            self.user_agents[user_agent] = None
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            self.at_once -= 1

    def note(self, request: Request) -> ReceivedRequest:
        """Keep a request, without its token."""
        headers = dict(request.headers)
        if "authorization" in headers:
            scheme, separator, _ = headers["authorization"].partition(" ")
            headers["authorization"] = f"{scheme} ***" if separator else "***"
        received = ReceivedRequest(request.method, request.url.path, request.url.query, headers, self.clock())
        self.requests.append(received)
        return received

    def find(self, generation_id: str, api: ApiName | None = None) -> Generation | None:
        """Return the generation that this API (or either) has under this id, once it is visible."""
        generation = self.generations.get(generation_id)
        if generation is None or generation.age < self.settings.visible_after:
            return None
        return generation if api in (None, generation.api) else None

    def report(self, cdn: str) -> dict[str, Any]:
        """Return what was submitted, polled and charged, over both APIs."""
        generations = [generation.summary(cdn) for generation in list(self.generations.values())]
        return {
            "submitted": len(generations),
            "charged": len(generations),
            "refunded": sum(generation["refunded"] for generation in generations),
            "refused": self.counts["refused"],
            "polls": self.counts["polls"],
            "batch_polls": self.counts["batch_polls"],
            "requests": self.counts["requests"],
            "at_once": self.most_at_once,
            "downloads": self.counts["downloads"],
            "tokens_at_cdn": self.counts["tokens_at_cdn"],
            "user_agents": list(self.user_agents),
            "generations": generations,
        }


def words_of(prompt: str) -> dict[str, str]:
    """Find the words in brackets in this prompt, and what each carries after a colon, if anything."""
    found = WORDS.findall(prompt)
    return {(word or fail).lower(): number or code for word, number, fail, code in found}


def shortened(value: Any) -> Any:
    """Cut every image in a submission to its first 40 characters, wherever it is."""
    if isinstance(value, dict):
        return {name: inner[:40] if is_image(name, inner) else shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shortened(inner) for inner in value]
    return value


def is_image(name: str, value: Any) -> bool:
    """Return whether a field holds an image, as a `data:` URI or as bare base64."""
    return isinstance(value, str) and (name == "data" or value.startswith("data:"))

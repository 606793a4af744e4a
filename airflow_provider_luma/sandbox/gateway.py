"""The gateway's memory: what was submitted, how far it is, and what it cost."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_luma.sandbox import answers, clips
from airflow_provider_luma.sandbox.answers import Refused
from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

State = Literal["pending", "processing", "completed", "failed"]
WORDS = re.compile(r"\[(fail|moderated|slow|flaky|429|500|hang|drop|html)(?::(\d{1,6}))?\]", re.IGNORECASE)
FAILURE_REASONS = {"fail": "Job failed", "moderated": "Advanced prompt moderation failed"}
FIELDS = {
    "user_prompt": str,
    "model_name": str,
    "duration": str,
    "resolution": str,
    "aspect_ratio": str,
    "image_url": str,
    "image_end_url": str,
    "notify_hook": str,
    "expand_prompt": bool,
    "loop": bool,
}


@dataclass(frozen=True)
class Settings:
    """
    How this sandbox answers.

    :param token: the only Bearer token it accepts; any, if empty (the default).
    :param seconds: how long a generation takes, 10 by default; 0 completes it at once.
    :param submit_shape: what a submission is answered with: `flat` (the default), `envelope` or `bare`.
    :param batch_shape: what `POST /luma/tasks` is answered with: `list` (the default), `envelope`, or `none`, which
        is a gateway without that call.
    :param batch_limit: how many ids `POST /luma/tasks` takes; 0, the default, is any number.
    :param latency: seconds before every answer of the four calls, 0 by default.
    :param visible_after: seconds for which a new id is answered as not found, 0 by default.
    :param video: path of a file that is sent as the video, in place of the sandbox's own clips.
    :param url_seconds: for how long the URL of a file is good; 0, the default, is for ever.
    :param ranges: whether a part of a file can be asked for, true by default.
    :param prefix: a path under which the four calls are served as well, such as `/v1`.
    """

    token: str = ""
    seconds: float = 10.0
    submit_shape: Literal["flat", "envelope", "bare"] = "flat"
    batch_shape: Literal["list", "envelope", "none"] = "list"
    batch_limit: int = 0
    latency: float = 0.0
    visible_after: float = 0.0
    video: str = ""
    url_seconds: float = 0.0
    ranges: bool = True
    prefix: str = ""


@dataclass
class Generation:
    """One video in the making."""

    body: dict[str, Any]
    parent: str | None
    seconds: float
    failure_reason: str
    clock: Callable[[], float]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    submitted: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    polls: int = 0

    def __post_init__(self) -> None:
        """Start the clock."""
        self.began = self.clock()
        self.prompt: str = self.body.get("user_prompt", "")
        self.clip = clips.pick(self.prompt)
        self.created_at = self.submitted.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.submitted_ms = int(self.submitted.timestamp() * 1000)

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
    def state(self) -> State:
        """Pending for the first fifth, then processing until the end."""
        progress = self.progress
        if progress < 1:
            return "pending" if progress < 0.2 else "processing"
        return "failed" if self.failure_reason else "completed"


class Gateway:
    """
    All that a gateway remembers, in memory.

    :param settings: how it answers.
    :param clock: what tells the seconds; replace it in tests that should not wait.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self.at_once = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything, and make the weather good."""
        self.generations: dict[str, Generation] = {}
        self.weather = Weather()
        self.counts: Counter[str] = Counter()
        self.most_at_once = 0
        self.user_agents: dict[str, None] = {}
        self.submissions_by_prompt: Counter[str] = Counter()

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

    def accept(self, body: Any, parent: str | None = None) -> Generation:
        """
        Take a submission and charge it.

        :param body: the request's JSON.
        :param parent: the id of the generation to extend, if any.
        :raises Refused: if the gateway does not take it; it is then not charged.
        """
        if parent is not None:
            self.check_parent(parent)
        words = check_submission(body)
        self.refuse_by_words(body.get("user_prompt", ""), words)
        reasons = [reason for word, reason in FAILURE_REASONS.items() if word in words]
        generation = Generation(
            body=shortened(body),
            parent=parent,
            seconds=self.settings.seconds * (10 if "slow" in words else 1),
            failure_reason=reasons[0] if reasons else "",
            clock=self.clock,
        )
        self.generations[generation.id] = generation
        return generation

    def check_parent(self, parent: str) -> None:
        """Refuse to extend a generation that is unknown or not completed."""
        generation = self.find(parent)
        if generation is None:
            raise Refused(answers.no_such_task())
        if generation.state != "completed":
            raise Refused(answers.error(400, "task_not_completed", f"the generation is {generation.state}"))

    def refuse_by_words(self, prompt: str, words: dict[str, str]) -> None:
        """Refuse the submission if its prompt asks for that."""
        if "500" in words:
            raise Refused(answers.page(500))
        if "429" in words:
            self.submissions_by_prompt[prompt] += 1
            seconds, times = (int(words["429"]), 1) if words["429"] else (1, 2)
            if self.submissions_by_prompt[prompt] <= times:
                raise Refused(answers.too_many_requests(seconds))

    def find(self, task_id: str) -> Generation | None:
        """Return the generation with this id, once it is visible."""
        generation = self.generations.get(task_id)
        if generation is None or generation.age < self.settings.visible_after:
            return None
        return generation

    def report(self, cdn: str) -> dict[str, Any]:
        """Say what was submitted, polled and charged."""
        generations = [self.told(generation, cdn) for generation in self.generations.values()]
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

    def told(self, generation: Generation, cdn: str) -> dict[str, Any]:
        """Say how one generation is doing."""
        state = generation.state
        completed, failed = state == "completed", state == "failed"
        return {
            "id": generation.id,
            "prompt": generation.prompt,
            "state": state,
            "failure_reason": generation.failure_reason if failed else None,
            "body": generation.body,
            "parent": generation.parent,
            "submitted_at": generation.created_at,
            "polls": generation.polls,
            "charged": True,
            "refunded": failed,
            "video_url": f"{cdn}/{generation.id}/video.mp4" if completed else None,
            "thumbnail_url": f"{cdn}/{generation.id}/thumbnail.jpg" if completed else None,
        }


def words_of(prompt: str) -> dict[str, str]:
    """Find the words in brackets in this prompt, and the number that each carries, if any."""
    return {word.lower(): number for word, number in WORDS.findall(prompt)}


def check_submission(body: Any) -> dict[str, str]:
    """Refuse what the gateway does not take, and return the words in brackets of what it does."""
    if not isinstance(body, dict):
        raise invalid("the body is a JSON object")
    for name, kind in FIELDS.items():
        if name in body and not isinstance(body[name], kind):
            raise invalid(f"{name} is a {'string' if kind is str else 'boolean'}")
    for name in ("image_url", "image_end_url"):
        if not body.get(name, "https://").startswith(("http://", "https://", "data:image/")):
            raise invalid(f"{name} is an http(s) URL or data:image/<type>;base64,...")
    prompt = body.get("user_prompt", "")
    if not prompt.strip() and not body.get("image_url"):
        raise invalid("user_prompt is required")
    if prompt and not 3 <= len(prompt) <= 5000:
        raise invalid("user_prompt has 3 to 5000 characters")
    if body.get("loop") and body.get("image_end_url"):
        raise invalid("loop does not go with image_end_url")
    return words_of(prompt)


def invalid(message: str) -> Refused:
    """Refuse with 400, and say what is wrong."""
    return Refused(answers.error(400, "invalid_request", message))


def shortened(body: dict[str, Any]) -> dict[str, Any]:
    """Cut every data: URI in the body to its first 40 characters."""
    return {
        name: value[:40] if isinstance(value, str) and value.startswith("data:") else value
        for name, value in body.items()
    }

"""A generation of the sandbox: its time decides its state."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_luma.sandbox import clips

if TYPE_CHECKING:
    from collections.abc import Callable


class Failure(NamedTuple):
    """
    How a generation fails.

    :param reason: the text for people.
    :param code: the code for programs, if the API has codes.
    :param refunded: whether the charge is refunded in full.
    """

    reason: str
    code: str | None = None
    refunded: bool = True


@dataclass
class Generation:
    """
    One generation.

    :param api: the name of its API.
    :param body: the submission, as the report shows it.
    :param seconds: how long it takes, in seconds.
    :param failure: how it fails; None if it succeeds.
    :param fixed_state: a state that it keeps until it is finished; if empty, its age decides.
    :param age_at_start: its age when it is made, in seconds.
    :param answer: fields that replace those of the answer to a poll.
    """

    api: str
    prompt: str
    clock: Callable[[], float]
    seconds: float
    body: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    failure: Failure | None = None
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
        """The time since the submission, in seconds."""
        return self.clock() - self.began

    @property
    def seconds_left(self) -> float:
        """The time until the end, in seconds."""
        return max(self.seconds - self.age, 0.0)

    @property
    def progress(self) -> float:
        """The finished part, from 0 to 1."""
        return min(self.age / self.seconds, 1.0) if self.seconds > 0 else 1.0

    @property
    def state(self) -> str:
        """The state: pending for the first fifth of its time, then processing until it ends."""
        if self.fixed_state:
            return self.fixed_state
        progress = self.progress
        if progress < 1:
            return "pending" if progress < 0.2 else "processing"
        return "failed" if self.failure else "completed"

    @property
    def ended(self) -> bool:
        """Whether it is completed or failed."""
        return self.state in ("completed", "failed")

    @property
    def refunded(self) -> bool:
        """Whether the whole charge was refunded."""
        return self.state == "failed" and (self.failure is None or self.failure.refunded)

    @property
    def reported_failure(self) -> Failure:
        """The failure that an answer shows: without a reason and a code until it has failed."""
        return (self.state == "failed" and self.failure) or Failure("")

    def finish(self, after: float = 0.0) -> None:
        """Let it end after this number of seconds."""
        self.fixed_state = ""
        self.seconds = self.age + after

    def summary(self, cdn: str) -> dict[str, Any]:
        """Return its entry in the report."""
        state = self.state
        completed = state == "completed"
        return {
            "id": self.id,
            "api": self.api,
            "prompt": self.prompt,
            "state": state,
            "failure_reason": self.reported_failure.reason or None,
            "body": self.body,
            "parent": self.parent,
            "submitted_at": self.submitted.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "polls": self.polls,
            "charged": True,
            "refunded": self.refunded,
            "video_url": f"{cdn}/{self.id}/video.mp4" if completed else None,
            "thumbnail_url": f"{cdn}/{self.id}/thumbnail.jpg" if completed else None,
        }


def shortened(value: Any) -> Any:
    """Cut every image in a submission to its first 40 characters."""
    if isinstance(value, dict):
        return {name: inner[:40] if is_image(name, inner) else shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shortened(inner) for inner in value]
    return value


def is_image(name: str, value: Any) -> bool:
    """Return whether a field contains an image, as a `data:` URI or as base64."""
    return isinstance(value, str) and (name == "data" or value.startswith("data:"))

"""One video in the making: the noun of this package."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import pendulum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pendulum import DateTime

VISIBLE_FIELDS = (
    "id",
    "state",
    "video_url",
    "thumbnail_url",
    "last_frame_url",
    "width",
    "height",
    "duration",
    "created_at",
    "failure_reason",
)
"""What a DAG sees of a generation, in XCom and in trigger events."""


class GenerationState(str, Enum):
    """Where a generation is between submission and video."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A word that this version does not know, so not an end: keep waiting."""

    @property
    def terminal(self) -> bool:
        """Whether nothing will change any more."""
        return self in (GenerationState.COMPLETED, GenerationState.FAILED)

    def __str__(self) -> str:
        return self.value


KNOWN_STATES = [state.value for state in GenerationState if state is not GenerationState.UNKNOWN]
"""What users call the states that they can wait for."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """
    What an API says about one generation, in whichever shape it said it.

    URLs are on a CDN and expire; ``duration`` is in seconds, ``width`` and ``height`` in pixels.
    """

    id: str
    state: GenerationState
    state_name: str = ""
    """The API's own word for the state, which may be one that this version does not know."""
    video_url: str | None = None
    download_url: str | None = None
    """Where to fetch the video that is to be stored, where the API has a URL of its own for that."""
    video_raw_url: str | None = None
    thumbnail_url: str | None = None
    last_frame_url: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    created_at: DateTime | None = None
    failure_reason: str | None = None
    moderated: bool = False
    """Whether moderation refused the prompt or an image."""
    retry_may_help: bool = True
    """Whether the same request, if this one failed, may turn out better."""
    estimate_wait_seconds: float | None = None
    finished_at: DateTime | None = None
    """When it ended, to the second; only some gateways say so, and only in a batch query."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The answer as it came, with every field this class does not have."""

    def asset_url(self, asset: str) -> str | None:
        """Return where to fetch one of a generation's files; of a video, the URL meant for that before any other."""
        url: str | None = getattr(self, f"{asset}_url")
        return self.download_url or url if asset == "video" else url

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of :data:`VISIBLE_FIELDS` as JSON types, the time as RFC 3339 in UTC."""
        values = {name: getattr(self, name) for name in VISIBLE_FIELDS}
        created_at = self.created_at and self.created_at.in_timezone("UTC").to_iso8601_string()
        return {**values, "state": self.state.value, "created_at": created_at}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Generation:
        """Return the generation that :meth:`as_dict` was called on, without what that leaves out."""
        known: dict[str, Any] = {name: values.get(name) for name in VISIBLE_FIELDS}
        created_at = known["created_at"] and pendulum.parse(known["created_at"])
        return cls(**{**known, "state": GenerationState(known["state"]), "created_at": created_at})

"""A generation: the video that an API makes, from its submission to its end."""

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
"""The fields of a generation in XComs and trigger events."""


class GenerationState(str, Enum):
    """The state of a generation."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """This version does not know the API's word for the state. It is not terminal: keep waiting."""

    @property
    def terminal(self) -> bool:
        """The state cannot change any more."""
        return self in (GenerationState.COMPLETED, GenerationState.FAILED)

    def __str__(self) -> str:
        return self.value


KNOWN_STATES = [state.value for state in GenerationState if state is not GenerationState.UNKNOWN]
"""The names of the states that users can wait for."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """
    One generation, as an API describes it.

    URLs belong to a CDN and expire; ``duration`` is in seconds, ``width`` and ``height`` in pixels.
    """

    id: str
    state: GenerationState
    state_name: str = ""
    """The API's word for the state."""
    video_url: str | None = None
    download_url: str | None = None
    """The URL from which to store the video, if the API has a separate one."""
    video_raw_url: str | None = None
    thumbnail_url: str | None = None
    last_frame_url: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    created_at: DateTime | None = None
    failure_reason: str | None = None
    moderated: bool = False
    """Moderation refused the prompt or an image."""
    retry_may_help: bool = True
    """If the generation failed: the same request may succeed."""
    refunded: bool | None = None
    """If the generation failed: its price is refunded; None if the API does not document it."""
    estimate_wait_seconds: float | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The API's JSON, unchanged."""

    def asset_url(self, asset: str) -> str | None:
        """Return the URL of a file: ``video``, ``video_raw``, ``thumbnail`` or ``last_frame``."""
        url: str | None = getattr(self, f"{asset}_url")
        return self.download_url or url if asset == "video" else url

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of :data:`VISIBLE_FIELDS` as JSON types; times are RFC 3339 in UTC."""
        values = {name: getattr(self, name) for name in VISIBLE_FIELDS}
        created_at = self.created_at and self.created_at.in_timezone("UTC").to_iso8601_string()
        return {**values, "state": self.state.value, "created_at": created_at}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Generation:
        """Build a generation from the dict of :meth:`as_dict`."""
        known: dict[str, Any] = {name: values.get(name) for name in VISIBLE_FIELDS}
        created_at = known["created_at"] and pendulum.parse(known["created_at"])
        return cls(**{**known, "state": GenerationState(known["state"]), "created_at": created_at})

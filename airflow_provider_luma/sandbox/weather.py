"""Errors by chance, for tests and benchmarks that need many of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

STATUS_FAILURES = frozenset({"429", "500", "502", "503", "504", "drop", "html", "hang"})
CDN_FAILURES = frozenset({"403", "429", "500", "503", "cut", "html", "json"})
# All of these refuse the submission without a charge, except `drop_after_accept`: accepted and charged, no answer.
SUBMIT_FAILURES = frozenset({"402", "403", "413", "422", "429", "busy", "502", "503", "drop_after_accept"})


@dataclass
class Weather:
    """
    How often calls fail; by default, none fails.

    Each chance is a number from 0 to 1. The chances of one field add up to 1 at most.

    :param status: the chance of each failure of a status query, single or batch: `429`, `500`, `502`, `503`, `504`,
        `drop` (the connection is cut), `html` (200 with a web page) or `hang` (no answer).
    :param submit: the chance of each failure of a submission. `402`, `403`, `413`, `422`, `429`, `502`, `503` and
        `busy` (429, too many running generations) refuse it; with `drop_after_accept` it is accepted and charged, then
        the connection is cut.
    :param cdn: the chance of each failure of a download: `403`, `429`, `500`, `503`, `html` or `json` (200 with a web
        page or JSON), or `cut` (the connection is closed after a twentieth of the file).
    :param down: whether every API call has its connection cut.
    :param revoked: whether every token is refused with 401.
    :param hang_seconds: how long a status query hangs, in seconds; 30 by default.
    :param retry_after: the `Retry-After` of a 429 by chance, in seconds; if 0 (the default), the API chooses.
    :param seed: makes the failures repeatable.
    """

    status: dict[str, float] = field(default_factory=dict)
    submit: dict[str, float] = field(default_factory=dict)
    cdn: dict[str, float] = field(default_factory=dict)
    down: bool = False
    revoked: bool = False
    hang_seconds: float = 30.0
    retry_after: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse unknown failures and impossible chances."""
        for name, chances, known in (
            ("status", self.status, STATUS_FAILURES),
            ("submit", self.submit, SUBMIT_FAILURES),
            ("cdn", self.cdn, CDN_FAILURES),
        ):
            unknown = set(chances) - known
            if unknown:
                raise ValueError(f"{name} has no {', '.join(sorted(unknown))}. Use {', '.join(sorted(known))}.")
            if any(chance < 0 for chance in chances.values()) or sum(chances.values()) > 1 + 1e-9:
                raise ValueError(f"The chances of {name} must be 0 or more, and at most 1 in total.")
        self.dice = random.Random(self.seed)  # noqa: S311 - nothing here is a secret

    @classmethod
    def parse(cls, body: Any) -> Weather:
        """
        Parse the weather from a JSON body.

        :raises ValueError: if the body is not an object, or a field is unknown or has the wrong type.
        """
        if not isinstance(body, dict):
            raise ValueError("The weather must be a JSON object.")  # noqa: TRY004 - the same error as for its fields
        try:
            return cls(**body)
        except (AttributeError, TypeError) as error:
            raise ValueError(str(error)) from error

    def status_failure(self) -> str | None:
        """Draw a failure for this status query, or None."""
        return self.draw(self.status)

    def submit_failure(self) -> str | None:
        """Draw a failure for this submission, or None."""
        return self.draw(self.submit)

    def cdn_failure(self) -> str | None:
        """Draw a failure for this download, or None."""
        return self.draw(self.cdn)

    def draw(self, chances: dict[str, float]) -> str | None:
        """Draw a failure, each by its chance, or None."""
        left = self.dice.random()
        for failure, chance in chances.items():
            left -= chance
            if left < 0:
                return failure
        return None

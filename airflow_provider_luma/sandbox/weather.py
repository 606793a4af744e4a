"""Errors by chance, for tests and benchmarks that need many of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

STATUS_FAILURES = frozenset({"429", "500", "502", "503", "504", "drop", "html", "hang"})
CDN_FAILURES = frozenset({"403", "429", "500", "503", "cut", "html", "json"})
# A submission that these refuse is not charged; `drop_after_accept` is charged and gets no answer.
SUBMIT_FAILURES = frozenset({"402", "403", "413", "422", "429", "busy", "502", "503", "drop_after_accept"})


@dataclass
class Weather:
    """
    How often calls go wrong; never, by default.

    :param status: how likely each failure of a status query is, single or batch: `429`, `500`, `502`, `503`, `504`,
        `drop` (connection cut), `html` (200 with a page) or `hang` (no answer), each 0 to 1, 1 in total at most.
    :param submit: how likely each failure of a submission is: `402`, `403`, `413`, `422`, `429`, `502`, `503`, `busy`
        (429, too many running generations), all not accepted, or `drop_after_accept` (accepted and charged, then the
        connection cut).
    :param cdn: how likely each failure of a file's download is: `403`, `429`, `500`, `503`, `html` or `json` (200 with
        that), or `cut` (a twentieth of the file, then the connection is closed).
    :param down: every call gets its connection cut.
    :param revoked: every token is refused with 401.
    :param hang_seconds: how long a status query that hangs is kept waiting, 30 by default.
    :param retry_after: seconds to wait that a 429 by chance names; 0, the default, is none from the gateway and 1 from
        Luma's own API.
    :param seed: makes the chances repeatable.
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
        """Refuse weather that could not happen."""
        for name, chances, known in (
            ("status", self.status, STATUS_FAILURES),
            ("submit", self.submit, SUBMIT_FAILURES),
            ("cdn", self.cdn, CDN_FAILURES),
        ):
            unknown = set(chances) - known
            if unknown:
                raise ValueError(f"{name} knows {', '.join(sorted(known))}; not {', '.join(sorted(unknown))}")
            if any(chance < 0 for chance in chances.values()) or sum(chances.values()) > 1 + 1e-9:
                raise ValueError(f"the chances of {name} are 0 or more, and 1 in total at most")
        self.dice = random.Random(self.seed)  # noqa: S311 - nothing here is a secret

    @classmethod
    def parse(cls, body: Any) -> Weather:
        """
        Read the weather from a JSON body.

        :raises ValueError: if it is not an object, has an unknown field or a field of the wrong type.
        """
        if not isinstance(body, dict):
            raise ValueError("the weather is a JSON object")  # noqa: TRY004 - one error for all that is wrong
        try:
            return cls(**body)
        except (AttributeError, TypeError) as error:
            raise ValueError(str(error)) from error

    def status_failure(self) -> str | None:
        """Return which failure this status query meets, or None."""
        return self.draw(self.status)

    def submit_failure(self) -> str | None:
        """Return which failure this submission meets, or None."""
        return self.draw(self.submit)

    def cdn_failure(self) -> str | None:
        """Return which failure this download meets, or None."""
        return self.draw(self.cdn)

    def draw(self, chances: dict[str, float]) -> str | None:
        """Draw one of the failures by its chance, or None."""
        left = self.dice.random()
        for failure, chance in chances.items():
            left -= chance
            if left < 0:
                return failure
        return None

"""A clock that only a test moves."""

from __future__ import annotations


class Clock:
    """A clock that stands still until a test changes `now`, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

"""What is known of a gateway's call for many generations: it may not be there, and has a limit that nobody knows."""

from __future__ import annotations

CHUNK = 100
"""Ids in one request: to parse the answer takes 3 ms, for which the event loop may have to wait."""

FRESH_FOR = 300.0
"""Seconds for which something that was found out is believed without asking again."""

IN_A_ROW = 3
"""So many failures in a row are the gateway's trouble; a bad id fails a request, and one of its halves."""


class QueryMany:
    """How many ids to ask for in one request, from what became of the requests before; times are the event loop's."""

    def __init__(self) -> None:
        self._missing_until = float("-inf")
        self._fits = 1
        self._refused_size = 2 * CHUNK
        self._refused_until = float("-inf")
        self._failed = False
        self._worked_only_singly = 0
        self._found_none = False
        self._found_only_singly = 0

    def size(self, now: float) -> int:
        """Return how many ids go into one request; 1 is to ask singly."""
        if now < self._missing_until:
            return 1
        if now >= self._refused_until:
            self._refused_size = 2 * CHUNK
        return min(CHUNK, max(self._fits, self._refused_size // 2))

    def missing(self, now: float) -> None:
        """Take note that there is no such call, or none that works."""
        self._missing_until = now + FRESH_FOR

    def refused(self, count: int, *, surely_too_many: bool, now: float) -> None:
        """Take note that a request for so many was refused; what has fitted before fits, unless surely not."""
        if surely_too_many:
            self._fits = min(self._fits, (count + 1) // 2)
        if count > self._fits:
            self._refused_size = min(self._refused_size, count)
            self._refused_until = now + FRESH_FOR

    def spoiled(self) -> None:
        """Take note of an id that is refused by itself: what was refused before may have been so for its sake."""
        self._refused_until = float("-inf")

    def failed(self) -> None:
        """Take note that it failed in what seems to be the gateway's trouble."""
        self._failed = True

    def answered(self, count: int, *, found: bool, now: float) -> None:
        """Take note of an answer to a request for so many, one or more; the gateway is in no trouble."""
        if count > 1:
            self._fits = max(self._fits, count)
            self._worked_only_singly = 0
            self._found_none = not found
            if found:
                self._found_only_singly = 0
        else:
            # A gateway whose trouble ends each time it is asked singly, or that knows singly what it did not know among
            # many, has the call for many, but not one that works.
            if self._failed:
                self._worked_only_singly += 1
                if self._worked_only_singly > 1:
                    self.missing(now)
            if self._found_none:
                self._found_none = False
                self._found_only_singly += 1
                if self._found_only_singly >= IN_A_ROW:
                    self._found_only_singly = 0
                    self.missing(now)
        self._failed = False

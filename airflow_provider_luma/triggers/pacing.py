"""When requests may be sent, and how large: turns, pauses after trouble, sizes of batch queries."""

from __future__ import annotations

import asyncio
from math import inf

from airflow_provider_luma.api import LumaAuthenticationError, LumaError
from airflow_provider_luma.api.retry import backoff
from airflow_provider_luma.triggers.subscriptions import new_future

FIRST_PAUSE = 5.0
"""Seconds without polls after the first failure that concerns all subscriptions; the pause doubles with each more."""

GIVE_UP_AFTER = 60.0
"""Seconds without a working batch query after which the next failure ends them."""

MAX_FAILED_PAIRS = 6
"""Number of batch queries for two ids that fail in a row before batch queries are given up."""


def now() -> float:
    """Return the time of the running event loop."""
    return asyncio.get_running_loop().time()


class Pace:
    """
    Takes care that requests do not follow each other too fast.

    :param per_second: highest number of single polls in a second.
    """

    def __init__(self, per_second: float) -> None:
        self.single = 1 / per_second
        """Seconds between two single polls."""
        self.crowded = False
        """The log says that this pace makes polls late."""
        self._next = -inf

    async def turn(self, pause: float) -> None:
        """Wait until a request may be sent; the next one may be sent ``pause`` seconds later."""
        time = now()
        at = max(time, self._next)
        self._next = at + pause
        await asyncio.sleep(at - time)


class Trouble:
    """Errors that concern all subscriptions, and the pause after each."""

    def __init__(self) -> None:
        self.failures = 0
        """Errors in a row."""
        self.quiet_until = -inf
        """No polls before this time."""
        self.refused = new_future()
        """Done as soon as the token is refused."""
        self.checking = asyncio.Lock()
        """Held while another generation is polled to find out whether an error concerns all."""

    def begins(self, error: LumaError) -> bool:
        """Begin or extend a pause; return False if the request was sent before a pause that already began."""
        first = now() >= self.quiet_until
        pause = backoff(FIRST_PAUSE, self.failures if first else 0, error.retry_after)
        self.quiet_until = max(self.quiet_until, now() + pause)
        self.failures += first
        if first and isinstance(error, LumaAuthenticationError):
            self.refused.set_result(error)
            self.refused = new_future()
        return first


class BatchSize:
    """
    How many ids to poll in one batch query.

    :param size: the API's own limit; 1 means that it has no batch queries.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._worked_at = now()
        # Sooner if batch queries never worked.
        self._failed_pairs = MAX_FAILED_PAIRS - 2

    def worked(self) -> None:
        """Note that a batch query worked."""
        self._worked_at, self._failed_pairs = now(), 0

    def failed(self, *, pair: bool) -> None:
        """Note that a batch query failed although single polls work; after several, give up batch queries."""
        self._failed_pairs += pair
        if self._failed_pairs >= MAX_FAILED_PAIRS or now() > self._worked_at + GIVE_UP_AFTER:
            self.size = 1

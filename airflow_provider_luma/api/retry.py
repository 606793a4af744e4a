"""When to try again: the one back-off of this package, and the one reading of ``Retry-After``."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 3600.0
"""Seconds; a server that asks for more is asked again after so many."""


def backoff(first: float, failures: int, retry_after: float | None = None, *, longest: float = 60.0) -> float:
    """
    Return the seconds to wait before the next try, with a jitter of up to a quarter on top.

    :param first: seconds after no failure; doubled with each one.
    :param failures: how many there were in a row.
    :param retry_after: seconds that the server asked for; it is never asked sooner.
    :param longest: seconds at which doubling ends; a longer ``first`` stays as it is.
    """
    seconds = min(first * 2.0 ** min(failures, 30), max(first, longest))
    return max(seconds, retry_after or 0.0) * random.uniform(1, 1.25)  # noqa: S311


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds, up to :data:`MAX_RETRY_AFTER`, that a header means which has a number or a date."""
    for seconds in (float, _seconds_until):
        with suppress(TypeError, ValueError, OverflowError):
            # In this order, so that NaN is 0.
            return min(max(0.0, seconds(header or "")), MAX_RETRY_AFTER)
    return None


def _seconds_until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()

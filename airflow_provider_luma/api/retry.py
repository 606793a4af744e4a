"""How long to wait before the next try: the back-off and the header ``Retry-After``."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 3600.0
"""Longest ``Retry-After`` that is respected, in seconds."""


def backoff(first: float, failures: int, retry_after: float | None = None, *, longest: float = 60.0) -> float:
    """
    Return the seconds to wait before the next try, including up to 25 % of random jitter.

    :param first: base delay in seconds; doubles with each failure.
    :param failures: previous failures in a row.
    :param retry_after: seconds that the server asked for; the result is never shorter.
    :param longest: longest delay in seconds; a longer ``first`` does not grow.
    """
    seconds = min(first * 2.0 ** min(failures, 30), max(first, longest))
    return max(seconds, retry_after or 0.0) * random.uniform(1, 1.25)  # noqa: S311


def parse_retry_after(header: str | None) -> float | None:
    """Parse a ``Retry-After`` header (seconds or a date) to seconds, at most :data:`MAX_RETRY_AFTER`."""
    for seconds in (float, lambda date: parsedate_to_datetime(date).timestamp() - time.time()):
        with suppress(TypeError, ValueError, OverflowError):
            # In this order, NaN becomes 0.
            return min(max(0.0, seconds(header or "")), MAX_RETRY_AFTER)
    return None

"""
Polling all the generations that one event loop waits for, together.

The triggers decide when a wait is over (see :mod:`airflow_provider_luma.api.waiting`), this polls: many generations in
one batch query where the API has one, in threads, in the order in which they are due.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_luma.api import (
    Generation,
    LumaAuthenticationError,
    LumaError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.retry import backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from airflow_provider_luma.api import LumaClient
    from airflow_provider_luma.triggers.connections import Pollers

Seen = Generation | LumaError

log = logging.getLogger(__name__)

MAX_BATCH_QUERIES = 4
"""Batch queries at the same time."""

MAX_SINGLE_REQUESTS = 16
"""Requests for one generation each at the same time."""

JOIN_DELAY = 0.25
"""Seconds for which a new subscription waits for others to be polled with it."""

STAGGER = 0.01
"""Seconds between two batch queries, or their answers are parsed at the same time."""

SCAN_INTERVAL = 0.05
"""Seconds between two looks at all subscriptions for those that are due."""

NOTIFY_BATCH = 10
"""Triggers that are notified in one step of the event loop."""

CACHE_TTL = 300.0
"""Seconds for which something that was found out is believed: a batch limit, or what a connection leads to."""

RECHECK_INTERVAL = CACHE_TTL + 1.0
"""Seconds after which the triggers look up their connection while nothing is polled."""

LONGEST_FIRST_PAUSE = 60.0
"""Seconds; one long poll interval does not make all wait that long after a failure."""


def _future() -> asyncio.Future[Seen | None]:
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False, slots=True)
class Subscription:
    """One trigger's wait, and the newest that is known of its generation."""

    poller: Poller
    generation_id: str
    poll_interval: float
    due: float = inf
    queued: bool = False
    """It is in the queue or in a request, so that its ``due`` does not count."""
    alone: bool = False
    """It is polled singly: a batch query left it out, or it was rejected."""
    failures: int = 0
    news: asyncio.Future[Seen | None] = field(default_factory=_future)

    async def next(self) -> Seen | None:
        """Wait for news; None means that nothing is polled for now, so look up whom to poll with."""
        await self.news
        # Newer news may have come since.
        news, self.news = self.news.result(), _future()
        return news

    def notify(self, news: Seen | None) -> None:
        """Hand over news, in place of older ones that were not read."""
        if self.news.done():
            self.news = _future()
        self.news.set_result(news)


@dataclass(eq=False, slots=True)
class Trouble:
    """Failures in a row that concern all, and the pause that they ask for."""

    failures: int = 0
    quiet_until: float = -inf
    checking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Schedule:
    """
    Which generations to poll next, and how many in one request; all times are passed in.

    :param max_batch: how many ids the API takes in one batch query, 1 where it has none.
    """

    def __init__(self, max_batch: int) -> None:
        self.subscriptions: dict[Subscription, None] = {}
        self.batch_size = max_batch
        self.changed = asyncio.Event()
        self._max_batch = max_batch
        self._relearn_at = inf
        self._queue: deque[Subscription] = deque()
        self._scanned_at = -inf
        self._first_due = inf

    @property
    def wake_at(self) -> float:
        """When there is something to poll."""
        return -inf if self._queue else max(self._first_due, self._scanned_at + SCAN_INTERVAL)

    def put(self, subscriptions: Iterable[Subscription], due: float) -> None:
        """Poll these again at this time."""
        for one in subscriptions:
            one.queued, one.due = False, due
        if due < self._first_due:
            self._first_due = due
            self.changed.set()

    def learn(self, batch_size: int, now: float) -> None:
        """Take no more in a batch than this, for the next five minutes."""
        self.batch_size, self._relearn_at = min(batch_size, self.batch_size), now + CACHE_TTL

    def next_batch(self, now: float, *, singly: bool) -> list[Subscription]:
        """Return those to poll next in one request, without those who left; an empty list when nothing is due."""
        if now >= self._relearn_at:
            self.batch_size, self._relearn_at = self._max_batch, inf
        if now >= self.wake_at and not self._queue:
            self._scan(now)
        batch: list[Subscription] = []
        while self._queue and len(batch) < (1 if singly else self.batch_size):
            if batch and self._queue[0].alone:
                break
            one = self._queue.popleft()
            if one in self.subscriptions:
                batch.append(one)
                if one.alone:
                    break
        return batch

    def witnesses(self, batch: list[Subscription]) -> list[Subscription]:
        """Return two who can show that only this batch fails: others, or its own; by chance, as some may be bad too."""
        concerned = set(batch)
        others = [one for one in self.subscriptions if not one.alone and one not in concerned]
        if len(others) < 2 and len(batch) > 1:
            others += batch
        return random.sample(others, min(2, len(others)))

    def _scan(self, now: float) -> None:
        """Queue all that are due, and fill up their last batch with those past half their interval."""
        idle = [one for one in self.subscriptions if not one.queued]
        due = [one for one in idle if one.due <= now]
        together = sum(not one.alone for one in due)
        if room := -together % self.batch_size:
            early = [one for one in idle if not one.alone and now < one.due <= now + one.poll_interval / 2]
            due += sorted(early, key=lambda one: one.due)[:room]
        for one in due:
            one.queued = True
        # By chance among those of a batch that failed, as some of them may be bad.
        self._queue.extend(sorted(due, key=lambda one: (one.alone, one.due, random.random())))  # noqa: S311
        self._scanned_at = now
        self._first_due = min((one.due for one in idle if not one.queued), default=inf)


class Poller:
    """
    All the waits of one event loop that poll with one client.

    :param client: what to poll with; it must not retry by itself.
    :param pollers: where to sign off when the last subscription ends.
    """

    def __init__(self, client: LumaClient, pollers: Pollers) -> None:
        self.client = client
        self.closed = False
        self.refused_at = -inf
        self._pollers = pollers
        self._schedule = Schedule(client.dialect.BATCH_SIZE)
        self._trouble = Trouble()
        self._threads = ThreadPoolExecutor(MAX_SINGLE_REQUESTS, thread_name_prefix="luma-poller")
        self._polling: set[asyncio.Task[int]] = set()
        # An empty context, or whatever is logged here would land in the log of the task that came first.
        self._running = Context().run(pollers.loop.create_task, self._run())

    def __len__(self) -> int:
        return len(self._schedule.subscriptions)

    def subscribe(self, generation_id: str, poll_interval: float) -> Subscription:
        """Poll a generation, from now on."""
        subscription = Subscription(self, generation_id, poll_interval)
        self._schedule.subscriptions[subscription] = None
        self._schedule.put([subscription], self._now + min(JOIN_DELAY, poll_interval))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Poll it no more; the last one closes the sessions and ends the threads."""
        self._schedule.subscriptions.pop(subscription, None)
        if self._schedule.subscriptions or self.closed:
            return
        self.closed = True
        for task in (self._running, *self._polling):
            task.cancel()
        # A thread's session goes with the thread.
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pollers.discard(self)
        with suppress(Exception):
            Stats.gauge("luma.generations_waiting", self._pollers.waiting)

    async def notify_all(self, news: Seen | None) -> None:
        """Notify all that have no unread news, a few in each step of the event loop."""
        async for one in _few_at_a_time(list(self._schedule.subscriptions)):
            if not one.news.done():
                one.notify(news)

    @property
    def _now(self) -> float:
        return self._pollers.loop.time()

    async def _run(self) -> None:
        pace = 1 / self.client.dialect.REQUESTS_PER_SECOND
        warned = False
        while True:
            self._schedule.changed.clear()
            while batch := self._next_batch():
                warned = warned or self._warn_if_late(batch[0])
                polling = asyncio.create_task(self._poll(batch))
                self._polling.add(polling)
                polling.add_done_callback(self._polled)
                await asyncio.sleep(STAGGER if len(batch) > 1 else pace)
            recheck_at = self._now + RECHECK_INTERVAL
            wake_at = max(self._schedule.wake_at, self._trouble.quiet_until) if self._room() else inf
            alarm = self._pollers.loop.call_at(min(wake_at, recheck_at), self._schedule.changed.set)
            await self._schedule.changed.wait()
            alarm.cancel()
            if self._now >= recheck_at:
                await self.notify_all(None)

    def _polled(self, polling: asyncio.Task[int]) -> None:
        self._polling.discard(polling)
        self._schedule.changed.set()

    def _room(self) -> bool:
        most = MAX_BATCH_QUERIES if self._schedule.batch_size > 1 else MAX_SINGLE_REQUESTS
        # While there is trouble, one is enough to find out whether it is over.
        return len(self._polling) < (1 if self._trouble.failures else most)

    def _next_batch(self) -> list[Subscription]:
        if self._now < self._trouble.quiet_until or not self._room():
            return []
        return self._schedule.next_batch(self._now, singly=self._trouble.failures > 0)

    def _warn_if_late(self, one: Subscription) -> bool:
        """Return whether the pace that the API allows is too slow for all who wait; if so, say it."""
        allowed = self.client.dialect.REQUESTS_PER_SECOND
        late = allowed < inf and self._schedule.batch_size == 1 and self._now > one.due + one.poll_interval
        if late:
            log.warning(
                "%d generations are waited for, and %s allows %g polls a second: each is polled every %.0f s, whatever "
                "its poll_interval. Nothing is lost but time.",
                len(self),
                self.client.url,
                allowed,
                len(self) / allowed,
            )
        return late

    async def _poll(self, batch: list[Subscription]) -> int:
        """Poll these, and return for how many one request was answered at most, or 0 where that is not known."""
        sent = self._now
        if sent < self._trouble.quiet_until or len(batch) > self._schedule.batch_size:
            self._schedule.put(batch, sent)
            return 0
        try:
            found = await self._request(batch)
        except LumaError as error:
            return await self._failed(batch, error)
        self._trouble.failures = 0
        async for one in _few_at_a_time(batch):
            seen = found.get(one.generation_id)
            one.failures, one.alone = 0, seen is None
            self._schedule.put([one], sent + one.poll_interval if seen else sent)
            if seen:
                one.notify(seen)
        return len(batch)

    async def _request(self, batch: list[Subscription]) -> dict[str, Generation]:
        # Metrics that cannot be sent are no reason not to poll.
        with suppress(Exception):
            Stats.incr("luma.status_requests")
            Stats.gauge("luma.generations_waiting", self._pollers.waiting)
        in_thread = functools.partial(self._pollers.loop.run_in_executor, self._threads)
        ids = list(dict.fromkeys(one.generation_id for one in batch))
        try:
            if len(batch) > 1:
                return await in_thread(self.client.get_many, ids)
            return {ids[0]: await in_thread(self.client.get, ids[0])}
        except LumaError:
            raise
        except Exception as error:
            # What nobody thought of must not end a thousand waits.
            raise LumaServerError(f"The answer cannot be understood: {error!r:.200}") from error

    async def _failed(self, batch: list[Subscription], error: LumaError) -> int:
        if len(batch) > 1 and isinstance(error, LumaNotFound) and not error.unknown_id:
            # There is no batch query.
            self._schedule.learn(1, self._now)
            self._schedule.put(batch, self._now)
            return 0
        if _concerns_ids(error):
            self._trouble.failures = 0
        elif common := await self._common_error(batch, error):
            await self._pause(batch, common)
            return 0
        if len(batch) > 1:
            return await self._poll_halves(batch, error)
        self._reject(batch[0], error)
        return 0

    async def _common_error(self, batch: list[Subscription], error: LumaError) -> LumaError | None:
        """Return what keeps all from being polled, or None where others can be."""
        async with self._trouble.checking:
            for witness in self._schedule.witnesses(batch):
                if self._trouble.failures or _concerns_all(error):
                    break
                try:
                    await self._request([witness])
                except LumaError as own:
                    if _concerns_ids(own):
                        return None
                    if _concerns_all(own):
                        error = own
                else:
                    return None
        return error

    async def _pause(self, batch: list[Subscription], error: LumaError) -> None:
        """Poll nobody for a while, and tell all; those whose request was under way at that time do not add to it."""
        now, trouble = self._now, self._trouble
        self._schedule.put(batch, now)
        first = now >= trouble.quiet_until
        shortest = min(LONGEST_FIRST_PAUSE, *(one.poll_interval for one in batch))
        pause = backoff(shortest, trouble.failures if first else 0, error.retry_after)
        trouble.quiet_until = max(trouble.quiet_until, now + pause)
        if first:
            trouble.failures += 1
            if isinstance(error, LumaAuthenticationError):
                self.refused_at = now
            await self.notify_all(error)

    def _reject(self, one: Subscription, error: LumaError) -> None:
        """Hand over an error that is of this generation only, and poll it alone, ever less often."""
        one.alone = True
        unknown = isinstance(error, LumaNotFound)
        pause = one.poll_interval if unknown else backoff(one.poll_interval, one.failures)
        one.failures += not unknown
        self._schedule.put([one], self._now + pause)
        one.notify(error)

    async def _poll_halves(self, batch: list[Subscription], error: LumaError) -> int:
        """Find the id that fails for all, or how many ids the API takes."""
        middle = (len(batch) + 1) // 2
        worked = [await self._poll(half) for half in (batch[:middle], batch[middle:])]
        most = max(worked) if all(worked) else 0
        if most == 1 or (most and isinstance(error, LumaInvalidRequest)):
            # Each of them is fine: they were too many, or the batch query is broken.
            self._schedule.learn(most, self._now)
        return most


def _concerns_ids(error: LumaError) -> bool:
    """Return whether the API itself says that something is wrong with what was polled."""
    if isinstance(error, LumaInvalidRequest):
        redirected = 300 <= (error.status or 0) < 400
        return not redirected
    return isinstance(error, LumaNotFound) and error.from_gateway


def _concerns_all(error: LumaError) -> bool:
    return isinstance(error, LumaRateLimited | LumaQuotaError) or bool(error.retry_after)


async def _few_at_a_time(subscriptions: list[Subscription]) -> AsyncIterator[Subscription]:
    """Yield each, and let the event loop do something else now and then."""
    for number, one in enumerate(subscriptions, 1):
        yield one
        if number % NOTIFY_BATCH == 0:
            await asyncio.sleep(0)

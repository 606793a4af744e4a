"""
Polling all the generations that one event loop waits for, together.

The triggers decide when a wait is over (see :mod:`airflow_provider_luma.api.waiting`), this polls: many generations in
one batch query where the API has one, in threads, in the order in which they are due.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_luma.api import Generation, LumaAuthenticationError, LumaError, LumaInvalidRequest, LumaNotFound
from airflow_provider_luma.api.retry import backoff

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_luma.api import LumaClient
    from airflow_provider_luma.triggers.connections import Connection

Seen = Generation | LumaError

log = logging.getLogger(__name__)

MAX_BATCH_QUERIES = 4
"""Batch queries at the same time."""

MAX_SINGLE_REQUESTS = 16
"""Requests for one generation each at the same time."""

STAGGER = 0.01
"""Seconds between two batch queries, or their answers are parsed at the same time."""

SCAN_INTERVAL = 0.25
"""Seconds, at most, between two looks at all subscriptions, and for which a new poller waits for them to come."""

NOTIFY_BATCH = 10
"""Changes that are handed over before each pause; the triggers log them."""

NOTIFY_PAUSE = 0.01
"""Seconds. A triggerer's log takes about a line a millisecond; with some 130 waiting, the next stops the event loop."""

CACHE_TTL = 300.0
"""Seconds for which something that was found out is believed: a batch limit, or what a connection leads to."""

CROWDED = "%d generations are waited for, and %s allows %g polls a second: each is polled every %.0f s."

FIRST_PAUSE = 5.0
"""Seconds without a poll after a failure that concerns all; doubled with each one more in a row."""

_NOTIFY_LOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""All the pollers of an event loop take turns: what they hand over goes to the one log of the triggerer."""


def _future() -> asyncio.Future[Seen]:
    return asyncio.get_running_loop().create_future()


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(eq=False, slots=True)
class Subscription:
    """One trigger's wait, and what it has not read yet of its generation."""

    generation_id: str
    poll_interval: float
    due: float = -inf
    """When to poll it; never while it is polled."""
    alone: bool = False
    """It is polled singly: a batch query left it out, or it was rejected."""
    answered: float = -inf
    """When the API last said how it is."""
    failures: int = 0
    last_state: str = ""
    """The state that was handed over last, or "failing" where polling failed."""
    ended: Exception | None = None
    news: asyncio.Future[Seen] = field(default_factory=_future)

    async def next(self) -> Seen:
        """Wait for news, and return the newest; raise what makes it impossible to poll."""
        await self.news
        news, self.news = self.news, _future()
        if self.ended:
            raise self.ended.with_traceback(None)
        return news.result()

    def notify(self, news: Seen) -> bool:
        """Hand over news, in place of older ones that were not read, and return whether that is a change."""
        if self.news.done():
            self.news = _future()
        self.news.set_result(news)
        before, self.last_state = self.last_state, news.state_name if isinstance(news, Generation) else "failing"
        return self.last_state != before


class Poller:
    """
    All the waits of one event loop that poll with one client.

    :param client: what to poll with.
    :param connections: those of the event loop, of which some lead to this poller.
    """

    def __init__(self, client: LumaClient, connections: Mapping[str, Connection]) -> None:
        self.client = client
        self.batch_size = client.dialect.BATCH_SIZE
        """How many ids to take in one batch query; less when the API has refused so many since the last look-up."""
        self.refused = _future()
        """The refusal of the token, as soon as it is refused."""
        self._connections = connections
        self._failures = 0
        self._quiet_until = self._next_turn = -inf
        self._threads = ThreadPoolExecutor(MAX_SINGLE_REQUESTS, thread_name_prefix="luma-poller")
        self._polling: set[asyncio.Task[int]] = set()
        self._running = asyncio.create_task(self._run())

    def close(self) -> None:
        """Poll no more, close the sessions and end the threads."""
        for task in (self._running, *self._polling):
            task.cancel()
        # A thread's session goes with the thread.
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._report()

    @property
    def _pace(self) -> float:
        return 1 / self.client.dialect.REQUESTS_PER_SECOND

    @property
    def _subscriptions(self) -> list[Subscription]:
        return [one for each in self._connections.values() if each.poller is self for one in each.subscriptions]

    async def _run(self) -> None:
        warned = False
        await asyncio.sleep(SCAN_INTERVAL)
        while True:
            due = min((one.due for one in self._subscriptions), default=inf)
            left = max(due, self._quiet_until) - _now()
            if left > 0:
                await asyncio.sleep(min(left, SCAN_INTERVAL))
                continue
            if self._failures:
                await self._probe()
                continue
            batches = self._due_batches()
            if not warned and len(batches) * self._pace > batches[0][0].poll_interval:
                warned = True
                waiting, allowed = len(self._subscriptions), self.client.dialect.REQUESTS_PER_SECOND
                log.warning(CROWDED, waiting, self.client.url, allowed, waiting * self._pace)
            for batch in batches:
                _put(batch, inf)
            for batch in batches:
                most = MAX_BATCH_QUERIES if self.batch_size > 1 else MAX_SINGLE_REQUESTS
                while len(self._polling) >= most:
                    await asyncio.wait(self._polling, return_when=asyncio.FIRST_COMPLETED)
                await self._turn(STAGGER if len(batch) > 1 else self._pace)
                polling = asyncio.create_task(self._poll(batch))
                self._polling.add(polling)
                polling.add_done_callback(self._polling.discard)

    async def _turn(self, pause: float) -> None:
        """Wait until one more request may be sent, and let none follow it for this many seconds."""
        now = _now()
        at = max(now, self._next_turn)
        self._next_turn = at + pause
        await asyncio.sleep(at - now)

    def _due_batches(self) -> list[list[Subscription]]:
        """Return what to poll now, a list for each request: what is due, with what is past half its interval."""
        now, waiting, size = _now(), self._subscriptions, self.batch_size
        early = 0.5 if size > 1 else 0.0
        together = [one for one in waiting if not one.alone and one.due <= now + one.poll_interval * early]
        together.sort(key=lambda one: one.due)
        batches = [together[first : first + size] for first in range(0, len(together), size)]
        return batches + [[one] for one in waiting if one.alone and one.due <= now]

    async def _probe(self) -> None:
        """Poll singly, to see whether the trouble is over: first one, after some pauses ever more, each time others."""
        due = sorted((one for one in self._subscriptions if one.due <= _now()), key=lambda one: one.due)
        some = due[: min(2 ** max(self._failures - 3, 0), MAX_SINGLE_REQUESTS)]
        sent = _now()
        answers = await asyncio.gather(*(self._poll_singly(one) for one in some))
        over = any(map(_works, answers))
        for one, answer in zip(some, answers, strict=True):
            if not isinstance(answer, LumaError):
                await self._take([one], answer, sent)
            elif over:
                self._set_aside(one, answer)
            else:
                await self._pause([one], answer)

    async def _poll(self, batch: list[Subscription]) -> int:
        """Poll these, and return for how many one request was answered at most, or 0 where that is not known."""
        sent = _now()
        if self._failures or sent < self._quiet_until or len(batch) > self.batch_size:
            # Before those that were polled and failed.
            _put(batch, -inf)
            return 0
        found = await self._request(batch)
        if isinstance(found, LumaError):
            return await self._failed(batch, found)
        await self._take(batch, found, sent)
        return len(batch)

    async def _poll_singly(self, one: Subscription) -> dict[str, Generation] | LumaError:
        await self._turn(self._pace)
        return await self._request([one])

    async def _request(self, batch: list[Subscription]) -> dict[str, Generation] | LumaError:
        self._report("luma.status_requests")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._get, batch)
        except LumaError as error:
            return error
        except Exception as error:  # noqa: BLE001 - what nobody thought of must not end a thousand waits
            return LumaError(f"The answer cannot be understood: {error!r:.200}")

    def _get(self, batch: list[Subscription]) -> dict[str, Generation]:
        if len(batch) > 1:
            return self.client.get_many({one.generation_id for one in batch}, repeat=False)
        return {one.generation_id: self.client.get(one.generation_id, repeat=False) for one in batch}

    def _report(self, *counted: str) -> None:
        # Metrics that cannot be sent are no reason not to poll.
        with suppress(Exception):
            for name in counted:
                Stats.incr(name)
            Stats.gauge("luma.generations_waiting", sum(len(one.subscriptions) for one in self._connections.values()))

    async def _take(self, batch: list[Subscription], found: Mapping[str, Generation], sent: float) -> None:
        self._failures = 0
        known = {one: found[one.generation_id] for one in batch if one.generation_id in found}
        for one in batch:
            one.failures, one.alone, one.due = 0, one not in known, sent
        for one in known:
            one.answered, one.due = _now(), sent + one.poll_interval
        await _notify(known.items())

    def _set_aside(self, one: Subscription, error: LumaError) -> None:
        """Poll one alone, ever less often, as it failed by itself; but an unknown id may soon be known."""
        self._failures = 0
        one.alone = True
        one.due = _now() + backoff(one.poll_interval, one.failures)
        one.failures += not isinstance(error, LumaNotFound)
        one.notify(error)

    async def _failed(self, batch: list[Subscription], error: LumaError) -> int:
        if len(batch) > 1 and isinstance(error, LumaNotFound) and not error.unknown_id:
            # There is no batch query.
            self.batch_size = 1
        elif not _concerns_ids(error) and await self._concerns_all(batch, error):
            await self._pause(batch, error)
            return 0
        if len(batch) > 1:
            # One of them fails for all, or they are too many, or the batch query is broken.
            middle = (len(batch) + 1) // 2
            worked = [await self._poll(half) for half in (batch[:middle], batch[middle:])]
            most = max(worked) if all(worked) else 0
            if most == 1 or (most and isinstance(error, LumaInvalidRequest)):
                self.batch_size = min(most, self.batch_size)
            return most
        [one] = batch
        self._set_aside(one, error)
        return 0

    async def _concerns_all(self, batch: list[Subscription], error: LumaError) -> bool:
        """Return whether another one cannot be polled either, or need not be tried."""
        if self._failures or error.retry_after:
            return True
        witnesses = [batch[0], batch[-1]] if len(batch) > 1 else []
        others = [one for one in self._subscriptions if one.answered > -inf and one is not batch[0]]
        if others:
            witnesses = [max(others, key=lambda one: one.answered)]
        for witness in witnesses:
            if _works(await self._poll_singly(witness)):
                return False
            witness.answered = -inf
        return True

    async def _pause(self, batch: list[Subscription], error: LumaError) -> None:
        """Poll nobody for a while, and tell all; those whose request was under way at that time do not add to it."""
        now = _now()
        first = now >= self._quiet_until
        pause = backoff(FIRST_PAUSE, self._failures if first else 0, error.retry_after)
        self._quiet_until = max(self._quiet_until, now + pause)
        _put(batch, now)
        if first:
            self._failures += 1
            if isinstance(error, LumaAuthenticationError):
                self.refused.set_result(error)
                self.refused = _future()
            await notify_all(self._subscriptions, error)


def _put(batch: list[Subscription], due: float) -> None:
    for one in batch:
        one.due = due


def _works(answer: Mapping[str, Generation] | LumaError) -> bool:
    return not isinstance(answer, LumaError) or _concerns_ids(answer)


def _concerns_ids(error: LumaError) -> bool:
    """Return whether the API itself says that something is wrong with what was polled."""
    if isinstance(error, LumaNotFound):
        return error.from_api
    # A redirect is none of the API itself.
    return isinstance(error, LumaInvalidRequest) and not 300 <= (error.status or 0) < 400


async def notify_all(subscriptions: Iterable[Subscription], news: Seen, ended: Exception | None = None) -> None:
    """Hand over news to all that have read theirs, and let their wait end."""
    every = list(subscriptions)
    for one in every:
        one.ended = ended
    await _notify((one, news) for one in every if not one.news.done())


async def _notify(news: Iterable[tuple[Subscription, Seen]]) -> None:
    """Hand over news, and changes no faster than the triggerer's log takes their lines."""
    changes = 0
    async with _NOTIFY_LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        for one, seen in news:
            changes += one.notify(seen)
            if changes == NOTIFY_BATCH:
                changes = 0
                await asyncio.sleep(NOTIFY_PAUSE)

"""
The poller polls for all triggers of an event loop together.

It sends the requests, in threads, for the generations that are due: batch queries for many generations if the API has
them. The triggers decide when a wait is over (:mod:`airflow_provider_luma.api.waiting`).

No wait may harm another. Batch queries, single polls and polls of generations that failed before have their own slots.
If a step raises an unexpected error, only the wait concerned ends.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_luma.api import Generation, LumaError, LumaInvalidRequest, LumaNotFound
from airflow_provider_luma.api.retry import backoff
from airflow_provider_luma.triggers.pacing import FIRST_PAUSE, BatchSize, Pace, Trouble, now
from airflow_provider_luma.triggers.subscriptions import Subscription, guarded, notify, notify_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_luma.api import LumaClient

log = logging.getLogger(__name__)

SLOTS = {"batch": 4, "single": 16, "failing": 4}
"""
Number of requests at the same time: batch queries, single polls, and single polls of generations that failed before.

Each kind has its own slots, so that slow answers of one kind do not delay the others.
"""

STAGGER = 0.01
"""Seconds between two batch queries, so that their answers are not parsed at the same moment."""

SCAN_INTERVAL = 0.25
"""Seconds between two searches for due subscriptions; a new poller waits as long for more subscriptions."""

SLOW = 5.0
"""Seconds after which a batch query that failed is not divided: its ids are polled alone, at the same time."""

LOST = 3600.0
"""Seconds after which a poll without an outcome is repeated."""

CROWDED = "%d generations are waited for, and %s allows %g polls a second: each is polled every %.0f s."


class Poller:
    """
    Polls for all subscriptions of an event loop that use the same client.

    Add to and remove from :attr:`subscriptions` to start and stop polling a generation.

    :param client: sends the requests.
    :param pace: shared by all pollers with the same host and token.
    :param count_waits: returns the number of waits in this event loop, for Airflow's metrics.
    """

    def __init__(self, client: LumaClient, pace: Pace, count_waits: Callable[[], int]) -> None:
        self.client = client
        self.pace = pace
        self.subscriptions: set[Subscription] = set()
        self.batch = BatchSize(client.dialect.BATCH_SIZE)
        self.trouble = Trouble()
        self._count_waits = count_waits
        self._slots = {kind: asyncio.Semaphore(count) for kind, count in SLOTS.items()}
        self._threads = ThreadPoolExecutor(sum(SLOTS.values()), thread_name_prefix="luma-poller")
        self._polls: set[asyncio.Task[None]] = set()
        self.running = asyncio.create_task(self._run())
        """Done if the poller was closed, or broke."""

    def close(self) -> None:
        """Stop polling, and end the threads and their HTTP sessions."""
        for task in (self.running, *self._polls):
            task.cancel()
        # A session ends with its thread.
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._report()

    async def _run(self) -> None:
        await asyncio.sleep(SCAN_INTERVAL)
        while True:
            with guarded([]):
                await self._step()
                await asyncio.sleep(0)
                continue
            # After an unexpected error.
            await asyncio.sleep(FIRST_PAUSE)

    async def _step(self) -> None:
        due = min((one.due for one in self.subscriptions), default=inf)
        left = max(due, self.trouble.quiet_until) - now()
        if left > 0:
            await asyncio.sleep(min(left, SCAN_INTERVAL))
        elif self.trouble.failures:
            await self._probe()
        else:
            self._start_due()

    def _start_due(self) -> None:
        """Start to poll the due subscriptions; a batch query includes subscriptions that are due soon."""
        time, apart, together = now(), list[Subscription](), list[Subscription]()
        for one in sorted(self.subscriptions, key=lambda one: one.due):
            alone = one.alone or time < one.apart_until or self.batch.size == 1
            if one.due <= time + (0 if alone else one.poll_interval / 2):
                (apart if alone else together).append(one)
        # The rest follows in the next steps: thousands of tasks would block the event loop.
        for one in apart[: 8 * SLOTS["single"]]:
            self._start([one], "failing" if one.failures else "single")
        for first in range(0, len(together), self.batch.size):
            self._start(together[first : first + self.batch.size], "batch")
        self._warn_if_crowded()

    def _start(self, batch: list[Subscription], kind: str) -> None:
        poll = asyncio.create_task(self._poll(batch, self._slots[kind]))
        self._polls.add(poll)
        poll.add_done_callback(self._polls.discard)
        _put(batch, now() + LOST)

    def _warn_if_crowded(self) -> None:
        """Log once that a poll of each takes longer than the poll interval."""
        takes = len(self._polls) * self.pace.single
        if takes and not self.pace.crowded and takes > min(one.poll_interval for one in self.subscriptions):
            self.pace.crowded, waiting = True, len(self.subscriptions)
            log.warning(CROWDED, waiting, self.client.url, 1 / self.pace.single, waiting * self.pace.single)

    async def _poll(self, batch: list[Subscription], slots: asyncio.Semaphore) -> None:
        with guarded(batch):
            async with slots:
                await self._poll_batch([one for one in batch if one in self.subscriptions])

    async def _poll_batch(self, batch: list[Subscription]) -> bool:
        """Poll a batch, and return whether it was answered."""
        if not batch or self.trouble.failures or now() < self.trouble.quiet_until or len(batch) > self.batch.size:
            # Later, but before the subscriptions whose poll failed.
            _put(batch, -inf)
            return False
        sent = now()
        found = await self._request(batch)
        if isinstance(found, LumaError):
            await self._failed(batch, found, slow=now() > sent + SLOW)
            return False
        await self._take(batch, found, sent)
        return True

    async def _probe(self) -> None:
        """Find out whether the trouble is over: poll a single generation, and after some pauses several of them."""
        due = sorted((one for one in self.subscriptions if one.due <= now()), key=lambda one: (one.failures, one.due))
        some = due[: min(2 ** max(self.trouble.failures - 3, 0), SLOTS["single"])]
        answers = await asyncio.gather(*(self._request([one]) for one in some))
        over = any(map(_works, answers))
        for one, answer in zip(some, answers, strict=True):
            with guarded([one]):
                if not isinstance(answer, LumaError):
                    await self._take([one], answer, now())
                elif over:
                    self._set_aside(one, answer)
                else:
                    await self._pause([one], answer)

    async def _request(self, batch: list[Subscription]) -> dict[str, Generation] | LumaError:
        """Send a request as soon as the pace allows it."""
        await self.pace.turn(STAGGER if len(batch) > 1 else self.pace.single)
        self._report("luma.status_requests")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._get, batch)
        except LumaError as error:
            return error
        except Exception as error:  # noqa: BLE001 - it may concern one generation, or all
            # The only plain LumaError: all others have a class of their own.
            return LumaError(f"The answer cannot be understood: {error!r:.200}").with_traceback(error.__traceback__)

    def _get(self, batch: list[Subscription]) -> dict[str, Generation]:
        if len(batch) > 1:
            return self.client.get_many({one.generation_id for one in batch}, repeat=False)
        return {one.generation_id: self.client.get(one.generation_id, repeat=False) for one in batch}

    def _report(self, *counted: str) -> None:
        # Polling goes on if metrics cannot be sent.
        with suppress(Exception):
            for name in counted:
                Stats.incr(name)
            Stats.gauge("luma.generations_waiting", self._count_waits())

    async def _take(self, batch: list[Subscription], found: Mapping[str, Generation], sent: float) -> None:
        self.trouble.failures = 0
        several = len(batch) > 1
        if several:
            self.batch.worked()
        for one in batch:
            seen = found.get(one.generation_id)
            # A single poll may know more than a batch query, such as the file of a completed generation.
            one.failures, one.alone = 0, not seen or (seen.state == "completed" and not seen.video_url)
            one.due = sent if several and one.alone else sent + one.poll_interval
            one.answered = now() if seen else one.answered
        await notify((one, found[one.generation_id]) for one in batch if one.generation_id in found)

    async def _failed(self, batch: list[Subscription], error: LumaError, *, slow: bool) -> None:
        several = len(batch) > 1
        if several and isinstance(error, LumaNotFound) and _works(error) and not error.unknown_id:
            # This API has no batch queries.
            self.batch.size = 1
            _put(batch, -inf)
        elif not _works(error) and await self._concerns_all(batch, error):
            await self._pause(batch, error)
        elif not several:
            self._set_aside(batch[0], error)
        elif slow:
            self.batch.failed(pair=False)
            for one in batch:
                one.alone, one.due = True, -inf
        elif len(batch) == 2:
            self.batch.failed(pair=True)
            for one in batch:
                one.poll_apart()
        else:
            # The API rejects an id, or takes fewer ids. The halves of an odd number share one, so that no id is alone.
            half = (len(batch) + 1) // 2
            worked = await self._poll_batch(batch[:half])
            rest = [one for one in batch[-half:] if now() >= one.apart_until]
            if await self._poll_batch(rest) and worked and isinstance(error, LumaInvalidRequest):
                self.batch.size = min(half, self.batch.size)

    async def _concerns_all(self, batch: list[Subscription], error: LumaError) -> bool:
        """Return whether the error concerns all subscriptions; poll another generation to find out."""
        async with self.trouble.checking:
            if self.trouble.failures or error.retry_after:
                return True
            others = [one for one in self.subscriptions if one.answered > -inf and one is not batch[0]]
            known = sorted(others, key=lambda one: one.answered)[-1:]
            for witness in known or (batch[:: len(batch) - 1] if len(batch) > 1 else []):
                if _works(await self._request([witness])):
                    return False
                witness.answered = -inf
            return True

    def _set_aside(self, one: Subscription, error: LumaError) -> None:
        """Poll one generation alone and less and less often, or at its interval if only its id is unknown."""
        self.trouble.failures = 0
        if type(error) is LumaError:
            # Unexpected, and it concerns only this generation.
            raise error
        one.alone = True
        one.due = now() + backoff(one.poll_interval, one.failures)
        one.failures += not isinstance(error, LumaNotFound)
        one.notify(error)

    async def _pause(self, batch: list[Subscription], error: LumaError) -> None:
        """Stop all polls for a while and notify all; later errors of the same pause do not extend it."""
        _put(batch, now())
        if self.trouble.begins(error):
            if type(error) is LumaError:
                log.warning("Polling %s raised an unexpected error.", self.client.url, exc_info=error)
            await notify_all(self.subscriptions, error)


def _put(batch: list[Subscription], due: float) -> None:
    for one in batch:
        one.due = due


def _works(seen: Mapping[str, Generation] | LumaError) -> bool:
    """Return whether the API itself answered, even if it says that something is wrong with the polled ids."""
    rejected = isinstance(seen, LumaNotFound | LumaInvalidRequest) and seen.from_api
    return rejected or not isinstance(seen, LumaError)

"""
Asking about all the generations that one event loop waits for, together.

The triggers decide (see :mod:`airflow_provider_luma.api.waiting`), this asks: at most :data:`CHUNK` ids a request, in
threads, in the order in which they are due. The only clock is the event loop's own.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
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
from airflow_provider_luma.triggers.query_many import CHUNK, FRESH_FOR, IN_A_ROW, QueryMany

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_luma.api import LumaClient
    from airflow_provider_luma.triggers.connections import Pollers

Seen = Generation | LumaError

log = logging.getLogger(__name__)

AT_ONCE = 4
SINGLES_AT_ONCE = 16

GATHER = 0.25
"""Seconds for which one that joins waits for others to be asked for with it."""

APART = 0.01
"""Seconds between two requests for many, or their answers come, and are parsed, at the same time."""

TOLD_AT_ONCE = 10
"""Triggers that are woken in one step of the event loop."""

LOOK_EVERY = FRESH_FOR + 1.0
"""Seconds after which the triggers look whom to ask, however long nobody is to be asked."""

CONFIRM_EVERY = 20.0
"""Seconds until an id that was asked for singly, and is unknown, is asked for singly again."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One trigger's place among those that wait."""

    poller: Poller
    generation_id: str
    poll_interval: float
    seen: asyncio.Future[Seen | None]
    asked: float = float("-inf")
    company: int = CHUNK
    """With how many it may go at most; halved when a request that it was part of went wrong."""
    failures: int = 0
    confirm_at: float = 0.0
    spread: bool = False

    async def next(self) -> Seen | None:
        """Wait for what the gateway says next; None, where it was long not asked, is to look whom to ask."""
        await self.seen
        # Not what was waited for, where more was said since.
        seen = self.seen.result()
        self.seen = self.poller.loop.create_future()
        return seen

    def tell(self, seen: Seen | None) -> None:
        """Hand over what the gateway said; the newest counts, where the trigger is slower than the gateway."""
        if self.seen.done():
            self.seen = self.poller.loop.create_future()
        self.seen.set_result(seen)

    def leave(self) -> None:
        """Wait no more."""
        self.poller.leave(self)


class Poller:
    """
    All the waits of one event loop on one gateway with one token.

    :param client: what to ask with; it must not repeat anything by itself.
    :param house: where to sign off when the last one has left.
    """

    def __init__(self, client: LumaClient, house: Pollers) -> None:
        self.client = client
        self.loop = house.loop
        self.tickets: set[Ticket] = set()
        self.closed = False
        self.refused_at = float("-inf")
        self._house = house
        self._count = itertools.count()
        self._due: list[tuple[float, int, Ticket]] = []
        self._left_out: deque[Ticket] = deque()
        self._changed = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(SINGLES_AT_ONCE, thread_name_prefix="luma-poller")
        # An empty context, or whatever is logged here would land in the log of the task that came first.
        self._running = Context().run(self.loop.create_task, self._run())
        self._failures = 0
        self._failed_at = float("-inf")
        self._quiet_until = float("-inf")
        self._look_at = float("inf")
        self._probing = False
        self._many = QueryMany()
        self._spread = 0.0
        self._left_out_next = False

    def join(self, generation_id: str, poll_interval: float) -> Ticket:
        """Wait with the others, from now on."""
        ticket = Ticket(self, generation_id, poll_interval, self.loop.create_future())
        self.tickets.add(ticket)
        self._queue(ticket, self.loop.time() + min(GATHER, poll_interval))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Strike a ticket off; the last one out closes the sessions and ends the threads."""
        self.tickets.discard(ticket)
        if not self.tickets and not self.closed:
            self.closed = True
            self._running.cancel()
            for asking in self._in_flight:
                asking.cancel()
            # A thread's session goes with the thread.
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._house.closed(self)
            with suppress(Exception):
                Stats.gauge("luma.generations_waiting", self._house.waiting)

    def _queue(self, ticket: Ticket, due: float) -> None:
        heapq.heappush(self._due, (due, next(self._count), ticket))
        self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            while together := self._together():
                asking = self.loop.create_task(self._ask(together))
                self._in_flight.add(asking)
                asking.add_done_callback(self._asked)
                await asyncio.sleep(APART if len(together) > 1 else 0)
            first_due = self.loop.time() if self._left_out else self._due[0][0] if self._due else float("inf")
            if self.loop.time() >= self._look_at:
                again = self.loop.time() + LOOK_EVERY
                self._look_at = again if again < self._quiet_until else float("inf")
                await self.tell_all(None)
            wake_at = min(max(first_due, self._quiet_until), self._look_at)
            if self._room() and wake_at < float("inf"):
                alarm = self.loop.call_at(wake_at, self._changed.set)
                await self._changed.wait()
                alarm.cancel()
            else:
                await self._changed.wait()

    async def tell_all(self, seen: LumaError | None, but: Iterable[Ticket] = ()) -> None:
        """Tell all but some what :meth:`Ticket.next` returns, and none that has yet to hear news of its own."""
        others = self.tickets.difference(but)
        for slice_ in _slices(list(others)):
            for ticket in slice_:
                if not ticket.seen.done():
                    ticket.tell(seen)
            await asyncio.sleep(0)

    def _asked(self, asking: asyncio.Task[None]) -> None:
        self._in_flight.discard(asking)
        self._changed.set()
        if not asking.cancelled() and asking.exception():
            log.error("The poller could not make sense of an answer.", exc_info=asking.exception())

    def _room(self) -> bool:
        at_once = SINGLES_AT_ONCE if self._many.size(self.loop.time()) == 1 else AT_ONCE
        # While there is trouble, one is enough to ask whether it is over.
        return len(self._in_flight) < (1 if self._failures >= IN_A_ROW or self._probing else at_once)

    def _together(self) -> list[Ticket]:
        """Return those to ask for next in one request: who is due, and as riders who is past half their interval."""
        now = self.loop.time()
        if now < self._quiet_until or not self._room():
            return []
        if self._probing:
            return self._probe(now) or self._next_left_out()
        # By turns, or those that an answer has left out would wait for as long as others are always due.
        self._left_out_next = not self._left_out_next
        if self._left_out_next and (alone := self._next_left_out()):
            return alone
        together: list[Ticket] = []
        room = self._many.size(now)
        # No more in one step of the event loop, as all of them may have left.
        for _ in range(min(len(self._due), CHUNK)):
            if len(together) >= room:
                break
            due, _, ticket = self._due[0]
            if ticket in self.tickets:
                if now < (min(due, ticket.asked + ticket.poll_interval / 2) if together else due):
                    break
                if together and ticket.company <= len(together):
                    break
                room = min(room, ticket.company)
                together.append(ticket)
            heapq.heappop(self._due)
        return together or self._next_left_out()

    def _probe(self, now: float) -> list[Ticket]:
        """Return one that is due, to ask whether the trouble is over: the least likely to be its cause."""
        due: list[tuple[float, int, Ticket]] = []
        for _ in range(min(len(self._due), 2 * CHUNK)):
            if self._due[0][0] > now:
                break
            entry = heapq.heappop(self._due)
            if entry[2] in self.tickets:
                due.append(entry)
        probe = max(due, key=lambda entry: entry[2].company, default=None)
        for entry in due:
            if entry is not probe:
                heapq.heappush(self._due, entry)
        return [probe[2]] if probe else []

    def _next_left_out(self) -> list[Ticket]:
        for _ in range(min(len(self._left_out), CHUNK)):
            ticket = self._left_out.popleft()
            if ticket in self.tickets:
                return [ticket]
        return []

    async def _ask(self, together: list[Ticket]) -> None:
        sent = self.loop.time()
        for ticket in together:
            ticket.asked = sent
            # Those who are asked for together are due together.
            ticket.spread = ticket.spread and len(together) == 1
        # Metrics that cannot be sent are no reason not to ask.
        with suppress(Exception):
            Stats.incr("luma.status_requests")
            Stats.gauge("luma.generations_waiting", self._house.waiting)
        try:
            found = await self.loop.run_in_executor(self._threads, self._request, together)
        except LumaError as error:
            await self._failed(together, error, sent)
        except Exception as error:  # noqa: BLE001 - what nobody thought of must not end a thousand waits
            await self._failed(together, LumaServerError(f"The answer cannot be understood: {error!r:.200}"), sent)
        else:
            self._failures = 0
            self._probing = False
            self._many.answered(len(together), found=bool(found), now=sent)
            await self._answered(together, found, sent)

    def _request(self, together: list[Ticket]) -> dict[str, Generation]:
        if len(together) == 1:
            generation_id = together[0].generation_id
            return {generation_id: self.client.get(generation_id)}
        return self.client.get_many(dict.fromkeys(ticket.generation_id for ticket in together))

    async def _answered(self, together: list[Ticket], found: dict[str, Generation], sent: float) -> None:
        for slice_ in _slices(together):
            for ticket in slice_:
                ticket.failures = 0
                ticket.company = min(2 * ticket.company, CHUNK)
                seen = found.get(ticket.generation_id)
                if seen is None and sent >= ticket.confirm_at:
                    self._left_out.append(ticket)
                    continue
                self._queue(ticket, self._next_turn(ticket, sent))
                if seen is not None:
                    ticket.tell(seen)
            await asyncio.sleep(0)

    def _next_turn(self, ticket: Ticket, sent: float) -> float:
        """Return when to ask again; those asked singly, which came all at once, are spread over their interval."""
        pause = backoff(ticket.poll_interval, ticket.failures)
        if self._many.size(self.loop.time()) == 1 and not ticket.spread:
            ticket.spread = True
            # Steps of the golden ratio leave the gaps even, however many there are.
            self._spread = (self._spread + 0.618034) % 1
            pause *= self._spread
        return sent + pause

    async def _failed(self, together: list[Ticket], error: LumaError, sent: float) -> None:
        count = len(together)
        redirected = error.status is not None and 300 <= error.status < 400
        elsewhere = count == 1 and isinstance(error, LumaNotFound) and not error.from_gateway
        if not isinstance(error, LumaNotFound | LumaInvalidRequest) or redirected or elsewhere:
            await self._in_trouble(together, error, sent)
            return
        self._failures = 0
        if count == 1:
            (ticket,) = together
            if isinstance(error, LumaNotFound):
                ticket.confirm_at = sent + CONFIRM_EVERY
            else:
                if not ticket.failures:
                    self._many.spoiled()
                ticket.failures += 1
                ticket.company = 1
            await self._tell(together, error, sent)
        elif isinstance(error, LumaNotFound) and not error.unknown_id:
            self._many.missing(sent)
            self._again(together, CHUNK)
        else:
            # Too many, or one that spoils it for all.
            self._many.refused(count, surely_too_many=error.status == 413, now=sent)
            self._again(together, (count + 1) // 2)

    async def _in_trouble(self, together: list[Ticket], error: LumaError, sent: float) -> None:
        """Take note of what may be the gateway's trouble, or that of one id."""
        # One that is known to fail by itself says nothing about the gateway, as long as there are others.
        some = itertools.islice(self.tickets, CHUNK)
        suspect = len(together) == 1 and together[0].failures > 0 and any(not one.failures for one in some)
        news = sent >= self._failed_at and not suspect
        if news:
            self._failures += 1
            self._failed_at = self.loop.time()
        if isinstance(error, LumaAuthenticationError):
            self.refused_at = sent
        retry_after = error.retry_after or 0.0
        everyones = isinstance(error, LumaRateLimited | LumaQuotaError) or retry_after > 0
        if self._failures < IN_A_ROW and not everyones and len(together) > 1:
            self._again(together, (len(together) + 1) // 2)
            return
        if everyones or (self._failures >= IN_A_ROW and not suspect):
            shortest = min(60.0, *(ticket.poll_interval for ticket in together))
            failures = self._failures if everyones else self._failures - IN_A_ROW
            pause = max(backoff(shortest, failures), retry_after)
            jitter = random.uniform(1, 1.25)  # noqa: S311 - nothing here is a secret
            self._quiet_until = max(self._quiet_until, self.loop.time() + pause * jitter)
            if pause > LOOK_EVERY:
                self._look_at = min(self._look_at, self.loop.time() + LOOK_EVERY)
            self._probing = True
            if len(together) > 1 and not isinstance(error, LumaRateLimited | LumaQuotaError):
                self._many.failed()
        for ticket in together:
            # It may be too many for the gateway, or one of them may spoil it for all, whatever it says.
            ticket.company = (len(together) + 1) // 2
        if len(together) == 1:
            together[0].failures += 1
        await self._tell(together, error, sent)
        if news and self._failures >= (2 if everyones else IN_A_ROW):
            await self.tell_all(error, but=together)

    async def _tell(self, together: list[Ticket], seen: Seen, sent: float) -> None:
        for slice_ in _slices(together):
            for ticket in slice_:
                self._queue(ticket, self._next_turn(ticket, sent))
                ticket.tell(seen)
            await asyncio.sleep(0)

    def _again(self, together: list[Ticket], company: int) -> None:
        """Ask at once for those who have got no answer, with no more company than this."""
        for ticket in together:
            ticket.company = company
            self._queue(ticket, self.loop.time())


def _slices(tickets: list[Ticket]) -> Iterable[list[Ticket]]:
    """Cut into as many as may be handled in one step of the event loop."""
    return (tickets[start : start + TOLD_AT_ONCE] for start in range(0, len(tickets), TOLD_AT_ONCE))

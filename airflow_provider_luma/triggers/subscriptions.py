"""Subscriptions: each trigger subscribes to its generation, and the poller passes every answer on to it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_luma.api import Generation, LumaError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

log = logging.getLogger(__name__)

Seen = Generation | LumaError

CACHE_TTL = 300.0
"""Seconds until a connection is looked up again, and until an id that only batch queries reject is tried again."""

NOTIFY_BATCH = 10
"""Number of subscriptions whose state may change before each pause; their triggers log the change."""

NOTIFY_PAUSE = 0.01
"""Seconds. A triggerer logs about one line per millisecond, and blocks its event loop at about 130 waiting lines."""

_NOTIFY_LOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""One lock for each event loop: all pollers of a triggerer share its log."""


def new_future() -> asyncio.Future[Seen]:
    """Create a future of the running event loop."""
    return asyncio.get_running_loop().create_future()


@contextmanager
def guarded(subscriptions: Sequence[Subscription]) -> Iterator[None]:
    """
    Survive all errors of a step: log the traceback and end the wait concerned.

    :param subscriptions: the subscriptions of the step; if there are several, each is polled apart to find the wait.
    """
    try:
        yield
    except Exception as error:
        ids = ", ".join(str(one.generation_id) for one in subscriptions[:3])
        log.exception("Polling raised an unexpected error (%d generations: %s).", len(subscriptions), ids)
        for subscription in subscriptions:
            if len(subscriptions) > 1:
                subscription.poll_apart()
            else:
                subscription.end(LumaError(f"Polling generation {ids} raised an unexpected error: {error!r:.200}"))


@dataclass(eq=False, slots=True)
class Subscription:
    """
    One trigger's subscription to a generation.

    :param generation_id: the generation.
    :param poll_interval: longest time between two polls, in seconds.
    """

    generation_id: str
    poll_interval: float
    due: float = -inf
    """When to poll next; much later during a poll."""
    alone: bool = False
    """Poll it alone until the next answer."""
    apart_until: float = -inf
    """Poll it alone until this time, because batch queries reject it."""
    answered: float = -inf
    """Time of the latest successful poll."""
    failures: int = 0
    """Failed polls in a row that concern only this generation."""
    last_state: str = ""
    """The state in the latest news; "failing" after an error."""
    ended: LumaError | None = None
    news: asyncio.Future[Seen] = field(default_factory=new_future)

    async def next(self) -> Seen:
        """Wait for news and return the newest; raise the error that ended the subscription."""
        await self.news
        news, self.news = self.news, new_future()
        if self.ended:
            raise self.ended.with_traceback(None)
        return news.result()

    def poll_apart(self) -> None:
        """Poll it alone for some minutes, from now on."""
        self.apart_until, self.due = asyncio.get_running_loop().time() + CACHE_TTL, -inf

    def end(self, error: LumaError) -> None:
        """End the wait with an error."""
        self.ended, self.due = error, inf
        if not self.news.done():
            self.news.set_result(error)

    def notify(self, news: Seen) -> bool:
        """Replace unread news with newer news; return whether the state changed."""
        if self.news.done():
            self.news = new_future()
        self.news.set_result(news)
        before, self.last_state = self.last_state, news.state_name if isinstance(news, Generation) else "failing"
        return self.last_state != before


async def notify_all(subscriptions: Collection[Subscription], news: Seen, ended: LumaError | None = None) -> None:
    """Notify the subscriptions without unread news, and end all of them with the error ``ended``, if there is one."""
    for subscription in subscriptions:
        subscription.ended = ended
    await notify((subscription, news) for subscription in list(subscriptions) if not subscription.news.done())


async def notify(news: Iterable[tuple[Subscription, Seen]]) -> None:
    """Pass on news, with pauses, so that the triggerer's log can keep up."""
    changes = 0
    async with _NOTIFY_LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        for subscription, seen in news:
            with guarded([subscription]):
                changes += subscription.notify(seen)
            if changes == NOTIFY_BATCH:
                changes = 0
                await asyncio.sleep(NOTIFY_PAUSE)

"""Airflow connections in the triggerer: each is looked up once for all triggers of an event loop."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from math import inf
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_luma.api import LumaConnectionError, LumaError
from airflow_provider_luma.api.arguments import check_poll_interval
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.triggers.pacing import BatchSize, Pace, now
from airflow_provider_luma.triggers.poller import Poller
from airflow_provider_luma.triggers.subscriptions import CACHE_TTL, Subscription, notify_all

if TYPE_CHECKING:
    from airflow_provider_luma.api import LumaClient

log = logging.getLogger(__name__)

LOOKUP_RETRY_INTERVAL = 5.0
"""Seconds between two attempts to look up a connection."""

LOOKUP_GRACE = 60.0
"""Seconds after which a connection that cannot be looked up ends its waits; Airflow may be busy for a moment."""

_OF_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Connection]] = WeakKeyDictionary()


class Connection:
    """
    An Airflow connection in the triggerer, and its poller.

    It is looked up again if its token is refused, and after :data:`CACHE_TTL` seconds. If that fails, the old client
    stays in use.

    :param luma_conn_id: the connection's id.
    :param connections: all connections of the event loop by id.
    """

    def __init__(self, luma_conn_id: str, connections: dict[str, Connection]) -> None:
        self.poller: Poller | None = None
        self.subscriptions: set[Subscription] = set()
        self._luma_conn_id = luma_conn_id
        self._connections = connections
        self._created = now()
        # In an empty context: otherwise the lines of this task and of the poller go to the log of the first trigger.
        self._watching = Context().run(asyncio.create_task, self._watch())
        self._watching.add_done_callback(self._end)

    @classmethod
    def for_running_loop(cls, luma_conn_id: str) -> Connection:
        """Return the connection with this id; all triggers of the running event loop share it."""
        connections = _OF_LOOP.setdefault(asyncio.get_running_loop(), {})
        if luma_conn_id not in connections:
            connections[luma_conn_id] = cls(luma_conn_id, connections)
        return connections[luma_conn_id]

    def subscribe(self, generation_id: str, poll_interval: float) -> Subscription:
        """Start to poll a generation."""
        subscription = Subscription(generation_id, check_poll_interval(poll_interval))
        self.subscriptions.add(subscription)
        if self.poller:
            self.poller.subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop polling; after the last subscription, forget the connection."""
        self.subscriptions.discard(subscription)
        if self.poller:
            self.poller.subscriptions.discard(subscription)
        if not self.subscriptions:
            self._end()

    async def _watch(self) -> None:
        """Look the connection up, again and again, and choose its poller."""
        while True:
            try:
                # Airflow looks a connection up over the triggerer's own pipe. Before Airflow 3.2, a plain thread must
                # not use the pipe. A cancelled look-up leaves its answer in the pipe, which ends the triggerer.
                client = await asyncio.shield(sync_to_async(LumaHook(self._luma_conn_id).get_conn)())
                self._use(self._poller_for(client))
            except Exception as error:  # noqa: BLE001 - no error of a look-up may end waits that can be polled
                await self._failed(error)
            if self.poller:
                # Until its token is refused, or it broke.
                events = (self.poller.trouble.refused, self.poller.running)
                await asyncio.wait(events, timeout=CACHE_TTL, return_when=asyncio.FIRST_COMPLETED)
            if not self.poller or self.poller.running.done():
                await asyncio.sleep(LOOKUP_RETRY_INTERVAL)

    async def _failed(self, error: Exception) -> None:
        if self.poller:
            log.warning("Connection %r cannot be looked up; its old client stays in use: %s", self._luma_conn_id, error)
            return
        reason = str(error) or repr(error)
        news = LumaConnectionError(f"Connection {self._luma_conn_id!r} cannot be looked up: {reason:.300}")
        # Airflow 3.3 also raises "not found" if it cannot look the connection up for a moment.
        expired = news if now() >= self._created + LOOKUP_GRACE else None
        await notify_all(self.subscriptions, news, error if isinstance(error, LumaError) else expired)

    def _poller_for(self, client: LumaClient) -> Poller:
        """Return the running poller with this client, or a new poller."""
        pollers = [one.poller for one in self._connections.values() if one.poller and not one.poller.running.done()]
        paces = {poller.client.account: poller.pace for poller in pollers}
        pace = paces.get(client.account) or Pace(client.dialect.REQUESTS_PER_SECOND)
        poller = next((one for one in pollers if one.client == client), None) or Poller(client, pace, self._count_waits)
        # Batch queries that were given up may work now.
        poller.batch = BatchSize(client.dialect.BATCH_SIZE)
        return poller

    def _use(self, poller: Poller | None) -> None:
        """Move all subscriptions to another poller, and close the old one if it has no others."""
        before, self.poller = self.poller, poller
        if before is poller:
            return
        if before:
            before.subscriptions -= self.subscriptions
            if not before.subscriptions:
                before.close()
        if poller:
            for subscription in self.subscriptions:
                # The old poller may have begun a poll that nobody will read.
                subscription.due = -inf
            poller.subscriptions |= self.subscriptions

    def _end(self, *_: object) -> None:
        """Forget the connection, and end its remaining waits if it ended unexpectedly."""
        self._watching.cancel()
        if self._connections.get(self._luma_conn_id) is self:
            del self._connections[self._luma_conn_id]
        self._use(None)
        for subscription in self.subscriptions:
            subscription.end(LumaError(f"Polling with connection {self._luma_conn_id!r} ended unexpectedly."))

    def _count_waits(self) -> int:
        return sum(len(one.subscriptions) for one in self._connections.values())

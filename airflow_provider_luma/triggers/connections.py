"""What the triggers of an event loop poll with: their Airflow connections, each looked up once for all who name it."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from math import inf
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from asgiref.sync import sync_to_async

from airflow_provider_luma.api import LumaConnectionError, LumaError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.triggers.poller import CACHE_TTL, Poller, Subscription, notify_all

log = logging.getLogger(__name__)

LOOKUP_RETRY_INTERVAL = 5.0
"""Seconds between two look-ups of a connection that could not be looked up yet."""

MISSING_GRACE = 60.0
"""Seconds for which a connection must not be found before it is believed missing."""

_OF_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Connection]] = WeakKeyDictionary()


class Connection:
    """
    An Airflow connection that triggers of one event loop wait with, and the poller that it leads to.

    It is looked up again when its token was refused, and after :data:`CACHE_TTL` seconds. When that fails, what it was
    goes on.

    :param luma_conn_id: its id.
    :param connections: those of the same event loop, by their ids.
    """

    def __init__(self, luma_conn_id: str, connections: dict[str, Connection]) -> None:
        self.poller: Poller | None = None
        self.subscriptions: set[Subscription] = set()
        self._luma_conn_id = luma_conn_id
        self._connections = connections
        self._created = asyncio.get_running_loop().time()
        # An empty context, or what is logged here and by the poller would land in the log of the task that came first.
        self._watching = Context().run(asyncio.create_task, self._watch())

    @classmethod
    def for_running_loop(cls, luma_conn_id: str) -> Connection:
        """Return the one for all triggers of the running event loop that name this id."""
        connections = _OF_LOOP.setdefault(asyncio.get_running_loop(), {})
        if luma_conn_id not in connections:
            connections[luma_conn_id] = cls(luma_conn_id, connections)
        return connections[luma_conn_id]

    def subscribe(self, generation_id: str, poll_interval: float) -> Subscription:
        """Poll a generation, from now on."""
        subscription = Subscription(generation_id, poll_interval)
        self.subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Poll it no more; the last one leaves nothing behind."""
        self.subscriptions.discard(subscription)
        if not self.subscriptions:
            self._watching.cancel()
            del self._connections[self._luma_conn_id]
            self._lead_to(None)

    async def _watch(self) -> None:
        while True:
            try:
                # Airflow looks a connection up over the triggerer's own pipe. Before 3.2, a plain thread may not use
                # that, and the answer to a look-up that was cancelled stays in it, which ends the triggerer.
                client = await asyncio.shield(sync_to_async(LumaHook(self._luma_conn_id).get_conn)())
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end waits that can be polled
                await self._failed(error)
            else:
                pollers = {one.poller.client: one.poller for one in self._connections.values() if one.poller}
                poller = pollers.get(client) or Poller(client, self._connections)
                poller.batch_size = client.dialect.BATCH_SIZE
                self._lead_to(poller)
            if self.poller:
                await asyncio.wait([self.poller.refused], timeout=CACHE_TTL)
            else:
                await asyncio.sleep(LOOKUP_RETRY_INTERVAL)

    async def _failed(self, error: Exception) -> None:
        if self.poller:
            log.warning("Connection %r cannot be looked up again, going on as before: %s", self._luma_conn_id, error)
            return
        # Airflow 3.3 also says that there is none when it cannot look it up for a moment.
        believed = asyncio.get_running_loop().time() >= self._created + MISSING_GRACE
        ends = isinstance(error, LumaError) or (isinstance(error, AirflowNotFoundException) and believed)
        for_now = LumaConnectionError(f"Connection {self._luma_conn_id!r} cannot be looked up: {error!r}")
        await notify_all(self.subscriptions, for_now, ended=error if ends else None)

    def _lead_to(self, poller: Poller | None) -> None:
        before, self.poller = self.poller, poller
        if before and before is not poller:
            for one in self.subscriptions:
                # The one before may have begun to poll it, and not get to the end.
                one.due = -inf
            if all(one.poller is not before for one in self._connections.values()):
                before.close()

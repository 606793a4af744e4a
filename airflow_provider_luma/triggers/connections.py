"""Which poller polls for an Airflow connection, in each event loop."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from asgiref.sync import sync_to_async

from airflow_provider_luma.api import LumaConnectionError, LumaError
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.triggers.poller import CACHE_TTL, Poller

if TYPE_CHECKING:
    from airflow_provider_luma.api import LumaClient

LOOKUP_RETRY_INTERVAL = 1.0
"""Seconds for which a failed look-up of a connection stands for all who name it."""

MISSING_GRACE = 60.0
"""Seconds for which a connection must not be found before it is believed missing."""

_OF_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, Pollers] = WeakKeyDictionary()


@dataclass(eq=False)
class _Connection:
    """What an Airflow connection's id led to, when it was last looked up."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    poller: Poller | None = None
    error: Exception | None = None
    failing_since: float = inf
    looked_up: float = -inf

    @property
    def usable(self) -> bool:
        """Whether there is a poller whose token has not been refused."""
        return bool(self.poller and not self.poller.closed and self.looked_up >= self.poller.refused_at)

    def fresh(self, now: float) -> bool:
        """Return whether it need not be looked up."""
        if self.error:
            return now < self.looked_up + LOOKUP_RETRY_INTERVAL
        return self.usable and now < self.looked_up + CACHE_TTL


class Pollers:
    """The pollers of one event loop, and which of them a connection's id leads to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self._pollers: dict[LumaClient, Poller] = {}
        self._connections: dict[str, _Connection] = {}

    @property
    def waiting(self) -> int:
        """How many generations are waited for."""
        return sum(map(len, self._pollers.values()))

    @classmethod
    def for_running_loop(cls) -> Pollers:
        """Return those of the running event loop; a forked child does not go on with its parent's."""
        loop = asyncio.get_running_loop()
        known = _OF_LOOP.get(loop)
        if known is None or known.pid != os.getpid():
            known = _OF_LOOP[loop] = cls(loop)
        return known

    async def for_connection(self, luma_conn_id: str) -> Poller:
        """
        Return the poller that polls with an Airflow connection, which is looked up once for all who name it.

        It is looked up again when its token was refused, and after :data:`CACHE_TTL` seconds. When that fails, what
        it was goes on.

        :raises AirflowNotFoundException: there is no such connection, for over :data:`MISSING_GRACE` seconds.
        :raises LumaConnectionError: it could not be looked up for now.
        :raises LumaError: it is not valid.
        """
        connection = self._connections.setdefault(luma_conn_id, _Connection())
        in_progress = connection.usable and connection.lock.locked()
        if not connection.fresh(self.loop.time()) and not in_progress:
            # One after the other, so that no step of the event loop wakes them all.
            async with connection.lock:
                if not connection.fresh(self.loop.time()):
                    await self._look_up(luma_conn_id, connection)
        if connection.error:
            raise connection.error.with_traceback(None)
        return cast("Poller", connection.poller)

    async def _look_up(self, luma_conn_id: str, connection: _Connection) -> None:
        hook = LumaHook(luma_conn_id, retry_for=0)
        before, connection.error = connection.poller, None
        try:
            # Airflow looks a connection up over the triggerer's own pipe. Before 3.2, a plain thread may not use that,
            # and the answer to a look-up that was cancelled stays in it, which ends the triggerer.
            client = await asyncio.shield(asyncio.ensure_future(sync_to_async(hook.get_conn)()))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end waits that can be polled
            connection.failing_since = min(connection.failing_since, self.loop.time())
            # Airflow 3.3 also says that there is none when it cannot look it up for a moment.
            failed_for = self.loop.time() - connection.failing_since
            missing = isinstance(error, AirflowNotFoundException) and failed_for >= MISSING_GRACE
            if before and not before.closed:
                hook.log.warning("Connection %r cannot be looked up again, going on as before: %s", luma_conn_id, error)
            elif isinstance(error, LumaError) or missing:
                connection.error = error
            else:
                connection.error = LumaConnectionError(f"Connection {luma_conn_id!r} cannot be looked up: {error!r}")
        else:
            connection.failing_since = inf
            if client not in self._pollers:
                self._pollers[client] = Poller(client, self)
            connection.poller = self._pollers[client]
            if before and before is not connection.poller:
                # Those who went on with it during the look-up may hear nothing for long.
                await before.notify_all(None)
        connection.looked_up = self.loop.time()

    def discard(self, poller: Poller) -> None:
        """Forget a closed poller, and with the last one everything, so that a new one starts afresh."""
        del self._pollers[poller.client]
        in_progress = any(connection.lock.locked() for connection in self._connections.values())
        if not self._pollers and not in_progress and _OF_LOOP.get(self.loop) is self:
            del _OF_LOOP[self.loop]

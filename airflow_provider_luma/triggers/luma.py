"""The trigger: a deferred task waits with it in the triggerer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api import Generation, LumaError, LumaGenerationFailed, errors
from airflow_provider_luma.api.arguments import check_poll_interval
from airflow_provider_luma.api.waiting import Wait, parse_states
from airflow_provider_luma.failures import STILL_RUNNING
from airflow_provider_luma.triggers.connections import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import timedelta

FAILURE_FIELDS = ("moderated", "retry_may_help", "refunded")
"""Fields of a failed generation that its dict does not have, but its error needs."""


FIRST_EVENT = 1.0
"""Seconds after which a trigger may fire."""


class LumaGenerationTrigger(BaseTrigger):
    """
    Wait for a generation and fire one event.

    All triggers of a triggerer that use the same host and token are polled together.

    The event: ``{"status": "success", "generation": {...}}`` with the sensor's dict of the generation, or
    ``{"status": "error", "error": <class of the LumaError>, "message": ..., "retry_may_help": ..., "generation": {...}
    or None, "failure": {...} or None}``. The last two are set if the generation
    failed.

    :param generation_id: the generation id.
    :param luma_conn_id: the connection; its token is not stored with the trigger.
    :param poll_interval: longest time between two polls, in seconds or as a ``timedelta``.
    :param target_state: the state to wait for, or several states.
    """

    def __init__(
        self,
        generation_id: str,
        luma_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: float | timedelta = 5.0,
        target_state: Any = "completed",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generation_id = generation_id
        self.luma_conn_id = luma_conn_id
        self.poll_interval = check_poll_interval(poll_interval)
        self.target_state = sorted(state.value for state in parse_states(target_state))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, so that another triggerer can continue this wait."""
        arguments = ("generation_id", "luma_conn_id", "poll_interval", "target_state")
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the event."""
        # Airflow fails a task whose trigger fires while it still defers (apache/airflow#71580).
        earliest = asyncio.create_task(asyncio.sleep(FIRST_EVENT))
        try:
            event: dict[str, Any] = {"status": "success", "generation": (await self._wait()).as_dict()}
        except LumaError as error:
            failed = error.generation if isinstance(error, LumaGenerationFailed) else None
            event = {
                "status": "error",
                "error": type(error).__name__,
                "message": str(error),
                "retry_may_help": error.retry_may_help,
                "generation": failed and failed.as_dict(),
                "failure": failed and {name: getattr(failed, name) for name in FAILURE_FIELDS},
            }
        await earliest
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Log that the generation keeps running; Airflow 3.3 calls this if a person stops the deferred task."""
        self.log.warning(STILL_RUNNING, self.generation_id)

    async def _wait(self) -> Generation:
        wait = Wait(self.generation_id, self.target_state, log=self.log, clock=asyncio.get_running_loop().time)
        connection = Connection.for_running_loop(self.luma_conn_id)
        subscription = connection.subscribe(self.generation_id, self.poll_interval)
        try:
            while True:
                generation = wait.update(await subscription.next())
                if generation:
                    return generation
        finally:
            connection.unsubscribe(subscription)


def generation_from(event: Mapping[str, Any]) -> Generation:
    """
    Return the generation in a trigger's event.

    :raises LumaError: the error that ended the wait.
    """
    if event["status"] == "success":
        return Generation.from_dict(event["generation"])
    if event["generation"]:
        raise LumaGenerationFailed(replace(Generation.from_dict(event["generation"]), **event["failure"]))
    kind: type[LumaError] = getattr(errors, event["error"], LumaError)
    raise kind(event["message"], retry_may_help=event["retry_may_help"])

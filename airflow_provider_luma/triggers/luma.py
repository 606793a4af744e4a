"""The wait that a triggerer does for a deferred task."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats
from airflow.triggers.base import BaseTrigger, TriggerEvent
from pendulum import DateTime

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api import Generation, LumaError, LumaGenerationFailed, errors
from airflow_provider_luma.api.waiting import Wait, parse_states
from airflow_provider_luma.failures import STILL_RUNNING
from airflow_provider_luma.triggers.connections import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class LumaGenerationTrigger(BaseTrigger):
    """
    Wait for a generation, and fire once, when it is in a state that was waited for or never will be.

    All that wait in one triggerer, on the same gateway with the same token, are polled together.

    The event: ``{"status": "success", "generation": {...}}`` with the generation as the sensor returns it, or
    ``{"status": "error", "error": <name of the LumaError>, "message": ..., "retry_may_help": ..., "moderated": ...,
    "generation": {...} or None}``.

    :param generation_id: what to wait for.
    :param luma_conn_id: the connection to poll with; the token itself is never in a trigger's row.
    :param poll_interval: seconds between two polls, at most.
    :param target_state: the state to wait for, or several.
    """

    def __init__(
        self,
        generation_id: str,
        luma_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: float = 5.0,
        target_state: Any = "completed",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.generation_id = generation_id
        self.luma_conn_id = luma_conn_id
        self.poll_interval = poll_interval
        self.target_state = sorted(state.value for state in parse_states(target_state))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return all that another triggerer needs to go on with this wait."""
        arguments = ("generation_id", "luma_conn_id", "poll_interval", "target_state")
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the one event."""
        try:
            generation = await self._wait()
        except LumaError as error:
            failed = error.generation.as_dict() if isinstance(error, LumaGenerationFailed) else None
            yield TriggerEvent(
                {
                    "status": "error",
                    "error": type(error).__name__,
                    "message": str(error),
                    "retry_may_help": error.retry_may_help,
                    "generation": failed,
                    "moderated": isinstance(error, LumaGenerationFailed) and error.moderated,
                }
            )
        else:
            # Metrics that cannot be sent are no reason to lose it.
            with suppress(Exception):
                if generation.finished_at:
                    Stats.timing("luma.completion_to_event", DateTime.now("UTC") - generation.finished_at)
            yield TriggerEvent({"status": "success", "generation": generation.as_dict()})

    async def on_kill(self) -> None:
        """Say what goes on when a person stops the task while it is deferred (Airflow 3.3 and later calls this)."""
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
    Return the generation that an event of the trigger carries.

    :raises LumaError: the one that ended the wait.
    """
    if event["status"] == "success":
        return Generation.from_dict(event["generation"])
    may_help = event["retry_may_help"]
    if event["generation"]:
        failed = Generation.from_dict(event["generation"])
        raise LumaGenerationFailed(replace(failed, moderated=event["moderated"], retry_may_help=may_help))
    kind: type[LumaError] = getattr(errors, event["error"], LumaError)
    raise kind(event["message"], retry_may_help=may_help)

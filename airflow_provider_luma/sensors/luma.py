"""The sensor that waits for a generation."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api.arguments import check_flags, check_generation_id, check_poll_interval
from airflow_provider_luma.api.errors import LumaError, LumaGenerationFailed
from airflow_provider_luma.api.waiting import Wait, parse_states
from airflow_provider_luma.failures import STILL_RUNNING, fail_without_retry
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_luma.api import Generation, GenerationState
    from airflow_provider_luma.hooks.luma import LumaHook

STORE_KEY = "luma_wait"
FOR_SEVERAL = "To wait for several: LumaGenerationSensor.partial(...).expand(generation_id=submit.output)"


class LumaGenerationSensor(BaseSensorOperator):
    """
    Wait until a generation is in a state, and return it.

    The ``return_value`` XCom is a dict: ``id, state, video_url, thumbnail_url, last_frame_url, width, height``
    (pixels), ``duration`` (seconds), ``created_at`` (RFC 3339, UTC), ``failure_reason``. URLs expire.

    A generation that failed fails the task without a retry, unless ``failed`` is a target state. Trouble of the API
    does not end the wait. The time limits are Airflow's: ``timeout`` and ``execution_timeout``.

    :param generation_id: the id that the submitting task pushed, for example ``submit.output``.
    :param target_state: ``pending``, ``processing``, ``completed`` or ``failed``, or a list of them. A completed
        generation has passed the earlier states.
    :param luma_conn_id: the Airflow connection with the token.
    :param deferrable: wait in the triggerer, without a worker; the default is ``[operators] default_deferrable``.
    :param poke_interval: seconds between two polls, default 5. With ``mode="reschedule"`` each poll is a process:
        use 60 there.
    """

    template_fields: Sequence[str] = ("generation_id", "target_state", "luma_conn_id")
    operator_extra_links = LINKS
    watch_url: str | None = None

    def __init__(
        self,
        *,
        generation_id: str,
        target_state: str | GenerationState | Iterable[str | GenerationState] = "completed",
        luma_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=check_poll_interval(poke_interval, "poke_interval"), **kwargs)
        check_flags(deferrable=deferrable)
        self.generation_id = generation_id
        self.target_state = target_state
        self.luma_conn_id = luma_conn_id
        self.deferrable = deferrable
        self._wait: Wait | None = None
        self._began: datetime | None = None

    def execute(self, context: Context) -> Any:
        """Wait, and return the generation as a dict."""
        with Outcome(self, context) as outcome, fail_without_retry():
            check_generation_id(self.generation_id, FOR_SEVERAL)
            parse_states(self.target_state)
            outcome.record(generation_id=self.generation_id)
            self._began = datetime.now(timezone.utc)
            return self._finish(super().execute(context), outcome)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once; a deferrable sensor then defers if the wait is not over."""
        # With mode="reschedule" each poll is a new process. Before Airflow 3.3 it has no memory.
        store = context.get("task_state_store") if self.reschedule else None
        with fail_without_retry(LumaGenerationFailed):
            if self._wait is None:
                memory: Any = store.get(STORE_KEY) if store is not None else None
                self._wait = Wait(self.generation_id, self.target_state, log=self.log, memory=memory)
            if time.time() < self._wait.memory["not_before"]:
                return PokeReturnValue(is_done=False)
            generation = self._hook.poll(self._wait, timeout=self._time_left(context))
        if not generation and self.deferrable:
            self._defer()
        self._wait.pause(self.poke_interval)
        if store is not None:
            store.set(STORE_KEY, self._wait.memory)
        return PokeReturnValue(is_done=generation is not None, xcom_value=generation)

    def _time_left(self, context: Context) -> float:
        """Return the seconds until the sensor's time-out, at least 1."""
        began = context["ti"].get_first_reschedule_date(context) if self.reschedule else self._began
        spent = (datetime.now(timezone.utc) - began).total_seconds() if began else 0.0
        return max(self.timeout - spent, 1.0)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Finish with the trigger's result."""
        from airflow_provider_luma.triggers.luma import generation_from

        try:
            with Outcome(self, context, resumed=True) as outcome, fail_without_retry(LumaGenerationFailed):
                return self._finish(generation_from(event), outcome)
        except (AirflowFailException, LumaError) as error:
            if self.never_fail:
                # Airflow does this only for its own exceptions, and before 3.1 for none.
                raise AirflowSkipException(str(error)) from error
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the deferral. Only the sensor's own ``timeout`` is a sensor time-out, without a retry."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSensorTimeout as error:
            if self.execution_timeout and self.execution_timeout < timedelta(seconds=self.timeout):
                raise AirflowTaskTimeout(f"The execution_timeout of {self.execution_timeout} is over.") from error
            raise

    def _finish(self, generation: Generation, outcome: Outcome) -> dict[str, Any]:
        outcome.emit(generation)
        return outcome.finished(generation)

    def _defer(self) -> NoReturn:
        from airflow_provider_luma.triggers.luma import LumaGenerationTrigger

        limits = [timedelta(seconds=self.timeout), self.execution_timeout]
        self.defer(
            trigger=LumaGenerationTrigger(
                self.generation_id, self.luma_conn_id, self.poke_interval, target_state=self.target_state
            ),
            method_name=self.execute_complete.__name__,
            timeout=min(limit for limit in limits if limit is not None),
        )

    def on_kill(self) -> None:
        """Log that the generation keeps running."""
        self.log.warning(STILL_RUNNING, self.generation_id)

    @cached_property
    def _hook(self) -> LumaHook:
        from airflow_provider_luma.hooks.luma import LumaHook

        return LumaHook(self.luma_conn_id)

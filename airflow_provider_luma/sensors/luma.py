"""Waiting for what another task submitted."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api.arguments import check_generation_id
from airflow_provider_luma.api.errors import LumaError, LumaGenerationFailed
from airflow_provider_luma.api.waiting import Wait, parse_states
from airflow_provider_luma.failures import STILL_RUNNING, fail_without_retry
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.outcome import Outcome
from airflow_provider_luma.template import is_template

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_luma.api import GenerationState
    from airflow_provider_luma.hooks.luma import LumaHook

STORE_KEY = "luma_wait"
FOR_SEVERAL = "To wait for several: LumaGenerationSensor.partial(...).expand(generation_id=submit.output)"


class LumaGenerationSensor(BaseSensorOperator):
    """
    Wait until a generation is in a state, and return it.

    The ``return_value`` XCom is a dict: ``id, state, video_url, thumbnail_url, last_frame_url, width, height``
    (pixels), ``duration`` (seconds), ``created_at`` (RFC 3339, UTC), ``failure_reason``. URLs expire.

    A generation that failed fails the task without another try, unless ``failed`` is a state that is waited for; an
    API in trouble does not end the wait. The time limits are Airflow's own: ``timeout`` and ``execution_timeout``.

    :param generation_id: the id that the submitting task pushed, such as ``submit.output``.
    :param target_state: ``pending``, ``processing``, ``completed`` or ``failed``, or several of them. A generation
        that is completed has been through the states before.
    :param luma_conn_id: the Airflow connection that holds the token.
    :param deferrable: whether to wait in the triggerer, without a worker; the default is Airflow's
        ``[operators] default_deferrable``.
    :param poke_interval: seconds between two polls, default 5. With ``mode="reschedule"`` each is a process of its
        own, so take a minute there.
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
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.generation_id = generation_id
        self.target_state = target_state
        self.luma_conn_id = luma_conn_id
        self.deferrable = deferrable
        self._wait: Wait | None = None
        self._not_before = 0.0
        with fail_without_retry():
            if not is_template(target_state):
                parse_states(target_state)
            if not is_template(generation_id):
                check_generation_id(generation_id, FOR_SEVERAL)

    def execute(self, context: Context) -> Any:
        """Wait, and return the generation as a dict."""
        with Outcome(self, context) as outcome, fail_without_retry():
            check_generation_id(self.generation_id, FOR_SEVERAL)
            parse_states(self.target_state)
            outcome.record(generation_id=self.generation_id)
            generation = (self._poll_once() or self._defer()) if self.deferrable else super().execute(context)
            outcome.finished(generation)
            return generation

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once."""
        if time.monotonic() < self._not_before:
            return PokeReturnValue(is_done=False)
        # A sensor that is rescheduled is another process at each poll. Before Airflow 3.3 it knows nothing then.
        store = context.get("task_state_store") if self.reschedule else None
        with fail_without_retry(LumaGenerationFailed):
            if self._wait is None:
                memory: Any = store.get(STORE_KEY) if store is not None else None
                self._wait = Wait(self.generation_id, self.target_state, log=self.log, memory=memory)
            generation = self._hook.poll(self._wait)
        if self._wait.failures:
            self._not_before = time.monotonic() + self._wait.pause(self.poke_interval)
        if store is not None:
            store.set(STORE_KEY, self._wait.memory)
        return PokeReturnValue(is_done=generation is not None, xcom_value=generation and generation.as_dict())

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take what the trigger brought."""
        from airflow_provider_luma.triggers.luma import generation_from

        try:
            with Outcome(self, context, resumed=True) as outcome, fail_without_retry(LumaGenerationFailed):
                generation = generation_from(event).as_dict()
                outcome.finished(generation)
                return generation
        except LumaError as error:
            if self.never_fail:
                # Airflow does this for its own exceptions only.
                raise AirflowSkipException(str(error)) from error
            raise

    def _poll_once(self) -> dict[str, Any] | None:
        """Return the generation when it is in the state already; whatever else there is to it, the trigger sees."""
        from airflow_provider_luma.hooks.luma import LumaHook

        with suppress(LumaError, AirflowNotFoundException):
            generation = LumaHook(self.luma_conn_id).get_generation(self.generation_id, repeat=False)
            if generation.state in parse_states(self.target_state):
                self.log.info("Generation %s is %s.", generation.id, generation.state)
                return generation.as_dict()
        return None

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
        """Log what goes on when this task does not."""
        self.log.warning(STILL_RUNNING, self.generation_id)

    @cached_property
    def _hook(self) -> LumaHook:
        """What this process polls with."""
        from airflow_provider_luma.hooks.luma import LumaHook

        return LumaHook(self.luma_conn_id)

"""When a wait for a generation is over. No I/O: who waits polls, and passes on what came back."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.api.errors import (
    LumaAuthenticationError,
    LumaError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
)
from airflow_provider_luma.api.generation import KNOWN_STATES, Generation, GenerationState
from airflow_provider_luma.api.retry import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

UNKNOWN_ID_GRACE = 60.0
"""Seconds for which an API may not know an id that it gave out itself."""

REFUSED_TOKEN_GRACE = 60.0
"""Seconds for which a token may be refused: a new one may be on its way."""

PROGRESS_INTERVAL = 60.0
"""Seconds, at least, between two lines of the log while a generation's state stays the same."""


def parse_states(states: Any) -> frozenset[GenerationState]:
    """Return the states that a state's name, or several, mean; raise LumaInvalidRequest for a word that is none."""
    given = [states] if isinstance(states, str) or not isinstance(states, Iterable) else states
    words = {str(word).lower() for word in given}
    if not words or not words <= {*KNOWN_STATES}:
        raise LumaInvalidRequest(f"A state is pending, processing, completed or failed, got {states!r:.80}.")
    return frozenset(map(GenerationState, words))


class Wait:
    """
    One wait for one generation: what polls have brought so far, and whether that ends it.

    Only a state ends a wait, an id that stays unknown, or a token that is refused for long. Other trouble passes: the
    time limit is the task's own.

    :param generation_id: what is waited for.
    :param target_state: the state to wait for, or several.
    :param log: where each change is written, and once a minute that nothing has changed.
    :param memory: what :attr:`memory` was in an earlier process of the same wait.
    :param clock: returns seconds since any moment that is the same for all who share a memory.
    """

    def __init__(
        self,
        generation_id: str,
        target_state: Any = GenerationState.COMPLETED,
        *,
        log: Any,
        memory: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.generation_id = generation_id
        self.failures = 0
        """How many polls have failed in a row."""
        self.memory: dict[str, Any] = {
            "generation_id": generation_id,
            "state": None,
            "lasting": None,
            "lasting_since": 0.0,
        }
        """What the next process has to know that goes on with this wait, as JSON types."""
        if memory and memory["generation_id"] == generation_id:
            self.memory.update(memory)
        self._targets = parse_states(target_state)
        self._log = log
        self._clock = clock
        self._quiet_until = clock() + PROGRESS_INTERVAL
        self._retry_after: float | None = None

    def update(self, seen: Generation | LumaError) -> Generation | None:
        """
        Take what a poll brought, and return the generation when the wait is over.

        :raises LumaGenerationFailed: it failed, and that was not waited for.
        :raises LumaNotFound: the API does not know the id, for over :data:`UNKNOWN_ID_GRACE` seconds.
        :raises LumaAuthenticationError: the token is refused, for over :data:`REFUSED_TOKEN_GRACE` seconds.
        :raises LumaError: it is completed, and only ``failed`` was waited for.
        """
        if isinstance(seen, LumaError):
            self._update_error(seen)
            return None
        if self.failures:
            self._log.info("Generation %s can be polled again.", self.generation_id)
        self.failures = 0
        self.memory["lasting"] = None
        self._log_state(seen)
        if seen.state in self._targets:
            return seen
        if seen.state is GenerationState.FAILED:
            raise LumaGenerationFailed(seen)
        if seen.state is GenerationState.COMPLETED:
            if self._targets == {GenerationState.FAILED}:
                message = f"Generation {seen.id} is completed, so it will never be failed."
                raise LumaError(message, retry_may_help=False)
            # It went through the state that was waited for between two polls.
            return seen
        return None

    def pause(self, poll_interval: float) -> float:
        """Return the seconds to the next poll: longer while there is trouble, and at least what the API asked for."""
        return backoff(poll_interval, self.failures, self._retry_after) if self.failures else poll_interval

    def _log_state(self, seen: Generation) -> None:
        now, changed = self._clock(), seen.state_name != self.memory["state"]
        if not changed and now < self._quiet_until:
            return
        self.memory["state"] = seen.state_name
        # With the jitter, as hundreds of waits may have changed together, and would all write at the same moment.
        self._quiet_until = now + backoff(PROGRESS_INTERVAL, 0)
        if changed and seen.state is GenerationState.UNKNOWN:
            self._log.warning(
                "Generation %s is %r, a state this version does not know; waiting goes on.", seen.id, seen.state_name
            )
            return
        still = "" if changed else "still "
        to_go = f", about {seen.estimate_wait_seconds:.0f} s to go" if seen.estimate_wait_seconds else ""
        state = seen.state_name if seen.state is GenerationState.UNKNOWN else seen.state
        self._log.info("Generation %s is %s%s%s.", seen.id, still, state, to_go)

    def _update_error(self, error: LumaError) -> None:
        grace = None
        if isinstance(error, LumaNotFound) and error.from_api:
            grace = UNKNOWN_ID_GRACE
        elif isinstance(error, LumaAuthenticationError):
            grace = REFUSED_TOKEN_GRACE
        kind = None if grace is None else type(error).__name__
        if kind != self.memory["lasting"]:
            self.memory.update(lasting=kind, lasting_since=self._clock())
        if grace is not None and self._clock() - self.memory["lasting_since"] >= grace:
            raise error
        if not self.failures:
            self._log.warning("Polling generation %s failed, will keep trying: %s", self.generation_id, error)
        self.failures += 1
        self._retry_after = error.retry_after

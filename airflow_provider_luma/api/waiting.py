"""Deciding, from what the gateway says of a generation, whether a wait for it is over. Asking is done elsewhere."""

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
from airflow_provider_luma.api.gateway import parse_state
from airflow_provider_luma.api.generation import Generation, GenerationState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

UNKNOWN_ID_GRACE = 60.0
"""Seconds for which a gateway may not know an id that it gave out itself."""

REFUSALS = 3
REFUSALS_OVER = 60.0
"""A token is believed bad after so many refusals in a row, over at least so many seconds."""

LONGEST_PAUSE = 60.0


def parse_states(states: Any) -> frozenset[GenerationState]:
    """Return the states that a state's name, or several, mean; raise LumaInvalidRequest for a word that is none."""
    names = [states] if isinstance(states, str) or not isinstance(states, Iterable) else list(states)
    if not names:
        raise LumaInvalidRequest("Give at least one state to wait for.")
    return frozenset(parse_state(name) for name in names)


def backed_off(poll_interval: float, failures: int) -> float:
    """Return the seconds to the next look after so many failures in a row."""
    return min(poll_interval * 2.0 ** min(failures, 10), max(poll_interval, LONGEST_PAUSE))


class Wait:
    """
    One wait for one generation: what was seen of it so far, and whether that ends it.

    Only a state ends a wait, an id that stays unknown, or a token that is refused again and again. All other
    trouble is waited out; the time limit is the task's own.

    :param generation_id: what is waited for.
    :param target_state: the state to wait for, or several.
    :param log: where to say what changed: each change once.
    :param memory: what :attr:`memory` of an earlier process's part of this wait was.
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
        self._targets = parse_states(target_state)
        self._log = log
        self._clock = clock
        self._state_name: str | None = (memory or {}).get("state")
        self._unknown_since: float | None = (memory or {}).get("unknown_since")
        self._refused_since = 0.0
        self._refusals = 0
        self._errors = 0
        self._retry_after = 0.0

    @property
    def memory(self) -> dict[str, Any]:
        """What the next process has to know that goes on with this wait, as JSON types."""
        return {"state": self._state_name, "unknown_since": self._unknown_since}

    def saw(self, seen: Generation | LumaError) -> Generation | None:
        """
        Take note of what the gateway said, and return the generation when the wait is over.

        :raises LumaGenerationFailed: it failed, and that was not waited for.
        :raises LumaNotFound: the gateway does not know the id, for over :data:`UNKNOWN_ID_GRACE` seconds.
        :raises LumaAuthenticationError: the token was refused :data:`REFUSALS` times, over :data:`REFUSALS_OVER` s.
        :raises LumaError: it is completed, and only ``failed`` was waited for.
        """
        if isinstance(seen, LumaError):
            self._saw_error(seen)
            return None
        if self._errors:
            self._log.info("Generation %s can be asked about again.", self.generation_id)
        self._errors = self._refusals = 0
        self._unknown_since = None
        self._note_state(seen)
        if seen.state in self._targets:
            return seen
        if seen.state is GenerationState.FAILED:
            raise LumaGenerationFailed(seen)
        if seen.state is GenerationState.COMPLETED:
            if self._targets == {GenerationState.FAILED}:
                never = LumaError(f"Generation {seen.id} is completed, so it will never be failed.")
                never.retry_may_help = False
                raise never
            # It went through the state that was waited for between two looks.
            return seen
        return None

    def pause(self, poll_interval: float) -> float:
        """Return the seconds to the next look: longer while there is trouble, and at least what the gateway asked."""
        return max(min(self._retry_after, 3600.0), backed_off(poll_interval, self._errors))

    def _note_state(self, seen: Generation) -> None:
        self._retry_after = 0.0
        if seen.state_name == self._state_name:
            return
        self._state_name = seen.state_name
        if seen.state is GenerationState.UNKNOWN:
            self._log.warning(
                "Generation %s is %r, a state this version does not know: waiting on.", seen.id, seen.state_name
            )
        elif seen.estimate_wait_seconds:
            self._log.info("Generation %s is %s, about %.0f s to go.", seen.id, seen.state, seen.estimate_wait_seconds)
        else:
            self._log.info("Generation %s is %s.", seen.id, seen.state)

    def _saw_error(self, error: LumaError) -> None:
        now = self._clock()
        if isinstance(error, LumaNotFound) and error.of_gateway:
            self._unknown_since = now if self._unknown_since is None else self._unknown_since
            if now - self._unknown_since >= UNKNOWN_ID_GRACE:
                raise error
        else:
            self._unknown_since = None
        if isinstance(error, LumaAuthenticationError):
            self._refused_since = self._refused_since if self._refusals else now
            self._refusals += 1
            if self._refusals >= REFUSALS and now - self._refused_since >= REFUSALS_OVER:
                raise error
        else:
            self._refusals = 0
        if not self._errors:
            self._log.warning("Generation %s cannot be asked about for now, waiting on: %s", self.generation_id, error)
        self._errors += 1
        self._retry_after = error.retry_after or 0.0

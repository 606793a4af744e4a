"""Decides when a wait is over. No I/O: the caller polls and passes each result in."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import inf
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
"""Seconds for which a wait continues although the API does not know the id: it can be too new."""

REFUSED_TOKEN_GRACE = 60.0
"""Seconds for which a wait continues although the API refuses the token: a person may be replacing it."""

NO_FILE_GRACE = 60.0
"""Seconds for which a wait continues although a completed generation has no URL: the API can be late with the URL."""

PROGRESS_INTERVAL = 60.0
"""Shortest time between two lines of the log while the state does not change, in seconds."""


def parse_states(states: Any) -> frozenset[GenerationState]:
    """Convert one or more state names to states; raise LumaInvalidRequest for an unknown name."""
    given = [states] if isinstance(states, str) or not isinstance(states, Iterable) else states
    words = {str(word).lower() for word in given}
    if not words or not words <= {*KNOWN_STATES}:
        raise LumaInvalidRequest(f"target_state must be pending, processing, completed or failed, got {states!r:.80}.")
    return frozenset(map(GenerationState, words))


class Wait:
    """
    One wait for one generation.

    A wait ends when a target state is reached, the generation has ended, the id stays unknown, or the token stays
    refused. It ignores other errors: the task sets the time limit.

    :param generation_id: the generation to wait for.
    :param target_state: the state to wait for, or a list of states.
    :param log: the task's logger: a line for each change of the state, and about one line a minute without a change.
    :param memory: :attr:`memory` of an earlier process that waited for the same generation.
    :param clock: returns the time in seconds. All processes that share a memory must use the same clock.
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
        self.memory: dict[str, Any] = {
            "generation_id": generation_id,
            "state": None,
            "lasting": None,
            "lasting_since": 0.0,
            "failures": 0,
            "not_before": 0.0,
        }
        """The values that another process needs to continue this wait (JSON types)."""
        if memory and memory["generation_id"] == generation_id:
            self.memory.update(memory)
        self._targets = parse_states(target_state)
        self._log = log
        self._clock = clock
        self._quiet_until = clock() + PROGRESS_INTERVAL
        self._retry_after: float | None = None

    def update(self, seen: Generation | LumaError) -> Generation | None:
        """
        Process the result of a poll; return the generation if the wait is over, and otherwise None.

        :param seen: the generation, or the error of the poll.
        :raises LumaGenerationFailed: the generation failed, and ``failed`` is not a target state.
        :raises LumaNotFound: the API did not know the id for :data:`UNKNOWN_ID_GRACE` seconds.
        :raises LumaAuthenticationError: the API refused the token for :data:`REFUSED_TOKEN_GRACE` seconds.
        :raises LumaError: the generation is completed, and only ``failed`` is a target state.
        """
        if isinstance(seen, LumaError):
            self._update_error(seen)
            return None
        if self.memory["failures"]:
            self._log.info("Generation %s can be polled again.", self.generation_id)
        self.memory.update(failures=0, not_before=0.0)
        self._log_state(seen)
        no_file = seen.state is GenerationState.COMPLETED and seen.state in self._targets and not seen.video_url
        lasts = self._lasts("no file" if no_file else None)
        if no_file:
            if lasts < NO_FILE_GRACE:
                return None
            self._log.warning(
                "Generation %s is completed, but the API gave no URL of its video. To get the video later, use "
                "LumaDownloadVideoOperator with this id.",
                seen.id,
            )
        if seen.state in self._targets:
            return seen
        if seen.state is GenerationState.FAILED:
            raise LumaGenerationFailed(seen)
        if seen.state is GenerationState.COMPLETED:
            if self._targets == {GenerationState.FAILED}:
                message = f"Generation {seen.id} is completed, so it cannot fail any more. Change target_state."
                raise LumaError(message, retry_may_help=False)
            # The generation passed the target state between two polls.
            return seen
        return None

    def pause(self, poll_interval: float) -> float:
        """
        Return the seconds until the next poll, and write the end of a pause after failures to :attr:`memory`.

        :param poll_interval: the pause without failures, in seconds. After failures the pause grows, and is at least
            the API's ``Retry-After``.
        """
        failures = self.memory["failures"]
        seconds = backoff(poll_interval, failures, self._retry_after) if failures else poll_interval
        self.memory["not_before"] = self._clock() + seconds if failures else 0.0
        return seconds

    def _log_state(self, seen: Generation) -> None:
        now, changed = self._clock(), seen.state_name != self.memory["state"]
        if not changed and now < self._quiet_until:
            return
        self.memory["state"] = seen.state_name
        # With jitter: otherwise hundreds of waits whose states changed together would all write at the same moment.
        self._quiet_until = now + backoff(PROGRESS_INTERVAL, 0)
        if changed and seen.state is GenerationState.UNKNOWN:
            self._log.warning(
                "Generation %s is %r, a state that this package does not know. The wait continues.",
                seen.id,
                seen.state_name,
            )
            return
        still = "" if changed else "still "
        to_go = f", about {seen.estimate_wait_seconds:.0f} s to go" if seen.estimate_wait_seconds else ""
        state = seen.state_name if seen.state is GenerationState.UNKNOWN else seen.state
        self._log.info("Generation %s is %s%s%s.", seen.id, still, state, to_go)

    def _lasts(self, kind: str | None) -> float:
        """Return for how many seconds all polls have had this kind of result; None is for all other results."""
        if kind != self.memory["lasting"]:
            self.memory.update(lasting=kind, lasting_since=self._clock())
        return self._clock() - float(self.memory["lasting_since"])

    def _update_error(self, error: LumaError) -> None:
        graces: dict[type, float] = {LumaNotFound: UNKNOWN_ID_GRACE, LumaAuthenticationError: REFUSED_TOKEN_GRACE}
        grace = graces.get(type(error), inf)
        if self._lasts(type(error).__name__ if grace < inf else None) >= grace:
            raise error
        if not self.memory["failures"]:
            self._log.warning("Polling generation %s failed; it is polled again: %s", self.generation_id, error)
        self.memory["failures"] += 1
        self._retry_after = error.retry_after

"""What a task remembers of its submission from one try to the next, so that no generation is paid twice."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_luma.api.errors import (
    LumaAmbiguousSubmission,
    LumaError,
    LumaGenerationFailed,
    LumaNotFound,
)
from airflow_provider_luma.api.generation import GenerationState
from airflow_provider_luma.api.waiting import UNKNOWN_ID_GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_luma.hooks.luma import LumaHook

STORE_KEY = "luma_submission"

DISCARDS_ON_CLEAR = get_base_airflow_version_tuple() >= (3, 4, 0)
"""Whether clearing a task makes Airflow forget the task's state, unless the person who clears it says otherwise."""

_LOOK = (
    "Look at the account's usage, and for a generation id in the log of the try before. If it was not "
    "charged or a second charge is fine, "
)
HOW_TO_RESOLVE = (
    f'{_LOOK}clear the task, which submits again, or set on_ambiguous_submission="resubmit". If it was charged, add '
    f"its id as generation_id to the key {STORE_KEY} in the task instance's Task State Store tab, and clear the task "
    "with 'Keep task state and resume' ticked (keep_task_state in the API): it then resumes that generation. "
    "A clear without that submits, and pays, again."
    if DISCARDS_ON_CLEAR
    else f"{_LOOK}delete the key {STORE_KEY} in the task instance's Storage tab and clear the task, or set "
    'on_ambiguous_submission="resubmit". If it was charged, add its id to that key as generation_id and clear the '
    "task, which then resumes it."
)


class Submission:
    """
    The submission that a task is there to make, and what its earlier tries have made of it.

    It is kept in Airflow's task state store, which survives a retry, and a clear unless that discards it (from Airflow
    3.4 on): ``generation_id`` (missing from the moment before the request leaves until its answer came), ``request`` (a
    digest of it), ``api`` (which one it went to), ``request_id`` (by which that API's support can find it),
    ``submitted_at``, ``succeeded`` (by which a clear of a task that succeeded submits again, before Airflow 3.4), and
    ``max_tries``, which a clear raises and a retry does not.

    Airflow before 3.3 has no such store; nothing is remembered there.

    :param context: the running task's.
    :param operator: whose task it is; its ``prompt_is_late`` says that a retry may make another request than the try
        before, and still is to resume what that has submitted.
    :param request: gives what tells one request from another; called when that is needed.
    """

    def __init__(self, context: Context, operator: Any, request: Callable[[], Mapping[str, Any]]) -> None:
        self._store = context.get("task_state_store")
        self._ti = context["ti"]
        self._operator = operator
        self._log = operator.log
        self._request = request
        self._earlier = self._record = _read(self._store)
        self.generation_id: str | None = None
        """The generation that this try has submitted or resumes."""
        self.in_flight = False
        """Whether the request has left and its answer has not come."""
        self.stopped = False
        """Whether the task is to stop, so that nothing may leave any more."""

    @property
    def submitted_at(self) -> str | None:
        """When the request that became a generation had its answer."""
        return self._record.get("submitted_at")

    @cached_property
    def _digest(self) -> str:
        return digest(self._request())

    def resume_id(self, hook: LumaHook, *, resubmit: bool) -> str | None:
        """
        Return the id of the generation that an earlier try has submitted and this one resumes, if there is one.

        :param hook: polls that generation, once.
        :param resubmit: whether to submit again where an earlier try may have been charged.
        :raises LumaAmbiguousSubmission: it may have been, and ``resubmit`` is false.
        :raises LumaGenerationFailed: it failed in a way that submitting it again cannot help.
        :raises LumaError: it was submitted to another API than the one that the connection leads to now.
        """
        if self._store is None:
            self._warn_without_store()
            return None
        cleared = self._earlier.get("max_tries") != self._ti.max_tries
        if not self._is_submitted(cleared=cleared, resubmit=resubmit):
            self._count("fresh_submit")
            return None
        generation_id = self._earlier["generation_id"]
        self._count("reconnect_attempt")
        if self._is_elsewhere(hook, cleared=cleared) or self._must_resubmit(generation_id, hook, cleared=cleared):
            self._count("terminal_resubmit")
            return None
        self._log.info("Resuming generation %s, which an earlier try submitted.", generation_id)
        if cleared:
            self._remember(self._earlier)
        self.generation_id = str(generation_id)
        return self.generation_id

    def before_send(self, sent: Mapping[str, str]) -> None:
        """
        Remember that the request is about to leave.

        :param sent: what else to remember of it, as JSON types.
        :raises LumaError: the task is to stop; or another process of it came first, which Airflow starts when it has
            lost sight of this one, say after a crash of the scheduler.
        """
        if self.stopped:
            raise LumaError("This task is being stopped; nothing was sent.")
        if _read(self._store) != self._earlier:
            raise LumaError("Another process of this task is submitting or has submitted; nothing was sent.")
        self._record = {"request": self._digest, "submitted_at": _now(), **sent}
        self._remember(self._record)
        self.in_flight = True

    def rejected(self) -> None:
        """Forget that, for the API definitely rejected it."""
        self.in_flight = False
        if self._store is not None:
            if self._earlier:
                self._store.set(STORE_KEY, self._earlier)
            else:
                self._store.delete(STORE_KEY)

    def accepted(self, generation_id: str) -> None:
        """Remember the generation that it became."""
        self.in_flight = False
        self.generation_id = generation_id
        self._record = {**self._record, "generation_id": generation_id, "submitted_at": _now()}
        self._remember(self._record)

    def _count(self, decision: str) -> None:
        """Count a decision as Airflow's own resumable operators do, in their metrics and with their tags."""
        from airflow.providers.common.compat.sdk import Stats

        tags = {"operator": type(self._operator).__name__}
        if team_name := getattr(self._ti, "stats_tags", {}).get("team_name"):
            tags["team_name"] = team_name
        # Metrics that cannot be sent are no reason to fail.
        with suppress(Exception):
            Stats.incr(f"resumable_job.{decision}", tags=tags)

    def _warn_without_store(self) -> None:
        if self._ti.try_number == 1 and self._ti.max_tries:
            self._log.warning(
                "This Airflow has no task state store (3.3 brings it): a retry of this task will submit, and pay, "
                "again. Set retries=0 to rule that out."
            )

    def _is_submitted(self, *, cleared: bool, resubmit: bool) -> bool:
        """Return whether an earlier try has submitted what this one is there to make."""
        if not self._earlier:
            if self._ti.try_number > 1:
                self._log.info(
                    "No submission of an earlier try is remembered: submitting. If there was one, and this task's "
                    "state was discarded, as by a clear, that generation goes on and is paid for; its id is in its "
                    "try's log."
                )
            return False
        generation_id = self._earlier.get("generation_id")
        if (cleared or not self._operator.prompt_is_late) and self._earlier.get("request") != self._digest:
            self._log.warning(
                "The request is not the one that an earlier try submitted (generation %s): submitting the new one.",
                generation_id or "unknown",
            )
            return False
        # Who wants another one lets the clear discard the state, where it can.
        if self._earlier.get("succeeded") and not DISCARDS_ON_CLEAR:
            self._log.info(
                "This task had succeeded with generation %s and was cleared: submitting again.", generation_id
            )
            return False
        if generation_id is None:
            self._check_ambiguous(resubmit=resubmit)
        return generation_id is not None

    def _check_ambiguous(self, *, resubmit: bool) -> None:
        """Raise LumaAmbiguousSubmission for a request whose answer never came, unless it may be sent again."""
        when = self._earlier.get("submitted_at")
        where = "".join(f", {key} {self._earlier[key]}" for key in ("api", "request_id") if key in self._earlier)
        began = f"An earlier try began to submit this request at {when}{where} and never got the answer"
        if not resubmit:
            raise LumaAmbiguousSubmission(
                f"{began}: it may have been accepted and charged once. Nothing was submitted now. {HOW_TO_RESOLVE}"
            )
        self._log.warning("%s. Submitting it again, as on_ambiguous_submission says.", began)

    def _is_elsewhere(self, hook: LumaHook, *, cleared: bool) -> bool:
        """
        Return whether the connection leads to another API than the one that an earlier try submitted to.

        :raises LumaError: it does, and no person has cleared the task since, so that submitting would pay twice.
        """
        try:
            api = hook.get_conn().api
        except LumaError:
            # The wait will see it.
            return False
        # Earlier versions of this package remembered no API.
        before = self._earlier.get("api", api)
        if before == api:
            return False
        what = (
            f"An earlier try submitted generation {self._earlier['generation_id']} to {before}, and the connection now "
            f"leads to {api}, which does not have it."
        )
        if not cleared:
            raise LumaError(
                f"{what} Nothing was submitted now. Clear the task to submit and pay there, or let the connection lead "
                "back.",
                retry_may_help=False,
            )
        self._log.warning("%s The task was cleared: submitting there.", what)
        return True

    def _must_resubmit(self, generation_id: str, hook: LumaHook, *, cleared: bool) -> bool:
        """Return whether there is nothing to resume, so that submitting again is what the task is there for."""
        try:
            # If this one poll fails, the wait polls again.
            generation = hook.get_generation(generation_id, repeat=False)
        except LumaNotFound as error:
            # Only a person can know that it is gone for good; an API may have lost it for a moment.
            gone = cleared and error.unknown_id and _age(self._earlier) > UNKNOWN_ID_GRACE
            if gone:
                self._log.warning("Generation %s is no longer known: submitting again.", generation_id)
            return gone
        except LumaError:
            # The wait will see it.
            return False
        if generation.state is not GenerationState.FAILED:
            completed = generation.state is GenerationState.COMPLETED
            self._count("already_succeeded" if completed else "reconnect_success")
            return False
        failed = LumaGenerationFailed(generation)
        if not failed.retry_may_help and not cleared:
            raise failed
        self._log.warning("%s Submitting again.", failed)
        return True

    def _remember(self, record: Mapping[str, Any]) -> None:
        if self._store is not None:
            self._store.set(STORE_KEY, {**record, "max_tries": self._ti.max_tries})


def remember_success(context: Context) -> None:
    """Remember that the task has done what it was there for, so that a person who clears it gets a new generation."""
    store = context.get("task_state_store")
    if store is not None and (record := _read(store)):
        store.set(STORE_KEY, {**record, "succeeded": True, "max_tries": context["ti"].max_tries})


def digest(request: Mapping[str, Any]) -> str:
    """
    Return what tells one request from another.

    It must stay the same in every version of this package: a task whose retry runs on a newer one would pay again.
    """
    # Where the API calls back does not make it another video.
    essence = {name: value for name, value in request.items() if name != "notify_hook"}
    text = json.dumps(essence, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(store: Any) -> dict[str, Any]:
    record = store.get(STORE_KEY) if store is not None else None
    return record if isinstance(record, dict) else {}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _age(record: Mapping[str, Any]) -> float:
    submitted_at = datetime.fromisoformat(record["submitted_at"])
    return (datetime.now(timezone.utc) - submitted_at).total_seconds()

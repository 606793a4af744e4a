"""
The record of a submission: with it, the next try resumes a generation instead of paying for a second one.

These invariants hold:

- The record is written before the first byte of a request's body is sent, and again when the answer arrives.
- A record without a generation id means that a request may have been charged. Only a person, or
  ``on_ambiguous_submission="resubmit"``, causes a second submission of the same request.
- The record decides, not the kind of try. A retry and a clear differ only in what Airflow does to the record.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_luma.api.arguments import encode
from airflow_provider_luma.api.errors import LumaAmbiguousSubmission, LumaError, LumaNotFound
from airflow_provider_luma.api.generation import GenerationState
from airflow_provider_luma.api.waiting import UNKNOWN_ID_GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_luma.hooks.luma import LumaHook

STORE_KEY = "luma_submission"

DISCARDS_ON_CLEAR = get_base_airflow_version_tuple() >= (3, 4, 0)
"""In this Airflow version, a clear discards the task's state, unless the user keeps the state."""

HOW_TO_START_OVER = (
    "clear the task and let the clear discard its state"
    if DISCARDS_ON_CLEAR
    else f"delete the key {STORE_KEY} in the task instance's Storage tab and clear the task"
)
HOW_TO_RESOLVE = (
    "Look at the account's usage, and look for a generation id in the log of the earlier try. If the request was not "
    f"charged, or you accept a second charge: {HOW_TO_START_OVER} (before Airflow 3.3, only clear it), or set "
    'on_ambiguous_submission="resubmit". If it was charged: get the video with LumaGenerationSensor and the generation '
    f"id. Or add the id, as generation_id, to the key {STORE_KEY} in the task instance's "
    f"{'Task State Store' if DISCARDS_ON_CLEAR else 'Storage'} tab, and clear the task"
    + (" with 'Keep task state and resume': a clear without it pays again." if DISCARDS_ON_CLEAR else ".")
)


class Submission:
    """
    The submission of a task, and the record of its earlier tries.

    The record is the value of one key in Airflow's task state store, a dict: ``generation_id`` (missing between the
    request and its answer), ``request`` (a digest of the request), ``api`` (the API and its host), ``request_id`` (for
    the API's support), ``submitted_at``. Airflow before 3.3 has no such store, and no record.

    :param context: the running task's context.
    :param operator: the task's operator. If its ``prompt_is_late`` is true, each try may make a different request. A
        retry then resumes the earlier generation without comparing the requests.
    :param request: returns the arguments and fields of the request; called when their digest is needed.
    """

    def __init__(self, context: Context, operator: Any, request: Callable[[], Mapping[str, Any]]) -> None:
        self._store = context.get("task_state_store")
        self._ti = context["ti"]
        self._operator = operator
        self._log = operator.log
        self._request = request
        self._earlier = self._record = _read(self._store)
        self.generation_id: str | None = None
        """The id of the generation that this try submitted or resumes."""
        self.in_flight = False
        """The request was sent and its answer has not arrived."""

    @property
    def submitted_at(self) -> str | None:
        """When the API accepted the submission or, without an answer, when the request was sent (RFC 3339)."""
        return self._record.get("submitted_at")

    @cached_property
    def _digest(self) -> str:
        return digest(self._request())

    def resume_id(self, hook: LumaHook, *, resubmit: bool) -> str | None:
        """
        Return the id of the generation that this try resumes, or None if this try must submit.

        :param hook: polls the generation of the record once.
        :param resubmit: submit again if an earlier try sent the request and got no answer.
        :raises LumaAmbiguousSubmission: an earlier try got no answer, and ``resubmit`` is false.
        :raises LumaError: the connection does not point to the API of the record, or the API no longer knows the
            generation.
        """
        if self._store is None:
            self._warn_without_store()
            return None
        if not self._is_submitted(resubmit=resubmit):
            self._count("fresh_submit")
            return None
        generation_id = str(self._earlier["generation_id"])
        self._count("reconnect_attempt")
        self._check_api(hook)
        if self._has_failed(generation_id, hook):
            self._count("terminal_resubmit")
            return None
        or_change = "" if self._operator.prompt_is_late else ", or change the request"
        self._log.info(
            "Resuming generation %s. To get a new generation: %s%s.", generation_id, HOW_TO_START_OVER, or_change
        )
        self.generation_id = generation_id
        return generation_id

    def before_send(self, sent: Mapping[str, str]) -> None:
        """
        Write the record before the request's body is sent.

        :param sent: further fields of the record (JSON types).
        :raises LumaError: the task is being stopped, or another process of this task has written the record. Airflow
            starts another process if it has lost contact with this one, for example after a crash of the scheduler.
        """
        if self._operator.stopped:
            raise LumaError("This task is being stopped. Nothing was submitted. To submit, retry or clear the task.")
        if _read(self._store) != self._earlier:
            raise LumaError(
                "Another process of this task is submitting or has submitted. This process submitted nothing: the next "
                "try uses the record of the other process."
            )
        self._record = {"request": self._digest, "submitted_at": _now(), **sent}
        self._remember(self._record)
        self.in_flight = True

    def rejected(self) -> None:
        """Restore the record of the earlier tries: the API rejected this request."""
        self.in_flight = False
        if self._earlier:
            self._remember(self._earlier)
        elif self._store is not None:
            self._store.delete(STORE_KEY)

    def accepted(self, generation_id: str) -> None:
        """Write the id of the new generation to the record."""
        self.in_flight = False
        self.generation_id = generation_id
        self._record = {**self._record, "generation_id": generation_id, "submitted_at": _now()}
        self._remember(self._record)

    def _count(self, decision: str) -> None:
        """Count a decision under the metric names and tags of Airflow's own resumable operators."""
        from airflow.providers.common.compat.sdk import Stats

        tags = {"operator": type(self._operator).__name__}
        if team_name := getattr(self._ti, "stats_tags", {}).get("team_name"):
            tags["team_name"] = team_name
        # A task must not fail because of a metric.
        with suppress(Exception):
            Stats.incr(f"resumable_job.{decision}", tags=tags)

    def _warn_without_store(self) -> None:
        if self._ti.try_number == 1 and self._ti.max_tries:
            self._log.warning(
                "This version of Airflow has no task state store, which Airflow 3.3 added: a retry of this task "
                "submits and pays again. To prevent this, set retries=0."
            )

    def _is_submitted(self, *, resubmit: bool) -> bool:
        """
        Return whether the record has the generation id of this request, so that this try can resume.

        :raises LumaAmbiguousSubmission: the record has this request without a generation id, and ``resubmit`` is false.
        """
        if not self._earlier:
            if self._ti.try_number > 1:
                self._log.info(
                    "There is no record of an earlier submission, so this try submits. If an earlier try submitted and "
                    "its state was discarded, that generation keeps running and is charged. Its id is in the log of "
                    "that try."
                )
            return False
        generation_id = self._earlier.get("generation_id")
        if not self._operator.prompt_is_late and self._earlier.get("request") != self._digest:
            self._log.warning(
                "The request has changed since an earlier try submitted generation %s: submitting the new request.",
                generation_id or "(unknown id)",
            )
            return False
        if generation_id is None:
            self._check_ambiguous(resubmit=resubmit)
        return generation_id is not None

    def _check_ambiguous(self, *, resubmit: bool) -> None:
        """Raise LumaAmbiguousSubmission because an earlier try got no answer, or log this if ``resubmit`` is true."""
        when = self._earlier.get("submitted_at")
        where = "".join(f", {key} {self._earlier[key]}" for key in ("api", "request_id") if key in self._earlier)
        began = f"An earlier try sent this request at {when}{where} and never got the answer"
        if not resubmit:
            raise LumaAmbiguousSubmission(
                f"{began}: it may have been accepted and charged. Nothing was submitted now. {HOW_TO_RESOLVE}"
            )
        self._log.warning('%s. This try submits it again, because on_ambiguous_submission is "resubmit".', began)

    def _check_api(self, hook: LumaHook) -> None:
        """Raise LumaError if the connection does not point to the record's API: submitting there would pay twice."""
        try:
            api = hook.get_conn().api
        except LumaError:
            # The wait reports the error, if the task waits.
            return
        before = self._earlier.get("api", api)
        if before != api:
            raise LumaError(
                f"An earlier try submitted generation {self._earlier['generation_id']} to {before}. The connection now "
                f"points to {api}, which does not have it. Nothing was submitted now. Point the connection back to "
                f"resume. To submit and pay there: {HOW_TO_START_OVER}.",
                retry_may_help=False,
            )

    def _has_failed(self, generation_id: str, hook: LumaHook) -> bool:
        """
        Poll the generation once, and return whether it failed.

        :raises LumaError: the API does not know the id, and the submission is older than :data:`UNKNOWN_ID_GRACE`.
        """
        try:
            generation = hook.get_generation(generation_id, repeat=False)
        except LumaNotFound as error:
            if error.unknown_id and _age(self._earlier) > UNKNOWN_ID_GRACE:
                raise LumaError(
                    f"The API no longer knows generation {generation_id}, which an earlier try submitted. To submit "
                    f"and pay for a new generation: {HOW_TO_START_OVER}.",
                    retry_may_help=False,
                ) from error
            return False
        except LumaError:
            # The wait polls again, if the task waits.
            return False
        if generation.state is not GenerationState.FAILED:
            completed = generation.state is GenerationState.COMPLETED
            self._count("already_succeeded" if completed else "reconnect_success")
            return False
        reason = (generation.failure_reason or "no reason was given").rstrip(".")
        self._log.warning("Generation %s failed: %s. Submitting a new generation.", generation_id, reason)
        return True

    def _remember(self, record: Mapping[str, Any]) -> None:
        if self._store is not None:
            self._store.set(STORE_KEY, dict(record))


def digest(request: Mapping[str, Any]) -> str:
    """
    Return a digest that is equal for equal requests.

    The digest of a request must stay the same in every version of this package: otherwise a retry after an upgrade
    would pay again.
    """
    # The callback's URL does not change the video.
    essence = {name: value for name, value in request.items() if name != "notify_hook"}
    return hashlib.sha256(encode(essence)).hexdigest()[:32]


def _read(store: Any) -> dict[str, Any]:
    record = store.get(STORE_KEY) if store is not None else None
    return record if isinstance(record, dict) else {}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _age(record: Mapping[str, Any]) -> float:
    submitted_at = datetime.fromisoformat(record["submitted_at"])
    return (datetime.now(timezone.utc) - submitted_at).total_seconds()

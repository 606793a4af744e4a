"""The base class of the operators that pay for a generation: they submit or resume it, wait for it, and report it."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api.arguments import (
    ARGUMENTS,
    IMAGES,
    check_flags,
    check_poll_interval,
    merge,
    read_arguments,
)
from airflow_provider_luma.api.errors import LumaAmbiguousSubmission, LumaInvalidRequest, LumaRateLimited
from airflow_provider_luma.api.retry import backoff
from airflow_provider_luma.failures import STILL_RUNNING, fail_without_retry
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.operators.images import data_uri, image_uri, is_stored
from airflow_provider_luma.operators.submission import HOW_TO_RESOLVE, Submission
from airflow_provider_luma.outcome import RETURN_KEY, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_luma.api import Generation
    from airflow_provider_luma.hooks.luma import LumaHook


class SubmittingOperator(BaseOperator):
    """The base class; :class:`~airflow_provider_luma.operators.luma.LumaGenerateVideoOperator` lists the parameters."""

    arguments: ClassVar[tuple[str, ...]]
    """The names of the request's arguments."""

    prompt_is_late: ClassVar[bool] = False
    """The prompt is known only when the task runs, and may differ in each try."""

    template_fields_renderers: ClassVar[dict[str, str]] = {"extra_body": "json"}
    operator_extra_links = LINKS
    watch_url: str | None = None

    def __init__(
        self,
        *,
        luma_conn_id: str = DEFAULT_CONN_ID,
        extra_body: dict[str, Any] | None = None,
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 5.0,
        on_ambiguous_submission: Literal["fail", "resubmit"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_ambiguous_submission not in ("fail", "resubmit"):
            raise ValueError(
                f'on_ambiguous_submission must be "fail" or "resubmit", got {on_ambiguous_submission!r:.40}.'
            )
        check_flags(wait_for_completion=wait_for_completion, deferrable=deferrable)
        self.luma_conn_id = luma_conn_id
        self.extra_body = extra_body
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = check_poll_interval(poll_interval)
        self.on_ambiguous_submission = on_ambiguous_submission
        self.stopped = False
        """The task is being stopped, and must not submit any more."""
        self._submission: Submission | None = None
        self._late: dict[str, Any] | None = None

    def execute(self, context: Context) -> str:
        """Submit or resume, push the generation id, and wait if ``wait_for_completion`` is true."""
        from airflow_provider_luma.hooks.luma import LumaHook

        hook, earlier = LumaHook(self.luma_conn_id), self._submission
        submission = self._submission = Submission(context, self, lambda: self._request(context))
        with Outcome(self, context) as outcome, fail_without_retry():
            if earlier and earlier.generation_id:
                raise LumaInvalidRequest(
                    f"This task already submitted generation {earlier.generation_id}. A task submits one generation: "
                    "use another task, or a mapped task, for each further generation."
                )
            outcome.record(request=self._shown())
            generation_id = self._get_or_submit(context, hook, submission)
            outcome.push(RETURN_KEY, generation_id)
            outcome.record(request=self._shown(), generation_id=generation_id, submitted_at=submission.submitted_at)
            if not self.wait_for_completion:
                outcome.emit(generation_id=generation_id, inputs=self._image_uris())
                return generation_id
            if self.execution_timeout is None:
                self.log.info("This wait has no time limit. To set a limit: execution_timeout=timedelta(hours=1).")
            return self._finish(self._wait(context, hook, generation_id), outcome)

    def execute_later(self, context: Context, event: Any, late: dict[str, Any] | None = None) -> str:  # noqa: ARG002
        """Submit after the pause that the API asked for; ``late`` is :attr:`_late` of the process that deferred."""
        self._late = late
        return self.execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Finish the task with the trigger's result."""
        from airflow_provider_luma.triggers.luma import generation_from

        with Outcome(self, context, resumed=True) as outcome, fail_without_retry():
            return self._finish(generation_from(event), outcome)

    def on_kill(self) -> None:
        """Prevent further submissions, and log the generation that keeps running or may be charged."""
        self.stopped = True
        if self._submission and self._submission.in_flight:
            self.log.warning(
                "A submission was sent and its answer has not arrived: it may be charged. Look at the account's usage "
                "before you submit again."
            )
        if self._submission and self._submission.generation_id:
            self.log.warning(STILL_RUNNING, self._submission.generation_id)

    def _get_or_submit(self, context: Context, hook: LumaHook, submission: Submission) -> str:
        resubmit = self.on_ambiguous_submission == "resubmit"
        if generation_id := submission.resume_id(hook, resubmit=resubmit):
            return generation_id
        self._load_arguments(context)
        try:
            generation = self._submit(hook, submission)
        except LumaRateLimited as error:
            from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

            seconds = backoff(error.retry_after or 60.0, 0)
            self.log.info("%s Deferring for %.0f s, then submitting.", error, seconds)
            trigger = TimeDeltaTrigger(timedelta(seconds=seconds))
            self._defer(context, trigger, self.execute_later, late=self._late)
        except LumaAmbiguousSubmission as error:
            error.args, error.retry_may_help = (f"{error} {HOW_TO_RESOLVE}",), resubmit
            raise
        self.log.info("Submitted generation %s.", generation.id)
        submission.accepted(generation.id)
        return generation.id

    def _wait(self, context: Context, hook: LumaHook, generation_id: str) -> Generation:
        """Return the generation when it has ended. A deferrable task polls once, and defers if it has not ended yet."""
        from airflow_provider_luma.api.waiting import Wait
        from airflow_provider_luma.triggers.luma import LumaGenerationTrigger

        if not self.deferrable:
            return hook.wait_for_generation(generation_id, poll_interval=self.poll_interval)
        generation = hook.poll(Wait(generation_id, log=self.log))
        if not generation:
            trigger = LumaGenerationTrigger(generation_id, self.luma_conn_id, self.poll_interval)
            self._defer(context, trigger, self.execute_complete)
        return generation

    def _finish(self, generation: Generation, outcome: Outcome) -> str:
        outcome.push("generation", outcome.finished(generation))
        outcome.emit(generation, inputs=self._image_uris())
        return generation.id

    def _defer(self, context: Context, trigger: BaseTrigger, then: Callable[..., str], **kwargs: Any) -> NoReturn:
        """Defer for at most the rest of ``execution_timeout``: otherwise Airflow would count the full time again."""
        timeout = self.execution_timeout
        if timeout is not None:
            spent = datetime.now(timezone.utc) - context["ti"].start_date
            timeout = max(timeout - spent, timedelta(seconds=1))
        self.defer(trigger=trigger, method_name=then.__name__, kwargs=kwargs, timeout=timeout)

    @abstractmethod
    def _submit(self, hook: LumaHook, listener: Submission) -> Generation:
        """Submit the request; ``listener`` is told when it is sent, and if it was rejected."""

    def _load_arguments(self, context: Context) -> None:
        """Set the arguments that are known only when the task runs, and keep them in ``_late`` for after a deferral."""

    def _request(self, context: Context) -> dict[str, Any]:
        """Return the arguments and fields that make this request different from others."""
        self._load_arguments(context)
        return merge(self._arguments(), self.extra_body)

    def _remember_given(self) -> None:
        """Remember which arguments the user passed, before templates are rendered."""
        self._given = [name for name in self.arguments if getattr(self, name, None) is not None]

    def _arguments(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in self.arguments}
        for name in self._given:
            if given[name] in (None, "None"):
                # For example the XCom of a skipped task. Without the image, the API would make a different video, and
                # charge it.
                if name in IMAGES:
                    raise LumaInvalidRequest(f"{name} was given, but its value is None. To leave it out, pass ''.")
                self.log.info("%s was given, but its value is None: it is left out.", name)
        self._given = []
        return read_arguments(given, self.arguments)

    def _payload(self) -> dict[str, Any]:
        """Return the arguments to send, with images read from storage."""
        given = self._arguments()
        images = {name: data_uri(given[name], name) for name in IMAGES if name in given and is_stored(given[name])}
        return {**given, **images, "extra_body": self.extra_body}

    def _shown(self) -> dict[str, Any]:
        """Return the arguments that the Luma tab shows, without the content of images."""
        given = {name: value for name, value in self._arguments().items() if ARGUMENTS[name].shown}
        return {name: "data:…" if value.lower().startswith("data:") else value for name, value in given.items()}

    def _image_uris(self) -> list[str]:
        given = self._arguments()
        return [image_uri(given[name]) for name in IMAGES if name in given]

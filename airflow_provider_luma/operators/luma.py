"""What a DAG author calls."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api.arguments import (
    ARGUMENT_TYPES,
    EXTEND_ARGUMENTS,
    Template,
    check_generation_id,
    merge_arguments,
)
from airflow_provider_luma.api.dialects import check_arguments
from airflow_provider_luma.api.errors import LumaAmbiguousSubmission, LumaRateLimited
from airflow_provider_luma.api.retry import backoff
from airflow_provider_luma.failures import STILL_RUNNING, fail_without_retry
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.operators.download import LumaDownloadVideoOperator
from airflow_provider_luma.operators.images import data_uri, image_uri, is_stored
from airflow_provider_luma.operators.submission import DISCARDS_ON_CLEAR, HOW_TO_RESOLVE, Submission, remember_success
from airflow_provider_luma.outcome import RETURN_KEY, Outcome
from airflow_provider_luma.template import is_template, parse_bool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_luma.api import Generation
    from airflow_provider_luma.hooks.luma import LumaHook

__all__ = ["LumaDownloadVideoOperator", "LumaExtendVideoOperator", "LumaGenerateVideoOperator"]

IMAGES = ("image_url", "image_end_url")
SHOWN = ("user_prompt", "model_name", "resolution", "aspect_ratio", "duration", *IMAGES)
"""What the Luma tab shows of a request: extra_body and notify_hook may hold secrets, which no XCom hides."""


class _SubmittingOperator(BaseOperator):
    """
    What the operators that pay for a generation share.

    :param luma_conn_id: the Airflow connection that holds the token.
    :param extra_body: fields that the API takes and this operator has no argument for, sent as they are.
    :param wait_for_completion: whether the task lasts until the video is there; else it ends once it is submitted.
    :param deferrable: whether a task that waits does so in the triggerer, without a worker.
    :param poll_interval: seconds between two polls while it waits.
    :param on_ambiguous_submission: what to do where an earlier try may have been charged and the answer was lost.
    """

    arguments: ClassVar[tuple[str, ...]]
    """The arguments that go into the request, by the names that users type."""

    prompt_is_late: ClassVar[bool] = False
    """Whether the prompt is only known when the task runs, and may be another one at each try."""

    operator_extra_links = LINKS
    watch_url: str | None = None

    def __init__(
        self,
        *,
        luma_conn_id: str = DEFAULT_CONN_ID,
        extra_body: dict[str, Any] | None = None,
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 5.0,
        on_ambiguous_submission: Literal["fail", "resubmit"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_ambiguous_submission not in ("fail", "resubmit"):
            raise ValueError(f'on_ambiguous_submission is "fail" or "resubmit", got {on_ambiguous_submission!r:.40}.')
        self.luma_conn_id = luma_conn_id
        self.extra_body = extra_body
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.on_ambiguous_submission = on_ambiguous_submission
        self._submission: Submission | None = None
        # Not when it is done but when Airflow has taken note: until then it may still fail, and be tried again.
        self.on_success_callback = [*self.on_success_callback, remember_success]

    def execute(self, context: Context) -> str:
        """Submit, or resume what an earlier try submitted; push the generation id, and wait where that is wanted."""
        from airflow_provider_luma.hooks.luma import LumaHook

        hook = LumaHook(self.luma_conn_id)
        submission = self._submission = Submission(context, self, lambda: self._request(context))
        with Outcome(self, context) as outcome, fail_without_retry():
            outcome.record(request=self._shown())
            generation_id = self._get_or_submit(context, hook, submission)
            outcome.push(RETURN_KEY, generation_id)
            outcome.record(request=self._shown(), generation_id=generation_id, submitted_at=submission.submitted_at)
            if not self.wait_for_completion:
                outcome.emit(None, {"generation_id": generation_id}, inputs=self._image_uris())
                return generation_id
            if self.execution_timeout is None:
                self.log.info("This wait has no time limit. To set one: execution_timeout=timedelta(hours=1).")
            if self.deferrable:
                from airflow_provider_luma.triggers.luma import LumaGenerationTrigger

                trigger = LumaGenerationTrigger(generation_id, self.luma_conn_id, self.poll_interval)
                self._defer(context, trigger, self.execute_complete)
            generation = hook.wait_for_generation(generation_id, poll_interval=self.poll_interval)
            return self._finish(generation, outcome)

    def execute_later(self, context: Context, event: dict[str, Any]) -> str:  # noqa: ARG002
        """Try again after the API had asked to wait."""
        return self.execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Take what the trigger brought."""
        from airflow_provider_luma.triggers.luma import generation_from

        with Outcome(self, context, resumed=True) as outcome, fail_without_retry():
            return self._finish(generation_from(event), outcome)

    def on_kill(self) -> None:
        """Log what goes on when this task does not, and let no submission begin any more."""
        if not self._submission:
            return
        self._submission.stopped = True
        if self._submission.in_flight:
            self.log.warning("A submission has left and its answer has not come: it may be charged.")
        if self._submission.generation_id:
            self.log.warning(STILL_RUNNING, self._submission.generation_id)
            if DISCARDS_ON_CLEAR:
                self.log.warning(
                    "A clear that keeps this task's state resumes it; one that discards the state submits, and pays, "
                    "again."
                )

    def _get_or_submit(self, context: Context, hook: LumaHook, submission: Submission) -> str:
        resubmit = self.on_ambiguous_submission == "resubmit"
        generation_id = submission.resume_id(hook, resubmit=resubmit)
        if generation_id:
            return generation_id
        self._load_arguments(context)
        try:
            generation = self._submit(hook, submission)
        except LumaRateLimited as error:
            from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

            seconds = backoff(60.0, 0, error.retry_after)
            self.log.info("%s Deferring for %.0f s, then submitting.", error, seconds)
            self._defer(context, TimeDeltaTrigger(timedelta(seconds=seconds)), self.execute_later)
        except LumaAmbiguousSubmission as error:
            raise LumaAmbiguousSubmission(
                f"{error} {HOW_TO_RESOLVE}",
                status=error.status,
                code=error.code,
                request_id=error.request_id,
                retry_may_help=resubmit,
            ) from error
        self.log.info("Submitted generation %s.", generation.id)
        submission.accepted(generation.id)
        return generation.id

    def _finish(self, generation: Generation, outcome: Outcome) -> str:
        outcome.finished(generation.as_dict())
        outcome.push("generation", generation.as_dict())
        if not generation.video_url:
            self.log.warning("Generation %s is completed, but there is no URL of its video.", generation.id)
        made = {"generation_id": generation.id, "uri": generation.video_url}
        outcome.emit(generation.video_url, made, inputs=self._image_uris())
        return generation.id

    def _defer(self, context: Context, trigger: BaseTrigger, then: Callable[..., str]) -> NoReturn:
        """Free the worker, for as long as the execution time-out leaves: Airflow itself would start that again."""
        timeout = self.execution_timeout
        if timeout is not None:
            spent = datetime.now(timezone.utc) - context["ti"].start_date
            timeout = max(timeout - spent, timedelta(seconds=1))
        self.defer(trigger=trigger, method_name=then.__name__, timeout=timeout)

    @abstractmethod
    def _submit(self, hook: LumaHook, listener: Submission) -> Generation:
        """Send the request."""

    def _load_arguments(self, context: Context) -> None:
        """Set the arguments that are only known now, if there are any and they are not set yet."""

    def _request(self, context: Context) -> dict[str, Any]:
        """Return what makes this request this one and no other."""
        self._load_arguments(context)
        return merge_arguments(self._arguments(), self.extra_body)

    def _arguments(self) -> dict[str, Any]:
        """Return the request's arguments, paths as text; one that says True, False or None in words means it."""
        given = {name: getattr(self, name) for name in self.arguments}
        for name, value in given.items():
            if hasattr(value, "joinpath"):
                given[name] = str(value)
            elif value == "None":
                given[name] = None
            elif ARGUMENT_TYPES[name] is bool:
                given[name] = parse_bool(value)
        return given

    def _payload(self) -> dict[str, Any]:
        """Return the arguments as they are sent: images out of storage are read only now."""
        given = self._arguments()
        for name in IMAGES:
            if (image := given.get(name)) and is_stored(image):
                given[name] = data_uri(image, name)
        return given

    def _shown(self) -> dict[str, Any]:
        """Return the arguments as anybody may see them: no image, and no other secret."""
        given = {name: value for name, value in self._arguments().items() if name in SHOWN and value is not None}
        return {name: "data:…" if str(value).lower().startswith("data:") else value for name, value in given.items()}

    def _image_uris(self) -> list[str]:
        given = self._arguments()
        return [image_uri(given[name]) for name in IMAGES if given.get(name)]

    def _check_literals(self) -> None:
        """Raise what is wrong whatever the templates in it turn out to be."""
        given = self._arguments()
        extra_body_is_late = is_template(self.extra_body)
        with fail_without_retry():
            for name, value in given.items():
                # What is in storage is read when the task runs.
                if is_template(value) or (name in IMAGES and value and is_stored(value)):
                    given[name] = Template(name)
            # A template for extra_body may hold the prompt.
            if not given["user_prompt"] and (self.prompt_is_late or extra_body_is_late):
                given["user_prompt"] = Template("user_prompt")
            check_arguments(given, None if extra_body_is_late else self.extra_body)


class LumaGenerateVideoOperator(_SubmittingOperator):
    """
    Submit a generation to Luma, and wait for the video if asked to.

    The generation id is the ``return_value`` XCom, pushed as soon as it is known. A task that waited also pushes the
    finished generation, as the sensor returns it, under the key ``generation``.

    Arguments that are left out are not sent. What the connection's API has no counterpart for is refused, when the task
    runs, before anything is sent. A request that is wrong, a bad token and a prompt that moderation refuses fail the
    task without another try.

    On Airflow 3.3 and later no retry of the same request pays a second time: it resumes the generation that an earlier
    try submitted, unless that failed. Clearing a task that succeeded submits again; so does, from Airflow 3.4 on, any
    clear that discards the task's state.

    :param user_prompt: what to show, 3 to 5,000 characters for a gateway, 1 to 6,000 for Luma's own API; for a gateway
        it may be left out where there is an image.
    :param model_name: a gateway's ``ray-v1`` or ``ray-v2``, Luma's ``ray-3.2`` (its default), or a newer one.
    :param duration: ``5s``, or what else the model has.
    :param resolution: ``720p`` (the default), ``1080p``, or what else the model has.
    :param aspect_ratio: such as ``16:9`` or ``9:16``.
    :param expand_prompt: whether a gateway may improve the prompt.
    :param loop: whether the video ends where it began; not together with ``image_end_url``.
    :param image_url: the first frame: an http(s) URL (for Luma's own API https), a ``data:`` URI, or the path of a PNG,
        JPEG or WebP of up to 10 MiB that ``ObjectStoragePath`` opens, such as ``s3://conn_id@bucket/key`` or
        ``/folder/file``.
    :param image_end_url: the last frame, likewise.
    :param notify_hook: URL that a gateway calls back when the generation is finished.
    :param extra_body: fields that the API takes and this operator has no argument for, sent as they are.
    :param luma_conn_id: the Airflow connection that holds the token.
    :param wait_for_completion: whether the task lasts until the video is there; else it ends once it is submitted.
    :param deferrable: whether a task that waits does so in the triggerer, without a worker; the default is Airflow's
        ``[operators] default_deferrable``.
    :param poll_interval: seconds between two polls while it waits, default 5.
    :param on_ambiguous_submission: what to do where an earlier try may have been charged and its answer was lost:
        ``fail`` (the default) the task for good, or ``resubmit``, which may pay a second time.
    """

    arguments: ClassVar[tuple[str, ...]] = tuple(ARGUMENT_TYPES)
    template_fields: Sequence[str] = ("luma_conn_id", *arguments, "extra_body")
    template_fields_renderers: ClassVar[dict[str, str]] = {"extra_body": "json"}

    def __init__(
        self,
        *,
        user_prompt: str | None = None,
        model_name: str | None = None,
        duration: str | None = None,
        resolution: str | None = None,
        aspect_ratio: str | None = None,
        expand_prompt: bool | None = None,
        loop: bool | None = None,
        image_url: str | ObjectStoragePath | None = None,
        image_end_url: str | ObjectStoragePath | None = None,
        notify_hook: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.user_prompt = user_prompt
        self.model_name = model_name
        self.duration = duration
        self.resolution = resolution
        self.aspect_ratio = aspect_ratio
        self.expand_prompt = expand_prompt
        self.loop = loop
        self.image_url = image_url
        self.image_end_url = image_end_url
        self.notify_hook = notify_hook
        self._check_literals()

    def _submit(self, hook: LumaHook, listener: Submission) -> Generation:
        return hook.submit(**self._payload(), extra_body=self.extra_body, listener=listener)


class LumaExtendVideoOperator(_SubmittingOperator):
    """
    Submit the continuation of a completed generation, and wait for the video if asked to.

    It is a new generation with an id and a price of its own. What is pushed to XCom and what fails the task is the
    same as for :class:`LumaGenerateVideoOperator`.

    :param generation_id: the id of the generation to continue, which must be completed.

    The other parameters are those of :class:`LumaGenerateVideoOperator` that a gateway takes here: ``user_prompt``,
    ``expand_prompt``, ``image_url``, ``image_end_url``, ``notify_hook``, ``extra_body``, and those about the
    connection and waiting. Luma's own API takes the prompt and ``extra_body``.
    """

    arguments: ClassVar[tuple[str, ...]] = EXTEND_ARGUMENTS
    template_fields: Sequence[str] = ("luma_conn_id", "generation_id", *arguments, "extra_body")
    template_fields_renderers: ClassVar[dict[str, str]] = {"extra_body": "json"}

    def __init__(
        self,
        *,
        generation_id: str,
        user_prompt: str | None = None,
        expand_prompt: bool | None = None,
        image_url: str | ObjectStoragePath | None = None,
        image_end_url: str | ObjectStoragePath | None = None,
        notify_hook: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generation_id = generation_id
        self.user_prompt = user_prompt
        self.expand_prompt = expand_prompt
        self.image_url = image_url
        self.image_end_url = image_end_url
        self.notify_hook = notify_hook
        self._check_literals()
        if not is_template(generation_id):
            with fail_without_retry():
                check_generation_id(generation_id)

    def _request(self, context: Context) -> dict[str, Any]:
        return {**super()._request(context), "extended generation": self.generation_id}

    def _submit(self, hook: LumaHook, listener: Submission) -> Generation:
        return hook.extend(self.generation_id, **self._payload(), extra_body=self.extra_body, listener=listener)

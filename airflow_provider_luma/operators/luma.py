"""What a DAG author calls."""

from __future__ import annotations

import random
from abc import abstractmethod
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, BaseOperator, conf
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from pendulum import DateTime

from airflow_provider_luma.api import LumaAmbiguousSubmission, LumaRateLimited
from airflow_provider_luma.api.arguments import ARGUMENT_TYPES, EXTEND_ARGUMENTS, check_generation_id, merge_arguments
from airflow_provider_luma.api.dialects import check_arguments
from airflow_provider_luma.failures import fail_without_retry
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.operators.download import LumaDownloadVideoOperator
from airflow_provider_luma.operators.images import ImageField, data_uri, is_stored
from airflow_provider_luma.operators.lineage import announce, collect, openlineage, without_images, without_keys
from airflow_provider_luma.operators.submission import WAYS_ON, Submission, remember_success
from airflow_provider_luma.template import is_template, parse_bool
from airflow_provider_luma.triggers.luma import STILL_GOING, LumaGenerationTrigger, generation_from
from airflow_provider_luma.ui.record import recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_luma.api import Generation

__all__ = ["LumaDownloadVideoOperator", "LumaExtendVideoOperator", "LumaGenerateVideoOperator"]

IMAGES = ("image_url", "image_end_url")
RECORDED = ("user_prompt", "model_name", "resolution", "duration", *IMAGES)


class _SubmittingOperator(BaseOperator):
    """
    What the operators that pay for a generation share.

    :param luma_conn_id: the Airflow connection that holds the token.
    :param extra_body: fields that the gateway takes and this operator has no argument for, sent as they are.
    :param wait_for_completion: whether the task lasts until the video is there; else it ends once it is submitted.
    :param deferrable: whether a task that waits does so in the triggerer, without a worker.
    :param poll_interval: seconds between two questions while it waits.
    :param on_ambiguous_submission: what to do where an earlier try may have been charged and nobody can know.
    """

    arguments: ClassVar[tuple[str, ...]]
    """The arguments that go into the request, by the gateway's own names."""

    late: ClassVar[tuple[str, ...]] = ()
    """Those that are only known when the task runs, whatever they look like."""

    same_at_each_try: ClassVar[bool] = True
    """Whether a retry makes the same request, unless somebody has changed it."""

    image_url = ImageField()
    image_end_url = ImageField()
    operator_extra_links = LINKS
    watch_url: str | None = None

    def __init__(
        self,
        *,
        luma_conn_id: str = LumaHook.default_conn_name,
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
        self._submitted: str | None = None
        self._submission: Submission | None = None
        self._made: list[str] = []
        # Not when it is done but when Airflow has taken note: until then it may still fail, and be tried again.
        self.on_success_callback = [*self.on_success_callback, remember_success]

    def execute(self, context: Context) -> str:
        """Submit, or go on with what an earlier try submitted; push the task id, and wait where that was asked for."""
        hook = LumaHook(self.luma_conn_id)
        with recording(self, context) as record, fail_without_retry():
            if self.same_at_each_try:
                record(request=self._recorded())
            self._submission = submission = Submission(context, self._request, self.log)
            resubmit = self.on_ambiguous_submission == "resubmit"
            # One look is enough here: who cannot be asked now is waited for.
            asking = LumaHook(self.luma_conn_id, retry_for=0)
            generation_id = submission.taken_up(asking, resubmit=resubmit, compare=self.same_at_each_try)
            generation_id = generation_id or self._submit_now(context, hook, submission)
            self._submitted = generation_id
            if self.do_xcom_push:
                context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=generation_id)
            record(request=self._recorded(), generation_id=generation_id, submitted_at=submission.submitted_at)
            if not self.wait_for_completion:
                announce(context, self.outlets, None, {"generation_id": generation_id})
                return generation_id
            if self.deferrable:
                self.defer(
                    trigger=LumaGenerationTrigger(generation_id, self.luma_conn_id, self.poll_interval),
                    method_name=self.execute_complete.__name__,
                    kwargs=self._kept(),
                    timeout=self._time_left(context),
                )
            generation = hook.wait_for_generation(generation_id, poll_interval=self.poll_interval)
            return self._finish(context, generation, record)

    def execute_later(self, context: Context, event: dict[str, Any]) -> str:  # noqa: ARG002
        """Go on after the gateway had told to wait."""
        return self.execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Go on where the trigger left off."""
        with recording(self, context, resumed=True) as record, fail_without_retry():
            return self._finish(context, generation_from(event), record)

    def on_kill(self) -> None:
        """Say what goes on when this task does not, and let no submission begin any more."""
        if self._submission:
            self._submission.stopped = True
            if self._submission.under_way:
                self.log.warning("A submission has left and its answer has not come: it may be charged.")
        if self._submitted:
            self.log.warning(STILL_GOING, self._submitted)

    def _kept(self) -> dict[str, Any]:
        """Return what the process that goes on after the wait has to know, as arguments of its method."""
        return {}

    def _finish(self, context: Context, generation: Generation, record: Callable[..., None]) -> str:
        self._submitted = generation.id
        self.watch_url = generation.video_url
        record(generation=generation.as_dict(), seen_at=DateTime.now("UTC").to_iso8601_string())
        if not generation.video_url:
            self.log.warning("Generation %s is completed, but the gateway gives no URL of its video.", generation.id)
        if self.do_xcom_push:
            context["ti"].xcom_push(key="generation", value=generation.as_dict())
        if generation.video_url:
            self._made.append(generation.video_url)
            collect(LumaHook(self.luma_conn_id), outputs=self._made)
        announce(
            context, self.outlets, generation.video_url, {"generation_id": generation.id, "uri": generation.video_url}
        )
        return generation.id

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002
        """Return what OpenLineage is told, by its provider, which calls this."""
        from airflow_provider_luma.operators import storage

        given = self._given()
        images = [given[name] for name in IMAGES if given.get(name)]
        read = [storage.uri_of(storage.open_path(image)) if is_stored(image) else image for image in images]
        request = {name: value for name, value in self._request_shown().items() if name not in IMAGES}
        facts = {"generationId": self._submitted, "request": request}
        return openlineage([uri for uri in read if not uri.lower().startswith("data:")], self._made, facts)

    def _submit_now(self, context: Context, hook: LumaHook, submission: Submission) -> str:
        try:
            generation = self._submit(hook, submission)
        except LumaRateLimited as error:
            seconds = (error.retry_after or 60.0) + random.uniform(0, 10)  # noqa: S311
            self.log.info("%s Deferring for %.0f s, then submitting.", error, seconds)
            self.defer(
                trigger=TimeDeltaTrigger(timedelta(seconds=seconds)),
                method_name=self.execute_later.__name__,
                timeout=self._time_left(context),
            )
        except LumaAmbiguousSubmission as error:
            error.retry_may_help = self.on_ambiguous_submission == "resubmit"
            error.args = (f"{error} {WAYS_ON}",)
            raise
        self.log.info("Submitted generation %s.", generation.id)
        submission.accepted(generation.id)
        return generation.id

    def _time_left(self, context: Context) -> timedelta | None:
        """Return what is left of the execution time-out, which Airflow itself begins anew at each deferral."""
        if self.execution_timeout is None:
            return None
        spent = datetime.now(timezone.utc) - context["ti"].start_date
        return max(self.execution_timeout - spent, timedelta(seconds=1))

    @abstractmethod
    def _submit(self, hook: LumaHook, witness: Submission) -> Generation:
        """Send the request."""

    def _request(self) -> dict[str, Any]:
        """Return the body to send, and what else makes this request this one and no other."""
        return merge_arguments(self._given(), self.extra_body)

    def _given(self) -> dict[str, Any]:
        """Return the request's arguments; a template that says True, False or None in words means it."""
        given = self._raw()
        for name, value in given.items():
            if value == "None":
                given[name] = None
            elif ARGUMENT_TYPES[name] is bool and isinstance(value, str):
                given[name] = parse_bool(value)
        return given

    def _request_shown(self) -> dict[str, Any]:
        """Return the request's arguments as anybody may see them."""
        # Nothing here has been checked yet.
        extra_body = self.extra_body if isinstance(self.extra_body, dict) else {}
        given = {**self._given(), **extra_body}
        shown = {name: without_images(value) for name, value in given.items() if value is not None}
        if "notify_hook" in shown:
            shown["notify_hook"] = without_keys(str(shown["notify_hook"]))
        return shown

    def _recorded(self) -> dict[str, Any]:
        """Return what the Luma tab shows of the request: extra_body may hold secrets, which no XCom hides."""
        return {name: value for name, value in self._request_shown().items() if name in RECORDED}

    def _raw(self) -> dict[str, Any]:
        """Return the request's arguments as they were given, images and all."""
        given = {name: getattr(self, f"_{name}" if name in IMAGES else name) for name in self.arguments}
        return {name: str(value) if hasattr(value, "joinpath") else value for name, value in given.items()}

    def _sent(self, hook: LumaHook) -> dict[str, Any]:
        """Return the request's arguments with the images that they name, read only now that they are needed."""
        given = self._given()
        for name in IMAGES:
            if image := given.get(name):
                if is_stored(image):
                    given[name] = data_uri(image, name)
                elif image.lower().startswith("http"):
                    collect(hook, inputs=[image])
        return given

    def _check_literals(self) -> None:
        """Raise LumaInvalidRequest for what is wrong whatever the templates in it turn out to be."""
        given = self._raw()
        templates = [name for name, value in given.items() if is_template(value) or name in self.late]
        given.update((name, given[name] or name) for name in self.late)
        extra_body = None if is_template(self.extra_body) else self.extra_body
        if is_template(self.extra_body) and not given["user_prompt"]:
            # It may hold the prompt.
            given["user_prompt"] = self.extra_body
            templates.append("user_prompt")
        with fail_without_retry():
            check_arguments(given, extra_body, templates)
            for name in IMAGES:
                if given.get(name) and name not in templates:
                    is_stored(given[name])


class LumaGenerateVideoOperator(_SubmittingOperator):
    """
    Submit a generation to Luma, and wait for the video if asked to.

    The task id of the generation is the ``return_value`` XCom, pushed as soon as it is known. A task that waited also
    pushes the finished generation, as the sensor returns it, under the key ``generation``.

    Arguments that are left out are not sent. A request that is wrong, a bad token and a prompt that moderation
    refuses fail the task without another try.

    On Airflow 3.3 and later no retry pays a second time: it goes on with the generation that an earlier try submitted,
    unless that failed. Clearing a task that succeeded submits anew.

    :param user_prompt: what to show, 3 to 5,000 characters; may be left out where there is an image.
    :param model_name: ``ray-v1``, ``ray-v2``, or whatever else the gateway has by now.
    :param duration: such as ``5s``.
    :param resolution: ``720p`` (the gateway's default) or ``1080p``.
    :param expand_prompt: whether the gateway may improve the prompt.
    :param loop: whether the video ends where it began; not together with ``image_end_url``.
    :param image_url: the first frame: an http(s) URL, a ``data:`` URI, or the path of a PNG, JPEG or WebP of up to
        10 MiB that ``ObjectStoragePath`` opens, such as ``s3://conn_id@bucket/key`` or ``/folder/file``.
    :param image_end_url: the last frame, likewise.
    :param notify_hook: URL that the gateway calls back when the generation is finished.
    :param extra_body: fields that the gateway takes and this operator has no argument for, sent as they are.
    :param luma_conn_id: the Airflow connection that holds the token.
    :param wait_for_completion: whether the task lasts until the video is there; else it ends once it is submitted.
    :param deferrable: whether a task that waits does so in the triggerer, without a worker; the default is Airflow's
        ``[operators] default_deferrable``.
    :param poll_interval: seconds between two questions while it waits, default 5.
    :param on_ambiguous_submission: what to do where an earlier try may have been charged and nobody can know:
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
        self.expand_prompt = expand_prompt
        self.loop = loop
        self.image_url = image_url
        self.image_end_url = image_end_url
        self.notify_hook = notify_hook
        self._check_literals()

    def _submit(self, hook: LumaHook, witness: Submission) -> Generation:
        return hook.submit(**self._sent(hook), extra_body=self.extra_body, listener=witness)


class LumaExtendVideoOperator(_SubmittingOperator):
    """
    Submit the continuation of a finished generation, and wait for the video if asked to.

    It is a new generation with an id and a price of its own. What is pushed to XCom and what fails the task is the
    same as for :class:`LumaGenerateVideoOperator`.

    :param generation_id: the task id of the generation to continue, which must be completed.

    The other parameters are those of :class:`LumaGenerateVideoOperator` that the gateway takes here: ``user_prompt``,
    ``expand_prompt``, ``image_url``, ``image_end_url``, ``notify_hook``, ``extra_body``, and those about the
    connection and waiting.
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

    def _request(self) -> dict[str, Any]:
        return {**super()._request(), "extended generation": self.generation_id}

    def _submit(self, hook: LumaHook, witness: Submission) -> Generation:
        return hook.extend(self.generation_id, **self._sent(hook), extra_body=self.extra_body, listener=witness)

"""What a DAG author calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, BaseOperator, conf

from airflow_provider_luma.api.gateway import ARGUMENT_TYPES, EXTEND_ARGUMENTS, generation_path, request_body
from airflow_provider_luma.hooks.luma import LumaHook, failing_for_good
from airflow_provider_luma.triggers.luma import STILL_GOING, LumaGenerationTrigger, generation_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_luma.api import Generation


class _SubmittingOperator(BaseOperator):
    """
    What the operators that pay for a generation share.

    :param luma_conn_id: the Airflow connection that holds the token.
    :param extra_body: fields that the gateway takes and this operator has no argument for, sent as they are.
    :param wait_for_completion: whether the task lasts until the video is there; else it ends once it is submitted.
    :param deferrable: whether a task that waits does so in the triggerer, without a worker.
    :param poll_interval: seconds between two questions while it waits.
    """

    arguments: ClassVar[tuple[str, ...]]
    """The arguments that go into the request, by the gateway's own names."""

    def __init__(
        self,
        *,
        luma_conn_id: str = LumaHook.default_conn_name,
        extra_body: dict[str, Any] | None = None,
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.luma_conn_id = luma_conn_id
        self.extra_body = extra_body
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self._submitted: str | None = None

    def execute(self, context: Context) -> str:
        """Submit, push the task id, wait where that was asked for, and return the task id."""
        hook = LumaHook(self.luma_conn_id)
        with failing_for_good():
            self._submitted = generation_id = self._submit(hook).id
        self.log.info("Submitted generation %s.", generation_id)
        if self.do_xcom_push:
            context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=generation_id)
        if not self.wait_for_completion:
            return generation_id
        if self.deferrable:
            self.defer(
                trigger=LumaGenerationTrigger(generation_id, self.luma_conn_id, self.poll_interval),
                method_name=self.execute_complete.__name__,
                timeout=self.execution_timeout,
            )
        with failing_for_good():
            return self._finish(context, hook.wait_for_generation(generation_id, poll_interval=self.poll_interval))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Go on where the trigger left off."""
        with failing_for_good():
            return self._finish(context, generation_from(event))

    def on_kill(self) -> None:
        """Say what goes on when this task does not."""
        if self._submitted:
            self.log.warning(STILL_GOING, self._submitted)

    def _finish(self, context: Context, generation: Generation) -> str:
        if not generation.video_url:
            self.log.warning("Generation %s is completed, but the gateway gives no URL of its video.", generation.id)
        if self.do_xcom_push:
            context["ti"].xcom_push(key="generation", value=generation.as_dict())
        return generation.id

    @abstractmethod
    def _submit(self, hook: LumaHook) -> Generation:
        """Send the request."""

    def _given(self) -> dict[str, Any]:
        """Return the request's arguments; a template that says True or False in words means it."""
        words = {"true": True, "false": False}
        given = {name: getattr(self, name) for name in self.arguments}
        for name, value in given.items():
            if ARGUMENT_TYPES[name] is bool and isinstance(value, str):
                given[name] = words.get(value.strip().lower(), value)
        return given

    def _check_literals(self) -> None:
        """Raise LumaInvalidRequest for what is wrong whatever the templates in it turn out to be."""
        given = {name: getattr(self, name) for name in self.arguments}
        templates = [name for name, value in given.items() if is_template(value)]
        extra_body = None if is_template(self.extra_body) else self.extra_body
        if is_template(self.extra_body) and not given["user_prompt"]:
            # It may hold the prompt.
            given["user_prompt"] = self.extra_body
            templates.append("user_prompt")
        with failing_for_good():
            request_body(given, extra_body, not_known_yet=templates)


class LumaGenerateVideoOperator(_SubmittingOperator):
    """
    Submit a generation to Luma, and wait for the video if asked to.

    The task id of the generation is the ``return_value`` XCom, pushed as soon as it is known. A task that waited also
    pushes the finished generation, as the sensor returns it, under the key ``generation``.

    Arguments that are left out are not sent. A request that is wrong, a bad token and a prompt that moderation
    refuses fail the task without another try; so does a submission that may have been charged without anyone knowing.

    :param user_prompt: what to show, 3 to 5,000 characters; may be left out where there is an image.
    :param model_name: ``ray-v1``, ``ray-v2``, or whatever else the gateway has by now.
    :param duration: such as ``5s``.
    :param resolution: ``720p`` (the gateway's default) or ``1080p``.
    :param expand_prompt: whether the gateway may improve the prompt.
    :param loop: whether the video ends where it began; not together with ``image_end_url``.
    :param image_url: the first frame, an http(s) URL or a ``data:`` URI.
    :param image_end_url: the last frame, likewise.
    :param notify_hook: URL that the gateway calls back when the generation is finished.
    :param extra_body: fields that the gateway takes and this operator has no argument for, sent as they are.
    :param luma_conn_id: the Airflow connection that holds the token.
    :param wait_for_completion: whether the task lasts until the video is there; else it ends once it is submitted.
    :param deferrable: whether a task that waits does so in the triggerer, without a worker; the default is Airflow's
        ``[operators] default_deferrable``.
    :param poll_interval: seconds between two questions while it waits, default 5.
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
        image_url: str | None = None,
        image_end_url: str | None = None,
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

    def _submit(self, hook: LumaHook) -> Generation:
        return hook.submit(**self._given(), extra_body=self.extra_body)


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
        image_url: str | None = None,
        image_end_url: str | None = None,
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
            with failing_for_good():
                generation_path(generation_id)

    def _submit(self, hook: LumaHook) -> Generation:
        return hook.extend(self.generation_id, **self._given(), extra_body=self.extra_body)


def is_template(value: Any) -> bool:
    """Say whether a value is only known when the task runs: an XComArg, or text with Jinja in it."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_template(part) for part in value.values())
    return hasattr(value, "resolve")

"""The operators that submit generations; the download operator is importable from here, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_luma.api.arguments import ARGUMENTS, EXTEND_ARGUMENTS
from airflow_provider_luma.operators.download import LumaDownloadVideoOperator
from airflow_provider_luma.operators.submitting import SubmittingOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_luma.api import Generation
    from airflow_provider_luma.hooks.luma import LumaHook
    from airflow_provider_luma.operators.submission import Submission

__all__ = ["LumaDownloadVideoOperator", "LumaExtendVideoOperator", "LumaGenerateVideoOperator"]


class _VideoOperator(SubmittingOperator):
    """The arguments that a generation and its extension share; see :class:`LumaGenerateVideoOperator`."""

    def __init__(
        self,
        *,
        user_prompt: str | None = None,
        expand_prompt: bool | None = None,
        image_url: str | ObjectStoragePath | None = None,
        image_end_url: str | ObjectStoragePath | None = None,
        notify_hook: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.user_prompt = user_prompt
        self.expand_prompt = expand_prompt
        self.image_url = image_url
        self.image_end_url = image_end_url
        self.notify_hook = notify_hook
        self._remember_given()


class LumaGenerateVideoOperator(_VideoOperator):
    """
    Submit a generation to Luma, and wait for the video if asked to.

    The ``return_value`` XCom is the generation id, pushed as soon as it is known. A task that waited also pushes the
    finished generation under ``generation``, as the sensor returns it.

    Arguments that are left out are not sent. They are checked when the task runs, before anything is sent. A wrong
    request, a bad token and a prompt that moderation refuses fail the task without a retry.

    On Airflow 3.3 and later, a retry and a clear resume the generation of an earlier try, unless it failed, the request
    changed, or Airflow discarded the task's state.

    :param user_prompt: the prompt; some APIs accept an image without a prompt.
    :param model_name: the model, for example ``ray-v2`` or ``ray-3.2``; each API has its own.
    :param duration: the length, for example ``5s``.
    :param resolution: for example ``720p`` or ``1080p``.
    :param aspect_ratio: for example ``16:9`` or ``9:16``.
    :param expand_prompt: the API may improve the prompt.
    :param loop: the video ends with its first frame.
    :param image_url: the first frame: a URL, a ``data:`` URI, or the path of a PNG, JPEG or WebP of at most 10 MiB that
        ``ObjectStoragePath`` opens, for example ``s3://conn_id@bucket/key`` or ``/folder/file``.
    :param image_end_url: the last frame, likewise.
    :param notify_hook: a URL that the API calls when the generation has ended.
    :param extra_body: fields of the request that are not arguments, under the API's own names.
    :param luma_conn_id: the Airflow connection with the token.
    :param wait_for_completion: wait until the video is there; by default the task ends after the submission.
    :param deferrable: wait in the triggerer, without a worker; the default is ``[operators] default_deferrable``.
    :param poll_interval: seconds between two polls, default 5.
    :param on_ambiguous_submission: if an earlier request may have been charged: ``fail`` (the default) without a retry,
        or ``resubmit``, which may pay a second time.
    """

    arguments: ClassVar[tuple[str, ...]] = tuple(ARGUMENTS)
    template_fields: Sequence[str] = ("luma_conn_id", *arguments, "extra_body")

    def __init__(
        self,
        *,
        model_name: str | None = None,
        duration: str | None = None,
        resolution: str | None = None,
        aspect_ratio: str | None = None,
        loop: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.duration = duration
        self.resolution = resolution
        self.aspect_ratio = aspect_ratio
        self.loop = loop
        self._remember_given()

    def _submit(self, hook: LumaHook, listener: Submission) -> Generation:
        return hook.submit(**self._payload(), listener=listener)


class LumaExtendVideoOperator(_VideoOperator):
    """
    Submit an extension of a completed generation, and wait for the video if asked to.

    It is a new generation with its own id and price. XComs and failures are those of
    :class:`LumaGenerateVideoOperator`.

    :param generation_id: the id of the generation to extend, which must be completed.

    The other parameters are those of :class:`LumaGenerateVideoOperator`, without the model and the form of the video.
    """

    arguments: ClassVar[tuple[str, ...]] = EXTEND_ARGUMENTS
    template_fields: Sequence[str] = ("luma_conn_id", "generation_id", *arguments, "extra_body")

    def __init__(self, *, generation_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generation_id = generation_id

    def _request(self, context: Context) -> dict[str, Any]:
        return {**super()._request(context), "extended generation": self.generation_id}

    def _submit(self, hook: LumaHook, listener: Submission) -> Generation:
        return hook.extend(self.generation_id, **self._payload(), listener=listener)

"""Putting a finished video into the user's own storage."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api import Generation, GenerationState, LumaGenerationFailed, LumaInvalidRequest
from airflow_provider_luma.api.arguments import check_generation_id
from airflow_provider_luma.failures import fail_without_retry
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.outcome import Outcome
from airflow_provider_luma.template import is_template, parse_bool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_luma.api.download import Download, DownloadResult

FILE_NAMES = {
    "video": "{}.mp4",
    "video_raw": "{}_raw.mp4",
    "thumbnail": "{}_thumbnail.jpg",
    "last_frame": "{}_last_frame.jpg",
}


class LumaDownloadVideoOperator(BaseOperator):
    """
    Store the video of a completed generation, or another of its files, wherever Airflow's object storage reaches.

    What is stored is whole or not there. A connection that is cut is resumed where it was cut; a URL that has expired
    is replaced by a fresh one. A task that runs again and finds the file in its folder does not fetch it again.

    The ``return_value`` XCom is the URI of the file. The key ``download`` has ``path`` (the same), ``size`` (bytes),
    ``sha256`` (hexadecimal), ``content_type``, and the ``seconds`` that it took.

    :param generation: the generation id, or the dict that the sensor returns.
    :param destination: where to, as a URI that ``ObjectStoragePath`` takes, such as ``s3://conn_id@bucket/videos/`` or
        ``file:///data/boat.mp4``. A folder gets a file ``<generation id>.mp4``; what exists and is one, ends in a
        slash, or has a last part without an ending, is a folder.
    :param asset: ``video`` (as the gateway gives it for download), ``video_raw``, ``thumbnail`` or ``last_frame``,
        which in a folder are called ``<id>_raw.mp4``, ``<id>_thumbnail.jpg``, ``<id>_last_frame.jpg``.
    :param replace: whether another file in its place is replaced; else it is an error.
    :param luma_conn_id: the Airflow connection to get URLs with; its token goes to no CDN.
    """

    template_fields: Sequence[str] = ("generation", "destination", "asset", "replace", "luma_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"generation": "json"}
    operator_extra_links = LINKS
    watch_url: str | None = None

    def __init__(
        self,
        *,
        generation: str | Mapping[str, Any],
        destination: str | ObjectStoragePath,
        asset: str = "video",
        replace: bool | str = False,
        luma_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generation = generation
        self.destination = destination
        self.asset = asset
        self.replace = replace
        self.luma_conn_id = luma_conn_id
        with fail_without_retry():
            if not is_template(generation):
                _parse_generation(generation)
            if not is_template(asset):
                _check_asset(asset)
            if not is_template(replace):
                _parse_replace(replace)

    def execute(self, context: Context) -> str:
        """Store the file, and return its URI."""
        # Only now, or every DAG that mentions this operator would pay for them when it is parsed.
        from airflow_provider_luma.hooks.luma import LumaHook
        from airflow_provider_luma.operators import storage

        began = time.monotonic()
        with Outcome(self, context) as outcome, fail_without_retry(LumaGenerationFailed):
            _check_asset(self.asset)
            self.replace = _parse_replace(self.replace)
            known = _parse_generation(self.generation)
            outcome.record(generation_id=known.id, **({"generation": known.as_dict()} if known.state.terminal else {}))
            path = storage.resolve_destination(self.destination, FILE_NAMES[self.asset].format(known.id))
            download = LumaHook(self.luma_conn_id).download(known, self.asset)
            file = asdict(self._store(download, path, known.id))
            uri = storage.uri_of(path)
            outcome.record(stored=uri)
        self.watch_url = known.video_url or (download.url if self.asset == "video" else None)
        outcome.emit(uri, {"generation_id": known.id, "uri": uri, **file}, inputs=[download.url])
        outcome.push("download", {"path": uri, **file, "seconds": round(time.monotonic() - began, 3)})
        self.log.info("%s: %s bytes, SHA-256 %s.", uri, f"{file['size']:,}", file["sha256"])
        return uri

    def _store(self, download: Download, path: ObjectStoragePath, generation_id: str) -> DownloadResult:
        """Store the file unless it is there, and return what is there now."""
        from airflow_provider_luma.operators import storage

        there = storage.size_of(path)
        # A name that the user chose may hold the video of another generation, of the same length by chance.
        is_own_name = path.name == FILE_NAMES[self.asset].format(generation_id)
        other_file = LumaInvalidRequest(
            f"{path} is another file than the {self.asset} of generation {generation_id}. Nothing was changed: give "
            "another destination, or replace=True."
        )

        def wanted(size: int) -> bool:
            if there not in (None, size) and not self.replace:
                raise other_file
            return there != size or not is_own_name

        with storage.new_file(path) as file:
            result = download.copy_to(file, wanted)
            if result.sha256 is None:
                self.log.info("It is there already.")
                return replace(result, sha256=storage.sha256_of(path))
            # Again: another task may have stored it meanwhile.
            if self.replace or storage.size_of(path) is None:
                file.publish()
            elif storage.sha256_of(path) != result.sha256:
                raise other_file
        return result


def _check_asset(asset: Any) -> None:
    if asset not in FILE_NAMES:
        raise LumaInvalidRequest(f"asset is one of {', '.join(FILE_NAMES)}, got {asset!r:.80}.")


def _parse_replace(value: Any) -> bool:
    """Return what a template that says True or False in words means."""
    flag = parse_bool(value)
    if not isinstance(flag, bool):
        raise LumaInvalidRequest(f"replace is True or False, got {value!r:.80}.")
    return flag


def _parse_generation(given: Any) -> Generation:
    """Return what is known of the generation; raise LumaInvalidRequest for what is none."""
    if isinstance(given, Mapping):
        try:
            known = Generation.from_dict(given)
        except (KeyError, TypeError, ValueError) as error:
            raise LumaInvalidRequest(f"generation is a dict, but not as the sensor returns it: {error!r}.") from error
    else:
        known = Generation(id=given, state=GenerationState.UNKNOWN)
    if not isinstance(known.id, str) or re.search(r"[{}/\\]|^\.", known.id):
        raise LumaInvalidRequest(
            f"generation is an id, or the dict that LumaGenerationSensor returns, got {given!r:.80}. Pass the "
            "task's .output; to store several, LumaDownloadVideoOperator.partial(...).expand(generation=wait.output)."
        )
    check_generation_id(known.id)
    return known

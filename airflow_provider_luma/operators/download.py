"""Store a finished video in the user's own storage."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api import Generation, GenerationState, LumaGenerationFailed, LumaInvalidRequest
from airflow_provider_luma.api.arguments import boolean, check_generation_id
from airflow_provider_luma.failures import fail_without_retry
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_luma.api.download import Download
    from airflow_provider_luma.api.transfer import DownloadResult

FILE_NAMES = {
    "video": "{}.mp4",
    "video_raw": "{}_raw.mp4",
    "thumbnail": "{}_thumbnail.jpg",
    "last_frame": "{}_last_frame.jpg",
}


class LumaDownloadVideoOperator(BaseOperator):
    """
    Store the video of a completed generation, or another of its files, in any store that Airflow can open.

    The file appears when it is complete. A broken connection is resumed; an expired URL is replaced by a fresh one. A
    task that runs again and finds the file in its folder does not download it again.

    The ``return_value`` XCom is the URI of the file. The XCom ``download`` is a dict with ``path`` (the same URI),
    ``size`` (bytes), ``sha256`` (hexadecimal), ``content_type`` and ``seconds`` (the duration).

    :param generation: the generation id, or the dict that the sensor returns.
    :param destination: the URI of a file or folder, as ``ObjectStoragePath`` accepts it, such as
        ``s3://conn_id@bucket/videos/`` or ``file:///data/boat.mp4``. It is a file if it ends like a video or an image,
        unless a folder of that name exists. In a folder the file is called ``<generation id>.mp4``.
    :param asset: ``video`` (the API's version for download), ``video_raw``, ``thumbnail`` or ``last_frame``. In a
        folder they are called ``<id>_raw.mp4``, ``<id>_thumbnail.jpg`` and ``<id>_last_frame.jpg``.
    :param replace: whether to replace another file at the destination. If False, another file is an error.
    :param luma_conn_id: the Airflow connection to the API that gives the URLs. No CDN receives its token.
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

    def execute(self, context: Context) -> str:
        """Store the file, and return its URI."""
        # Late imports keep the parsing of DAG files fast.
        from airflow_provider_luma.hooks.luma import LumaHook
        from airflow_provider_luma.operators import storage

        began = time.monotonic()
        with Outcome(self, context) as outcome, fail_without_retry(LumaGenerationFailed):
            if self.asset not in FILE_NAMES:
                raise LumaInvalidRequest(f"asset must be one of {', '.join(FILE_NAMES)}, got {self.asset!r:.80}.")
            self.replace = boolean("replace", self.replace)
            known = _parse_generation(self.generation)
            outcome.record(generation_id=known.id, **({"generation": known.as_dict()} if known.state.terminal else {}))
            path = storage.resolve_destination(self.destination, FILE_NAMES[self.asset].format(known.id))
            download = LumaHook(self.luma_conn_id).download(known.id, self.asset)
            file = asdict(self._store(download, path, known.id))
            uri = storage.uri_of(path)
            outcome.record(stored=uri)
        self.watch_url = known.video_url or (download.url if self.asset == "video" else None)
        outcome.emit(known, stored=uri, **file)
        outcome.push("download", {"path": uri, **file, "seconds": round(time.monotonic() - began, 3)})
        self.log.info("%s: %s bytes, SHA-256 %s.", uri, f"{file['size']:,}", file["sha256"])
        return uri

    def _store(self, download: Download, path: ObjectStoragePath, generation_id: str) -> DownloadResult:
        """Store the file unless it exists, and describe the file that exists at the end."""
        from airflow_provider_luma.operators import storage

        existing = storage.look(path)
        # Under a name from the user, a file of the same length can be another video.
        own_name = path.name == FILE_NAMES[self.asset].format(generation_id)
        other_file = LumaInvalidRequest(
            f"{path} exists and is not the {self.asset} of generation {generation_id}. Nothing was changed: use "
            "another destination, or replace=True."
        )

        def wanted(size: int | None) -> bool:
            if existing is None or size is None:
                return True
            if existing["size"] != size and not self.replace:
                raise other_file
            return existing["size"] != size or not own_name

        with storage.explain_errors(path), storage.new_file(path) as file:
            result = download.copy_to(file, wanted)
            if result.sha256 is None:
                self.log.info("The file is already stored.")
                return changed(result, sha256=storage.sha256_of(path))
            # Look again: another task may have stored the file in the meantime.
            if self.replace or storage.look(path) is None:
                file.publish()
            elif storage.sha256_of(path) != result.sha256:
                raise other_file
        return result


def _parse_generation(given: Any) -> Generation:
    """Build a generation from an id or a dict; raise LumaInvalidRequest for anything else."""
    if isinstance(given, Mapping):
        try:
            known = Generation.from_dict(given)
        except (KeyError, TypeError, ValueError) as error:
            raise LumaInvalidRequest(f"generation is not a dict that the sensor returns: {error!r}.") from error
    else:
        known = Generation(id=given, state=GenerationState.UNKNOWN)
    if not isinstance(known.id, str) or re.search(r"[{}/\\]|^\.", known.id):
        raise LumaInvalidRequest(
            f"generation must be a generation id or the dict that LumaGenerationSensor returns, got {given!r:.80}. "
            "Pass the task's .output; to store several, use "
            "LumaDownloadVideoOperator.partial(...).expand(generation=wait.output)."
        )
    check_generation_id(known.id)
    return known

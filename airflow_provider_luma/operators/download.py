"""Putting a finished video into the user's own storage."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_luma import DEFAULT_CONN_ID
from airflow_provider_luma.api import Generation, GenerationState, LumaGenerationFailed, LumaInvalidRequest
from airflow_provider_luma.api.arguments import check_generation_id
from airflow_provider_luma.failures import fail_without_retry
from airflow_provider_luma.links.luma import LINKS
from airflow_provider_luma.operators.outcome import reporting
from airflow_provider_luma.template import is_template, parse_bool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

STORE_KEY = "luma_download"

FILE_NAMES = {
    "video": "{}.mp4",
    "video_raw": "{}_raw.mp4",
    "thumbnail": "{}_thumbnail.jpg",
    "last_frame": "{}_last_frame.jpg",
}


class LumaDownloadVideoOperator(BaseOperator):
    """
    Store the video of a completed generation, or another of its files, wherever Airflow's object storage reaches.

    What is stored is whole or not there. A connection that is cut goes on where it was cut; a URL that has expired is
    replaced by a fresh one. A task that runs again and finds the file does nothing.

    The ``return_value`` XCom is the URI of the file. The key ``download`` has ``path`` (the same), ``size`` (bytes),
    ``sha256`` (hexadecimal), ``content_type``, and the ``seconds`` that it took.

    :param generation: the task id of the generation, or the dict that the sensor returns.
    :param destination: where to, as a URI that ``ObjectStoragePath`` takes, such as ``s3://conn_id@bucket/videos/`` or
        ``file:///data/boat.mp4``. A folder gets a file ``<task id>.mp4``; what exists and is one, ends in a slash, or
        has a last part without an ending, is a folder.
    :param asset: ``video`` (as the gateway gives it for download), ``video_raw``, ``thumbnail`` or ``last_frame``,
        which in a folder are called ``<task id>_raw.mp4``, ``<task id>_thumbnail.jpg``, ``<task id>_last_frame.jpg``.
    :param replace: whether another file in its place is replaced; else it is an error.
    :param luma_conn_id: the Airflow connection to ask for URLs with; its token goes to no CDN.
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
        self._source: list[str] = []
        with fail_without_retry():
            if not is_template(generation):
                _generation(generation)
            if not is_template(asset):
                _check_asset(asset)
            if not is_template(replace):
                _parse_flag(replace)

    def execute(self, context: Context) -> str:
        """Store the file, and return its URI."""
        began = time.monotonic()
        with reporting(self, context) as outcome, fail_without_retry(LumaGenerationFailed):
            _check_asset(self.asset)
            self.replace = _parse_flag(self.replace)
            known = _generation(self.generation)
            # Only now, or every DAG that mentions this operator would pay for fsspec when it is parsed.
            from airflow_provider_luma.operators import storage

            outcome.record(generation_id=known.id, **({"generation": known.as_dict()} if known.state.terminal else {}))
            path = storage.place(self.destination, FILE_NAMES[self.asset].format(known.id))
            file = self._download(context, known, path)
            uri = storage.uri_of(path)
            outcome.record(stored=uri)
            self.watch_url = known.video_url or (self._source[0] if self._source and self.asset == "video" else None)
        download = {"path": uri, **file, "seconds": round(time.monotonic() - began, 3)}
        outcome.emit(uri, {"generation_id": known.id, "uri": uri, **file}, inputs=self._source)
        outcome.push("download", download)
        self.log.info("%s: %s bytes, SHA-256 %s.", uri, f"{file['size']:,}", file["sha256"])
        return uri

    def _download(self, context: Context, known: Generation, path: ObjectStoragePath) -> dict[str, Any]:
        """Return size, checksum and type of the file that is at the path now."""
        from airflow_provider_luma.hooks.luma import LumaHook
        from airflow_provider_luma.operators import storage

        hook = LumaHook(self.luma_conn_id)
        store = context.get("task_state_store")
        what = {"generation_id": known.id, "asset": self.asset, "path": storage.uri_of(path)}
        record = store.get(STORE_KEY) if store is not None else None
        remembered = record if isinstance(record, dict) and what.items() <= record.items() else None
        # To read it all may be as much work as to fetch it, so that comes last.
        size = path.stat().st_size if path.is_file() else None
        if remembered and size == remembered["size"] and storage.checksums(path)[0] == remembered["sha256"]:
            self.log.info("It is there already, as an earlier try stored it.")
            return {name: remembered[name] for name in ("size", "sha256", "content_type")}

        download = hook.download(known, self.asset)
        if size is not None:
            described = download.describe()
            if size == described.size and not remembered and (described.md5 or not self.replace):
                sha256, md5 = storage.checksums(path)
                if described.md5 in (None, md5):
                    self.log.info("It is there already.")
                    return {"size": size, "sha256": sha256, "content_type": described.content_type}
            if not self.replace:
                raise LumaInvalidRequest(
                    f"{path} is another file, of {size:,} bytes; the {self.asset} of generation {known.id} has "
                    f"{described.size:,}. Nothing was changed: give another destination, or replace=True."
                )
        with storage.NewFile(path, replace=bool(self.replace)) as file:
            stored = asdict(download.copy_to(file))
            if store is not None:
                store.set(STORE_KEY, {**what, **stored})
            try:
                file.publish()
            except FileExistsError:
                # As it is when Airflow has given up on a try that went on all the same.
                if storage.checksums(path)[0] != stored["sha256"]:
                    raise LumaInvalidRequest(
                        f"{path} has come into being meanwhile, and is another file. Give another destination, or "
                        "replace=True."
                    ) from None
        self._source.append(download.url)
        return stored


def _check_asset(asset: Any) -> None:
    if asset not in FILE_NAMES:
        raise LumaInvalidRequest(f"asset is one of {', '.join(FILE_NAMES)}, got {asset!r:.80}.")


def _parse_flag(value: Any) -> bool:
    """Return what a template that says True or False in words means."""
    flag = parse_bool(value) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise LumaInvalidRequest(f"replace is True or False, got {value!r:.80}.")
    return flag


def _generation(given: Any) -> Generation:
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
            f"generation is a task id, or the dict that LumaGenerationSensor returns, got {given!r:.80}. Pass the "
            "task's .output; to store several, LumaDownloadVideoOperator.partial(...).expand(generation=wait.output)."
        )
    check_generation_id(known.id)
    return known

"""How a task reports its generation to Airflow: XComs, the Luma tab, asset events, lineage."""

from __future__ import annotations

import logging
import string
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from pendulum import DateTime

from airflow_provider_luma.api.errors import LumaError, LumaGenerationFailed
from airflow_provider_luma.api.url import redact_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Self

    from airflow_provider_luma.api import Generation

log = logging.getLogger(__name__)

RETURN_KEY = "return_value"
"""Airflow's name for the XCom of a task's result. An import from Airflow would add 30 ms to the parsing of each DAG."""

RECORD_KEY = "luma"
"""The key of the XCom that the Luma tab reads. It is not the record of a submission."""


class Outcome:
    """
    Reports a task's results; as a context manager it also records the error that fails the task.

    :param operator: the task's operator.
    :param context: the running task's context.
    :param resumed: the task was deferred, so an earlier process may have recorded facts, which are kept.
    """

    def __init__(self, operator: Any, context: Context, *, resumed: bool = False) -> None:
        self._operator = operator
        self._context = context
        self._resumed = resumed
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        # TaskDeferred is not an error.
        if not isinstance(error, Exception):
            return
        cause: BaseException | None = error
        # Airflow's exceptions that fail or skip a task are raised from the original error.
        while cause and not isinstance(cause, LumaError | AirflowNotFoundException):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, LumaGenerationFailed):
            self.record(problem=str(cause), generation=cause.generation.as_dict())
        elif cause:
            self.record(problem=str(cause))

    def record(self, **facts: Any) -> None:
        """
        Add facts to the XCom that the Luma tab shows. A task with ``do_xcom_push=False`` records nothing.

        :param facts: JSON types, all optional: ``request`` (the arguments, without the content of images),
            ``generation_id``, ``submitted_at`` (RFC 3339), ``generation`` (as the sensor returns it), ``seen_at``
            (RFC 3339, when the generation had this state), ``stored`` (a URI), ``problem`` (an error message).
        """
        if not self._operator.do_xcom_push:
            return
        try:
            ti = self._context["ti"]
            if self._resumed and not self._facts:
                self._facts.update(ti.xcom_pull(key=RECORD_KEY, map_indexes=ti.map_index) or {})
            self._facts.update(facts)
            ti.xcom_push(key=RECORD_KEY, value=self._facts)
        except Exception:
            # A task that has paid must not fail because of the tab.
            log.warning("The Luma tab will not show everything about this task. The task continues.", exc_info=True)

    def push(self, key: str, value: Any) -> None:
        """Push an XCom, unless the task has ``do_xcom_push=False``."""
        if self._operator.do_xcom_push:
            self._context["ti"].xcom_push(key=key, value=value)

    def finished(self, generation: Generation) -> dict[str, Any]:
        """Record the generation at the end of a wait, and return it as a dict."""
        self._operator.watch_url = generation.video_url
        seen = generation.as_dict()
        self.record(generation=seen, seen_at=DateTime.now("UTC").to_iso8601_string())
        return seen

    def emit(
        self,
        generation: Generation | None = None,
        *,
        stored: str | None = None,
        inputs: Iterable[str] = (),
        **extra: Any,
    ) -> None:
        """
        Add the result to the asset events of the outlets, and to Airflow's lineage.

        :param generation: the generation at the end of the wait, if the task waited.
        :param stored: the URI of the stored file. An ``AssetAlias`` in the outlets becomes an asset with this URI.
        :param inputs: the URIs of the images of the request; ``data:`` URIs are left out.
        :param extra: further fields for the ``extra`` of the events.
        """
        if generation:
            extra = {"generation_id": generation.id, "uri": generation.video_url, **extra}
        if stored:
            extra["uri"] = stored
        self._report_lineage([uri for uri in inputs if not uri.lower().startswith("data:")], stored)
        self._emit_asset_events(stored and asset_uri(stored), extra)

    def _emit_asset_events(self, stored: str | None, extra: Mapping[str, Any]) -> None:
        from airflow.providers.common.compat.sdk import Asset, AssetAlias
        from airflow.sdk.definitions.asset import AssetRef

        for outlet in self._operator.outlets:
            if isinstance(outlet, Asset | AssetRef):
                self._context["outlet_events"][outlet].extra.update(extra)
            elif isinstance(outlet, AssetAlias) and stored:
                try:
                    asset = Asset(stored)
                except ValueError as error:
                    log.warning(
                        "Airflow does not accept an asset with the URI %s: %s. The AssetAlias gets no asset.",
                        stored,
                        error,
                    )
                else:
                    self._context["outlet_events"][outlet].add(asset, extra=dict(extra))

    def _report_lineage(self, inputs: Iterable[str], stored: str | None) -> None:
        """Report the URIs of images and stored files to Airflow's lineage, which OpenLineage uses."""
        from airflow.providers.common.compat.sdk import get_hook_lineage_collector

        from airflow_provider_luma.hooks.luma import LumaHook

        try:
            hook, collector = LumaHook(self._operator.luma_conn_id), get_hook_lineage_collector()
            for uri in inputs:
                collector.add_input_asset(context=hook, uri=asset_uri(uri))
            if stored:
                collector.add_output_asset(context=hook, uri=asset_uri(stored))
        except Exception:
            # Airflow refuses some URIs, for example long ones. A task that has paid must not fail because of that.
            log.warning("Airflow's lineage does not accept a URI of this task. The task continues.", exc_info=True)


def asset_uri(uri: str) -> str:
    """Return a URI for assets and lineage: without secrets, and in ASCII, because Airflow refuses other characters."""
    return quote(redact_uri(uri), safe=string.punctuation)

"""What a task says to Airflow of the generation that it makes: XComs, the Luma tab, asset events, lineage."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from pendulum import DateTime

from airflow_provider_luma.api.errors import LumaError, LumaGenerationFailed
from airflow_provider_luma.api.url import redact_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.sdk import Context
    from typing_extensions import Self

log = logging.getLogger(__name__)

RETURN_KEY = "return_value"
"""Airflow's own name, which costs 30 ms of every DAG's parsing where it is imported."""

RECORD_KEY = "luma"
"""The XCom that the Luma tab reads."""


class Outcome:
    """
    What one task has made so far, for use in a ``with`` block, which records by itself what an error of Luma's says.

    :param operator: whose task it is.
    :param context: the running task's.
    :param resumed: whether the task was deferred, so that an earlier process has recorded already.
    """

    def __init__(self, operator: Any, context: Context, *, resumed: bool = False) -> None:
        self._operator = operator
        self._context = context
        self._resumed = resumed
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        # A deferral is none, and is raised from a submission that was asked to wait.
        if not isinstance(error, Exception):
            return
        cause: BaseException | None = error
        # Airflow's ways to fail or skip a task are raised from what was wrong.
        while cause and not isinstance(cause, LumaError | AirflowNotFoundException):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, LumaGenerationFailed):
            self.record(problem=str(cause), generation=cause.generation.as_dict())
        elif cause:
            self.record(problem=str(cause))

    def record(self, **facts: Any) -> None:
        """
        Add facts to what the Luma tab shows, all optional and JSON types.

        They are ``request`` (of the submission, without images), ``generation_id``, ``submitted_at`` (RFC 3339),
        ``generation`` (as the sensor returns it) and ``seen_at`` (RFC 3339, when it was so), ``stored`` (a URI),
        ``problem`` (what went wrong, and what to do). A task with ``do_xcom_push=False`` records none.
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
            # No task that has paid may fail for a picture of it.
            log.warning("The Luma tab will not show all of this task.", exc_info=True)

    def push(self, key: str, value: Any) -> None:
        """Push an XCom, unless the task is not to push any."""
        if self._operator.do_xcom_push:
            self._context["ti"].xcom_push(key=key, value=value)

    def finished(self, generation: Mapping[str, Any]) -> None:
        """Record a generation, as the sensor returns it, that has ended, and where its video is."""
        self._operator.watch_url = generation["video_url"]
        self.record(generation=generation, seen_at=DateTime.now("UTC").to_iso8601_string())

    def emit(self, uri: str | None, extra: Mapping[str, Any], *, inputs: Iterable[str] = ()) -> None:
        """
        Put what the task has made into the asset events of its outlets, and into Airflow's lineage.

        :param uri: where it is, if that is known; an alias among the outlets becomes an asset of that URI.
        :param extra: what the events carry.
        :param inputs: the URIs of what it was made from; images in ``data:`` URIs do not count.
        """
        self._report_lineage([one for one in inputs if not one.lower().startswith("data:")], [uri] if uri else [])
        self._emit_asset_events(uri, extra)

    def _emit_asset_events(self, uri: str | None, extra: Mapping[str, Any]) -> None:
        from airflow.providers.common.compat.sdk import Asset, AssetAlias

        for outlet in self._operator.outlets:
            if isinstance(outlet, Asset):
                self._context["outlet_events"][outlet].extra.update(extra)
            elif isinstance(outlet, AssetAlias) and uri:
                try:
                    asset = Asset(redact_uri(uri))
                except ValueError as error:
                    log.warning("Airflow accepts no asset of the URI %s: %s", redact_uri(uri), error)
                else:
                    self._context["outlet_events"][outlet].add(asset, extra=dict(extra))

    def _report_lineage(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Report URIs that Airflow has not itself seen being read or written; OpenLineage takes them from there."""
        from airflow.providers.common.compat.sdk import get_hook_lineage_collector

        from airflow_provider_luma.hooks.luma import LumaHook

        try:
            hook, collector = LumaHook(self._operator.luma_conn_id), get_hook_lineage_collector()
            for uri in inputs:
                collector.add_input_asset(context=hook, uri=redact_uri(uri))
            for uri in outputs:
                collector.add_output_asset(context=hook, uri=redact_uri(uri))
        except Exception:
            # Airflow refuses, say, a URI that is long. No task that has paid, or stored a video, may fail for that.
            log.warning("Airflow's lineage does not accept a URI of this task.", exc_info=True)

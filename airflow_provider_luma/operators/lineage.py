"""Telling Airflow what a task has read and made: asset events, hook-level lineage, OpenLineage."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias, get_hook_lineage_collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_luma.hooks.luma import LumaHook

log = logging.getLogger(__name__)


def collect(hook: LumaHook, *, inputs: Iterable[str] = (), outputs: Iterable[str] = ()) -> None:
    """Tell Airflow's hook-level lineage of URIs that it has not seen being read or written by itself."""
    try:
        collector = get_hook_lineage_collector()
        for uri in inputs:
            collector.add_input_asset(context=hook, uri=without_keys(uri))
        for uri in outputs:
            collector.add_output_asset(context=hook, uri=without_keys(uri))
    except Exception:
        # Airflow refuses, say, a URI that is long. No task that has paid, or stored a video, may fail for that.
        hook.log.warning("Airflow's lineage does not take a URI of this task.", exc_info=True)


def openlineage(inputs: Iterable[str], outputs: Iterable[str], facts: Mapping[str, Any]) -> Any:
    """Return what OpenLineage's provider, which has to be there, wants to know; the facts as a run facet ``luma``."""
    import attrs
    from airflow.providers.common.compat.openlineage.facet import Dataset, RunFacet
    from airflow.providers.openlineage.extractors import OperatorLineage

    facet = attrs.make_class("LumaRunFacet", list(facts), bases=(RunFacet,), kw_only=True)
    return OperatorLineage(
        inputs=[Dataset(*_dataset(without_keys(uri))) for uri in inputs],
        outputs=[Dataset(*_dataset(without_keys(uri))) for uri in outputs],
        run_facets={"luma": facet(**facts)},
    )


def announce(context: Context, outlets: Iterable[Any], uri: str | None, extra: Mapping[str, Any]) -> None:
    """
    Put what a task has made into the asset events of its outlets.

    :param uri: where it is; an alias among the outlets becomes an asset of that URI.
    :param extra: what the events carry.
    """
    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(extra)
        elif isinstance(outlet, AssetAlias) and uri:
            try:
                asset = Asset(without_keys(uri))
            except ValueError as error:
                log.warning("Airflow takes no asset of the URI %s: %s", without_keys(uri), error)
            else:
                context["outlet_events"][outlet].add(asset, extra=dict(extra))


def without_keys(uri: str) -> str:
    """Return a URI without what may be a key to it: a name before its host, and the query of a web address."""
    scheme, _, rest = uri.partition("://")
    if scheme.lower() in ("http", "https"):
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def without_images(value: Any) -> Any:
    """Return a request, or a part of one, without the images that are in it as ``data:`` URIs."""
    if isinstance(value, dict):
        return {name: without_images(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_images(part) for part in value]
    return "data:…" if isinstance(value, str) and value.lower().startswith("data:") else value


def _dataset(uri: str) -> tuple[str, str]:
    """Return namespace and name, as https://openlineage.io/docs/spec/naming has them."""
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return ("file", slash + path) if scheme == "file" else (f"{scheme}://{host}", path)

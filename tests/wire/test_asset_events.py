"""Asset events and lineage of stored videos."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.outcome import asset_uri
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from tests.support.samples import PROMPT
from tests.support.task_instance import TaskInstance


class Events(SimpleNamespace):
    """The outlet events of one outlet."""

    def __init__(self):
        super().__init__(extra={}, added=[])

    def add(self, asset, extra):
        self.added.append((asset.uri, extra))


class OutletEvents:
    """The events of a task with one outlet; assets of Airflow 3.0 cannot be keys of a dict."""

    def __init__(self):
        self.of_outlet = Events()

    def __getitem__(self, outlet):
        return self.of_outlet


def events_of(operator):
    """Run a task, and return the events of its only outlet."""
    events = OutletEvents()
    operator.execute({"ti": TaskInstance(), "outlet_events": events})
    return events.of_outlet


@pytest.mark.parametrize("folder", ["vidéos", "видео", "with space", "100%25"])
def test_alias_has_ascii_uri(folder, connection, sandbox, tmp_path):
    """The asset of a stored video has an ASCII URI: Airflow's server refuses others after the video was stored."""
    generation_id = sandbox.add_generation(state="completed")
    ((uri, extra),) = events_of(
        LumaDownloadVideoOperator(
            task_id="store",
            generation=generation_id,
            destination=f"{tmp_path}/{folder}/",
            outlets=[AssetAlias("videos")],
        )
    ).added
    assert uri.isascii()
    assert extra["uri"] == f"file://{tmp_path}/{folder}/{generation_id}.mp4"


def test_escapes_are_kept():
    """A URI that is escaped already stays the same."""
    assert asset_uri("s3://bucket/a%20b/é.mp4") == "s3://bucket/a%20b/%C3%A9.mp4"


@pytest.mark.parametrize("outlet", [Asset("s3://bucket/a"), Asset.ref(name="a"), Asset.ref(uri="s3://bucket/a")])
@pytest.mark.parametrize("kind", ["submit", "wait", "store"])
def test_events_have_generation(kind, outlet, connection, sandbox, tmp_path):
    """The event of an asset, or of a reference to it, has the generation, whichever task it is from."""
    generation_id = sandbox.add_generation(state="completed")
    operator = {
        "submit": lambda: LumaGenerateVideoOperator(
            task_id="film", user_prompt=PROMPT, wait_for_completion=True, outlets=[outlet]
        ),
        "wait": lambda: LumaGenerationSensor(task_id="wait", generation_id=generation_id, outlets=[outlet]),
        "store": lambda: LumaDownloadVideoOperator(
            task_id="store", generation=generation_id, destination=f"{tmp_path}/", outlets=[outlet]
        ),
    }[kind]()
    extra = events_of(operator).extra
    assert extra["generation_id"] in {generation_id, *(one["id"] for one in sandbox.report()["generations"])}
    assert extra["uri"]


def test_other_outlets_are_left_alone(connection):
    """An outlet that is not an asset gets no event, and does not fail the task."""
    operator = LumaGenerateVideoOperator(task_id="film", user_prompt=PROMPT, outlets=["a table"])
    assert operator.execute({"ti": TaskInstance(), "outlet_events": {}})

"""What a DAG has besides operators: `@task.luma_video`, asset events and lineage."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    Asset,
    AssetAlias,
    HookLineageCollector,
    TaskDeferred,
)
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_luma.api.url import redact_uri
from airflow_provider_luma.decorators.luma import luma_video_task
from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator
from tests.support.raw_answers import far_end, json_answer
from tests.support.samples import PROMPT, TOKEN
from tests.support.task_instance import TaskInstance, resume
from tests.support.tries import Store

TYPO = {"user_prompt": PROMPT, "modle_name": "ray-v2"}


def made_of(function, **arguments):
    """Return the operator that a decorated function becomes."""
    with DAG("dag", schedule=None):
        return luma_video_task(function, **arguments)().operator


def run(operator, store=None, **context):
    ti = TaskInstance()
    ti.max_tries = 1
    return operator.execute({"ti": ti, "task_state_store": store, **context})


class TestDecorator:
    def test_a_function_that_returns_a_prompt_becomes_a_task_that_submits_it(self, connection, sandbox):
        task_id = run(made_of(lambda: PROMPT, model_name="ray-v2", task_id="video"))
        (known,) = sandbox.report()["generations"]
        assert known["id"] == task_id
        assert known["body"] == {"user_prompt": PROMPT, "model_name": "ray-v2"}

    def test_the_function_gets_its_arguments_and_what_it_names_of_the_context(self, connection, sandbox):
        def video(kind, size=None, ti=None):
            return f"A {size} {kind}, try {ti.try_number}"

        with DAG("dag", schedule=None):
            operator = luma_video_task(video)("boat", size="paper").operator
        run(operator)
        assert sandbox.report()["generations"][0]["prompt"] == "A paper boat, try 1"

    def test_a_returned_dict_counts_for_more_than_the_decorators_arguments(self, connection, sandbox):
        def video() -> dict:
            return {"user_prompt": PROMPT, "loop": True, "duration": "9s", "extra_body": {"aspect_ratio": "9:16"}}

        operator = made_of(video, duration="5s", model_name="ray-v1")
        assert not operator.multiple_outputs
        run(operator)
        assert sandbox.report()["generations"][0]["body"] == {
            "user_prompt": PROMPT,
            "loop": True,
            "duration": "9s",
            "model_name": "ray-v1",
            "aspect_ratio": "9:16",
        }

    def test_airflow_shows_the_arguments_that_the_function_returned(self, connection):
        operator = made_of(lambda: PROMPT, task_id="video")
        run(operator)
        assert operator.user_prompt == PROMPT
        assert operator.overwrite_rtif_after_execution

    def test_what_the_function_returns_is_never_rendered_as_a_template(self, connection, sandbox):
        run(made_of(lambda: "A boat {{ conn.luma_default.password }}", task_id="video"))
        assert sandbox.report()["generations"][0]["prompt"] == "A boat {{ conn.luma_default.password }}"

    @pytest.mark.parametrize("returned", [None, 5, "", "x", {"prompt": PROMPT}, TYPO, {"user_prompt": 5}, []])
    def test_a_return_value_that_is_no_request_fails_the_task_before_anything_is_sent(
        self, returned, connection, sandbox
    ):
        with pytest.raises(AirflowFailException):
            run(made_of(lambda: returned, task_id="video"))
        assert sandbox.report()["requests"] == 0

    def test_a_wrong_argument_of_the_decorator_fails_when_the_dag_is_parsed(self):
        with pytest.raises(AirflowFailException, match="True or False"):
            made_of(lambda: PROMPT, task_id="video", loop="often")

    def test_a_retry_resumes_without_calling_the_function(self, connection, sandbox):
        memory, called = Store(), []

        def video():
            called.append(1)
            return f"{PROMPT}, {len(called)} times"

        first = run(made_of(video), memory)
        assert run(made_of(video), memory) == first
        assert called == [1]
        assert sandbox.report()["charged"] == 1

    def test_after_a_deferred_wait_the_function_is_not_called_again(self, connection, sandbox):
        arguments = {"wait_for_completion": True, "deferrable": True, "task_id": "video"}
        with pytest.raises(TaskDeferred) as caught:
            run(made_of(lambda: PROMPT, **arguments))
        resumed = made_of(lambda: pytest.fail("it is called again"), **arguments)
        assert resume(resumed, caught.value, TaskInstance()) == sandbox.report()["generations"][0]["id"]

    def test_a_clear_calls_the_function_again_and_submits_its_new_prompt(self, connection, sandbox):
        memory, prompts = Store(), ["A paper boat", "A paper plane"]
        first = run(made_of(lambda: prompts.pop(0), task_id="video"), memory)
        ti = TaskInstance()
        ti.max_tries = 3
        cleared = made_of(lambda: prompts.pop(0), task_id="video").execute({"ti": ti, "task_state_store": memory})
        assert cleared != first
        assert [one["prompt"] for one in sandbox.report()["generations"]] == ["A paper boat", "A paper plane"]


def added(events, alias):
    """Return the URIs and extras of the assets that an alias has become."""
    return [(event.dest_asset_key.uri, event.extra) for event in events[alias].asset_alias_events]


class TestAssetEvents:
    def test_a_stored_video_is_in_the_events_of_the_tasks_outlets(self, connection, sandbox, tmp_path):
        asset, alias = Asset("videos"), AssetAlias("all-videos")
        events = OutletEventAccessors()
        generation_id = run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT))
        task = LumaDownloadVideoOperator(
            task_id="download", generation=generation_id, destination=str(tmp_path), outlets=[asset, alias]
        )
        uri = run(task, outlet_events=events)
        extra = events[asset].extra
        assert extra == {
            "generation_id": generation_id,
            "uri": uri,
            "size": (tmp_path / f"{generation_id}.mp4").stat().st_size,
            "sha256": extra["sha256"],
            "content_type": "video/mp4",
        }
        assert added(events, alias) == [(uri, extra)]

    @pytest.mark.parametrize("waits", [True, False])
    def test_a_generated_video_is_in_the_events_with_its_url_where_the_task_waited(self, waits, connection, sandbox):
        asset, alias = Asset("videos"), AssetAlias("all-videos")
        events = OutletEventAccessors()
        task = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=PROMPT, wait_for_completion=waits, outlets=[asset, alias]
        )
        generation_id = run(task, outlet_events=events)
        url = f"{sandbox.url}/cdn/{generation_id}/video.mp4"
        assert events[asset].extra == {"generation_id": generation_id, **({"uri": url} if waits else {})}
        assert [uri for uri, _ in added(events, alias)] == ([url] if waits else [])

    def test_an_alias_becomes_an_asset_without_the_keys_in_the_videos_url(self, connect):
        alias, events = AssetAlias("all-videos"), OutletEventAccessors()
        video = {"url": "https://user:secret@cdn.example.com/v.mp4?signature=secret"}
        done = json.dumps({"id": "x", "state": "completed", "video": video}).encode()
        with far_end(json_answer(b'{"id": "x"}'), json_answer(done)) as (gateway, _):
            connect(host=gateway, password=TOKEN)
            operator = LumaGenerateVideoOperator(
                task_id="submit", user_prompt=PROMPT, wait_for_completion=True, outlets=[alias]
            )
            run(operator, outlet_events=events)
        assert [uri for uri, _ in added(events, alias)] == ["https://cdn.example.com/v.mp4"]

    def test_a_video_url_that_airflow_refuses_as_an_asset_fails_no_task(self, connect):
        """The alias stays without one; the id and the URL are in the event of the other outlet."""
        asset, alias = Asset("videos"), AssetAlias("all-videos")
        events = OutletEventAccessors()
        url = f"https://cdn.example.com/{'x' * 2000}.mp4"
        done = json.dumps({"id": "x", "state": "completed", "video": {"url": url}}).encode()
        with far_end(json_answer(b'{"id": "x"}'), json_answer(done)) as (gateway, _):
            connect(host=gateway, password=TOKEN)
            operator = LumaGenerateVideoOperator(
                task_id="submit", user_prompt=PROMPT, wait_for_completion=True, outlets=[asset, alias]
            )
            assert run(operator, outlet_events=events) == "x"
        assert events[asset].extra == {"generation_id": "x", "uri": url}
        assert added(events, alias) == []


class TestLineage:
    @pytest.fixture
    def collector(self, monkeypatch):
        """Airflow's hook-level lineage, of this test alone."""
        collector = HookLineageCollector()
        monkeypatch.setattr(sdk, "get_hook_lineage_collector", lambda: collector)
        return collector

    def test_images_are_inputs_and_videos_outputs_without_their_urls_queries(
        self, connection, sandbox, collector, tmp_path
    ):
        image = "https://example.com/x.png?signature=secret"
        operator = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=PROMPT, image_url=image, wait_for_completion=True
        )
        generation_id = run(operator)
        video = f"{sandbox.url}/cdn/{generation_id}/video.mp4"
        uri = run(LumaDownloadVideoOperator(task_id="d", generation=generation_id, destination=str(tmp_path)))
        collected = collector.collected_assets
        assert {one.asset.uri for one in collected.inputs} == {
            "https://example.com/x.png",
            video.replace("video.mp4", "video_raw.mp4"),
        }
        assert {one.asset.uri for one in collected.outputs} == {video, uri}

    @pytest.mark.since("3.3")  # older ones' paths take the collector from elsewhere
    def test_a_stored_video_is_no_input_of_the_task_that_finds_it_there(
        self, connection, collector, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("airflow.sdk.lineage.get_hook_lineage_collector", lambda: collector)
        generation_id = run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT))
        for _ in range(2):
            uri = run(LumaDownloadVideoOperator(task_id="d", generation=generation_id, destination=str(tmp_path)))
        assert uri in {one.asset.uri for one in collector.collected_assets.outputs}
        assert uri not in {one.asset.uri for one in collector.collected_assets.inputs}

    def test_a_uri_that_airflows_lineage_refuses_fails_no_task(self, connection, sandbox, collector):
        image = f"https://example.com/{'x' * 2000}.png"
        assert run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, image_url=image))

    def test_images_from_storage_are_inputs_and_those_in_a_data_uri_are_not(self, connection, collector, tmp_path):
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        operator = LumaGenerateVideoOperator(
            task_id="submit",
            user_prompt=PROMPT,
            image_url=str(tmp_path / "x.png"),
            image_end_url="data:image/png;base64,AAAA",
        )
        run(operator)
        assert {one.asset.uri for one in collector.collected_assets.inputs} == {f"file://{tmp_path}/x.png"}

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("s3://conn@bucket/a#1?b/c.mp4", "s3://bucket/a#1?b/c.mp4"),
            ("file:///ü#1/a@b.mp4", "file:///ü#1/a@b.mp4"),
            ("https://user:password@example.com/a.mp4?key=1#x", "https://example.com/a.mp4"),
            ("https://example.com?key=1", "https://example.com"),
            ("HTTPS://example.com/a.mp4?key=1", "HTTPS://example.com/a.mp4"),
        ],
    )
    def test_a_uri_is_reported_without_keys(self, uri, shown):
        assert redact_uri(uri) == shown

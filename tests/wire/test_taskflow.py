"""The decorator `@task.luma_video`, asset events and lineage."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, AssetAlias, HookLineageCollector
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_luma.api.url import redact_uri
from airflow_provider_luma.decorators.luma import luma_video_task
from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator
from tests.support.samples import PROMPT
from tests.support.task_instance import TaskInstance, finish, run
from tests.support.tries import Store

pytestmark = pytest.mark.usefixtures("connection")

TYPO = {"user_prompt": PROMPT, "modle_name": "ray-v2"}


def decorated(function, **arguments):
    """Return the operator of a decorated function."""
    with DAG("dag", schedule=None):
        return luma_video_task(function, **arguments)().operator


def download(generation_id, folder, **arguments):
    return LumaDownloadVideoOperator(task_id="download", generation=generation_id, destination=str(folder), **arguments)


class TestDecorator:
    def test_submits_returned_prompt(self, sandbox, ti):
        """The task submits the returned prompt with the decorator's arguments; Airflow then shows the prompt."""
        operator = decorated(lambda: PROMPT, model_name="ray-v2", task_id="video")
        generation_id = run(operator, ti)
        (known,) = sandbox.report()["generations"]
        assert known["id"] == generation_id == ti.xcoms["return_value"]
        assert known["body"] == ti.xcoms["luma"]["request"] == {"user_prompt": PROMPT, "model_name": "ray-v2"}
        assert operator.user_prompt == PROMPT
        assert operator.overwrite_rtif_after_execution

    def test_function_gets_context(self, sandbox, ti):
        """The function gets its own arguments and the parts of the context that it names."""

        def video(kind, size=None, ti=None):
            return f"A {size} {kind}, try {ti.try_number}"

        with DAG("dag", schedule=None):
            operator = luma_video_task(video)("boat", size="paper").operator
        run(operator, ti)
        assert sandbox.report()["generations"][0]["prompt"] == "A paper boat, try 1"

    def test_returned_dict_overrides_decorator(self, sandbox, ti):
        """Arguments in a returned dict override those of the decorator."""

        def video() -> dict:
            return {"user_prompt": PROMPT, "loop": True, "duration": "9s", "extra_body": {"aspect_ratio": "9:16"}}

        operator = decorated(video, duration="5s", model_name="ray-v1")
        assert not operator.multiple_outputs
        run(operator, ti)
        assert sandbox.report()["generations"][0]["body"] == {
            "user_prompt": PROMPT,
            "loop": True,
            "duration": "9s",
            "model_name": "ray-v1",
            "aspect_ratio": "9:16",
        }

    def test_prompt_is_no_template(self, sandbox, ti):
        """The returned text is not rendered as a template."""
        run(decorated(lambda: "A boat {{ conn.luma_default.password }}", task_id="video"), ti)
        assert sandbox.report()["generations"][0]["prompt"] == "A boat {{ conn.luma_default.password }}"

    @pytest.mark.parametrize("returned", [None, 5, {"prompt": PROMPT}, TYPO, []])
    def test_wrong_result_fails_task(self, returned, sandbox, ti):
        """A result that is not a prompt or a dict of arguments fails the task without a retry."""
        with pytest.raises(AirflowFailException, match="returns a prompt, or a dict with some of user_prompt, "):
            run(decorated(lambda: returned, task_id="video"), ti)
        assert sandbox.report()["requests"] == 0

    @pytest.mark.parametrize("arguments", [{"returned": {"user_prompt": [5]}}, {"loop": "often"}])
    def test_wrong_argument_fails_task(self, arguments, sandbox, ti):
        """A wrong argument of the result or of the decorator fails the task without a retry."""
        returned = arguments.pop("returned", PROMPT)
        with pytest.raises(AirflowFailException, match=r"must be (a string|True or False)"):
            run(decorated(lambda: returned, task_id="video", **arguments), ti)
        assert sandbox.report()["requests"] == 0

    def test_resumes_without_call(self, sandbox, ti, logged):
        """If an earlier try has submitted, a retry and a clear resume it and do not call the function."""
        store, called = Store(), []

        def video():
            called.append(1)
            return f"{PROMPT}, {len(called)} times"

        first = run(decorated(video), ti, task_state_store=store)
        for max_tries in (1, 3):
            ti = TaskInstance()
            ti.try_number, ti.max_tries = 2, max_tries
            assert run(decorated(video), ti, task_state_store=store) == first
        assert called == [1]
        assert sandbox.report()["charged"] == 1
        assert logged(f"Resuming generation {first}.") == 2

    def test_failed_generation_calls_again(self, sandbox, ti):
        """If the generation failed, the next try calls the function and submits its new prompt."""
        store, prompts = Store(), ["A boat [fail]", "A paper plane"]
        run(decorated(lambda: prompts.pop(0), task_id="video"), ti, task_state_store=store)
        run(decorated(lambda: prompts.pop(0), task_id="video"), ti, task_state_store=store)
        assert [one["prompt"] for one in sandbox.report()["generations"]] == ["A boat [fail]", "A paper plane"]

    def test_deferral_does_not_call_again(self, sandbox, ti):
        """After a deferral, the function is not called again."""
        sandbox.change(seconds=60)
        called = []
        arguments = {"wait_for_completion": True, "deferrable": True, "task_id": "video"}
        generation_id = finish(decorated(lambda: called.append(1) or PROMPT, **arguments), ti, sandbox)
        assert ti.xcoms["generation"]["id"] == generation_id
        assert called == [1]


class TestAssetEvents:
    @pytest.fixture
    def events(self):
        return OutletEventAccessors()

    @staticmethod
    def added(events, alias):
        """Return the URIs and extras of the assets that were added to an alias."""
        return [(event.dest_asset_key.uri, event.extra) for event in events[alias].asset_alias_events]

    def test_events_of_stored_video(self, sandbox, events, ti, tmp_path):
        """The events of a stored video have its id, URI, size and hash; an alias becomes an asset."""
        asset, alias = Asset("videos"), AssetAlias("all-videos")
        generation_id = sandbox.add_generation(seconds=0)
        uri = run(download(generation_id, tmp_path, outlets=[asset, alias]), ti, outlet_events=events)
        extra = events[asset].extra
        assert extra == {
            "generation_id": generation_id,
            "uri": uri,
            "size": (tmp_path / f"{generation_id}.mp4").stat().st_size,
            "sha256": extra["sha256"],
            "content_type": "video/mp4",
        }
        assert self.added(events, alias) == [(uri, extra)]

    def test_refused_uri_fails_nothing(self, sandbox, events, ti, tmp_path, logged):
        """If Airflow does not accept the URI as an asset, the task succeeds with a warning."""
        asset, alias = Asset("videos"), AssetAlias("all-videos")
        folder = tmp_path.joinpath(*["x" * 200] * 8)
        uri = run(download(sandbox.add_generation(seconds=0), folder, outlets=[asset, alias]), ti, outlet_events=events)
        assert events[asset].extra["uri"] == uri
        assert self.added(events, alias) == []
        assert logged("Airflow does not accept an asset with the URI file://") == 1

    @pytest.mark.parametrize("waits", [True, False])
    def test_events_of_generated_video(self, waits, sandbox, events, ti):
        """The events of a generation have its id and, after a wait, its URL; an alias stays empty: URLs expire."""
        asset, alias = Asset("videos"), AssetAlias("all-videos")
        operator = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=PROMPT, wait_for_completion=waits, outlets=[asset, alias]
        )
        generation_id = run(operator, ti, outlet_events=events)
        url = {"uri": f"{sandbox.url}/cdn/{generation_id}/video.mp4"} if waits else {}
        assert events[asset].extra == {"generation_id": generation_id, **url}
        assert self.added(events, alias) == []


class TestLineage:
    @pytest.fixture
    def collector(self, monkeypatch):
        """Airflow's collector of lineage, for one test."""
        collector = HookLineageCollector()
        monkeypatch.setattr(sdk, "get_hook_lineage_collector", lambda: collector)
        return collector

    @staticmethod
    def uris(collected):
        return {one.asset.uri for one in collected}

    @pytest.mark.parametrize("waits", [True, False])
    def test_reports_images_and_files(self, waits, sandbox, collector, ti, tmp_path):
        """Images are inputs and stored files are outputs, without secrets; URLs of a CDN are neither."""
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        operator = LumaGenerateVideoOperator(
            task_id="submit",
            user_prompt=PROMPT,
            image_url="https://example.com/x.png?signature=secret",
            image_end_url=str(tmp_path / "x.png"),
            wait_for_completion=waits,
        )
        uri = run(download(run(operator, ti), tmp_path), ti)
        collected = collector.collected_assets
        assert self.uris(collected.inputs) == {"https://example.com/x.png", f"file://{tmp_path}/x.png"}
        assert self.uris(collected.outputs) == {uri}

    def test_inline_image_is_no_input(self, collector, ti):
        """An image in a data: URI is not an input."""
        image = "data:image/png;base64,AAAA"
        run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, image_url=image), ti)
        assert not collector.collected_assets.inputs

    @pytest.mark.since("3.3")  # Paths of older versions get the collector from another module.
    def test_existing_file_is_no_input(self, sandbox, collector, ti, tmp_path, monkeypatch):
        """A task that finds its file in place reports it as an output, not as an input."""
        monkeypatch.setattr("airflow.sdk.lineage.get_hook_lineage_collector", lambda: collector)
        generation_id = sandbox.add_generation(seconds=0)
        for _ in range(2):
            uri = run(download(generation_id, tmp_path), ti)
        assert uri in self.uris(collector.collected_assets.outputs)
        assert uri not in self.uris(collector.collected_assets.inputs)

    def test_refused_uri_fails_nothing(self, collector, ti, logged):
        """If Airflow's lineage does not accept a URI, the task succeeds with a warning."""
        image = f"https://example.com/{'x' * 2000}.png"
        assert run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, image_url=image), ti)
        assert logged("lineage does not accept a URI") == 1

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
    def test_redacts_a_uri(self, uri, shown):
        """A URI is shown without user name, password, and the query of a web address."""
        assert redact_uri(uri) == shown

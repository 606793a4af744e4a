"""From images in storage to videos in storage, in a real Airflow, with a disk and with an object store."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from packaging.version import Version

from airflow_provider_luma.sandbox.clips import FOLDER
from tests.support.deployment import AIRFLOW

pytestmark = pytest.mark.together


both_stores = pytest.mark.parametrize("store", ["file", "s3"])


def new_folder(store, s3, tmp_path_factory):
    """Return a folder to give to a DAG, on disk or in an object store, and how to read what is in it."""
    path = tmp_path_factory.mktemp("videos")
    if store == "file":
        return f"{(path / 'videos').as_uri()}/", read_file
    return f"s3://aws_default@bucket/{path.name}/", lambda uri: read_object(s3, uri)


def read_file(uri):
    return Path(uri.removeprefix("file://")).read_bytes()


def read_object(s3, uri):
    bucket, _, key = uri.removeprefix("s3://aws_default@").partition("/")
    store = boto3.client("s3", endpoint_url=s3, aws_access_key_id="key", aws_secret_access_key="secret")
    return store.get_object(Bucket=bucket, Key=key)["Body"].read()


def check(video, read):
    """The video is there, whole, and as its XCom says."""
    content = read(video["path"])
    assert content in [path.read_bytes() for path in FOLDER.glob("*.mp4")]
    assert video["size"] == len(content)
    assert video["sha256"] == hashlib.sha256(content).hexdigest()
    assert video["content_type"] == "video/mp4"


@both_stores
def test_a_stored_video_starts_the_dag_that_is_scheduled_by_it(store, deployment, s3, tmp_path_factory):
    """That DAG gets the video's address, size and checksum."""
    where, read = new_folder(store, s3, tmp_path_factory)
    run_id = deployment.run_to_end("example_luma_archive", conf={"folder": where})
    generation_id = deployment.xcom("example_luma_archive", run_id, "submit")
    video = deployment.xcom("example_luma_archive", run_id, "download", "download")
    assert video["path"] == deployment.xcom("example_luma_archive", run_id, "download")
    assert video["path"] == f"{where}{generation_id}.mp4"
    check(video, read)

    def emitted():
        runs = deployment.api("GET", "dags/example_luma_asset_scheduled/dagRuns")["dag_runs"]
        for run in runs:
            if run["state"] == "success":
                shown = deployment.xcom("example_luma_asset_scheduled", run["dag_run_id"], "show")
                yield from (one for one in shown if one["generation_id"] == generation_id)

    (event,) = deployment.wait_for(lambda: list(emitted()), 60)
    assert (event["uri"], event["size"], event["sha256"]) == (video["path"], video["size"], video["sha256"])


@both_stores
def test_an_image_that_a_task_has_stored_becomes_the_first_frame(store, deployment, sandbox, s3, tmp_path_factory):
    """Airflow shows where the image is, and not what is in it."""
    where, read = new_folder(store, s3, tmp_path_factory)
    run_id = deployment.run_to_end("example_luma_image_to_video", conf={"folder": where})
    image = deployment.xcom("example_luma_image_to_video", run_id, "paint")
    assert read(image).startswith(b"\x89PNG")
    generation_id = deployment.xcom("example_luma_image_to_video", run_id, "animate")
    (submitted,) = [one for one in sandbox.report()["generations"] if one["id"] == generation_id]
    assert submitted["body"]["image_url"].startswith("data:image/png;base64,")
    check(deployment.xcom("example_luma_image_to_video", run_id, "download", "download"), read)
    rendered = deployment.task_instance("example_luma_image_to_video", run_id, "animate")["rendered_fields"]
    assert rendered["image_url"] == image
    assert "base64" not in deployment.log("example_luma_image_to_video", run_id, "animate")


@both_stores
def test_each_product_of_the_catalogue_has_its_video(store, deployment, s3, tmp_path_factory):
    """The manifest says which video is whose."""
    where, read = new_folder(store, s3, tmp_path_factory)
    run_id = deployment.run_to_end("example_luma_catalogue", conf={"folder": where})
    manifest = json.loads(read(deployment.xcom("example_luma_catalogue", run_id, "manifest")))
    assert [one["sku"] for one in manifest] == ["B-1", "L-7", "T-3"]
    assert len({one["video"] for one in manifest}) == 3
    clips = [(FOLDER / f"{name}.mp4").read_bytes() for name in ("boat", "sunrise", "aurora")]
    assert [read(one["video"]) for one in manifest] == clips
    beside = deployment.xcom("example_luma_catalogue", run_id, "manifest").rpartition("/")[0]
    assert {one["video"].rpartition("/")[0] for one in manifest} == {beside}
    first = deployment.task_instance("example_luma_catalogue", run_id, "submit", 0)
    assert first["rendered_map_index"] == "A paper boat at a puddle, slow camera"
    assert first["rendered_fields"]["user_prompt"] == first["rendered_map_index"]


@both_stores
def test_a_killed_download_leaves_no_visible_file_and_its_retry_stores_the_video(
    store, deployment, another_sandbox, s3, tmp_path_factory
):
    where, read = new_folder(store, s3, tmp_path_factory)
    with another_sandbox() as (sandbox, connection_id):
        # Each download is cut twenty times, with a pause after each.
        sandbox.weather(cdn={"cut": 1})
        run_id = deployment.run("luma_download", conf={"folder": where, "luma_conn_id": connection_id})
        deployment.wait_for(lambda: sandbox.report()["downloads"] >= 3, 120)
        # Airflow 3.0 fails a task whose process alone is killed.
        deployment.kill_task("luma_download", run_id, "download", only_runner=Version("3.1") <= AIRFLOW)
        generation_id = deployment.xcom("luma_download", run_id, "submit")
        with pytest.raises((FileNotFoundError, ClientError)):
            read(f"{where}{generation_id}.mp4")
        if where.startswith("file://"):
            assert list(Path(where.removeprefix("file://")).glob("[!.]*")) == []
        sandbox.weather()
        assert deployment.wait("luma_download", run_id) == "success"
        assert deployment.task_instance("luma_download", run_id, "download")["try_number"] == 2
        check(deployment.xcom("luma_download", run_id, "download", "download"), read)
        if where.startswith("file://"):
            assert [path.name for path in Path(where.removeprefix("file://")).iterdir()] == [f"{generation_id}.mp4"]


@both_stores
def test_a_video_of_lumas_own_api_is_stored_from_a_url_of_its_own_as_the_known_one_expires(
    store, deployment, another_sandbox, s3, tmp_path_factory
):
    where, read = new_folder(store, s3, tmp_path_factory)
    with another_sandbox("agents", url_seconds=5) as (sandbox, connection_id):
        run_id = deployment.run_to_end("luma_download", conf={"folder": where, "luma_conn_id": connection_id})
        check(deployment.xcom("luma_download", run_id, "download", "download"), read)
        known = deployment.xcom("luma_download", run_id, "submit", "generation")["video_url"]
        assert known.startswith(f"{sandbox.url}/")
        assert known not in [f"{sandbox.url}{one.path}?{one.query}" for one in sandbox.requests]
        assert sandbox.report()["charged"] == 1


@pytest.mark.since("3.1")
@pytest.mark.parametrize("answer", ["Approve", "Reject"])
def test_only_what_a_person_approves_is_extended_and_stored(answer, deployment, sandbox, s3, tmp_path_factory):
    """What they reject costs nothing more."""
    where, read = new_folder("file", s3, tmp_path_factory)
    run_id = deployment.run("example_luma_approval", conf={"folder": where})
    task = f"dags/example_luma_approval/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    asked = deployment.wait_for(lambda: deployment.api("GET", task), 90)
    clip = deployment.xcom("example_luma_approval", run_id, "clip", "generation")
    assert clip["video_url"] in asked["body"]
    # As long as a person takes at least: Airflow 3.3.2 fails a task that is answered before its process has ended.
    time.sleep(5)
    deployment.api("PATCH", task, json={"chosen_options": [answer], "params_input": {}})
    assert deployment.wait("example_luma_approval", run_id) == "success"
    extended = [one for one in sandbox.report()["generations"] if one["parent"] == clip["id"]]
    if answer == "Approve":
        check(deployment.xcom("example_luma_approval", run_id, "download", "download"), read)
        assert len(extended) == 1
    else:
        assert extended == []
        assert deployment.task_instance("example_luma_approval", run_id, "download")["state"] == "skipped"


def test_openlineage_has_the_stored_image_as_input_and_the_stored_video_as_output(deployment, s3, tmp_path_factory):
    where, _ = new_folder("file", s3, tmp_path_factory)
    run_id = deployment.run_to_end("example_luma_image_to_video", conf={"folder": where})
    image = deployment.xcom("example_luma_image_to_video", run_id, "paint")
    stored = deployment.xcom("example_luma_image_to_video", run_id, "download")

    def complete():
        # What follows the last line's end is still being written.
        written = (deployment.home / "openlineage.log").read_text().rpartition("\n")[0]
        events = [json.loads(line) for line in written.splitlines()]
        return {
            event["job"]["name"].rpartition(".")[2]: event
            for event in events
            if event["eventType"] == "COMPLETE"
            and event["run"]["facets"].get("airflow", {}).get("dagRun", {}).get("run_id") == run_id
        }

    events = deployment.wait_for(lambda: (found := complete()).keys() >= {"animate", "download"} and found, 60)
    assert names(events["animate"]["inputs"]) == [("file", image.removeprefix("file://"))]
    assert names(events["download"]["outputs"]) == [("file", stored.removeprefix("file://"))]
    # OpenLineage's provider has no dataset for a web address, as that of the CDN is, which expires.
    assert names(events["download"]["inputs"]) == []


def names(datasets):
    return [(one["namespace"], one["name"]) for one in datasets]

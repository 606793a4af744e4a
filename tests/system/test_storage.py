"""Images from storage and videos to storage in a real Airflow, with a disk and with an object store."""

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
    """Return the URI of a new folder, on disk or in an object store, and a function that reads a file in it."""
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
    """Check that the stored video is complete and that its XCom describes it."""
    content = read(video["path"])
    assert content in [path.read_bytes() for path in FOLDER.glob("*.mp4")]
    assert video["size"] == len(content)
    assert video["sha256"] == hashlib.sha256(content).hexdigest()
    assert video["content_type"] == "video/mp4"


@both_stores
def test_stored_video_starts_dag(store, deployment, s3, tmp_path_factory):
    """A DAG that is scheduled by the asset gets the video's URI, size and checksum."""
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
                yield from (event for event in shown if event["generation_id"] == generation_id)

    (event,) = deployment.wait_for(lambda: list(emitted()), 60)
    assert (event["uri"], event["size"], event["sha256"]) == (video["path"], video["size"], video["sha256"])


@both_stores
def test_stored_image_becomes_first_frame(store, deployment, sandbox, s3, tmp_path_factory):
    """Airflow shows the path of the image, not its content."""
    where, read = new_folder(store, s3, tmp_path_factory)
    run_id = deployment.run_to_end("example_luma_image_to_video", conf={"folder": where})
    image = deployment.xcom("example_luma_image_to_video", run_id, "paint")
    assert read(image).startswith(b"\x89PNG")
    generation_id = deployment.xcom("example_luma_image_to_video", run_id, "generate")
    (submitted,) = [made for made in sandbox.report()["generations"] if made["id"] == generation_id]
    assert submitted["body"]["image_url"].startswith("data:image/png;base64,")
    check(deployment.xcom("example_luma_image_to_video", run_id, "download", "download"), read)
    rendered = deployment.task_instance("example_luma_image_to_video", run_id, "generate")["rendered_fields"]
    assert rendered["image_url"] == image
    assert "base64" not in deployment.log("example_luma_image_to_video", run_id, "generate")


@both_stores
def test_each_product_gets_video(store, deployment, s3, tmp_path_factory):
    """The manifest names the video of each product."""
    where, read = new_folder(store, s3, tmp_path_factory)
    run_id = deployment.run_to_end("example_luma_catalogue", conf={"folder": where})
    manifest = json.loads(read(deployment.xcom("example_luma_catalogue", run_id, "manifest")))
    assert [product["sku"] for product in manifest] == ["B-1", "L-7", "T-3"]
    assert len({product["video"] for product in manifest}) == 3
    clips = [(FOLDER / f"{name}.mp4").read_bytes() for name in ("boat", "sunrise", "aurora")]
    assert [read(product["video"]) for product in manifest] == clips
    beside = deployment.xcom("example_luma_catalogue", run_id, "manifest").rpartition("/")[0]
    assert {product["video"].rpartition("/")[0] for product in manifest} == {beside}
    first = deployment.task_instance("example_luma_catalogue", run_id, "submit", 0)
    assert first["rendered_map_index"] == "A paper boat at a puddle, slow camera"
    assert first["rendered_fields"]["user_prompt"] == first["rendered_map_index"]


@both_stores
def test_retry_stores_after_kill(store, deployment, another_sandbox, s3, tmp_path_factory):
    """A killed download leaves no visible file, and its retry stores the video."""
    where, read = new_folder(store, s3, tmp_path_factory)
    with another_sandbox() as (sandbox, connection_id):
        # Each download is cut twenty times, with a pause after each.
        sandbox.weather(cdn={"cut": 1})
        run_id = deployment.run("luma_download", conf={"folder": where, "luma_conn_id": connection_id})
        deployment.wait_for(lambda: sandbox.report()["downloads"] >= 3, 120)
        # Airflow 3.0 fails a task if only its process is killed.
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
def test_expired_url_is_replaced(store, deployment, another_sandbox, s3, tmp_path_factory):
    """The download gets a fresh URL from Luma's own API, whose URLs expire."""
    where, read = new_folder(store, s3, tmp_path_factory)
    with another_sandbox("agents", url_seconds=5) as (sandbox, connection_id):
        run_id = deployment.run_to_end("luma_download", conf={"folder": where, "luma_conn_id": connection_id})
        check(deployment.xcom("luma_download", run_id, "download", "download"), read)
        known = deployment.xcom("luma_download", run_id, "submit", "generation")["video_url"]
        assert known.startswith(f"{sandbox.url}/")
        assert known not in [f"{sandbox.url}{request.path}?{request.query}" for request in sandbox.requests]
        assert sandbox.report()["charged"] == 1


@pytest.mark.since("3.1")
@pytest.mark.parametrize("answer", ["Approve", "Reject"])
def test_person_approves_extension(answer, deployment, sandbox, s3, tmp_path_factory):
    """An approved clip is extended and stored; a rejected clip costs nothing more."""
    where, read = new_folder("file", s3, tmp_path_factory)
    run_id = deployment.run("example_luma_approval", conf={"folder": where})
    task = f"dags/example_luma_approval/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    asked = deployment.wait_for(lambda: deployment.api("GET", task), 90)
    clip = deployment.xcom("example_luma_approval", run_id, "generate", "generation")
    assert clip["video_url"] in asked["body"]
    # No person is faster: Airflow 3.3.2 fails a task if it is answered before its process has ended.
    time.sleep(5)
    deployment.api("PATCH", task, json={"chosen_options": [answer], "params_input": {}})
    assert deployment.wait("example_luma_approval", run_id) == "success"
    extended = [made for made in sandbox.report()["generations"] if made["parent"] == clip["id"]]
    if answer == "Approve":
        check(deployment.xcom("example_luma_approval", run_id, "download", "download"), read)
        assert len(extended) == 1
    else:
        assert extended == []
        assert deployment.task_instance("example_luma_approval", run_id, "download")["state"] == "skipped"


def test_openlineage_names_stored_files(deployment, s3, tmp_path_factory):
    """The stored image is an input, and the stored video is an output."""
    where, _ = new_folder("file", s3, tmp_path_factory)
    run_id = deployment.run_to_end("example_luma_image_to_video", conf={"folder": where})
    image = deployment.xcom("example_luma_image_to_video", run_id, "paint")
    stored = deployment.xcom("example_luma_image_to_video", run_id, "download")

    def complete():
        # A line without an end is still being written.
        written = (deployment.home / "openlineage.log").read_text().rpartition("\n")[0]
        events = [json.loads(line) for line in written.splitlines()]
        return {
            event["job"]["name"].rpartition(".")[2]: event
            for event in events
            if event["eventType"] == "COMPLETE"
            and event["run"]["facets"].get("airflow", {}).get("dagRun", {}).get("run_id") == run_id
        }

    events = deployment.wait_for(lambda: (found := complete()).keys() >= {"generate", "download"} and found, 60)
    assert names(events["generate"]["inputs"]) == [("file", image.removeprefix("file://"))]
    assert names(events["download"]["outputs"]) == [("file", stored.removeprefix("file://"))]
    # The CDN's URL expires, so it is not an input.
    assert names(events["download"]["inputs"]) == []


def names(datasets):
    return [(dataset["namespace"], dataset["name"]) for dataset in datasets]

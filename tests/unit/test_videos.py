"""The videos that the Luma tab shows, read from a database with Airflow's own tables."""

from __future__ import annotations

import json
import uuid

import pytest
from airflow.models.dagrun import DagRun

from airflow_provider_luma.ui import videos
from tests.support import runs
from tests.support.runs import DAG, DONE, NOON, REQUEST, RUN


@pytest.fixture(scope="module")
def engine():
    with runs.database() as engine:
        yield engine


@pytest.fixture
def run(engine):
    with runs.new_run(engine) as run:
        yield run


@pytest.mark.parametrize(
    ("state", "record", "shown"),
    [
        (None, None, "waiting"),
        ("queued", None, "waiting"),
        ("running", None, "waiting"),
        ("deferred", {"request": REQUEST}, "waiting"),
        ("running", {"request": REQUEST, "generation_id": "g1"}, "processing"),
        ("deferred", {"request": REQUEST, "generation_id": "g1"}, "processing"),
        ("success", {"request": REQUEST, "generation_id": "g1"}, "submitted"),
        ("success", {"request": REQUEST, "generation_id": "g1", "generation": DONE}, "completed"),
        ("success", None, "unknown"),
        ("queued", {"request": REQUEST, "generation_id": "g1", "generation": DONE}, "waiting"),
        ("up_for_retry", {"generation_id": "g1", "generation": {**DONE, "state": "failed"}}, "retrying"),
        ("up_for_retry", {"request": REQUEST, "problem": "The API is in trouble."}, "retrying"),
        ("failed", {"request": REQUEST, "problem": "The token is refused."}, "failed"),
        ("failed", {"generation_id": "g1", "generation": {**DONE, "state": "failed"}}, "failed"),
        ("failed", None, "failed"),
        ("upstream_failed", None, "skipped"),
        ("skipped", None, "skipped"),
    ],
)
def test_state_follows_task_and_record(run, state, record, shown):
    """The state of a video follows from the state and the record of its task."""
    run.task("make", state, record, map_index=0)
    run.task("make", "running", {"request": REQUEST, "generation_id": "another"}, map_index=1)
    assert run.videos[0]["state"] == shown
    assert run.of_task("make", 0)["video"]["state"] == shown


@pytest.mark.parametrize(
    ("waits", "record", "shown"),
    [
        ("deferred", {}, "processing"),
        ("up_for_retry", {}, "processing"),
        ("success", {"generation": DONE, "seen_at": "2026-11-23T06:01:04Z"}, "completed"),
        ("failed", {"problem": "The API does not know it."}, "failed"),
    ],
)
def test_submit_and_wait_are_one_video(run, waits, record, shown):
    """A task that submits and a task that waits for the same generation share one video."""
    submitted = {"request": REQUEST, "generation_id": "g1", "submitted_at": "2026-11-23T06:00:00+00:00"}
    run.task("submit", "success", submitted)
    run.task("wait", waits, {"generation_id": "g1", **record})
    (video,) = run.videos
    assert (video["state"], video["task_id"], video["prompt"]) == (shown, "submit", "A boat")
    assert video["took"] == (64 if shown == "completed" else None)
    assert run.of_task("submit") == run.of_task("wait") == {"live": True, "video": video}


def test_failed_download_keeps_video_completed(run):
    """The video of a failed download stays completed, and shows the problem and the other copies."""
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1", "generation": DONE})
    run.task("a", "success", {"generation_id": "g1", "stored": "s3://bucket/g1.mp4"})
    run.task("b", "failed", {"generation_id": "g1"})
    (video,) = run.videos
    assert video["state"] == "completed"
    assert video["stored"] == ["s3://bucket/g1.mp4"]
    assert video["problems"] == [{"task": "b", "text": ""}]
    assert (video["size"], video["length"]) == ("1280 × 720", "5 s")  # noqa: RUF001


def test_stored_video_is_completed(run):
    """A stored video is completed, even if no task waited for it."""
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1"})
    run.task("store", "success", {"generation_id": "g1", "stored": "s3://b/g1.mp4"})
    assert [video["state"] for video in run.videos] == ["completed"]


def test_half_surrogate_becomes_question_mark(run):
    """Half a surrogate pair in a prompt is shown as a question mark."""
    run.task("make", "running", {"request": {"user_prompt": "a \ud83d boat"}, "generation_id": "g1"})
    assert run.videos[0]["prompt"].encode() == b"a ? boat"


def test_mapped_tasks_have_own_videos(run):
    """Each instance of a mapped task has a video, also before it begins."""
    for index in range(3):
        record = {"request": REQUEST, "generation_id": f"g1{index}", "generation": {**DONE, "id": f"g1{index}"}}
        run.task("make", "success", record, map_index=index)
    run.task("make", None, map_index=3)
    assert [video["name"] for video in run.videos] == ["make [0]", "make [1]", "make [2]", "make [3]"]
    assert run.of_task("make", 1)["video"]["generation_id"] == "g11"


def test_wildcard_in_id_matches_itself(run):
    """An id with a wildcard of SQL does not match other ids."""
    for index, generation_id in enumerate(["g%", "gx"]):
        run.task("make", "success", {"request": REQUEST, "generation_id": generation_id}, map_index=index)
    assert run.of_task("make", 0)["video"]["name"] == "make [0]"


def test_no_record_means_no_video(run):
    """A task without a record has no video; an unknown task or run has no answer."""
    run.task("other", "success")
    assert run.videos == []
    assert run.of_task("other") == {"live": True, "video": None}
    assert run.of_task("nowhere") is None
    assert videos.of_run(run.session, DAG, "nowhere", 10) is None


def test_limit_cuts_list_not_count(run):
    """The answer has at most ``limit`` videos, and counts all of them."""
    for index in range(5):
        run.task("make", "running", {"request": REQUEST}, map_index=index)
    found = videos.of_run(run.session, DAG, RUN, 2)
    assert (len(found["videos"]), found["total"], found["states"]) == (2, 5, {"waiting": 5})


def test_list_cuts_long_prompts(run):
    """A long prompt is cut in the list of a run, and complete in the tab of its task."""
    run.task("make", "running", {"request": {"user_prompt": "x" * 5000}, "generation_id": "g1"})
    assert len(run.videos[0]["prompt"]) == videos.PROMPT_AMONG_MANY
    assert len(run.of_task("make")["video"]["prompt"]) == 5000


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        "text",
        7,
        {"generation": []},
        {"generation": {"state": {}, "duration": [], "width": {}}, "request": 3, "generation_id": {"a": 1}},
        {"generation_id": ["g1"], "submitted_at": 5, "seen_at": {}, "stored": 1, "problem": []},
    ],
)
def test_unreadable_record_hides_no_other(run, record):
    """A record that is not readable does not hide other videos."""
    run.task("garbage", "success", record)
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1", "generation": DONE})
    assert "g1" in [video["generation_id"] for video in run.videos]
    json.dumps(run.of_task("garbage"))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//cdn", 7, None])
def test_only_http_urls_pass(run, url):
    """URLs of other schemes than http(s) do not reach the browser."""
    generation = {**DONE, "video_url": url, "thumbnail_url": url}
    request = {**REQUEST, "image_url": url, "image_end_url": "https://images/end.png"}
    run.task("make", "success", {"request": request, "generation_id": "g1", "generation": generation})
    (video,) = run.videos
    assert (video["video_url"], video["poster_url"]) == (None, None)
    assert [one["url"] for one in video["images"] if one["is"] == "image_url"] == ([] if url is None else [None])
    assert video["images"][-1]["url"] == "https://images/end.png"


@pytest.mark.parametrize(
    ("state", "shown"), [("up_for_retry", "g1"), (None, "g1"), ("queued", "g1"), ("running", ""), ("failed", "")]
)
@pytest.mark.since("3.4")
def test_last_record_until_next_try(run, state, shown):
    """The record of the last try is shown until the next try begins (on Airflow 3.4, each try has its own XComs)."""
    for number, generation_id in enumerate(["g0", "g1"], 1):
        record = {"request": REQUEST, "generation_id": generation_id}
        run.task("make", "failed", record, map_index=0, try_number=number, working_set=None)
    run.task("make", state, map_index=0, try_number=3)
    run.task("make", "success", {"request": REQUEST, "generation_id": "another"}, map_index=1)
    assert [video["generation_id"] for video in run.videos] == [shown, "another"]
    assert run.of_task("make", 0)["video"]["generation_id"] == shown


@pytest.mark.since("3.4")
class TestLoop:
    """Loops, which Airflow 3.4 adds."""

    def test_iterations_have_own_videos(self, run):
        """Each iteration has a video; the tab of a task shows the last, unless its region is given."""
        loop = run.region("refine")
        for index in range(3):
            record = {"request": REQUEST, "generation_id": f"g{index}"}
            run.task("make", "success", record, map_index=index, region_id=loop)
        assert [video["name"] for video in run.videos] == [f"make, iteration {index}" for index in range(3)]
        for index, video in enumerate(run.videos):
            assert video["map_index"] == -1
            assert video["region"] == {"region_id": str(loop), "region_index": str(index)}
            assert run.of_task("make", region=(loop, index))["video"] == video
        assert run.of_task("make")["video"]["generation_id"] == "g2"
        assert run.of_task("make", region=(uuid.uuid4(), 0)) is None

    def test_iterations_without_record_stay_apart(self, run):
        """Iterations that have no record yet are separate videos."""
        loop = run.region("refine")
        run.task("make", "success", {"request": REQUEST, "generation_id": "g0"}, map_index=0, region_id=loop)
        for index in (1, 2):
            run.task("make", "queued", map_index=index, region_id=loop)
        assert [video["state"] for video in run.videos] == ["submitted", "waiting", "waiting"]

    def test_mapped_tasks_inside_loop(self, run):
        """Each mapped task of each iteration has its own video."""
        loop = run.region("refine")
        for iteration in range(2):
            own = run.region("make", parent_region_id=loop, parent_region_index=iteration)
            for index in range(2):
                record = {"request": REQUEST, "generation_id": f"g{iteration}{index}"}
                run.task("make", "success", record, map_index=index, region_id=own)
        names = [f"make [{index}], iteration {iteration}" for iteration in range(2) for index in range(2)]
        assert [video["name"] for video in run.videos] == names
        assert run.of_task("make", 1)["video"]["generation_id"] == "g11"

    def test_mapped_tasks_outside_loop(self, run):
        """A mapped task outside a loop is found by its map index."""
        own = run.region("make")
        for index in range(2):
            record = {"request": REQUEST, "generation_id": f"g{index}"}
            run.task("make", "success", record, map_index=index, region_id=own)
        assert [video["name"] for video in run.videos] == ["make [0]", "make [1]"]
        assert run.of_task("make", 0)["video"]["generation_id"] == "g0"


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_newest_url_wins(run, newest):
    """If several tasks saw the video, the URL that the last task saw is shown, because it expires last."""
    for index in range(3):
        seen_at = f"2026-11-23T0{8 if index == newest else 6}:00:00Z"
        generation = {**DONE, "video_url": f"https://cdn/{index}"}
        run.task(f"wait_{index}", "success", {"generation_id": "g1", "generation": generation, "seen_at": seen_at})
    assert run.videos[0]["video_url"] == f"https://cdn/{newest}"


@pytest.mark.parametrize("first_to_see", [0, 1])
def test_took_until_first_seen_completed(run, first_to_see):
    """A video took from its submission until the first task saw it completed."""
    submitted = {"request": REQUEST, "generation_id": "g1", "submitted_at": "2026-11-23T06:00:00Z"}
    run.task("submit", "success", submitted)
    for index in range(2):
        seen_at = f"2026-11-23T06:0{2 if index == first_to_see else 5}:00Z"
        run.task(f"wait_{index}", "success", {"generation_id": "g1", "generation": DONE, "seen_at": seen_at})
    assert run.videos[0]["took"] == 120


def test_other_runs_are_not_shown(run):
    """Records of another run or another DAG do not appear."""
    run.task("make", "running", {"request": REQUEST, "generation_id": "g1"})
    done = {"generation_id": "g1", "generation": DONE, "stored": "s3://bucket/g1.mp4"}
    for number, (dag, run_id) in enumerate([(DAG, "scheduled__2026-11-24"), ("other_dag", RUN)], start=2):
        run.insert(DagRun, id=number, dag_id=dag, run_id=run_id, state="running", run_type="manual", run_after=NOON)
        for task_id in ("make", "wait"):
            run.task(task_id, "success", done, run=(number, dag, run_id))
    (video,) = run.videos
    assert (video["state"], video["stored"]) == ("processing", [])
    assert run.of_task("make") == {"live": True, "video": video}
    assert run.of_task("wait") is None

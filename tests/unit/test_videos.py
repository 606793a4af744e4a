"""What the Luma tab makes of the task instances and records of a run, in Airflow's own tables."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone

import pytest
import sqlalchemy
from airflow import models
from airflow.models import xcom
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from sqlalchemy.orm import Session

from airflow_provider_luma.ui import videos

DAG, RUN = "a_dag", "manual__2026-11-23T06:00:00+00:00"
DONE = {
    "id": "g1",
    "state": "completed",
    "video_url": "https://cdn/v.mp4",
    "thumbnail_url": "https://cdn/t.jpg",
    "width": 1280,
    "height": 720,
    "duration": 5.0,
}
NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
SINCE_3_4 = hasattr(TaskInstance, "region_id")
REQUEST = {"user_prompt": "A boat", "model_name": "ray-v2"}


class Run:
    """A DAG run in a database of its own."""

    def __init__(self, session):
        self.session = session
        self.insert(DagRun, id=1, dag_id=DAG, run_id=RUN, state="running", run_type="manual", run_after=NOON)

    def insert(self, model, **values):
        # A row has dozens of columns that do not matter here, and that differ between versions.
        for column in model.__table__.columns:
            if not column.nullable and column.default is None and column.server_default is None:
                kind = column.type.python_type
                values.setdefault(column.name, {datetime: NOON, uuid.UUID: uuid.uuid4()}.get(kind) or kind())
        self.session.execute(model.__table__.insert().values(**values))

    def task(self, task_id, state, record=None, *, map_index=-1, run=(1, DAG, RUN), **more):
        instance = TaskInstance.id.default.arg(None)  # Airflow 3.0 has other ids
        dag_run_id, dag_id, run_id = run
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
        index = {"region_index" if SINCE_3_4 else "map_index": map_index}
        self.insert(TaskInstance, **key, **index, id=instance, state=state, **more)
        if record is None:
            return
        if SINCE_3_4:
            self.insert(xcom.XComModelV2, id=uuid.uuid4(), task_instance_id=instance, key="luma", value=record)
        else:
            self.insert(xcom.XComModel, **key, map_index=map_index, dag_run_id=dag_run_id, key="luma", value=record)

    def region(self, node_id, **more):
        """Make what Airflow 3.4 calls a region, the expansion of a mapped task or of a loop, and return its id."""
        from airflow.models.dynamic_region import DynamicRegion

        region_id = uuid.uuid4()
        key = {"dag_id": DAG, "run_id": RUN, "node_id": node_id}
        self.insert(DynamicRegion, **key, id=region_id, family_root_id=region_id, **more)
        return region_id

    @property
    def videos(self):
        return videos.of_run(self.session, DAG, RUN, videos.LIMIT)["videos"]

    def of_task(self, task_id, map_index=-1, region=None):
        return videos.of_task(self.session, DAG, RUN, task_id, map_index, region)


@pytest.fixture(scope="module")
def engine():
    models.import_all_models()
    engine = sqlalchemy.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def run(engine):
    with engine.connect() as connection, Session(connection) as session:
        yield Run(session)


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
        ("up_for_retry", {"request": REQUEST, "problem": "The gateway is in trouble."}, "retrying"),
        ("failed", {"request": REQUEST, "problem": "The token is refused."}, "failed"),
        ("failed", {"generation_id": "g1", "generation": {**DONE, "state": "failed"}}, "failed"),
        ("failed", None, "failed"),
        ("upstream_failed", None, "skipped"),
        ("skipped", None, "skipped"),
    ],
)
def test_a_videos_state_follows_from_its_tasks_state_and_record(run, state, record, shown):
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
        ("failed", {"problem": "The gateway does not know it."}, "failed"),
    ],
)
def test_what_one_task_submits_and_another_waits_for_is_one_video(run, waits, record, shown):
    submitted = {"request": REQUEST, "generation_id": "g1", "submitted_at": "2026-11-23T06:00:00+00:00"}
    run.task("submit", "success", submitted)
    run.task("wait", waits, {"generation_id": "g1", **record})
    (video,) = run.videos
    assert (video["state"], video["task_id"], video["prompt"]) == (shown, "submit", "A boat")
    assert video["took"] == (64 if shown == "completed" else None)
    assert run.of_task("submit") == run.of_task("wait") == {"live": True, "video": video}


def test_a_video_shows_where_it_is_stored_and_a_failed_store_is_no_failed_video(run):
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1", "generation": DONE})
    run.task("a", "success", {"generation_id": "g1", "stored": "s3://bucket/g1.mp4"})
    run.task("b", "failed", {"generation_id": "g1"})
    (video,) = run.videos
    assert video["state"] == "completed"
    assert video["stored"] == ["s3://bucket/g1.mp4"]
    assert video["problems"] == [{"task": "b", "text": ""}]
    assert (video["size"], video["length"]) == ("1280 × 720", "5 s")  # noqa: RUF001


def test_a_stored_video_is_completed_though_no_task_waited_for_it(run):
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1"})
    run.task("store", "success", {"generation_id": "g1", "stored": "s3://b/g1.mp4"})
    assert [video["state"] for video in run.videos] == ["completed"]


def test_half_a_surrogate_pair_in_a_prompt_is_shown_as_a_question_mark(run):
    run.task("make", "running", {"request": {"user_prompt": "a \ud83d boat"}, "generation_id": "g1"})
    assert run.videos[0]["prompt"].encode() == b"a ? boat"


def test_mapped_tasks_have_a_video_each(run):
    for index in range(3):
        record = {"request": REQUEST, "generation_id": f"g1{index}", "generation": {**DONE, "id": f"g1{index}"}}
        run.task("make", "success", record, map_index=index)
    run.task("make", None, map_index=3)
    assert [video["name"] for video in run.videos] == ["make [0]", "make [1]", "make [2]", "make [3]"]
    assert run.of_task("make", 1)["video"]["generation_id"] == "g11"


def test_an_id_with_a_database_wildcard_is_one_id(run):
    for index, generation_id in enumerate(["g%", "gx"]):
        run.task("make", "success", {"request": REQUEST, "generation_id": generation_id}, map_index=index)
    assert run.of_task("make", 0)["video"]["name"] == "make [0]"


def test_a_task_without_a_record_has_no_video_and_an_unknown_task_or_run_is_none(run):
    run.task("other", "success")
    assert run.videos == []
    assert run.of_task("other") == {"live": True, "video": None}
    assert run.of_task("nowhere") is None
    assert videos.of_run(run.session, DAG, "nowhere", 10) is None


def test_no_more_videos_than_the_limit_are_given_and_all_are_counted(run):
    for index in range(5):
        run.task("make", "running", {"request": REQUEST}, map_index=index)
    found = videos.of_run(run.session, DAG, RUN, 2)
    assert (len(found["videos"]), found["total"], found["states"]) == (2, 5, {"waiting": 5})


def test_a_long_prompt_is_cut_in_the_list_and_whole_in_its_tasks_tab(run):
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
def test_an_unreadable_record_does_not_hide_other_videos(run, record):
    run.task("garbage", "success", record)
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1", "generation": DONE})
    assert "g1" in [video["generation_id"] for video in run.videos]
    json.dumps(run.of_task("garbage"))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//cdn", 7, None])
def test_only_http_urls_reach_the_browser(run, url):
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
def test_the_last_trys_record_is_shown_until_the_next_try_begins(run, state, shown):
    """On Airflow 3.4 each try has its own XComs."""
    for number, generation_id in enumerate(["g0", "g1"], 1):
        record = {"request": REQUEST, "generation_id": generation_id}
        run.task("make", "failed", record, map_index=0, try_number=number, working_set=None)
    run.task("make", state, map_index=0, try_number=3)
    run.task("make", "success", {"request": REQUEST, "generation_id": "another"}, map_index=1)
    assert [video["generation_id"] for video in run.videos] == [shown, "another"]
    assert run.of_task("make", 0)["video"]["generation_id"] == shown


@pytest.mark.since("3.4")
class TestLoop:
    def test_each_iteration_has_a_video_of_its_own_and_a_tasks_tab_shows_the_last(self, run):
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

    def test_iterations_without_a_record_are_kept_apart(self, run):
        loop = run.region("refine")
        run.task("make", "success", {"request": REQUEST, "generation_id": "g0"}, map_index=0, region_id=loop)
        for index in (1, 2):
            run.task("make", "queued", map_index=index, region_id=loop)
        assert [video["state"] for video in run.videos] == ["submitted", "waiting", "waiting"]

    def test_each_mapped_task_of_each_iteration_has_a_video_of_its_own(self, run):
        loop = run.region("refine")
        for iteration in range(2):
            own = run.region("make", parent_region_id=loop, parent_region_index=iteration)
            for index in range(2):
                record = {"request": REQUEST, "generation_id": f"g{iteration}{index}"}
                run.task("make", "success", record, map_index=index, region_id=own)
        names = [f"make [{index}], iteration {iteration}" for iteration in range(2) for index in range(2)]
        assert [video["name"] for video in run.videos] == names
        assert run.of_task("make", 1)["video"]["generation_id"] == "g11"

    def test_a_mapped_task_outside_a_loop_is_found_by_its_map_index(self, run):
        own = run.region("make")
        for index in range(2):
            record = {"request": REQUEST, "generation_id": f"g{index}"}
            run.task("make", "success", record, map_index=index, region_id=own)
        assert [video["name"] for video in run.videos] == ["make [0]", "make [1]"]
        assert run.of_task("make", 0)["video"]["generation_id"] == "g0"


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_of_several_tasks_the_one_that_saw_the_video_last_has_the_url_that_still_works(run, newest):
    for index in range(3):
        seen_at = f"2026-11-23T0{8 if index == newest else 6}:00:00Z"
        generation = {**DONE, "video_url": f"https://cdn/{index}"}
        run.task(f"wait_{index}", "success", {"generation_id": "g1", "generation": generation, "seen_at": seen_at})
    assert run.videos[0]["video_url"] == f"https://cdn/{newest}"


@pytest.mark.parametrize("first_to_see", [0, 1])
def test_a_video_took_until_the_first_task_saw_it_completed(run, first_to_see):
    submitted = {"request": REQUEST, "generation_id": "g1", "submitted_at": "2026-11-23T06:00:00Z"}
    run.task("submit", "success", submitted)
    for index in range(2):
        seen_at = f"2026-11-23T06:0{2 if index == first_to_see else 5}:00Z"
        run.task(f"wait_{index}", "success", {"generation_id": "g1", "generation": DONE, "seen_at": seen_at})
    assert run.videos[0]["took"] == 120


def test_records_of_another_run_or_dag_are_not_shown(run):
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

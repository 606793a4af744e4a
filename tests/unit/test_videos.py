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
        instance = uuid.uuid4()
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
def test_state(run, state, record, shown):
    """The state of a video is what its task's state and record say together, also before it has recorded anything."""
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
def test_another_waits(run, waits, record, shown):
    """What one task submits and another waits for is one video, and each of the two has all of it."""
    submitted = {"request": REQUEST, "generation_id": "g1", "submitted_at": "2026-11-23T06:00:00+00:00"}
    run.task("submit", "success", submitted)
    run.task("wait", waits, {"generation_id": "g1", **record})
    (video,) = run.videos
    assert (video["state"], video["task_id"], video["prompt"]) == (shown, "submit", "A boat")
    assert video["took"] == (64 if shown == "completed" else None)
    assert run.of_task("submit") == run.of_task("wait") == {"live": True, "video": video}


def test_stored(run):
    """Where it is stored is part of it; that storing failed does not make it a failed video."""
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1", "generation": DONE})
    run.task("a", "success", {"generation_id": "g1", "stored": "s3://bucket/g1.mp4"})
    run.task("b", "failed", {"generation_id": "g1"})
    (video,) = run.videos
    assert video["state"] == "completed"
    assert video["stored"] == ["s3://bucket/g1.mp4"]
    assert video["problems"] == [{"task": "b", "text": ""}]
    assert (video["size"], video["length"]) == ("1280 × 720", "5 s")  # noqa: RUF001


def test_only_downloaded(run):
    """A video that is stored is completed, even where nobody has waited for it."""
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1"})
    run.task("store", "success", {"generation_id": "g1", "stored": "s3://b/g1.mp4"})
    assert [video["state"] for video in run.videos] == ["completed"]


def test_latest_url(run):
    """Of two that have seen the video, the one that saw it last has the URL that still works."""
    for index, when in enumerate(["2026-11-23T08:00:00Z", "2026-11-23T06:00:00Z"]):
        record = {"generation_id": "g1", "generation": {**DONE, "video_url": f"https://cdn/{index}"}, "seen_at": when}
        run.task(f"wait_{index}", "success", record)
    assert run.videos[0]["video_url"] == "https://cdn/0"


def test_half_a_character(run):
    """Half a character, which JSON can hold, spoils nothing."""
    run.task("make", "running", {"request": {"user_prompt": "a \ud83d boat"}, "generation_id": "g1"})
    assert run.videos[0]["prompt"].encode() == b"a ? boat"


def test_mapped(run):
    """Mapped tasks have a video each, and keep apart what only looks alike."""
    for index in range(3):
        record = {"request": REQUEST, "generation_id": f"g1{index}", "generation": {**DONE, "id": f"g1{index}"}}
        run.task("make", "success", record, map_index=index)
    run.task("make", None, map_index=3)
    assert [video["name"] for video in run.videos] == ["make [0]", "make [1]", "make [2]", "make [3]"]
    assert run.of_task("make", 1)["video"]["generation_id"] == "g11"


def test_wildcards(run):
    """An id that a database would take for a pattern is one id."""
    for index, generation_id in enumerate(["g%", "gx"]):
        run.task("make", "success", {"request": REQUEST, "generation_id": generation_id}, map_index=index)
    assert run.of_task("make", 0)["video"]["name"] == "make [0]"


def test_others(run):
    """A task that is not Luma's has none; one that is not there is not there."""
    run.task("other", "success")
    assert run.videos == []
    assert run.of_task("other") == {"live": True, "video": None}
    assert run.of_task("nowhere") is None
    assert videos.of_run(run.session, DAG, "nowhere", 10) is None


def test_limit(run):
    """No more are given than asked for, and how many there are is said."""
    for index in range(5):
        run.task("make", "running", {"request": REQUEST}, map_index=index)
    found = videos.of_run(run.session, DAG, RUN, 2)
    assert (len(found["videos"]), found["total"], found["states"]) == (2, 5, {"waiting": 5})


def test_long_prompt(run):
    """Among many, a prompt is cut."""
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
def test_garbage(run, record):
    """Whatever somebody has pushed under that key, the others are shown."""
    run.task("garbage", "success", record)
    run.task("make", "success", {"request": REQUEST, "generation_id": "g1", "generation": DONE})
    assert "g1" in [video["generation_id"] for video in run.videos]
    json.dumps(run.of_task("garbage"))


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//cdn", 7, None])
def test_only_web_addresses(run, url):
    """No URL but http(s) leaves for the browser as one."""
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
@pytest.mark.skipif(not SINCE_3_4, reason="one row a task before Airflow 3.4")
def test_next_try(run, state, shown):
    """Until the next try begins the last one's record is shown, though on Airflow 3.4 each has its own XComs."""
    for number, generation_id in enumerate(["g0", "g1"], 1):
        record = {"request": REQUEST, "generation_id": generation_id}
        run.task("make", "failed", record, map_index=0, try_number=number, working_set=None)
    run.task("make", state, map_index=0, try_number=3)
    run.task("make", "success", {"request": REQUEST, "generation_id": "another"}, map_index=1)
    assert [video["generation_id"] for video in run.videos] == [shown, "another"]
    assert run.of_task("make", 0)["video"]["generation_id"] == shown


@pytest.mark.skipif(not SINCE_3_4, reason="Airflow before 3.4 has no loops")
class TestLoop:
    def test_iterations(self, run):
        """Each iteration of a loop has its own video; without being told which, a task's tab has the last one's."""
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

    def test_not_begun(self, run):
        """Iterations that have not recorded anything are told apart, too."""
        loop = run.region("refine")
        run.task("make", "success", {"request": REQUEST, "generation_id": "g0"}, map_index=0, region_id=loop)
        for index in (1, 2):
            run.task("make", "queued", map_index=index, region_id=loop)
        assert [video["state"] for video in run.videos] == ["submitted", "waiting", "waiting"]

    def test_mapped(self, run):
        """So has each mapped task in each iteration."""
        loop = run.region("refine")
        for iteration in range(2):
            own = run.region("make", parent_region_id=loop, parent_region_index=iteration)
            for index in range(2):
                record = {"request": REQUEST, "generation_id": f"g{iteration}{index}"}
                run.task("make", "success", record, map_index=index, region_id=own)
        names = [f"make [{index}], iteration {iteration}" for iteration in range(2) for index in range(2)]
        assert [video["name"] for video in run.videos] == names
        assert run.of_task("make", 1)["video"]["generation_id"] == "g11"

    def test_outside(self, run):
        """A mapped task outside any loop is one of a region, and is addressed by its map index."""
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

"""Records are untrusted: a record that is not valid has a tile that says so, and the others show their videos."""

from __future__ import annotations

import json

import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import runs
from tests.support.runs import DONE, REQUEST

GOOD = {"request": REQUEST, "generation_id": "good", "generation": DONE}
HALF = "half \ud83d a surrogate pair"
FIELDS = {
    "request": ("user_prompt", "model_name", "resolution", "aspect_ratio", "duration", "image_url", "image_end_url"),
    "generation": ("state", "video_url", "thumbnail_url", "width", "height", "duration", "failure_reason"),
    "": ("generation_id", "submitted_at", "seen_at", "stored", "problem", "request", "generation"),
}


@pytest.fixture(scope="module")
def engine():
    with runs.database() as engine:
        yield engine


@pytest.fixture
def run(engine):
    with runs.new_run(engine) as run:
        run.task("good", "success", GOOD)
        yield run


def show(run, record, *, state="success"):
    """Return the video of a task with this record, after a check that the tab of the run shows the other video."""
    run.task("odd", state, record)
    tiles = run.answer("videos.json")["videos"]
    (good,) = [video for video in tiles if video["task_id"] == "good"]
    assert good["video_url"] == DONE["video_url"]
    odd = run.answer("tasks/odd/-1/video.json")["video"]
    assert [odd] == [video for video in tiles if video["task_id"] == "odd"]
    return odd


def with_field(group, name, value):
    """Return a record with this value in a field."""
    return {**GOOD, "generation_id": "odd", **({group: {**GOOD[group], name: value}} if group else {name: value})}


@pytest.mark.parametrize("generation_id", ['a "quoted" id', "back\\slash", "d'été", "東京", "100%", 4711, "\u0000"])
def test_any_id_is_found(run, generation_id):
    """A task is found by any generation id: with quotes, backslashes, accents or digits only."""
    video = show(run, {"request": REQUEST, "generation_id": generation_id})
    assert (video["generation_id"], video["prompt"]) == (str(generation_id), "A boat")


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in FIELDS.items() for name in names])
def test_half_surrogates_break_nothing(run, group, name):
    """Half a surrogate pair in any field of a record does not hide other videos."""
    video = show(run, with_field(group, name, HALF))
    assert video["problems"] or json.dumps(video).isascii()


@pytest.mark.parametrize("duration", [10**400, -(10**400), float("inf"), float("nan"), 1e308, "5" * 5000])
@pytest.mark.parametrize("group", ["request", "generation"])
def test_huge_durations_break_nothing(run, group, duration):
    """A duration of any size does not hide other videos."""
    assert show(run, with_field(group, "duration", duration))["generation_id"] in ("odd", "")


@pytest.mark.parametrize("stored_as", ["text", "JSON"])
@pytest.mark.parametrize("opening", ["[", '{"generation":'])
def test_deep_json_has_own_tile(run, stored_as, opening):
    """JSON that is too deep to be read has a tile that says so."""
    depth = 100_000
    deep = opening * depth + "1" + {"[": "]", '{"generation":': "}"}[opening] * depth
    value = deep if stored_as == "text" else sqlalchemy.literal(deep, sqlalchemy.String())
    assert "not valid JSON" in show(run, value)["problems"][0]["text"]


@pytest.mark.parametrize("name", [name for name in FIELDS[""] if name != "problem"])
def test_bad_field_is_named(run, name):
    """If a field of a record is not valid, its tile names the field."""
    video = show(run, {**GOOD, "generation_id": "odd", name: ["a list"]})
    assert (video["state"], video["generation_id"], video["video_url"]) == ("unknown", "", None)
    (problem,) = video["problems"]
    assert problem["task"] == "odd"
    assert f"field {name} is not valid" in problem["text"]


@pytest.mark.parametrize("record", [[], 7, False, ["text"], "[]", "7"], ids=repr)
def test_record_must_be_object(run, record):
    """A record that is not an object has a tile that says so."""
    assert "not an object" in show(run, record)["problems"][0]["text"]


@pytest.mark.parametrize("path", ["s3://aws_default@bucket/xcom/a_dag/a_run/odd/5ca1ab1e.json", "text"])
def test_record_outside_database(run, path):
    """If an XCom backend keeps the record elsewhere, the tile says how to keep it in the database."""
    (problem,) = show(run, path)["problems"]
    assert "[common.io] xcom_objectstorage_threshold = 65536" in problem["text"]


def test_long_texts_are_cut(run):
    """Texts of a record are cut, so that a record cannot make the answer huge."""
    video = show(run, {**GOOD, "generation_id": "odd", "problem": "x" * 10**6, "stored": "y" * 10**6})
    assert len(json.dumps(video)) < 20_000


def test_record_gone_meanwhile(run, monkeypatch):
    """If the record changes while the tab reads it, the tab shows the first version."""
    from airflow_provider_luma.ui import videos

    found = iter([videos.find_tasks(run.session, runs.DAG, runs.RUN), []])
    monkeypatch.setattr(videos, "find_tasks", lambda *_: next(found))
    assert run.of_task("good")["video"]["video_url"] == DONE["video_url"]


texts = st.text(st.characters(exclude_categories=())) | st.sampled_from([HALF, 'a "quoted" id', "back\\slash", "2026"])
numbers = st.integers() | st.floats() | st.sampled_from([10**400, 1e308])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
records = anything | st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FIELDS[""], anything),
        **{
            group: anything | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS[group], anything))
            for group in ("request", "generation")
        },
    },
)


@settings(max_examples=30)
@given(st.lists(records, max_size=10))
def test_random_records_break_nothing(engine, found):
    """Whatever the records of a run contain, the tab answers and shows the video of the good record."""
    with runs.new_run(engine) as run:
        run.task("good", "success", GOOD)
        for index, record in enumerate(found):
            run.task("odd", "success", json.dumps(record) if index % 2 else record, map_index=index)
            run.answer(f"tasks/odd/{index}/video.json")
        shown = {video["task_id"]: video for video in run.answer("videos.json")["videos"]}
        assert shown["good"]["video_url"] == DONE["video_url"]

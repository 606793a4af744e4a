"""A generation, parsed from every shape that the gateway documents."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.api import Generation, GenerationState, LumaError, LumaGenerationFailed, LumaServerError
from airflow_provider_luma.api.dialects import Answer
from airflow_provider_luma.api.dialects.gateway import parse_generation, parse_generations, read_answer

FIXTURES = Path(__file__).parent.parent / "fixtures"
BOAT = "7c2f4b90-3d1e-4a55-9b0c-5f8e21d6a713"
CREATED = pendulum.datetime(2026, 1, 15, 9, 30, 0, 123456)


def answered(fixture: str):
    return read_answer(Answer(200, (FIXTURES / f"{fixture}.json").read_bytes(), {}), "Polling")


def parsed(fixture: str) -> Generation:
    return parse_generation(answered(fixture), "Polling")


@pytest.mark.parametrize("shape", ["flat", "envelope", "bare"])
def test_each_documented_answer_to_a_submission_is_the_same_new_generation(shape):
    generation = parsed(f"submit_{shape}")
    assert generation.id == BOAT
    assert generation.state is GenerationState.PENDING
    assert generation.video_url is None


@pytest.mark.parametrize(
    ("fixture", "state"),
    [
        ("get_pending", "pending"),
        ("get_processing", "processing"),
        ("get_dreaming", "processing"),
        ("get_completed", "completed"),
        ("get_completed_artifact_only", "completed"),
        ("get_completed_without_video", "completed"),
        ("get_failed", "failed"),
        ("get_unknown_state", "unknown"),
    ],
)
def test_every_word_for_a_state_is_one_of_five_states_and_only_two_are_an_end(fixture, state):
    generation = parsed(fixture)
    assert generation.state.value == state
    assert generation.state.terminal is (state in ("completed", "failed"))


@pytest.mark.parametrize("word", ["pending", "queued", "not_start", "NOT_START", "submitted"])
def test_every_word_for_waiting_in_a_queue_is_pending(word):
    assert parse_generation({"id": "x", "state": word}, "Polling").state is GenerationState.PENDING


@pytest.mark.parametrize("code", ["success", "SUCCESS", "0", 0, "200", 200])
def test_a_generation_may_be_in_an_envelope_with_any_code_for_success(code):
    content = json.dumps({"code": code, "message": "ok", "data": {"id": "x", "state": "pending"}}).encode()
    assert parse_generation(read_answer(Answer(200, content, {}), "Polling"), "Polling").id == "x"


def test_a_completed_generation_has_its_urls_size_length_and_time():
    generation = parsed("get_completed")
    assert generation.video_url == "https://media.example.net/g/7c2f/video.mp4"
    assert generation.download_url == "https://media.example.net/g/7c2f/video_clean.mp4"
    assert generation.thumbnail_url == "https://img.example.net/7c2f/public"
    assert generation.last_frame_url == "https://media.example.net/g/7c2f/last.jpg"
    assert (generation.width, generation.height, generation.duration) == (1360, 752, 5.041667)
    assert generation.created_at == CREATED
    assert generation.raw["request"]["prompt"] == "a paper boat crosses a puddle"


def test_what_is_missing_at_the_top_is_read_from_the_artifact():
    generation = parsed("get_completed_artifact_only")
    assert generation.video_url == "https://media.example.net/g/7c2f/video.mp4"
    assert (generation.width, generation.height) == (1360, 752)


def test_a_completed_generation_may_have_no_video():
    generation = parsed("get_completed_without_video")
    assert generation.video_url is generation.download_url is generation.width is None


def test_a_failed_generation_has_its_reason_and_whether_moderation_refused_it():
    generation = parsed("get_failed")
    assert generation.failure_reason == "Advanced prompt moderation failed"
    error = LumaGenerationFailed(generation)
    assert error.moderated
    assert not error.retry_may_help
    assert generation.id in str(error)
    assert LumaGenerationFailed(Generation(id="x", state=GenerationState.FAILED)).retry_may_help


@pytest.mark.parametrize("reason", ["Image was moderated", "内容违规", "审核未通过", "包含敏感词"])
def test_moderation_is_recognised_in_english_and_chinese(reason):
    generation = parse_generation({"id": "x", "state": "failed", "failure_reason": reason}, "Polling")
    assert generation.moderated
    assert not generation.retry_may_help


def test_a_generations_failure_survives_pickling():
    error = pickle.loads(pickle.dumps(LumaGenerationFailed(parsed("get_failed"))))  # noqa: S301
    assert error.generation == parsed("get_failed")


def test_a_generation_in_progress_has_its_estimate_in_seconds():
    assert parsed("get_processing").estimate_wait_seconds == 42


def test_an_unknown_state_keeps_the_gateways_word():
    assert parsed("get_unknown_state").state_name == "rendering_preview"


def test_a_batch_query_may_be_answered_with_a_list():
    generations = parse_generations(answered("tasks_list"), "Polling")
    assert {generation.id: generation.state.value for generation in generations.values()} == {
        BOAT: "completed",
        "1f0a9c62-77d4-4e0b-8a93-c1d2e3f4a5b6": "processing",
        "b3d7e1aa-0c4f-4c1d-a2f6-90e8d7c6b5a4": "failed",
    }


def test_a_batch_query_may_be_answered_with_rows_of_the_task_table():
    generations = parse_generations(answered("tasks_envelope"), "Polling")
    assert [generation.state.value for generation in generations.values()] == [
        "pending",
        "processing",
        "completed",
        "failed",
    ]
    assert generations[BOAT].video_url == "https://media.example.net/g/7c2f/video.mp4"
    assert generations["b3d7e1aa-0c4f-4c1d-a2f6-90e8d7c6b5a4"].failure_reason == "image moderation failed"


def test_a_row_that_ended_counts_for_more_than_the_generation_in_it():
    row = {"task_id": "x", "status": "FAILURE", "fail_reason": "timed out", "data": {"id": "x", "state": "dreaming"}}
    generation = parse_generation(row, "Polling")
    assert generation.state is GenerationState.FAILED
    assert generation.failure_reason == "timed out"


def test_of_two_ids_the_gateways_own_counts():
    row = {"task_id": "x", "status": "IN_PROGRESS", "data": {"id": "supplier-9", "state": "processing"}}
    assert parse_generation(row, "Polling").id == "x"


def test_an_unreadable_row_does_not_hide_the_others():
    assert set(parse_generations([None, {}, {"id": "x", "state": "pending"}, 7], "Polling")) == {"x"}


@pytest.mark.parametrize("payload", [{}, {"data": []}, "x", None])
def test_a_batch_query_whose_answer_is_no_list_is_an_error_and_not_one_that_found_nothing(payload):
    with pytest.raises(LumaServerError, match="no list of generations"):
        parse_generations(payload, "Polling")


def test_a_row_has_the_time_of_creation_where_the_generation_is_not_there_yet():
    row = {"task_id": "x", "status": "NOT_START", "created_at": 1768469400, "data": None}
    assert parse_generation(row, "Polling").created_at == pendulum.datetime(2026, 1, 15, 9, 30)


@pytest.mark.parametrize(("finish_time", "expected"), [(0, None), (None, None), (1768469400, "2026-01-15T09:30:00Z")])
def test_a_row_may_have_the_time_when_the_generation_ended(finish_time, expected):
    row = {"task_id": "x", "status": "SUCCESS", "finish_time": finish_time, "data": None}
    finished_at = parse_generation(row, call="x").finished_at
    assert finished_at == (expected and pendulum.parse(expected))


@pytest.mark.parametrize("payload", [{"something": "else"}, {"state": "pending"}, " ", None])
def test_an_answer_without_an_id_holds_no_generation(payload):
    with pytest.raises(LumaServerError, match="holds no generation"):
        parse_generation(payload, "Polling")


@pytest.mark.parametrize(
    ("given_time", "expected"),
    [
        (1768469400123, pendulum.datetime(2026, 1, 15, 9, 30, 0, 123000)),
        (1768469400, pendulum.datetime(2026, 1, 15, 9, 30)),
        ("2026-01-15T10:30:00+01:00", pendulum.datetime(2026, 1, 15, 9, 30)),
        ("yesterday", None),
        ("64:", None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_created_at_is_read_from_rfc_3339_seconds_or_milliseconds(given_time, expected):
    created_at = parse_generation({"id": "x", "created_at": given_time}, "Polling").created_at
    assert created_at == expected
    assert created_at is None or created_at.timezone_name == "UTC"


def test_a_dag_gets_ten_fields_as_json_types_and_can_make_a_generation_of_them():
    generation = parsed("get_completed")
    seen = json.loads(json.dumps(generation.as_dict()))
    assert seen == {
        "id": BOAT,
        "state": "completed",
        "video_url": "https://media.example.net/g/7c2f/video.mp4",
        "thumbnail_url": "https://img.example.net/7c2f/public",
        "last_frame_url": "https://media.example.net/g/7c2f/last.jpg",
        "width": 1360,
        "height": 752,
        "duration": 5.041667,
        "created_at": "2026-01-15T09:30:00.123456Z",
        "failure_reason": None,
    }
    assert Generation.from_dict(seen).as_dict() == seen


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=20,
)
NAMES = st.sampled_from(
    """id state code message data error detail task_id status task_status fail_reason failure_reason video video_raw
    artifact url width height duration created_at estimate_wait_seconds request_id""".split()  # noqa: SIM905
)
SHAPED = st.recursive(
    JSON
    | st.from_regex(r"[0-9:TZW.+-]{1,26}", fullmatch=True)
    | st.sampled_from(["success", "pending", "SUCCESS", 0, 200, 429, 500, "0001-01-01T00:00:00Z", 1e300]),
    lambda parts: st.dictionaries(NAMES, parts, max_size=6) | st.lists(parts, max_size=3),
    max_leaves=15,
)


@given(SHAPED, st.integers(200, 599))
def test_any_json_is_a_generation_or_a_luma_error(payload, status):
    content = json.dumps(payload).encode()
    for parse in (parse_generation, parse_generations):
        try:
            found = parse(read_answer(Answer(status, content, {}), "Polling"), "Polling")
        except LumaError as error:
            assert str(error).startswith("Polling")  # noqa: PT017
        else:
            assert isinstance(found, Generation) or all(isinstance(one, Generation) for one in found.values())
            json.dumps([one.as_dict() for one in (found.values() if isinstance(found, dict) else [found])])


@given(st.binary(), st.integers(200, 599))
def test_any_bytes_are_a_generation_or_a_luma_error(content, status):
    try:
        found = parse_generation(read_answer(Answer(status, content, {}), "Polling"), "Polling")
    except LumaError as error:
        assert str(error).startswith("Polling")  # noqa: PT017
    else:
        assert isinstance(found, Generation)


def test_json_too_deep_to_read_is_a_server_error():
    with pytest.raises(LumaServerError):
        read_answer(Answer(200, b"[" * 100_000, {}), "Polling")

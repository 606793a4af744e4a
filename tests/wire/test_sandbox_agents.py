"""The sandbox's `/v1` is Luma's own API, in the eyes of Luma's own SDK and by the wire contract."""

from __future__ import annotations

import base64
import json
import time
import uuid
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any

import luma_agents
import pytest
from luma_agents import Luma
from luma_agents.types.file_create_params import FileCreateParams
from pydantic import ValidationError

from airflow_provider_luma.sandbox import Sandbox
from tests.support import far_end
from tests.support.agents_judge import judge, judge_submissions
from tests.support.far_end import Answer, Clock

FIXTURES = Path(__file__).parents[1] / "fixtures" / "agents"
KEY = "luma-api-test"
HEADERS = {"Authorization": f"Bearer {KEY}"}
NIL_UUID = "00000000-0000-0000-0000-000000000000"
VIDEO: dict[str, Any] = {"type": "video", "model": "ray-3.2"}
FRAME = {"url": "https://img.example.net/first.jpg"}
DATA = {"data": "iVBORw0KGgo=", "media_type": "image/png"}
KEYFRAMES = {"keyframes": [FRAME, DATA], "keyframe_indexes": [0, 120]}


def fixture(name) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def requests() -> list[Any]:
    return [pytest.param(path.name, id=path.stem) for path in sorted((FIXTURES / "requests").iterdir())]


def call(sandbox, method, path, body=None, *, headers=HEADERS, timeout=10.0) -> Answer:
    return far_end.call(sandbox, method, f"/v1{path}", body, headers=headers, timeout=timeout)


def submit(sandbox, prompt="a paper boat", *, video=None, headers=HEADERS, timeout=10.0, **fields) -> Answer:
    body = {**VIDEO, "prompt": prompt, **({} if video is None else {"video": video}), **fields}
    return call(sandbox, "POST", "/generations", body, headers=headers, timeout=timeout)


def get(sandbox, generation_id) -> Answer:
    return call(sandbox, "GET", f"/generations/{generation_id}")


@pytest.fixture(scope="module")
def running():
    """One sandbox for all tests that need no settings of their own."""
    with Sandbox(seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running):
    running.reset()
    return running


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slow_sandbox(clock):
    with Sandbox(seconds=10, clock=clock) as sandbox:
        yield sandbox


def strict_client(sandbox) -> Luma:
    """Luma's own SDK, which refuses any answer that does not fit its types."""
    return Luma(auth_token=KEY, base_url=f"{sandbox.url}/v1", max_retries=0, _strict_response_validation=True)


@pytest.fixture
def luma(sandbox):
    with strict_client(sandbox) as luma:
        yield luma


class TestWithLumasSdk:
    def test_a_video_is_queued_then_processing_then_completed(self, slow_sandbox, clock):
        with strict_client(slow_sandbox) as luma:
            created = luma.generations.create(**VIDEO, prompt="a paper boat")
            states = [created.state]
            for seconds in (0, 2, 8):
                clock.now += seconds
                states.append(luma.generations.get(created.id).state)
            completed = luma.generations.get(created.id)

        assert states == ["queued", "queued", "processing", "completed"]
        assert (completed.type, completed.model) == ("video", "ray-3.2")
        assert [output.type for output in completed.output] == ["video"]

    def test_an_image_is_completed_with_an_image(self, luma):
        created = luma.generations.create(prompt="a paper boat")

        completed = luma.generations.get(created.id)
        assert (completed.type, completed.model, completed.output[0].type) == ("image", "uni-1", "image")

    def test_an_extension_knows_its_parent(self, luma, sandbox):
        first = luma.generations.create(**VIDEO, prompt="a paper boat").id
        forward = luma.generations.create(
            **VIDEO, prompt="on it goes", video={"start_frame": {"generation_id": first}, "loop": True}
        ).id
        backward = luma.generations.create(
            **VIDEO, prompt="before that", video={"end_frame": {"generation_id": first}}
        ).id

        parents = {one["id"]: one["parent"] for one in sandbox.report()["generations"]}
        assert parents == {first: None, forward: first, backward: first}

    @pytest.mark.parametrize(
        "code",
        [
            "content_moderated",
            "generation_failed",
            "output_not_found",
            "budget_exhausted",
            "image_too_large",
            "unsupported_format",
            "corrupt_input",
            "invalid_request",
            "rate_limited",
        ],
    )
    def test_a_generation_fails_with_the_code_in_its_prompt(self, code, luma):
        created = luma.generations.create(**VIDEO, prompt=f"a boat [fail:{code}]")

        failed = luma.generations.get(created.id)
        assert (failed.state, failed.failure_code, failed.output) == ("failed", code, [])
        assert failed.failure_reason

    @pytest.mark.parametrize(
        ("word", "status", "error"),
        [
            ("400", 400, luma_agents.BadRequestError),
            ("402", 402, luma_agents.APIStatusError),
            ("403", 403, luma_agents.PermissionDeniedError),
            ("413", 413, luma_agents.APIStatusError),
            ("422", 422, luma_agents.UnprocessableEntityError),
            ("429", 429, luma_agents.RateLimitError),
            ("busy", 429, luma_agents.RateLimitError),
            ("500", 500, luma_agents.InternalServerError),
            ("502", 502, luma_agents.InternalServerError),
            ("503", 503, luma_agents.InternalServerError),
        ],
    )
    def test_a_submission_is_refused_with_the_error_in_its_prompt(self, word, status, error, luma, sandbox):
        with pytest.raises(error) as caught:
            luma.generations.create(**VIDEO, prompt=f"a boat [{word}]", extra_headers={"X-Request-Id": "mine"})

        assert caught.value.status_code == status
        assert list(caught.value.body) == ["detail"]
        assert caught.value.response.headers["X-Request-Id"] == "mine"
        assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (0, 1)

    @pytest.mark.parametrize("word", ["html", "proxy", "drop"])
    def test_a_submission_without_a_readable_answer_is_charged(self, word, luma, sandbox):
        with pytest.raises(luma_agents.LumaError):
            luma.generations.create(**VIDEO, prompt=f"a boat [{word}]")

        assert sandbox.report()["charged"] == 1

    def test_the_files_are_an_empty_list(self, luma):
        files = luma.files.list(limit=1)

        assert (files.data, files.has_more, files.next_cursor) == ([], False, None)

    def test_an_unknown_id_is_not_found(self, luma):
        for unknown in (NIL_UUID, "no-uuid"):
            with pytest.raises(luma_agents.NotFoundError):
                luma.generations.get(unknown)
        with pytest.raises(luma_agents.NotFoundError):
            luma.files.get(NIL_UUID)

    def test_an_unknown_key_is_refused(self, sandbox):
        with strict_client(sandbox) as luma, pytest.raises(luma_agents.AuthenticationError):
            luma.with_options(auth_token="sk-other").files.list(limit=1)

    def test_it_is_strict_about_words_that_it_does_not_know(self, luma, sandbox):
        for answer in ({"state": "paused"}, {"model": "ray-4"}, {"output": "none"}):
            generation_id = sandbox.add_generation(api="agents", answer=answer)
            with pytest.raises(luma_agents.APIResponseValidationError):
                luma.generations.get(generation_id)

    def test_what_the_sdk_sends_is_what_its_types_allow(self, luma, sandbox):
        luma.generations.create(**VIDEO, prompt="a paper boat", video={"start_frame": DATA, "duration": "5s"})

        assert judge_submissions(sandbox.requests) == 1


class TestJudge:
    @pytest.mark.parametrize("name", requests())
    def test_each_request_of_the_contract_passes(self, name):
        """Or the judge raises what is wrong with it."""
        judge(fixture(f"requests/{name}"), *([FileCreateParams] if name.startswith("file_") else []))

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"prompt": 5},
            {"prompt": "a boat", "seed": 1},
            {"prompt": "a boat", "user_prompt": "a boat"},
            {"prompt": "a boat", "video": {"duration": "9s"}},
            {"prompt": "a boat", "video": {"loop": "true"}},
            {"prompt": "a boat", "video": {"start_frame": {"uri": "https://example.com"}}},
            {"prompt": "a boat", "video": {"keyframes": [{"url": "https://example.com"}, {"uri": ""}]}},
            {"prompt": "a boat", "video": {"edit": {"controls": {"depth": {"bokeh": 1}}}}},
        ],
        ids=str,
    )
    def test_another_body_does_not(self, body):
        with pytest.raises(ValidationError):
            judge(body)


class TestAnswers:
    @pytest.mark.parametrize(
        ("prompt", "seconds", "name"),
        [
            ("a boat", 0, "get_queued.json"),
            ("a boat", 5, "get_processing.json"),
            ("a boat", 10, "get_completed.json"),
            ("a boat [moderated]", 10, "get_failed_moderated.json"),
            ("a boat [fail]", 10, "get_failed_generation.json"),
            ("a boat [fail:budget_exhausted]", 10, "get_failed_budget.json"),
            ("a boat [fail:image_too_large]", 10, "get_failed_image_too_large.json"),
            ("a boat [fail:none]", 10, "get_failed_without_code.json"),
        ],
    )
    def test_a_generation_is_answered_as_the_contract_has_it(self, prompt, seconds, name, slow_sandbox, clock):
        expected = fixture(name)
        created = submit(slow_sandbox, prompt).json
        clock.now += seconds
        answer = get(slow_sandbox, created["id"]).json

        assert list(answer) == list(expected)
        assert created == {**fixture("submit_created.json"), "id": answer["id"], "created_at": answer["created_at"]}
        assert uuid.UUID(answer["id"])
        assert time.strptime(answer["created_at"], "%Y-%m-%dT%H:%M:%SZ")
        ours = ("id", "created_at", "output")
        assert {**answer, **dict.fromkeys(ours)} == {**expected, **dict.fromkeys(ours)}
        assert [one["type"] for one in answer["output"]] == [one["type"] for one in expected["output"]]

    def test_a_code_that_is_not_known_yet_is_answered_as_it_is(self, sandbox):
        generation_id = submit(sandbox, "a boat [fail:solar_flare]").json["id"]

        assert get(sandbox, generation_id).json["failure_code"] == "solar_flare"

    def test_slow_takes_ten_times_as_long(self, slow_sandbox, clock):
        generation_id = submit(slow_sandbox, "a snail [slow]").json["id"]
        clock.now += 99
        assert get(slow_sandbox, generation_id).json["state"] == "processing"
        clock.now += 1
        assert get(slow_sandbox, generation_id).json["state"] == "completed"

    def test_every_second_poll_of_a_flaky_one_fails(self, sandbox):
        generation_id = submit(sandbox, "a boat [flaky]").json["id"]

        assert [get(sandbox, generation_id).status for _ in range(4)] == [200, 502, 200, 502]

    def test_a_new_id_can_be_unknown_for_a_while(self, clock):
        with Sandbox(seconds=0, visible_after=3, clock=clock) as sandbox:
            generation_id = submit(sandbox).json["id"]
            assert get(sandbox, generation_id).status == 404
            clock.now += 3
            assert get(sandbox, generation_id).status == 200

    def test_each_api_knows_only_its_own_generations(self, sandbox):
        headers = {"Authorization": "Bearer sk-test"}
        body = {"user_prompt": "a paper boat"}
        other = far_end.call(sandbox, "POST", "/luma/generations", body, headers=headers).json["id"]
        own = submit(sandbox).json["id"]

        assert get(sandbox, other).status == 404
        assert far_end.call(sandbox, "GET", f"/luma/generations/{own}", headers=headers).status == 400
        assert far_end.call(sandbox, "POST", "/luma/tasks", {"ids": [own]}, headers=headers).json == []
        assert submit(sandbox, video={"start_frame": {"generation_id": other}}).status == 400


class TestHeaders:
    def test_the_callers_request_id_comes_back_with_the_version(self, sandbox):
        headers = {**HEADERS, "X-Request-Id": "task-1"}
        created = submit(sandbox, headers=headers)
        polled = call(sandbox, "GET", f"/generations/{created.json['id']}", headers=headers)
        not_found = call(sandbox, "GET", f"/generations/{NIL_UUID}", headers=headers)
        unauthorized = call(sandbox, "GET", "/files", headers={"X-Request-Id": "task-1"})
        elsewhere = call(sandbox, "DELETE", "/generations/1", headers=headers)

        answers = [created, polled, not_found, unauthorized, elsewhere]
        assert [answer.status for answer in answers] == [201, 200, 404, 401, 404]
        assert {answer.headers["x-request-id"] for answer in answers} == {"task-1"}
        assert {answer.headers["x-api-version"] for answer in answers} == {"2026-04-01"}

    def test_without_one_it_is_a_new_uuid_each_time(self, sandbox):
        ids = {call(sandbox, "GET", "/files?limit=1").headers["x-request-id"] for _ in range(2)}

        assert len({uuid.UUID(one) for one in ids}) == 2

    @pytest.mark.parametrize(("word", "status"), [("html", 201), ("proxy", 502)])
    def test_a_page_from_in_between_has_neither(self, word, status, sandbox):
        answer = submit(sandbox, f"a boat [{word}]", headers={**HEADERS, "X-Request-Id": "task-1"})

        assert answer.status == status
        assert answer.headers["content-type"].startswith("text/html")
        assert not {"x-request-id", "x-api-version"} & set(answer.headers)


class TestErrors:
    @pytest.mark.parametrize(
        ("word", "name"),
        [
            ("402", "error_insufficient_balance.json"),
            ("403", "error_suspended.json"),
            ("413", "error_too_large.json"),
            ("422", "error_unprocessable.json"),
            ("429", "error_rate_limited.json"),
            ("busy", "error_concurrent_jobs.json"),
            ("502", "error_upstream.json"),
            ("503", "error_ingestion.json"),
        ],
    )
    def test_each_error_is_answered_as_the_contract_has_it(self, word, name, sandbox):
        assert submit(sandbox, f"a boat [{word}]").json == fixture(name)

    @pytest.mark.parametrize("authorization", [None, "Bearer", "bearer luma-api-test", "Bearer sk-test", "Basic abc"])
    def test_a_missing_or_odd_key_is_refused(self, authorization, sandbox):
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = call(sandbox, "GET", "/files?limit=1", headers=headers)

        assert (answer.status, answer.json) == (401, fixture("error_unauthorized.json"))

    def test_a_key_of_its_own_is_the_only_one(self):
        with Sandbox(token=KEY) as sandbox:
            assert call(sandbox, "GET", "/files").status == 200
            assert call(sandbox, "GET", "/files", headers={"Authorization": "Bearer luma-api-other"}).status == 401

    def test_a_revoked_key_is_refused_everywhere(self, sandbox):
        sandbox.weather(revoked=True)

        for answer in (submit(sandbox), get(sandbox, NIL_UUID), call(sandbox, "GET", "/files")):
            assert (answer.status, answer.json) == (401, fixture("error_key_revoked.json"))

    def test_a_hang_is_charged_and_never_answered(self, sandbox):
        with pytest.raises(TimeoutError):
            submit(sandbox, "a boat [hang]", timeout=0.2)

        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize("limit", ["0", "101", "x", "-1"])
    def test_a_page_of_files_has_1_to_100(self, limit, sandbox):
        assert call(sandbox, "GET", f"/files?limit={limit}").status == 422

    def test_a_body_that_is_no_json_is_refused(self, sandbox):
        answer = call(sandbox, "POST", "/generations", b'{"prompt":')

        assert answer.status == 422
        assert answer.json["detail"][0]["type"] == "json_invalid"


class TestLimits:
    def test_an_accepted_submission_says_what_is_left(self, clock):
        with Sandbox(rate_limit=3, clock=clock) as sandbox:
            answers = [submit(sandbox), submit(sandbox)]

        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1"]
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"3"}
        assert abs(int(answers[0].headers["x-ratelimit-reset"]) - time.time() - 60) < 10

    def test_too_many_in_a_minute_are_refused_until_the_first_is_a_minute_old(self, clock):
        with Sandbox(rate_limit=2, clock=clock) as sandbox:
            submit(sandbox)
            clock.now += 20
            submit(sandbox)
            refused = submit(sandbox)
            clock.now += 40
            accepted = submit(sandbox)

        assert (refused.status, refused.json) == (429, fixture("error_rate_limited.json"))
        assert refused.headers["retry-after"] == "40"
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert accepted.status == 201

    def test_too_many_at_once_are_refused_until_one_has_ended(self, clock):
        with Sandbox(running_limit=2, seconds=10, clock=clock) as sandbox:
            submit(sandbox)
            clock.now += 5
            submit(sandbox)
            refused = submit(sandbox)
            clock.now += 5
            accepted = submit(sandbox)

        assert (refused.status, refused.json) == (429, fixture("error_concurrent_jobs.json"))
        assert refused.headers["retry-after"] == "60"
        assert not [name for name in refused.headers if name.startswith("x-ratelimit")]
        assert accepted.status == 201

    def test_a_slot_is_held_for_an_hour_at_most(self, clock):
        with Sandbox(running_limit=1, seconds=100_000, clock=clock) as sandbox:
            submit(sandbox)
            clock.now += 3599
            assert submit(sandbox).status == 429
            clock.now += 1
            assert submit(sandbox).status == 201

    def test_a_submission_that_is_refused_takes_no_slot(self):
        with Sandbox(running_limit=1) as sandbox:
            assert submit(sandbox, "").status == 400
            assert submit(sandbox).status == 201

    def test_the_gateways_generations_take_no_slot(self):
        with Sandbox(running_limit=1) as sandbox:
            sandbox.add_generation()
            assert submit(sandbox).status == 201

    def test_429_in_a_prompt_is_refused_twice(self, sandbox):
        answers = [submit(sandbox, "a boat [429]") for _ in range(3)]

        assert [answer.status for answer in answers] == [429, 429, 201]
        assert [answer.headers.get("retry-after") for answer in answers] == ["1", "1", None]

    def test_busy_in_a_prompt_is_refused_as_often_as_it_says(self, sandbox):
        assert [submit(sandbox, "a boat [busy:2]").status for _ in range(3)] == [429, 429, 201]


class TestVideoUrls:
    def test_each_poll_makes_another_one(self, sandbox):
        generation_id = submit(sandbox).json["id"]

        first, second = (get(sandbox, generation_id).json["output"][0]["url"] for _ in range(2))
        assert first != second
        assert "X-Amz-Expires=3600&X-Amz-Signature=" in first

    @pytest.mark.parametrize(("settings", "seconds"), [({}, 3600), ({"url_seconds": 5}, 5)])
    def test_it_is_good_for_an_hour_or_as_long_as_the_settings_say(self, settings, seconds, clock):
        with Sandbox(seconds=0, clock=clock, **settings) as sandbox:
            generation_id = submit(sandbox).json["id"]
            url = get(sandbox, generation_id).json["output"][0]["url"].removeprefix(sandbox.url)
            clock.now += seconds
            assert far_end.call(sandbox, "GET", url, headers={}).status == 200
            clock.now += 1
            assert far_end.call(sandbox, "GET", url, headers={}).status == 403
            fresh = get(sandbox, generation_id).json["output"][0]["url"].removeprefix(sandbox.url)
            assert far_end.call(sandbox, "GET", fresh, headers={}).content[4:8] == b"ftyp"


class TestWeather:
    @pytest.mark.parametrize("failure", ["402", "403", "413", "422", "429", "502", "503"])
    def test_submissions_are_refused_by_chance(self, failure, sandbox):
        sandbox.weather(submit={failure: 1})

        assert submit(sandbox).status == int(failure)
        assert sandbox.report()["charged"] == 0

    def test_submissions_are_too_many_at_once_by_chance(self, sandbox):
        sandbox.weather(submit={"busy": 1})

        assert submit(sandbox).json == fixture("error_concurrent_jobs.json")

    def test_submissions_are_accepted_and_cut_by_chance(self, sandbox):
        sandbox.weather(submit={"drop_after_accept": 1})
        with pytest.raises(RemoteDisconnected):
            submit(sandbox)

        assert sandbox.report()["charged"] == 1

    def test_polls_meet_the_guard_which_names_seconds_and_no_limit(self, sandbox):
        generation_id = submit(sandbox).json["id"]
        sandbox.weather(status={"429": 1})
        first = get(sandbox, generation_id)
        sandbox.weather(status={"429": 1}, retry_after=7)
        second = get(sandbox, generation_id)

        assert [answer.status for answer in (first, second)] == [429, 429]
        assert [answer.headers["retry-after"] for answer in (first, second)] == ["1", "7"]
        assert not [name for name in first.headers if name.startswith("x-ratelimit")]

    @pytest.mark.parametrize(
        ("failure", "status", "from_luma"),
        [("500", 500, True), ("502", 502, True), ("503", 503, True), ("504", 504, False), ("html", 200, False)],
    )
    def test_polls_fail_by_chance(self, failure, status, from_luma, sandbox):
        generation_id = submit(sandbox).json["id"]
        sandbox.weather(status={failure: 1})

        answer = get(sandbox, generation_id)
        assert answer.status == status
        assert ("x-request-id" in answer.headers) is from_luma

    def test_an_api_that_is_down_cuts_every_connection(self, sandbox):
        sandbox.weather(down=True)
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            submit(sandbox)


@pytest.mark.parametrize("name", [name for name in requests() if not name.id.startswith("file_")])
def test_each_submission_of_the_contract_is_accepted(name, sandbox):
    parent = "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"
    sandbox.add_generation(api="agents", generation_id=parent)

    assert call(sandbox, "POST", "/generations", fixture(f"requests/{name}")).status == 201


@pytest.mark.parametrize(
    "video",
    [
        {"duration": "10s", "resolution": "360p"},
        {"duration": "10s", "loop": False},
        {"hdr": True},
        {"hdr": True, "exr_export": True, "resolution": "1080p"},
        {"loop": True, "start_frame": FRAME},
        {"end_frame": DATA},
        {"duration": "10s", "hdr": True, **KEYFRAMES, "keyframe_indexes": [0, 240]},
        KEYFRAMES,
        {"start_frame": {"file_id": NIL_UUID}},
        {"start_frame": {**FRAME, "media_type": "image/jpeg"}},
        {"start_frame": {**FRAME, "data": None}, "end_frame": None},
    ],
    ids=str,
)
def test_what_goes_together_is_accepted(video, sandbox):
    assert submit(sandbox, video=video).status == 201


@pytest.mark.parametrize(
    "video",
    [
        {"duration": "10s", "start_frame": FRAME},
        {"duration": "10s", "end_frame": FRAME},
        {"duration": "10s", "loop": True},
        {"duration": "10s", "hdr": True},
        {"loop": True, "hdr": True},
        {"loop": True, "end_frame": FRAME},
        {"loop": True, **KEYFRAMES},
        {"hdr": True, "resolution": "360p"},
        {"hdr": True, "resolution": "540p"},
        {"exr_export": True},
        {"start_frame": FRAME, **KEYFRAMES},
        {"end_frame": FRAME, **KEYFRAMES},
        {"keyframes": [FRAME]},
        {"keyframe_indexes": [0]},
        {"keyframes": [], "keyframe_indexes": []},
        {**KEYFRAMES, "keyframe_indexes": [0]},
        {**KEYFRAMES, "keyframe_indexes": [5, 5]},
        {**KEYFRAMES, "keyframe_indexes": [0, 121]},
        {**KEYFRAMES, "keyframe_indexes": [-1, 5]},
        {**KEYFRAMES, "keyframe_indexes": [0, "5"]},
        {"keyframes": [FRAME] * 65, "keyframe_indexes": list(range(65))},
        {"edit": {"strength": "flex_2"}},
        {"source_position": {}},
        {"start_frame": {}},
        {"start_frame": {**FRAME, **DATA}},
        {"start_frame": {"data": DATA["data"]}},
        {"start_frame": {"file_id": "first.jpg"}},
        {"start_frame": {"generation_id": NIL_UUID}},
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_and_not_charged(video, sandbox):
    answer = submit(sandbox, video=video)

    assert answer.status == 400
    assert isinstance(answer.json["detail"], str)
    assert answer.json["detail"].startswith("video.")
    assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (0, 1)


@pytest.mark.parametrize(
    "video",
    [{"end_frame": FRAME}, {"hdr": True}, {"duration": "10s"}, {"end_frame": {"generation_id": "another"}}],
    ids=str,
)
def test_an_extension_takes_one_anchor_and_5_seconds(video, sandbox):
    parent = submit(sandbox).json["id"]
    frames = json.loads(json.dumps(video).replace("another", parent))

    assert submit(sandbox, video={"start_frame": {"generation_id": parent}, **frames}).status == 400


def test_an_unfinished_generation_cannot_be_extended(slow_sandbox):
    parent = submit(slow_sandbox).json["id"]

    answer = submit(slow_sandbox, video={"start_frame": {"generation_id": parent}})
    assert (answer.status, answer.json["detail"]) == (400, "video.start_frame: generation is pending")


@pytest.mark.parametrize(
    "reference",
    [
        {"url": "http://img.example.net/first.jpg"},
        {"url": "https://127.0.0.1/first.jpg"},
        {"url": "https://10.0.0.1/first.jpg"},
        {"url": "https://[::1]/first.jpg"},
        {"url": "https://localhost/first.jpg"},
        {"url": "https://img.invalid/first.jpg"},
        {"url": "https://[/first.jpg"},
        {"url": "first.jpg"},
        {"data": "data:image/png;base64,iVBORw0KGgo=", "media_type": "image/png"},
        {"data": "not base64", "media_type": "image/png"},
        {"data": "", "media_type": "image/png"},
        {"data": "iVBORw0KGgo=", "media_type": "video/mp4"},
    ],
    ids=lambda reference: str(reference)[:60],
)
def test_an_image_that_cannot_be_used_is_refused_with_422(reference, sandbox):
    answer = submit(sandbox, video={"end_frame": reference})

    assert answer.status == 422
    assert answer.json["detail"].startswith("video.end_frame: ")


def test_an_image_over_50_megabytes_is_refused_with_413(sandbox):
    data = base64.b64encode(bytes(50 * 1024 * 1024 + 1)).decode()

    answer = submit(sandbox, video={"start_frame": {"data": data, "media_type": "image/png"}}, timeout=60)
    assert (answer.status, answer.json) == (413, fixture("error_too_large.json"))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": "a" * 6001}, 400),
        ({"model": "ray-9"}, 400),
        ({"model": "uni-1"}, 400),
        ({"user_id": "a" * 257}, 400),
        ({"aspect_ratio": "3:2"}, 400),
        ({"aspect_ratio": "5:4"}, 422),
        ({"source": FRAME}, 400),
        ({"image_ref": [FRAME]}, 400),
        ({"web_search": True}, 400),
        ({"type": "film"}, 422),
        ({"prompt": None}, 422),
        ({"prompt": 5}, 422),
        ({"video": []}, 422),
        ({"video": {"loop": "true"}}, 422),
        ({"video": {"start_frame": "https://img.example.net/first.jpg"}}, 422),
        ({"video": {"start_frame": {"url": 5}}}, 422),
        ({"video": {"keyframes": ["first.jpg"], "keyframe_indexes": [0]}}, 422),
        ({"type": "video_edit"}, 400),
        ({"type": "video_edit", "source": {"url": "https://img.example.net/in.mp4"}}, 422),
        ({"type": "video_reframe", "source": {"file_id": NIL_UUID}}, 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_submission_that_breaks_a_rule_is_refused(fields, status, sandbox):
    body = {**VIDEO, "prompt": "a paper boat", **fields}

    assert call(sandbox, "POST", "/generations", body).status == status
    assert sandbox.report()["charged"] == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"video": {"hdr": True}}, 400),
        ({"video": {"source_position": {"x_norm": 0, "y_norm": 0, "w_norm": 1}}}, 400),
        ({"video": {"source_position": {"x_norm": 0, "y_norm": 0, "w_norm": 1, "h_norm": 0.5}}}, 201),
    ],
    ids=str,
)
def test_a_reframing_takes_four_numbers_and_no_hdr(fields, status, sandbox):
    body = {**fixture("requests/video_reframe.json"), "source": {"file_id": NIL_UUID}, **fields}

    assert call(sandbox, "POST", "/generations", body).status == status


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({**VIDEO, "prompt": ""}, "error_bad_request.json"),
        ({**VIDEO, "prompt": "a boat", "model": "ray-9"}, "error_unknown_model.json"),
        ({**VIDEO, "prompt": "a boat", "video": {"duration": "7s"}}, "error_validation.json"),
    ],
)
def test_what_is_wrong_is_said_as_the_contract_has_it(body, name, sandbox):
    assert call(sandbox, "POST", "/generations", body).json == fixture(name)


@pytest.mark.parametrize("left_out", ["type", "model"])
def test_a_video_without_type_or_model_is_refused(left_out, sandbox):
    body = {**VIDEO, "prompt": "a paper boat", "video": {}}
    del body[left_out]

    assert call(sandbox, "POST", "/generations", body).status == 400


def test_fields_that_are_not_known_yet_are_accepted(sandbox):
    assert submit(sandbox, brand_new_field=[1], video={"brand_new_field": 1}).status == 201


def test_the_report_has_both_apis(sandbox):
    far_end.call(
        sandbox, "POST", "/luma/generations", {"user_prompt": "a boat"}, headers={"Authorization": "Bearer sk-test"}
    )
    submit(sandbox, "a ship [fail]", video={"start_frame": {**DATA, "data": "A" * 1000}})
    submit(sandbox, "a raft [fail:budget_exhausted]")

    report = sandbox.report()
    assert [one["api"] for one in report["generations"]] == ["gateway", "agents", "agents"]
    assert [one["prompt"] for one in report["generations"]] == [
        "a boat",
        "a ship [fail]",
        "a raft [fail:budget_exhausted]",
    ]
    assert [one["refunded"] for one in report["generations"]] == [False, True, False]
    assert report["generations"][1]["body"]["video"] == {"start_frame": {**DATA, "data": "A" * 40}}
    assert (report["charged"], report["refunded"]) == (3, 1)

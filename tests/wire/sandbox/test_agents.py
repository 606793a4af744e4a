"""The sandbox's `/v1` is Luma's own API, by Luma's own SDK and by the wire contract."""

from __future__ import annotations

import time
import uuid

import luma_agents
import pytest
from luma_agents import Luma
from luma_agents.types.file_create_params import FileCreateParams
from pydantic import ValidationError

from airflow_provider_luma.sandbox import Sandbox
from tests.support.agents_judge import judge, judge_submissions
from tests.support.sandbox_calls import AGENTS, Answer, fixture, fixture_names

KEY = "luma-api-test"
HEADERS = AGENTS.headers
NIL_UUID = "00000000-0000-0000-0000-000000000000"
VIDEO = AGENTS.fields
DATA = {"data": "iVBORw0KGgo=", "media_type": "image/png"}


def call(sandbox, method, path, body=None, **options) -> Answer:
    return AGENTS.call(sandbox, method, f"/v1{path}", body, **options)


submit, get = AGENTS.submit, AGENTS.query


def strict_client(sandbox) -> Luma:
    """Return Luma's own SDK; it refuses every answer that does not fit its types."""
    return Luma(auth_token=KEY, base_url=f"{sandbox.url}/v1", max_retries=0, _strict_response_validation=True)


@pytest.fixture
def luma(sandbox):
    with strict_client(sandbox) as luma:
        yield luma


class TestSdk:
    def test_reads_video_in_each_state(self, slow_sandbox, clock):
        """A video is queued, processing, then completed."""
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

    def test_reads_completed_image(self, luma):
        """A submission without a type makes an image."""
        created = luma.generations.create(prompt="a paper boat")

        completed = luma.generations.get(created.id)
        assert (completed.type, completed.model, completed.output[0].type) == ("image", "uni-1", "image")

    def test_extends_forward_and_backward(self, luma, sandbox):
        """An extension knows its parent, in both directions."""
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
    def test_reads_each_failure_code(self, code, luma):
        """A generation fails with the code in its prompt and a reason."""
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
    def test_reads_each_refusal(self, word, status, error, luma, sandbox):
        """A refused submission has `detail` and the caller's request id, and is not charged."""
        with pytest.raises(error) as caught:
            luma.generations.create(**VIDEO, prompt=f"a boat [{word}]", extra_headers={"X-Request-Id": "mine"})

        assert caught.value.status_code == status
        assert list(caught.value.body) == ["detail"]
        assert caught.value.response.headers["X-Request-Id"] == "mine"
        assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (0, 1)

    def test_reads_empty_list_of_files(self, luma):
        """The list of files is empty."""
        files = luma.files.list(limit=1)

        assert (files.data, files.has_more, files.next_cursor) == ([], False, None)

    def test_unknown_id_is_not_found(self, luma):
        """An unknown generation or file is not found."""
        for unknown in (NIL_UUID, "no-uuid"):
            with pytest.raises(luma_agents.NotFoundError):
                luma.generations.get(unknown)
        with pytest.raises(luma_agents.NotFoundError):
            luma.files.get(NIL_UUID)

    def test_unknown_key_is_refused(self, sandbox):
        """A key without the prefix of Luma's keys is refused."""
        with strict_client(sandbox) as luma, pytest.raises(luma_agents.AuthenticationError):
            luma.with_options(auth_token="sk-other").files.list(limit=1)

    def test_refuses_unknown_words(self, luma, sandbox):
        """The SDK refuses unknown words, so that it is a strict judge of the sandbox."""
        for answer in ({"state": "paused"}, {"model": "ray-4"}, {"output": "none"}):
            generation_id = sandbox.add_generation(api="agents", answer=answer)
            with pytest.raises(luma_agents.APIResponseValidationError):
                luma.generations.get(generation_id)

    def test_sends_what_the_judge_accepts(self, luma, sandbox):
        """A submission of the SDK passes the judge of submissions."""
        luma.generations.create(**VIDEO, prompt="a paper boat", video={"start_frame": DATA, "duration": "5s"})

        assert judge_submissions(sandbox.requests) == 1


class TestJudge:
    @pytest.mark.parametrize("name", fixture_names("agents/requests"))
    def test_accepts_requests_of_the_contract(self, name):
        """Every request of the contract fits the SDK's types."""
        judge(fixture(f"agents/requests/{name}"), *([FileCreateParams] if name.startswith("file_") else []))

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
    def test_refuses_other_bodies(self, body):
        """A body with an unknown field or a wrong type does not fit the SDK's types."""
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
    def test_generation_matches_the_contract(self, prompt, seconds, name, slow_sandbox, clock):
        """A generation is answered like the contract's fixture for its state and failure."""
        expected = fixture(f"agents/{name}")
        created = submit(slow_sandbox, prompt).json
        clock.now += seconds
        answer = get(slow_sandbox, created["id"]).json

        assert list(answer) == list(expected)
        assert created == {
            **fixture("agents/submit_created.json"),
            "id": answer["id"],
            "created_at": answer["created_at"],
        }
        assert uuid.UUID(answer["id"])
        assert time.strptime(answer["created_at"], "%Y-%m-%dT%H:%M:%SZ")
        ours = ("id", "created_at", "output")
        assert {**answer, **dict.fromkeys(ours)} == {**expected, **dict.fromkeys(ours)}
        assert [one["type"] for one in answer["output"]] == [one["type"] for one in expected["output"]]

    def test_unknown_code_is_repeated(self, sandbox):
        """A failure code that is not in the contract is answered unchanged."""
        generation_id = submit(sandbox, "a boat [fail:solar_flare]").json["id"]
        assert get(sandbox, generation_id).json["failure_code"] == "solar_flare"

    def test_parent_must_be_its_own(self, sandbox):
        """A generation of another API cannot be extended."""
        other = sandbox.add_generation(api="gateway")
        assert submit(sandbox, video={"start_frame": {"generation_id": other}}).status == 400


class TestHeaders:
    def test_have_the_callers_request_id(self, sandbox):
        """Every answer has the caller's request id and the API's version."""
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

    def test_have_a_new_request_id(self, sandbox):
        """Without a request id of the caller, every answer has a new UUID."""
        ids = {call(sandbox, "GET", "/files?limit=1").headers["x-request-id"] for _ in range(2)}

        assert len({uuid.UUID(one) for one in ids}) == 2

    @pytest.mark.parametrize(("word", "status"), [("html", 201), ("proxy", 502)])
    def test_are_missing_on_web_pages(self, word, status, sandbox):
        """A web page of a proxy has no request id and no version."""
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
    def test_refusal_matches_the_contract(self, word, name, sandbox):
        """A refusal is answered like the contract's fixture."""
        assert submit(sandbox, f"a boat [{word}]").json == fixture(f"agents/{name}")

    @pytest.mark.parametrize("authorization", [None, "Bearer", "bearer luma-api-test", "Bearer sk-test", "Basic abc"])
    def test_odd_key_is_refused(self, authorization, sandbox):
        """A key is refused if it is missing, has another scheme or lacks the prefix of Luma's keys."""
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = call(sandbox, "GET", "/files?limit=1", headers=headers)

        assert (answer.status, answer.json) == (401, fixture("agents/error_unauthorized.json"))

    def test_revoked_key_matches_the_contract(self, sandbox):
        """A revoked key is refused by every call, with the contract's error."""
        sandbox.weather(revoked=True)

        for answer in (submit(sandbox), get(sandbox, NIL_UUID), call(sandbox, "GET", "/files")):
            assert (answer.status, answer.json) == (401, fixture("agents/error_key_revoked.json"))

    @pytest.mark.parametrize("limit", ["0", "101", "x", "-1"])
    def test_page_of_files_has_limit(self, limit, sandbox):
        """A page of files has 1 to 100 files."""
        assert call(sandbox, "GET", f"/files?limit={limit}").status == 422

    def test_invalid_json_is_422(self, sandbox):
        """A body that is not JSON is refused with 422."""
        answer = call(sandbox, "POST", "/generations", b'{"prompt":')

        assert answer.status == 422
        assert answer.json["detail"][0]["type"] == "json_invalid"


class TestLimits:
    def test_answer_has_remaining_submissions(self, clock):
        """An accepted submission has the limit, the remaining submissions and the time of the reset."""
        with Sandbox(rate_limit=3, clock=clock) as sandbox:
            answers = [submit(sandbox), submit(sandbox)]

        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1"]
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"3"}
        assert abs(int(answers[0].headers["x-ratelimit-reset"]) - time.time() - 60) < 10

    def test_limits_submissions_per_minute(self, clock):
        """Too many submissions are refused until the oldest is a minute old."""
        with Sandbox(rate_limit=2, clock=clock) as sandbox:
            submit(sandbox)
            clock.now += 20
            submit(sandbox)
            refused = submit(sandbox)
            clock.now += 40
            accepted = submit(sandbox)

        assert (refused.status, refused.json) == (429, fixture("agents/error_rate_limited.json"))
        assert refused.headers["retry-after"] == "40"
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert accepted.status == 201

    def test_limits_running_generations(self, clock):
        """A submission is refused while too many generations run."""
        with Sandbox(running_limit=2, seconds=10, clock=clock) as sandbox:
            submit(sandbox)
            clock.now += 5
            submit(sandbox)
            refused = submit(sandbox)
            clock.now += 5
            accepted = submit(sandbox)

        assert (refused.status, refused.json) == (429, fixture("agents/error_concurrent_jobs.json"))
        assert refused.headers["retry-after"] == "60"
        assert not [name for name in refused.headers if name.startswith("x-ratelimit")]
        assert accepted.status == 201

    def test_slot_is_free_after_hour(self, clock):
        """A generation counts as running for an hour at most."""
        with Sandbox(running_limit=1, seconds=100_000, clock=clock) as sandbox:
            submit(sandbox)
            clock.now += 3599
            assert submit(sandbox).status == 429
            clock.now += 1
            assert submit(sandbox).status == 201

    def test_refused_submission_needs_no_slot(self):
        """A refused submission does not count as a running generation."""
        with Sandbox(running_limit=1) as sandbox:
            assert submit(sandbox, "").status == 400
            assert submit(sandbox).status == 201

    def test_other_apis_need_no_slot(self):
        """Generations of another API do not count as running."""
        with Sandbox(running_limit=1) as sandbox:
            sandbox.add_generation()
            assert submit(sandbox).status == 201


class TestVideoUrl:
    def test_is_new_for_every_poll(self, sandbox):
        """Every poll has a new URL with a signature for an hour."""
        generation_id = submit(sandbox).json["id"]

        first, second = (get(sandbox, generation_id).json["output"][0]["url"] for _ in range(2))
        assert first != second
        assert "X-Amz-Expires=3600&X-Amz-Signature=" in first


class TestWeather:
    def test_polls_meet_the_guard(self, sandbox):
        """A poll that is refused with 429 has the seconds to wait, but no limits."""
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
    def test_proxy_has_no_request_id(self, failure, status, from_luma, sandbox):
        """A failed poll has a request id only if the API itself answers."""
        generation_id = submit(sandbox).json["id"]
        sandbox.weather(status={failure: 1})

        answer = get(sandbox, generation_id)
        assert answer.status == status
        assert ("x-request-id" in answer.headers) is from_luma

"""The gateway's own facts: its shapes, words and codes. The contract of all dialects is in test_dialects.py."""

from __future__ import annotations

import pendulum
import pytest

from airflow_provider_luma.api import (
    GenerationState,
    LumaApiError,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaServerError,
)
from airflow_provider_luma.api.dialects import gateway
from tests.support.dialects import CALL, VALUES, answer, polled, submitted

BOAT = "7c2f4b90-3d1e-4a55-9b0c-5f8e21d6a713"
FAILED = "b3d7e1aa-0c4f-4c1d-a2f6-90e8d7c6b5a4"


def read(content, status=200, **headers):
    return polled("gateway", content, status, headers)


def read_many(content):
    return gateway.batch_query(["x", "y"]).read(answer("gateway", content), CALL)


def error_of(content, status, **headers):
    with pytest.raises(LumaApiError) as caught:
        read(content, status, **headers)
    return caught.value


class TestRequest:
    def test_arguments_keep_their_names(self):
        """A body has the names that users type, and any value that they give."""
        assert gateway.submission({**VALUES, "duration": "1m"}, {"seed": 7}).body == {
            **VALUES,
            "duration": "1m",
            "seed": 7,
        }

    def test_paths_are_the_documented(self):
        """Each call has the method and the path of the gateway's documentation."""
        calls = [
            gateway.submission({}, None),
            gateway.extension(BOAT, {}, None),
            gateway.query(BOAT),
            gateway.batch_query([BOAT]),
        ]
        assert [(call.method, call.path) for call in calls] == [
            ("POST", "/luma/generations"),
            ("POST", f"/luma/generations/{BOAT}/extend"),
            ("GET", f"/luma/generations/{BOAT}"),
            ("POST", "/luma/tasks"),
        ]
        assert calls[-1].body == {"ids": [BOAT]}


class TestGeneration:
    @pytest.mark.parametrize("shape", ["flat", "envelope", "bare"])
    def test_submission_has_three_shapes(self, shape):
        """Each documented answer to a submission is the same generation."""
        assert submitted("gateway", f"submit_{shape}").id == BOAT

    @pytest.mark.parametrize(
        ("word", "state"),
        [
            *dict.fromkeys(("pending", "queued", "not_start", "NOT_START", "submitted"), "pending").items(),
            *dict.fromkeys(("processing", "dreaming", "IN_PROGRESS"), "processing").items(),
            *dict.fromkeys(("completed", "SUCCESS"), "completed").items(),
            *dict.fromkeys(("failed", "FAILURE"), "failed").items(),
            *dict.fromkeys(("UNKNOWN", "", None, 7), "unknown").items(),
        ],
    )
    def test_words_for_a_state(self, word, state):
        """The words of the gateway, of Luma and of the task table are the same states."""
        assert read({"id": "x", "state": word}).state == state
        assert read_many([{"task_id": "x", "status": word, "data": None}])["x"].state == state

    @pytest.mark.parametrize("code", ["success", "SUCCESS", "0", 0, "200", 200])
    def test_envelope_is_removed(self, code):
        """A generation may be in an envelope with any of the codes for success."""
        assert read({"code": code, "message": "ok", "data": {"id": "x", "state": "pending"}}).id == "x"

    def test_completed_has_all_files(self):
        """A completed generation has its URLs, size, length and time."""
        generation = read("get_completed")
        assert generation.video_url == "https://media.example.net/g/7c2f/video.mp4"
        assert generation.download_url == "https://media.example.net/g/7c2f/video_clean.mp4"
        assert generation.video_raw_url == "https://media.example.net/g/7c2f/raw.mp4"
        assert generation.thumbnail_url == "https://img.example.net/7c2f/public"
        assert generation.last_frame_url == "https://media.example.net/g/7c2f/last.jpg"
        assert (generation.width, generation.height, generation.duration) == (1360, 752, 5.041667)
        assert generation.created_at == pendulum.datetime(2026, 1, 15, 9, 30, 0, 123456)

    def test_artifact_has_missing_files(self):
        """A file that is missing at the top is read from the artifact."""
        generation = read("get_completed_artifact_only")
        assert generation.video_url == "https://media.example.net/g/7c2f/video.mp4"
        assert (generation.width, generation.height) == (1360, 752)

    def test_completed_may_lack_video(self):
        """A completed generation may have no files at all."""
        generation = read("get_completed_without_video")
        assert generation.video_url is generation.download_url is generation.width is None

    @pytest.mark.parametrize(
        "reason", ["Image was MODERATED", "Prompt moderation", "内容违规", "审核未通过", "包含敏感词"]
    )
    def test_moderation_in_two_languages(self, reason):
        """Moderation is recognised in English and Chinese, and no retry helps after it."""
        generation = read({"id": "x", "state": "failed", "failure_reason": reason})
        assert (generation.moderated, generation.retry_may_help) == (True, False)

    @pytest.mark.parametrize("reason", ["Job failed", None])
    def test_other_failures_may_be_retried(self, reason):
        """After a failure without moderation a retry may help; each failure is refunded."""
        generation = read({"id": "x", "state": "failed", "failure_reason": reason})
        assert (generation.moderated, generation.retry_may_help, generation.refunded) == (False, True, True)

    def test_progress_has_an_estimate(self):
        """A generation in progress has the estimated seconds until its end."""
        assert read("get_processing").estimate_wait_seconds == 42

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (1768469400123, pendulum.datetime(2026, 1, 15, 9, 30, 0, 123000)),
            (1768469400, pendulum.datetime(2026, 1, 15, 9, 30)),
            ("2026-01-15T10:30:00+01:00", pendulum.datetime(2026, 1, 15, 9, 30)),
            ("yesterday", None),
            ("64:", None),
            (1e300, None),
            (0, None),
            (None, None),
        ],
    )
    def test_time_has_three_forms(self, given, expected):
        """The time is read from RFC 3339, seconds or milliseconds, as UTC; a wrong one is left out."""
        created_at = read({"id": "x", "created_at": given}).created_at
        assert created_at == expected
        assert created_at is None or created_at.timezone_name == "UTC"


class TestBatchQuery:
    def test_answer_may_be_a_list(self):
        """The gateway documents a list of generations."""
        found = read_many("tasks_list")
        assert {name: generation.state for name, generation in found.items()} == {
            BOAT: "completed",
            "1f0a9c62-77d4-4e0b-8a93-c1d2e3f4a5b6": "processing",
            FAILED: "failed",
        }

    def test_answer_may_be_rows(self):
        """Siblings answer with rows of a task table, in an envelope."""
        found = read_many("tasks_envelope")
        assert [generation.state.value for generation in found.values()] == [
            "pending",
            "processing",
            "completed",
            "failed",
        ]
        assert found[BOAT].video_url == "https://media.example.net/g/7c2f/video.mp4"
        assert found[FAILED].failure_reason == "image moderation failed"

    def test_row_counts_before_generation(self):
        """The state, the id and the reason of a row count: the generation in it may be older."""
        work = {"id": "supplier-9", "state": "dreaming"}
        row = {"task_id": "x", "status": "FAILURE", "fail_reason": "timed out", "data": work}
        generation = read_many([row])["x"]
        assert (generation.state, generation.failure_reason) == (GenerationState.FAILED, "timed out")

    def test_row_has_the_time(self):
        """The row's time of creation counts while the generation is not there yet."""
        row = {"task_id": "x", "status": "NOT_START", "created_at": 1768469400, "data": None}
        assert read_many([row])["x"].created_at == pendulum.datetime(2026, 1, 15, 9, 30)

    @pytest.mark.parametrize("payload", [{}, {"data": []}, {"id": "x", "state": "pending"}, b'"x"', b"null"])
    def test_other_answers_are_errors(self, payload):
        """An answer that is not a list does not mean that the ids are unknown."""
        with pytest.raises(LumaServerError):
            read_many(payload)


class TestError:
    @pytest.mark.parametrize(
        ("name", "status", "code"),
        [
            ("error_200", 200, "upstream_error"),
            ("error_task", 400, "task_not_exist"),
            ("error_openai", 401, "invalid_token"),
            ("error_detail", 401, "1"),
            ("error_detail_text", 401, None),
            ("error_quota", 403, "insufficient_user_quota"),
        ],
    )
    def test_each_shape_has_its_code(self, name, status, code):
        """The code is read from each of the three shapes of an error."""
        assert error_of(name, status).code == code

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("error_200", "HTTP 400, upstream_error, no channel is available. Change the request"),
            ("error_task", "HTTP 400, task_not_exist. "),
            ("error_openai", "HTTP 400, invalid_token, 无效的令牌 (request id: 20260115). Change the request"),
            ("error_detail", "HTTP 400, 1, unauthorized secret token. Change the request"),
            ("error_detail_text", "HTTP 400, Invalid API key is provided. Change the request"),
        ],
    )
    def test_message_has_code_and_text(self, name, said):
        """The message has the code and the text, once if they are equal, and the advice."""
        assert said in f"{error_of(name, 400)} "

    def test_unknown_call_asks_for_the_host(self):
        """A 404 in other words than those for an unknown id asks if the host is right."""
        error = error_of({"code": "not_found"}, 404)
        assert (error.unknown_id, error.from_api) == (False, True)
        assert "Is the host a Luma gateway" in str(error)
        assert "Is the host a Luma gateway" in str(error_of(b"<html></html>", 404))
        assert "Is the host" not in str(error_of("error_task", 400))

    @pytest.mark.parametrize(
        ("status", "said", "kind"),
        [
            (400, "the prompt has too many tokens", LumaInvalidRequest),
            (400, "the host of image_url answered: Unauthorized", LumaInvalidRequest),
            (502, "the host of image_url answered: Unauthorized", LumaServerError),
            (401, "Unauthorized", LumaAuthenticationError),
            (500, "Unauthorized", LumaAuthenticationError),
        ],
    )
    def test_refused_token_is_recognised(self, status, said, kind):
        """Only some statuses show that a text about authorization is about this token."""
        assert type(error_of({"detail": said}, status)) is kind

    def test_request_id_is_kept(self):
        """The gateway's support finds a request by the id in the answer or in its header."""
        assert error_of({"code": "x", "message": "y", "request_id": "r-1"}, 400).request_id == "r-1"
        assert error_of({"code": "x"}, 400, **{"X-Oneapi-Request-Id": "r-2"}).request_id == "r-2"

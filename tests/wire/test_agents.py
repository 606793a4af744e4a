"""Luma's own API over HTTP: which connection speaks it, and what operators, sensor and hook do with it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from datetime import datetime, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_luma.api import (
    LumaAmbiguousSubmission,
    LumaClient,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.operators.luma import (
    LumaDownloadVideoOperator,
    LumaExtendVideoOperator,
    LumaGenerateVideoOperator,
)
from airflow_provider_luma.operators.submission import STORE_KEY
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from tests.support.agents_judge import judge_submissions
from tests.support.raw_answers import far_end
from tests.support.tries import Killed, Store, Task

KEY = "luma-api-4711"
PROMPT = "A paper boat crosses a puddle"
PNG = b"\x89PNG\r\n\x1a\n"
OPERATOR = "airflow.task.operators.airflow_provider_luma.operators.luma.LumaGenerateVideoOperator"


@pytest.fixture
def sandbox(connect):
    """Luma's own API, to which the connection luma_default leads; its own SDK judges what was submitted."""
    with Sandbox(token=KEY, seconds=0) as sandbox:
        connect(host=sandbox.url, password=KEY, extra={"api": "agents"})
        yield sandbox
        # One whose process was killed before it left has no body.
        judge_submissions(request for request in sandbox.requests if request.content)


@pytest.fixture
def store():
    return Store()


def submissions(sandbox):
    return [request for request in sandbox.requests if request.method == "POST"]


class TestKey:
    """Where a key of Luma's goes."""

    @pytest.mark.parametrize("key", [KEY, f"Bearer {KEY}", "luma-former"])
    def test_a_gateway_never_sees_a_luma_key_whatever_is_asked(self, key, connect, store):
        with far_end(*[b""] * 9) as (url, requests):
            connect(host=url, password=key)
            hook = LumaHook()
            for ask in (
                hook.submit,
                hook.get_generation,
                lambda _: hook.get_conn(),
                lambda x: hook.get_generations([x]),
                hook.wait_for_generation,
            ):
                with pytest.raises(LumaInvalidRequest, match="'luma_default': the API token begins with luma-"):
                    ask(PROMPT)
            works, said = hook.test_connection()
            with pytest.raises(AirflowFailException, match=r"set the extra 'api' to gateway. Nothing was sent."):
                Task(store).run()
            with pytest.raises(AirflowFailException, match=r"which is not sent to 127\.0\.0\.1"):
                LumaGenerationSensor(task_id="wait", generation_id="x").poke({"ti": Task(store)})
            with pytest.raises(LumaInvalidRequest, match="which is not sent to"):
                LumaClient(url, key)
        assert requests == []
        assert (works, said.count("leave the host empty or set it to agents.lumalabs.ai")) == (False, 1)
        assert store.rows == {}

    def test_a_gateway_gets_a_luma_key_where_the_extra_says_gateway(self, connect):
        with Sandbox(token=KEY, seconds=0) as sandbox:
            connect(host=sandbox.url, password=KEY, extra={"api": "gateway"})
            assert LumaHook().submit(PROMPT).id
            assert [request.path for request in submissions(sandbox)] == ["/luma/generations"]

    @pytest.mark.parametrize(
        ("fields", "url"),
        [
            ({"password": KEY}, "https://agents.lumalabs.ai/v1"),
            ({"password": KEY, "host": "agents.lumalabs.ai/v1"}, "https://agents.lumalabs.ai/v1"),
            ({"password": "sk-1", "extra": {"api": "agents"}}, "https://agents.lumalabs.ai/v1"),
            ({"password": "sk-1", "extra": {"api": None}}, "https://www.kkiai.com"),
            ({"password": "sk-1", "extra": {"api": ""}}, "https://www.kkiai.com"),
            ({"password": "sk-1"}, "https://www.kkiai.com"),
        ],
    )
    def test_the_extra_counts_before_the_host_and_the_host_before_the_key(self, fields, url, connect):
        connect(**fields)
        assert LumaHook().get_conn().url == url

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"password": "luma-1"}, "Luma's former API"),
            ({"password": KEY, "host": "api.lumalabs.ai"}, "Luma's former API"),
            ({"password": KEY, "extra": {"api": "dream"}}, "the extra 'api' must be gateway or agents, got 'dream'"),
        ],
    )
    def test_a_refused_connection_is_named_by_the_hook_and_not_by_the_test_button(self, fields, message, connect):
        connect(**fields)
        with pytest.raises(LumaInvalidRequest, match=f"^The connection 'luma_default': {message}"):
            LumaHook().get_conn()
        works, said = LumaHook().test_connection()
        assert not works
        assert said.startswith(message)

    @pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
    def test_a_host_of_ones_own_works_with_and_without_v1_at_its_end(self, end, sandbox, connect):
        connect(host=sandbox.url + end, password=KEY, extra={"api": "agents"})
        assert LumaHook().submit(PROMPT).id

    def test_test_connection_names_lumas_own_api_and_spends_nothing(self, sandbox):
        assert LumaHook().test_connection() == (True, f"{sandbox.url}/v1 is Luma's own API and accepts the token.")
        assert submissions(sandbox) == []

    def test_test_connection_does_not_repeat_a_bad_key(self, sandbox, connect):
        connect(host=sandbox.url, password="luma-api-wrong", extra={"api": "agents"})
        works, said = LumaHook().test_connection()
        assert not works
        assert "HTTP 401, Missing or invalid API key. Check the API key" in said
        assert "luma-api-wrong" not in said


@pytest.mark.usefixtures("sandbox")
class TestTasks:
    def test_a_task_submits_waits_and_has_a_video(self, sandbox, store):
        task = Task(store, wait_for_completion=True, aspect_ratio="9:16", duration="10s")
        generation_id = task.run()
        (request,) = submissions(sandbox)
        assert request.body == {
            "model": "ray-3.2",
            "type": "video",
            "prompt": PROMPT,
            "aspect_ratio": "9:16",
            "video": {"duration": "10s"},
        }
        assert task.xcoms["generation"]["video_url"].startswith(sandbox.url)
        assert store.get(STORE_KEY)["generation_id"] == generation_id
        assert task.xcoms["luma"]["request"]["aspect_ratio"] == "9:16"

    def test_a_task_extends_a_generation(self, sandbox, store):
        first = LumaHook().submit(PROMPT).id
        assert Task(store, generation_id=first).run(LumaExtendVideoOperator)
        assert submissions(sandbox)[-1].body["video"] == {"start_frame": {"generation_id": first}}

    @pytest.mark.parametrize(("argument", "field"), [("image_url", "start_frame"), ("image_end_url", "end_frame")])
    def test_an_image_from_storage_is_sent_as_base64(self, argument, field, sandbox, store, tmp_path):
        (tmp_path / "boat.png").write_bytes(PNG)
        Task(store, **{argument: str(tmp_path / "boat.png")}).run()
        (request,) = submissions(sandbox)
        assert request.body["video"] == {field: {"data": "iVBORw0KGgo=", "media_type": "image/png"}}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"expand_prompt": True}, "has no expand_prompt"),
            ({"notify_hook": "https://example.com"}, "has no notify_hook"),
            ({"model_name": "ray-v2"}, "model_name ray-v2 is a gateway's"),
            ({"image_url": "http://example.com/x.png"}, "image_url is an https URL"),
            ({"duration": "10s", "image_url": "https://example.com/x.png"}, "10s does not go with image_url"),
            ({"user_prompt": None, "image_url": "https://example.com/x.png"}, "user_prompt is needed"),
        ],
    )
    def test_an_argument_without_a_counterpart_fails_the_task_when_it_runs_and_nothing_is_sent(
        self, arguments, message, sandbox, store
    ):
        task = Task(store, **arguments)
        with pytest.raises(AirflowFailException, match=message):
            task.run()
        assert sandbox.requests == []
        assert store.rows == {}

    def test_a_prompt_of_two_characters_is_accepted(self, store):
        assert Task(store, user_prompt="ab").run()

    def test_the_sensor_returns_the_generation(self, store):
        generation_id = LumaHook().submit(PROMPT).id
        sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id)
        assert sensor.poke({"ti": Task(store)}).xcom_value["id"] == generation_id

    def test_a_deferred_task_gets_its_generation_from_single_polls(self, sandbox, store):
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred) as caught:
            task.run()
        event = asyncio.run(anext(caught.value.trigger.run())).payload
        operator = LumaGenerateVideoOperator(task_id="submit", **task.arguments)
        assert operator.execute_complete({"ti": task}, event) == task.xcoms["return_value"]
        assert task.xcoms["generation"]["video_url"].startswith(sandbox.url)
        assert {request.path for request in sandbox.requests if request.method == "GET"} == {
            f"/v1/generations/{task.xcoms['return_value']}"
        }

    @pytest.mark.parametrize(
        ("code", "advice"),
        [
            ("content_moderated", "Moderation refused it"),
            ("budget_exhausted", "see first what the reason asks for"),
            ("image_too_large", "see first what the reason asks for"),
            ("unsupported_format", "see first what the reason asks for"),
            ("corrupt_input", "see first what the reason asks for"),
            ("invalid_request", "see first what the reason asks for"),
            ("solar_flare", "see first what the reason asks for"),
            ("none", "see first what the reason asks for"),
        ],
    )
    def test_a_failure_that_a_retry_cannot_help_fails_at_once_and_is_named_by_its_code(
        self, code, advice, sandbox, store
    ):
        task = Task(store, user_prompt=f"{PROMPT} [fail:{code}]", wait_for_completion=True)
        named = "" if code == "none" else f"{code}: "
        with pytest.raises(AirflowFailException, match=f"failed: {named}.*{advice}"):
            task.run()
        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize("code", ["generation_failed", "output_not_found", "rate_limited"])
    def test_a_failure_that_a_retry_may_help_is_submitted_again_by_the_next_try(self, code, sandbox, store):
        task = Task(store, user_prompt=f"{PROMPT} [fail:{code}]", wait_for_completion=True)
        for paid in (1, 2):
            with pytest.raises(LumaGenerationFailed, match=f"failed: {code}: .*clear or retry the task that"):
                task.run()
            assert sandbox.report()["charged"] == paid

    def test_an_id_that_is_unknown_right_after_its_submission_is_waited_for(self, sandbox, store):
        sandbox.change(visible_after=0.3)
        assert Task(store, wait_for_completion=True).run()
        assert 404 in [request.status for request in sandbox.requests]
        assert sandbox.report()["charged"] == 1

    def test_many_generations_are_polled_one_by_one_and_an_unknown_one_is_left_out(self):
        hook = LumaHook()
        ids = [hook.submit(PROMPT).id for _ in range(3)]
        assert set(hook.get_generations([*ids, "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"])) == set(ids)

    def test_a_download_asks_for_a_fresh_url_in_place_of_an_expired_one(self, connect, store, tmp_path):
        with Sandbox(token=KEY, seconds=0, url_seconds=0.2) as sandbox:
            connect(host=sandbox.url, password=KEY, extra={"api": "agents"})
            hook = LumaHook()
            known = hook.get_generation(hook.submit(PROMPT).id)
            operator = LumaDownloadVideoOperator(
                task_id="store",
                generation={**known.as_dict(), "video_url": f"{sandbox.url}/gone"},
                destination=str(tmp_path),
            )
            operator.execute({"ti": Task(store)})
        assert (tmp_path / f"{known.id}.mp4").stat().st_size > 0


class TestPayingOnce:
    def test_the_record_has_the_api_and_the_request_id(self, sandbox, store):
        Task(store).run()
        (request,) = submissions(sandbox)
        record = store.get(STORE_KEY)
        assert record["api"] == f"agents {sandbox.url}"
        assert record["request_id"] == request.headers["x-request-id"]

    def test_the_request_id_is_logged_before_it_leaves_and_stands_in_the_ambiguous_error(
        self, sandbox, store, caplog, capsys
    ):
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException) as caught:
            task.run()
        (request,) = submissions(sandbox)
        logged = capsys.readouterr().out + caplog.text
        assert f"Submitting to agents {sandbox.url} with X-Request-Id {request.headers['x-request-id']}" in logged
        assert f"X-Request-Id, for the API's support, is {request.headers['x-request-id']}." in str(caught.value)
        assert caught.value.__cause__.request_id == request.headers["x-request-id"]

    def test_after_a_kill_while_submitting_the_next_tries_error_has_the_request_id(self, sandbox, store):
        store.kill_after = lambda record: "generation_id" not in record
        task = Task(store)
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match=f"api agents {sandbox.url}, request_id [0-9a-f-]+ and never"):
            task.run()
        assert sandbox.report()["charged"] == 0

    def test_no_two_submissions_share_a_request_id(self, sandbox):
        hook = LumaHook()
        hook.submit(PROMPT)
        hook.submit(PROMPT)
        assert len({request.headers["x-request-id"] for request in submissions(sandbox)}) == 2

    @pytest.mark.parametrize("status", [502, 503])
    def test_a_502_or_503_of_the_api_itself_is_not_charged_and_the_next_try_submits(self, status, sandbox, store):
        task = Task(store)
        with pytest.raises(LumaServerError, match=f"HTTP {status}"):
            task.run(user_prompt=f"{PROMPT} [{status}]")
        assert store.rows == {}
        assert task.run()
        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize("word", ["proxy", "html", "drop"])
    def test_an_answer_from_something_in_between_is_ambiguous(self, word, sandbox):
        with pytest.raises(LumaAmbiguousSubmission, match="may have been accepted and charged"):
            LumaHook().submit(f"{PROMPT} [{word}]")
        assert sandbox.report()["charged"] == 1

    def test_a_403_page_is_ambiguous_for_a_submission_and_no_verdict_on_the_key(self, no_retries, connect, store):
        page = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\n<html></html>"
        with far_end(page, page) as (url, _):
            connect(host=url, password=KEY, extra={"api": "agents"})
            with pytest.raises(AirflowFailException, match="may have been accepted and charged"):
                Task(store).run()
            with pytest.raises(LumaServerError, match="did not come from Luma's own API"):
                LumaHook().get_generation("5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51")

    def test_a_connection_that_moved_to_luma_resumes_no_id_of_the_gateways_and_pays_nothing(
        self, sandbox, connect, store
    ):
        with Sandbox(token="sk-1", seconds=0) as gateway:
            connect(host=gateway.url, password="sk-1")
            task = Task(store, wait_for_completion=True)
            store.kill_after = lambda record: record.get("generation_id")
            with pytest.raises(Killed):
                task.run()
        connect(host=sandbox.url, password=KEY, extra={"api": "agents"})
        with pytest.raises(AirflowFailException, match=f"gateway {gateway.url}, .* leads to agents {sandbox.url}"):
            task.run()
        assert sandbox.requests == []
        task.clear()
        assert task.run()
        assert sandbox.report()["charged"] == 1


class TestTooMany:
    """The two kinds of 429."""

    def test_too_many_generations_at_once_defers_without_holding_a_worker(self, sandbox, store):
        task = Task(store, user_prompt=f"{PROMPT} [busy]")
        with pytest.raises(TaskDeferred) as caught:
            task.run()
        _, kwargs = caught.value.trigger.serialize()
        assert 55 < (kwargs["moment"] - datetime.now(timezone.utc)).total_seconds() <= 75
        assert len(submissions(sandbox)) == 1
        assert store.rows == {}
        operator = LumaGenerateVideoOperator(task_id="submit", **task.arguments)
        assert getattr(operator, caught.value.method_name)({"ti": task, "task_state_store": store}, event={})
        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize(("seconds", "sent"), [(1, 2), (15, 1), (40, 1)])
    def test_too_many_calls_are_waited_for_on_the_worker_only_if_that_is_short(
        self, seconds, sent, sandbox, store, monkeypatch
    ):
        monkeypatch.setattr("airflow_provider_luma.api.client.LONGEST_PAUSE", 2.0)
        with pytest.raises(TaskDeferred) if sent == 1 else nullcontext():
            Task(store, user_prompt=f"{PROMPT} [429:{seconds}]").run()
        assert len(submissions(sandbox)) == sent

    def test_both_kinds_of_429_keep_their_text_and_their_seconds(self, sandbox, no_retries):
        client = LumaHook().get_conn()
        with pytest.raises(LumaRateLimited, match="HTTP 429, Too many concurrent jobs") as busy:
            client.submit(f"{PROMPT} [busy]")
        with pytest.raises(LumaRateLimited, match="HTTP 429, Rate limit exceeded") as often:
            client.submit(f"{PROMPT} [429:7]")
        assert (busy.value.retry_after, often.value.retry_after) == (60, 7)

"""Luma's own API over HTTP: its connections, and its operators, sensor and hook."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from datetime import datetime, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_luma.api import (
    LumaAmbiguousSubmission,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.waiting import Wait
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
from tests.support.raw_answers import error_answer, far_end
from tests.support.tries import Killed, Store, Task

KEY = "luma-api-4711"
PROMPT = "A paper boat crosses a puddle"
PNG = b"\x89PNG\r\n\x1a\n"
OPERATOR = "airflow.task.operators.airflow_provider_luma.operators.luma.LumaGenerateVideoOperator"


@pytest.fixture
def sandbox(connect):
    """Luma's own API, to which the connection luma_default points; its own SDK judges each submission."""
    with Sandbox(token=KEY, seconds=0) as sandbox:
        connect(host=sandbox.url, password=KEY, extra={"api": "agents"})
        yield sandbox
        # A submission whose process was killed before it was sent has no body.
        judge_submissions(request for request in sandbox.requests if request.content)


@pytest.fixture
def store():
    return Store()


def submissions(sandbox):
    return [request for request in sandbox.requests if request.method == "POST"]


class TestKey:
    @pytest.mark.parametrize("key", [KEY, f"Bearer {KEY}"])
    def test_is_sent_to_no_gateway(self, key, connect, store):
        """A key of Luma's own API is not sent to another host by any call; each says how to change the connection."""
        with far_end(*[b""] * 9) as (url, requests):
            connect(host=url, password=key)
            hook = LumaHook()
            for call in (
                hook.submit,
                hook.get_generation,
                lambda _: hook.get_conn(),
                lambda x: hook.get_generations([x]),
                hook.wait_for_generation,
            ):
                with pytest.raises(LumaInvalidRequest, match=r"'luma_default': the API token is a key of Luma's own"):
                    call(PROMPT)
            works, said = hook.test_connection()
            with pytest.raises(AirflowFailException, match=r"this token, set the extra 'api' to gateway\."):
                Task(store).run()
            with pytest.raises(AirflowFailException, match=r"which is not sent to 127\.0\.0\.1"):
                LumaGenerationSensor(task_id="wait", generation_id="x").poke({"ti": Task(store)})
        assert requests == []
        assert (works, said.count("leave the host empty or set it to agents.lumalabs.ai")) == (False, 1)
        assert store.rows == {}

    def test_is_sent_to_chosen_gateway(self, connect):
        """A gateway gets such a key if the connection chooses the gateway."""
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
        ],
    )
    def test_connection_chooses_the_api(self, fields, url, connect):
        """The extra counts before the host, and the host before the key."""
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
    def test_refused_connection_is_named(self, fields, message, connect):
        """The hook names a refused connection; the test button does not, because Airflow generates its id."""
        connect(**fields)
        with pytest.raises(LumaInvalidRequest, match=f"^The connection 'luma_default': {message}"):
            LumaHook().get_conn()
        works, said = LumaHook().test_connection()
        assert not works
        assert said.startswith(message)

    def test_connection_test_names_the_api(self, sandbox):
        """The test of a connection names the API and spends nothing."""
        assert LumaHook().test_connection() == (True, f"{sandbox.url}/v1 is Luma's own API and accepts the token.")
        assert submissions(sandbox) == []

    def test_wrong_key_is_not_repeated(self, sandbox, connect):
        """The message about a wrong key does not repeat it."""
        connect(host=sandbox.url, password="luma-api-wrong", extra={"api": "agents"})
        works, said = LumaHook().test_connection()
        assert not works
        assert "HTTP 401, Missing or invalid API key. Check the API key" in said
        assert "luma-api-wrong" not in said


class TestTask:
    def test_submits_and_waits(self, sandbox, store):
        """A task submits, waits and has a video; the record has the API and the request id."""
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
        assert task.xcoms["luma"]["request"]["aspect_ratio"] == "9:16"
        record = store.get(STORE_KEY)
        assert record["generation_id"] == generation_id
        assert record["api"] == f"agents {sandbox.url}"
        assert record["request_id"] == request.headers["x-request-id"]

    def test_extends_a_generation(self, sandbox, store):
        """An extension has the earlier generation as its first frame."""
        first = LumaHook().submit(PROMPT).id
        assert Task(store, generation_id=first).run(LumaExtendVideoOperator)
        assert submissions(sandbox)[-1].body["video"] == {"start_frame": {"generation_id": first}}

    @pytest.mark.parametrize(("argument", "field"), [("image_url", "start_frame"), ("image_end_url", "end_frame")])
    def test_image_from_storage_is_base64(self, argument, field, sandbox, store, tmp_path):
        """An image from storage is sent as base64 with its media type."""
        (tmp_path / "boat.png").write_bytes(PNG)
        Task(store, **{argument: str(tmp_path / "boat.png")}).run()
        (request,) = submissions(sandbox)
        assert request.body["video"] == {field: {"data": "iVBORw0KGgo=", "media_type": "image/png"}}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"expand_prompt": True}, "has no expand_prompt"),
            ({"model_name": "ray-v2"}, "ray-v2 is a gateway model"),
            ({"image_url": "http://example.com/x.png"}, "image_url must be an https URL"),
        ],
    )
    def test_no_counterpart_fails_without_retry(self, arguments, message, sandbox, store):
        """An argument without a counterpart fails the task when it runs; nothing is sent or recorded."""
        task = Task(store, **arguments)
        with pytest.raises(AirflowFailException, match=message):
            task.run()
        assert sandbox.requests == []
        assert store.rows == {}

    def test_api_refusal_fails_without_retry(self, sandbox, store):
        """A request that the API refuses fails the task without a retry; nothing is charged or recorded."""
        task = Task(store, duration="10s", image_url="https://example.com/x.png")
        with pytest.raises(AirflowFailException, match=r"HTTP 4.*start_frame.*Change the request"):
            task.run()
        assert sandbox.report()["charged"] == 0
        assert store.rows == {}

    def test_sensor_returns_the_generation(self, sandbox, store):
        """The sensor returns the generation as a dict."""
        generation_id = LumaHook().submit(PROMPT).id
        sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id)
        assert sensor.execute({"ti": Task(store)})["id"] == generation_id

    def test_deferred_task_is_polled_singly(self, sandbox, store):
        """A deferred task gets its generation from single polls."""
        task = Task(store, wait_for_completion=True, deferrable=True)
        sandbox.change(seconds=600)
        with pytest.raises(TaskDeferred) as caught:
            task.run()
        sandbox.finish(task.xcoms["return_value"])
        event = asyncio.run(anext(caught.value.trigger.run())).payload
        operator = LumaGenerateVideoOperator(task_id="submit", **task.arguments)
        assert operator.execute_complete({"ti": task}, event) == task.xcoms["return_value"]
        assert task.xcoms["generation"]["video_url"].startswith(sandbox.url)
        polled = [request.path for request in sandbox.requests if request.method == "GET"]
        assert {*polled} == {f"/v1/generations/{task.xcoms['return_value']}"}

    @pytest.mark.parametrize(
        ("code", "advice"),
        [
            ("content_moderated", "Moderation refused it"),
            ("budget_exhausted", "first do what the reason asks for"),
            ("image_too_large", "first do what the reason asks for"),
            ("unsupported_format", "first do what the reason asks for"),
            ("corrupt_input", "first do what the reason asks for"),
            ("invalid_request", "first do what the reason asks for"),
            ("solar_flare", "first do what the reason asks for"),
            ("none", "first do what the reason asks for"),
        ],
    )
    def test_final_failure_has_no_retry(self, code, advice, sandbox, store):
        """A failure after which no retry helps fails the task without one, and is named by its code."""
        task = Task(store, user_prompt=f"{PROMPT} [fail:{code}]", wait_for_completion=True)
        named = "" if code == "none" else f"{code}: "
        with pytest.raises(AirflowFailException, match=f"failed: {named}.*{advice}"):
            task.run()
        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize("code", ["generation_failed", "output_not_found", "rate_limited"])
    def test_other_failure_is_submitted_again(self, code, sandbox, store):
        """A failure after which a retry may help is submitted again by the next try."""
        task = Task(store, user_prompt=f"{PROMPT} [fail:{code}]", wait_for_completion=True)
        for paid in (1, 2):
            with pytest.raises(LumaGenerationFailed, match=f"failed: {code}: .*retry or clear the task that"):
                task.run()
            assert sandbox.report()["charged"] == paid

    def test_waits_for_an_unknown_id(self, sandbox, store):
        """An id that is unknown directly after its submission is polled again."""
        sandbox.change(visible_after=0.3)
        assert Task(store, wait_for_completion=True).run()
        assert 404 in [request.status for request in sandbox.requests]
        assert sandbox.report()["charged"] == 1

    def test_wait_polls_once(self, connect):
        """A wait sends each poll once, because it polls again itself."""
        with far_end(*[error_answer(500)] * 2) as (url, requests):
            connect(host=url, password=KEY, extra={"api": "agents"})
            wait = Wait("x", log=logging.getLogger("test"))
            assert LumaHook().poll(wait) is None
            assert len(requests) == 1
        assert wait.memory["failures"] == 1

    def test_polls_many_singly(self, sandbox):
        """Many generations are polled one by one; an unknown one is left out."""
        hook = LumaHook()
        ids = [hook.submit(PROMPT).id for _ in range(3)]
        assert set(hook.get_generations([*ids, "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"])) == set(ids)

    def test_expired_url_is_replaced(self, connect, store, tmp_path):
        """A download gets a new URL in place of an expired one."""
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
    def test_request_id_is_logged_first(self, sandbox, store, caplog, capsys):
        """The request id is logged before the submission is sent, and is in the error of an ambiguous one."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException) as caught:
            task.run()
        (request,) = submissions(sandbox)
        request_id = request.headers["x-request-id"]
        logged = capsys.readouterr().out + caplog.text
        assert f"Submitting to agents {sandbox.url} with X-Request-Id {request_id}" in logged
        assert f"For the API's support: X-Request-Id {request_id}." in str(caught.value)
        assert caught.value.__cause__.request_id == request_id

    def test_request_id_survives_a_kill(self, sandbox, store):
        """After a kill during the submission, the next try's error has the request id."""
        store.kill_after = lambda record: "generation_id" not in record
        task = Task(store)
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match=f"api agents {sandbox.url}, request_id [0-9a-f-]+ and never"):
            task.run()
        assert sandbox.report()["charged"] == 0

    def test_each_submission_has_its_id(self, sandbox):
        """No two submissions share a request id."""
        hook = LumaHook()
        hook.submit(PROMPT)
        hook.submit(PROMPT)
        assert len({request.headers["x-request-id"] for request in submissions(sandbox)}) == 2

    @pytest.mark.parametrize("status", [502, 503])
    def test_own_502_is_not_charged(self, status, sandbox, store):
        """A 502 or 503 of the API itself is not charged, and the next try submits."""
        task = Task(store)
        with pytest.raises(LumaServerError, match=f"HTTP {status}"):
            task.run(user_prompt=f"{PROMPT} [{status}]")
        assert store.rows == {}
        assert task.run()
        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize("word", ["proxy", "html", "drop"])
    def test_answer_of_a_proxy_is_ambiguous(self, word, sandbox):
        """An answer that the API did not give leaves it unknown whether a submission was charged."""
        with pytest.raises(LumaAmbiguousSubmission, match="may have been accepted and charged"):
            LumaHook().submit(f"{PROMPT} [{word}]")
        assert sandbox.report()["charged"] == 1

    def test_403_page_is_no_verdict(self, no_retries, connect, store):
        """A page with 403 makes a submission ambiguous, and does not mean that a poll's key is wrong."""
        page = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\n<html></html>"
        with far_end(page, page) as (url, _):
            connect(host=url, password=KEY, extra={"api": "agents"})
            with pytest.raises(AirflowFailException, match="may have been accepted and charged"):
                Task(store).run()
            with pytest.raises(LumaServerError, match="Something in front of Luma's own API gave this answer"):
                LumaHook().get_generation("5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51")

    def test_moved_connection_resumes_nothing(self, sandbox, connect, store):
        """If the connection moved to another API, a task neither resumes nor pays; without the record it submits."""
        with Sandbox(token="sk-1", seconds=0) as gateway:
            connect(host=gateway.url, password="sk-1")
            task = Task(store, wait_for_completion=True)
            store.kill_after = lambda record: record.get("generation_id")
            with pytest.raises(Killed):
                task.run()
        connect(host=sandbox.url, password=KEY, extra={"api": "agents"})
        with pytest.raises(AirflowFailException, match=f"to gateway {gateway.url}. .* points to agents {sandbox.url}"):
            task.run()
        assert sandbox.requests == []
        store.delete(STORE_KEY)
        assert task.run()
        assert sandbox.report()["charged"] == 1


class TestTooMany:
    def test_busy_account_defers(self, sandbox, store):
        """With too many running generations, a task defers for a minute, holds no worker, and then submits."""
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

    @pytest.mark.parametrize(("seconds", "sent"), [(1, 2), (16, 1)])
    def test_short_pause_holds_the_worker(self, seconds, sent, sandbox, store):
        """After too many calls, a task waits on its worker only if the pause is short."""
        with pytest.raises(TaskDeferred) if sent == 1 else nullcontext():
            Task(store, user_prompt=f"{PROMPT} [429:{seconds}]").run()
        assert len(submissions(sandbox)) == sent

    def test_each_429_keeps_its_text(self, sandbox, no_retries):
        """Both kinds of 429 keep their text and their seconds."""
        client = LumaHook().get_conn()
        with pytest.raises(LumaRateLimited, match="HTTP 429, Too many concurrent jobs") as busy:
            client.submit(f"{PROMPT} [busy]")
        with pytest.raises(LumaRateLimited, match="HTTP 429, Rate limit exceeded") as often:
            client.submit(f"{PROMPT} [429:7]")
        assert (busy.value.retry_after, often.value.retry_after) == (60, 7)

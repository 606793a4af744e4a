"""Luma's own API over HTTP: which connection speaks it, and what operators, sensor and hook do with it."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_luma.api import (
    LumaAmbiguousSubmission,
    LumaClient,
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
from tests.wire.test_client import far_end
from tests.wire.test_submission import Killed, Store, Task

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
    def test_no_gateway(self, key, connect, store):
        """No gateway sees it, whatever is asked, and each error says what to do."""
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

    def test_in_so_many_words(self, connect):
        """A gateway that gives out such keys itself gets it where the extra says so."""
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
    def test_choice(self, fields, url, connect):
        """The extra decides, then the host, then the key."""
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
    def test_refused(self, fields, message, connect):
        """What cannot be meant is said with the connection's name, and by the connection's test without it."""
        connect(**fields)
        with pytest.raises(LumaInvalidRequest, match=f"^The connection 'luma_default': {message}"):
            LumaHook().get_conn()
        works, said = LumaHook().test_connection()
        assert not works
        assert said.startswith(message)

    @pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
    def test_own_host(self, end, sandbox, connect):
        """A proxy, or the sandbox, works with and without the API's version at its end."""
        connect(host=sandbox.url + end, password=KEY, extra={"api": "agents"})
        assert LumaHook().submit(PROMPT).id

    def test_test(self, sandbox):
        """The connection's test says which API it is, and spends nothing."""
        assert LumaHook().test_connection() == (True, f"{sandbox.url}/v1 is Luma's own API and accepts the token.")
        assert submissions(sandbox) == []

    def test_bad_key(self, sandbox, connect):
        """And tells a bad key, which it does not repeat."""
        connect(host=sandbox.url, password="luma-api-wrong", extra={"api": "agents"})
        works, said = LumaHook().test_connection()
        assert not works
        assert "HTTP 401, Missing or invalid API key. Check the API key" in said
        assert "luma-api-wrong" not in said


@pytest.mark.usefixtures("sandbox")
class TestTasks:
    def test_generate(self, sandbox, store):
        """A task submits, waits and has a video."""
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

    def test_extend(self, sandbox, store):
        """So does one that extends another's."""
        first = LumaHook().submit(PROMPT).id
        assert Task(store, generation_id=first).run(LumaExtendVideoOperator)
        assert submissions(sandbox)[-1].body["video"] == {"start_frame": {"generation_id": first}}

    def test_image_from_storage(self, sandbox, store, tmp_path):
        """An image out of storage goes along as base64."""
        (tmp_path / "boat.png").write_bytes(PNG)
        Task(store, image_url=str(tmp_path / "boat.png")).run()
        (request,) = submissions(sandbox)
        assert request.body["video"] == {"start_frame": {"data": "iVBORw0KGgo=", "media_type": "image/png"}}

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
    def test_refused_at_run(self, arguments, message, sandbox, store):
        """What this API has no counterpart for fails the task for good, when it runs, and nothing is sent."""
        task = Task(store, **arguments)
        with pytest.raises(AirflowFailException, match=message):
            task.run()
        assert sandbox.requests == []
        assert store.rows == {}

    def test_good_at_last(self, store):
        """What a gateway would refuse is good here."""
        assert Task(store, user_prompt="ab").run()

    def test_sensor(self, store):
        """The sensor returns what another task submitted."""
        generation_id = LumaHook().submit(PROMPT).id
        sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id)
        assert sensor.poke({"ti": Task(store)}).xcom_value["id"] == generation_id

    def test_deferred(self, sandbox, store):
        """A deferred task gets its generation from the triggerer, which asks for it alone."""
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

    def test_failed(self, store):
        """A failure says its code, and whether the same may be tried again."""
        task = Task(store, user_prompt=f"{PROMPT} [fail:budget_exhausted]", wait_for_completion=True)
        with pytest.raises(
            AirflowFailException, match=r"failed: budget_exhausted: .*see first what the reason asks for"
        ):
            task.run()

    def test_get_generations(self):
        """Many are asked for one by one; one that is unknown is left out."""
        hook = LumaHook()
        ids = [hook.submit(PROMPT).id for _ in range(3)]
        assert set(hook.get_generations([*ids, "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"])) == set(ids)

    def test_expired_url(self, connect, store, tmp_path):
        """A URL that has expired is no obstacle to storing the video: each poll has a fresh one."""
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
    def test_record(self, sandbox, store):
        """The record says which API it was, and by what its support can find the submission."""
        Task(store).run()
        (request,) = submissions(sandbox)
        record = store.get(STORE_KEY)
        assert record["api"] == f"agents {sandbox.url}"
        assert record["request_id"] == request.headers["x-request-id"]

    def test_request_id(self, sandbox, store, caplog, capsys):
        """The id of a submission is in the log before it leaves, and in the error where its answer is lost."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException) as caught:
            task.run()
        (request,) = submissions(sandbox)
        logged = capsys.readouterr().out + caplog.text
        assert f"Submitting to agents {sandbox.url} with X-Request-Id {request.headers['x-request-id']}" in logged
        assert f"X-Request-Id, for the API's support, is {request.headers['x-request-id']}." in str(caught.value)
        assert caught.value.__cause__.request_id == request.headers["x-request-id"]

    def test_killed_while_submitting(self, sandbox, store):
        """Where the process ended before the answer came, the next try's error has the id."""
        store.kill_after = lambda record: "generation_id" not in record
        task = Task(store)
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match=f"api agents {sandbox.url}, request_id [0-9a-f-]+ and never"):
            task.run()
        assert sandbox.report()["charged"] == 0

    def test_own_id_each(self, sandbox):
        """No two submissions share an id."""
        hook = LumaHook()
        hook.submit(PROMPT)
        hook.submit(PROMPT)
        assert len({request.headers["x-request-id"] for request in submissions(sandbox)}) == 2

    @pytest.mark.parametrize("status", [502, 503])
    def test_refused_by_the_api(self, status, sandbox, store):
        """A part of the API that is down refuses, which is free: the next try submits."""
        task = Task(store)
        with pytest.raises(LumaServerError, match=f"HTTP {status}"):
            task.run(user_prompt=f"{PROMPT} [{status}]")
        assert store.rows == {}
        assert task.run()
        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize("word", ["proxy", "html", "drop"])
    def test_something_between(self, word, sandbox):
        """An answer that is not the API's own leaves it in doubt."""
        with pytest.raises(LumaAmbiguousSubmission, match="may have been accepted and charged"):
            LumaHook().submit(f"{PROMPT} [{word}]")
        assert sandbox.report()["charged"] == 1

    def test_page_that_forbids(self, connect, store):
        """So does a page with 403: it is no verdict on the key, and no refusal of the submission."""
        page = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\n<html></html>"
        with far_end(page, page) as (url, _):
            connect(host=url, password=KEY, extra={"api": "agents"})
            with pytest.raises(AirflowFailException, match="may have been accepted and charged"):
                Task(store).run()
            with pytest.raises(LumaServerError, match="did not come from Luma's own API"):
                LumaHook(retry_for=0).get_generation("5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51")

    def test_moved_to_luma(self, sandbox, connect, store):
        """A connection that has moved from a gateway to Luma resumes no id of the gateway's, and pays nothing."""
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

    def test_too_many_at_once(self, sandbox, store):
        """A submission that waits for a slot defers at once, and takes no worker meanwhile."""
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
    def test_too_many_calls(self, seconds, sent, sandbox, store, monkeypatch):
        """One that came too soon is sent again when it was told, by this worker only if that is very soon."""
        monkeypatch.setattr("airflow_provider_luma.api.client.LONGEST_PAUSE", 2.0)
        with pytest.raises(TaskDeferred) if sent == 1 else nothing():
            Task(store, user_prompt=f"{PROMPT} [429:{seconds}]").run()
        assert len(submissions(sandbox)) == sent

    def test_kinds(self, sandbox):
        """The error has the text and the seconds of either."""
        client = LumaHook(retry_for=0).get_conn()
        with pytest.raises(LumaRateLimited, match="HTTP 429, Too many concurrent jobs") as busy:
            client.submit(f"{PROMPT} [busy]")
        with pytest.raises(LumaRateLimited, match="HTTP 429, Rate limit exceeded") as often:
            client.submit(f"{PROMPT} [429:7]")
        assert (busy.value.retry_after, often.value.retry_after) == (60, 7)


class nothing:  # noqa: N801 - it stands where pytest.raises stands
    """No error is expected."""

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass

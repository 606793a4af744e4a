"""No generation is paid twice: each try reads the record of the tries before it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Stats, TaskDeferred

from airflow_provider_luma.api import (
    LumaAmbiguousSubmission,
    LumaConnectionError,
    LumaError,
    LumaGenerationFailed,
    LumaQuotaError,
)
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.operators.submission import DISCARDS_ON_CLEAR, STORE_KEY, digest
from airflow_provider_luma.sandbox import Sandbox
from tests.support.raw_answers import error_answer, far_end, json_answer
from tests.support.samples import PROMPT, TOKEN
from tests.support.tries import Killed, Store, Task

pytestmark = pytest.mark.usefixtures("connection")

START_OVER = (
    "clear the task and let the clear discard its state"
    if DISCARDS_ON_CLEAR
    else "delete the key luma_submission in the task instance's Storage tab and clear the task"
)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def charged(sandbox):
    """A function that returns how many generations the sandbox has charged."""
    return lambda: sandbox.report()["charged"]


def make_older(store, seconds=3600):
    """Change when the generation was submitted, so that the minute of grace for its id is over."""
    submitted_at = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    store.set(STORE_KEY, {**store.get(STORE_KEY), "submitted_at": submitted_at.isoformat()})


def forget_api(store):
    """Remove the API from the record."""
    record = store.get(STORE_KEY)
    del record["api"]
    store.set(STORE_KEY, record)


class TestResume:
    @pytest.mark.parametrize("cleared", [False, True])
    @pytest.mark.parametrize("waits", [False, True])
    def test_resumes_after_kill(self, waits, cleared, store, charged, logged):
        """After a kill, a retry and a clear resume the generation, and log how to get another."""
        task = Task(store, wait_for_completion=waits)
        generation_id = task.run_killed()
        if cleared:
            task.clear()
        assert task.run() == task.xcoms["return_value"] == generation_id
        assert charged() == 1
        advice = f"To get a new generation: {START_OVER}, or change the request."
        assert logged(f"Resuming generation {generation_id}. {advice}") == 1

    def test_extension_resumes_after_kill(self, store, sandbox, charged):
        """A retry of an extension resumes it."""
        task = Task(store, generation_id=sandbox.add_generation())
        extension_id = task.run_killed(LumaExtendVideoOperator)
        assert task.run(LumaExtendVideoOperator) == extension_id
        assert charged() == 2

    @pytest.mark.parametrize("accident", ["none", "failed afterwards", "retries lowered", "late callback"])
    def test_clears_pay_once(self, accident, store, charged):
        """
        However often a task is cleared with its state, it pays once.

        Also if Airflow marked it as failed after its generation was completed, if its retries were lowered, and if a
        success callback was assigned after the construction of the operator. Airflow calls such a callback even if
        its API server refuses the success.
        """
        task = Task(store, wait_for_completion=True)
        called = []
        if accident == "failed afterwards":
            task.fails_afterwards = AirflowFailException("no room for XComs")
            with pytest.raises(AirflowFailException, match="no room"):
                task.run()
            task.fails_afterwards = None
        else:
            task.late_callback = called.append if accident == "late callback" else None
            task.run()
        if accident == "retries lowered":
            task.retries = 0
        for _ in range(3):
            task.clear()
            assert task.run() == store.get(STORE_KEY)["generation_id"]
        assert charged() == 1
        assert len(called) == (4 if accident == "late callback" else 0)

    def test_clear_resumes_running_generation(self, store, sandbox, charged):
        """A clear resumes a generation that runs."""
        sandbox.change(seconds=60)
        task = Task(store, wait_for_completion=True, deferrable=True)
        for _ in range(2):
            with pytest.raises(TaskDeferred):
                task.run()
            task.clear()
        assert task.xcoms["return_value"] == store.get(STORE_KEY)["generation_id"]
        assert charged() == 1

    @pytest.mark.parametrize("trouble", ["html", "500", "drop"])
    def test_resumes_without_poll(self, trouble, store, sandbox):
        """If the generation cannot be polled, the task resumes it after a single poll."""
        task = Task(store)
        generation_id = task.run_killed()
        sandbox.weather(status={trouble: 1})
        assert task.run() == generation_id
        assert [request.method for request in sandbox.requests] == ["POST", "GET"]

    def test_invalid_connection_submits_nothing(self, store, connect, sandbox, charged):
        """If the connection became invalid, the task fails with its problem, and resumes when it is valid again."""
        task = Task(store, wait_for_completion=True)
        generation_id = task.run_killed()
        connect(host=sandbox.url, password="")
        with pytest.raises(AirflowFailException, match="'luma_default': there is no API token"):
            task.run()
        connect(host=sandbox.url, password=TOKEN)
        assert task.run() == generation_id
        assert charged() == 1


class TestSubmitAgain:
    @pytest.mark.parametrize("cleared", [False, True])
    @pytest.mark.parametrize("word", ["[fail]", "[moderated]"])
    def test_submits_after_failure(self, word, cleared, store, charged, logged):
        """If the generation failed or was moderated, the next try submits again."""
        task = Task(store, user_prompt=f"{PROMPT} {word}", wait_for_completion=True)
        for _ in range(2):
            with pytest.raises((LumaGenerationFailed, AirflowFailException)):
                task.run()
            if cleared:
                task.clear()
        assert charged() == 2
        assert logged("Submitting a new generation.") == 1

    @pytest.mark.parametrize("cleared", [False, True])
    def test_submits_changed_request(self, cleared, store, charged, logged):
        """A changed request is submitted, with a warning that names the earlier generation."""
        task = Task(store)
        first = task.run_killed()
        if cleared:
            task.clear()
        assert task.run(user_prompt="It sinks") != first
        assert logged(f"The request has changed since an earlier try submitted generation {first}: submitting") == 1
        assert charged() == 2

    def test_changed_callback_resumes(self, store, charged):
        """A changed notify_hook does not change the request."""
        task = Task(store)
        first = task.run_killed(notify_hook="https://example.com/1")
        assert task.run(notify_hook="https://example.com/2") == first
        assert charged() == 1

    def test_other_parent_is_other_request(self, store, sandbox):
        """An extension of another generation is another request."""
        task = Task(store, generation_id=sandbox.add_generation())
        first = task.run_killed(LumaExtendVideoOperator)
        assert task.run(LumaExtendVideoOperator, generation_id=sandbox.add_generation()) != first

    def test_discarded_state_submits_again(self, store, charged, logged):
        """If a clear discards the state, the task submits, and logs that the earlier generation may run."""
        task = Task(store, wait_for_completion=True)
        ids = set()
        for _ in range(3):
            ids.add(task.run())
            assert logged("that generation keeps running and is charged") == len(ids) - 1
            task.clear(discard=True)
        assert len(ids) == charged() == 3

    @pytest.mark.parametrize("record", ["text", ["a list"], 7, None])
    def test_unreadable_record_submits(self, record, store, charged):
        """A record that is not a dict is ignored."""
        store.set(STORE_KEY, record)
        assert Task(store).run() == store.get(STORE_KEY)["generation_id"]
        assert charged() == 1

    @pytest.mark.parametrize(("retries", "warned"), [(2, True), (0, False)])
    def test_no_store_submits_again(self, retries, warned, charged, logged):
        """Without a state store each try submits; the first try of a task with retries warns of that."""
        task = Task(None, retries=retries)
        for _ in range(2):
            task.run()
            assert logged("has no task state store") == warned
        assert charged() == 2


class TestLostAnswer:
    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_proxy_error_is_no_answer(self, status, store, connect):
        """After a proxy's error page the task fails without a retry, and so does a clear; a single request was sent."""
        answer = error_answer(status, b'{"detail": "unexpected token < in JSON, Gateway Timeout"}')
        with far_end(answer, answer) as (url, requests):
            connect(host=url, password=TOKEN)
            task = Task(store)
            for _ in range(2):
                with pytest.raises(AirflowFailException, match="charged"):
                    task.run()
            assert len(requests) == 1

    @pytest.mark.parametrize("word", ["[drop]", "[html]", "[500]"])
    def test_never_sends_again(self, word, store, sandbox):
        """A submission without a readable answer is not repeated by a retry or a clear; errors say what to do."""
        task = Task(store, user_prompt=f"{PROMPT} {word}")
        with pytest.raises(AirflowFailException, match=f"Look at the account's usage.*{START_OVER}"):
            task.run()
        with pytest.raises(AirflowFailException, match=f"never got the answer.*{START_OVER}"):
            task.run()
        task.clear()
        with pytest.raises(AirflowFailException, match=r"Nothing was submitted now.*(Storage|Task State Store) tab"):
            task.run()
        assert sandbox.report()["requests"] == 1

    def test_kill_while_submitting(self, store, charged):
        """After a kill between the request and its answer, a retry fails and submits nothing."""
        task = Task(store)
        store.kill_after = lambda record: "generation_id" not in record
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match="it may have been accepted and charged"):
            task.run()
        assert charged() == 0

    def test_names_api_and_request_id(self, store, charged):
        """The error names the time, the API and the request id of the earlier submission."""
        record = {"api": "agents https://x", "request_id": "r-1", "submitted_at": "then"}
        store.set(STORE_KEY, {**record, "request": digest({"user_prompt": PROMPT})})
        with pytest.raises(AirflowFailException, match="at then, api agents https://x, request_id r-1 and never"):
            Task(store).run()
        assert charged() == 0

    def test_deleted_key_submits_again(self, store, charged):
        """A person who deletes the key lets the task submit again."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException):
            task.run()
        store.delete(STORE_KEY)
        task.clear()
        assert task.run(user_prompt=PROMPT)
        assert charged() == 2

    def test_added_id_resumes(self, store, sandbox, charged):
        """A person who adds the generation id to the key lets the task resume it."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException):
            task.run()
        (paid,) = sandbox.report()["generations"]
        store.set(STORE_KEY, {**store.get(STORE_KEY), "generation_id": paid["id"]})
        task.clear()
        assert task.run() == paid["id"]
        assert charged() == 1

    def test_resubmit_pays_again(self, store, charged, logged):
        """With on_ambiguous_submission="resubmit" the next try submits again and warns."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]", on_ambiguous_submission="resubmit")
        for _ in range(2):
            with pytest.raises(LumaAmbiguousSubmission):
                task.run()
        assert logged('This try submits it again, because on_ambiguous_submission is "resubmit"') == 1
        assert charged() == 2


class TestUnknownGeneration:
    @pytest.mark.parametrize("cleared", [False, True])
    def test_unknown_id_fails(self, cleared, store, sandbox):
        """If the API no longer knows the id, the task fails without a retry and says how to start over."""
        task = Task(store)
        generation_id = task.run_killed()
        sandbox.remove_generation(generation_id)
        make_older(store)
        if cleared:
            task.clear()
        message = f"no longer knows generation {generation_id}.*submit and pay for a new generation: {START_OVER}"
        with pytest.raises(AirflowFailException, match=message):
            task.run()
        assert [request.method for request in sandbox.requests].count("POST") == 1
        sandbox.add_generation(generation_id=generation_id)
        assert task.run() == generation_id

    def test_new_id_may_be_unknown(self, store, sandbox):
        """Within the minute of grace, an unknown id is resumed."""
        task = Task(store)
        generation_id = task.run_killed()
        sandbox.remove_generation(generation_id)
        make_older(store, seconds=30)
        assert task.run() == generation_id

    @pytest.mark.parametrize(
        "answer",
        [
            error_answer(404, b"<html></html>"),
            error_answer(404, b'{"code": 404, "message": "no such route"}'),
            error_answer(405, b'{"code": "not_supported"}'),
        ],
    )
    def test_missing_call_loses_nothing(self, answer, connect, store):
        """An answer that does not speak of the id is trouble: the generation is resumed."""
        task = Task(store)
        generation_id = task.run_killed()
        make_older(store)
        forget_api(store)
        with far_end(answer) as (url, requests):
            connect(host=url, password=TOKEN)
            assert task.run() == generation_id
        assert [request[:4] for request in requests] == [b"GET "]


class TestOtherApi:
    @pytest.mark.parametrize("cleared", [False, True])
    @pytest.mark.parametrize("moved", ["host", "api"])
    def test_other_api_fails(self, moved, cleared, connect, store, sandbox, charged):
        """If the connection points to another API or host, the task submits nothing, until it points back."""
        task = Task(store)
        generation_id = task.run_killed()
        if cleared:
            task.clear()
        with Sandbox(seconds=0) as other:
            if moved == "host":
                now = f"gateway {other.url}"
                connect(host=other.url, password=TOKEN)
            else:
                now = f"agents {sandbox.url}"
                connect(host=sandbox.url, password="luma-api-x", extra={"api": "agents"})
            message = (
                f"submitted generation {generation_id} to gateway {sandbox.url}. The connection now points to {now}, "
                f"which does not have it. .* To submit and pay there: {START_OVER}"
            )
            with pytest.raises(AirflowFailException, match=message):
                task.run()
            assert other.report()["requests"] == 0
        connect(host=sandbox.url, password=TOKEN)
        assert task.run() == generation_id
        assert charged() == 1

    def test_record_without_api_resumes(self, connect, store):
        """A record without an API belongs to the connection's API."""
        task = Task(store)
        generation_id = task.run_killed()
        forget_api(store)
        with Sandbox(seconds=0) as other:
            connect(host=other.url, password=TOKEN)
            assert task.run() == generation_id
            assert other.report()["charged"] == 0


class TestRejected:
    def test_rejection_leaves_no_record(self, store, sandbox):
        """A rejected submission leaves no record, so that the next try can submit."""
        sandbox.weather(submit={"402": 1})
        task = Task(store)
        with pytest.raises(LumaQuotaError):
            task.run()
        assert store.rows == {}
        sandbox.weather()
        assert task.run()

    def test_rejection_keeps_earlier_record(self, store, sandbox):
        """If a changed request is rejected, the record of the earlier request stays."""
        task = Task(store)
        first = task.run_killed()
        sandbox.weather(submit={"402": 1})
        with pytest.raises(LumaQuotaError):
            task.run(user_prompt="It sinks")
        assert task.run() == first

    def test_unsent_request_leaves_no_record(self, connect, store, no_retries):
        """A request that was never sent leaves no record."""
        connect(host="127.0.0.1:1", password=TOKEN)
        with pytest.raises(LumaConnectionError):
            Task(store).run()
        assert store.rows == {}

    @pytest.mark.parametrize(("word", "least", "most"), [("[429:300]", 300, 375), ("[429:20]", 20, 25)])
    def test_long_pause_defers(self, word, least, most, store, charged, logged):
        """If the API asks for a long pause, the task defers for it and then submits."""
        task = Task(store, user_prompt=f"{PROMPT} {word}", execution_timeout=timedelta(hours=1))
        with pytest.raises(TaskDeferred) as caught:
            task.run()
        _, kwargs = caught.value.trigger.serialize()
        assert least - 10 < (kwargs["moment"] - datetime.now(timezone.utc)).total_seconds() <= most
        assert timedelta(minutes=59) < caught.value.timeout <= timedelta(hours=1)
        assert logged(" s, then submitting.") == 1
        assert store.rows == {}
        operator = LumaGenerateVideoOperator(task_id="submit", **task.arguments)
        resumed = getattr(operator, caught.value.method_name)({"ti": task, "task_state_store": store}, event={})
        assert resumed == store.get(STORE_KEY)["generation_id"]
        assert charged() == 1


class TestStop:
    def test_second_process_sends_nothing(self, store, charged):
        """Of two processes of a try, which Airflow can start after a crash of its scheduler, only the first submits."""
        submitted = []

        class Overtaken(Store):
            """The other process submits between the first read of this process and its submission."""

            def get(self, key, default=None):
                found = super().get(key, default)
                if found is None and not store.rows:
                    submitted.append(Task(store).run())
                    self.rows = store.rows
                return found

        with pytest.raises(LumaError, match=r"Another process.*submitted nothing"):
            Task(Overtaken()).run()
        assert charged() == 1
        assert store.get(STORE_KEY)["generation_id"] == submitted[0]

    def test_stopped_task_sends_nothing(self, store, charged):
        """A task that a person stops before its request is sent submits nothing."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT)

        class Stopped(Task):
            def xcom_push(self, key, value):
                operator.on_kill()

        with pytest.raises(LumaError, match=r"being stopped\. Nothing was submitted"):
            operator.execute({"ti": Stopped(store), "task_state_store": store})
        assert store.rows == {}
        assert charged() == 0

    def test_kill_while_submitting_warns(self, connect, store, logged):
        """If a person stops the task while it submits, the log says that the request may be charged."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT)

        class AnswerAfterKill(list):
            def __iter__(self):
                operator.on_kill()
                yield json_answer(b'{"id": "x"}')

        with far_end(AnswerAfterKill()) as (url, _):
            connect(host=url, password=TOKEN)
            assert operator.execute({"ti": Task(store), "task_state_store": store}) == "x"
        assert logged("A submission was sent and its answer has not arrived: it may be charged.") == 1
        assert store.get(STORE_KEY)["generation_id"] == "x"


class TestMetrics:
    """Each try counts its decision as ResumableJobMixin of Airflow 3.3 does."""

    @pytest.fixture
    def counted(self, monkeypatch):
        """A function that returns the counters since its last call, without their common tags."""
        counters = []
        monkeypatch.setattr(Stats, "incr", lambda name, tags: counters.append((name, tags)))
        monkeypatch.setattr(Task, "stats_tags", {"dag_id": "a_dag", "team_name": "red"}, raising=False)

        def counted():
            found = [name.removeprefix("resumable_job.") for name, _ in counters]
            assert all(tags == {"operator": "LumaGenerateVideoOperator", "team_name": "red"} for _, tags in counters)
            counters.clear()
            return found

        return counted

    @pytest.mark.parametrize(
        ("word", "seconds", "then"),
        [
            ("", 60, ["reconnect_attempt", "reconnect_success"]),
            ("", 0, ["reconnect_attempt", "already_succeeded"]),
            ("[fail]", 0, ["reconnect_attempt", "terminal_resubmit"]),
        ],
    )
    def test_counts_each_decision(self, word, seconds, then, store, sandbox, counted):
        """The first try counts a submission; the next counts its decision about that generation."""
        sandbox.change(seconds=seconds)
        task = Task(store, user_prompt=f"{PROMPT} {word}")
        task.run()
        assert counted() == ["fresh_submit"]
        task.run()
        assert counted() == then

    def test_ambiguous_try_counts_nothing(self, store, counted):
        """A try that may not submit counts nothing."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        for _ in range(2):
            with pytest.raises(AirflowFailException):
                task.run()
        assert counted() == ["fresh_submit"]


class TestRecord:
    @pytest.mark.parametrize(
        ("request_", "known"),
        [
            ({"user_prompt": PROMPT, "model_name": "ray-v2", "loop": False}, "8f589723087fdeee49478999fed87158"),
            ({"user_prompt": PROMPT, "aspect_ratio": "9:16"}, "7b396b64af4bb49d3fd0f1e009ab30e5"),
        ],
    )
    def test_digest_never_changes(self, request_, known):
        """The digest of a request is the same in every version: otherwise an upgrade would pay again."""
        assert digest(request_) == known

    def test_extra_body_is_same_request(self, store, charged):
        """A field is the same request as an argument and in extra_body."""
        task = Task(store)
        first = task.run_killed(aspect_ratio="9:16")
        assert task.run(extra_body={"aspect_ratio": "9:16"}) == first

    def test_record_is_small(self, store, sandbox):
        """The record has five fields, without the token, the prompt and the image."""
        task = Task(store, user_prompt="A boat " * 700, image_url="data:image/png;base64," + "A" * 100_000)
        submitted = task.run()
        (row,) = store.rows.values()
        assert len(row) < 300
        assert TOKEN not in row
        record = json.loads(row)
        submitted_at = datetime.fromisoformat(record.pop("submitted_at"))
        assert abs(datetime.now(timezone.utc) - submitted_at) < timedelta(minutes=1)
        assert len(record.pop("request")) == 32
        assert record == {"generation_id": submitted, "api": f"gateway {sandbox.url}"}

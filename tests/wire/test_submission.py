"""No generation is paid twice: what each try does with what the tries before it left in the task state store."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Stats, TaskDeferred

from airflow_provider_luma.api import (
    LumaAmbiguousSubmission,
    LumaConnectionError,
    LumaError,
    LumaGenerationFailed,
    LumaNotFound,
    waiting,
)
from airflow_provider_luma.operators import submission
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.operators.submission import STORE_KEY, digest
from airflow_provider_luma.sandbox import Sandbox
from tests.support.clock import Clock
from tests.support.raw_answers import error_answer, far_end, json_answer
from tests.support.samples import PROMPT, TOKEN
from tests.support.tries import Killed, Store, Task


def forget_api(store):
    """Make the record one of an earlier version, which did not say which API the submission went to."""
    record = store.get(STORE_KEY)
    del record["api"]
    store.set(STORE_KEY, record)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def charged(sandbox):
    """How many generations the sandbox has charged."""
    return lambda: sandbox.report()["charged"]


@pytest.mark.usefixtures("connection")
class TestRetriesAndClears:
    """The rows of the table in docs/paying-once.md that need no real process."""

    @pytest.mark.parametrize("wait", [False, True])
    def test_a_retry_after_a_kill_resumes_the_generation_that_was_submitted(self, wait, store, charged):
        task = Task(store, wait_for_completion=wait)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run()
        submitted = store.get(STORE_KEY)["generation_id"]
        assert task.run() == submitted
        assert task.xcoms["return_value"] == submitted
        assert charged() == 1

    @pytest.mark.parametrize("cleared", [False, True])
    def test_a_task_that_failed_after_its_video_was_there_resumes_that_generation(self, cleared, store, charged):
        """For example because its XCom could not be pushed; the same holds when a person clears it."""
        task = Task(store, wait_for_completion=True)
        task.fails_afterwards = OSError("no room for XComs")
        with pytest.raises(OSError, match="no room"):
            task.run()
        task.fails_afterwards = None
        if cleared:
            task.clear()
        assert task.run() == store.get(STORE_KEY)["generation_id"]
        assert charged() == 1

    def test_a_users_own_success_callback_is_still_called(self, store):
        called = []
        Task(store, on_success_callback=called.append).run()
        assert len(called) == 1

    @pytest.mark.usefixtures("no_retries")
    def test_a_retry_resumes_the_same_generation_though_it_cannot_be_polled_now(self, store, charged, sandbox):
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        submitted = task.xcoms["return_value"]
        sandbox.weather(status={"html": 1})
        with pytest.raises(TaskDeferred):
            task.run()
        assert task.xcoms["return_value"] == submitted
        assert charged() == 1

    def test_a_retry_submits_again_after_a_failed_generation(self, store, charged):
        task = Task(store, user_prompt=f"{PROMPT} [fail]", wait_for_completion=True)
        with pytest.raises(LumaGenerationFailed):
            task.run()
        with pytest.raises(LumaGenerationFailed):
            task.run()
        assert charged() == 2

    def test_a_retry_does_not_submit_again_what_moderation_refused(self, store, charged):
        task = Task(store, user_prompt=f"{PROMPT} [moderated]")
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match="moderation"):
            task.run()
        assert charged() == 1

    def test_a_clear_submits_again_what_moderation_refused(self, store, charged):
        task = Task(store, user_prompt=f"{PROMPT} [moderated]", wait_for_completion=True)
        for _ in range(2):
            with pytest.raises(AirflowFailException):
                task.run()
            task.clear()
        assert charged() == 2

    def test_a_changed_request_is_submitted_and_warned_about(self, store, charged, capsys, caplog):
        task = Task(store)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run()
        first = store.get(STORE_KEY)["generation_id"]
        with caplog.at_level(logging.WARNING):
            assert task.run(user_prompt="It sinks") != first
        assert "not the one that an earlier try submitted" in capsys.readouterr().out + caplog.text
        assert charged() == 2

    def test_a_changed_notify_hook_is_still_the_same_request(self, store, charged):
        task = Task(store)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run(notify_hook="https://example.com/1")
        task.run(notify_hook="https://example.com/2")
        assert charged() == 1

    @pytest.mark.parametrize("retries", [0, 2])
    @pytest.mark.parametrize("kept", ["always", "by choice", "no"])
    def test_each_clear_of_a_task_that_succeeded_submits_again_unless_it_keeps_the_state_by_choice(
        self, kept, retries, store, charged, monkeypatch
    ):
        monkeypatch.setattr(submission, "DISCARDS_ON_CLEAR", kept != "always")
        task = Task(store, retries=retries, wait_for_completion=True)
        ids = set()
        for _ in range(3):
            ids.add(task.run())
            task.clear()
            if kept == "no":
                store.rows.clear()
        assert len(ids) == charged() == (1 if kept == "by choice" else 3)

    def test_a_clear_that_discards_the_state_submits_again_and_says_what_may_still_run(
        self, store, charged, capsys, caplog
    ):
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        task.clear()
        store.rows.clear()
        with caplog.at_level(logging.INFO), pytest.raises(TaskDeferred):
            task.run()
        assert "that generation goes on and is paid for" in capsys.readouterr().out + caplog.text
        assert charged() == 2

    def test_a_clear_while_the_generation_is_running_resumes_it(self, store, charged):
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        submitted = task.xcoms["return_value"]
        task.clear()
        with pytest.raises(TaskDeferred):
            task.run()
        assert task.xcoms["return_value"] == submitted
        assert charged() == 1

    def test_a_retry_after_a_clear_is_a_retry_again(self, store, connect):
        """A clear that was taken for one at every later try would pay for what moderation refused."""
        clock = Clock()
        with Sandbox(seconds=60, clock=clock) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            task = Task(store, user_prompt=f"{PROMPT} [moderated]", wait_for_completion=True, deferrable=True)
            for _ in range(2):
                with pytest.raises(TaskDeferred):
                    task.run()
                task.clear()
            with pytest.raises(TaskDeferred):
                task.run()
            clock.now += 60
            with pytest.raises(AirflowFailException, match="moderation"):
                task.run()
            assert sandbox.report()["charged"] == 1

    def test_a_retry_polls_the_earlier_generation_once_however_that_ends(self, store, connect):
        answers = json_answer(b'{"id": "x", "state": "pending"}'), error_answer(500), json_answer(b'{"id": "x"}')
        with far_end(*answers) as (url, requests):
            connect(host=url, password=TOKEN)
            task = Task(store, wait_for_completion=True, deferrable=True)
            for _ in range(2):
                with pytest.raises(TaskDeferred):
                    task.run()
            assert [request.split()[0] for request in requests] == [b"POST", b"GET"]

    def test_an_extension_of_another_generation_is_another_request(self, store, charged):
        first, other = Task(Store()).run(), Task(Store()).run()
        task = Task(store, generation_id=first)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run(LumaExtendVideoOperator)
        extended = store.get(STORE_KEY)["generation_id"]
        assert task.run(LumaExtendVideoOperator, generation_id=other) != extended
        assert charged() == 4

    def test_a_retry_of_an_extension_resumes_it(self, store, charged):
        first = Task(Store()).run()
        task = Task(store, generation_id=first)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run(LumaExtendVideoOperator)
        assert task.run(LumaExtendVideoOperator) == store.get(STORE_KEY)["generation_id"]
        assert charged() == 2


@pytest.mark.usefixtures("connection")
class TestLostAnswer:
    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_a_proxys_json_is_no_answer_so_the_task_fails_without_retry(self, status, store, connect):
        body = b'{"detail": "unexpected token < in JSON, Gateway Timeout"}'
        answer = b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body
        with far_end(answer, answer) as (url, requests):
            connect(host=url, password=TOKEN)
            task = Task(store)
            for _ in range(2):
                with pytest.raises(AirflowFailException, match="charged"):
                    task.run()
            assert len(requests) == 1

    @pytest.mark.parametrize("word", ["[drop]", "[html]", "[500]"])
    def test_a_submission_without_a_readable_answer_is_never_sent_again_by_itself(self, word, store, sandbox):
        task = Task(store, user_prompt=f"{PROMPT} {word}")
        with pytest.raises(AirflowFailException, match="Look at the account's usage"):
            task.run()
        with pytest.raises(AirflowFailException, match=r"never got the answer.*(Storage|Task State Store) tab"):
            task.run()
        task.clear()
        with pytest.raises(AirflowFailException, match="never got the answer"):
            task.run()
        assert sandbox.report()["requests"] == 1

    def test_a_retry_after_a_kill_while_submitting_fails_without_submitting(self, store, charged):
        task = Task(store)
        store.kill_after = lambda record: "generation_id" not in record
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match="may have been accepted and charged once"):
            task.run()
        assert charged() == 0

    def test_a_person_who_deletes_the_key_lets_the_task_submit_again(self, store, charged):
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException):
            task.run()
        store.delete(STORE_KEY)
        task.clear()
        assert task.run(user_prompt=PROMPT)
        assert charged() == 2

    def test_a_person_who_adds_the_generation_id_lets_the_task_resume_it(self, store, sandbox, charged):
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException):
            task.run()
        (paid,) = sandbox.report()["generations"]
        store.set(STORE_KEY, {**store.get(STORE_KEY), "generation_id": paid["id"]})
        task.clear()
        assert task.run() == paid["id"]
        assert charged() == 1

    def test_with_resubmit_the_next_try_submits_again_and_warns(self, store, charged, capsys, caplog):
        task = Task(store, user_prompt=f"{PROMPT} [drop]", on_ambiguous_submission="resubmit")
        with pytest.raises(LumaAmbiguousSubmission):
            task.run()
        with caplog.at_level(logging.WARNING), pytest.raises(LumaAmbiguousSubmission):
            task.run()
        assert "as on_ambiguous_submission says" in capsys.readouterr().out + caplog.text
        assert charged() == 2

    def test_on_ambiguous_submission_is_fail_or_resubmit(self):
        with pytest.raises(ValueError, match='"fail" or "resubmit", got \'retry\''):
            LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, on_ambiguous_submission="retry")


@pytest.mark.usefixtures("connection")
def test_of_two_processes_that_run_the_same_try_one_submits(store, charged):
    """Airflow starts a second one when its scheduler crashed."""
    submitted = []

    class Overtaken(Store):
        """The other process submits between this one's first read and its submission."""

        def get(self, key, default=None):
            found = super().get(key, default)
            if found is None and not store.rows:
                submitted.append(Task(store).run())
                self.rows = store.rows
            return found

    with pytest.raises(LumaError, match="Another process"):
        Task(Overtaken()).run()
    assert charged() == 1
    assert store.get(STORE_KEY)["generation_id"] == submitted[0]


@pytest.mark.usefixtures("connection")
class TestMetrics:
    """Decisions are counted as Airflow's own resumable operators do: ResumableJobMixin of Airflow 3.3 and later."""

    @pytest.fixture
    def counted(self, monkeypatch):
        """The counters raised since they were last looked at, with their tags."""
        counters = []
        monkeypatch.setattr(Stats, "incr", lambda name, tags: counters.append((name, tags)))

        def counted():
            found = [name.removeprefix("resumable_job.") for name, _ in counters]
            assert all(tags == {"operator": "LumaGenerateVideoOperator", "team_name": "red"} for _, tags in counters)
            counters.clear()
            return found

        return counted

    @pytest.fixture(autouse=True)
    def team(self, monkeypatch):
        monkeypatch.setattr(Task, "stats_tags", {"dag_id": "a_dag", "team_name": "red"}, raising=False)

    def test_a_first_try_and_one_that_resumes(self, store, counted, connect):
        task = Task(store, wait_for_completion=True, deferrable=True)
        with Sandbox(token=TOKEN, seconds=60) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            with pytest.raises(TaskDeferred):
                task.run()
            assert counted() == ["fresh_submit"]
            with pytest.raises(TaskDeferred):
                task.run()
            assert counted() == ["reconnect_attempt", "reconnect_success"]

    def test_a_try_after_the_generation_has_ended(self, store, counted):
        task = Task(store)
        task.fails_afterwards = OSError("no room for XComs")
        for _ in range(2):
            with pytest.raises(OSError, match="no room"):
                task.run()
        assert counted() == ["fresh_submit", "reconnect_attempt", "already_succeeded"]

    def test_a_try_after_the_generation_has_failed(self, store, counted):
        task = Task(store, user_prompt=f"{PROMPT} [fail]", wait_for_completion=True)
        for _ in range(2):
            with pytest.raises(LumaGenerationFailed):
                task.run()
        assert counted() == ["fresh_submit", "reconnect_attempt", "terminal_resubmit"]

    def test_a_try_that_may_not_submit_counts_as_none(self, store, counted):
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        for _ in range(2):
            with pytest.raises(AirflowFailException):
                task.run()
        assert counted() == ["fresh_submit"]


class TestRejected:
    @pytest.mark.usefixtures("connection")
    def test_a_rejected_submission_leaves_nothing_that_stops_the_next(self, store, sandbox):
        sandbox.weather(submit={"402": 1})
        task = Task(store)
        with pytest.raises(Exception, match="balance"):
            task.run()
        assert store.rows == {}
        sandbox.weather()
        assert task.run()

    @pytest.mark.usefixtures("connection")
    def test_a_rejected_changed_request_does_not_forget_the_earlier_submission(self, store, sandbox):
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        before = store.get(STORE_KEY)
        sandbox.weather(submit={"402": 1})
        with pytest.raises(Exception, match="balance"):
            task.run(user_prompt="It sinks")
        assert store.get(STORE_KEY) == before

    @pytest.mark.usefixtures("no_retries")
    def test_a_request_that_was_never_sent_is_not_remembered(self, connect, store):
        connect(host="127.0.0.1:1", password=TOKEN)
        with pytest.raises(LumaConnectionError):
            Task(store).run()
        assert store.rows == {}

    @pytest.mark.usefixtures("connection")
    def test_a_long_retry_after_defers_the_submission_for_that_long(self, store, sandbox):
        task = Task(store, user_prompt=f"{PROMPT} [429:300]", execution_timeout=timedelta(hours=1))
        with pytest.raises(TaskDeferred) as caught:
            task.run()
        _, kwargs = caught.value.trigger.serialize()
        assert 290 < (kwargs["moment"] - datetime.now(timezone.utc)).total_seconds() <= 375
        assert timedelta(minutes=59) < caught.value.timeout <= timedelta(hours=1)
        assert store.rows == {}
        operator = LumaGenerateVideoOperator(task_id="submit", **task.arguments)
        resumed = getattr(operator, caught.value.method_name)({"ti": task, "task_state_store": store}, event={})
        assert resumed == store.get(STORE_KEY)["generation_id"]
        assert sandbox.report()["charged"] == 1


class TestUnknownGeneration:
    @pytest.fixture
    def lost(self, connect, store):
        """A task whose earlier try submitted a generation that the gateway does not know any more."""
        task = Task(store, wait_for_completion=True, deferrable=True)
        store.kill_after = lambda record: record.get("generation_id")
        with Sandbox(seconds=0) as first:
            connect(host=first.url, password=TOKEN)
            with pytest.raises(Killed):
                task.run()
        forget_api(store)
        return task

    @pytest.mark.parametrize(
        ("age", "cleared", "submits"),
        [(30, True, False), (3600, False, False), (3600, True, True)],
        ids=["within the grace period", "a retry", "a clear"],
    )
    def test_a_lost_generation_is_submitted_again_only_by_a_clear_after_the_grace_period(
        self, age, cleared, submits, lost, store, connect
    ):
        record = store.get(STORE_KEY)
        submitted_at = datetime.now(timezone.utc) - timedelta(seconds=age)
        store.set(STORE_KEY, {**record, "submitted_at": submitted_at.isoformat()})
        if cleared:
            lost.clear()
        with Sandbox(seconds=0) as other:
            connect(host=other.url, password=TOKEN)
            with pytest.raises(TaskDeferred):
                lost.run()
            assert other.report()["charged"] == submits
        assert (lost.xcoms["return_value"] != record["generation_id"]) is submits

    def test_a_lost_generation_ends_the_wait_of_a_retry(self, lost, connect, monkeypatch):
        monkeypatch.setattr(waiting, "UNKNOWN_ID_GRACE", 0)
        with Sandbox(seconds=0) as other:
            connect(host=other.url, password=TOKEN)
            with pytest.raises(LumaNotFound):
                lost.run(deferrable=False)
            assert other.report()["charged"] == 0

    @pytest.mark.parametrize(
        "answer",
        [
            b"404 Not Found\r\nContent-Length: 13\r\n\r\n<html></html>",
            b'404 Not Found\r\nContent-Length: 41\r\n\r\n{"code": 404, "message": "no such route"}',
            b'405 Method Not Allowed\r\nContent-Length: 25\r\n\r\n{"code": "not_supported"}',
        ],
    )
    def test_a_host_without_that_call_does_not_make_the_generation_lost(self, answer, connect, store, sandbox):
        connect(host=sandbox.url, password=TOKEN)
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        submitted = task.xcoms["return_value"]
        store.set(STORE_KEY, {**store.get(STORE_KEY), "submitted_at": "2026-01-01T00:00:00+00:00"})
        forget_api(store)
        task.clear()
        with far_end(b"HTTP/1.1 " + answer) as (url, requests):
            connect(host=url, password=TOKEN)
            with pytest.raises(TaskDeferred):
                task.run()
        assert [request[:4] for request in requests] == [b"GET "]
        assert task.xcoms["return_value"] == submitted


class TestElsewhere:
    """A connection that leads to another API than the one that an earlier try submitted to."""

    @pytest.fixture
    def moved(self, connect, store):
        """Give a task whose earlier try was killed after it submitted, and where its connection leads now."""
        task = Task(store, wait_for_completion=True)
        with Sandbox(seconds=0) as first, Sandbox(seconds=0) as second:
            connect(host=first.url, password=TOKEN)
            store.kill_after = lambda record: record.get("generation_id")
            with pytest.raises(Killed):
                task.run()
            connect(host=second.url, password=TOKEN)
            yield task, first, second

    def test_a_retry_on_another_api_submits_nothing_and_says_what_to_do(self, moved, store):
        task, first, second = moved
        generation_id = store.get(STORE_KEY)["generation_id"]
        said = f"submitted generation {generation_id} to gateway {first.url}, .* leads to gateway {second.url}"
        with pytest.raises(AirflowFailException, match=f"{said}.*Clear the task to submit and pay there"):
            task.run()
        assert second.report()["requests"] == 0

    def test_a_clear_on_another_api_submits_there_and_warns(self, moved, caplog, capsys):
        task, first, second = moved
        task.clear()
        with caplog.at_level(logging.WARNING):
            assert task.run()
        assert (first.report()["charged"], second.report()["charged"]) == (1, 1)
        assert (
            "which does not have it. The task was cleared: submitting there." in capsys.readouterr().out + caplog.text
        )

    def test_a_connection_that_leads_back_resumes_the_same_generation(self, moved, connect, store):
        task, first, _ = moved
        connect(host=first.url, password=TOKEN)
        assert task.run() == store.get(STORE_KEY)["generation_id"]

    def test_an_ambiguous_submission_elsewhere_is_named_with_its_api_and_request_id(self, connect, store, sandbox):
        task = Task(store)
        store.set(STORE_KEY, {"api": "agents https://x", "request_id": "r-1", "submitted_at": "then", "max_tries": 2})
        record = store.get(STORE_KEY)
        store.set(STORE_KEY, {**record, "request": digest({"user_prompt": PROMPT})})
        connect(host=sandbox.url, password=TOKEN)
        with pytest.raises(AirflowFailException, match="at then, api agents https://x, request_id r-1 and never"):
            task.run()
        assert sandbox.report()["charged"] == 0

    def test_a_record_without_an_api_counts_as_one_of_the_same_api(self, moved, store):
        task, _, second = moved
        forget_api(store)
        assert task.run(wait_for_completion=False) == store.get(STORE_KEY)["generation_id"]
        assert second.report()["charged"] == 0


class TestStoppedTask:
    @pytest.mark.usefixtures("connection")
    def test_a_task_that_is_being_stopped_submits_nothing(self, store, charged, monkeypatch):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT)
        monkeypatch.setattr(operator, "_submit", lambda *args: (operator.on_kill(), submit(*args))[1])
        submit = type(operator)._submit.__get__(operator)
        with pytest.raises(LumaError, match="being stopped; nothing was sent"):
            operator.execute({"ti": Task(store), "task_state_store": store})
        assert store.rows == {}
        assert charged() == 0

    def test_a_task_that_is_killed_while_it_submits_logs_that_it_may_be_charged(self, connect, store, caplog, capsys):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT)

        class AnswerAfterKill(list):
            def __iter__(self):
                operator.on_kill()
                yield json_answer(b'{"id": "x"}')

        with caplog.at_level(logging.WARNING), far_end(AnswerAfterKill()) as (url, _):
            connect(host=url, password=TOKEN)
            assert operator.execute({"ti": Task(store), "task_state_store": store}) == "x"
        logged = capsys.readouterr().out + caplog.text
        assert "A submission has left and its answer has not come: it may be charged" in logged
        assert store.get(STORE_KEY)["generation_id"] == "x"


class TestTaskStateStore:
    def test_the_digest_of_a_request_is_the_same_in_every_version_of_this_package(self):
        assert digest({"user_prompt": PROMPT, "model_name": "ray-v2", "loop": False}) == (
            "4f50c8bc72834da9babe70ea2e8ce1cf"
        )

    def test_the_digest_is_the_same_whether_aspect_ratio_is_an_argument_or_in_extra_body(self):
        by_name = LumaGenerateVideoOperator(task_id="a", user_prompt=PROMPT, aspect_ratio="9:16")
        in_extra = LumaGenerateVideoOperator(task_id="b", user_prompt=PROMPT, extra_body={"aspect_ratio": "9:16"})
        assert digest(by_name._request({})) == digest(in_extra._request({})) == "bc5807b63939380a83c6eda8dc0bb7fc"

    @pytest.mark.usefixtures("connection")
    def test_what_is_remembered_is_small_readable_and_without_the_token(self, store, sandbox):
        task = Task(store, user_prompt="A boat " * 700, image_url="data:image/png;base64," + "A" * 100_000)
        submitted = task.run()
        (kept,) = store.rows.values()
        assert len(kept) < 300
        assert TOKEN not in kept
        assert json.loads(kept) == {
            "generation_id": submitted,
            "request": json.loads(kept)["request"],
            "api": f"gateway {sandbox.url}",
            "submitted_at": json.loads(kept)["submitted_at"],
            "max_tries": 2,
            "succeeded": True,
        }

    @pytest.mark.usefixtures("connection")
    @pytest.mark.parametrize("record", ["text", ["a list"], 7, None])
    def test_a_record_that_is_no_dict_counts_as_none(self, record, store, charged):
        store.set(STORE_KEY, record)
        assert Task(store).run() == store.get(STORE_KEY)["generation_id"]
        assert charged() == 1

    @pytest.mark.usefixtures("connection")
    @pytest.mark.parametrize(("retries", "warned"), [(2, True), (0, False)])
    def test_without_a_store_a_retry_submits_again_and_the_first_try_warns(
        self, retries, warned, charged, capsys, caplog
    ):
        task = Task(None, retries=retries)
        with caplog.at_level(logging.WARNING):
            task.run()
        assert ("has no task state store" in capsys.readouterr().out + caplog.text) is warned
        caplog.clear()
        task.run()
        assert "has no task state store" not in capsys.readouterr().out + caplog.text
        assert charged() == 2

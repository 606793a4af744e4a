"""No generation is paid twice: what each try does with what the tries before it left behind."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_luma.api import (
    LumaAmbiguousSubmission,
    LumaConnectionError,
    LumaError,
    LumaGenerationFailed,
    LumaNotFound,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.operators.submission import STORE_KEY, digest
from airflow_provider_luma.sandbox import Sandbox
from tests.wire.test_client import far_end

TOKEN = "marked-token-4711"
PROMPT = "A paper boat crosses a puddle"


class Killed(BaseException):
    """The process ends here, without a word."""


class Store:
    """Airflow's task state store: JSON by key, outliving every try."""

    def __init__(self):
        self.rows = {}
        self.kill_after = None

    def get(self, key, default=None):
        return json.loads(self.rows[key]) if key in self.rows else default

    def set(self, key, value):
        self.rows[key] = json.dumps(value)
        if self.kill_after and self.kill_after(value):
            self.kill_after = None
            raise Killed

    def delete(self, key):
        self.rows.pop(key, None)


class Task:
    """One task instance through its tries, retries and clears."""

    def __init__(self, store, retries=2, **arguments):
        self.store = store
        self.retries = self.max_tries = retries
        self.try_number = 0
        self.start_date = datetime.now(timezone.utc)
        self.arguments = {"user_prompt": PROMPT, **arguments}
        self.xcoms = {}
        self.fails_afterwards = None

    map_index = -1

    def xcom_push(self, key, value):
        self.xcoms[key] = value

    def xcom_pull(self, key, map_indexes):
        return self.xcoms.get(key)

    def run(self, operator=LumaGenerateVideoOperator, **changed):
        """Run the next try, automatic unless the task was cleared before."""
        self.try_number += 1
        self.xcoms = {}
        task = operator(task_id="submit", poll_interval=0.05, **{**self.arguments, **changed})
        context = {"ti": self, "task_state_store": self.store}
        returned = task.execute(context)
        if self.fails_afterwards:
            raise self.fails_afterwards
        for callback in task.on_success_callback:
            callback(context)
        return returned

    def clear(self):
        """Do what Airflow does when a person clears the task."""
        self.max_tries = self.try_number + self.retries


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def charged(sandbox):
    """How often the sandbox was paid."""
    return lambda: sandbox.report()["charged"]


@pytest.fixture
def impatient(monkeypatch):
    """No call is repeated."""
    monkeypatch.setattr(LumaHook.__init__, "__kwdefaults__", {"retry_for": 0})


@pytest.mark.usefixtures("connection")
class TestTable:
    """The rows of the table in docs/paying-once.md that need no real process."""

    @pytest.mark.parametrize("wait", [False, True])
    def test_killed_after_submitting(self, wait, store, charged):
        """A try that was killed right after submitting is gone on with."""
        task = Task(store, wait_for_completion=wait)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run()
        submitted = store.get(STORE_KEY)["generation_id"]
        assert task.run() == submitted
        assert task.xcoms["return_value"] == submitted
        assert charged() == 1

    @pytest.mark.parametrize("cleared", [False, True])
    def test_failed_afterwards(self, cleared, store, charged):
        """So is one that had all it wanted and failed after that, say in pushing its XCom, even if it is cleared."""
        task = Task(store, wait_for_completion=True)
        task.fails_afterwards = OSError("no room for XComs")
        with pytest.raises(OSError, match="no room"):
            task.run()
        task.fails_afterwards = None
        if cleared:
            task.clear()
        assert task.run() == store.get(STORE_KEY)["generation_id"]
        assert charged() == 1

    def test_success_callback(self, store):
        """A callback of the user's own is called all the same."""
        called = []
        Task(store, on_success_callback=called.append).run()
        assert len(called) == 1

    @pytest.mark.usefixtures("impatient")
    def test_polling_fails(self, store, charged, sandbox):
        """A try whose wait failed is gone on with, though the gateway cannot be asked about it now."""
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        submitted = task.xcoms["return_value"]
        sandbox.weather(status={"html": 1})
        with pytest.raises(TaskDeferred):
            task.run()
        assert task.xcoms["return_value"] == submitted
        assert charged() == 1

    def test_failed(self, store, charged):
        """A generation that failed is submitted anew by the next try."""
        task = Task(store, user_prompt=f"{PROMPT} [fail]", wait_for_completion=True)
        with pytest.raises(LumaGenerationFailed):
            task.run()
        with pytest.raises(LumaGenerationFailed):
            task.run()
        assert charged() == 2

    def test_moderated(self, store, charged):
        """One that moderation refused is not, even when the try that saw it was killed."""
        task = Task(store, user_prompt=f"{PROMPT} [moderated]")
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match="moderation"):
            task.run()
        assert charged() == 1

    def test_moderated_and_cleared(self, store, charged):
        """Unless a person clears the task, which asks for another."""
        task = Task(store, user_prompt=f"{PROMPT} [moderated]", wait_for_completion=True)
        for _ in range(2):
            with pytest.raises(AirflowFailException):
                task.run()
            task.clear()
        assert charged() == 2

    def test_changed(self, store, charged, capsys, caplog):
        """A request that is no longer the one that was submitted is submitted, and that is said."""
        task = Task(store)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run()
        first = store.get(STORE_KEY)["generation_id"]
        with caplog.at_level(logging.WARNING):
            assert task.run(user_prompt="It sinks") != first
        assert "not the one that an earlier try submitted" in capsys.readouterr().out + caplog.text
        assert charged() == 2

    def test_changed_callback(self, store, charged):
        """Another callback address does not make it another video."""
        task = Task(store)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run(notify_hook="https://example.com/1")
        task.run(notify_hook="https://example.com/2")
        assert charged() == 1

    @pytest.mark.parametrize("retries", [0, 2])
    def test_succeeded_and_cleared(self, retries, store, charged):
        """A task that succeeded and is cleared submits a new one, each time."""
        task = Task(store, retries=retries, wait_for_completion=True)
        ids = set()
        for _ in range(3):
            ids.add(task.run())
            task.clear()
        assert len(ids) == charged() == 3

    def test_running_and_cleared(self, store, charged):
        """A task that is cleared while its generation is running goes on with it."""
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        submitted = task.xcoms["return_value"]
        task.clear()
        with pytest.raises(TaskDeferred):
            task.run()
        assert task.xcoms["return_value"] == submitted
        assert charged() == 1

    def test_extension(self, store, charged):
        """All that holds for extensions."""
        first = Task(Store()).run()
        task = Task(store, generation_id=first)
        store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            task.run(LumaExtendVideoOperator)
        assert task.run(LumaExtendVideoOperator) == store.get(STORE_KEY)["generation_id"]
        assert charged() == 2


@pytest.mark.usefixtures("connection")
class TestNobodyKnows:
    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_detail_of_a_proxy(self, status, store, connect):
        """A proxy's JSON is no answer of the gateway's, whatever it says."""
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
    def test_no_answer(self, word, store, sandbox):
        """A submission without a readable answer fails the task for good, now and at every later try."""
        task = Task(store, user_prompt=f"{PROMPT} {word}")
        with pytest.raises(AirflowFailException, match="Look at the account's usage"):
            task.run()
        with pytest.raises(AirflowFailException, match=r"never got the answer.*(Storage|Task State Store) tab"):
            task.run()
        task.clear()
        with pytest.raises(AirflowFailException, match="never got the answer"):
            task.run()
        assert sandbox.report()["requests"] == 1

    def test_killed_while_sending(self, store, charged):
        """So does a try that finds that an earlier one was killed while it submitted."""
        task = Task(store)
        store.kill_after = lambda record: "generation_id" not in record
        with pytest.raises(Killed):
            task.run()
        with pytest.raises(AirflowFailException, match="may have been accepted and charged once"):
            task.run()
        assert charged() == 0

    def test_deleted_key(self, store, charged):
        """A person who deletes the key lets the task submit again."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException):
            task.run()
        store.delete(STORE_KEY)
        task.clear()
        assert task.run(user_prompt=PROMPT)
        assert charged() == 2

    def test_added_id(self, store, sandbox, charged):
        """A person who adds the id that the gateway gave lets the task go on with it."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException):
            task.run()
        (paid,) = sandbox.report()["generations"]
        store.set(STORE_KEY, {**store.get(STORE_KEY), "generation_id": paid["id"]})
        task.clear()
        assert task.run() == paid["id"]
        assert charged() == 1

    def test_resubmit(self, store, charged, capsys, caplog):
        """With on_ambiguous_submission="resubmit" the next try submits again, and warns."""
        task = Task(store, user_prompt=f"{PROMPT} [drop]", on_ambiguous_submission="resubmit")
        with pytest.raises(LumaAmbiguousSubmission):
            task.run()
        with caplog.at_level(logging.WARNING), pytest.raises(LumaAmbiguousSubmission):
            task.run()
        assert "as on_ambiguous_submission says" in capsys.readouterr().out + caplog.text
        assert charged() == 2

    def test_other_word(self):
        """There are two answers to that, and no third."""
        with pytest.raises(ValueError, match='"fail" or "resubmit", got \'retry\''):
            LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, on_ambiguous_submission="retry")


@pytest.mark.usefixtures("connection")
def test_two_processes(store, charged):
    """Of two processes that run the same try, as after a crash of the scheduler, one submits."""

    class Overtaken(Store):
        """The other process submits between this one's first look and its submission."""

        def get(self, key, default=None):
            found = super().get(key, default)
            if found is None and not store.rows:
                Task(store).run()
                self.rows = store.rows
            return found

    with pytest.raises(LumaError, match="Another process"):
        Task(Overtaken()).run()
    assert charged() == 1


class TestRefused:
    @pytest.mark.usefixtures("connection")
    def test_refused(self, store, sandbox):
        """A submission that was refused leaves nothing behind that would stop the next."""
        sandbox.weather(submit={"402": 1})
        task = Task(store)
        with pytest.raises(Exception, match="balance"):
            task.run()
        assert store.rows == {}
        sandbox.weather()
        assert task.run()

    @pytest.mark.usefixtures("connection")
    def test_refused_change(self, store, sandbox):
        """And does not make the task forget what it had submitted before."""
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        before = store.get(STORE_KEY)
        sandbox.weather(submit={"402": 1})
        with pytest.raises(Exception, match="balance"):
            task.run(user_prompt="It sinks")
        assert store.get(STORE_KEY) == before

    @pytest.mark.usefixtures("impatient")
    def test_nobody_there(self, connect, store):
        """Nothing is remembered of a request that never left."""
        connect(host="127.0.0.1:1", password=TOKEN)
        with pytest.raises(LumaConnectionError):
            Task(store).run()
        assert store.rows == {}

    @pytest.mark.usefixtures("connection")
    def test_told_to_wait(self, store, sandbox):
        """A submission that is told to wait for long defers for that long, and then submits."""
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


class TestGone:
    def test_unknown(self, connect, store, monkeypatch):
        """An id that the gateway does not know any more is not replaced by a retry, but by a person who clears."""
        monkeypatch.setattr("airflow_provider_luma.api.waiting.UNKNOWN_ID_GRACE", 0)
        task = Task(store, wait_for_completion=True)
        with Sandbox(seconds=0) as first:
            connect(host=first.url, password=TOKEN)
            store.kill_after = lambda record: record.get("generation_id")
            with pytest.raises(Killed):
                task.run()
        with Sandbox(seconds=0) as other:
            connect(host=other.url, password=TOKEN)
            with pytest.raises(LumaNotFound):
                task.run()
            assert other.report()["charged"] == 0
            task.clear()
            record = store.get(STORE_KEY)
            store.set(STORE_KEY, {**record, "submitted_at": "2026-01-01T00:00:00+00:00"})
            assert task.run()
            assert other.report()["charged"] == 1

    @pytest.mark.parametrize(
        "answer",
        [
            b"404 Not Found\r\nContent-Length: 13\r\n\r\n<html></html>",
            b'404 Not Found\r\nContent-Length: 41\r\n\r\n{"code": 404, "message": "no such route"}',
            b'405 Method Not Allowed\r\nContent-Length: 25\r\n\r\n{"code": "not_supported"}',
        ],
    )
    def test_no_such_call(self, answer, connect, store, sandbox):
        """A host that has no such call says nothing about the generation."""
        connect(host=sandbox.url, password=TOKEN)
        task = Task(store, wait_for_completion=True, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.run()
        submitted = task.xcoms["return_value"]
        store.set(STORE_KEY, {**store.get(STORE_KEY), "submitted_at": "2026-01-01T00:00:00+00:00"})
        task.clear()
        with far_end(b"HTTP/1.1 " + answer) as (url, requests):
            connect(host=url, password=TOKEN)
            with pytest.raises(TaskDeferred):
                task.run()
        assert [request[:4] for request in requests] == [b"GET "]
        assert task.xcoms["return_value"] == submitted


class TestStopped:
    @pytest.mark.usefixtures("connection")
    def test_before(self, store, charged, monkeypatch):
        """A task that is told to stop submits nothing any more."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT)
        monkeypatch.setattr(operator, "_submit", lambda *args: (operator.on_kill(), submit(*args))[1])
        submit = type(operator)._submit.__get__(operator)
        with pytest.raises(LumaError, match="being stopped; nothing was sent"):
            operator.execute({"ti": Task(store), "task_state_store": store})
        assert store.rows == {}
        assert charged() == 0


class TestStore:
    def test_digest(self):
        """The digest of a request is the same in every version of this package."""
        assert digest({"user_prompt": PROMPT, "model_name": "ray-v2", "loop": False}) == (
            "4f50c8bc72834da9babe70ea2e8ce1cf"
        )

    @pytest.mark.usefixtures("connection")
    def test_kept(self, store):
        """What is kept is small, readable and without the token."""
        task = Task(store, user_prompt="A boat " * 700, image_url="data:image/png;base64," + "A" * 100_000)
        submitted = task.run()
        (kept,) = store.rows.values()
        assert len(kept) < 300
        assert TOKEN not in kept
        assert json.loads(kept) == {
            "generation_id": submitted,
            "request": json.loads(kept)["request"],
            "submitted_at": json.loads(kept)["submitted_at"],
            "max_tries": 2,
            "succeeded": True,
        }

    @pytest.mark.usefixtures("connection")
    @pytest.mark.parametrize(("retries", "warned"), [(2, True), (0, False)])
    def test_none(self, retries, warned, charged, capsys, caplog):
        """Without a store a retry submits again, and the first try that could be followed by one says so."""
        task = Task(None, retries=retries)
        with caplog.at_level(logging.WARNING):
            task.run()
        assert ("has no task state store" in capsys.readouterr().out + caplog.text) is warned
        caplog.clear()
        task.run()
        assert "has no task state store" not in capsys.readouterr().out + caplog.text
        assert charged() == 2

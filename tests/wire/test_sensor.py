"""The sensor as a DAG uses it, against the sandbox."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    TaskDeferred,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:
    # Airflow 3.0.
    from airflow.exceptions import AirflowRescheduleException

from airflow_provider_luma.api import GenerationState, LumaNotFound, waiting
from airflow_provider_luma.api.generation import VISIBLE_FIELDS
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from tests.support.samples import PROMPT
from tests.support.task_instance import TaskInstance, finish, resume, run
from tests.support.tries import Store

pytestmark = pytest.mark.usefixtures("connection")

MODES = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "deferred": {"deferrable": True},
}


def sensor(generation_id="x", **arguments):
    return LumaGenerationSensor(task_id="wait", **{"generation_id": generation_id, **arguments})


@pytest.fixture(params=["poke", "reschedule", "deferrable"])
def mode(request):
    """Arguments of a sensor that polls once on its worker."""
    return MODES[request.param]


@pytest.fixture(params=list(MODES))
def waits(request, sandbox):
    """Arguments of a sensor that ends at its first poll in each mode, or after it was deferred."""
    if request.param == "deferred":
        sandbox.change(seconds=60)
    return MODES[request.param]


def wait(sandbox, ti, prompt=PROMPT, **arguments):
    """Submit a generation, wait for it, and return the result of the sensor."""
    return finish(sensor(sandbox.add_generation(prompt), **arguments), ti, sandbox)


class TestResult:
    def test_returns_the_generation(self, waits, sandbox, ti):
        """The sensor returns the completed generation as a dict with documented keys."""
        generation = wait(sandbox, ti, **waits)
        assert generation["id"] == sandbox.report()["generations"][0]["id"]
        assert generation["state"] == "completed"
        assert generation["video_url"].startswith("http")
        assert tuple(generation) == VISIBLE_FIELDS

    @pytest.mark.parametrize("target_state", ["failed", ["completed", "Failed"], GenerationState.FAILED])
    def test_failed_can_be_target(self, target_state, waits, sandbox, ti):
        """If failed is a target state, the sensor returns the failed generation."""
        failed = wait(sandbox, ti, f"{PROMPT} [fail]", target_state=target_state, **waits)
        assert failed["failure_reason"] == "Job failed"

    def test_passed_state_counts(self, waits, sandbox, ti):
        """A completed generation has passed the earlier states."""
        assert wait(sandbox, ti, target_state="processing", **waits)["state"] == "completed"

    def test_failed_generation_is_not_retried(self, waits, sandbox, ti):
        """A failed generation fails the sensor without a retry."""
        with pytest.raises(AirflowFailException, match="Job failed"):
            wait(sandbox, ti, f"{PROMPT} [fail]", **waits)

    def test_completed_cannot_fail(self, waits, sandbox, ti):
        """A sensor for failed fails without a retry if the generation is completed."""
        with pytest.raises(AirflowFailException, match="cannot fail any more"):
            wait(sandbox, ti, target_state="failed", **waits)

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_failure_can_be_skipped(self, option, waits, sandbox, ti):
        """With soft_fail or never_fail, a failed generation skips the task."""
        with pytest.raises(AirflowSkipException):
            wait(sandbox, ti, f"{PROMPT} [fail]", **{option: True}, **waits)


class TestPolling:
    @pytest.mark.parametrize("trouble", ["running", "500", "revoked"])
    def test_continues_the_wait(self, trouble, mode, sandbox, ti):
        """If the generation runs or the API is in trouble, the sensor polls once and waits."""
        generation_id = sandbox.add_generation(seconds=60)
        if trouble == "500":
            sandbox.weather(status={"500": 1})
        elif trouble == "revoked":
            sandbox.weather(revoked=True)
        ended = {"deferrable": TaskDeferred}.get(next(iter(mode)), AirflowRescheduleException)
        one = sensor(generation_id, **mode)
        if mode == MODES["poke"]:
            assert not one.poke({"ti": ti})
        else:
            with pytest.raises(ended):
                run(one, ti)
        assert len(sandbox.requests) == 1

    def test_missing_connection_fails(self, mode, ti):
        """A missing connection fails the sensor on its worker, with the same sentence in each mode."""
        with pytest.raises(AirflowNotFoundException, match=r"The connection 'nowhere' does not exist\. Create it"):
            run(sensor(luma_conn_id="nowhere", **mode), ti)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"generation_id": ["a", "b"]}, r"To wait for several: LumaGenerationSensor.*expand\(generation_id="),
            ({"generation_id": ""}, "generation id must be a string"),
            ({"generation_id": None}, "generation id must be a string"),
            ({"target_state": "done"}, "pending, processing, completed or failed, got 'done'"),
            ({"target_state": []}, "pending, processing, completed or failed"),
        ],
    )
    def test_wrong_argument_fails(self, arguments, message, mode, sandbox, ti):
        """A wrong argument fails the sensor without a retry before anything is sent."""
        with pytest.raises(AirflowFailException, match=message):
            run(sensor(**arguments, timeout=1, **mode), ti)
        assert sandbox.report()["requests"] == 0

    def test_pauses_after_failed_poll(self, sandbox, ti):
        """After a failed poll, a poke that comes too early does not poll."""
        sandbox.weather(status={"429": 1})
        one = sensor(poke_interval=100)
        assert not one.poke({"ti": ti})
        assert not one.poke({"ti": ti})
        assert len(sandbox.requests) == 1

    def test_kill_names_generation(self, logged):
        """If a person stops the sensor, the log says that the generation keeps running."""
        sensor().on_kill()
        assert logged("cannot cancel generation x. It keeps running") == 1


class TestDeferral:
    def deferred(self, sandbox, ti, **arguments):
        one = sensor(sandbox.add_generation(seconds=60), deferrable=True, **arguments)
        with pytest.raises(TaskDeferred) as caught:
            run(one, ti)
        return one, caught.value

    @pytest.mark.parametrize(
        ("limits", "timeout"),
        [
            ({"timeout": 600, "execution_timeout": timedelta(minutes=5)}, 300),
            ({"timeout": 60, "execution_timeout": timedelta(minutes=5)}, 60),
            ({"timeout": 600}, 600),
            ({"timeout": 0}, 0),
        ],
    )
    def test_shorter_time_limit_counts(self, limits, timeout, sandbox, ti):
        """A deferral gets the shorter of timeout and execution_timeout; a timeout of 0 counts."""
        _, deferred = self.deferred(sandbox, ti, **limits)
        assert deferred.timeout == timedelta(seconds=timeout)

    def test_trigger_gets_arguments(self, sandbox, ti):
        """The trigger waits for the sensor's target state, at its poke interval."""
        one, deferred = self.deferred(sandbox, ti, target_state=["failed", "completed"], poke_interval=17)
        assert deferred.trigger.serialize()[1] == {
            "generation_id": one.generation_id,
            "luma_conn_id": "luma_default",
            "poll_interval": 17,
            "target_state": ["completed", "failed"],
        }

    @pytest.mark.parametrize(("option", "error"), [({}, LumaNotFound), ({"never_fail": True}, AirflowSkipException)])
    def test_unknown_id_ends_deferral(self, option, error, sandbox, ti, monkeypatch):
        """An id that stays unknown fails the deferred sensor; with never_fail it skips it."""
        one, deferred = self.deferred(sandbox, ti, **option)
        sandbox.remove_generation(one.generation_id)
        monkeypatch.setattr(waiting, "UNKNOWN_ID_GRACE", 0)
        with pytest.raises(error):
            resume(one, deferred, ti)
        assert one.generation_id in ti.xcoms["luma"]["problem"]


class TestReschedule:
    """Each poll of a rescheduled sensor is a new process; the task state store has its memory."""

    def poke(self, generation_id, store):
        context = {"ti": TaskInstance(), "task_state_store": store}
        return sensor(generation_id, mode="reschedule").poke(context).is_done

    def test_logs_state_once(self, sandbox, logged):
        """A state is logged once, not in each process."""
        generation_id = sandbox.add_generation(seconds=60)
        store = Store()
        for _ in range(3):
            assert not self.poke(generation_id, store)
        assert logged(f"Generation {generation_id} is pending.") == 1

    def test_grace_spans_processes(self, connect, sandbox):
        """A token that is refused for over a minute, in several processes, fails the task."""
        connect(host=sandbox.url, password="wrong")
        store = Store()
        assert not self.poke("x", store)
        store.set("luma_wait", {**store.get("luma_wait"), "lasting_since": time.time() - 61, "not_before": 0})
        # Another generation, after both tasks were cleared, has its own minute.
        other = Store()
        other.rows.update(store.rows)
        assert not self.poke("y", other)
        with pytest.raises(AirflowFailException, match="Check the token"):
            self.poke("x", store)

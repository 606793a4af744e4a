"""The table of docs/paying-once.md: real processes, killed with SIGKILL, and a sandbox that counts what was paid."""

from __future__ import annotations

from uuid import uuid4

import pytest

pytestmark = pytest.mark.since("3.3")


@pytest.fixture
def prompt():
    """A prompt of this test's own, so that its bills can be told from the others'."""
    return f"A paper boat number {uuid4().hex[:8]}"


@pytest.fixture
def bills(sandbox):
    """The ids of the generations that were paid with a prompt."""

    def bills(prompt):
        return [one["id"] for one in sandbox.report()["generations"] if one["prompt"].startswith(prompt)]

    return bills


class Run:
    """One run of one of the DAGs, whose task is called `video`."""

    def __init__(self, deployment, way, prompt):
        self.deployment = deployment
        self.dag_id = f"luma_once_{way}"
        self.run_id = deployment.run(self.dag_id, conf={"prompt": prompt})
        self.task = (self.dag_id, self.run_id, "video")

    def until(self, timeout=90, map_index=-1, **fields):
        return self.deployment.wait_for_task(*self.task, map_index, timeout=timeout, **fields)

    def until_paid(self, bills, prompt, count=1):
        """Wait for a bill, and for the task to have remembered it."""
        self.deployment.wait_for(lambda: len(bills(prompt)) == count, 60)
        self.deployment.wait_for(lambda: self.remembered().get("generation_id"), 30)
        return bills(prompt)[-1]

    def remembered(self):
        path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/video/state-store/luma_submission"
        return self.deployment.api("GET", path)["value"]

    def remembered_success(self):
        """Return what is remembered once it has the success, which the task writes after Airflow has its state."""
        return self.deployment.wait_for(lambda: (kept := self.remembered()).get("succeeded") and kept, 30)

    def ended(self):
        return self.deployment.wait(self.dag_id, self.run_id, timeout=180)

    def tries(self):
        return self.deployment.task_instance(*self.task)["try_number"]

    def xcom(self, key="return_value"):
        return self.deployment.xcom(*self.task, key=key)

    def log(self, try_number=1):
        return self.deployment.log(*self.task, try_number=try_number)

    def clear(self):
        self.deployment.clear(self.dag_id, self.run_id, "video")

    def mark(self, state):
        self.deployment.set_state(*self.task, state)

    def kill(self, **kwargs):
        self.deployment.kill_task(*self.task, **kwargs)


@pytest.fixture
def start(deployment):
    return lambda way, prompt: Run(deployment, way, prompt)


@pytest.mark.parametrize(("way", "only_runner"), [("worker", False), ("worker", True), ("extend", False)])
def test_killed_while_waiting(way, only_runner, start, prompt, bills):
    """A worker that is killed while it waits: the next try takes up the same generation."""
    run = start(way, f"{prompt} [slow]")
    submitted = run.until_paid(bills, prompt)
    run.kill(only_runner=only_runner)
    assert run.ended() == "success"
    assert run.tries() == 2
    assert bills(prompt) == [submitted]
    assert run.xcom() == run.xcom("generation")["id"] == submitted
    assert f"Going on with generation {submitted}" in run.log(2)


def test_killed_after_submitting(start, prompt, bills):
    """A worker that is killed right after submitting: the same."""
    run = start("linger", prompt)
    submitted = run.until_paid(bills, prompt)
    run.kill()
    assert run.ended() == "success"
    assert run.tries() == 2
    assert bills(prompt) == [submitted]
    assert run.xcom() == submitted


def test_failed_afterwards(start, prompt, bills):
    """A task that had its generation and failed after that, and is cleared: the same generation."""
    run = start("afterwards", prompt)
    assert run.ended() == "failed"
    submitted = run.until_paid(bills, prompt)
    run.clear()
    run.until(state="success", try_number=2)
    assert bills(prompt) == [submitted] == [run.xcom()]


@pytest.mark.parametrize("way", ["deferred", "mapped"])
def test_triggerer_killed(way, start, prompt, bills, deployment):
    """A triggerer that is killed and restarted: nothing is submitted, the wait goes on, and no try is used up."""
    run = start(way, f"{prompt} [slow]")
    indexes = range(3) if way == "mapped" else [-1]
    for index in indexes:
        run.until(map_index=index, state="deferred")
    deployment.kill("triggerer")
    deployment.restart("triggerer")
    assert run.ended() == "success"
    assert len(bills(prompt)) == len(indexes)
    for index in indexes:
        assert deployment.task_instance(*run.task, index)["try_number"] == 1


@pytest.mark.parametrize("way", ["worker_timeout", "deferred_timeout"])
def test_execution_timeout(way, start, prompt, bills):
    """A wait that runs into execution_timeout: the next tries take up the same generation."""
    run = start(way, f"{prompt} [slow]")
    assert run.ended() == "success"
    assert run.tries() > 1
    assert bills(prompt) == [run.xcom()]


def test_failed(start, prompt, bills):
    """A generation that failed: the next try submits a new one."""
    run = start("worker", f"{prompt} [fail]")
    run.deployment.wait_for(lambda: len(bills(prompt)) >= 2, 60)
    run.mark("failed")
    first = bills(prompt)[0]
    assert f"Generation {first} failed: Job failed." in run.log(1)
    assert f"Generation {first} failed: Job failed." in run.log(2)
    assert "Submitting anew" in run.log(2)


def test_moderated(start, prompt, bills):
    """One that moderation refused: no further try."""
    run = start("deferred", f"{prompt} [moderated]")
    assert run.ended() == "failed"
    assert run.tries() == 1
    assert len(bills(prompt)) == 1


def test_invalid(start, prompt, sandbox):
    """A request that is refused as invalid: no further try."""
    run = start("worker", "x")
    assert run.ended() == "failed"
    assert run.tries() == 1
    assert "3 to 5,000 characters, got 1" in run.log()


def test_changed(start, prompt, bills, deployment):
    """A request that is no longer the one that was submitted: the new one is submitted, and that is said."""
    variable = {"key": "luma_prompt", "value": f"{prompt} [slow]"}
    deployment.api("POST", "variables", json=variable)
    run = start("variable", "")
    first = run.until_paid(bills, prompt)
    deployment.api("PATCH", "variables/luma_prompt", json={**variable, "value": f"{prompt} sinks"})
    run.kill()
    assert run.ended() == "success"
    assert bills(prompt) == [first, run.xcom()]
    assert f"not the one that an earlier try submitted (generation {first})" in run.log(2)


@pytest.mark.parametrize("way", ["submit", "worker", "deferred"])
def test_succeeded_and_cleared(way, start, prompt, bills):
    """A task that succeeded and is cleared: a new generation, which is what was asked for."""
    run = start(way, prompt)
    assert run.ended() == "success"
    first = run.xcom()
    run.remembered_success()
    run.clear()
    run.until(state="success", try_number=2)
    assert bills(prompt) == [first, run.xcom()]


@pytest.mark.parametrize("way", ["worker", "deferred"])
def test_running_and_cleared(way, start, prompt, bills):
    """A task that is cleared while its generation is running: the same generation."""
    run = start(way, f"{prompt} [slow]")
    submitted = run.until_paid(bills, prompt)
    if way == "deferred":
        run.until(state="deferred")
    run.clear()
    run.until(state="success")
    assert run.tries() > 1
    assert bills(prompt) == [submitted] == [run.xcom()]


@pytest.mark.parametrize("state", ["failed", "success"])
@pytest.mark.parametrize("way", ["worker", "deferred"])
def test_marked_and_cleared(way, state, start, prompt, bills):
    """A task that is marked while its generation is running, and then cleared: the same generation."""
    run = start(way, f"{prompt} [slow]")
    submitted = run.until_paid(bills, prompt)
    if way == "deferred":
        run.until(state="deferred")
    run.mark(state)
    assert run.ended() == state
    run.clear()
    run.until(state="success", try_number=2)
    assert bills(prompt) == [submitted] == [run.xcom()]


@pytest.mark.parametrize("word", ["[drop]", "[html]", "[500]"])
def test_no_answer(word, start, prompt, bills, sandbox):
    """A submission without a readable answer: the task fails for good, and a clear does not pay either."""
    run = start("worker", f"{prompt} {word}")
    assert run.ended() == "failed"
    assert run.tries() == 1
    assert "Look at the account's usage" in run.log()
    refused = sandbox.report()["refused"]
    run.clear()
    run.until(state="failed", try_number=2)
    assert "never learned the answer" in run.log(2)
    assert len(bills(prompt)) == (0 if word == "[500]" else 1)
    assert sandbox.report()["refused"] == refused


def test_killed_while_submitting(start, prompt, bills):
    """A worker that is killed between sending and remembering: the next try fails for good."""
    run = start("worker", f"{prompt} [hang]")
    run.deployment.wait_for(lambda: bills(prompt), 60)
    run.kill()
    assert run.ended() == "failed"
    assert run.tries() == 2
    assert len(bills(prompt)) == 1
    assert "may have been accepted and charged once" in run.log(2)


def test_resubmit(start, prompt, bills):
    """With on_ambiguous_submission="resubmit" the next try submits again, with a warning."""
    run = start("resubmit", f"{prompt} [hang]")
    run.deployment.wait_for(lambda: bills(prompt), 60)
    run.kill()
    run.deployment.wait_for(lambda: len(bills(prompt)) == 2, 90)
    assert "as on_ambiguous_submission says" in run.log(2)
    run.mark("failed")


def test_told_to_wait(start, prompt, bills):
    """A submission that is told to wait for over a minute: deferred until then, without using up a try."""
    run = start("worker", f"{prompt} [429:61]")
    run.until(state="deferred")
    assert bills(prompt) == []
    assert run.ended() == "success"
    assert run.tries() == 1
    assert bills(prompt) == [run.xcom()]


def test_kept_state(start, prompt):
    """What is kept is readable in the task's Storage tab."""
    run = start("submit", prompt)
    assert run.ended() == "success"
    kept = run.remembered_success()
    assert kept["generation_id"] == run.xcom()
    assert set(kept) == {"generation_id", "request", "submitted_at", "max_tries", "succeeded"}

"""The tables of docs/paying-once.md: real processes, killed with SIGKILL, and a sandbox that counts charges."""

from __future__ import annotations

from uuid import uuid4

import pytest

from airflow_provider_luma.operators.submission import DISCARDS_ON_CLEAR, HOW_TO_START_OVER

#: Whether a clear keeps the task's state. Before Airflow 3.4 it always does.
KEEPS = [True, False] if DISCARDS_ON_CLEAR else [True]

pytestmark = [pytest.mark.since("3.3"), pytest.mark.together]

#: The connections to the sandboxes of the gateway and of Luma's own API.
each_api = pytest.mark.parametrize("connection_id", ["luma_default", "luma_own"])


def new_prompt():
    """Return a unique prompt, by which a test finds its generations."""
    return f"A paper boat number {uuid4().hex[:8]}"


class Run:
    """
    A run of a DAG of luma_paying_once.py; its task is called `video`.

    :param words: words in the prompt that change the sandbox's behaviour, such as ``[slow]``.
    """

    def __init__(self, deployment, sandbox, way, words="", *, prompt="", connection_id="luma_default"):
        self.deployment = deployment
        self.sandbox = sandbox
        self.prompt = prompt or new_prompt()
        self.dag_id = f"luma_once_{way}"
        conf = {"prompt": f"{self.prompt} {words}".strip(), "luma_conn_id": connection_id}
        self.run_id = deployment.run(self.dag_id, conf=conf)
        self.task = (self.dag_id, self.run_id, "video")

    def charged(self):
        """Return the ids of the generations that were charged for this run's prompt."""
        return [one["id"] for one in self.sandbox.report()["generations"] if one["prompt"].startswith(self.prompt)]

    def parent(self):
        """Return the id of the generation that this run's generation extends."""
        (parent,) = [one["parent"] for one in self.sandbox.report()["generations"] if one["id"] in self.charged()]
        return parent

    def until_charged(self, count=1):
        """Wait for this number of charges."""
        self.deployment.wait_for(lambda: len(self.charged()) >= count, 120)

    def until_recorded(self):
        """Wait until the record has the id of the only generation, and return it."""
        self.until_charged()
        self.deployment.wait_for(lambda: self.record().get("generation_id"), 30)
        (generation_id,) = self.charged()
        return generation_id

    def finish(self):
        """End the generations of this run's prompt."""
        for generation_id in self.charged():
            self.sandbox.finish(generation_id)

    def record(self):
        """Return the record in the task state store."""
        return self.deployment.api("GET", self._record_path())["value"]

    def change_record(self, value):
        """Change the record as a person does."""
        self.deployment.api("PUT", self._record_path(), json={"value": value})

    def _record_path(self):
        return f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/video/state-store/luma_submission"

    def until(self, timeout=180, map_index=-1, **fields):
        return self.deployment.wait_for_task(*self.task, map_index, timeout=timeout, **fields)

    def ended(self):
        return self.deployment.wait(self.dag_id, self.run_id, timeout=300)

    def tries(self, map_index=-1):
        return self.deployment.task_instance(*self.task, map_index)["try_number"]

    def xcom(self, key="return_value"):
        return self.deployment.xcom(*self.task, key=key)

    def log(self, try_number=1):
        return self.deployment.log(*self.task, try_number=try_number)

    def clear(self, *, keeps):
        options = {"keep_task_state": keeps} if DISCARDS_ON_CLEAR else {}
        self.deployment.clear(self.dag_id, self.run_id, "video", **options)

    def until_done_again(self, generation_id, *, resumes):
        """Wait until the try after a clear has succeeded: it resumes the generation, or submits a new one."""
        # Before that, the process of the cleared try could still see the generation end.
        self.deployment.wait_for(lambda: self.tries() > 1, 180)
        self.finish()
        self.until(state="success")
        assert self.charged() == ([generation_id] if resumes else [generation_id, self.xcom()])
        resuming = f"Resuming generation {generation_id}. To get a new generation: {HOW_TO_START_OVER}"
        said = resuming if resumes else "that generation keeps running and is charged"
        assert said in self.log(self.tries())

    def mark(self, state):
        self.deployment.set_state(*self.task, state)

    def kill(self, **kwargs):
        self.deployment.kill_task(*self.task, **kwargs)


@pytest.mark.parametrize(
    ("way", "only_runner", "connection_id"),
    [
        ("worker", False, "luma_default"),
        ("worker", True, "luma_default"),
        ("extend", False, "luma_default"),
        ("worker", False, "luma_own"),
        ("extend", False, "luma_own"),
    ],
)
def test_resumes_after_kill_while_waiting(way, only_runner, connection_id, deployment, sandboxes):
    """If the worker is killed while it waits, the retry resumes the generation."""
    run = Run(deployment, sandboxes[connection_id], way, "[slow]", connection_id=connection_id)
    submitted = run.until_recorded()
    run.kill(only_runner=only_runner)
    run.finish()
    assert run.ended() == "success"
    assert run.tries() == 2
    assert run.charged() == [submitted]
    assert run.xcom() == run.xcom("generation")["id"] == submitted
    assert run.parent() == (deployment.xcom(run.dag_id, run.run_id, "first") if way == "extend" else None)
    assert f"Resuming generation {submitted}" in run.log(2)


def test_resumes_after_kill_after_submission(deployment, sandbox):
    """If the worker is killed directly after the submission, the retry resumes the generation."""
    run = Run(deployment, sandbox, "linger")
    submitted = run.until_recorded()
    run.kill()
    assert run.ended() == "success"
    assert run.tries() == 2
    assert run.charged() == [submitted]
    assert run.xcom() == submitted


@pytest.mark.parametrize("keeps", KEEPS)
def test_clear_after_later_failure(keeps, deployment, sandbox):
    """If the task failed after its generation was completed, a clear that keeps the state resumes it."""
    run = Run(deployment, sandbox, "afterwards")
    assert run.ended() == "failed"
    submitted = run.until_recorded()
    run.clear(keeps=keeps)
    run.until_done_again(submitted, resumes=keeps)


@pytest.mark.parametrize(
    ("way", "connection_id"), [("deferred", "luma_default"), ("mapped", "luma_default"), ("mapped", "luma_own")]
)
def test_wait_survives_killed_triggerer(way, connection_id, deployment, sandboxes):
    """If the triggerer is killed, the wait goes on without another try."""
    run = Run(deployment, sandboxes[connection_id], way, "[slow]", connection_id=connection_id)
    indexes = range(3) if way == "mapped" else [-1]
    for index in indexes:
        run.until(map_index=index, state="deferred")
    deployment.restart("triggerer")
    run.finish()
    assert run.ended() == "success"
    assert len(run.charged()) == len(indexes)
    for index in indexes:
        assert run.tries(index) == 1


@pytest.mark.parametrize("way", ["worker_timeout", "deferred_timeout"])
def test_resumes_after_execution_timeout(way, deployment, sandbox):
    """After an execution time-out, the retry resumes the generation."""
    run = Run(deployment, sandbox, way, "[slow]")
    run.until(try_number=2)
    run.finish()
    assert run.ended() == "success"
    assert run.tries() > 1
    assert run.charged() == [run.xcom()]


def test_submits_after_failed_generation(deployment, sandbox):
    """If the generation failed, the retry submits a new one."""
    run = Run(deployment, sandbox, "worker", "[fail]")
    run.until_charged(count=2)
    run.mark("failed")
    first = run.charged()[0]
    assert f"Generation {first} failed: Job failed." in run.log(1)
    assert f"Generation {first} failed: Job failed." in run.log(2)
    assert "Submitting a new generation" in run.log(2)


def test_moderated_generation_is_not_retried(deployment, sandbox):
    """If moderation refused the generation, the task fails without a retry."""
    run = Run(deployment, sandbox, "deferred", "[moderated]")
    assert run.ended() == "failed"
    assert run.tries() == 1
    assert len(run.charged()) == 1


def test_invalid_request_is_not_retried(deployment, sandbox):
    """If the API refuses the request, the task fails without a retry, and nothing is charged."""
    run = Run(deployment, sandbox, "worker", prompt="x")
    assert run.ended() == "failed"
    assert run.tries() == 1
    assert "Submitting a generation" in run.log()
    assert "HTTP 400" in run.log()
    assert run.charged() == []


def test_changed_request_is_submitted(deployment, sandbox):
    """If the request changed between two tries, the retry submits it and warns. The prompt is a Variable here."""
    prompt = new_prompt()
    variable = {"key": "luma_prompt", "value": f"{prompt} [slow]"}
    deployment.api("POST", "variables", json=variable)
    run = Run(deployment, sandbox, "variable", prompt=prompt)
    first = run.until_recorded()
    deployment.api("PATCH", "variables/luma_prompt", json={**variable, "value": f"{prompt} sinks"})
    run.kill()
    assert run.ended() == "success"
    assert run.charged() == [first, run.xcom()]
    assert f"The request has changed since an earlier try submitted generation {first}" in run.log(2)


@pytest.mark.parametrize("way", ["submit", "worker", "deferred"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_clear_after_success(keeps, way, deployment, sandbox):
    """If the task succeeded, a clear that keeps the state resumes its generation: nothing is charged."""
    run = Run(deployment, sandbox, way)
    assert run.ended() == "success"
    first = run.xcom()
    run.clear(keeps=keeps)
    run.until_done_again(first, resumes=keeps)


@pytest.mark.parametrize("keeps", KEEPS)
def test_clear_of_success_marked_failed(keeps, deployment, sandbox):
    """If the task succeeded and was marked as failed, clears that keep the state charge nothing."""
    run = Run(deployment, sandbox, "worker")
    assert run.ended() == "success"
    first = run.xcom()
    run.mark("failed")
    run.until(state="failed")
    run.clear(keeps=keeps)
    run.until_done_again(first, resumes=keeps)


def test_clear_of_run_keeps_state(deployment, sandbox):
    """A clear of the whole run keeps the state, also on Airflow 3.4.0b2; apache/airflow#72929 plans to change that."""
    run = Run(deployment, sandbox, "submit")
    assert run.ended() == "success"
    first = run.xcom()
    deployment.api("POST", f"dags/{run.dag_id}/dagRuns/{run.run_id}/clear", json={"dry_run": False})
    run.until_done_again(first, resumes=True)


@pytest.mark.parametrize("way", ["worker", "deferred"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_clear_while_waiting(keeps, way, deployment, sandbox):
    """If the task waits, a clear that keeps the state resumes the generation; the log names it."""
    run = Run(deployment, sandbox, way, "[slow]")
    submitted = run.until_recorded()
    # The process that waits writes that log: no other test may kill it in the meantime.
    with deployment.undisturbed:
        if way == "deferred":
            deployment.wait_for(lambda: f"trigger {run.dag_id}" in run.log(1))
        run.clear(keeps=keeps)
        deployment.wait_for(lambda: f"cannot cancel generation {submitted}. It keeps running" in run.log(1))
    run.until_done_again(submitted, resumes=keeps)


@pytest.mark.parametrize("state", ["failed", "success"])
@pytest.mark.parametrize("way", ["worker", "deferred"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_clear_after_mark_while_waiting(keeps, way, state, deployment, sandbox):
    """If the task was marked while it waited, a clear that keeps the state resumes the generation."""
    run = Run(deployment, sandbox, way, "[slow]")
    submitted = run.until_recorded()
    if way == "deferred":
        run.until(state="deferred")
    run.mark(state)
    assert run.ended() == state
    run.clear(keeps=keeps)
    run.until_done_again(submitted, resumes=keeps)


@pytest.mark.parametrize(
    ("api", "word"),
    [("", "[drop]"), ("", "[html]"), ("", "[500]"), ("agents", "[drop]"), ("agents", "[proxy]"), ("agents", "[500]")],
)
def test_lost_answer_is_never_repeated(api, word, deployment, another_sandbox):
    """If the answer was lost, the task fails without a retry, and a clear that keeps the state submits nothing."""
    with another_sandbox(api) as (sandbox, connection_id):
        run = Run(deployment, sandbox, "worker", word, connection_id=connection_id)
        assert run.ended() == "failed"
        assert run.tries() == 1
        assert "Look at the account's usage" in run.log()
        refused = sandbox.report()["refused"]
        run.clear(keeps=True)
        run.until(state="failed", try_number=2)
        assert "never got the answer" in run.log(2)
        assert len(run.charged()) == (0 if word == "[500]" else 1)
        assert sandbox.report()["refused"] == refused


@pytest.mark.since("3.4")
def test_discarded_state_submits_again(deployment, sandbox):
    """If the answer was lost, a clear that discards the state submits again, as the error says."""
    run = Run(deployment, sandbox, "worker", "[drop]")
    assert run.ended() == "failed"
    run.clear(keeps=False)
    run.until(state="failed", try_number=2)
    assert len(run.charged()) == 2
    assert "a clear without it pays again." in run.log(1)


@pytest.mark.parametrize("keeps", KEEPS)
def test_added_id_is_resumed(keeps, deployment, sandbox):
    """A person who adds the generation id to the record lets a clear that keeps the state resume it."""
    run = Run(deployment, sandbox, "worker", "[drop]")
    assert run.ended() == "failed"
    (generation_id,) = run.charged()
    run.change_record({**run.record(), "generation_id": generation_id})
    run.clear(keeps=keeps)
    run.until(state="success" if keeps else "failed", try_number=2)
    assert len(run.charged()) == (1 if keeps else 2)


@each_api
def test_kill_while_submitting_fails_retry(connection_id, deployment, sandboxes):
    """If the worker is killed between the request and its answer, the retry fails and submits nothing."""
    sandbox = sandboxes[connection_id]
    run = Run(deployment, sandbox, "worker", "[hang]", connection_id=connection_id)
    run.until_charged()
    run.kill()
    assert run.ended() == "failed"
    assert run.tries() == 2
    assert len(run.charged()) == 1
    assert "it may have been accepted and charged" in run.log(2)
    if connection_id == "luma_own":
        # Luma's support can find the request by this id.
        request_id = run.record()["request_id"]
        assert request_id in [request.headers.get("x-request-id") for request in sandbox.requests]
        assert f"with X-Request-Id {request_id}" in run.log(1)
        assert f"request_id {request_id}" in run.log(2)


def test_resubmit_pays_again(deployment, sandbox):
    """With on_ambiguous_submission="resubmit", the retry after such a kill submits again and warns."""
    run = Run(deployment, sandbox, "resubmit", "[hang]")
    run.until_charged()
    run.kill()
    run.until_charged(count=2)
    assert len(run.charged()) == 2
    assert "This try submits it again, because on_ambiguous_submission is" in run.log(2)
    run.mark("failed")


@pytest.mark.together(first=True)
@pytest.mark.parametrize(("connection_id", "word"), [("luma_default", "[429:61]"), ("luma_own", "[busy]")])
def test_long_pause_defers_submission(connection_id, word, deployment, sandboxes):
    """If the API asks for a long pause (429), the task defers for it and submits, in the same try."""
    run = Run(deployment, sandboxes[connection_id], "worker", word, connection_id=connection_id)
    run.until(state="deferred")
    assert run.charged() == []
    assert run.ended() == "success"
    assert run.tries() == 1
    assert run.charged() == [run.xcom()]


@pytest.mark.parametrize(
    ("connection_id", "api", "more"), [("luma_default", "gateway", set()), ("luma_own", "agents", {"request_id"})]
)
def test_record_is_in_state_store(connection_id, api, more, deployment, sandboxes):
    """The record is in Airflow's task state store, where the UI shows it."""
    sandbox = sandboxes[connection_id]
    run = Run(deployment, sandbox, "submit", connection_id=connection_id)
    assert run.ended() == "success"
    record = run.record()
    assert record["generation_id"] == run.xcom()
    assert record["api"] == f"{api} {sandbox.url}"
    assert set(record) == {"generation_id", "request", "api", "submitted_at"} | more

"""The table of docs/paying-once.md: real processes, killed with SIGKILL, and a sandbox that counts what was paid."""

from __future__ import annotations

from uuid import uuid4

import pytest

from airflow_provider_luma.operators.submission import DISCARDS_ON_CLEAR

#: Whether the clears that there are keep the task's state: from Airflow 3.4 on, who clears says so.
KEEPS = [True, False] if DISCARDS_ON_CLEAR else [True]

pytestmark = [pytest.mark.since("3.3"), pytest.mark.together]

#: The connections of the gateway and of Luma's own API.
both_apis = pytest.mark.parametrize("connection_id", ["luma_default", "luma_own"])


def new_prompt():
    """Return a prompt that no other test has, so that its bills are not mixed up with the others'."""
    return f"A paper boat number {uuid4().hex[:8]}"


class Run:
    """
    One run of one of the DAGs of luma_paying_once.py, whose task is called `video`.

    :param words: what the prompt asks the sandbox for, such as ``[slow]``.
    """

    def __init__(self, deployment, sandbox, way, words="", *, prompt="", connection_id="luma_default"):
        self.deployment = deployment
        self.sandbox = sandbox
        self.prompt = prompt or new_prompt()
        self.dag_id = f"luma_once_{way}"
        conf = {"prompt": f"{self.prompt} {words}".strip(), "luma_conn_id": connection_id}
        self.run_id = deployment.run(self.dag_id, conf=conf)
        self.task = (self.dag_id, self.run_id, "video")

    def bills(self):
        """Return the ids of the generations that were paid with this run's prompt."""
        return [one["id"] for one in self.sandbox.report()["generations"] if one["prompt"].startswith(self.prompt)]

    def parent(self):
        """Return the id of the generation that this run's one extends."""
        (parent,) = [one["parent"] for one in self.sandbox.report()["generations"] if one["id"] in self.bills()]
        return parent

    def until_paid(self, count=1):
        """Wait for so many bills."""
        self.deployment.wait_for(lambda: len(self.bills()) >= count, 120)

    def until_remembered(self):
        """Wait for the one bill and for the task to have remembered it, and return the generation's id."""
        self.until_paid()
        self.deployment.wait_for(lambda: self.remembered().get("generation_id"), 30)
        (generation_id,) = self.bills()
        return generation_id

    def finish(self):
        """Let the generations that were paid with this run's prompt end now."""
        for generation_id in self.bills():
            self.sandbox.finish(generation_id)

    def remembered(self):
        path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/video/state-store/luma_submission"
        return self.deployment.api("GET", path)["value"]

    def remember(self, value):
        """Change what is remembered, as a person does."""
        path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/video/state-store/luma_submission"
        self.deployment.api("PUT", path, json={"value": value})

    def remembered_success(self):
        """Return what is remembered once it has the success, which the task writes after Airflow has its state."""
        return self.deployment.wait_for(lambda: (kept := self.remembered()).get("succeeded") and kept, 30)

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

    def until_done_again(self, submitted, *, resumes):
        """Wait for the success of the try after a clear, which resumes the generation or submits a new one."""
        # Before that, the process of the try that was cleared could still see the generation end.
        self.deployment.wait_for(lambda: self.tries() > 1, 180)
        self.finish()
        self.until(state="success")
        assert self.bills() == ([submitted] if resumes else [submitted, self.xcom()])
        said = f"Resuming generation {submitted}" if resumes else "that generation goes on and is paid for"
        if DISCARDS_ON_CLEAR or resumes:
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
def test_a_retry_after_a_kill_while_waiting_resumes_the_same_generation(
    way, only_runner, connection_id, deployment, sandboxes
):
    run = Run(deployment, sandboxes[connection_id], way, "[slow]", connection_id=connection_id)
    submitted = run.until_remembered()
    run.kill(only_runner=only_runner)
    run.finish()
    assert run.ended() == "success"
    assert run.tries() == 2
    assert run.bills() == [submitted]
    assert run.xcom() == run.xcom("generation")["id"] == submitted
    assert run.parent() == (deployment.xcom(run.dag_id, run.run_id, "first") if way == "extend" else None)
    assert f"Resuming generation {submitted}" in run.log(2)


def test_a_retry_after_a_kill_right_after_submitting_resumes_the_same_generation(deployment, sandbox):
    run = Run(deployment, sandbox, "linger")
    submitted = run.until_remembered()
    run.kill()
    assert run.ended() == "success"
    assert run.tries() == 2
    assert run.bills() == [submitted]
    assert run.xcom() == submitted


@pytest.mark.parametrize("keeps", KEEPS)
def test_clearing_a_task_that_failed_after_its_generation_resumes_it_if_its_state_is_kept(keeps, deployment, sandbox):
    """The generation was completed, and then something else in the task failed."""
    run = Run(deployment, sandbox, "afterwards")
    assert run.ended() == "failed"
    submitted = run.until_remembered()
    run.clear(keeps=keeps)
    run.until_done_again(submitted, resumes=keeps)


@pytest.mark.parametrize(
    ("way", "connection_id"), [("deferred", "luma_default"), ("mapped", "luma_default"), ("mapped", "luma_own")]
)
def test_a_wait_survives_its_killed_triggerer_without_using_up_a_try(way, connection_id, deployment, sandboxes):
    run = Run(deployment, sandboxes[connection_id], way, "[slow]", connection_id=connection_id)
    indexes = range(3) if way == "mapped" else [-1]
    for index in indexes:
        run.until(map_index=index, state="deferred")
    deployment.restart("triggerer")
    run.finish()
    assert run.ended() == "success"
    assert len(run.bills()) == len(indexes)
    for index in indexes:
        assert run.tries(index) == 1


@pytest.mark.parametrize("way", ["worker_timeout", "deferred_timeout"])
def test_a_retry_after_execution_timeout_resumes_the_same_generation(way, deployment, sandbox):
    run = Run(deployment, sandbox, way, "[slow]")
    run.until(try_number=2)
    run.finish()
    assert run.ended() == "success"
    assert run.tries() > 1
    assert run.bills() == [run.xcom()]


def test_a_retry_after_a_failed_generation_submits_a_new_one(deployment, sandbox):
    run = Run(deployment, sandbox, "worker", "[fail]")
    run.until_paid(count=2)
    run.mark("failed")
    first = run.bills()[0]
    assert f"Generation {first} failed: Job failed." in run.log(1)
    assert f"Generation {first} failed: Job failed." in run.log(2)
    assert "Submitting again" in run.log(2)


def test_a_moderated_generation_is_not_retried(deployment, sandbox):
    run = Run(deployment, sandbox, "deferred", "[moderated]")
    assert run.ended() == "failed"
    assert run.tries() == 1
    assert len(run.bills()) == 1


def test_an_invalid_request_is_not_retried(deployment, sandbox):
    run = Run(deployment, sandbox, "worker", prompt="x")
    assert run.ended() == "failed"
    assert run.tries() == 1
    assert "3 to 5,000 characters, got 1" in run.log()


def test_a_retry_whose_request_has_changed_submits_it_and_logs_that(deployment, sandbox):
    """The prompt is a Variable, which is changed between two tries."""
    prompt = new_prompt()
    variable = {"key": "luma_prompt", "value": f"{prompt} [slow]"}
    deployment.api("POST", "variables", json=variable)
    run = Run(deployment, sandbox, "variable", prompt=prompt)
    first = run.until_remembered()
    deployment.api("PATCH", "variables/luma_prompt", json={**variable, "value": f"{prompt} sinks"})
    run.kill()
    assert run.ended() == "success"
    assert run.bills() == [first, run.xcom()]
    assert f"not the one that an earlier try submitted (generation {first})" in run.log(2)


@pytest.mark.parametrize("way", ["submit", "worker", "deferred"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_clearing_a_task_that_succeeded_submits_a_new_generation_unless_the_state_is_kept_by_choice(
    keeps, way, deployment, sandbox
):
    run = Run(deployment, sandbox, way)
    assert run.ended() == "success"
    first = run.xcom()
    run.remembered_success()
    run.clear(keeps=keeps)
    run.until_done_again(first, resumes=keeps and DISCARDS_ON_CLEAR)


def test_clearing_a_whole_run_keeps_the_state(deployment, sandbox):
    """So does Airflow 3.4.0b2; apache/airflow#72929 is to change that."""
    run = Run(deployment, sandbox, "submit")
    assert run.ended() == "success"
    first = run.xcom()
    run.remembered_success()
    deployment.api("POST", f"dags/{run.dag_id}/dagRuns/{run.run_id}/clear", json={"dry_run": False})
    run.until_done_again(first, resumes=DISCARDS_ON_CLEAR)


@pytest.mark.parametrize("way", ["worker", "deferred"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_clearing_a_task_that_waits_resumes_the_same_generation_if_its_state_is_kept(keeps, way, deployment, sandbox):
    run = Run(deployment, sandbox, way, "[slow]")
    submitted = run.until_remembered()
    # What is logged then, the process that waits logs: no other test may kill it meanwhile.
    with deployment.undisturbed:
        if way == "deferred":
            deployment.wait_for(lambda: f"trigger {run.dag_id}" in run.log(1))
        run.clear(keeps=keeps)
        deployment.wait_for(lambda: f"generation {submitted} goes on and is paid for" in run.log(1))
    run.until_done_again(submitted, resumes=keeps)


@pytest.mark.parametrize("state", ["failed", "success"])
@pytest.mark.parametrize("way", ["worker", "deferred"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_clearing_a_task_that_was_marked_while_it_waited_resumes_the_same_generation_if_its_state_is_kept(
    keeps, way, state, deployment, sandbox
):
    run = Run(deployment, sandbox, way, "[slow]")
    submitted = run.until_remembered()
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
def test_a_submission_without_a_readable_answer_is_never_repeated(api, word, deployment, another_sandbox):
    """The task fails without a retry, and a clear that keeps its state does not submit either."""
    with another_sandbox(api) as (sandbox, connection_id):
        run = Run(deployment, sandbox, "worker", word, connection_id=connection_id)
        assert run.ended() == "failed"
        assert run.tries() == 1
        assert "Look at the account's usage" in run.log()
        refused = sandbox.report()["refused"]
        run.clear(keeps=True)
        run.until(state="failed", try_number=2)
        assert "never got the answer" in run.log(2)
        assert len(run.bills()) == (0 if word == "[500]" else 1)
        assert sandbox.report()["refused"] == refused


@pytest.mark.since("3.4")
def test_a_clear_that_discards_the_state_repeats_a_submission_without_an_answer(deployment, sandbox):
    run = Run(deployment, sandbox, "worker", "[drop]")
    assert run.ended() == "failed"
    run.clear(keeps=False)
    run.until(state="failed", try_number=2)
    assert len(run.bills()) == 2
    assert "A clear without that submits, and pays, again." in run.log(1)


@pytest.mark.parametrize("keeps", KEEPS)
def test_a_person_who_has_found_the_id_adds_it_and_the_task_resumes_it_if_its_state_is_kept(keeps, deployment, sandbox):
    """As HOW_TO_RESOLVE says, in the tab where Airflow shows the state."""
    run = Run(deployment, sandbox, "worker", "[drop]")
    assert run.ended() == "failed"
    (charged,) = run.bills()
    run.remember({**run.remembered(), "generation_id": charged})
    run.clear(keeps=keeps)
    run.until(state="success" if keeps else "failed", try_number=2)
    assert len(run.bills()) == (1 if keeps else 2)


@both_apis
def test_a_kill_while_submitting_fails_the_retry_without_paying_again(connection_id, deployment, sandboxes):
    """The worker is killed between sending the submission and remembering the answer."""
    sandbox = sandboxes[connection_id]
    run = Run(deployment, sandbox, "worker", "[hang]", connection_id=connection_id)
    run.until_paid()
    run.kill()
    assert run.ended() == "failed"
    assert run.tries() == 2
    assert len(run.bills()) == 1
    assert "may have been accepted and charged once" in run.log(2)
    if connection_id == "luma_own":
        # By which Luma's support can find it: in the killed try's log, and in the error of the one after it.
        request_id = run.remembered()["request_id"]
        assert request_id in [request.headers.get("x-request-id") for request in sandbox.requests]
        assert f"with X-Request-Id {request_id}" in run.log(1)
        assert f"request_id {request_id}" in run.log(2)


def test_resubmit_pays_again_after_a_kill_while_submitting_and_logs_that(deployment, sandbox):
    """That is what `on_ambiguous_submission="resubmit"` asks for."""
    run = Run(deployment, sandbox, "resubmit", "[hang]")
    run.until_paid()
    run.kill()
    run.until_paid(count=2)
    assert len(run.bills()) == 2
    assert "as on_ambiguous_submission says" in run.log(2)
    run.mark("failed")


@pytest.mark.together(first=True)
@pytest.mark.parametrize(("connection_id", "word"), [("luma_default", "[429:61]"), ("luma_own", "[busy]")])
def test_a_submission_that_has_to_wait_a_minute_is_deferred_without_using_up_a_try(
    connection_id, word, deployment, sandboxes
):
    """The API answers 429 with a long `Retry-After`: too many calls, or too many generations at once."""
    run = Run(deployment, sandboxes[connection_id], "worker", word, connection_id=connection_id)
    run.until(state="deferred")
    assert run.bills() == []
    assert run.ended() == "success"
    assert run.tries() == 1
    assert run.bills() == [run.xcom()]


@pytest.mark.parametrize(
    ("connection_id", "api", "more"), [("luma_default", "gateway", set()), ("luma_own", "agents", {"request_id"})]
)
def test_what_a_task_remembers_is_in_its_state_store(connection_id, api, more, deployment, sandboxes):
    """It can be read in Airflow's UI."""
    sandbox = sandboxes[connection_id]
    run = Run(deployment, sandbox, "submit", connection_id=connection_id)
    assert run.ended() == "success"
    kept = run.remembered_success()
    assert kept["generation_id"] == run.xcom()
    assert kept["api"] == f"{api} {sandbox.url}"
    assert set(kept) == {"generation_id", "request", "api", "submitted_at", "max_tries", "succeeded"} | more

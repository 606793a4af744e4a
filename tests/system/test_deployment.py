"""The test harness itself, on which the other system tests rely."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.together


def test_run_can_be_read(deployment):
    """States, XComs, logs and database rows of a run can be read, and its tasks can be cleared."""
    run = deployment.run_to_end("plain", {"answer": 42})
    assert [ti["task_id"] for ti in deployment.task_instances("plain", run)] == ["answer"]
    assert deployment.xcom("plain", run, "answer") == {"answer": 42}
    assert "thinking" in deployment.log("plain", run, "answer")
    # The table is xcom_v2 from Airflow 3.4 on.
    assert any(table.startswith("xcom") and "42" in row for table, row in deployment.dump())
    deployment.clear("plain", run, "answer")
    assert deployment.wait_for_task("plain", run, "answer", try_number=2, state="success")


def test_wait_survives_triggerer(deployment):
    """A deferred task continues after its triggerer was killed and started again."""
    run = deployment.run("deferring")
    deployment.wait_for_task("deferring", run, "wait", state="deferred")
    deployment.restart("triggerer")
    assert deployment.wait("deferring", run) == "success"


# Airflow 3.0 fails a task if only its own process is killed.
@pytest.mark.parametrize("only_runner", [False, pytest.param(True, marks=pytest.mark.since("3.1"))])
def test_killed_task_is_retried(deployment, only_runner):
    """A task whose processes were killed is retried."""
    run = deployment.run("killed")
    deployment.wait_for_task("killed", run, "work", state="running")
    time.sleep(1)
    deployment.kill_task("killed", run, "work", only_runner=only_runner)
    assert deployment.wait_for_task("killed", run, "work", try_number=2, state="success")

"""The harness itself: what the other system tests rely on."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.together


def test_state_values_logs_and_rows_of_a_run_can_be_read(deployment):
    run = deployment.run_to_end("plain", {"answer": 42})
    assert [ti["task_id"] for ti in deployment.task_instances("plain", run)] == ["answer"]
    assert deployment.xcom("plain", run, "answer") == {"answer": 42}
    assert "thinking" in deployment.log("plain", run, "answer")
    # The table is xcom_v2 from Airflow 3.4 on.
    assert any(table.startswith("xcom") and "42" in row for table, row in deployment.dump())
    deployment.clear("plain", run, "answer")
    assert deployment.wait_for_task("plain", run, "answer", try_number=2, state="success")


def test_a_wait_survives_its_triggerer(deployment):
    """A deferred task goes on once there is another triggerer."""
    run = deployment.run("deferring")
    deployment.wait_for_task("deferring", run, "wait", state="deferred")
    deployment.restart("triggerer")
    assert deployment.wait("deferring", run) == "success"


# Airflow 3.0 fails a task whose process alone is killed.
@pytest.mark.parametrize("only_runner", [False, pytest.param(True, marks=pytest.mark.since("3.1"))])
def test_a_killed_task_is_retried(deployment, only_runner):
    run = deployment.run("killed")
    deployment.wait_for_task("killed", run, "work", state="running")
    time.sleep(1)
    deployment.kill_task("killed", run, "work", only_runner=only_runner)
    assert deployment.wait_for_task("killed", run, "work", try_number=2, state="success")

"""The harness itself: what the other system tests rely on."""

from __future__ import annotations

import time

import pytest

from tests.system.deployment import Deployment

DAGS = """
import time
from datetime import timedelta
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import dag, task

@dag(schedule=None)
def plain():
    @task
    def answer(params):
        print("thinking")
        return {"answer": params.get("answer")}
    answer()

@dag(schedule=None)
def deferring():
    TimeDeltaSensor(task_id="wait", delta=timedelta(seconds=15), deferrable=True)

@dag(schedule=None)
def killed():
    @task(retries=1, retry_delay=timedelta(seconds=0))
    def work(ti=None):
        if ti.try_number == 1:
            time.sleep(600)
    work()

plain(), deferring(), killed()
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployment")
    (folder / "dags.py").write_text(DAGS)
    deployment = Deployment(folder / "airflow", folder / "dags.py")
    with deployment:
        yield deployment
        assert len(deployment.processes()) > 4
    assert deployment.processes() == []


def test_reads(deployment):
    """A run's state, values, logs and database rows can be read."""
    run = deployment.run("plain", {"answer": 42})
    assert deployment.wait("plain", run) == "success"
    assert [ti["task_id"] for ti in deployment.task_instances("plain", run)] == ["answer"]
    assert deployment.xcom("plain", run, "answer") == {"answer": 42}
    assert "thinking" in deployment.log("plain", run, "answer")
    assert any(table == "xcom" and "42" in row for table, row in deployment.dump())
    assert deployment.import_errors() == []
    deployment.clear("plain", run, "answer")
    assert deployment.wait_for_task("plain", run, "answer", try_number=2, state="success")


def test_triggerer_dies(deployment):
    """A wait survives its triggerer, once there is another."""
    run = deployment.run("deferring")
    deployment.wait_for_task("deferring", run, "wait", state="deferred")
    deployment.restart("triggerer")
    assert deployment.wait("deferring", run) == "success"


# Airflow 3.0 fails a task whose process alone is killed.
@pytest.mark.parametrize("only_runner", [False, pytest.param(True, marks=pytest.mark.since("3.1"))])
def test_task_dies(deployment, only_runner):
    """A killed task is tried again."""
    run = deployment.run("killed")
    deployment.wait_for_task("killed", run, "work", state="running")
    time.sleep(1)
    deployment.kill_task("killed", run, "work", only_runner=only_runner)
    assert deployment.wait_for_task("killed", run, "work", try_number=2, state="success", timeout=90)

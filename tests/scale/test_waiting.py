"""Hundreds of deferred tasks in a real triggerer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.triggers.poller import SLOTS
from tests.support.deployment import Deployment

DOCS = Path(__file__).parents[2] / "docs" / "scale.md"
TASKS = 500
WORKERS = 3
TOKEN = "marked-token-4711-of-those-who-wait"


@pytest.fixture
def sandbox():
    """A sandbox whose generations are completed when the test says so."""
    with Sandbox(token=TOKEN, seconds=1e6, latency=0.05) as sandbox:
        yield sandbox


@pytest.fixture
def deployment(tmp_path):
    """An Airflow with the settings that the docs advise for many waits, and few workers."""
    dag = Path(__file__).parent / "dags" / "luma_waiting.py"
    deployment = Deployment(tmp_path / "home", dag, env={"AIRFLOW__CORE__PARALLELISM": str(WORKERS)})
    settings = re.search(r"airflow_local_settings.py\"\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (deployment.home / "config").mkdir()
    (deployment.home / "config" / "airflow_local_settings.py").write_text(settings[1])
    with deployment:
        yield deployment


def test_deferred_tasks_share_requests(deployment, sandbox):
    """Hundreds of waits share a few requests, never block the triggerer, and log only their own generation."""
    ids = [sandbox.add_generation() for _ in range(TASKS)]
    deployment.add_connection("luma_default", conn_type="luma", host=sandbox.url, password=TOKEN)
    run_id = deployment.run("luma_waiting", conf={"ids": ids})

    def deferred():
        counted = "SELECT count(*) FROM task_instance WHERE dag_id = 'luma_waiting' AND state = 'deferred'"
        return deployment.query(counted) == [(TASKS,)]

    triggerer_log = deployment.home / "triggerer.log"
    deployment.wait_for(deferred, 900)
    asked = sandbox.report()["batch_polls"]
    deployment.wait_for(lambda: sandbox.report()["batch_polls"] >= asked + 20, 60)
    for number, generation_id in enumerate(ids):
        sandbox.finish(generation_id, after=number * 120 / TASKS)
    assert deployment.wait("luma_waiting", run_id, timeout=900) == "success"

    # Each sensor polls once on its worker, before it defers.
    assert sandbox.report()["at_once"] <= SLOTS["batch"] + WORKERS
    assert "async thread was blocked" not in triggerer_log.read_text()
    for map_index in (0, TASKS - 1):
        own = deployment.log("luma_waiting", run_id, "wait", map_index=map_index)
        assert ids[map_index] in own
        assert not any(other in own for other in set(ids) - {ids[map_index]})

"""A real triggerer with many deferred tasks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_luma.sandbox import Sandbox
from tests.system.deployment import Deployment

TASKS = 500
TOKEN = "marked-token-4711-of-those-who-wait"


@pytest.fixture
def sandbox():
    """A gateway whose generations are completed when the test says so."""
    with Sandbox(token=TOKEN, seconds=1e6, latency=0.05) as sandbox:
        yield sandbox


@pytest.fixture
def deployment(tmp_path):
    """An Airflow of this test's own, whose triggerer has a core to itself, as it has a machine of its own elsewhere."""
    dag = Path(__file__).parent / "dags" / "luma_waiting.py"
    all_cores = os.sched_getaffinity(0)
    core, *others = sorted(all_cores)
    os.sched_setaffinity(0, others)
    try:
        with Deployment(tmp_path / "home", dag, env={"AIRFLOW__CORE__PARALLELISM": "4"}) as deployment:
            for process in deployment.processes(deployment.sessions["triggerer"].pid):
                process.cpu_affinity([core])
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, [core])
            yield deployment
    finally:
        os.sched_setaffinity(0, all_cores)


def test_many(deployment, sandbox):
    """Hundreds of deferred tasks share a few requests, all finish, and do not block the triggerer's event loop."""
    memory = sandbox.app.routes[0].app.gateway
    ids = [memory.accept({"user_prompt": "A paper boat"}).id for _ in range(TASKS)]
    deployment.add_connection("luma_default", conn_type="luma", host=sandbox.url, password=TOKEN)
    run_id = deployment.run("luma_waiting", conf={"ids": ids})

    def deferred():
        """Return how many tasks are."""
        with closing(sqlite3.connect(deployment.database)) as connection:
            counted = "SELECT count(*) FROM task_instance WHERE dag_id = 'luma_waiting' AND state = 'deferred'"
            return connection.execute(counted).fetchone()[0]

    triggerer_log = deployment.home / "triggerer.log"
    # With the first triggers, Python searches all that Airflow has imported for garbage, which takes up to 0.2 s.
    deployment.wait_for(lambda: deferred() >= 10, 120)
    begun = len(triggerer_log.read_text())
    deployment.wait_for(lambda: deferred() == TASKS, 900)
    asked = sandbox.report()["batch_polls"]
    deployment.wait_for(lambda: sandbox.report()["batch_polls"] >= asked + 20, 60)
    for number, generation in enumerate(memory.generations.values()):
        generation.seconds = generation.age + number * 120 / TASKS
    assert deployment.wait("luma_waiting", run_id, timeout=900) == "success"

    assert sandbox.report()["at_once"] <= 4
    assert "async thread was blocked" not in triggerer_log.read_text()[begun:]
    for map_index in (0, TASKS - 1):
        own = deployment.log("luma_waiting", run_id, "wait", map_index=map_index)
        assert ids[map_index] in own
        assert not any(other in own for other in set(ids) - {ids[map_index]})

"""A real triggerer with many deferred tasks."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from airflow_provider_luma.sandbox import Sandbox

TASKS = 500
TOKEN = "marked-token-4711-of-those-who-wait"


@pytest.fixture
def slow():
    """A gateway of this test's own, whose generations are completed when the test says so."""
    with Sandbox(token=TOKEN, seconds=1e6, latency=0.05) as sandbox:
        yield sandbox


def test_many(deployment, slow):
    """Hundreds of deferred tasks share a few requests, all finish, and the triggerer's event loop is never blocked."""
    memory = slow.app.routes[0].app.gateway
    ids = [memory.accept({"user_prompt": "A paper boat"}).id for _ in range(TASKS)]
    deployment.add_connection("luma_waiting", conn_type="luma", host=slow.url, password=TOKEN)
    run_id = deployment.run("luma_waiting", conf={"ids": ids, "luma_conn_id": "luma_waiting"})

    def deferred():
        with closing(sqlite3.connect(deployment.database)) as connection:
            counted = "SELECT count(*) FROM task_instance WHERE dag_id = 'luma_waiting' AND state = 'deferred'"
            return connection.execute(counted).fetchone() == (TASKS,)

    deployment.wait_for(deferred, 900)
    before = slow.report()["batch_polls"]
    deployment.wait_for(lambda: slow.report()["batch_polls"] >= before + 20, 60)
    for generation in memory.generations.values():
        generation.seconds = 0.0
    assert deployment.wait("luma_waiting", run_id, timeout=900) == "success"

    report = slow.report()
    assert report["at_once"] <= 4
    assert "async thread was blocked" not in (deployment.home / "triggerer.log").read_text()
    for map_index in (0, TASKS - 1):
        own, others = log_of(deployment, run_id, map_index), set(ids) - {ids[map_index]}
        assert ids[map_index] in own
        assert not any(other in own for other in others)


def log_of(deployment, run_id, map_index):
    """Everything that one of the tasks has logged."""
    return deployment.log("luma_waiting", run_id, "wait", map_index=map_index)

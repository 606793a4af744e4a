"""A large deployment of Airflow whose processes are killed during a run."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from airflow_provider_luma.sandbox import Sandbox
from dev.local_airflow import EXAMPLE_DAGS
from tests.deployment import services
from tests.support import killing
from tests.support.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterable

TASKS = 300
DAG = "example_luma_mapped"
TOKEN = "marked-token-4711-of-the-deployment"
PATIENCE = 3600
"""Seconds for events that must happen, even on a slow machine."""

WORKER = ("celery", "worker", "--skip-serve-logs")
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler-1": ("scheduler", "--skip-serve-logs"),
    "scheduler-2": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer-1": ("triggerer", "--skip-serve-logs"),
    "triggerer-2": ("triggerer", "--skip-serve-logs"),
    "worker-1": (*WORKER, "--celery-hostname", "worker-1@%h", "--pid", "worker-1.pid"),
    "worker-2": (*WORKER, "--celery-hostname", "worker-2@%h", "--pid", "worker-2.pid"),
}

SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "3",
    # A killed worker fails the tries that it ran, and the example sets no retries.
    "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "5",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    # Long enough for a busy machine, and shorter than Airflow's defaults.
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "5",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "30",
    # Tasks that a killed worker had taken from the queue, but not begun, are queued again.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    # The only API server is down for longer than Airflow's default of five requests.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "30",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    # With one pooled connection in each process, an idle deployment always has the same number of connections.
    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "1",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "20",
}


@pytest.fixture
def sandbox():
    """A sandbox whose generations are completed when the test says so."""
    with Sandbox(token=TOKEN, seconds=1e6) as sandbox:
        yield sandbox


@pytest.fixture
def database():
    """The address of a Postgres."""
    with services.postgres() as server:
        yield server.address


@pytest.fixture
def deployment(tmp_path, sandbox, database):
    """Airflow on Postgres and Celery, with two of each component if possible. The connection is in the environment."""
    connection = {"conn_type": "luma", "host": sandbox.url, "password": TOKEN}
    with services.redis() as broker:
        env = {
            **SETTINGS,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{database}",
            "AIRFLOW_CONN_LUMA_DEFAULT": json.dumps(connection),
        }
        dag = EXAMPLE_DAGS / f"{DAG}.py"
        with Deployment(tmp_path / "home", dag, env=env, components=COMPONENTS) as deployment:
            yield deployment


def test_kills_cost_nothing(deployment, sandbox):
    """Whichever process is killed, each of 300 generations is paid once and awaited; no Postgres connection leaks."""
    warm_up(deployment, sandbox)
    before = idle_connections(deployment)
    began = time.monotonic()
    prompts = [f"A paper boat, number {number}" for number in range(TASKS)]
    run_id = deployment.run(DAG, conf={"prompts": prompts})

    def states(task_id):
        query = "SELECT state, count(*) FROM task_instance WHERE run_id = :run_id AND task_id = :task_id GROUP BY state"
        return Counter(dict(deployment.query(query, run_id=run_id, task_id=task_id)))

    def reached(count, task_id, state):
        deployment.wait_for(lambda: deployment.check_alive() or states(task_id)[state] >= count, PATIENCE)

    seen: Counter[str] = Counter()
    victims = ["dag-processor", "worker-1", "api-server", "scheduler-1"]
    for number, victim in enumerate(victims, 1):
        reached(number * TASKS // 6, "submit", "success")
        seen += connections(deployment)
        kill(deployment, victim)
    reached(TASKS, "wait", "deferred")
    usage(deployment)
    seen += connections(deployment)

    kill(deployment, "triggerer-1")
    complete(sandbox, over=60)
    reached(TASKS // 3, "wait", "success")
    kill(deployment, "worker-2")
    assert deployment.wait(DAG, run_id, timeout=PATIENCE) == "success"

    minutes = (time.monotonic() - began) / 60
    tasks = deployment.task_instances(DAG, run_id)
    for task_id in ("submit", "wait"):
        found = [ti for ti in tasks if ti["task_id"] == task_id]
        print(f"{task_id:<14} {len(found)} tasks, {sum(ti['try_number'] - 1 for ti in found)} retries")
        assert Counter(ti["state"] for ti in found) == {"success": TASKS}
    resumed = sum(resumes(deployment, run_id, ti) for ti in tasks if ti["task_id"] == "submit")
    print(f"resumed        {resumed} generations of killed tries, in retries")
    assert resumed
    report = sandbox.report()
    print(f"charged        {report['charged']}, in {minutes:.0f} minutes, with {report['requests']} requests")
    assert sorted(one["prompt"] for one in report["generations"]) == sorted(prompts)
    ids = [deployment.xcom(DAG, run_id, "submit", map_index=index) for index in range(TASKS)]
    assert sorted(ids) == sorted(one["id"] for one in report["generations"])
    assert deployment.api("GET", "connections")["total_entries"] == 0

    # No task and no process that runs triggers has opened a connection.
    assert not [
        owner for owner in seen if owner.endswith("task") or owner in {"triggerer-1's child", "triggerer-2's child"}
    ]
    after = deployment.wait_for(
        lambda: sum((now := connections(deployment)).values()) <= sum(before.values()) and now, 600
    )
    print(f"connections    {sum(before.values())} to Postgres before, {sum(after.values())} after: {dict(after)}")


def resumes(deployment, run_id, ti) -> bool:
    """Return whether a retry resumed the generation of an earlier try."""
    tries = range(2, ti["try_number"] + 1)
    logs = (deployment.log(DAG, run_id, ti["task_id"], number, ti["map_index"]) for number in tries)
    return any("Resuming generation" in log for log in logs)


def warm_up(deployment, sandbox):
    """Let each process of the workers run a task."""
    prompts = [f"A warm boat, number {number}" for number in range(18)]
    run_id = deployment.run(DAG, conf={"prompts": prompts})
    deployment.wait_for(lambda: sandbox.report()["submitted"] == len(prompts), PATIENCE)
    complete(sandbox)
    assert deployment.wait(DAG, run_id, timeout=PATIENCE) == "success"
    sandbox.reset()


def complete(sandbox, over: float = 0) -> None:
    """Complete all generations, spread over some seconds."""
    generations = sandbox.report()["generations"]
    for number, generation in enumerate(generations):
        sandbox.finish(generation["id"], after=number * over / len(generations))


def kill(deployment, name: str) -> None:
    """SIGKILL a component with its tasks and start it again. Kill a worker when it runs a useful task."""
    if name.startswith("worker"):
        deployment.wait_for(lambda: kill_worker(deployment, name), PATIENCE)
    else:
        deployment.restart(name)
        print(f"killed         {name}", flush=True)
    deployment.wait_for(deployment.healthy, PATIENCE)


def kill_worker(deployment, name: str) -> bool:
    """SIGKILL a worker and start it again, if it runs a useful task now; return whether it did."""
    if not worth_killing(deployment, of(deployment, name)):
        return False
    with killing.held(lambda: of(deployment, name), settle=3) as processes:
        if not worth_killing(deployment, processes):
            return False
        print(f"killed         {name}, with {sum(map(killing.is_runner, processes))} tasks that it ran", flush=True)
        deployment.restart(name)
    return True


def worth_killing(deployment, processes: Iterable[psutil.Process]) -> bool:
    """
    Return whether a task here has submitted or waits, and no task is submitting now.

    `make chaos` kills tasks while they submit.
    """
    query = """
        SELECT ti.task_id, store.value FROM task_instance ti
        LEFT JOIN task_state_store store USING (dag_id, run_id, task_id, map_index)
        WHERE ti.state = 'running' AND CAST(ti.id AS text) = ANY(:ids)
    """
    running = deployment.query(query, ids=[killing.task_of(process) for process in processes])
    submitting = killing.is_submitting(value for _, value in running)
    return not submitting and any(value or task_id == "wait" for task_id, value in running)


def of(deployment, name: str) -> list[psutil.Process]:
    """Return the living processes of a component."""
    return deployment.processes(deployment.sessions[name].pid)


def usage(deployment) -> None:
    """Print memory and CPU of workers and triggerers while all tasks wait."""
    seconds = 30
    names = [name for name in COMPONENTS if name.startswith(("worker", "triggerer"))]
    # The process of the last deferred task needs a moment to end.
    deployment.wait_for(
        lambda: not any(killing.is_runner(process) for name in names for process in of(deployment, name)), PATIENCE
    )
    processes = {name: of(deployment, name) for name in names}
    begun = {name: cpu(those) for name, those in processes.items()}
    time.sleep(seconds)
    for name, those in processes.items():
        memory = [process.memory_full_info() for process in those]
        rss, uss = (sum(getattr(one, kind) for one in memory) / 2**20 for kind in ("rss", "uss"))
        print(
            f"{name:<14} {len(those)} processes, {rss:.0f} MiB RSS, {uss:.0f} MiB USS, "
            f"{cpu(those) - begun[name]:.1f} s of CPU in {seconds} s at {TASKS} waiting"
        )
    shares = deployment.query("SELECT count(*) FROM trigger GROUP BY triggerer_id ORDER BY triggerer_id")
    print(f"triggers       {' and '.join(str(count) for (count,) in shares)}", flush=True)


def cpu(processes: Iterable[psutil.Process]) -> float:
    """Return the seconds of CPU that processes have used."""
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


def idle_connections(deployment) -> Counter[str]:
    """Return the largest number of connections at a time while the deployment is idle."""
    seen = []
    for _ in range(30):
        seen.append(connections(deployment))
        time.sleep(1)
    return max(seen, key=lambda one: sum(one.values()))


def connections(deployment) -> Counter[str]:
    """Return the number of connections to Postgres by component. Those of its tasks are counted separately."""
    query = "SELECT client_port FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
    ports = {port for (port,) in deployment.query(query)}
    owners: dict[int, str] = {}
    for name, leader in deployment.sessions.items():
        # The oldest process first, because children inherit the connections of their parents.
        for process in sorted(of(deployment, name), key=psutil.Process.create_time):
            with suppress(psutil.NoSuchProcess):
                kind = "task" if killing.is_runner(process) else "child"
                owner = name if process.pid == leader.pid else f"{name}'s {kind}"
                for one in process.net_connections("tcp"):
                    owners.setdefault(one.laddr.port, owner)
    return Counter(owners.get(port, "unknown") for port in ports)

"""
Make a hundred videos while Airflow's processes and its database are killed at random, and count the charges.

Run it from a checkout: ``make chaos``. It needs Debian's package postgresql. It fails unless the first part finishes
100 videos, pays none twice and loses none, and the second part submits nothing again.

A killed process is started again, as a service manager would do. So is a component that ends without its database.

A task is spared while it submits and has not stored the answer yet. Nobody could know whether that submission was
charged, so the task would fail for good, as it should. The second part tests this.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from sqlalchemy.exc import OperationalError

from airflow_provider_luma.operators.submission import DISCARDS_ON_CLEAR
from airflow_provider_luma.sandbox import Sandbox
from tests.deployment import services
from tests.support import killing
from tests.support.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "token-of-the-benchmark"
SECONDS_BETWEEN_KILLS = 4
#: Seconds for the API server to finish the requests of a suspended process.
SETTLE = 0.3

#: The components to kill, and the weight of each.
VICTIMS = {"task": 6, "api-server": 3, "triggerer": 2, "scheduler": 1, "database": 2}
SETTINGS = {
    # The API server and the database are down for longer than Airflow's default of five requests.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "30",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    # No heartbeats arrive meanwhile. Tasks must not count as dead.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
}

# A fifth of all calls fails. Submissions fail only in ways that are certainly not charged.
WEATHER = {
    "status": {"429": 0.04, "500": 0.04, "drop": 0.04, "html": 0.04, "hang": 0.04},
    "submit": {"429": 0.2},
    "hang_seconds": 5,
}


def main() -> int:
    """Run both parts and return the exit code."""
    dice = random.Random()
    dags = Path(__file__).parent / "dags"
    with (
        tempfile.TemporaryDirectory() as home,
        Sandbox(token=TOKEN, seconds=5) as sandbox,
        services.postgres() as database,
    ):
        connection = {"conn_type": "luma", "host": sandbox.url, "password": TOKEN, "extra": {"timeout": 3}}
        env = {
            **SETTINGS,
            "AIRFLOW_CONN_LUMA_DEFAULT": json.dumps(connection),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database.address}",
        }
        with Deployment(Path(home) / "airflow", dags, env=env) as airflow:
            good = kill_at_random(airflow, sandbox, database.crash, dice)
            return 0 if cut_submissions(airflow, sandbox) and good else 1


def kill_at_random(
    airflow: Deployment, sandbox: Sandbox, crash_database: Callable[[], None], dice: random.Random
) -> bool:
    """Make a hundred videos while processes are killed; return whether all finished and were paid once."""
    sandbox.weather(**WEATHER)
    began = time.monotonic()
    run_id = airflow.run("luma_chaos")
    killed: Counter[str] = Counter()
    state = ""
    while state not in {"success", "failed"} and time.monotonic() - began < 2400:
        # Without this, a slow machine would only start killed processes.
        airflow.wait_for(lambda: restart_what_ended(airflow, killed) and airflow.healthy(), timeout=600)
        time.sleep(SECONDS_BETWEEN_KILLS * dice.uniform(0.5, 1.5))
        with suppress(requests.RequestException, OperationalError):
            state = airflow.api("GET", f"dags/luma_chaos/dagRuns/{run_id}")["state"]
            if state == "running":
                killed[kill_one(airflow, run_id, crash_database, dice)] += 1
    sandbox.weather()
    airflow.wait_for(lambda: restart_what_ended(airflow, killed) and airflow.healthy(), timeout=300)

    tasks = airflow.task_instances("luma_chaos", run_id)
    finished = [ti for ti in tasks if ti["state"] == "success"]
    ids = {airflow.xcom("luma_chaos", run_id, ti["task_id"], map_index=ti["map_index"]) for ti in finished}
    report = sandbox.report()
    bills = Counter(one["prompt"] for one in report["generations"])
    twice = sum(count - 1 for count in bills.values())
    lost = {one["id"] for one in report["generations"]} - ids
    print(f"killed         {dict(killed)}, {sum(ti['try_number'] for ti in tasks) - len(tasks)} retries")
    print(f"calls          {report['requests']}, in {time.monotonic() - began:.0f} s")
    print(f"submitted      {report['submitted']}")
    print(f"charged        {report['charged'] - report['refunded']}")
    print(f"finished       {len(finished)}")
    print(f"paid twice     {twice}")
    print(f"lost           {len(lost) - twice}", flush=True)
    for ti in tasks:
        if ti["state"] != "success":
            tries = range(1, ti["try_number"] + 1)
            logs = [airflow.log("luma_chaos", run_id, ti["task_id"], one, ti["map_index"]) for one in tries]
            ambiguous = ", ambiguous" if any("LumaAmbiguousSubmission" in log for log in logs) else ""
            print(f"  {ti['task_id']} {ti['map_index']} is {ti['state']} at try {ti['try_number']}{ambiguous}")
    return len(finished) == 100 and twice == 0 and not lost


def kill_one(airflow: Deployment, run_id: str, crash_database: Callable[[], None], dice: random.Random) -> str:
    """SIGKILL a task, the scheduler with all its tasks, or another component; return its name."""
    (victim,) = dice.choices(list(VICTIMS), list(VICTIMS.values()))
    if victim == "database":
        crash_database()
    elif victim == "scheduler":
        return victim if restart_scheduler(airflow) else "spared"
    elif victim != "task":
        airflow.restart(victim)
    else:
        running = [ti for ti in airflow.task_instances("luma_chaos", run_id) if ti["state"] == "running"]
        ti = dice.choice(running) if running else None
        found = airflow.task_processes("luma_chaos", run_id, ti["task_id"], ti["map_index"]) if ti else None
        if not found:
            return "nobody"
        supervisors, runners = found
        with killing.held(lambda: supervisors + runners, SETTLE):
            if is_submitting(airflow, ti):
                return "spared"
            killing.kill(runners if dice.random() < 0.5 else supervisors + runners)
    return victim


def restart_scheduler(airflow: Deployment) -> bool:
    """Kill the scheduler with all its tasks and start it again, unless a task is submitting; return whether it did."""
    session = airflow.sessions["scheduler"].pid
    with killing.held(lambda: airflow.processes(session), SETTLE):
        if is_submitting(airflow):
            return False
        airflow.restart("scheduler")
    return True


def restart_what_ended(airflow: Deployment, killed: Counter[str]) -> bool:
    """Start the components that have ended unexpectedly, and return whether all run."""
    for name in [name for name, leader in airflow.sessions.items() if leader.poll() is not None]:
        if name != "scheduler":
            airflow.restart(name)
        elif not restart_scheduler(airflow):
            return False
        killed[f"{name} ended"] += 1
    return True


def is_submitting(airflow: Deployment, ti: dict[str, Any] | None = None) -> bool:
    """Return whether this task (by default, any task) submits and has not stored the answer yet."""
    index = "region_index" if DISCARDS_ON_CLEAR else "map_index"
    query = f"SELECT task_id, {index}, value FROM task_state_store WHERE dag_id = 'luma_chaos'"  # noqa: S608
    return killing.is_submitting(
        value
        for task_id, map_index, value in airflow.query(query)
        if ti is None or (task_id, map_index) == (ti["task_id"], ti["map_index"])
    )


def cut_submissions(airflow: Deployment, sandbox: Sandbox) -> bool:
    """Cut the connection of each submission after it was accepted; return whether none is sent again."""
    sandbox.reset()
    sandbox.weather(submit={"drop_after_accept": 1})
    run_id = airflow.run("luma_chaos_cut")
    airflow.wait("luma_chaos_cut", run_id, timeout=300)
    tasks = airflow.task_instances("luma_chaos_cut", run_id)
    ambiguous = [
        ti
        for ti in tasks
        if ti["state"] == "failed"
        and "LumaAmbiguousSubmission" in airflow.log("luma_chaos_cut", run_id, "cut", 1, ti["map_index"])
    ]
    again = sandbox.report()["submitted"] - len(tasks)
    print(f"cut            {len(tasks)} submissions after they were accepted")
    print(f"ambiguous      {len(ambiguous)} tasks failed for good")
    print(f"sent again     {again}", flush=True)
    return len(ambiguous) == len(tasks) == 20 and again == 0


if __name__ == "__main__":
    sys.exit(main())

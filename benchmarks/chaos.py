"""
Kill Airflow's processes and its database at random while it makes a hundred videos, and count what was paid.

Run it from a checkout: ``make chaos``. It starts a Postgres, of Debian's package postgresql. It prints, and exits
non-zero unless the first part reads 100 finished, 0 paid twice, 0 lost, and the second part submitted nothing again.

What is killed starts again, and so does what ends by itself without its database, as a service manager would let it.

A task that is between sending its submission and remembering the answer is spared, and counted: a kill just there
leaves nobody knowing, and the task fails for good, as it should. That is what the second part is about.
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
#: Seconds for the API server to finish what a process has asked of it, once that stands still.
SETTLE = 0.3

#: What is killed, and how often of 14 times.
VICTIMS = {"task": 6, "api-server": 3, "triggerer": 2, "scheduler": 1, "database": 2}
SETTINGS = {
    # The API server and the database are away for longer than Airflow's own five requests would last.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "30",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    # For as long no heartbeat arrives, and no task is dead for that.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
}

# A fifth of all calls goes wrong; submissions only in ways that surely are not charged.
WEATHER = {
    "status": {"429": 0.04, "500": 0.04, "drop": 0.04, "html": 0.04, "hang": 0.04},
    "submit": {"429": 0.2},
    "hang_seconds": 5,
}


def main() -> int:
    """Run both parts and say how they went."""
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
    """Make a hundred videos while processes are killed."""
    sandbox.weather(**WEATHER)
    began = time.monotonic()
    run_id = airflow.run("luma_chaos")
    killed: Counter[str] = Counter()
    state = ""
    while state not in {"success", "failed"} and time.monotonic() - began < 2400:
        # Else a slow machine would do nothing but start what was killed.
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
    """SIGKILL a task's processes, the scheduler with all its tasks, or another component; return what was killed."""
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
    """Restart the scheduler with all the tasks that it runs, unless one is submitting; return whether it did."""
    session = airflow.sessions["scheduler"].pid
    with killing.held(lambda: airflow.processes(session), SETTLE):
        if is_submitting(airflow):
            return False
        airflow.restart("scheduler")
    return True


def restart_what_ended(airflow: Deployment, killed: Counter[str]) -> bool:
    """Restart the components that have ended by themselves, and return whether all run."""
    for name in [name for name, leader in airflow.sessions.items() if leader.poll() is not None]:
        if name != "scheduler":
            airflow.restart(name)
        elif not restart_scheduler(airflow):
            return False
        killed[f"{name} by itself"] += 1
    return True


def is_submitting(airflow: Deployment, ti: dict[str, Any] | None = None) -> bool:
    """Return whether this task, or any, is between sending its submission and remembering the answer."""
    index = "region_index" if DISCARDS_ON_CLEAR else "map_index"
    query = f"SELECT task_id, {index}, value FROM task_state_store WHERE dag_id = 'luma_chaos'"  # noqa: S608
    return killing.is_submitting(
        value
        for task_id, map_index, value in airflow.query(query)
        if ti is None or (task_id, map_index) == (ti["task_id"], ti["map_index"])
    )


def cut_submissions(airflow: Deployment, sandbox: Sandbox) -> bool:
    """Cut every submission after it was accepted, and see that none is sent again."""
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

"""
Kill Airflow's processes at random while it makes a hundred videos, and count what was paid.

Run it from a checkout: ``make chaos``. It prints, and exits non-zero unless the first part reads 100 finished,
0 paid twice, 0 lost, and the second part submitted nothing again.

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
from typing import Any

import requests

from airflow_provider_luma.sandbox import Sandbox
from tests.support import killing
from tests.support.deployment import Deployment

TOKEN = "token-of-the-benchmark"
SECONDS_BETWEEN_KILLS = 4
#: Seconds for the API server to finish what a process has asked of it, once that stands still.
SETTLE = 0.3

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
    with tempfile.TemporaryDirectory() as home, Sandbox(token=TOKEN, seconds=5) as sandbox:
        connection = {"conn_type": "luma", "host": sandbox.url, "password": TOKEN, "extra": {"timeout": 3}}
        env = {"AIRFLOW_CONN_LUMA_DEFAULT": json.dumps(connection)}
        with Deployment(Path(home) / "airflow", dags, env=env) as airflow:
            good = kill_at_random(airflow, sandbox, dice)
            return 0 if cut_submissions(airflow, sandbox) and good else 1


def kill_at_random(airflow: Deployment, sandbox: Sandbox, dice: random.Random) -> bool:
    """Make a hundred videos while processes are killed."""
    sandbox.weather(**WEATHER)
    began = time.monotonic()
    run_id = airflow.run("luma_chaos")
    killed: Counter[str] = Counter()
    state = ""
    while state not in {"success", "failed"} and time.monotonic() - began < 1500:
        time.sleep(SECONDS_BETWEEN_KILLS * dice.uniform(0.5, 1.5))
        with suppress(requests.RequestException):
            state = airflow.api("GET", f"dags/luma_chaos/dagRuns/{run_id}")["state"]
            if state == "running":
                killed[kill_one(airflow, run_id, dice)] += 1
    sandbox.weather()

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
            print(f"  {ti['task_id']} {ti['map_index']} is {ti['state']} at try {ti['try_number']}")
    return len(finished) == 100 and twice == 0 and not lost


def kill_one(airflow: Deployment, run_id: str, dice: random.Random) -> str:
    """SIGKILL a task's processes, the triggerer, or the scheduler with all its tasks, and return which."""
    victim = dice.choices(["task", "triggerer", "scheduler"], [6, 3, 1])[0]
    if victim == "triggerer":
        airflow.restart("triggerer")
    elif victim == "scheduler":
        session = airflow.sessions["scheduler"].pid
        with killing.held(lambda: airflow.processes(session), SETTLE):
            if is_submitting(airflow):
                return "spared"
            airflow.restart("scheduler")
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


def is_submitting(airflow: Deployment, ti: dict[str, Any] | None = None) -> bool:
    """Return whether this task, or any, is between sending its submission and remembering the answer."""
    query = "SELECT task_id, map_index, value FROM task_state_store WHERE dag_id = 'luma_chaos'"
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

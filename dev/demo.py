"""`make demo`: run a DAG in a real Airflow and make a first video with the sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from airflow_provider_luma.examples import COMMAND
from airflow_provider_luma.sandbox import Sandbox
from dev.local_airflow import CHECKOUT, EXAMPLE_DAGS, HOME, TOKEN, LocalAirflow, run_until_interrupted

if TYPE_CHECKING:
    from pathlib import Path

DAG_ID = "example_luma_archive"
VIDEOS = HOME / "videos"

NEXT = f"""
Next, in this checkout:
  make airflow      the same in Airflow's UI
  edit example_dags/{DAG_ID}.py and run make demo again

Next, in your own Airflow:
  pip install airflow-provider-luma
  {COMMAND} ~/airflow/dags example_luma_archive
  airflow connections add luma_default --conn-type luma --conn-password '<key>'
  A key that begins with luma-api- is for Luma's own API, a key without luma- for a gateway (www.kkiai.com).
  No key yet? python -m airflow_provider_luma.sandbox starts the sandbox and prints a connection to it."""


def main() -> None:
    """Run a DAG that makes a video and stores it."""
    started = time.monotonic()
    with Sandbox(token=TOKEN, seconds=4) as sandbox:
        connection = {"conn_type": "luma", "host": sandbox.url, "password": TOKEN}
        # Its own home, or the scheduler of `make airflow` would run the tasks of this run a second time.
        airflow = LocalAirflow(
            HOME / "demo",
            EXAMPLE_DAGS,
            env={
                "AIRFLOW_CONN_LUMA_DEFAULT": json.dumps(connection),
                "AIRFLOW__LOGGING__JSON_LOGS": "True",
            },
        )
        if not airflow.database.exists():
            print("Setting up Airflow's database (once) …", flush=True)
        airflow.migrate()
        print(f"Sandbox on {sandbox.url} · it plays Luma on this machine and costs nothing", flush=True)
        print(f"Running {DAG_ID}, its tasks one after another …", flush=True)
        log = airflow.home / "demo.log"
        try:
            exit_code = run_dag(airflow, log)
        finally:
            airflow.stop()
        if exit_code:
            sys.exit(f"\nThe run failed. See Airflow's log: {log.relative_to(CHECKOUT)}")
        video = max(VIDEOS.iterdir(), key=lambda path: path.stat().st_mtime)
    seconds = time.monotonic() - started
    print(f"\nThe DAG took {seconds:.0f} s. Your video: {video.relative_to(CHECKOUT)}  (a clip of the sandbox)")
    print(NEXT)


def run_dag(airflow: LocalAirflow, log: Path) -> int:
    """Run the DAG, print its tasks' log lines, write all output to ``log``, and return the exit code."""
    # Load only this file, so that an error in another example does not matter.
    conf = json.dumps({"folder": f"{VIDEOS.as_uri()}/"})
    command = ["dags", "test", "--dagfile-path", str(EXAMPLE_DAGS / f"{DAG_ID}.py"), "--conf", conf, DAG_ID]
    run = airflow.spawn("dags test", *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with log.open("wb") as everything:
        for line in run.stdout or ():
            everything.write(line)
            shown = shown_line(line.decode(errors="replace").rstrip())
            if shown:
                print(shown, flush=True)
    return run.wait()


def shown_line(line: str) -> str:
    """Return the text of a line of Airflow's output, or nothing if a newcomer does not need it."""
    try:
        entry = json.loads(line)
        event, level, logger = entry["event"], entry["level"], entry.get("logger", "")
    except (ValueError, TypeError, KeyError):
        # The task has printed this line.
        return f"    {line}" if line else ""
    if event.startswith("[DAG TEST] starting task_id="):
        return "  " + event.split("task_id=")[1].split()[0]
    if level in {"error", "critical"}:
        # The exception, without its causes.
        raised = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("exception", [])[:1]]
        return "\n".join(f"    {text}" for text in [event, *raised])
    # Airflow's name for the loggers of a task. `Done. …` follows every Python task.
    own = logger.startswith(("airflow.task", "airflow_provider_luma")) and not event.startswith("Done. ")
    return f"    {event}" if own else ""


if __name__ == "__main__":
    run_until_interrupted(main)

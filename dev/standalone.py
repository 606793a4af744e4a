"""`make airflow`: run Airflow with its UI next to the sandbox."""

from __future__ import annotations

import time

from airflow_provider_luma.sandbox import Sandbox
from dev.local_airflow import (
    EXAMPLE_DAGS,
    HOME,
    PASSWORD,
    TOKEN,
    USER,
    LocalAirflow,
    free_port,
    run_until_interrupted,
)


def main() -> None:
    """Start Airflow and the sandbox, print their addresses, and keep them running."""
    with Sandbox(port=free_port(8787), token=TOKEN, seconds=8) as sandbox:
        airflow = LocalAirflow(HOME / "ui", EXAMPLE_DAGS, port=8080)
        print("Starting Airflow (half a minute) …", flush=True)
        with airflow:
            airflow.add_connection("luma_default", conn_type="luma", host=sandbox.url, password=TOKEN)
            print(
                f"""
Airflow      {airflow.url}  (log in as {USER}, password {PASSWORD})
First DAG    {airflow.url}/dags/example_luma_archive  (press Trigger)
Sandbox      {sandbox.url}/sandbox  (all submissions and charges)
Connection   luma_default points to the sandbox
DAG files    {EXAMPLE_DAGS}  (Airflow sees edits within seconds)
Logs         {airflow.home}/*.log

Ctrl-C stops everything.""",
                flush=True,
            )
            while True:
                airflow.check_alive()
                time.sleep(1)


if __name__ == "__main__":
    run_until_interrupted(main)

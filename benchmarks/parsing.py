"""
Measure how much the import of a provider adds to the parsing of a DAG: `python -m benchmarks.parsing`.

Each import runs in a new process that has already loaded Airflow's own classes, which every DAG loads. The result is
the median of nine. The four providers take turns, so that a busy moment of the machine affects all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

TURNS = 9

AIRFLOW = """
from airflow.sdk import DAG, dag, task
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, conf
"""

PROVIDERS = {
    "luma": ("airflow_provider_luma.operators.luma", "airflow_provider_luma.sensors.luma"),
    "http": ("airflow.providers.http.operators.http", "airflow.providers.http.sensors.http"),
    "openai": ("airflow.providers.openai.operators.openai",),
    "dbt-cloud": ("airflow.providers.dbt.cloud.operators.dbt", "airflow.providers.dbt.cloud.sensors.dbt"),
}


def milliseconds(modules: tuple[str, ...]) -> float:
    """Return the milliseconds that a new process takes to import the modules after Airflow."""
    imports = "\n".join(f"import {module}" for module in modules)
    timed = f"began = time.perf_counter()\n{imports}\nprint(1000 * (time.perf_counter() - began))"
    code = f"{AIRFLOW}\nimport time\n{timed}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure all providers and print a table."""
    taken: dict[str, list[float]] = {name: [] for name in PROVIDERS}
    for _ in range(TURNS):
        for name, modules in PROVIDERS.items():
            taken[name].append(milliseconds(modules))
    ours = statistics.median(taken["luma"])
    print(f"Importing operators and sensors after Airflow's own classes, medians of {TURNS} new processes")
    for name, all_taken in taken.items():
        median = statistics.median(all_taken)
        print(f"{name:<12}{median:8.1f} ms{median / ours:8.1f} x")


if __name__ == "__main__":
    main()

"""
What importing a provider adds to the parsing of a DAG: `python -m benchmarks.parsing`.

Each import is timed in a process of its own that has already loaded what every DAG loads, Airflow's own classes; the
figure is the median of nine. The four providers take turns, so that a busy moment of the machine meets them all.
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
    """Return how long a fresh process takes to import the modules after Airflow."""
    imports = "\n".join(f"import {module}" for module in modules)
    code = (
        f"{AIRFLOW}\nimport time\nbegan = time.perf_counter()\n{imports}\nprint(1000 * (time.perf_counter() - began))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure, and print a table."""
    taken: dict[str, list[float]] = {name: [] for name in PROVIDERS}
    for _ in range(TURNS):
        for name, modules in PROVIDERS.items():
            taken[name].append(milliseconds(modules))
    ours = statistics.median(taken["luma"])
    print(
        f"Importing operators, and sensors where there are some, after Airflow's own classes, medians of {TURNS} fresh processes"
    )
    for name, all_taken in taken.items():
        median = statistics.median(all_taken)
        print(f"{name:<12}{median:8.1f} ms{median / ours:8.1f} x")


if __name__ == "__main__":
    main()

"""The fixtures that the tests of the documentation share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import together
from tests.support.together import pytest_pyfunc_call as pytest_pyfunc_call


@pytest.fixture(scope="session", autouse=True)
def all_together(request):
    """Start the tests marked `together` early: each runs pytest in its own process."""
    with together.started(request, Path(__file__).parent, at_once=1):
        yield


@pytest.fixture(scope="session")
def run_dag():
    """A function that runs the only DAG of a text, with a folder if the DAG has that param, and returns its run."""
    from airflow.configuration import conf
    from airflow.dag_processing.dagbag import DagBag

    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)

    def run_dag(text, folder):
        # Airflow only runs DAGs in this folder.
        file = Path(conf.get("core", "dags_folder"), "shown.py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        try:
            bag = DagBag(file)
            assert bag.import_errors == {}
            (dag,) = bag.dags.values()
            return dag.test(run_conf={"folder": folder} if "folder" in dag.params else None)
        finally:
            file.unlink()

    return run_dag

"""The example DAGs load, without a network or a connection."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG
from packaging.version import Version

FOLDER = Path(__file__).parent.parent.parent / "example_dags"
EXAMPLES = sorted(FOLDER.glob("*.py"))
if Version(airflow_version) < Version("3.1"):
    # Airflow asks nobody for approval there.
    EXAMPLES.remove(FOLDER / "example_luma_approval.py")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_loads_without_network_or_connection_and_defines_the_dag_of_its_name(path, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT", raising=False)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags = [value for value in vars(module).values() if isinstance(value, DAG)] or [getattr(module, path.stem)()]
    assert [dag.dag_id for dag in dags] == [path.stem]
    assert dags[0].doc_md

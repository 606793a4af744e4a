"""The example DAGs load without a network or a connection."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG
from packaging.version import Version

FOLDER = Path(__file__).parent.parent.parent / "example_dags"
EXAMPLES = sorted(FOLDER.glob("*.py"))
if Version(airflow_version) < Version("3.1"):
    # Approvals need Airflow 3.1.
    EXAMPLES.remove(FOLDER / "example_luma_approval.py")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_defines_its_dag(path, monkeypatch):
    """Each example loads without a connection and defines one documented DAG, named like its file."""
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT", raising=False)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags = [value for value in vars(module).values() if isinstance(value, DAG)] or [getattr(module, path.stem)()]
    assert [dag.dag_id for dag in dags] == [path.stem]
    assert dags[0].doc_md


def test_examples_share_task_names():
    """In all examples, tasks of the same kind have the same names."""
    kinds = {
        "LumaGenerateVideoOperator": {"submit", "generate"},
        "LumaExtendVideoOperator": {"extend", "extend_again"},
        "LumaGenerationSensor": {"wait"},
        "LumaDownloadVideoOperator": {"download"},
    }
    for path in sorted(FOLDER.glob("*.py")):
        found = re.findall(r"(Luma\w+)(?:\.partial)?\(\s*task_id=\"(\w+)\"", path.read_text())
        assert all(name in kinds[operator] for operator, name in found), path.name

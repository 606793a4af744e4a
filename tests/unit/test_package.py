"""What Airflow sees of the package before anything runs."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from importlib.resources import files

import airflow
import jsonschema
import pytest

from airflow_provider_luma import __version__
from airflow_provider_luma.get_provider_info import get_provider_info

PACKAGE = "airflow_provider_luma"
MODULES = ["operators.luma", "decorators.luma", "sensors.luma", "triggers.luma", "hooks.luma", "api"]


@pytest.mark.parametrize("module", MODULES)
def test_a_dag_that_imports_it_does_not_load_requests(module):
    code = f"import sys, {PACKAGE}.{module}; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_the_provider_info_imports_nothing():
    """Airflow reads it at start-up."""
    code = f"import sys; old = set(sys.modules); import {PACKAGE}.get_provider_info; print(set(sys.modules) - old)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert eval(loaded) - {"__future__"} == {PACKAGE, f"{PACKAGE}.get_provider_info"}  # noqa: S307


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_the_provider_info_meets_airflows_schemas(schema):
    text = files(airflow).joinpath(schema)
    required = json.loads(text.read_text())
    # What the longer one wants of Airflow's own providers: where their source is, and when it was released.
    required["required"] = ["name", "description"]
    tags = required["properties"]["integrations"]["items"]["properties"]["tags"]
    if "ai" not in tags["items"].get("enum", ["ai"]):
        # That of an old Airflow has one tag for each integration, and none for AI.
        tags.clear()
    assert list(jsonschema.Draft7Validator(required).iter_errors(get_provider_info())) == []


def test_every_class_that_the_provider_info_names_exists():
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for integration in info[kind]:
            for module in integration["python-modules"]:
                assert importlib.import_module(module)
    for decorator in info["task-decorators"]:
        module, _, name = decorator["class-name"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    (connection_type,) = info["connection-types"]
    module, _, name = connection_type["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert (hook.conn_type, hook.hook_name) == (connection_type["connection-type"], connection_type["hook-name"])


def test_airflow_finds_the_provider_by_its_entry_point():
    (entry_point,) = [
        one for one in importlib.metadata.entry_points(group="apache_airflow_provider") if one.value.startswith(PACKAGE)
    ]
    assert entry_point.load()() == get_provider_info()


def test_the_version_is_that_of_the_installed_distribution():
    assert importlib.metadata.version("airflow-provider-luma") == __version__

"""What the system tests share: one Airflow with the example DAGs, next to one sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import airflow
import pytest
import requests
from moto.server import ThreadedMotoServer
from packaging.version import Version

from airflow_provider_luma.sandbox import Sandbox
from dev.local_airflow import USER
from tests.system.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

AIRFLOW = Version(airflow.__version__)
TOKEN = "marked-token-4711-of-the-system-tests"
REFUSED_TOKEN = "marked-token-0815-that-is-refused"
UNREACHABLE_TOKEN = "marked-token-1234-that-goes-nowhere"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of what this Airflow is too old for: the README's table of versions has them."""
    too_new = {one for one in items for mark in one.iter_markers("since") if Version(mark.args[0]) > AIRFLOW}
    config.hook.pytest_deselected(items=too_new)
    items[:] = [one for one in items if one not in too_new]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A gateway that takes a second for a video, and ten for a slow one."""
    with Sandbox(token=TOKEN, seconds=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An object store with a bucket named bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    requests.put(f"http://{host}:{port}/bucket", timeout=10).raise_for_status()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def deployment(sandbox, s3, tmp_path_factory) -> Iterator[Deployment]:
    """An Airflow with the example DAGs and those of the tests, whose connection leads to the sandbox."""
    here = Path(__file__).parent
    home = tmp_path_factory.mktemp("airflow") / "home"
    openlineage = {"type": "file", "log_file_path": str(home / "openlineage.log"), "append": True}
    env = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(openlineage),
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.system.rights.RightsByDag",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin,outsider:viewer",
        "PYTHONPATH": str(here.parents[1]),
    }
    with Deployment(home, here.parents[1] / "example_dags", here / "dags", env=env) as deployment:
        deployment.add_connection("luma_default", conn_type="luma", host=sandbox.url, password=TOKEN)
        deployment.add_connection("luma_refused", conn_type="luma", host=sandbox.url, password=REFUSED_TOKEN)
        deployment.add_connection("luma_unreachable", conn_type="luma", host="127.0.0.1:1", password=UNREACHABLE_TOKEN)
        aws = json.dumps({"endpoint_url": s3, "region_name": "us-east-1"})
        deployment.add_connection("aws_default", conn_type="aws", login="key", password="secret", extra=aws)
        yield deployment

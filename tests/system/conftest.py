"""What the system tests share: one Airflow with the example DAGs, next to one sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_luma.sandbox import Sandbox
from tests.system.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "marked-token-4711-of-the-system-tests"
REFUSED_TOKEN = "marked-token-0815-that-is-refused"
UNREACHABLE_TOKEN = "marked-token-1234-that-goes-nowhere"


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A gateway that takes a second for a video, and ten for a slow one."""
    with Sandbox(token=TOKEN, seconds=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def deployment(sandbox, tmp_path_factory) -> Iterator[Deployment]:
    """An Airflow with the example DAGs and those of the tests, whose connection leads to the sandbox."""
    here = Path(__file__).parent
    home = tmp_path_factory.mktemp("airflow") / "home"
    with Deployment(home, here.parents[1] / "example_dags", here / "dags") as deployment:
        deployment.add_connection("luma_default", conn_type="luma", host=sandbox.url, password=TOKEN)
        deployment.add_connection("luma_refused", conn_type="luma", host=sandbox.url, password=REFUSED_TOKEN)
        deployment.add_connection("luma_unreachable", conn_type="luma", host="127.0.0.1:1", password=UNREACHABLE_TOKEN)
        yield deployment

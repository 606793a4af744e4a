"""The fixtures of the system tests: an Airflow with the example DAGs, and a sandbox for each API."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from moto.server import ThreadedMotoServer

from airflow_provider_luma.sandbox import Sandbox
from dev.local_airflow import COMPONENTS, USER, free_port
from tests.support import together
from tests.support.agents_judge import judge_submissions
from tests.support.deployment import Deployment
from tests.support.together import pytest_pyfunc_call as pytest_pyfunc_call
from tests.support.tokens import KEY, MISPLACED_KEY, REFUSED_KEY, REFUSED_TOKEN, TOKEN, UNREACHABLE_TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

HERE = Path(__file__).parent
#: The number of tests marked `together` that run at a time. They keep two cores busy.
AT_ONCE = 6
#: The tests of the UI run first, because they use a browser while the others wait. The search for tokens runs last.
TURNS = {"test_ui.py": -1, "test_secrets.py": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the system tests after the others, in the order of :data:`TURNS`."""
    items.sort(key=lambda one: (HERE in one.path.parents, TURNS.get(one.path.name, 0)))


@pytest.fixture(scope="session", autouse=True)
def all_together(request) -> Iterator[None]:
    """Start the tests marked `together` before the first test."""
    with together.started(request, HERE, AT_ONCE):
        yield


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """
    A sandbox of the gateway that takes 16 seconds for a video, and 160 for a slow video, unless a test finishes it.

    If a trigger fires before the scheduler has seen that the task's first process ended, Airflow fails the task.
    """
    with Sandbox(token=TOKEN, seconds=16) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def sandboxes(sandbox) -> Iterator[Mapping[str, Sandbox]]:
    """
    The sandboxes of the gateway and of Luma's own API, by the id of the connection that points to each.

    At the end, Luma's own SDK checks the submissions to Luma's own API.
    """
    with Sandbox(token=KEY, seconds=16) as own:
        yield {"luma_default": sandbox, "luma_own": own}
        # If the process was killed while it sent a request, the request has no body.
        judge_submissions(request for request in own.requests if request.content)


@pytest.fixture(scope="session")
def another_sandbox(deployment) -> Callable[..., AbstractContextManager[tuple[Sandbox, str]]]:
    """A context manager: a sandbox for one test, so that its faults affect no other, and a connection id."""

    @contextmanager
    def another_sandbox(api: str = "", **settings: Any) -> Iterator[tuple[Sandbox, str]]:
        token = KEY if api == "agents" else TOKEN
        with Sandbox(token=token, **{"seconds": 1, **settings}) as sandbox:
            connection_id = f"luma_at_{sandbox.port}"
            add_connection(deployment, connection_id, sandbox.url, token, api)
            yield sandbox, connection_id
            assert sandbox.report()["tokens_at_cdn"] == 0

    return another_sandbox


def add_connection(deployment: Deployment, connection_id: str, host: str, token: str, api: str = "") -> None:
    extra = {"extra": json.dumps({"api": api})} if api else {}
    deployment.add_connection(connection_id, conn_type="luma", host=host, password=token, **extra)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An object store that contains a bucket named bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    requests.put(f"http://{host}:{port}/bucket", timeout=10).raise_for_status()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def deployment(sandboxes, s3, tmp_path_factory) -> Iterator[Deployment]:
    """An Airflow with the example DAGs and the DAGs of the tests. Its connections point to the sandboxes."""
    home = tmp_path_factory.mktemp("airflow") / "home"
    openlineage = {"type": "file", "log_file_path": str(home / "openlineage.log"), "append": True}
    # Tasks use a second API server. On SQLite, one server for tasks and tests would wait for itself (see
    # `LocalAirflow.api`).
    execution_port = str(free_port())
    components = {
        **COMPONENTS,
        "api-server": ("api-server", "--apps", "core"),
        "execution-api": ("api-server", "--apps", "execution", "--port", execution_port),
    }
    env = {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{execution_port}/execution/",
        # Most tasks only wait.
        "AIRFLOW__CORE__PARALLELISM": "16",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(openlineage),
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.support.rights.RightsByDag",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin,outsider:viewer",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    dags = (HERE.parents[1] / "example_dags", HERE / "dags")
    with Deployment(home, *dags, env=env, components=components) as deployment:
        gateway, own = (sandboxes[one].url for one in ("luma_default", "luma_own"))
        add_connection(deployment, "luma_default", gateway, TOKEN)
        add_connection(deployment, "luma_refused", gateway, REFUSED_TOKEN)
        add_connection(deployment, "luma_unreachable", "127.0.0.1:1", UNREACHABLE_TOKEN)
        add_connection(deployment, "luma_own", own, KEY, "agents")
        add_connection(deployment, "luma_own_refused", own, REFUSED_KEY, "agents")
        add_connection(deployment, "luma_own_misplaced", gateway, MISPLACED_KEY)
        aws = json.dumps({"endpoint_url": s3, "region_name": "us-east-1"})
        deployment.add_connection("aws_default", conn_type="aws", login="key", password="secret", extra=aws)
        yield deployment
        assert len(deployment.processes()) > 4
    assert deployment.processes() == []

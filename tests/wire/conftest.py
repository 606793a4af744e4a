"""A sandbox for each test, and connections to it."""

from __future__ import annotations

import json

import pytest
import requests
from moto.server import ThreadedMotoServer

from airflow_provider_luma.api import LumaClient
from airflow_provider_luma.sandbox import Sandbox
from tests.support.samples import TOKEN


@pytest.fixture
def sandbox():
    """A gateway whose generations are completed at once."""
    with Sandbox(token=TOKEN, seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox):
    return LumaClient(sandbox.url, TOKEN)


@pytest.fixture
def connect(monkeypatch):
    """Make the connection luma_default of these fields."""

    def connect(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", json.dumps({"conn_type": "luma", **fields}))

    return connect


@pytest.fixture
def connection(connect, sandbox):
    """The connection luma_default leads to the sandbox."""
    connect(host=sandbox.url, password=TOKEN)


@pytest.fixture
def no_retries(monkeypatch):
    """No call is repeated."""
    monkeypatch.setitem(LumaClient.__init__.__kwdefaults__, "retry_for", 0)


@pytest.fixture
def slept(monkeypatch):
    """How many seconds each wait on the worker was, none of which takes any time."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture(scope="session")
def s3_server():
    """An object store; one for all, as Airflow looks a connection up once in a process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The object store, with an empty bucket and the connection aws_default to it."""
    extra = {"endpoint_url": s3_server, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    requests.post(f"{s3_server}/moto-api/reset", timeout=10).raise_for_status()
    requests.put(f"{s3_server}/bucket", timeout=10).raise_for_status()
    return s3_server

"""A sandbox for each test, connections to it, and the log."""

from __future__ import annotations

import json
import logging

import pytest
import requests
from moto.server import ThreadedMotoServer

from airflow_provider_luma.api import LumaClient
from airflow_provider_luma.sandbox import Sandbox
from tests.support.samples import TOKEN
from tests.support.task_instance import TaskInstance


@pytest.fixture
def sandbox():
    """A gateway whose generations are completed at once."""
    with Sandbox(token=TOKEN, seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def client(sandbox):
    """A client for the sandbox."""
    return LumaClient(sandbox.url, TOKEN)


@pytest.fixture
def connect(monkeypatch):
    """A function that sets the fields of the connection luma_default."""

    def connect(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", json.dumps({"conn_type": "luma", **fields}))

    return connect


@pytest.fixture
def connection(connect, sandbox):
    """The connection luma_default points to the sandbox."""
    connect(host=sandbox.url, password=TOKEN)


@pytest.fixture
def ti():
    """The task instance of a task's first try."""
    return TaskInstance()


@pytest.fixture
def logged(caplog, capsys):
    """A function that returns how often a text is in the log. Airflow 3.0 writes each line to both places."""
    caplog.set_level(logging.INFO)
    printed = []

    def logged(text):
        printed.append(capsys.readouterr().out)
        return max("".join(printed).count(text), caplog.text.count(text))

    return logged


@pytest.fixture
def no_retries(monkeypatch):
    """Clients do not repeat calls."""
    monkeypatch.setitem(LumaClient.__init__.__kwdefaults__, "retry_for", 0)


@pytest.fixture
def slept(monkeypatch):
    """The seconds of each call of time.sleep, which returns immediately."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture(scope="session")
def s3_server():
    """The URL of an object store. All tests share it, because Airflow looks up a connection once in a process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The object store with an empty bucket; the connection aws_default points to it."""
    extra = {"endpoint_url": s3_server, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    requests.post(f"{s3_server}/moto-api/reset", timeout=10).raise_for_status()
    requests.put(f"{s3_server}/bucket", timeout=10).raise_for_status()
    return s3_server

"""A sandbox for each test, and connections to it."""

from __future__ import annotations

import json

import pytest

from airflow_provider_luma.api import LumaClient
from airflow_provider_luma.sandbox import Sandbox

TOKEN = "marked-token-4711"


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

"""The fixture `luma_sandbox`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from luma_agents import Luma

from airflow_provider_luma.api import LumaQuotaError
from airflow_provider_luma.hooks.luma import LumaHook

PROJECT = """
import socket

import pytest
from airflow.sdk import dag

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    connect = socket.socket.connect

    def connect_here(self, address):
        assert address[0] == "127.0.0.1"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


class TaskInstance:
    try_number, max_tries = 1, 0

    def __init__(self):
        self.xcoms = {}

    def xcom_push(self, key, value):
        self.xcoms[key] = value


@dag(schedule=None)
def boats():
    LumaGenerateVideoOperator(task_id="clip", user_prompt="A paper boat", wait_for_completion=True)


def test_boats(luma_sandbox):
    ti = TaskInstance()
    boats().get_task("clip").execute({"ti": ti})
    assert ti.xcoms["generation"]["video_url"].startswith(luma_sandbox.url)
    assert [one["prompt"] for one in luma_sandbox.report()["generations"]] == ["A paper boat"]
    assert luma_sandbox.report()["charged"] == 1


@pytest.mark.luma_sandbox(2)
def test_nameless(luma_sandbox):
    pass


@pytest.mark.luma_sandbox(second=2)
def test_misspelt(luma_sandbox):
    pass


@pytest.mark.luma_sandbox(api="dream-machine")
def test_no_such_api(luma_sandbox):
    pass
"""


def test_somebody_elses_tests_need_neither_a_token_nor_a_network(pytester, monkeypatch):
    """It is there for them without an import, and a wrong marker is an error that says what is wrong."""
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    pytester.makepyfile(PROJECT)
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "*The marker luma_sandbox takes settings by name, such as seconds=2; got (2,)*",
            "*unexpected*'second'*",
            "*The api of the marker luma_sandbox is gateway or agents; got 'dream-machine'.*",
        ]
    )


@pytest.mark.parametrize("time", [1, 2])
def test_each_test_begins_with_an_empty_sandbox(luma_sandbox, time):
    """Each test begins with an empty sandbox."""
    LumaHook().submit("A paper boat")
    assert luma_sandbox.report()["submitted"] == 1


def test_a_test_makes_the_weather(luma_sandbox):
    """The test makes the weather."""
    luma_sandbox.weather(submit={"402": 1})
    with pytest.raises(LumaQuotaError):
        LumaHook().submit("A paper boat")
    assert luma_sandbox.report()["charged"] == 0


class TestApi:
    def test_it_is_a_gateway_by_default(self, luma_sandbox):
        """So that a connection without the extra leads to it."""
        connection = BaseHook.get_connection("luma_default")
        assert (connection.host, connection.extra_dejson) == (luma_sandbox.url, {})
        assert not connection.password.startswith("luma-")

    @pytest.mark.luma_sandbox(api="agents")
    def test_a_marker_makes_it_lumas_own(self, luma_sandbox):
        """The connection has the extra and a key like Luma's, with which Luma's own SDK gets an answer."""
        connection = BaseHook.get_connection("luma_default")
        assert connection.extra_dejson == {"api": "agents"}
        assert connection.password.startswith("luma-api-")
        with Luma(auth_token=connection.password, base_url=f"{connection.host}/v1", max_retries=0) as luma:
            created = luma.generations.create(type="video", model="ray-3.2", prompt="A paper boat")
            assert luma.generations.get(created.id).state == "completed"
        assert [one["api"] for one in luma_sandbox.report()["generations"]] == ["agents"]

    @pytest.mark.luma_sandbox(api="agents", token="")
    def test_a_sandbox_for_any_key_gets_one_of_lumas(self, luma_sandbox):
        """An odd key would be refused."""
        assert BaseHook.get_connection("luma_default").password.startswith("luma-api-")


@pytest.mark.luma_sandbox(seconds=600)
class TestMarker:
    def test_a_marker_changes_a_setting(self, luma_sandbox):
        """A marker says what the sandbox is like."""
        assert LumaHook().submit("A paper boat").id
        assert luma_sandbox.report()["generations"][0]["state"] == "pending"

    @pytest.mark.luma_sandbox(seconds=0, luma_conn_id="luma_team", token="")
    def test_the_nearest_marker_counts(self, luma_sandbox):
        """Of several, the nearest counts for each setting; the connection may have another id."""
        hook = LumaHook("luma_team")
        generation = hook.submit("A paper boat")
        assert hook.get_generation(generation.id).state == "completed"
        assert not LumaHook().test_connection()[0]


def test_the_machines_connection_and_proxy_are_not_used(monkeypatch, request):
    """The connection and the proxy that the machine has are not asked."""
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", '{"conn_type": "luma", "password": "costs-money"}')
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.com")
    luma_sandbox = request.getfixturevalue("luma_sandbox")
    assert LumaHook().get_conn().url == luma_sandbox.url
    assert LumaHook().test_connection()[0]
    assert os.environ["no_proxy"] == "example.com,127.0.0.1"


def test_a_run_without_it_imports_nothing():
    """A run of pytest that does not use it imports nothing for it."""
    code = (
        "import sys, pytest; old = set(sys.modules); import airflow_provider_luma.pytest_plugin;"
        "print(sorted(set(sys.modules) - old))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert loaded.strip() == "['airflow_provider_luma', 'airflow_provider_luma.pytest_plugin']"

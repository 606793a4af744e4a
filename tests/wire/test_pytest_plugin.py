"""The pytest fixture `luma_sandbox`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from luma_agents import Luma

from airflow_provider_luma.api import LumaQuotaError
from airflow_provider_luma.apis import APIS
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.pytest_plugin import DEFAULT_API, TOKENS

EVERY_API = [
    pytest.param(row, marks=pytest.mark.luma_sandbox(api=row.name), id=row.name)
    for row in APIS.values()
    if row.sandbox_token
]
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


def test_works_in_other_projects(pytester, monkeypatch):
    """Another project uses the fixture without an import, a token or a network; a wrong marker is an error."""
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    pytester.makepyfile(PROJECT)
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "*The marker luma_sandbox has only named settings, such as seconds=2; got (2,)*",
            "*unexpected*'second'*",
            "*The marker luma_sandbox has no api 'dream-machine'. Use 'gateway' or 'agents'.*",
        ]
    )


@pytest.mark.parametrize("time", [1, 2])
def test_starts_with_empty_sandbox(luma_sandbox, time):
    """Every test has an empty sandbox of its own."""
    LumaHook().submit("A paper boat")
    assert luma_sandbox.report()["submitted"] == 1


def test_can_set_the_weather(luma_sandbox):
    """A test can set the weather of its sandbox."""
    luma_sandbox.weather(submit={"402": 1})
    with pytest.raises(LumaQuotaError):
        LumaHook().submit("A paper boat")
    assert luma_sandbox.report()["charged"] == 0


class TestApi:
    def test_default_is_a_gateway(self, luma_sandbox):
        """By default, the connection has no extra and uses the gateway."""
        connection = BaseHook.get_connection("luma_default")
        assert (connection.host, connection.extra_dejson) == (luma_sandbox.url, {})
        assert not connection.password.startswith("luma-")

    @pytest.mark.luma_sandbox(api="agents")
    def test_marker_chooses_the_api(self, luma_sandbox):
        """With `api="agents"`, the connection has this extra and a key that Luma's own SDK can use."""
        connection = BaseHook.get_connection("luma_default")
        assert connection.extra_dejson == {"api": "agents"}
        assert connection.password.startswith("luma-api-")
        with Luma(auth_token=connection.password, base_url=f"{connection.host}/v1", max_retries=0) as luma:
            created = luma.generations.create(type="video", model="ray-3.2", prompt="A paper boat")
            assert luma.generations.get(created.id).state == "completed"
        assert [one["api"] for one in luma_sandbox.report()["generations"]] == ["agents"]

    @pytest.mark.parametrize("row", EVERY_API)
    def test_hook_reaches_every_api(self, row, luma_sandbox):
        """For every API with a sandbox token, the hook submits to that API with that token."""
        assert BaseHook.get_connection("luma_default").password == row.sandbox_token
        LumaHook().submit("A paper boat")
        assert [one["api"] for one in luma_sandbox.report()["generations"]] == [row.name]

    @pytest.mark.luma_sandbox(api="agents", token="")
    def test_empty_token_needs_a_key(self, luma_sandbox):
        """If the sandbox accepts any key, the connection still has a key of the chosen API."""
        assert BaseHook.get_connection("luma_default").password.startswith("luma-api-")


@pytest.mark.luma_sandbox(seconds=600)
class TestMarker:
    def test_marker_changes_a_setting(self, luma_sandbox):
        """A marker changes the settings of the sandbox."""
        assert LumaHook().submit("A paper boat").id
        assert luma_sandbox.report()["generations"][0]["state"] == "pending"

    @pytest.mark.luma_sandbox(seconds=0, luma_conn_id="luma_team", token="")
    def test_nearest_marker_counts(self, luma_sandbox):
        """For each setting the nearest marker counts, and the connection can have another id."""
        hook = LumaHook("luma_team")
        generation = hook.submit("A paper boat")
        assert hook.get_generation(generation.id).state == "completed"
        assert not LumaHook().test_connection()[0]


def test_ignores_connection_and_proxy(monkeypatch, request):
    """A connection and a proxy in the environment are not used."""
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", '{"conn_type": "luma", "password": "costs-money"}')
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.com")
    luma_sandbox = request.getfixturevalue("luma_sandbox")
    assert LumaHook().get_conn().url == luma_sandbox.url
    assert LumaHook().test_connection()[0]
    assert os.environ["no_proxy"] == "example.com,127.0.0.1"


def test_plugin_imports_almost_nothing():
    """The plugin imports only the table of APIs, because every run of pytest imports it."""
    code = (
        "import sys, pytest; old = set(sys.modules); import airflow_provider_luma.pytest_plugin;"
        "print(sorted(set(sys.modules) - old))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    package = "airflow_provider_luma"
    assert loaded.strip() == str([package, f"{package}.apis", f"{package}.pytest_plugin"])


def test_marker_names_every_api(pytestconfig):
    """The description of the marker names every API of the fixture."""
    (marker,) = [line for line in pytestconfig.getini("markers") if line.startswith("luma_sandbox(")]
    assert marker.startswith(f"luma_sandbox(api={DEFAULT_API!r}, ")
    assert marker.endswith(f"api is {' or '.join(TOKENS)}")

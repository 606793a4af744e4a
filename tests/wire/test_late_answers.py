"""Answers that come late, twice, or about something else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from airflow_provider_luma.api import GenerationState, LumaClient, LumaServerError
from airflow_provider_luma.api.dialects import gateway
from airflow_provider_luma.api.url import base_url, parse_host
from airflow_provider_luma.api.waiting import Wait
from airflow_provider_luma.hooks.luma import LumaHook
from tests.support.clock import Clock
from tests.support.raw_answers import far_end, json_answer
from tests.support.samples import TOKEN

COMPLETED = json.loads((Path(__file__).parents[1] / "fixtures" / "get_completed.json").read_text())


def row(**fields):
    """A row of the gateway's task table that is ahead of its data."""
    return {"task_id": COMPLETED["id"], "status": "SUCCESS", "fail_reason": "", "data": None, **fields}


def test_wait_goes_on_without_file():
    """A completed generation without its URL is not finished for a minute; then the wait ends all the same."""
    clock = Clock()
    wait = Wait(COMPLETED["id"], log=logging.getLogger("test"), clock=clock)
    early = gateway.parse_generation(row(), "Polling")
    assert wait.update(early) is None
    clock.now += 59
    assert wait.update(early) is None
    clock.now += 1
    assert wait.update(early) is early


def test_wait_ends_with_file():
    """The wait ends with the first answer that has the URL."""
    wait = Wait(COMPLETED["id"], log=logging.getLogger("test"))
    assert wait.update(gateway.parse_generation(row(), "Polling")) is None
    assert wait.update(gateway.parse_generation(COMPLETED, "Polling")).video_url


def test_url_is_no_failure_reason():
    """A completed generation has no failure reason; its row keeps the result's URL in that field."""
    completed = gateway.parse_generation(row(fail_reason="https://cdn.example.net/video.mp4"), "Polling")
    assert completed.failure_reason is None
    failed = gateway.parse_generation(row(status="FAILURE", fail_reason="Job failed"), "Polling")
    assert failed.failure_reason == "Job failed"


@pytest.mark.parametrize("order", [1, -1])
def test_furthest_state_counts(order):
    """If a batch answer has a generation twice, its furthest state counts."""
    rows = [row(), row(status="IN_PROGRESS"), row(status="NOT_START")][::order]
    assert gateway.parse_generations(rows, "Polling")[COMPLETED["id"]].state is GenerationState.COMPLETED


def test_answer_about_another_id():
    """An answer about another generation is an error."""
    other = json_answer(b'{"id": "y", "state": "completed"}')
    with far_end(other) as (url, _), pytest.raises(LumaServerError, match="answer for generation x is about y"):
        LumaClient(url, TOKEN).get("x", repeat=False)


@pytest.mark.parametrize("payload", ["some text", {"code": "success", "data": "x"}])
def test_text_is_no_polled_generation(payload):
    """A text in answer to a poll is not a generation, although it is one in answer to a submission."""
    with far_end(json_answer(json.dumps(payload).encode())) as (url, _), pytest.raises(LumaServerError):
        LumaClient(url, TOKEN).get("x", repeat=False)


@pytest.mark.parametrize(
    ("host", "schema", "port", "url"),
    [
        ("::1", None, 8787, "http://[::1]:8787"),
        ("[::1]", None, 8787, "http://[::1]:8787"),
        ("2001:db8::7", "https", None, "https://[2001:db8::7]"),
        ("gateway.example.com", "HTTPS", None, "https://gateway.example.com"),
    ],
)
def test_host_forms_of_airflow(host, schema, port, url):
    """An IPv6 address whose brackets Airflow removed, and a schema in capitals, are accepted."""
    assert base_url(parse_host(host), gateway, schema=schema, port=port) == url


def test_ipv6_connection_uri(monkeypatch):
    """A connection's URI may have an IPv6 address."""
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", f"luma://:{TOKEN}@[::1]:8787")
    assert LumaHook().get_conn().url == "http://[::1]:8787"

"""A page of a proxy, an empty body and JSON of another shape are trouble, not the API's word."""

from __future__ import annotations

import itertools
import logging

import pytest

from airflow_provider_luma.api import LumaAmbiguousSubmission, LumaClient, LumaError
from airflow_provider_luma.api.waiting import Wait
from airflow_provider_luma.apis import APIS
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.sandbox import Sandbox
from tests.support.raw_answers import far_end
from tests.support.samples import PROMPT, TOKEN

STATUSES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    418: "Teapot",
    451: "Unavailable",
    502: "Bad Gateway",
}
BODIES = {"page": b"<html>blocked</html>", "empty": b"", "other JSON": b'{"blocked": true}', "null": b"null"}


def raw(status, body):
    return b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%b" % (status, STATUSES[status].encode(), len(body), body)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("status", STATUSES)
def test_wait_survives_foreign_answer(status, body, api, caplog):
    """A wait goes on after two minutes of answers that the API itself did not give."""
    with far_end(raw(status, body)) as (url, _):
        client = LumaClient(url, f"{APIS[api].key_prefix}{TOKEN}", api=api)
        with pytest.raises(LumaError) as caught:
            client.get("x", repeat=False)
    clock = itertools.count(0, 60).__next__
    wait = Wait("x", log=logging.getLogger("test"), clock=clock)
    assert [wait.update(caught.value) for _ in range(4)] == [None] * 4
    assert caught.value.from_api is False


def test_proxy_password_is_named():
    """A 407 says that the proxy wants a password."""
    with far_end(raw(407, b"<html></html>")) as (url, _), pytest.raises(LumaError, match="proxy wants a password"):
        LumaClient(url, TOKEN).get("x", repeat=False)


@pytest.mark.parametrize("status", [200, 502])
def test_page_after_submission_is_ambiguous(status):
    """A page in place of the answer to a submission leaves it unknown whether it was charged."""
    page = b"HTTP/1.1 %d X\r\nContent-Length: 13\r\n\r\n<html></html>" % status
    with far_end(page) as (url, _), pytest.raises(LumaAmbiguousSubmission):
        LumaClient(url, TOKEN).submit(PROMPT)


def test_worker_waits_through_token_change(connect, monkeypatch):
    """A wait on a worker looks the connection up again after its token was refused."""
    with Sandbox(token=TOKEN, seconds=0) as sandbox:
        generation_id = sandbox.add_generation()
        sandbox.change(token="the-new-token")
        connect(host=sandbox.url, password=TOKEN)
        monkeypatch.setattr("time.sleep", lambda _: connect(host=sandbox.url, password="the-new-token"))
        assert LumaHook().wait_for_generation(generation_id).id == generation_id

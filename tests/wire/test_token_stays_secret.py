"""The token in answers, and the connection's extra."""

from __future__ import annotations

import json
import traceback

import pytest

from airflow_provider_luma.api import LumaClient, LumaError, LumaInvalidRequest
from airflow_provider_luma.hooks.luma import LumaHook
from tests.support.raw_answers import error_answer, far_end, json_answer
from tests.support.samples import TOKEN

ODD = 'sk/a&b"c\\d-4711'
SPELLINGS = {
    "plain": json.dumps(ODD),
    "PHP": json.dumps(ODD).replace("/", "\\/"),
    "Go": json.dumps(ODD).replace("&", "\\u0026"),
    "all": '"' + "".join(f"\\u{ord(character):04x}" for character in ODD) + '"',
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_error_hides_token(spelling):
    """An error does not contain the token, however the API's JSON spells it."""
    body = b'{"code": "invalid", "message": %b}' % spelling.encode()
    with far_end(error_answer(401, body)) as (url, _), pytest.raises(LumaError) as caught:
        LumaClient(url, ODD).get("x", repeat=False)
    assert ODD not in "".join(traceback.format_exception(caught.value))
    assert "***" in str(caught.value)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_generation_hides_token(spelling):
    """A generation does not contain the token, in its fields or its raw answer."""
    body = b'{"id": "x", "state": "failed", "failure_reason": %b, "more": [{"k": %b}]}' % ((spelling.encode(),) * 2)
    with far_end(json_answer(body)) as (url, _):
        generation = LumaClient(url, ODD).get("x", repeat=False)
    assert generation.failure_reason == generation.raw["more"][0]["k"] == "***"


@pytest.mark.parametrize("field", ["failure_reason", "state"])
def test_long_text_is_cut(field):
    """A reason and an unknown state are cut to one line of 300 characters."""
    body = json.dumps({"id": "x", "state": "failed", field: "a\n" * 1_000_000}).encode()
    with far_end(json_answer(body)) as (url, _):
        generation = LumaClient(url, TOKEN).get("x", repeat=False)
    for text in (generation.failure_reason or "", generation.state_name):
        assert len(text) <= 300
        assert "\n" not in text


@pytest.mark.parametrize("extra", ["not JSON", "[1]", '"text"', "7", "{"])
def test_unreadable_extra_sends_nothing(extra, monkeypatch):
    """A connection whose extra is not a JSON object is an error: its key could go to another host."""
    from airflow.providers.common.compat.sdk import Connection

    connection = Connection(conn_id="luma_default", conn_type="luma", password=TOKEN)
    connection.extra = extra
    monkeypatch.setattr(LumaHook, "get_connection", classmethod(lambda cls, conn_id: connection))
    with pytest.raises(LumaInvalidRequest, match="extra is not a JSON object"):
        LumaHook().get_conn()


@pytest.mark.parametrize("fields", [{"host": "[1.2.3]"}, {"extra": {"verify": "x" * 5000}}])
def test_odd_field_gets_a_sentence(fields, connect):
    """A host or an extra that no library can read is named in a sentence."""
    connect(password=TOKEN, **fields)
    with pytest.raises(LumaInvalidRequest, match="The connection 'luma_default'"):
        LumaHook().get_conn()

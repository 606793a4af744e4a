"""A client before its first request."""

from __future__ import annotations

import pytest

from airflow_provider_luma.api import LumaClient


def test_clients_of_the_same_gateway_and_token_are_equal_however_those_were_typed():
    one = LumaClient("https://gateway.example.com/", "token-4711")
    other = LumaClient("gateway.example.com", "Bearer token-4711")
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "other",
    [
        LumaClient("gateway.example.com", "token-0815"),
        LumaClient("other.example.com", "token-4711"),
        LumaClient("gateway.example.com", "token-4711", timeout=5),
        LumaClient("gateway.example.com", "token-4711", verify=False),
        LumaClient("gateway.example.com", "token-4711", retry_for=0),
        "gateway.example.com",
    ],
)
def test_clients_that_would_call_differently_are_not_equal(other):
    assert LumaClient("gateway.example.com", "token-4711") != other

"""A client, before it asks anything."""

from __future__ import annotations

import pytest

from airflow_provider_luma.api import LumaClient


def test_equal():
    """Two are equal that ask the same gateway with the same token, however they were written."""
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
        "gateway.example.com",
    ],
)
def test_different(other):
    """All that changes what is asked, or how, makes a difference."""
    assert LumaClient("gateway.example.com", "token-4711") != other

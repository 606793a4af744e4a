"""A client before its first request."""

from __future__ import annotations

import pytest

from airflow_provider_luma.api import LumaClient
from airflow_provider_luma.apis import APIS

URL = "gateway.example.com"


def test_equal_however_typed():
    """Clients for the same API and token are equal, however these were typed."""
    one = LumaClient(f"https://{URL}/", "token-4711")
    other = LumaClient(URL, "Bearer token-4711", schema="https")
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "other",
    [
        LumaClient(URL, "token-0815"),
        LumaClient("other.example.com", "token-4711"),
        LumaClient(URL, "token-4711", api="agents"),
        LumaClient(URL, "token-4711", port=8443),
        LumaClient(URL, "token-4711", schema="http"),
        LumaClient(URL, "token-4711", timeout=5),
        LumaClient(URL, "token-4711", verify=False),
        LumaClient(URL, "token-4711", retry_for=0),
        URL,
    ],
)
def test_differs_with_any_setting(other):
    """Clients that would call differently are not equal."""
    assert LumaClient(URL, "token-4711") != other


@pytest.mark.parametrize("api", APIS)
def test_names_api_and_host(api):
    """A client names its API and host for the record of a submission, without the path."""
    assert LumaClient(f"{URL}:8443/prefix", "token-4711", api=api).api == f"{api} https://{URL}:8443"


def test_repr_has_no_token():
    """A client can be printed without showing its token."""
    assert "token-4711" not in repr(LumaClient(URL, "token-4711"))

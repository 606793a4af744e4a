"""The choice of an API: which one a connection calls, and where a key may be sent."""

from __future__ import annotations

import pytest

from airflow_provider_luma.api import LumaClient, LumaInvalidRequest
from airflow_provider_luma.api.dialects import choose_api
from airflow_provider_luma.api.url import parse_host
from airflow_provider_luma.apis import APIS, RETIRED

OWNED = [api for api in APIS.values() if api.hosts]


def choose(chosen, host, token):
    return choose_api(chosen, parse_host(host).name, token).name


@pytest.mark.parametrize(
    ("chosen", "host", "token", "name"),
    [
        (None, None, "sk-1", "gateway"),
        ("", "", "sk-1", "gateway"),
        (None, None, "luma-api-1", "agents"),
        (None, " ", "Bearer luma-api-1", "agents"),
        (None, "agents.lumalabs.ai", "luma-api-1", "agents"),
        (None, "https://Agents.LumaLabs.ai/v1", "anything", "agents"),
        (None, "agents.lumalabs.ai.", "luma-api-1", "agents"),
        (None, "gateway.example.com", "sk-1", "gateway"),
        (None, "lumalabs.ai", "sk-1", "gateway"),
        ("agents", "proxy.example.com", "own-key", "agents"),
        ("agents", "proxy.example.com", "luma-own-key", "agents"),
        ("Agents ", None, "own-key", "agents"),
        ("gateway", "gateway.example.com", "luma-api-1", "gateway"),
        ("gateway", None, "luma-1", "gateway"),
    ],
)
def test_choice_before_host_before_key(chosen, host, token, name):
    """The chosen API counts first, then that of the host, then that of the key; else it is the default."""
    assert choose(chosen, host, token) == name


@pytest.mark.parametrize("api", OWNED, ids=lambda api: api.name)
def test_owner_is_recognised(api):
    """An API that owns hosts or keys is recognised by each of them, and gets its own host."""
    for host in api.hosts:
        assert choose(None, host, "anything") == api.name
    assert LumaClient(None, f"{api.key_prefix}1").url.startswith(api.url)
    assert LumaClient(None, "anything", api=api.name).dialect.API is api


@pytest.mark.parametrize(
    "host", ["gateway.example.com", "lumalabs.ai", "http://127.0.0.1:1", "agents.lumalabs.ai.x.io", "www.kkiai.com"]
)
@pytest.mark.parametrize(
    "token", ["luma-api-1", "Bearer luma-api-1", "bearer: LUMA-API-1", "LUMA-API-1", "'luma-api-1'"]
)
def test_key_stays_with_its_owner(host, token):
    """A key is not sent to another host; the message says how to send it to its owner, or to this host."""
    name = parse_host(host).name
    with pytest.raises(
        LumaInvalidRequest,
        match=f"is a key of Luma's own API, which is not sent to {name}. Nothing was sent. .* set it to "
        rf"agents.lumalabs.ai. .*set the extra 'api' to agents. If {name} gave you this token, set .* to gateway\.$",
    ):
        choose(None, host, token)


@pytest.mark.parametrize(
    ("chosen", "host", "token"),
    [
        (None, None, "luma-1"),
        (None, "agents.lumalabs.ai", "luma-1"),
        ("agents", None, "luma-1"),
        ("agents", "agents.lumalabs.ai", "luma-1"),
        (None, "api.lumalabs.ai", "luma-api-1"),
        ("gateway", "https://api.lumalabs.ai/dream-machine/v1", "luma-1"),
        ("agents", "api.lumalabs.ai", "sk-1"),
    ],
)
def test_retired_api_is_refused(chosen, host, token):
    """The host and the key of a retired API are refused with the API to use instead."""
    with pytest.raises(LumaInvalidRequest) as caught:
        choose(chosen, host, token)
    assert str(caught.value) == RETIRED[0].retired


def test_retired_key_may_be_a_gateways():
    """A gateway may give out a token that looks like a retired key: the message says how to use it."""
    with pytest.raises(LumaInvalidRequest, match=r"is not supported.* If gateway.example.com gave you this token, set"):
        choose(None, "gateway.example.com", "luma-1")


@pytest.mark.parametrize("chosen", ["dream-machine", "dream_machine", "true", 7])
def test_unknown_choice_is_refused(chosen):
    """A name that is not a supported API is refused with the names that are."""
    with pytest.raises(LumaInvalidRequest, match="the extra 'api' must be gateway or agents, got"):
        choose(chosen, None, "sk-1")

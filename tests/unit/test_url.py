"""Addresses: the host of a connection, and an address that may be shown."""

from __future__ import annotations

import pytest

from airflow_provider_luma.api import LumaInvalidRequest
from airflow_provider_luma.api.dialects import DIALECTS
from airflow_provider_luma.api.url import base_url, is_this_machine, parse_host, redact_uri

DEFAULT = "https://www.kkiai.com"


@pytest.mark.parametrize(
    ("host", "schema", "port", "url"),
    [
        ("", None, None, DEFAULT),
        (None, None, None, DEFAULT),
        (None, None, 8443, f"{DEFAULT}:8443"),
        (" https://gateway.example.com/ ", None, None, "https://gateway.example.com"),
        ("gateway.example.com:8443", None, None, "https://gateway.example.com:8443"),
        ("gateway.example.com", "https", 8443, "https://gateway.example.com:8443"),
        ("gateway.example.com", "http", None, "http://gateway.example.com"),
        ("http://gateway.example.com", "https", None, "http://gateway.example.com"),
        ("gateway.example.com/v1", None, None, "https://gateway.example.com/v1"),
        ("https://gateway.example.com:8443/a/b/", None, 1, "https://gateway.example.com:8443/a/b"),
        ("localhost:8787", None, None, "http://localhost:8787"),
        ("luma.localhost", None, None, "http://luma.localhost"),
        ("127.0.0.1", None, 8787, "http://127.0.0.1:8787"),
        ("https://localhost:8787", None, None, "https://localhost:8787"),
        ("localhost", "https", None, "https://localhost"),
        ("[::1]:8787", None, None, "http://[::1]:8787"),
        ("HTTPS://Gateway.Example.com/Path", None, None, "https://gateway.example.com/Path"),
    ],
)
def test_host_in_any_form(host, schema, port, url):
    """A host may have a scheme, a port and a path, or these have fields of their own."""
    assert base_url(parse_host(host), DIALECTS["gateway"], schema=schema, port=port) == url


@pytest.mark.parametrize(
    "host",
    [
        "https://user:pass@example.com",
        "example.com?x=1",
        "example.com#x",
        "ftp://example.com",
        "a b",
        "x:port",
        "https://user:pass@x:port",
        "https://",
        "/path",
    ],
)
def test_wrong_host_is_refused(host):
    """Another text is refused, without repeating a password in it."""
    with pytest.raises(LumaInvalidRequest, match=r"The host must look like .* The token has its own field\.") as caught:
        parse_host(host)
    assert "pass@" not in str(caught.value)


def test_wrong_schema_is_refused():
    """A schema is http or https."""
    with pytest.raises(LumaInvalidRequest, match="schema must be http or https, got 'v1'"):
        base_url(parse_host("example.com"), DIALECTS["gateway"], schema="v1")


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("192.168.0.1", False),
        ("[::2]", False),
        ("localhost.example.com", False),
        ("notlocalhost", False),
    ],
)
def test_own_machine_is_recognised(name, own):
    """Only names and addresses of this machine are its own."""
    assert is_this_machine(name) is own


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:pass@example.com/a.png?signature=secret#part", "https://example.com/a.png"),
        ("HTTP://example.com?secret", "HTTP://example.com"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("s3://conn_id@bucket/key?with=query", "s3://bucket/key?with=query"),
    ],
)
def test_shown_uri_has_no_secrets(uri, shown):
    """An address is shown without its user name and password, and a web address without its query."""
    assert redact_uri(uri) == shown

"""What is refused before anything is sent."""

from __future__ import annotations

import pytest

from airflow_provider_luma.api import LumaClient, LumaInvalidRequest
from airflow_provider_luma.api.arguments import check_generation_id, merge_arguments
from airflow_provider_luma.api.dialects import DIALECTS, gateway
from airflow_provider_luma.api.url import base_url
from tests.support.samples import PROMPT


def request_body(arguments, extra_body=None):
    return gateway.submission(merge_arguments(arguments, extra_body)).body


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a user_prompt, or an image_url"),
        ({"user_prompt": ""}, "needs a user_prompt"),
        ({"model_name": "ray-v2"}, "needs a user_prompt"),
        ({"user_prompt": "ab"}, "3 to 5,000 characters, got 2"),
        ({"user_prompt": "x" * 5001}, "got 5,001"),
        ({"user_prompt": 12345}, "user_prompt must be a string, got int 12345"),
        ({"user_prompt": PROMPT, "loop": "yes"}, "loop must be True or False, got str 'yes'"),
        ({"user_prompt": PROMPT, "duration": 5}, "duration must be a string"),
        ({"user_prompt": PROMPT, "loop": True, "image_end_url": "https://x/y.png"}, "loop does not go with"),
        ({"user_prompt": PROMPT, "image_url": ["https://x/y.png"]}, "image_url must be a string"),
    ],
)
def test_a_wrong_argument_is_refused_by_name_with_what_it_should_be(arguments, message):
    with pytest.raises(LumaInvalidRequest, match=message):
        request_body(arguments)


def test_an_argument_left_out_is_not_sent_not_even_as_null():
    assert request_body({"user_prompt": PROMPT, "loop": None, "image_url": ""}) == {"user_prompt": PROMPT}


def test_false_is_sent():
    assert request_body({"user_prompt": PROMPT, "loop": False})["loop"] is False


@pytest.mark.parametrize("length", [3, 5000])
def test_the_shortest_and_longest_prompt_are_accepted(length):
    assert request_body({"user_prompt": "x" * length})


@pytest.mark.parametrize("name", ["image_url", "image_end_url"])
def test_an_image_needs_no_prompt(name):
    assert request_body({name: "https://x/y.png"})


def test_values_and_fields_that_nobody_documents_are_sent():
    body = request_body({"user_prompt": PROMPT, "model_name": "ray-v9", "duration": "1m"}, {"aspect_ratio": "1:1"})
    assert body == {"user_prompt": PROMPT, "model_name": "ray-v9", "duration": "1m", "aspect_ratio": "1:1"}


def test_a_field_both_as_argument_and_in_extra_body_is_refused():
    with pytest.raises(LumaInvalidRequest, match="Given twice, as an argument and in extra_body: loop"):
        request_body({"user_prompt": PROMPT, "loop": False}, {"loop": True})


@pytest.mark.parametrize("call", ["submit", "extend"])
def test_an_argument_that_does_not_exist_is_refused_by_name(call):
    with pytest.raises(LumaInvalidRequest, match="There is no argument seed: put it into extra_body"):
        getattr(LumaClient("127.0.0.1:1", "token", retry_for=0), call)(PROMPT, seed=1)


def test_an_extra_body_that_is_no_dict_is_refused():
    with pytest.raises(LumaInvalidRequest, match="extra_body must be a dict"):
        request_body({"user_prompt": PROMPT}, ["aspect_ratio"])


@pytest.mark.parametrize("seed", [object(), float("nan")])
def test_an_extra_body_that_json_cannot_hold_is_refused_before_anything_is_sent(seed):
    with pytest.raises(LumaInvalidRequest, match="cannot be written as JSON"):
        LumaClient("127.0.0.1:1", "token", retry_for=0).submit(PROMPT, extra_body={"seed": seed})


@pytest.mark.parametrize("generation_id", ["", " ", ".", "..", None, ["a"], {"id": "a"}])
def test_what_cannot_be_a_generation_id_is_refused(generation_id):
    with pytest.raises(LumaInvalidRequest, match="generation id must be a string"):
        check_generation_id(generation_id)


def test_a_generation_id_may_be_pasted_with_spaces_and_a_line_end():
    assert gateway.query(" 7c2f-1\n").path == "/luma/generations/7c2f-1"


def test_a_generation_id_cannot_lead_to_another_path():
    assert gateway.query("../x?y").path == "/luma/generations/..%2Fx%3Fy"


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        (("", None, None), "https://www.kkiai.com"),
        ((None, None, None), "https://www.kkiai.com"),
        (("www.kkiai.com", None, None), "https://www.kkiai.com"),
        ((" https://www.kkiai.com/ ", None, None), "https://www.kkiai.com"),
        (("https://www.kkiai.com/luma/generations", None, None), "https://www.kkiai.com"),
        (("gateway.example.com:8443", None, None), "https://gateway.example.com:8443"),
        (("gateway.example.com", "https", 8443), "https://gateway.example.com:8443"),
        (("gateway.example.com", "http", None), "http://gateway.example.com"),
        (("http://gateway.example.com", "https", None), "http://gateway.example.com"),
        (("gateway.example.com/v1", None, None), "https://gateway.example.com/v1"),
        (("https://gateway.example.com:8443/a/b/", None, 1), "https://gateway.example.com:8443/a/b"),
        (("localhost:8787", None, None), "http://localhost:8787"),
        (("127.0.0.1", None, 8787), "http://127.0.0.1:8787"),
        (("https://localhost:8787", None, None), "https://localhost:8787"),
        (("[::1]:8787", None, None), "http://[::1]:8787"),
        (("HTTPS://Gateway.Example.com", None, None), "https://gateway.example.com"),
    ],
)
def test_a_host_is_understood_in_any_form_that_people_type(typed, url):
    host, schema, port = typed
    assert base_url(host, DIALECTS["gateway"], schema=schema, port=port) == url


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
    ],
)
def test_what_is_no_host_is_refused_without_repeating_a_password_in_it(host):
    with pytest.raises(LumaInvalidRequest) as caught:
        base_url(host, DIALECTS["gateway"])
    assert "pass@" not in str(caught.value)


def test_a_schema_other_than_http_and_https_is_refused():
    with pytest.raises(LumaInvalidRequest, match="schema must be http or https, got 'v1'"):
        base_url("example.com", DIALECTS["gateway"], schema="v1")

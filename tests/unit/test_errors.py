"""What each documented error becomes, and what its message says."""

from __future__ import annotations

from pathlib import Path

import pendulum
import pytest

from airflow_provider_luma.api import (
    LumaApiError,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.dialects import Answer
from airflow_provider_luma.api.dialects.gateway import read_answer
from airflow_provider_luma.api.retry import MAX_RETRY_AFTER

FIXTURES = Path(__file__).parent.parent / "fixtures"
HTML = b"<!DOCTYPE html><html><title>502 Bad Gateway</title>" + b"x" * 100_000


def refused(status, content, headers=None) -> LumaApiError:
    with pytest.raises(LumaApiError) as caught:
        read_answer(Answer(status, content, headers or {}), "Polling at example.net")
    return caught.value


@pytest.mark.parametrize(
    ("status", "fixture", "kind", "code"),
    [
        (400, "error_task", LumaNotFound, "task_not_exist"),
        (401, "error_openai", LumaAuthenticationError, "invalid_token"),
        (401, "error_detail", LumaAuthenticationError, "1"),
        (500, "error_detail", LumaAuthenticationError, "1"),
        (401, "error_detail_text", LumaAuthenticationError, None),
        (403, "error_quota", LumaQuotaError, "insufficient_user_quota"),
        (200, "error_quota", LumaQuotaError, "insufficient_user_quota"),
        (200, "error_200", LumaApiError, "upstream_error"),
        (400, "error_200", LumaInvalidRequest, "upstream_error"),
        (429, "error_200", LumaRateLimited, "upstream_error"),
        (503, "error_200", LumaServerError, "upstream_error"),
    ],
)
def test_each_documented_error_body_is_one_kind_of_error_with_its_status_and_code(status, fixture, kind, code):
    error = refused(status, (FIXTURES / f"{fixture}.json").read_bytes())
    assert type(error) is kind
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, LumaInvalidRequest),
        (400, LumaInvalidRequest),
        (401, LumaAuthenticationError),
        (402, LumaQuotaError),
        (403, LumaAuthenticationError),
        (404, LumaNotFound),
        (405, LumaNotFound),
        (413, LumaInvalidRequest),
        (429, LumaRateLimited),
        (500, LumaServerError),
        (502, LumaServerError),
        (524, LumaServerError),
        (200, LumaServerError),
    ],
)
def test_a_page_in_place_of_json_is_classified_by_its_status_and_never_in_the_message(status, kind):
    error = refused(status, HTML)
    assert type(error) is kind
    assert len(str(error)) < 300
    assert "<" not in str(error)


@pytest.mark.parametrize(
    ("content", "from_api"),
    [
        (HTML, False),
        (b"", False),
        (b"{}", False),
        (b'{"detail": "unknown"}', True),
        (b'{"code": "x"}', True),
    ],
)
def test_a_404_is_the_gateways_own_only_where_it_is_in_the_gateways_own_words(content, from_api):
    assert refused(404, content).from_api is from_api


@pytest.mark.parametrize("content", [b"", b"null", b'{"id": "x', b"\xff\xfe"])
def test_an_unreadable_answer_of_200_is_a_server_error_that_may_have_been_charged(content):
    error = refused(200, content)
    assert type(error) is LumaServerError
    assert error.maybe_charged


@pytest.mark.parametrize(
    ("status", "content", "maybe"),
    [
        (500, HTML, True),
        (503, b'{"code": "busy", "message": "busy", "data": null}', True),
        (500, b'{"detail": "the model is broken"}', False),
        (502, b'{"detail": "Bad Gateway"}', True),
        (504, b'{"detail": "invalid token < in JSON"}', True),
        (408, HTML, True),
    ],
)
def test_a_server_error_may_have_been_charged_unless_the_gateway_itself_refused(status, content, maybe):
    error = refused(status, content)
    assert isinstance(error, LumaServerError)
    assert error.maybe_charged is maybe


@pytest.mark.parametrize("header", ["7", "7.0"])
def test_retry_after_may_be_seconds(header):
    assert refused(429, HTML, {"Retry-After": header}).retry_after == 7


def test_retry_after_may_be_a_date():
    soon = pendulum.now("UTC").add(seconds=60).format("ddd, DD MMM YYYY HH:mm:ss") + " GMT"
    assert 50 < refused(429, HTML, {"Retry-After": soon}).retry_after <= 60


@pytest.mark.parametrize("header", ["99999999999999", "Fri, 01 Jan 2999 00:00:00 GMT"])
def test_retry_after_is_cut_to_an_hour(header):
    assert refused(429, HTML, {"Retry-After": header}).retry_after == MAX_RETRY_AFTER == 3600


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "nan", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_retry_after_that_is_missing_past_or_unreadable_asks_for_no_wait(header):
    assert not refused(429, HTML, {"Retry-After": header} if header is not None else {}).retry_after


def test_a_redirect_does_not_show_where_it_leads():
    error = refused(302, b"", {"Location": "https://login.example.net/path?token=x"})
    assert "a redirect, which is not followed" in str(error)
    assert "login" not in str(error)


def test_a_refusal_that_mentions_prompt_tokens_is_not_about_the_api_token():
    assert type(refused(400, b'{"detail": "the prompt has too many tokens"}')) is LumaInvalidRequest


@pytest.mark.parametrize(("status", "kind"), [(400, LumaInvalidRequest), (502, LumaServerError)])
def test_a_refusal_that_mentions_somebody_elses_authorization_is_not_about_the_api_token(status, kind):
    assert type(refused(status, b'{"detail": "the host of image_url answered: Unauthorized"}')) is kind


def test_the_gateways_request_id_is_kept_for_its_support():
    body = b'{"code": "x", "message": "y", "request_id": "r-1", "data": null}'
    assert refused(400, body).request_id == "r-1"
    assert refused(400, b"{}", {"X-Oneapi-Request-Id": "r-2"}).request_id == "r-2"


def test_a_code_that_is_also_the_message_appears_once():
    assert str(refused(400, (FIXTURES / "error_task.json").read_bytes())).count("task_not_exist") == 1


def test_a_long_message_is_cut_and_on_one_line():
    message = str(refused(400, b'{"message": "' + b"wrong\\n" * 1000 + b'"}'))
    assert len(message) < 500
    assert "wrong wrong" in message

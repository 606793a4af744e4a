"""The hook: from an Airflow connection to a generation."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import requests
import trustme
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_luma.api import (
    LumaAuthenticationError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
    waiting,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.sandbox import Sandbox
from tests.support.raw_answers import error_answer, far_end, json_answer
from tests.support.samples import PROMPT, TOKEN


@pytest.mark.parametrize(
    "form",
    [
        lambda url: {"host": url},
        lambda url: {"host": url + "/"},
        lambda url: {"host": url.removeprefix("http://")},
        lambda url: {"host": "127.0.0.1", "port": int(url.rsplit(":", 1)[1]), "schema": "http"},
    ],
    ids=["url", "slash", "bare", "fields"],
)
def test_a_host_works_in_the_forms_that_people_type(form, connect, sandbox):
    connect(password=TOKEN, **form(sandbox.url))
    assert LumaHook().submit(PROMPT).id


def test_a_connection_may_be_a_uri(monkeypatch, sandbox):
    host = sandbox.url.removeprefix("http://")
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", f"luma://:{TOKEN}@{host}/?timeout=7&verify=false")
    client = LumaHook().get_conn()
    assert (client.timeout, client.verify) == (7.0, False)
    assert client.submit(PROMPT).id


def test_a_connection_with_only_a_token_leads_to_the_default_gateway_with_tls_checked(connect):
    connect(password=TOKEN)
    client = LumaHook().get_conn()
    assert (client.url, client.timeout, client.verify) == ("https://www.kkiai.com", 30.0, True)


def test_a_missing_connection_is_named_with_the_command_that_makes_it():
    with pytest.raises(AirflowNotFoundException, match="airflow connections add nowhere --conn-type luma"):
        LumaHook("nowhere").get_conn()


@pytest.mark.parametrize("password", [None, "", "  "])
def test_a_connection_without_a_token_is_named(password, connect):
    connect(password=password)
    with pytest.raises(
        LumaAuthenticationError, match="'luma_default': there is no API token: put it into the password"
    ):
        LumaHook().get_conn()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "https://user:pass@example.com"}, "must look like"),
        ({"schema": "ftp"}, "http or https"),
        ({"extra": {"timeout": "soon"}}, "'timeout' must be a number of seconds"),
        ({"extra": {"timeout": 0}}, "'timeout' must be a number of seconds"),
        ({"extra": {"timeout": 3600}}, "'timeout' must be a number of seconds"),
        ({"extra": {"verify": 3}}, "'verify' must be true, false or the path of a CA bundle"),
        ({"host": "https://:secret@[example.com"}, "must look like"),
    ],
)
def test_a_wrong_field_is_named_with_its_connection(fields, message, connect):
    connect(password=TOKEN, **fields)
    with pytest.raises(LumaInvalidRequest, match=f"'luma_default'.*{message}"):
        LumaHook().get_conn()


def test_verify_may_be_the_path_of_a_ca_bundle_that_exists(connect, tmp_path):
    bundle = tmp_path / "ca.pem"
    connect(password=TOKEN, extra={"timeout": "12.5", "verify": str(bundle)})
    with pytest.raises(LumaInvalidRequest, match="the path of a CA bundle"):
        LumaHook().get_conn()
    bundle.touch()
    client = LumaHook().get_conn()
    assert (client.timeout, client.verify) == (12.5, str(bundle))


@pytest.mark.parametrize(("host", "warned"), [("http://gateway.example.com", True), ("http://localhost:1", False)])
def test_a_token_sent_unencrypted_to_another_machine_is_warned_about(host, warned, connect, caplog, capsys):
    connect(password=TOKEN, host=host)
    with caplog.at_level(logging.WARNING):
        LumaHook().get_conn()
    assert ("unencrypted" in capsys.readouterr().out + caplog.text) is warned


def test_an_extension_gives_the_new_generations_id(connection, sandbox):
    hook = LumaHook()
    first = hook.submit(PROMPT, model_name="ray-v2")
    assert hook.extend(first.id, "It sinks").id == sandbox.report()["generations"][-1]["id"]


@pytest.mark.parametrize("settings", [{}, {"batch_shape": "none"}, {"batch_limit": 2}])
def test_many_generations_are_polled_also_where_the_gateway_has_no_batch_query(settings, connect):
    with Sandbox(seconds=0, **settings) as sandbox:
        connect(host=sandbox.url, password=TOKEN)
        hook = LumaHook()
        ids = [hook.submit(PROMPT).id for _ in range(3)]
        assert set(hook.get_generations([*ids, "unknown"])) == set(ids)


def test_a_generation_that_is_named_twice_is_polled_once(connection, sandbox):
    hook = LumaHook()
    generation_id = hook.submit(PROMPT).id
    assert set(hook.get_generations([generation_id, generation_id])) == {generation_id}
    assert sandbox.requests[-1].body == {"ids": [generation_id]}


def test_a_generation_that_a_batch_query_leaves_out_is_polled_by_itself(connect):
    answers = json_answer(b'[{"id": "one", "state": "pending"}]'), json_answer(b'{"id": "two", "state": "failed"}')
    with far_end(*answers) as (url, requests):
        connect(host=url, password=TOKEN)
        found = LumaHook().get_generations(["one", "two"])
    assert {key: one.state for key, one in found.items()} == {"one": "pending", "two": "failed"}
    assert len(requests) == 2


def test_a_hook_looks_its_connection_up_once(connection, monkeypatch):
    hook = LumaHook()
    client = hook.get_conn()
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT")
    assert hook.get_conn() is client


def test_a_proxys_404_does_not_make_generations_unknown(connect):
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n<html></html>"
    with far_end(answer, answer) as (url, _):
        connect(host=url, password=TOKEN)
        with pytest.raises(LumaNotFound, match="Is the host a Luma gateway"):
            LumaHook().get_generations(["one"])


def test_a_host_of_lumas_own_api_without_the_extra_says_to_set_it(connect, sandbox):
    connect(host=f"{sandbox.url}/v1", password=TOKEN)
    works, message = LumaHook().test_connection()
    assert not works
    assert message.endswith("If it leads to Luma's own API, set the connection's extra 'api' to agents.")


class TestWaiting:
    def test_a_wait_returns_the_completed_generation(self, connect):
        with Sandbox(seconds=0.4) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            hook = LumaHook()
            generation = hook.wait_for_generation(hook.submit(PROMPT).id, poll_interval=0.1)
        assert generation.video_url

    def test_a_wait_may_be_for_a_failure(self, connection):
        hook = LumaHook()
        failed = hook.wait_for_generation(hook.submit(f"{PROMPT} [fail]").id, target_state=["completed", "failed"])
        assert failed.failure_reason == "Job failed"

    def test_a_failed_generation_ends_the_wait_with_its_reason(self, connection):
        hook = LumaHook()
        with pytest.raises(LumaGenerationFailed, match="Job failed"):
            hook.wait_for_generation(hook.submit(f"{PROMPT} [fail]").id)

    def test_an_invalid_connection_is_not_waited_for(self, connect, monkeypatch):
        """No time mends that."""
        connect(host="https://user:password@gateway.example.com", password=TOKEN)
        monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits"))
        with pytest.raises(LumaInvalidRequest, match="luma_default"):
            LumaHook().wait_for_generation("x")

    def test_an_id_that_is_not_known_yet_is_waited_for(self, connect):
        with Sandbox(seconds=0, visible_after=0.4) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            hook = LumaHook()
            assert hook.wait_for_generation(hook.submit(PROMPT).id, poll_interval=0.1).video_url

    def test_an_id_that_stays_unknown_ends_the_wait(self, connection, monkeypatch):
        monkeypatch.setattr(waiting, "UNKNOWN_ID_GRACE", 0.3)
        with pytest.raises(LumaNotFound):
            LumaHook().wait_for_generation("unknown", poll_interval=0.1)

    def test_a_wait_pauses_longer_while_polls_fail_and_as_long_as_retry_after_says(self, connect, slept):
        answers = [
            error_answer(429, extra=b"Retry-After: 90\r\n"),
            error_answer(500),
            json_answer(b'{"id": "x", "state": "pending"}'),
            json_answer(b'{"id": "x", "state": "completed"}'),
        ]
        with far_end(*answers) as (url, _):
            connect(host=url, password=TOKEN)
            assert LumaHook().wait_for_generation("x", poll_interval=5).id == "x"
        asked, doubled, usual = slept
        assert 90 <= asked <= 112.5
        assert 20 <= doubled <= 25
        assert usual == 5

    def test_a_gateway_in_trouble_is_waited_out(self, connection, sandbox):
        hook = LumaHook()
        generation = hook.submit(PROMPT)
        sandbox.weather(status={"500": 0.3, "drop": 0.3, "html": 0.2}, seed=1)
        assert hook.wait_for_generation(generation.id, poll_interval=0.05).video_url


class Forwarding(BaseHTTPRequestHandler):
    """A TLS proxy before the sandbox."""

    def do_GET(self):
        answer = requests.get(self.server.sandbox + self.path, headers=dict(self.headers), timeout=10)
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_):
        pass


class TestConnectionForm:
    def test_airflow_before_3_2_gets_the_same_form_from_the_hook(self, monkeypatch):
        """WTForms, which that Airflow brings, is replaced."""

        def field(label, validators, **rest):
            return label, rest["default"]

        fields = SimpleNamespace(IntegerField=field, BooleanField=field, StringField=field)
        monkeypatch.setitem(sys.modules, "wtforms", fields)
        monkeypatch.setitem(sys.modules, "wtforms.validators", SimpleNamespace(Optional=object))
        widgets = LumaHook.get_connection_form_widgets()
        assert widgets == {
            "api": ("API", None),
            "timeout": ("Timeout (seconds)", 30),
            "verify": ("Verify TLS", True),
        }
        behaviour = LumaHook.get_ui_field_behaviour()
        assert behaviour["relabeling"] == {"host": "Host", "password": "API token"}
        assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}


class TestTestButton:
    """The test button of the connection form."""

    def test_a_good_connection_passes_and_costs_nothing(self, connection, sandbox):
        good, message = LumaHook().test_connection()
        assert good
        assert message == f"{sandbox.url} is a Luma gateway and accepts the token."
        assert sandbox.report()["charged"] == 0

    def test_a_bad_token_is_named_as_the_problem(self, connect, sandbox):
        connect(host=sandbox.url, password="wrong")
        good, message = LumaHook().test_connection()
        assert not good
        assert "HTTP 401" in message
        assert "Check the token" in message
        assert "wrong" not in message

    def test_a_host_that_refuses_connections_is_named_as_the_problem(self, connect):
        connect(host="127.0.0.1:1", password=TOKEN)
        good, message = LumaHook().test_connection()
        assert not good
        assert "refuses connections" in message

    @pytest.mark.parametrize(
        ("host", "said"),
        [
            ("http://127.0.0.1:1", "check host and port, and that it runs"),
            ("https://luma.invalid", "the host name in https://luma.invalid does not resolve; check the host, and DNS"),
        ],
    )
    def test_a_failure_says_in_one_sentence_what_to_do(self, connect, host, said):
        connect(host=host, password=TOKEN)
        good, message = LumaHook().test_connection()
        assert not good
        assert said in message
        assert message.count(". ") == 0

    def test_a_proxy_that_fails_is_named_as_the_problem(self, connect, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        connect(host="https://luma.example.com", password=TOKEN)
        good, message = LumaHook().test_connection()
        assert not good
        assert "the proxy on the way to https://luma.example.com fails" in message
        assert "check HTTPS_PROXY" in message

    def test_an_untrusted_certificate_is_named_and_verify_with_its_ca_makes_it_trusted(self, connect, tmp_path):
        authority, bundle = trustme.CA(), tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(bundle)
        with Sandbox(token=TOKEN) as sandbox, ThreadingHTTPServer(("127.0.0.1", 0), Forwarding) as server:
            server.sandbox = sandbox.url
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever).start()
            host = f"https://localhost:{server.server_port}"
            connect(host=host, password=TOKEN)
            refused = LumaHook().test_connection()
            connect(host=host, password=TOKEN, extra={"verify": str(bundle)})
            trusted = LumaHook().test_connection()
            connect(host=host.replace("https", "http"), password=TOKEN)
            plain = LumaHook().test_connection()
            server.shutdown()
        assert not refused[0]
        assert "certificate that is not trusted" in refused[1]
        assert "set the connection's extra 'verify'" in refused[1]
        assert trusted == (True, f"{host} is a Luma gateway and accepts the token.")
        assert not plain[0]

    def test_https_to_a_plain_http_gateway_is_named_as_the_problem(self, connect, sandbox):
        connect(host=sandbox.url.replace("http", "https"), password=TOKEN)
        good, message = LumaHook().test_connection()
        assert not good
        assert "check whether it is http:// rather than https://" in message

    @pytest.mark.parametrize(
        ("status", "said"),
        [("429", "HTTP 429"), ("500", "is in trouble: try again later")],
    )
    def test_a_gateway_in_trouble_is_not_taken_for_a_wrong_host(self, connection, sandbox, status, said):
        sandbox.weather(status={status: 1.0})
        good, message = LumaHook().test_connection()
        assert not good
        assert said in message

    def test_a_wrong_field_is_named_without_airflows_temporary_connection_id(self, connect):
        connect(host="https://luma.invalid", password=TOKEN, extra={"timeout": "soon"})
        assert LumaHook().test_connection() == (False, "the extra 'timeout' must be a number of seconds, got 'soon'.")
        connect(host="https://luma.invalid", password="  ")
        assert LumaHook().test_connection() == (
            False,
            "there is no API token: put it into the password, the form's API token.",
        )

    def test_a_token_with_a_space_is_to_be_copied_again(self, connect):
        connect(host="https://luma.invalid", password="two words")
        good, message = LumaHook().test_connection()
        assert not good
        assert "copy it again" in message

    def test_a_gateway_that_does_not_answer_is_named_as_the_problem(self, connect):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            connect(host=f"127.0.0.1:{silent.getsockname()[1]}", password=TOKEN, extra={"timeout": 0.3})
            good, message = LumaHook().test_connection()
        assert not good
        assert "gave no answer in time" in message

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, b"<html>Not Found</html>"),
            (404, b'{"detail": "Not Found"}'),
            (404, b'{"code": 404, "message": "no such route"}'),
            (200, b"<html>Welcome</html>"),
            (200, b"{}"),
        ],
    )
    def test_a_host_that_is_no_gateway_is_named_as_the_problem(self, status, body, connect):
        class Other(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            connect(host=f"127.0.0.1:{server.server_port}", password=TOKEN)
            good, message = LumaHook().test_connection()
            server.shutdown()
        assert not good
        assert "Luma gateway" in message

    def test_a_missing_connection_is_returned_not_raised(self):
        good, message = LumaHook("nowhere").test_connection()
        assert not good
        assert "There is no connection 'nowhere'" in message

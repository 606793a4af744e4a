"""The hook: an Airflow connection becomes a client, and its answers become results."""

from __future__ import annotations

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
    LumaError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
    LumaServerError,
    waiting,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.sandbox import Sandbox
from tests.support.raw_answers import error_answer, far_end, json_answer
from tests.support.samples import PROMPT, TOKEN


class TestConnection:
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
    def test_accepts_usual_forms(self, form, connect, sandbox):
        """A host works with and without scheme, slash and port."""
        connect(password=TOKEN, **form(sandbox.url))
        assert LumaHook().submit(PROMPT).id

    def test_accepts_a_uri(self, monkeypatch, sandbox):
        """A connection can be a URI; its query has the extras."""
        host = sandbox.url.removeprefix("http://")
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_DEFAULT", f"luma://:{TOKEN}@{host}/?timeout=7&verify=false")
        client = LumaHook().get_conn()
        assert (client.timeout, client.verify) == (7.0, False)
        assert client.submit(PROMPT).id

    def test_token_alone_suffices(self, connect):
        """A connection with only a token uses the default API, and checks its certificate."""
        connect(password=TOKEN)
        client = LumaHook().get_conn()
        assert (client.url, client.timeout, client.verify) == ("https://www.kkiai.com", 30.0, True)

    def test_is_looked_up_once(self, connection, monkeypatch):
        """A hook looks up its connection once."""
        hook = LumaHook()
        client = hook.get_conn()
        monkeypatch.delenv("AIRFLOW_CONN_LUMA_DEFAULT")
        assert hook.get_conn() is client

    def test_names_missing_connection(self):
        """The error for a missing connection has the command that creates it."""
        with pytest.raises(AirflowNotFoundException, match="airflow connections add nowhere --conn-type luma"):
            LumaHook("nowhere").get_conn()

    @pytest.mark.parametrize("password", [None, "", "  "])
    def test_names_missing_token(self, password, connect):
        """The error for a missing token names the connection and the field."""
        connect(password=password)
        message = "'luma_default': there is no API token: put the token into the password"
        with pytest.raises(LumaAuthenticationError, match=message):
            LumaHook().get_conn()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"host": "https://user:pass@example.com"}, "must look like"),
            ({"host": "https://:secret@[example.com"}, "must look like"),
            ({"schema": "ftp"}, "http or https"),
            ({"extra": {"timeout": "soon"}}, "'timeout' must be a number of seconds"),
            ({"extra": {"timeout": 0}}, "'timeout' must be a number of seconds"),
            ({"extra": {"timeout": 3600}}, "'timeout' must be a number of seconds"),
            ({"extra": {"verify": 3}}, "'verify' must be true, false or the path of a CA bundle"),
            ({"extra": {"verify": "/no/such/file"}}, "'verify' must be true, false or the path of a CA bundle"),
            ({"extra": {"api": "dream_machine"}}, "'api' must be gateway or agents"),
        ],
    )
    def test_names_wrong_field(self, fields, message, connect):
        """The error for a wrong field names the connection and the field."""
        connect(password=TOKEN, **fields)
        with pytest.raises(LumaInvalidRequest, match=f"'luma_default'.*{message}"):
            LumaHook().get_conn()

    @pytest.mark.parametrize(
        ("verify", "means"), [("false", False), (" True ", True), (False, False), ("", True), (__file__, __file__)]
    )
    def test_reads_extra_verify(self, verify, means, connect):
        """The extra verify is a boolean, a word for it, or the path of an existing CA bundle."""
        connect(password=TOKEN, extra={"timeout": "12.5", "verify": verify})
        client = LumaHook().get_conn()
        assert (client.timeout, client.verify) == (12.5, means)

    @pytest.mark.parametrize(("host", "warned"), [("http://gateway.example.com", 1), ("http://localhost:1", 0)])
    def test_warns_of_unencrypted_token(self, host, warned, connect, logged):
        """A token that is sent unencrypted to another machine is warned about."""
        connect(password=TOKEN, host=host)
        LumaHook().get_conn()
        assert logged("sends its token to http://gateway.example.com unencrypted: use https") == warned


class TestCalls:
    def test_extends_a_generation(self, connection, sandbox):
        """An extension has its own id, and the first generation as its parent."""
        hook = LumaHook()
        first = hook.submit(PROMPT, model_name="ray-v2")
        second = hook.extend(first.id, "It sinks")
        assert sandbox.report()["generations"][-1]["id"] == second.id
        assert sandbox.report()["generations"][-1]["parent"] == first.id

    @pytest.mark.parametrize(("settings", "polls"), [({}, 1), ({"batch_shape": "none"}, 3), ({"batch_limit": 2}, 3)])
    def test_polls_many_together(self, settings, polls, connection, sandbox):
        """Many generations are polled together if the API can do that, else each alone; unknown ids are left out."""
        sandbox.change(**settings)
        ids = [sandbox.add_generation() for _ in range(3)]
        assert set(LumaHook().get_generations([*ids, ids[0], "unknown"])) == set(ids)
        sent = sandbox.requests[0].body["ids"]
        assert sorted(sent) == sorted([*ids, "unknown"])
        # The unknown id is always polled alone, too.
        assert len(sandbox.requests) == 1 + (polls if settings else 0) + 1

    def test_polls_left_out_id(self, connect):
        """A generation that a batch query leaves out is polled alone."""
        answers = json_answer(b'[{"id": "one", "state": "pending"}]'), json_answer(b'{"id": "two", "state": "failed"}')
        with far_end(*answers) as (url, asked):
            connect(host=url, password=TOKEN)
            found = LumaHook().get_generations(["one", "two"])
        assert {key: one.state for key, one in found.items()} == {"one": "pending", "two": "failed"}
        assert len(asked) == 2

    def test_proxy_hides_no_generation(self, connect, no_retries):
        """A proxy's 404 is an error; the generations do not count as unknown."""
        page = error_answer(404, b"<html></html>")
        with far_end(page, page) as (url, _):
            connect(host=url, password=TOKEN)
            with pytest.raises(LumaServerError, match="Is the host a Luma gateway"):
                LumaHook().get_generations(["one"])

    def test_polls_once_on_request(self, connect):
        """With repeat=False, a poll that fails is not repeated."""
        with far_end(error_answer(500)) as (url, asked):
            connect(host=url, password=TOKEN)
            with pytest.raises(LumaServerError):
                LumaHook().get_generation("x", repeat=False)
        assert len(asked) == 1


class TestDownload:
    def test_asks_for_url(self, connection, sandbox, tmp_path):
        """A download gets the URL of the file from the API."""
        generation_id = sandbox.add_generation(seconds=0)
        found = LumaHook().download(generation_id, "thumbnail")
        assert found.url == f"{sandbox.url}/cdn/{generation_id}/thumbnail.jpg"
        assert found.api_url == sandbox.url

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"state": "failed"}, LumaGenerationFailed, "failed: Job failed"),
            ({"state": "processing"}, LumaError, "is processing and has no video to store"),
        ],
    )
    def test_needs_completed_generation(self, settings, error, message, connection, sandbox):
        """A generation that failed or is not completed has no file."""
        with pytest.raises(error, match=message):
            LumaHook().download(sandbox.add_generation(**settings))

    def test_url_needs_api(self, connection, sandbox, no_retries):
        """If the API cannot be asked for the URL, the download fails."""
        generation_id = sandbox.add_generation(seconds=0)
        sandbox.weather(down=True)
        with pytest.raises(LumaError):
            LumaHook().download(generation_id)


class TestWaiting:
    def test_waits_for_generation(self, connection, sandbox):
        """A wait polls until the generation is completed, also if its id is not known yet."""
        sandbox.change(seconds=0.4, visible_after=0.2)
        hook = LumaHook()
        assert hook.wait_for_generation(hook.submit(PROMPT).id, poll_interval=0.1).video_url

    def test_waits_for_failure(self, connection, sandbox):
        """A wait can be for a failure; else a failure ends it with its reason."""
        generation_id = sandbox.add_generation(f"{PROMPT} [fail]", seconds=0)
        hook = LumaHook()
        failed = hook.wait_for_generation(generation_id, target_state=["completed", "failed"])
        assert failed.failure_reason == "Job failed"
        with pytest.raises(LumaGenerationFailed, match="Job failed"):
            hook.wait_for_generation(generation_id)

    def test_invalid_connection_ends_wait(self, connect, slept):
        """An invalid connection ends a wait before any pause."""
        connect(host="https://user:password@gateway.example.com", password=TOKEN)
        with pytest.raises(LumaInvalidRequest, match="luma_default"):
            LumaHook().wait_for_generation("x")
        assert slept == []

    @pytest.mark.parametrize(
        ("grace", "password", "error"),
        [("UNKNOWN_ID_GRACE", TOKEN, LumaNotFound), ("REFUSED_TOKEN_GRACE", "wrong", LumaAuthenticationError)],
    )
    def test_lasting_trouble_ends_wait(self, grace, password, error, connect, sandbox, monkeypatch):
        """An id that stays unknown, and a token that stays refused, end a wait after some polls."""
        connect(host=sandbox.url, password=password)
        monkeypatch.setattr(waiting, grace, 0.3)
        with pytest.raises(error):
            LumaHook().wait_for_generation("unknown", poll_interval=0.1)
        assert len(sandbox.requests) > 1

    def test_pauses_longer_in_trouble(self, connect, slept):
        """A wait pauses longer after failed polls, and at least for the API's Retry-After."""
        answers = [
            error_answer(429, extra=b"Retry-After: 90\r\n"),
            error_answer(500),
            json_answer(b'{"id": "x", "state": "pending"}'),
            json_answer(b'{"id": "x", "state": "completed", "video": {"url": "https://cdn.example.com/x"}}'),
        ]
        with far_end(*answers) as (url, _):
            connect(host=url, password=TOKEN)
            assert LumaHook().wait_for_generation("x", poll_interval=5).id == "x"
        asked, doubled, usual = slept
        assert 90 <= asked <= 112.5
        assert 20 <= doubled <= 25
        assert usual == 5

    def test_ignores_passing_trouble(self, connection, sandbox):
        """Errors of the API and lost connections do not end a wait."""
        hook = LumaHook()
        generation = hook.submit(PROMPT)
        sandbox.weather(status={"500": 0.3, "drop": 0.3, "html": 0.2}, seed=1)
        assert hook.wait_for_generation(generation.id, poll_interval=0.05).video_url


class TestConnectionForm:
    def test_old_form_has_same_fields(self, monkeypatch):
        """Airflow before 3.2 gets the form's fields from the hook; WTForms, which it includes, is replaced here."""

        def field(label, validators, **rest):
            return label, rest["default"]

        fields = SimpleNamespace(IntegerField=field, BooleanField=field, StringField=field)
        monkeypatch.setitem(sys.modules, "wtforms", fields)
        monkeypatch.setitem(sys.modules, "wtforms.validators", SimpleNamespace(Optional=object))
        assert LumaHook.get_connection_form_widgets() == {
            "api": ("API", None),
            "timeout": ("Timeout (seconds)", 30),
            "verify": ("Verify TLS", True),
        }
        behaviour = LumaHook.get_ui_field_behaviour()
        assert behaviour["relabeling"] == {"host": "Host", "password": "API token"}
        assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}


class Proxy(BaseHTTPRequestHandler):
    """A server that speaks TLS and forwards each request to a sandbox."""

    def do_GET(self):
        answer = requests.get(self.server.sandbox + self.path, headers=dict(self.headers), timeout=10)
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_):
        """Log nothing."""


def problem():
    """Press the test button, and return the sentence about the problem."""
    works, message = LumaHook().test_connection()
    assert not works
    return message


class TestTestButton:
    """The test button of the connection form."""

    def test_good_connection_passes(self, connection, sandbox):
        """A good connection passes, free of charge."""
        assert LumaHook().test_connection() == (True, f"{sandbox.url} is a Luma gateway and accepts the token.")
        assert sandbox.report()["charged"] == 0

    def test_names_bad_token(self, connect, sandbox):
        """A refused token is the problem; the sentence does not contain it."""
        connect(host=sandbox.url, password="wrong")
        message = problem()
        assert "HTTP 401" in message
        assert "Check the token" in message
        assert "wrong" not in message

    @pytest.mark.parametrize(
        ("host", "message"),
        [
            ("http://127.0.0.1:1", "refuses connections"),
            ("http://127.0.0.1:1", "check host and port, and that it runs"),
            ("https://luma.invalid", "the host name in https://luma.invalid does not resolve; check the host, and DNS"),
        ],
    )
    def test_names_unreachable_host(self, connect, host, message):
        """The problem of an unreachable host is a sentence with advice."""
        connect(host=host, password=TOKEN)
        found = problem()
        assert message in found
        assert found.count(". ") == 0

    def test_names_failing_proxy(self, connect, monkeypatch):
        """A failing proxy is the problem."""
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        connect(host="https://luma.example.com", password=TOKEN)
        message = problem()
        assert "the proxy on the way to https://luma.example.com fails" in message
        assert "check HTTPS_PROXY" in message

    def test_names_untrusted_certificate(self, connect, tmp_path):
        """An untrusted certificate is the problem; the extra verify with its CA makes it trusted."""
        authority, bundle = trustme.CA(), tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(bundle)
        with Sandbox(token=TOKEN) as sandbox, ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
            server.sandbox = sandbox.url
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever).start()
            host = f"https://localhost:{server.server_port}"
            connect(host=host, password=TOKEN)
            refused = problem()
            connect(host=host.replace("https", "http"), password=TOKEN)
            problem()
            connect(host=host, password=TOKEN, extra={"verify": str(bundle)})
            trusted = LumaHook().test_connection()
            server.shutdown()
        assert f"the certificate of {host} is not trusted" in refused
        assert "set the connection's extra 'verify'" in refused
        assert trusted == (True, f"{host} is a Luma gateway and accepts the token.")

    def test_https_to_plain_http(self, connect, sandbox):
        """If the host does not speak TLS, the problem suggests http://."""
        connect(host=sandbox.url.replace("http", "https"), password=TOKEN)
        assert "must begin with http://, not https://" in problem()

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (error_answer(429, b'{"code": "busy", "message": "later"}'), "HTTP 429, busy, later. Wait, or run fewer"),
            (error_answer(500, b'{"code": "broken", "message": "later"}'), "is in trouble: try again later"),
        ],
    )
    def test_api_in_trouble(self, answer, message, connect):
        """An API in trouble is not called a wrong host."""
        with far_end(answer) as (url, _):
            connect(host=url, password=TOKEN)
            assert message in problem()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {"extra": {"timeout": "soon"}},
                "the extra 'timeout' must be a number of seconds between 0 and 3600, got 'soon'.",
            ),
            ({"password": " "}, "there is no API token: put the token into the password (API token in the form)."),
        ],
    )
    def test_names_wrong_field(self, connect, fields, message):
        """A wrong field is the problem; the sentence does not name Airflow's temporary connection."""
        connect(**{"host": "https://luma.invalid", "password": TOKEN, **fields})
        assert problem() == message

    def test_token_with_space(self, connect):
        """A token with a space must be copied again."""
        connect(host="https://luma.invalid", password="two words")
        assert "copy it again" in problem()

    def test_names_silent_host(self, connect):
        """A host that does not answer is the problem."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            connect(host=f"127.0.0.1:{silent.getsockname()[1]}", password=TOKEN, extra={"timeout": 0.3})
            assert "gave no answer in time" in problem()

    @pytest.mark.parametrize(
        "answer",
        [
            error_answer(404, b"<html>Not Found</html>"),
            error_answer(404, b'{"detail": "Not Found"}'),
            error_answer(404, b'{"code": 404, "message": "no such route"}'),
            json_answer(b"<html>Welcome</html>"),
            json_answer(b"{}"),
        ],
    )
    def test_host_of_other_api(self, answer, connect):
        """If another server answers, the problem is the host, its path or the extra api."""
        with far_end(answer) as (url, _):
            connect(host=url, password=TOKEN)
            message = problem()
        assert "Is the host a Luma gateway, and does it have the right path?" in message
        assert message.endswith("For another API, set the connection's extra 'api'.")

    def test_names_missing_connection(self):
        """A missing connection is a problem, not an error."""
        works, message = LumaHook("nowhere").test_connection()
        assert not works
        assert "The connection 'nowhere' does not exist" in message

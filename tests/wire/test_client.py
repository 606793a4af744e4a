"""The client over HTTP: against the sandbox, and against far ends that answer worse than that."""

from __future__ import annotations

import dataclasses
import gzip
import logging
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import SimpleNamespace

import pytest
import requests

from airflow_provider_luma import __version__
from airflow_provider_luma.api import (
    GenerationState,
    LumaAmbiguousSubmission,
    LumaApiError,
    LumaAuthenticationError,
    LumaClient,
    LumaConnectionError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.arguments import EXTEND_ARGUMENTS
from airflow_provider_luma.api.dialects import gateway
from airflow_provider_luma.sandbox import Sandbox
from tests.support.dialects import VALUES
from tests.support.keep_alive import keep_alive_server
from tests.support.raw_answers import JSON_HEAD, error_answer, far_end, json_answer
from tests.support.samples import PROMPT, TOKEN

PENDING = b'{"id": "x", "state": "pending"}'
# The sandbox refuses a loop with an end frame, as the API does.
ARGUMENTS = {**VALUES, "loop": False}


class Slowly(list):
    """The parts of an answer, with a pause before each."""

    def __init__(self, seconds, *parts):
        super().__init__(parts)
        self.seconds = seconds

    def __iter__(self):
        for part in super().__iter__():
            time.sleep(self.seconds)
            yield part


class Listener:
    """Notes each call."""

    def __init__(self, seconds=0.0):
        self.told = []
        self.seconds = seconds

    def before_send(self, sent):
        time.sleep(self.seconds)
        self.told.append(sent)

    def rejected(self):
        self.told.append("rejected")


class TestCalls:
    @pytest.mark.parametrize("shape", ["flat", "envelope", "bare"])
    def test_submits_and_polls(self, shape):
        """A submission gives an id in every shape of answer, and the generation can be polled."""
        with Sandbox(seconds=0, submit_shape=shape) as sandbox:
            client = LumaClient(sandbox.url, TOKEN)
            generation = client.submit(**ARGUMENTS, extra_body={"seed": 7})
            assert client.get(generation.id).state is GenerationState.COMPLETED
            (known,) = sandbox.report()["generations"]
        assert known["id"] == generation.id
        assert known["body"] == {**ARGUMENTS, "seed": 7}

    def test_extension_has_a_parent(self, client, sandbox):
        """An extension is a new generation, with the first as its parent and every argument that it accepts."""
        arguments = {name: VALUES[name] for name in EXTEND_ARGUMENTS}
        first = client.submit(PROMPT)
        second = client.extend(first.id, **arguments, extra_body={"aspect_ratio": "16:9"})
        extension = sandbox.report()["generations"][-1]
        assert (extension["id"], extension["parent"]) == (second.id, first.id)
        assert second.id != first.id
        assert extension["body"] == {**arguments, "aspect_ratio": "16:9"}

    @pytest.mark.parametrize("shape", ["list", "envelope"])
    def test_polls_many_in_one(self, shape):
        """Many generations are polled in one request, without unknown ids; an empty list is not sent."""
        with Sandbox(seconds=0, batch_shape=shape) as sandbox:
            client = LumaClient(sandbox.url, TOKEN)
            ids = [client.submit(PROMPT).id for _ in range(3)]
            found = client.get_many([*ids, "unknown"])
            assert set(found) == set(ids)
            assert all(one.video_url for one in found.values())
            assert client.get_many([]) == {}
            assert sandbox.report()["batch_polls"] == 1

    def test_missing_batch_query_is_told(self):
        """A gateway without a batch query raises LumaNotFound."""
        with Sandbox(batch_shape="none") as sandbox, pytest.raises(LumaNotFound):
            LumaClient(sandbox.url, TOKEN).get_many(["x"])

    def test_large_batch_is_refused(self):
        """A batch over the gateway's limit is an invalid request."""
        with Sandbox(batch_limit=2) as sandbox, pytest.raises(LumaInvalidRequest):
            LumaClient(sandbox.url, TOKEN).get_many(["x", "y", "z"])

    def test_keeps_the_path_prefix(self):
        """A host keeps its path in front of the API's."""
        with Sandbox(seconds=0, prefix="/v1") as sandbox:
            client = LumaClient(f"{sandbox.url}/v1/", TOKEN)
            assert client.get(client.submit(PROMPT).id).video_url

    @pytest.mark.parametrize(
        ("api", "arguments"),
        [
            ("gateway", {"user_prompt": "ab"}),
            ("gateway", {"user_prompt": ""}),
            ("gateway", {"user_prompt": PROMPT, "loop": True, "image_end_url": VALUES["image_end_url"]}),
            ("agents", {"user_prompt": ""}),
            ("agents", {"user_prompt": PROMPT, "loop": True, "image_end_url": VALUES["image_end_url"]}),
            ("agents", {"user_prompt": PROMPT, "duration": "10s", "image_url": VALUES["image_url"]}),
        ],
    )
    def test_api_refuses_free_of_charge(self, api, arguments):
        """A request that the API refuses free of charge is sent once, refused in its words, and not charged."""
        with Sandbox(seconds=0) as sandbox:
            client = LumaClient(sandbox.url, "luma-api-1", api=api)
            listener = Listener()
            with pytest.raises(LumaInvalidRequest, match="HTTP 4") as caught:
                client.submit(**arguments, listener=listener)
            assert sandbox.report()["charged"] == 0
            assert len(sandbox.requests) == 1
        assert caught.value.status in (400, 422)
        assert listener.told[1:] == ["rejected"]


class TestSubmission:
    @pytest.mark.parametrize("word", ["[drop]", "[html]", "[500]"])
    def test_lost_answer_is_ambiguous(self, word, client, sandbox):
        """Without a readable answer a submission may be charged: it is not sent again, and not called rejected."""
        listener = Listener()
        with pytest.raises(LumaAmbiguousSubmission, match="so it may have been accepted and charged"):
            client.submit(f"{PROMPT} {word}", listener=listener)
        assert sandbox.report()["requests"] == 1
        assert listener.told == [{"api": client.api}]

    @pytest.mark.parametrize(
        "answer",
        [
            JSON_HEAD + b'Content-Length: 500\r\n\r\n{"id": "x", "sta',
            JSON_HEAD + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"id": "x", "sta\r\n',
            json_answer(b'{"code": "success", "data": null}'),
            json_answer(b'{"code": "success"}'),
            json_answer(b""),
        ],
        ids=["cut", "chunk", "no_data", "no_generation", "empty"],
    )
    def test_unreadable_answer_is_ambiguous(self, answer):
        """An answer that is cut or has no id makes a submission ambiguous."""
        with far_end(answer) as (url, requests):
            with pytest.raises(LumaAmbiguousSubmission):
                LumaClient(url, TOKEN).submit(PROMPT)
            assert len(requests) == 1

    def test_ambiguous_error_has_details(self):
        """The error of an ambiguous submission has the status, the code, and the request id for the API's support."""
        body = b'{"code": "busy", "message": "busy", "request_id": "r-1", "data": null}'
        with far_end(error_answer(503, body)) as (url, _), pytest.raises(LumaAmbiguousSubmission) as caught:
            LumaClient(url, TOKEN).submit(PROMPT)
        error = caught.value
        assert (error.status, error.code, error.request_id) == (503, "busy", "r-1")
        assert isinstance(error.__cause__, LumaServerError)

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (error_answer(500, b'{"detail": "the model is broken"}'), LumaServerError),
            (error_answer(403, b'{"code": "x", "message": "no"}'), LumaAuthenticationError),
            (error_answer(402, b'{"code": "x"}'), LumaApiError),
            (error_answer(302), LumaInvalidRequest),
        ],
    )
    def test_refusal_is_not_ambiguous(self, answer, kind):
        """A submission that was refused is neither ambiguous nor sent again, and the listener is told."""
        listener = Listener()
        with far_end(answer, answer) as (url, requests):
            with pytest.raises(kind):
                LumaClient(url, TOKEN).submit(PROMPT, listener=listener)
            assert len(requests) == 1
        assert listener.told[1:] == ["rejected"]

    def test_no_answer_in_time(self, sandbox):
        """A submission without an answer in time is ambiguous."""
        client = LumaClient(sandbox.url, TOKEN, timeout=0.3)
        with pytest.raises(LumaAmbiguousSubmission, match="gave no answer in time"):
            client.submit(f"{PROMPT} [hang]")
        assert sandbox.report()["charged"] == 1

    def test_repeats_after_429(self, client, sandbox):
        """A submission that was refused with 429 is sent again after the Retry-After, and told each time."""
        listener = Listener()
        began = time.monotonic()
        assert client.submit(f"{PROMPT} [429]", listener=listener).id
        assert time.monotonic() - began >= 2
        report = sandbox.report()
        assert (report["submitted"], report["refused"]) == (1, 2)
        sent = {"api": client.api}
        assert listener.told == [sent, "rejected", sent, "rejected", sent]

    def test_bug_in_reading_is_ambiguous(self, sandbox):
        """If reading the answer fails with a bug, the submission is ambiguous, too."""

        def submission(*arguments):
            return dataclasses.replace(gateway.submission(*arguments), read=lambda answer, call: answer["id"])

        client = LumaClient(sandbox.url, TOKEN)
        client.dialect = SimpleNamespace(**{**vars(gateway), "submission": submission})
        with pytest.raises(LumaAmbiguousSubmission, match="may have been accepted and charged"):
            client.submit(PROMPT)
        assert sandbox.report()["charged"] == 1

    def test_listener_may_prevent_it(self, client, sandbox):
        """An exception of the listener prevents the submission, and is not an ambiguous one."""

        class Full(Listener):
            def before_send(self, sent):
                raise OverflowError("no space")

        listener = Full()
        with pytest.raises(OverflowError, match="no space"):
            client.submit(PROMPT, listener=listener)
        assert sandbox.report()["submitted"] == 0
        assert listener.told == []

    def test_slow_listener_is_no_delay(self):
        """The time that the listener takes does not make a complete answer late."""
        with far_end(Slowly(0.6, json_answer(PENDING))) as (url, _):
            assert LumaClient(url, TOKEN, timeout=1).submit(PROMPT, listener=Listener(0.6)).id == "x"

    def test_needs_only_the_id(self):
        """A submission needs only the id of its answer."""
        with far_end(json_answer(b'{"id": "x", "state": 7, "created_at": "64:", "video": []}')) as (url, _):
            assert LumaClient(url, TOKEN).submit(PROMPT).id == "x"

    def test_repeats_until_connected(self):
        """A submission that was not sent is repeated until the API can be reached."""
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        client = LumaClient(f"127.0.0.1:{port}", TOKEN)
        with ThreadPoolExecutor() as pool:
            submission = pool.submit(client.submit, PROMPT)
            # Python 3.10 has another TimeoutError there.
            with pytest.raises(FutureTimeoutError):
                submission.result(timeout=0.5)
            with Sandbox(port=port) as sandbox:
                assert submission.result(timeout=30).id
                assert sandbox.report()["submitted"] == 1


class TestRepetition:
    @pytest.mark.parametrize(
        "failure",
        [error_answer(500), error_answer(429), error_answer(403), json_answer(b"<html></html>"), b""],
        ids=["500", "429", "403_page", "html", "drop"],
    )
    def test_poll_is_repeated(self, failure, caplog):
        """A poll is repeated until it is answered; with repeat=False it is sent once."""
        caplog.set_level(logging.INFO)
        with far_end(failure, json_answer(PENDING)) as (url, requests):
            assert LumaClient(url, TOKEN).get("x").id == "x"
            assert len(requests) == 2
        assert caplog.text.count("Trying again in 0.") == 1
        for call in (lambda client: client.get("x", repeat=False), lambda client: client.get_many(["x"], repeat=False)):
            with far_end(failure, json_answer(PENDING)) as (url, requests):
                with pytest.raises((LumaApiError, LumaConnectionError)):
                    call(LumaClient(url, TOKEN))
                assert len(requests) == 1

    def test_batch_query_is_repeated(self):
        """A batch query is repeated, although it is a POST."""
        answers = error_answer(503), error_answer(503), json_answer(b"[" + PENDING + b"]")
        with far_end(*answers) as (url, requests):
            assert set(LumaClient(url, TOKEN).get_many(["x"])) == {"x"}
            assert len(requests) == 3

    @pytest.fixture
    def pauses(self, monkeypatch):
        """The seconds between the tries of the client, whose clock they move; more than an hour of them fails."""
        pauses = []

        def sleep(seconds):
            pauses.append(seconds)
            assert sum(pauses) < 3600

        clock = SimpleNamespace(sleep=sleep, monotonic=lambda: sum(pauses))
        monkeypatch.setattr("airflow_provider_luma.api.client.time", clock)
        return pauses

    def test_pauses_grow_until_the_end(self, sandbox, pauses):
        """The pauses double up to 15 s; when retry_for is over, the last error is raised."""
        sandbox.weather(down=True)
        with pytest.raises(LumaConnectionError):
            LumaClient(sandbox.url, TOKEN, retry_for=60).get("x")
        assert sandbox.report()["requests"] == len(pauses) + 1
        assert 35 < sum(pauses) <= 60
        for pause, least in zip(pauses, [0.5, 1, 2, 4, 8, 15, 15, 15], strict=False):
            assert least <= pause <= 1.25 * least

    @pytest.mark.parametrize("call", ["get", "submit"])
    @pytest.mark.parametrize(("retry_after", "retry_for", "sent"), [(16, 600, 1), (15, 600, 2), (10, 9, 1)])
    def test_long_pause_is_left_to_callers(self, call, retry_after, retry_for, sent, pauses):
        """A pause of more than 15 s, or past retry_for, is left to the caller: a task can pause without its worker."""
        busy = error_answer(429, extra=b"Retry-After: %d\r\n" % retry_after)
        with far_end(busy, json_answer(PENDING)) as (url, requests):
            client = LumaClient(url, TOKEN, retry_for=retry_for)
            if sent == 2:
                assert getattr(client, call)("x").id == "x"
                assert len(pauses) == 1
                assert 15 <= pauses[0] <= 18.75
            else:
                with pytest.raises(LumaRateLimited) as caught:
                    getattr(client, call)(PROMPT)
                assert caught.value.retry_after == retry_after
                assert pauses == []
            assert len(requests) == sent

    @pytest.mark.parametrize(("prompt", "token"), [("[422]", TOKEN), (PROMPT, "wrong")])
    def test_refusal_is_not_repeated(self, prompt, token, sandbox):
        """A request that the API refuses for its content or its token is not sent again."""
        client = LumaClient(sandbox.url, token)
        with pytest.raises((LumaInvalidRequest, LumaAuthenticationError), match=r"Change the request|Check the token"):
            client.submit(f"{PROMPT} {prompt}")
        assert sandbox.report()["requests"] == 1

    def test_unknown_id_is_not_repeated(self, client, sandbox):
        """An unknown id is reported after one request."""
        with pytest.raises(LumaNotFound) as caught:
            client.get("unknown")
        assert (caught.value.code, caught.value.unknown_id) == ("task_not_exist", True)
        assert sandbox.report()["requests"] == 1


class TestConnectionTest:
    def test_asks_for_an_unknown_id(self, client, sandbox):
        """The test of a connection polls an id that no generation has, and spends nothing."""
        client.test()
        assert sandbox.report()["submitted"] == 0
        assert [request.method for request in sandbox.requests] == ["GET"]

    @pytest.mark.parametrize(
        "answer",
        [
            error_answer(404, b'{"detail": "Not Found"}'),
            error_answer(404, b"<html></html>"),
            error_answer(401, b'{"code": "x"}'),
            error_answer(500),
            b"",
        ],
        ids=["no_call", "page", "token", "trouble", "drop"],
    )
    def test_other_answers_are_errors(self, answer):
        """Only the API's own words for an unknown id show that the token works; the test is sent once."""
        with far_end(answer, answer) as (url, requests):
            with pytest.raises((LumaApiError, LumaConnectionError), match=r"^Testing the connection at 127"):
                LumaClient(url, TOKEN).test()
            assert len(requests) == 1


class TestNotConnected:
    @pytest.mark.parametrize(
        ("url", "message"), [("127.0.0.1:1", "refused|refuses"), ("no-such-host.invalid", "no-such-host")]
    )
    def test_nothing_was_charged(self, url, message):
        """A host that refuses connections or does not resolve is a connection error: nothing was charged."""
        listener = Listener()
        with pytest.raises(LumaConnectionError, match=message):
            LumaClient(url, TOKEN, retry_for=0).submit(PROMPT, listener=listener)
        assert listener.told == []

    def test_failed_handshake_sends_nothing(self, sandbox):
        """After a failed TLS handshake nothing was sent."""
        with pytest.raises(LumaConnectionError):
            LumaClient(sandbox.url.replace("http:", "https:"), TOKEN, retry_for=0).submit(PROMPT)
        assert sandbox.report()["requests"] == 0

    @pytest.mark.parametrize(("timeout", "limit"), [(0.5, (0.5, 0.5)), (30, (10, 30))])
    def test_connecting_takes_ten_seconds(self, timeout, limit, monkeypatch):
        """A request may take the timeout, and connecting at most ten seconds of it."""
        limits = []

        def silent(session, method, url, *, timeout, **_):
            limits.append(timeout)
            raise requests.ReadTimeout

        monkeypatch.setattr(requests.Session, "request", silent)
        client = LumaClient("127.0.0.1", TOKEN, timeout=timeout, retry_for=0)
        for call in (client.get, client.submit):
            with pytest.raises(LumaConnectionError):
                call(PROMPT)
        assert limits == [limit, limit]


class TestAnswer:
    def test_slow_answer_counts(self):
        """A complete answer counts although it was slow: the API has accepted the submission."""
        head = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(PENDING)
        with far_end(Slowly(0.9, head, PENDING[:7], PENDING[7:])) as (url, _):
            assert LumaClient(url, TOKEN, timeout=1.5).submit(PROMPT).id == "x"

    def test_compressed_answer_is_read(self):
        """A compressed answer is read."""
        answer = json_answer(gzip.compress(PENDING), b"Content-Encoding: gzip\r\n")
        with far_end(answer) as (url, _):
            assert LumaClient(url, TOKEN).get("x").id == "x"

    def test_huge_answer_is_refused(self):
        """An answer over 10 MiB is trouble of a server."""
        endless = [JSON_HEAD + b"Connection: close\r\n\r\n", *[b" " * 2**20] * 11]
        with far_end(endless) as (url, _), pytest.raises(LumaServerError, match="10 MiB"):
            LumaClient(url, TOKEN, retry_for=0).get("x")

    def test_dripping_answer_times_out(self):
        """An answer that drips is read for no longer than the timeout."""
        answer = Slowly(0.1, JSON_HEAD + b"Content-Length: 100\r\n\r\n", *[b" "] * 50)
        with far_end(answer) as (url, _), pytest.raises(LumaConnectionError, match=r"took longer than 0\.4 s"):
            LumaClient(url, TOKEN, timeout=0.4, retry_for=0).get("x")

    def test_redirect_is_not_followed(self):
        """A redirect is not followed, so the token is sent to no other host."""
        with far_end(b"") as (elsewhere, leaked):
            moved = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/x\r\nContent-Length: 0\r\n\r\n".encode()
            with far_end(moved) as (url, requests):
                with pytest.raises(LumaApiError, match="a redirect, which is not followed"):
                    LumaClient(url, TOKEN, retry_for=0).get("x")
                assert len(requests) == 1
            assert not leaked


class TestToken:
    @pytest.mark.parametrize("typed", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"  {TOKEN}\n"])
    def test_may_be_pasted(self, typed, sandbox):
        """A token may be pasted with Bearer before it, or with a line end."""
        assert LumaClient(sandbox.url, typed).submit(PROMPT).id

    @pytest.mark.parametrize("typed", ["", "  ", "Bearer ", "two words", "n\u00f6n-ascii", "line\nbreak"])
    def test_wrong_text_is_refused(self, typed, sandbox):
        """A text that cannot be a token is refused without repeating it."""
        with pytest.raises(LumaAuthenticationError, match="empty or contains invalid characters") as caught:
            LumaClient(sandbox.url, typed)
        assert not typed.strip() or typed not in str(caught.value)

    def test_is_never_shown(self, caplog):
        """A token that the API repeats is neither in the message nor in the log."""
        caplog.set_level(logging.DEBUG)
        body = f'{{"error": {{"message": "bad token {TOKEN}", "code": "invalid_token"}}}}'.encode()
        with far_end(error_answer(401, body)) as (url, _):
            client = LumaClient(url, TOKEN)
            with pytest.raises(LumaAuthenticationError, match=r"bad token \*\*\*") as caught:
                client.get("x")
        for text in (str(caught.value), repr(caught.value), repr(client), caplog.text):
            assert TOKEN not in text

    def test_short_one_changes_nothing(self):
        """A token as short as a word does not change the answer."""
        with far_end(json_answer(b'{"id": "pen-1", "state": "pending"}')) as (url, _):
            assert LumaClient(url, "pen").get("pen-1").state is GenerationState.PENDING

    @pytest.mark.parametrize("call", ["get", "submit"])
    def test_is_in_each_request(self, call, tmp_path, monkeypatch):
        """Each request has the token, whatever a .netrc file says, names its sender, and sends and accepts JSON."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        with far_end(json_answer(PENDING)) as (url, requests):
            getattr(LumaClient(url, TOKEN), call)("x")
        (request,) = requests
        assert f"\r\nAuthorization: Bearer {TOKEN}\r\n".encode() in request
        assert f"User-Agent: airflow-provider-luma/{__version__}".encode() in request
        assert b"Accept: application/json" in request
        assert b"Content-Type: application/json" in request
        assert b"X-Request-Id" not in request


class TestThreadsAndForks:
    def test_serves_many_threads(self, client):
        """One client can be used by many threads at the same time."""
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda _: client.submit(PROMPT).id, range(24)))
            states = list(pool.map(lambda one: client.get(one).state, ids))
        assert len(set(ids)) == 24
        assert set(states) == {GenerationState.COMPLETED}

    def test_submission_has_its_connection(self):
        """A submission opens a connection of its own, because an idle one may be dead; polls share one."""
        with keep_alive_server(PENDING) as (url, requests):
            client = LumaClient(url, TOKEN)
            for call in (client.get, client.submit, client.get, client.submit):
                call("x")
        first, *others = [port for method, port in requests if method == "GET"]
        submissions = [port for method, port in requests if method == "POST"]
        assert others == [first]
        assert len({first, *submissions}) == 3

    def test_threads_share_no_connection(self):
        """Two threads do not share a connection: a session of requests is not safe to share."""
        with keep_alive_server(PENDING) as (url, requests):
            client = LumaClient(url, TOKEN)
            client.get("x")
            with ThreadPoolExecutor(1) as other:
                other.submit(client.get, "x").result()
            client.get("x")
        first, of_other, later = [port for _, port in requests]
        assert of_other != first == later

    def test_fork_shares_no_connection(self):
        """A forked process and its parent do not share a connection."""
        with keep_alive_server(PENDING) as (url, requests):
            client = LumaClient(url, TOKEN)
            client.get("x")
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.write(writing, client.get("x").id.encode())
                finally:
                    os._exit(0)
            os.close(writing)
            os.waitpid(child, 0)
            with os.fdopen(reading, "rb") as answer:
                assert answer.read() == b"x"
            assert client.get("x").id == "x"
        parent, of_child, parent_later = [port for _, port in requests]
        assert of_child != parent == parent_later

"""The client over real HTTP: against the sandbox, and against servers that answer worse than that."""

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
from airflow_provider_luma.api.dialects import DIALECTS, gateway
from airflow_provider_luma.sandbox import Sandbox
from tests.support.keep_alive import keep_alive_server
from tests.support.raw_answers import JSON_HEAD, error_answer, far_end, json_answer
from tests.support.samples import PROMPT, TOKEN


class TestCalls:
    @pytest.mark.parametrize("shape", ["flat", "envelope", "bare"])
    def test_a_submission_gives_a_generation_id_in_every_shape_of_answer(self, shape):
        with Sandbox(seconds=0, submit_shape=shape) as sandbox:
            client = LumaClient(sandbox.url, TOKEN)
            generation = client.submit(PROMPT, model_name="ray-v2", duration="5s", extra_body={"aspect_ratio": "16:9"})
            assert client.get(generation.id).state is GenerationState.COMPLETED
            (known,) = sandbox.report()["generations"]
        assert known["id"] == generation.id
        assert known["body"] == {
            "user_prompt": PROMPT,
            "model_name": "ray-v2",
            "duration": "5s",
            "aspect_ratio": "16:9",
        }

    def test_an_extension_is_a_new_generation_with_the_first_as_parent(self, client, sandbox):
        first = client.submit(PROMPT)
        second = client.extend(first.id, "It sinks", extra_body={"aspect_ratio": "16:9"})
        assert second.id != first.id
        extension = sandbox.report()["generations"][-1]
        assert (extension["id"], extension["parent"]) == (second.id, first.id)
        assert extension["body"] == {"user_prompt": "It sinks", "aspect_ratio": "16:9"}

    def test_every_argument_of_a_submission_is_sent(self, client, sandbox):
        arguments = {
            "user_prompt": PROMPT,
            "model_name": "ray-v2",
            "duration": "5s",
            "resolution": "720p",
            "expand_prompt": True,
            "loop": False,
            "image_url": "https://example.com/first.png",
            "image_end_url": "https://example.com/last.png",
            "notify_hook": "https://example.com/hook",
        }
        client.submit(**arguments, extra_body={"seed": 7})
        assert sandbox.report()["generations"][0]["body"] == {**arguments, "seed": 7}

    def test_every_argument_of_an_extension_is_sent(self, client, sandbox):
        arguments = {
            "user_prompt": PROMPT,
            "expand_prompt": False,
            "image_url": "https://example.com/first.png",
            "image_end_url": "https://example.com/last.png",
            "notify_hook": "https://example.com/hook",
        }
        client.extend(client.submit(PROMPT).id, **arguments)
        assert sandbox.report()["generations"][1]["body"] == arguments

    @pytest.mark.parametrize("shape", ["list", "envelope"])
    def test_many_are_polled_in_one_request_that_leaves_out_unknown_ids(self, shape):
        with Sandbox(seconds=0, batch_shape=shape) as sandbox:
            client = LumaClient(sandbox.url, TOKEN)
            ids = [client.submit(PROMPT).id for _ in range(3)]
            found = client.get_many([*ids, "unknown"])
            assert set(found) == set(ids)
            assert all(one.video_url for one in found.values())
            assert client.get_many([]) == {}
            assert sandbox.report()["batch_polls"] == 1

    def test_a_gateway_without_a_batch_query_says_not_found(self):
        with Sandbox(batch_shape="none") as sandbox, pytest.raises(LumaNotFound):
            LumaClient(sandbox.url, TOKEN).get_many(["x"])

    def test_a_batch_over_the_gateways_limit_is_an_invalid_request(self):
        with Sandbox(batch_limit=2) as sandbox, pytest.raises(LumaInvalidRequest):
            LumaClient(sandbox.url, TOKEN).get_many(["x", "y", "z"])

    def test_a_host_keeps_its_path_prefix(self):
        with Sandbox(seconds=0, prefix="/v1") as sandbox:
            client = LumaClient(f"{sandbox.url}/v1/", TOKEN)
            assert client.get(client.submit(PROMPT).id).video_url


class TestGatewayInTrouble:
    @pytest.mark.parametrize("word", ["[drop]", "[html]", "[500]"])
    def test_a_submission_without_a_readable_answer_is_ambiguous_and_not_sent_again(self, word, client, sandbox):
        with pytest.raises(LumaAmbiguousSubmission, match="may have been accepted and charged"):
            client.submit(f"{PROMPT} {word}")
        assert sandbox.report()["requests"] == 1

    def test_an_ambiguous_submission_has_status_code_and_request_id_for_the_gateways_support(self):
        body = b'{"code": "busy", "message": "busy", "request_id": "r-1", "data": null}'
        with far_end(error_answer(503, body)) as (url, _), pytest.raises(LumaAmbiguousSubmission) as caught:
            LumaClient(url, TOKEN).submit(PROMPT)
        error = caught.value
        assert (error.status, error.code, error.request_id) == (503, "busy", "r-1")

    def test_a_submission_that_the_gateway_itself_refused_with_500_is_neither_ambiguous_nor_sent_again(self):
        refused = error_answer(500, b'{"detail": "the model is broken"}')
        with far_end(refused, refused) as (url, requests):
            with pytest.raises(LumaServerError, match="the model is broken"):
                LumaClient(url, TOKEN).submit(PROMPT)
            assert len(requests) == 1

    def test_a_submission_without_an_answer_in_time_is_ambiguous(self, sandbox):
        client = LumaClient(sandbox.url, TOKEN, timeout=0.3)
        with pytest.raises(LumaAmbiguousSubmission, match="gave no answer in time"):
            client.submit(f"{PROMPT} [hang]")
        assert sandbox.report()["charged"] == 1

    def test_a_submission_refused_with_429_is_sent_again_after_retry_after(self, client, sandbox):
        began = time.monotonic()
        assert client.submit(f"{PROMPT} [429]").id
        assert time.monotonic() - began >= 2
        report = sandbox.report()
        assert (report["submitted"], report["refused"]) == (1, 2)

    def test_a_submission_with_a_retry_after_past_retry_for_is_not_sent_again(self, sandbox):
        with pytest.raises(LumaRateLimited) as caught:
            LumaClient(sandbox.url, TOKEN).submit(f"{PROMPT} [429:90]")
        assert caught.value.retry_after == 90
        assert sandbox.report()["submitted"] == 0

    def test_a_moderated_generation_is_polled_like_another_and_has_its_reason(self, client):
        generation = client.get(client.submit(f"{PROMPT} [moderated]").id)
        assert generation.state is GenerationState.FAILED
        assert "moderation" in generation.failure_reason

    @pytest.mark.parametrize(
        "failure",
        [error_answer(500), error_answer(429), json_answer(b"<html></html>"), b""],
        ids=["500", "429", "html", "drop"],
    )
    def test_a_poll_is_repeated_until_it_is_answered(self, failure, caplog):
        caplog.set_level(logging.INFO)
        with far_end(failure, json_answer(b'{"id": "x", "state": "pending"}')) as (url, requests):
            assert LumaClient(url, TOKEN).get("x").id == "x"
            assert len(requests) == 2
        assert caplog.text.count("Trying again in 0.") == 1

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

    def test_a_poll_is_repeated_less_and_less_often_and_raises_its_last_error_when_retry_for_is_over(
        self, sandbox, pauses
    ):
        sandbox.weather(down=True)
        with pytest.raises(LumaConnectionError):
            LumaClient(sandbox.url, TOKEN, retry_for=60).get("x")
        assert sandbox.report()["requests"] == len(pauses) + 1
        assert 35 < sum(pauses) <= 60
        for pause, least in zip(pauses, [0.5, 1, 2, 4, 8, 15, 15, 15], strict=False):
            assert least <= pause <= 1.25 * least

    @pytest.mark.parametrize("call", ["get", "submit"])
    def test_a_retry_after_of_more_than_a_quarter_of_a_minute_is_left_to_the_caller(self, call, pauses):
        """A task can wait that long without its worker."""
        with far_end(error_answer(429, extra=b"Retry-After: 16\r\n")) as (url, _):
            with pytest.raises(LumaRateLimited) as caught:
                getattr(LumaClient(url, TOKEN, retry_for=600), call)(PROMPT)
            assert caught.value.retry_after == 16
        assert pauses == []

    @pytest.fixture
    def limits(self, monkeypatch):
        """The seconds that each request may take, to connect and for each read; none is answered."""
        limits = []

        def silent(session, method, url, *, timeout, **_):
            limits.append(timeout)
            raise requests.ReadTimeout

        monkeypatch.setattr(requests.Session, "request", silent)
        return limits

    @pytest.mark.parametrize(("timeout", "limit"), [(0.5, (0.5, 0.5)), (30, (10, 30))])
    def test_a_request_may_take_the_timeout_and_connecting_no_more_than_ten_seconds_of_it(self, timeout, limit, limits):
        client = LumaClient("127.0.0.1", TOKEN, timeout=timeout, retry_for=0)
        for call in (client.get, client.submit):
            with pytest.raises(LumaConnectionError):
                call(PROMPT)
        assert limits == [limit, limit]

    def test_a_batch_query_is_repeated_though_it_is_a_post(self):
        answers = error_answer(503), error_answer(503), json_answer(b'[{"id": "x", "state": "pending"}]')
        with far_end(*answers) as (url, requests):
            assert set(LumaClient(url, TOKEN).get_many(["x"])) == {"x"}
            assert len(requests) == 3

    def test_an_unknown_id_is_not_found_at_once(self, client):
        with pytest.raises(LumaNotFound) as caught:
            client.get("unknown")
        assert caught.value.code == "task_not_exist"

    def test_a_request_that_the_gateway_rejects_is_not_sent_again(self, client, sandbox):
        with pytest.raises(LumaInvalidRequest):
            client.submit(PROMPT, image_url="nonsense")
        assert sandbox.report()["requests"] == 1


class TestNotConnected:
    def test_a_refused_connection_is_a_connection_error_so_nothing_was_charged(self):
        with pytest.raises(LumaConnectionError, match="refused"):
            LumaClient("127.0.0.1:1", TOKEN, retry_for=0).submit(PROMPT)

    def test_a_host_name_that_does_not_resolve_is_a_connection_error(self):
        with pytest.raises(LumaConnectionError, match="no-such-host"):
            LumaClient("no-such-host.invalid", TOKEN, retry_for=0).submit(PROMPT)

    def test_a_failed_tls_handshake_is_a_connection_error(self, sandbox):
        with pytest.raises(LumaConnectionError):
            LumaClient(sandbox.url.replace("http:", "https:"), TOKEN, retry_for=0).submit(PROMPT)
        assert sandbox.report()["requests"] == 0

    def test_a_submission_that_was_not_sent_is_tried_again_until_the_gateway_is_back(self):
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


class TestAnswers:
    def test_an_answer_cut_in_the_body_makes_a_submission_ambiguous(self):
        answer = JSON_HEAD + b'Content-Length: 500\r\n\r\n{"id": "x", "sta'
        with far_end(answer) as (url, requests):
            with pytest.raises(LumaAmbiguousSubmission):
                LumaClient(url, TOKEN).submit(PROMPT)
            assert len(requests) == 1

    def test_an_answer_cut_between_chunks_makes_a_submission_ambiguous(self):
        answer = JSON_HEAD + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"id": "x", "sta\r\n'
        with far_end(answer) as (url, _), pytest.raises(LumaAmbiguousSubmission):
            LumaClient(url, TOKEN).submit(PROMPT)

    def test_an_answer_without_an_id_makes_a_submission_ambiguous(self):
        answer = json_answer(b'{"code": "success", "data": null}')
        with far_end(answer) as (url, _), pytest.raises(LumaAmbiguousSubmission):
            LumaClient(url, TOKEN).submit(PROMPT)

    def test_a_bug_in_reading_the_answer_makes_a_submission_ambiguous(self, monkeypatch, sandbox):
        def submission(*arguments):
            return dataclasses.replace(gateway.submission(*arguments), read=lambda answer, call: answer["id"])

        broken = SimpleNamespace(**{**vars(gateway), "submission": submission})
        monkeypatch.setitem(DIALECTS, "broken", broken)
        with pytest.raises(LumaAmbiguousSubmission, match="may have been accepted and charged"):
            LumaClient(sandbox.url, TOKEN, dialect="broken").submit(PROMPT)
        assert sandbox.report()["charged"] == 1

    def test_a_slow_listener_does_not_make_a_complete_answer_late(self):
        class Slow:
            def before_send(self, sent):
                time.sleep(0.6)

            def rejected(self):
                pass

        class Late(list):
            def __iter__(self):
                time.sleep(0.6)
                yield json_answer(b'{"id": "x", "state": "pending"}')

        with far_end(Late()) as (url, _):
            assert LumaClient(url, TOKEN, timeout=1).submit(PROMPT, listener=Slow()).id == "x"

    def test_a_submission_needs_only_the_id_of_its_answer(self):
        with far_end(json_answer(b'{"id": "x", "state": 7, "created_at": "64:", "video": []}')) as (url, _):
            assert LumaClient(url, TOKEN).submit(PROMPT).id == "x"

    def test_an_answer_that_is_whole_counts_though_it_came_slowly(self):
        """To call it lost would leave a submission in doubt that the gateway has accepted."""
        parts = b'{"id": ', b'"x", ', b'"state": "pending"}'

        class Slow(list):
            def __iter__(self):
                yield JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(b"".join(parts))
                for part in parts:
                    yield part
                    time.sleep(1.2)

        with far_end(Slow()) as (url, _):
            assert LumaClient(url, TOKEN, timeout=2).submit(PROMPT).id == "x"

    def test_a_compressed_answer_is_read(self):
        body = gzip.compress(b'{"id": "x", "state": "pending"}')
        with far_end(json_answer(body, b"Content-Encoding: gzip\r\n")) as (url, _):
            assert LumaClient(url, TOKEN).get("x").id == "x"

    def test_an_answer_over_10_mib_is_refused(self):
        endless = [JSON_HEAD + b"Connection: close\r\n\r\n", *[b" " * 2**20] * 11]
        with far_end(endless) as (url, _), pytest.raises(LumaServerError, match="10 MiB"):
            LumaClient(url, TOKEN, retry_for=0).get("x")

    def test_an_answer_that_drips_is_read_for_no_longer_than_the_timeout(self):
        head = JSON_HEAD + b"Content-Length: 100\r\n\r\n"

        class Drip(list):
            def __iter__(self):
                yield head
                for _ in range(50):
                    time.sleep(0.1)
                    yield b" "

        with far_end(Drip()) as (url, _), pytest.raises(LumaConnectionError, match="took too long"):
            LumaClient(url, TOKEN, timeout=0.4, retry_for=0).get("x")

    def test_a_redirect_is_not_followed_so_the_token_goes_nowhere_else(self):
        with far_end(b"") as (elsewhere, leaked):
            moved = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/x\r\nContent-Length: 0\r\n\r\n".encode()
            with far_end(moved) as (url, requests):
                with pytest.raises(LumaApiError, match="a redirect, which is not followed"):
                    LumaClient(url, TOKEN, retry_for=0).get("x")
                assert len(requests) == 1
            assert not leaked

    def test_a_token_that_the_gateway_repeats_reaches_neither_message_nor_log(self, caplog):
        caplog.set_level(logging.DEBUG)
        body = f'{{"error": {{"message": "bad token {TOKEN}", "code": "invalid_token"}}}}'.encode()
        answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with far_end(answer) as (url, requests):
            client = LumaClient(url, TOKEN)
            with pytest.raises(LumaAuthenticationError) as caught:
                client.get("x")
        assert f"Authorization: Bearer {TOKEN}".encode() in requests[0]
        for text in (str(caught.value), repr(caught.value), repr(client), caplog.text):
            assert TOKEN not in text

    def test_a_token_as_short_as_a_word_does_not_change_the_answer(self):
        with far_end(json_answer(b'{"id": "pen-1", "state": "pending"}')) as (url, _):
            assert LumaClient(url, "pen").get("pen-1").state is GenerationState.PENDING

    @pytest.mark.parametrize("call", ["get", "submit"])
    def test_a_request_names_its_sender_and_that_it_is_and_accepts_json(self, call):
        body = b'{"id": "x", "state": "pending"}'
        with far_end(json_answer(body)) as (url, requests):
            getattr(LumaClient(url, TOKEN), call)(PROMPT)
        (request,) = requests
        assert f"User-Agent: airflow-provider-luma/{__version__}".encode() in request
        assert b"Accept: application/json" in request
        assert b"Content-Type: application/json" in request

    def test_a_netrc_entry_does_not_replace_the_token(self, tmp_path, monkeypatch):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        with far_end(json_answer(b'{"id": "x", "state": "pending"}')) as (url, requests):
            LumaClient(url, TOKEN).get("x")
        assert f"Authorization: Bearer {TOKEN}".encode() in requests[0]


class TestToken:
    @pytest.mark.parametrize("typed", [f"Bearer {TOKEN}", f"  {TOKEN}\n"])
    def test_a_token_may_be_pasted_with_bearer_or_a_line_end(self, typed, sandbox):
        assert LumaClient(sandbox.url, typed).submit(PROMPT).id

    @pytest.mark.parametrize("typed", ["", "  ", "Bearer ", "two words", "n\u00f6n-ascii", "line\nbreak"])
    def test_what_cannot_be_a_token_is_refused_without_repeating_it(self, typed, sandbox):
        with pytest.raises(LumaAuthenticationError) as caught:
            LumaClient(sandbox.url, typed)
        assert not typed.strip() or typed not in str(caught.value)

    def test_a_wrong_token_is_refused_and_not_tried_again(self, sandbox):
        with pytest.raises(LumaAuthenticationError, match="Check the token"):
            LumaClient(sandbox.url, "wrong").submit(PROMPT)
        assert sandbox.report()["requests"] == 1


class TestThreadsAndForks:
    def test_one_client_serves_many_threads(self, client, sandbox):
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda _: client.submit(PROMPT).id, range(24)))
            states = list(pool.map(lambda one: client.get(one).state, ids))
        assert len(set(ids)) == 24
        assert set(states) == {GenerationState.COMPLETED}

    def test_each_submission_opens_a_connection_of_its_own_and_polls_share_one(self):
        """A connection that was idle may be dead, and then it is unknown whether the submission was accepted."""
        with keep_alive_server(b'{"id": "x", "state": "pending"}') as (url, requests):
            client = LumaClient(url, TOKEN)
            for call in (client.get, client.submit, client.get, client.submit):
                call("A boat")
        first, *others = [port for method, port in requests if method == "GET"]
        submissions = [port for method, port in requests if method == "POST"]
        assert others == [first]
        assert len({first, *submissions}) == 3

    def test_two_threads_do_not_share_a_connection(self):
        """A session of `requests` is not safe to share, though it mostly goes well."""
        with keep_alive_server(b'{"id": "x", "state": "pending"}') as (url, requests):
            client = LumaClient(url, TOKEN)
            client.get("x")
            with ThreadPoolExecutor(1) as other:
                other.submit(client.get, "x").result()
            client.get("x")
        first, of_other, later = [port for _, port in requests]
        assert of_other != first == later

    def test_a_forked_child_and_its_parent_do_not_share_a_connection(self):
        with keep_alive_server(b'{"id": "x", "state": "pending"}') as (url, requests):
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

"""The client over real HTTP: against the sandbox, and against far ends worse than that."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress

import pytest

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
from airflow_provider_luma.sandbox import Sandbox

TOKEN = "marked-token-4711"
PROMPT = "A paper boat crosses a puddle"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def far_end(*answers, then_close=True):
    """Listen for connections and answer each in turn with raw bytes; yield the address and the requests received."""
    requests: list[bytes] = []
    stopping = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in answers:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                received = connection.recv(65536)
                if stopping.is_set():
                    return
                while b"\r\n\r\n" not in received or (received.startswith(b"POST") and received.endswith(b"\r\n\r\n")):
                    received += connection.recv(65536)
                requests.append(received)
                for part in answer if isinstance(answer, list) else [answer]:
                    connection.sendall(part)
                if not then_close:
                    stopping.wait(30)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        stopping.set()
        with socket.socket() as waker:
            waker.connect_ex(listener.getsockname())
        thread.join(5)
        listener.close()


def json_answer(body: bytes, extra: bytes = b"") -> bytes:
    return JSON_HEAD + extra + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


class TestShapes:
    @pytest.mark.parametrize("shape", ["flat", "envelope", "bare"])
    def test_submit(self, shape):
        """A submission gives a task id, whichever way the gateway says it."""
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

    def test_extend(self, client, sandbox):
        """An extension is a new generation that has the first for parent."""
        first = client.submit(PROMPT)
        second = client.extend(first.id, "It sinks")
        assert second.id != first.id
        assert sandbox.report()["generations"][-1]["parent"] == first.id

    @pytest.mark.parametrize("shape", ["list", "envelope"])
    def test_get_many(self, shape):
        """Many are asked about at once, and unknown ones are left out."""
        with Sandbox(seconds=0, batch_shape=shape) as sandbox:
            client = LumaClient(sandbox.url, TOKEN)
            ids = [client.submit(PROMPT).id for _ in range(3)]
            found = client.get_many([*ids, "unknown"])
            assert set(found) == set(ids)
            assert all(one.video_url for one in found.values())
            assert client.get_many([]) == {}
            assert sandbox.report()["batch_polls"] == 1

    def test_no_batch_call(self):
        """A gateway without that call says so."""
        with Sandbox(batch_shape="none") as sandbox, pytest.raises(LumaNotFound):
            LumaClient(sandbox.url, TOKEN).get_many(["x"])

    def test_batch_too_large(self):
        """So does one that takes fewer ids."""
        with Sandbox(batch_limit=2) as sandbox, pytest.raises(LumaInvalidRequest):
            LumaClient(sandbox.url, TOKEN).get_many(["x", "y", "z"])

    def test_path_prefix(self):
        """A host with a path keeps it."""
        with Sandbox(seconds=0, prefix="/v1") as sandbox:
            client = LumaClient(f"{sandbox.url}/v1/", TOKEN)
            assert client.get(client.submit(PROMPT).id).video_url


class TestBadDays:
    @pytest.mark.parametrize("word", ["[drop]", "[html]", "[500]"])
    def test_ambiguous(self, word, client, sandbox):
        """A submission without a readable answer is not sent again."""
        with pytest.raises(LumaAmbiguousSubmission, match="may have been accepted and charged"):
            client.submit(f"{PROMPT} {word}")
        assert sandbox.report()["requests"] == 1

    def test_hang(self, sandbox):
        """Nor one that gets no answer in time."""
        client = LumaClient(sandbox.url, TOKEN, timeout=0.3)
        with pytest.raises(LumaAmbiguousSubmission, match="gave no answer in time"):
            client.submit(f"{PROMPT} [hang]")
        assert sandbox.report()["charged"] == 1

    def test_rate_limited(self, client, sandbox):
        """A submission that is refused with 429 is sent again, when the gateway said."""
        began = time.monotonic()
        assert client.submit(f"{PROMPT} [429]").id
        assert time.monotonic() - began >= 2
        report = sandbox.report()
        assert (report["submitted"], report["refused"]) == (1, 2)

    def test_rate_limited_for_long(self, sandbox):
        """But not when that is past the client's patience."""
        with pytest.raises(LumaRateLimited) as caught:
            LumaClient(sandbox.url, TOKEN).submit(f"{PROMPT} [429:90]")
        assert caught.value.retry_after == 90
        assert sandbox.report()["submitted"] == 0

    def test_moderated(self, client):
        """A generation that failed is an answer like another, with a reason."""
        generation = client.get(client.submit(f"{PROMPT} [moderated]").id)
        assert generation.state is GenerationState.FAILED
        assert "moderation" in generation.failure_reason

    @pytest.mark.parametrize("failure", ["500", "html", "drop", "429"])
    def test_reads_repeated(self, failure, client, sandbox):
        """A question is asked again until it is answered."""
        generation = client.submit(PROMPT)
        sandbox.weather(status={failure: 0.7}, seed=1)
        for _ in range(3):
            assert client.get(generation.id).id == generation.id
        assert sandbox.report()["requests"] > 4

    def test_patience(self, sandbox):
        """For as long as the client has patience, and then its last error is raised."""
        sandbox.weather(down=True)
        with pytest.raises(LumaConnectionError):
            LumaClient(sandbox.url, TOKEN, retry_for=3).get("x")
        assert sandbox.report()["requests"] > 1

    def test_flaky_batch(self, client, sandbox):
        """The question about many is asked again, too, though it is a POST."""
        generation = client.submit(PROMPT)
        sandbox.weather(status={"503": 0.7}, seed=1)
        for _ in range(3):
            assert generation.id in client.get_many([generation.id])

    def test_unknown_id(self, client):
        """An unknown id is not found, at once."""
        with pytest.raises(LumaNotFound) as caught:
            client.get("unknown")
        assert caught.value.code == "task_not_exist"

    def test_invalid(self, client, sandbox):
        """A request that the gateway refuses is not sent again."""
        with pytest.raises(LumaInvalidRequest):
            client.submit(PROMPT, image_url="nonsense")
        assert sandbox.report()["requests"] == 1


class TestNotSent:
    def test_nobody_there(self):
        """A submission to a port where nobody listens surely was not charged."""
        with pytest.raises(LumaConnectionError, match="refused"):
            LumaClient("127.0.0.1:1", TOKEN, retry_for=0).submit(PROMPT)

    def test_no_such_host(self):
        """Nor one to a name that does not exist."""
        with pytest.raises(LumaConnectionError, match="no-such-host"):
            LumaClient("no-such-host.invalid", TOKEN, retry_for=0).submit(PROMPT)

    def test_no_tls(self, sandbox):
        """Nor one whose TLS handshake failed."""
        with pytest.raises(LumaConnectionError):
            LumaClient(sandbox.url.replace("http:", "https:"), TOKEN, retry_for=0).submit(PROMPT)
        assert sandbox.report()["requests"] == 0

    def test_sent_again(self):
        """So it is sent again, and arrives when the gateway is back."""
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


class TestFarEnds:
    def test_cut_in_body(self):
        """A submission whose answer is cut in the middle is ambiguous."""
        answer = JSON_HEAD + b'Content-Length: 500\r\n\r\n{"id": "x", "sta'
        with far_end(answer) as (url, requests):
            with pytest.raises(LumaAmbiguousSubmission):
                LumaClient(url, TOKEN).submit(PROMPT)
            assert len(requests) == 1

    def test_cut_chunks(self):
        """Also where the length was not said."""
        answer = JSON_HEAD + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"id": "x", "sta\r\n'
        with far_end(answer) as (url, _), pytest.raises(LumaAmbiguousSubmission):
            LumaClient(url, TOKEN).submit(PROMPT)

    def test_no_id(self):
        """And so is one whose answer has no id in it."""
        answer = json_answer(b'{"code": "success", "data": null}')
        with far_end(answer) as (url, _), pytest.raises(LumaAmbiguousSubmission):
            LumaClient(url, TOKEN).submit(PROMPT)

    def test_slow_store(self):
        """An answer that is complete counts, however long it took to get so far."""

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

    def test_nonsense_in_answer(self):
        """Nor does it matter what else is wrong with it."""
        with far_end(json_answer(b'{"id": "x", "state": 7, "created_at": "64:", "video": []}')) as (url, _):
            assert LumaClient(url, TOKEN).submit(PROMPT).id == "x"

    def test_large_answer(self):
        """An answer over 10 MiB is refused, not read."""
        endless = [JSON_HEAD + b"Connection: close\r\n\r\n", *[b" " * 2**20] * 11]
        with far_end(endless) as (url, _), pytest.raises(LumaServerError, match="10 MiB"):
            LumaClient(url, TOKEN, retry_for=0).get("x")

    def test_dripping_answer(self):
        """An answer that drips is not read for longer than one request may take."""
        head = JSON_HEAD + b"Content-Length: 100\r\n\r\n"

        class Drip(list):
            def __iter__(self):
                yield head
                for _ in range(50):
                    time.sleep(0.1)
                    yield b" "

        with far_end(Drip()) as (url, _), pytest.raises(LumaConnectionError, match="took too long"):
            LumaClient(url, TOKEN, timeout=0.4, retry_for=0).get("x")

    def test_redirect(self):
        """A redirect is not followed, and so the token is not sent there."""
        with far_end(b"") as (elsewhere, leaked):
            moved = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/x\r\nContent-Length: 0\r\n\r\n".encode()
            with far_end(moved) as (url, requests):
                with pytest.raises(LumaApiError, match="a redirect to"):
                    LumaClient(url, TOKEN).get("x")
                assert len(requests) == 1
            assert not leaked

    def test_token_in_answer(self, caplog):
        """A gateway that repeats the token in its refusal does not get it into a message or a log."""
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

    def test_headers(self):
        """Every request says who asks, and a .netrc entry does not replace the token."""
        body = b'{"id": "x", "state": "pending"}'
        with far_end(json_answer(body)) as (url, requests):
            LumaClient(url, TOKEN).get("x")
        (request,) = requests
        assert f"User-Agent: airflow-provider-luma/{__version__}".encode() in request
        assert b"Accept: application/json" in request

    def test_netrc(self, tmp_path, monkeypatch):
        """A .netrc entry for the host does not take the token's place."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login someone password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        with far_end(json_answer(b'{"id": "x", "state": "pending"}')) as (url, requests):
            LumaClient(url, TOKEN).get("x")
        assert f"Authorization: Bearer {TOKEN}".encode() in requests[0]


class TestToken:
    @pytest.mark.parametrize("typed", [f"Bearer {TOKEN}", f"  {TOKEN}\n"])
    def test_pasted(self, typed, sandbox):
        """A token may be pasted with its Bearer or a line end."""
        assert LumaClient(sandbox.url, typed).submit(PROMPT).id

    @pytest.mark.parametrize("typed", ["", "  ", "Bearer ", "two words", "n\u00f6n-ascii", "line\nbreak"])
    def test_no_token(self, typed, sandbox):
        """What cannot be a token is refused without repeating it."""
        with pytest.raises(LumaAuthenticationError) as caught:
            LumaClient(sandbox.url, typed)
        assert not typed.strip() or typed not in str(caught.value)

    def test_wrong(self, sandbox):
        """A wrong token is refused by the gateway, whose message may be Chinese, and is not tried again."""
        with pytest.raises(LumaAuthenticationError, match="Check the token"):
            LumaClient(sandbox.url, "wrong").submit(PROMPT)
        assert sandbox.report()["requests"] == 1


class TestSharing:
    def test_threads(self, client, sandbox):
        """One client serves many threads."""
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda _: client.submit(PROMPT).id, range(24)))
            states = list(pool.map(lambda one: client.get(one).state, ids))
        assert len(set(ids)) == 24
        assert set(states) == {GenerationState.COMPLETED}

    def test_fork(self, client):
        """A forked child does not write into its parent's connection."""
        generation = client.submit(PROMPT)
        client.get(generation.id)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, client.get(generation.id).id.encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as answer:
            assert answer.read().decode() == generation.id
        assert client.get(generation.id).id == generation.id

"""Videos into storage: the local disk and an object store, from a CDN with bad days."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, ObjectStoragePath
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from airflow_provider_luma.api import (
    Generation,
    GenerationState,
    LumaConnectionError,
    LumaError,
    LumaNotFound,
    LumaServerError,
    download,
    guard,
)
from airflow_provider_luma.operators import storage
from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sandbox.clips import FOLDER
from tests.support.samples import TOKEN
from tests.support.task_instance import TaskInstance
from tests.support.tries import Store

BOAT = (FOLDER / "boat.mp4").read_bytes()
SHA256 = hashlib.sha256(BOAT).hexdigest()


class Cdn(Sandbox):
    """A sandbox whose CDN's answers a test can replace, and which notes what it was asked."""

    def __init__(self, **settings):
        super().__init__(token=TOKEN, **{"seconds": 0, **settings})
        self.sandbox, self.app = self.app, self._app()
        self.asked: list[dict[str, str]] = []
        self.answers: list[object] = []

    def _app(self):
        async def app(scope, receive, send):
            answer = self.sandbox
            if scope["path"].startswith("/cdn/"):
                self.asked.append({name.decode(): value.decode() for name, value in scope["headers"]})
                if self.answers:
                    answer = self.answers.pop(0) or self.sandbox
            await answer(scope, receive, send)

        return app

    def submit(self, prompt="A paper boat") -> str:
        return self.sandbox.routes[0].app.gateway.accept({"user_prompt": prompt}).id


@pytest.fixture
def cdn(connect):
    with Cdn() as cdn:
        connect(host=cdn.url, password=TOKEN)
        yield cdn


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Time does not matter here, only what is done after a pause."""
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


def store(generation, destination, store=None, **arguments):
    """Run the operator, and return what it pushed to XCom and returned."""
    ti = TaskInstance()
    operator = LumaDownloadVideoOperator(
        task_id="download", generation=generation, destination=str(destination), **arguments
    )
    uri = operator.execute({"ti": ti, "task_state_store": store})
    assert ti.xcoms["download"]["path"] == uri
    return ti.xcoms["download"]


class TestWhere:
    def test_folder(self, cdn, tmp_path):
        """A folder, also one that is not there yet, gets a file named by the task id."""
        generation_id = cdn.submit()
        stored = store(generation_id, tmp_path / "videos")
        path = tmp_path / "videos" / f"{generation_id}.mp4"
        assert path.read_bytes() == BOAT
        assert stored.pop("seconds") >= 0
        assert stored == {"path": path.as_uri(), "size": len(BOAT), "sha256": SHA256, "content_type": "video/mp4"}

    def test_file(self, cdn, tmp_path):
        """A file is a file, in a folder that may not be there yet, and readable as any other."""
        store(cdn.submit(), (tmp_path / "new" / "boat.mp4").as_uri())
        (path,) = (tmp_path / "new").iterdir()
        assert path.read_bytes() == BOAT
        other = tmp_path / "other"
        other.touch()
        assert path.stat().st_mode == other.stat().st_mode

    @pytest.mark.parametrize(
        ("asset", "name"),
        [
            ("video", "{}.mp4"),
            ("video_raw", "{}_raw.mp4"),
            ("thumbnail", "{}_thumbnail.jpg"),
            ("last_frame", "{}_last_frame.jpg"),
        ],
    )
    def test_assets(self, asset, name, cdn, tmp_path):
        """Each of a generation's files can be stored, in one folder."""
        generation_id = cdn.submit()
        store(generation_id, f"{tmp_path}/", asset=asset)
        assert [path.name for path in tmp_path.iterdir()] == [name.format(generation_id)]

    def test_video_is_the_one_for_download(self, cdn, tmp_path):
        """Of a video's two URLs, the one that the gateway gives for download is fetched, for a dict too."""
        urls = []

        async def noted(scope, receive, send):
            urls.append(scope["path"].rpartition("/")[2])
            await cdn.sandbox(scope, receive, send)

        generation_id = cdn.submit()
        known = requests.get(
            f"{cdn.url}/luma/generations/{generation_id}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        ).json()
        generation = Generation(id=generation_id, state=GenerationState.COMPLETED, video_url=known["video"]["url"])
        cdn.answers = [noted, noted]
        store(generation_id, tmp_path / "a.mp4")
        store(generation.as_dict(), tmp_path / "b.mp4")
        assert urls == ["video_raw.mp4", "video_raw.mp4"]

    @pytest.mark.parametrize("destination", ["s3://aws_default@bucket/videos/", "s3://aws_default@bucket/videos"])
    def test_object_store(self, destination, cdn, s3):
        """An object store does as well, with a connection of its own."""
        generation_id = cdn.submit()
        stored = store(generation_id, destination)
        assert stored["sha256"] == SHA256
        assert stored["path"].endswith(f"bucket/videos/{generation_id}.mp4")
        assert ObjectStoragePath(stored["path"]).read_bytes() == BOAT
        assert requests.get(f"{s3}/bucket/videos/{generation_id}.mp4", timeout=10).content == BOAT

    def test_large_object(self, connect, s3, tmp_path):
        """A file that is uploaded in parts, and cut on its way, is one object in the end."""
        large = tmp_path / "large.mp4"
        large.write_bytes(b"\0\0\0\x20ftypisom" + os.urandom(20_000_000))
        with Cdn(video=str(large)) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 0.9}, seed=1)
            stored = store(cdn.submit(), "s3://aws_default@bucket/large.mp4")
        assert stored["sha256"] == hashlib.sha256(large.read_bytes()).hexdigest()
        assert requests.get(f"{s3}/bucket/large.mp4", timeout=10).content == large.read_bytes()
        assert len(cdn.asked) > 5

    def test_dotted_folder(self, cdn, tmp_path):
        """A folder may have dots in it, as one named by a run has."""
        generation_id = cdn.submit()
        store(generation_id, tmp_path / "manual__2026-11-22T17-46-29.091828+00-00")
        (path,) = tmp_path.rglob("*.mp4")
        assert path.name == f"{generation_id}.mp4"

    @pytest.mark.parametrize("given", ["photos/", "s4://bucket/x", "https://example.com/x.mp4"])
    def test_nowhere(self, given, cdn):
        """A destination that nothing can write to is told so, before anything is fetched."""
        with pytest.raises(AirflowFailException, match=re.escape(given)):
            store(cdn.submit(), given)
        assert cdn.asked == []


class TestWhole:
    def test_cut(self, cdn, tmp_path, caplog):
        """Cut twenty times on the way, it goes on where it stopped, and arrives whole."""
        cdn.weather(cdn={"cut": 1})
        with caplog.at_level(logging.INFO):
            stored = store(cdn.submit(), tmp_path / "boat.mp4")
        assert stored["sha256"] == SHA256
        assert (tmp_path / "boat.mp4").read_bytes() == BOAT
        starts = [int(asked.get("range", "bytes=0-")[6:-1]) for asked in cdn.asked]
        assert starts == sorted(set(starts))
        assert len(starts) >= 20
        assert all(asked["if-range"].startswith('"') for asked in cdn.asked[1:])
        assert "Going on after" in caplog.text

    def test_no_ranges(self, connect, tmp_path):
        """Where the CDN cannot send a part, it starts over."""
        with Cdn(ranges=False) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 0.7}, seed=3)
            assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
            assert len(cdn.asked) > 2

    def test_never_whole(self, connect, tmp_path):
        """What never arrives whole is an error that a retry may mend, and nothing is left behind."""
        with Cdn(ranges=False) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 1})
            with pytest.raises(LumaConnectionError, match=r"IncompleteRead|cut after"):
                store(cdn.submit(), tmp_path / "boat.mp4")
        assert list(tmp_path.iterdir()) == []

    def test_never_whole_object(self, connect, s3):
        """Neither is in an object store, not even an upload that was begun."""
        with Cdn(ranges=False) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 1})
            with pytest.raises(LumaConnectionError):
                store(cdn.submit(), "s3://aws_default@bucket/boat.mp4")
        assert requests.get(f"{s3}/bucket/boat.mp4", timeout=10).status_code == 404
        assert "<UploadId>" not in requests.get(f"{s3}/bucket?uploads", timeout=10).text

    def test_changed_meanwhile(self, cdn, tmp_path):
        """A file that has changed on the CDN since it was begun is fetched anew, not patched together."""

        async def half(scope, receive, send):
            headers = [(b"content-length", b"1000"), (b"etag", b'"old"')]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
            scope["state"]["close"]()
            await receive()

        cdn.answers = [half]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert cdn.asked[1]["range"] == "bytes=500-"
        assert cdn.asked[1]["if-range"] == '"old"'

    @pytest.mark.parametrize("status", [416, 206])
    def test_wrong_part(self, status, cdn, tmp_path):
        """An answer with another part than the one asked for, or none, has it start over."""
        cdn.weather(cdn={"cut": 1})
        wrong = PlainTextResponse("x" * 10, status, {"Content-Range": "bytes 3-12/13"})
        cdn.answers = [None, wrong]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert "range" not in cdn.asked[2]

    @pytest.mark.parametrize("failure", ["html", "json", "500", "429"])
    def test_waits_out(self, failure, cdn, tmp_path):
        """A page in place of the video, and trouble, are waited out."""
        cdn.weather(cdn={failure: 0.6}, seed=4)
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert len(cdn.asked) > 1

    @pytest.mark.parametrize(
        "page",
        [
            PlainTextResponse("Bad Gateway"),
            JSONResponse({"error": "gone"}, media_type="application/octet-stream"),
            PlainTextResponse("\n <html>", media_type="video/mp4"),
        ],
    )
    def test_page(self, page, cdn, tmp_path):
        """A page, whatever it says it is, never becomes a file."""
        cdn.answers = [page] * download.TRIES
        with pytest.raises(LumaServerError, match="page"):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("given", [{"content-encoding": "gzip", "content-length": "9"}, {}])
    def test_unknown_length(self, given, cdn, tmp_path):
        """A file whose length nobody says cannot be known to be whole."""

        async def endless(scope, receive, send):
            headers = [(name.encode(), value.encode()) for name, value in given.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x" * 9})

        cdn.answers = [endless] * download.TRIES
        with pytest.raises(LumaServerError, match="how long the file is"):
            store(cdn.submit(), tmp_path / "boat.mp4")

    def test_empty(self, cdn, tmp_path):
        """An empty file is no video."""
        cdn.answers = [PlainTextResponse("", media_type="video/mp4")] * download.TRIES
        with pytest.raises(LumaServerError, match="empty"):
            store(cdn.submit(), tmp_path / "boat.mp4")

    def test_checksum(self, cdn, tmp_path):
        """Where the CDN gives a checksum, what arrives must have it."""
        good = base64.b64encode(hashlib.md5(BOAT, usedforsecurity=False).digest()).decode()
        answer = lambda said: PlainTextResponse(BOAT, media_type="video/mp4", headers={"Content-MD5": said})  # noqa: E731
        cdn.answers = [answer("bm90IHRoZSBjaGVja3N1bQ=="), answer(good)]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert len(cdn.asked) == 2

    def test_killed(self, cdn, tmp_path):
        """A process that is killed in the middle leaves nothing behind, and the next one succeeds."""
        begun = threading.Event()

        async def stuck(scope, receive, send):
            headers = [(b"content-length", b"1000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
            begun.set()
            await receive()

        cdn.answers = [stuck]
        generation_id = cdn.submit()
        code = (
            "from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator as Operator\n"
            f"Operator(task_id='d', generation={generation_id!r}, destination={str(tmp_path / 'new')!r}).execute({{}})"
        )
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
        assert begun.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list((tmp_path / "new").iterdir()) == []
        assert store(generation_id, tmp_path / "new")["sha256"] == SHA256

    def test_disk_is_full(self, cdn, tmp_path):
        """A disk that is full is not taken for a broken connection."""
        generation = cdn.submit()

        class Full(storage.NewFile):
            def write(self, data):
                with Path("/dev/full").open("wb", buffering=0) as full:
                    full.write(data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "NewFile", Full)
            with pytest.raises(OSError, match="No space left"):
                store(generation, tmp_path / "never.mp4")
        assert len(cdn.asked) == 1
        assert list(tmp_path.iterdir()) == []

    def test_without_nameless_files(self, cdn, tmp_path, monkeypatch):
        """A file system that knows no file without a name has a hidden one, which goes as well."""
        monkeypatch.delattr(os, "O_TMPFILE")
        generation_id = cdn.submit()
        assert store(generation_id, tmp_path)["sha256"] == SHA256
        assert [path.name for path in tmp_path.iterdir()] == [f"{generation_id}.mp4"]
        cdn.weather(cdn={"500": 1})
        with pytest.raises(LumaServerError):
            store(generation_id, tmp_path / "other.mp4")
        assert len(list(tmp_path.iterdir())) == 1


class TestAgain:
    @pytest.mark.parametrize("remembers", [True, False])
    def test_there_already(self, remembers, cdn, tmp_path):
        """Run again, it finds the file and does nothing; where a store remembers it, nobody is even asked."""
        memory = Store() if remembers else None
        generation_id = cdn.submit()
        first = store(generation_id, tmp_path, store=memory)
        written = (tmp_path / f"{generation_id}.mp4").stat()
        polls = cdn.report()["polls"]
        again = store(generation_id, tmp_path, store=memory)
        assert {**again, "seconds": 0} == {**first, "seconds": 0}
        now = (tmp_path / f"{generation_id}.mp4").stat()
        assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
        assert (cdn.report()["polls"] == polls) is remembers

    @pytest.mark.parametrize("remembers", [True, False])
    def test_other_file(self, remembers, cdn, tmp_path):
        """Another file in its place is an error, and left alone, unless it is to be replaced."""
        memory = Store() if remembers else None
        generation_id = cdn.submit()
        path = tmp_path / "boat.mp4"
        if remembers:
            store(generation_id, path, store=memory)
        # Of the same size, only who remembers can tell it from the video.
        path.write_bytes(BOAT[::-1] if remembers else b"mine")
        before = path.read_bytes()
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(generation_id, path, store=memory)
        assert path.read_bytes() == before
        assert store(generation_id, path, store=memory, replace=True)["sha256"] == SHA256
        assert path.read_bytes() == BOAT
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("nameless", [True, False])
    def test_comes_meanwhile(self, nameless, cdn, tmp_path, monkeypatch):
        """A file that comes into being during the download is not replaced either."""
        if not nameless:
            monkeypatch.delattr(os, "O_TMPFILE")
        path = tmp_path / "boat.mp4"

        async def other_first(scope, receive, send):
            path.write_bytes(b"mine")
            await cdn.sandbox(scope, receive, send)

        cdn.answers = [other_first]
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(cdn.submit(), path)
        assert [(one, one.read_bytes()) for one in tmp_path.iterdir()] == [(path, b"mine")]

    def test_same_comes_meanwhile(self, cdn, tmp_path):
        """The same video, from a try that Airflow had given up on, is what was wanted."""
        path = tmp_path / "boat.mp4"

        async def other_first(scope, receive, send):
            path.write_bytes(BOAT)
            await cdn.sandbox(scope, receive, send)

        cdn.answers = [other_first]
        assert store(cdn.submit(), path)["sha256"] == SHA256
        assert list(tmp_path.iterdir()) == [path]

    def test_object_comes_meanwhile(self, cdn, s3):
        """Nor is it in an object store."""

        async def other_first(scope, receive, send):
            await asyncio.to_thread(requests.put, f"{s3}/bucket/boat.mp4", data=b"mine", timeout=10)
            await cdn.sandbox(scope, receive, send)

        cdn.answers = [other_first]
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(cdn.submit(), "s3://aws_default@bucket/boat.mp4")
        assert ObjectStoragePath("s3://aws_default@bucket/boat.mp4").read_bytes() == b"mine"

    def test_replace_in_doubt(self, cdn, tmp_path):
        """Of the same size, and with no checksum to tell it by, a file that may be replaced is."""
        path = tmp_path / "boat.mp4"
        path.write_bytes(BOAT[::-1])
        assert store(cdn.submit(), path, replace="True")["sha256"] == SHA256
        assert path.read_bytes() == BOAT

    def test_replace_in_words(self, cdn, tmp_path):
        """A template that says False means it."""
        path = tmp_path / "boat.mp4"
        path.write_bytes(b"mine")
        with pytest.raises(AirflowFailException, match="another file"):
            store(cdn.submit(), path, replace="False")

    def test_checksum_tells(self, cdn, tmp_path):
        """A file of the same size is another one where the CDN's checksum says so."""
        path = tmp_path / "boat.mp4"
        path.write_bytes(BOAT[::-1])
        md5 = base64.b64encode(hashlib.md5(BOAT, usedforsecurity=False).digest()).decode()
        cdn.answers = [PlainTextResponse(BOAT, media_type="video/mp4", headers={"Content-MD5": md5})]
        with pytest.raises(AirflowFailException, match="another file"):
            store(cdn.submit(), path)

    def test_object_there_already(self, cdn, s3):
        """It is so in an object store."""
        generation_id = cdn.submit()
        first = store(generation_id, "s3://aws_default@bucket/")
        assert store(generation_id, "s3://aws_default@bucket/")["sha256"] == first["sha256"]
        requests.put(f"{s3}/bucket/{generation_id}.mp4", data=b"mine", timeout=10)
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(generation_id, "s3://aws_default@bucket/")


class TestUrl:
    def test_expires(self, connect, tmp_path):
        """A URL that expires on the way is replaced by a fresh one, and the download goes on."""
        now = [0.0]
        with Cdn(url_seconds=10, clock=lambda: now[0]) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 1})

            async def late(scope, receive, send):
                now[0] += 11
                await cdn.sandbox(scope, receive, send)

            cdn.answers = [None, late]
            assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
            assert cdn.report()["polls"] == 2
            assert cdn.asked[2]["range"].startswith("bytes=")

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_refused(self, status, cdn, tmp_path):
        """One that is refused is replaced once; when the fresh one is refused as well, that is an error."""
        generation_id = cdn.submit()
        cdn.answers = [PlainTextResponse("no", status)]
        assert store(generation_id, tmp_path / "a.mp4")["sha256"] == SHA256
        cdn.answers = [PlainTextResponse("no", status)] * 2
        with pytest.raises(LumaNotFound, match=f"HTTP {status}"):
            store(generation_id, tmp_path / "b.mp4")
        assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]

    def test_gateway_down(self, cdn, tmp_path):
        """A dict's own URL does while the gateway is down, or knows the generation no more."""
        generation_id = cdn.submit()
        generation = Generation(
            id=generation_id, state=GenerationState.COMPLETED, video_url=f"{cdn.url}/cdn/{generation_id}/video.mp4"
        )
        cdn.weather(down=True)
        assert store(generation.as_dict(), tmp_path / "a.mp4")["sha256"] == SHA256

    def test_not_completed(self, connect, tmp_path):
        """A generation that is not completed has no video: the message says to wait."""
        with Cdn(seconds=600) as cdn:
            connect(host=cdn.url, password=TOKEN)
            with pytest.raises(LumaError, match="Wait for it with LumaGenerationSensor"):
                store(cdn.submit(), tmp_path)

    def test_failed(self, cdn, tmp_path):
        """One that failed never will have."""
        with pytest.raises(AirflowFailException, match="Job failed"):
            store(cdn.submit("A boat [fail]"), tmp_path)

    def test_no_token(self, cdn, tmp_path, monkeypatch):
        """The token goes to no CDN, and neither does what a .netrc file has for its host."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret")
        monkeypatch.setenv("NETRC", str(netrc))
        generation_id = cdn.submit()
        cdn.answers = [RedirectResponse(f"/cdn/{generation_id}/video.mp4")]
        store(generation_id, tmp_path / "boat.mp4")
        assert len(cdn.asked) == 2
        assert not any("authorization" in asked for asked in cdn.asked)

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x.mp4", "gopher://x"])
    def test_scheme(self, url, cdn, tmp_path):
        """Only http and https are followed."""
        cdn.answers = [RedirectResponse(url)]
        with pytest.raises(AirflowFailException, match="must be http or https"):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("way", ["directly", "by a redirect"])
    @pytest.mark.parametrize("host", ["localhost", "127.1.2.3", "[::ffff:127.0.0.1]"])
    def test_private(self, host, way, cdn, tmp_path):
        """An address of this machine or a private network is asked for nothing, unless it is the gateway's own."""
        generation_id = cdn.submit()
        asked = []
        with socket.create_server(("", 0)) as other:
            listening = threading.Thread(target=_accept, args=(other, asked), daemon=True)
            listening.start()
            url = f"http://{host}:{other.getsockname()[1]}/video.mp4"
            generation = Generation(id=generation_id, state=GenerationState.COMPLETED, video_url=url)
            if way == "directly":
                cdn.weather(down=True)
            else:
                cdn.answers = [RedirectResponse(url)]
            given = generation.as_dict() if way == "directly" else generation_id
            with pytest.raises(AirflowFailException, match="in a private network"):
                store(given, tmp_path / "boat.mp4")
        assert asked == []

    def test_two_hosts_in_one(self, cdn, tmp_path):
        """A URL whose host is another one to another parser is judged by the one that it is sent to."""
        asked = []
        with socket.create_server(("127.0.0.2", 0)) as other:
            threading.Thread(target=_accept, args=(other, asked), daemon=True).start()
            port = other.getsockname()[1]
            cdn.answers = [PlainTextResponse("", 302, {"Location": f"http://127.0.0.2:{port}\\@127.0.0.1/x.mp4"})]
            with pytest.raises(AirflowFailException, match="in a private network"):
                store(cdn.submit(), tmp_path / "boat.mp4")
        assert asked == []

    def test_name_changes_its_mind(self, cdn, tmp_path, monkeypatch):
        """What counts is what is connected to, whatever the name meant a moment before."""
        looked_up = iter(["93.184.216.34"])
        real = socket.getaddrinfo

        def getaddrinfo(host, *rest, **options):
            address = next(looked_up, "127.0.0.1") if host == "cdn.example.com" else host
            return real(address, *rest, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        asked = []
        with socket.create_server(("127.0.0.1", 0)) as other:
            threading.Thread(target=_accept, args=(other, asked), daemon=True).start()
            url = f"http://cdn.example.com:{other.getsockname()[1]}/video.mp4"
            cdn.answers = [RedirectResponse(url)]
            with pytest.raises(AirflowFailException, match="in a private network"):
                store(cdn.submit(), tmp_path / "boat.mp4")
        assert asked in ([], [b""])

    def test_keys_in_urls(self, cdn, tmp_path, caplog):
        """What a URL has after its path, which may be a key, is in no log and no error."""
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}/video.mp4?Signature=secret"
        cdn.answers = [RedirectResponse(url)] * download.TRIES
        with caplog.at_level(logging.DEBUG, "airflow_provider_luma"), pytest.raises(LumaConnectionError) as caught:
            store(cdn.submit(), tmp_path / "boat.mp4")
        said = "".join(traceback.format_exception(caught.value))
        assert "refused" in said
        assert "secret" not in said
        assert "secret" not in "".join(record.getMessage() for record in caplog.records if "luma" in record.name)

    @pytest.mark.parametrize(
        "address",
        [
            "10.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "fe80::1%eth0",
            "fd00::1",
            "224.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::7f00:1",
            "::1",
            "::",
            "fec0::1",
        ],
    )
    def test_private_addresses(self, address):
        """So are all the others that are not public."""
        with pytest.raises(LumaError, match="in a private network"):
            guard._refuse_private(address, "cdn.example.com")

    @pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"])
    def test_public_addresses(self, address):
        """Those that are public are asked."""
        assert guard._is_public(address)

    def test_proxy(self, cdn, tmp_path, monkeypatch):
        """A name that only a proxy can resolve is the proxy's affair; one that is private here is not."""
        generation_id = cdn.submit()
        cdn.weather(down=True)
        asked = []

        class Proxy(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(BOAT)))
                self.end_headers()
                self.wfile.write(BOAT)

            def log_message(self, *_):
                """Say nothing."""

        def given(host):
            url = f"http://{host}/video.mp4"
            return Generation(id=generation_id, state=GenerationState.COMPLETED, video_url=url).as_dict()

        with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert store(given("cdn.invalid"), tmp_path / "a.mp4")["sha256"] == SHA256
            with pytest.raises(AirflowFailException, match="in a private network"):
                store(given("localhost"), tmp_path / "b.mp4")
            proxy.shutdown()
        assert asked == ["http://cdn.invalid/video.mp4"]


class TestGiven:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"generation": ["a", "b"]}, "expand"),
            ({"generation": None}, "task id"),
            ({"generation": ""}, "task id"),
            ({"generation": "{'id': 'x'}"}, "output"),
            ({"generation": {"video_url": "https://x"}}, "as the sensor returns it"),
            ({"generation": "../outside"}, "task id"),
            ({"generation": {"id": "a/b", "state": "completed"}}, "task id"),
            ({"asset": "audio"}, "video_raw"),
            ({"replace": "no"}, "True or False"),
        ],
    )
    def test_at_parsing(self, arguments, says):
        """What is wrong whatever happens is told when the DAG is parsed."""
        with DAG("dag", schedule=None), pytest.raises(AirflowFailException, match=says):
            LumaDownloadVideoOperator(task_id="d", **{"generation": "x", "destination": "/data/", **arguments})

    def test_templates(self):
        """What is a template is told when the task runs."""
        operator = LumaDownloadVideoOperator(task_id="d", generation="{{ x }}", destination="{{ y }}", asset="{{ z }}")
        operator.asset = "audio"
        with pytest.raises(AirflowFailException, match="video_raw"):
            operator.execute({})


class TestProgress:
    def test_lines(self, connect, tmp_path, caplog):
        """A line for each tenth, no more."""
        large = tmp_path / "large.mp4"
        large.write_bytes(b"\0\0\0\x20ftypisom" + bytes(30_000_000))
        with Cdn(video=str(large)) as cdn, caplog.at_level(logging.INFO):
            connect(host=cdn.url, password=TOKEN)
            store(cdn.submit(), tmp_path / "there.mp4")
        lines = [line for line in caplog.messages if " % of " in line]
        assert 8 <= len(lines) <= 10
        assert lines[-1] == "100 % of 30,000,012 bytes."


def _accept(listener, asked):
    try:
        connection, _ = listener.accept()
    except OSError:
        return
    with connection:
        asked.append(connection.recv(1000))

"""Videos into storage: the local disk and an object store, from a CDN with errors."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import trustme
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, ObjectStoragePath
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from airflow_provider_luma.api import (
    Generation,
    GenerationState,
    LumaConnectionError,
    LumaError,
    LumaNotFound,
    LumaRateLimited,
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

BOAT = (FOLDER / "boat.mp4").read_bytes()
SHA256 = hashlib.sha256(BOAT).hexdigest()
OTHER = BOAT[:1000] + BOAT[1000:][::-1]
"""Another video of the same length."""


class Cdn(Sandbox):
    """A sandbox whose CDN's answers a test can replace, and which notes what it was asked."""

    def __init__(self, **settings):
        super().__init__(token=TOKEN, **{"seconds": 0, **settings})
        self.sandbox, self.app = self.app, self._app()
        self.asked: list[dict[str, str]] = []
        self.answers: list[object] = []
        """The next answers in their order; None is the sandbox's own, as are all further ones."""

    def _app(self):
        async def app(scope, receive, send):
            answer = self.sandbox
            if scope["path"].startswith("/cdn/"):
                headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                self.asked.append({"path": scope["path"], **headers})
                if self.answers:
                    answer = self.answers.pop(0) or self.sandbox
            await answer(scope, receive, send)

        return app

    def submit(self, prompt="A paper boat") -> str:
        submission = requests.post(
            f"{self.url}/luma/generations",
            json={"user_prompt": prompt},
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=10,
        )
        return submission.json()["id"]

    def known(self, generation_id, video_url=None):
        """The generation as the sensor returns it."""
        url = video_url or f"{self.url}/cdn/{generation_id}/video.mp4"
        return Generation(id=generation_id, state=GenerationState.COMPLETED, video_url=url).as_dict()


def answer_of(body, *, announced=None, status=200, **headers):
    """An answer of these bytes; if more are announced, the connection is cut after them."""
    announced = len(body) if announced is None else announced
    sent = {"content-length": str(announced), **{name.replace("_", "-"): value for name, value in headers.items()}}

    async def answer(scope, receive, send):
        encoded = [(name.encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body, "more_body": len(body) < announced})
        if len(body) < announced:
            scope["state"]["close"]()
            await receive()

    return answer


def after(action, answer):
    """An answer, given after something else has happened."""

    async def later(scope, receive, send):
        await asyncio.to_thread(action)
        await answer(scope, receive, send)

    return later


@pytest.fixture
def cdn(connect):
    with Cdn() as cdn:
        connect(host=cdn.url, password=TOKEN)
        yield cdn


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds that a download would have paused for; none of them passes."""
    seconds = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=seconds.append, monotonic=time.monotonic))
    return seconds


def store(generation, destination, **arguments):
    """Run the operator, and return what it pushed to XCom."""
    ti = TaskInstance()
    operator = LumaDownloadVideoOperator(
        task_id="download", generation=generation, destination=str(destination), **arguments
    )
    uri = operator.execute({"ti": ti})
    assert ti.xcoms["download"]["path"] == uri
    return ti.xcoms["download"]


def uploads_in(s3):
    """Whether the object store keeps parts of an upload that was not completed."""
    return "<UploadId>" in requests.get(f"{s3}/bucket?uploads", timeout=10).text


@contextmanager
def serving_boat(context=None):
    """A server that answers every request with the video, by TLS if it has a certificate, and the paths requested."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(BOAT)))
            self.end_headers()
            self.wfile.write(BOAT)

        def log_message(self, *_):
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, asked
        server.shutdown()


class TestWhere:
    def test_a_folder_gets_a_file_named_by_the_generation_id(self, cdn, tmp_path):
        """Also a folder that is not there yet."""
        generation_id = cdn.submit()
        stored = store(generation_id, tmp_path / "videos")
        path = tmp_path / "videos" / f"{generation_id}.mp4"
        assert path.read_bytes() == BOAT
        assert stored.pop("seconds") >= 0
        assert stored == {"path": path.as_uri(), "size": len(BOAT), "sha256": SHA256, "content_type": "video/mp4"}

    def test_a_file_may_be_read_by_all_who_may_read_others(self, cdn, tmp_path):
        """The folder of a file is made, and the file has the rights of any other."""
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
    def test_each_asset_has_a_name_of_its_own(self, asset, name, cdn, tmp_path):
        generation_id = cdn.submit()
        store(generation_id, f"{tmp_path}/", asset=asset)
        assert [path.name for path in tmp_path.iterdir()] == [name.format(generation_id)]

    def test_the_video_is_the_one_that_the_gateway_gives_for_download(self, cdn, tmp_path):
        """Of a video's two URLs, also where the dict of the generation has the other one."""
        generation_id = cdn.submit()
        store(generation_id, tmp_path / "a.mp4")
        store(cdn.known(generation_id), tmp_path / "b.mp4")
        assert [asked["path"].rpartition("/")[2] for asked in cdn.asked] == ["video_raw.mp4", "video_raw.mp4"]

    @pytest.mark.parametrize("destination", ["s3://aws_default@bucket/videos/", "s3://aws_default@bucket/videos"])
    def test_an_object_store_is_reached_by_its_own_connection(self, destination, cdn, s3):
        generation_id = cdn.submit()
        stored = store(generation_id, destination)
        assert stored["sha256"] == SHA256
        assert stored["path"].endswith(f"bucket/videos/{generation_id}.mp4")
        assert ObjectStoragePath(stored["path"]).read_bytes() == BOAT
        assert requests.get(f"{s3}/bucket/videos/{generation_id}.mp4", timeout=10).content == BOAT

    def test_a_large_object_is_uploaded_in_parts_while_it_is_fetched(self, connect, s3, tmp_path):
        """Cut on its way, it is one object in the end."""
        large = tmp_path / "large.mp4"
        large.write_bytes(b"\0\0\0\x20ftypisom" + os.urandom(20_000_000))
        with Cdn(video=str(large)) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 0.9}, seed=1)
            stored = store(cdn.submit(), "s3://aws_default@bucket/large.mp4")
        assert stored["sha256"] == hashlib.sha256(large.read_bytes()).hexdigest()
        assert requests.get(f"{s3}/bucket/large.mp4", timeout=10).content == large.read_bytes()
        assert len(cdn.asked) > 5

    def test_a_folder_may_have_dots_in_its_name(self, cdn, tmp_path):
        """One named by a run has."""
        generation_id = cdn.submit()
        store(generation_id, tmp_path / "manual__2026-11-22T17-46-29.091828+00-00")
        (path,) = tmp_path.rglob("*.mp4")
        assert path.name == f"{generation_id}.mp4"

    def test_an_existing_folder_is_one_whatever_its_name_ends_in(self, cdn, tmp_path):
        generation_id = cdn.submit()
        folder = tmp_path / "films.v2"
        folder.mkdir()
        store(generation_id, folder)
        assert [path.name for path in folder.iterdir()] == [f"{generation_id}.mp4"]

    @pytest.mark.parametrize("given", ["photos/", "s4://bucket/x", "https://example.com/x.mp4"])
    def test_a_destination_that_cannot_be_written_is_refused_before_anything_is_fetched(self, given, cdn):
        with pytest.raises(AirflowFailException, match=re.escape(given)):
            store(cdn.submit(), given)
        assert cdn.asked == []


class TestWhole:
    def test_a_cut_download_goes_on_where_it_was_cut(self, cdn, tmp_path, caplog):
        """Cut twenty times on the way, it arrives whole."""
        cdn.weather(cdn={"cut": 1})
        with caplog.at_level(logging.INFO):
            stored = store(cdn.submit(), tmp_path / "boat.mp4")
        assert stored["sha256"] == SHA256
        assert (tmp_path / "boat.mp4").read_bytes() == BOAT
        starts = [int(asked.get("range", "bytes=0-")[6:-1]) for asked in cdn.asked]
        assert starts == sorted(set(starts))
        assert len(starts) >= 20
        assert all(asked["if-range"].startswith('"') for asked in cdn.asked[1:])
        assert "Resuming after" in caplog.text

    def test_a_cdn_that_cannot_send_a_part_sends_all_again(self, connect, tmp_path):
        with Cdn(ranges=False) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 0.7}, seed=3)
            assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
            assert len(cdn.asked) > 2
        assert (tmp_path / "boat.mp4").read_bytes() == BOAT

    def test_a_video_that_never_arrives_whole_leaves_no_file(self, connect, tmp_path):
        """It is an error that a retry may mend."""
        with Cdn(ranges=False) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 1})
            with pytest.raises(LumaConnectionError, match=r"broke|cut after"):
                store(cdn.submit(), tmp_path / "boat.mp4")
        assert list(tmp_path.iterdir()) == []

    def test_a_video_that_never_arrives_whole_leaves_no_parts_in_an_object_store(self, cdn, s3):
        """Neither those of the upload that failed, nor those of one that was begun before it."""
        seen = []
        cut = answer_of(bytes(storage.BLOCK + 1), announced=3 * storage.BLOCK)
        cdn.answers = [after(lambda: seen.append(uploads_in(s3)), cut) for _ in range(download.TRIES)]
        with pytest.raises(LumaConnectionError, match=r"broke|cut after"):
            store(cdn.submit(), "s3://aws_default@bucket/boat.mp4")
        assert seen == [False, *[True] * (download.TRIES - 1)]
        assert not uploads_in(s3)
        assert requests.get(f"{s3}/bucket/boat.mp4", timeout=10).status_code == 404

    def test_an_upload_that_was_given_up_holds_up_no_process(self, s3):
        """fsspec keeps it, and at the end of a process s3fs would hang while it uploads what is left."""
        path = storage.open_path("s3://aws_default@bucket/boat.mp4")
        with storage.new_file(path) as file:
            file.write(b"x")
            file.restart()
        assert [upload.closed for upload in list(path.fs.transaction.files)[-2:]] == [True, True]

    @pytest.mark.parametrize("size", [1000, 2 * len(BOAT)])
    @pytest.mark.parametrize("folder", ["disk", "object store"])
    def test_a_file_that_has_changed_on_the_cdn_is_fetched_from_its_beginning(self, folder, size, cdn, tmp_path, s3):
        """Nothing of what came before is in it, also where that was longer."""
        cdn.answers = [answer_of(b"x" * (size - 1), announced=size, etag='"old"')]
        path = f"{tmp_path}/boat.mp4" if folder == "disk" else "s3://aws_default@bucket/boat.mp4"
        assert store(cdn.submit(), path)["size"] == len(BOAT)
        assert ObjectStoragePath(path).read_bytes() == BOAT
        assert cdn.asked[1]["range"] == f"bytes={size - 1}-"
        assert cdn.asked[1]["if-range"] == '"old"'

    @pytest.mark.parametrize("modified", [{}, {"last_modified": "Sat, 21 Nov 2026 09:00:00 GMT"}])
    def test_a_weak_etag_is_no_condition_for_a_part(self, modified, cdn, tmp_path):
        """It promises the same meaning and not the same bytes; the date does, where there is one."""
        cdn.answers = [answer_of(BOAT[:500], announced=len(BOAT), etag='W/"weak"', **modified)]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert cdn.asked[1].get("if-range") == modified.get("last_modified")

    @pytest.mark.parametrize(
        ("status", "content_range"), [(416, ""), (206, "bytes 3-12/30219"), (206, "bytes 1511-1520/1521"), (206, "")]
    )
    def test_another_part_than_the_one_requested_has_it_start_over(self, status, content_range, cdn, tmp_path):
        """Also a part that begins in the right place of a file of another length."""
        cdn.weather(cdn={"cut": 1})
        cdn.answers = [None, answer_of(b"x" * 10, status=status, content_range=content_range)]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert (tmp_path / "boat.mp4").read_bytes() == BOAT
        assert cdn.asked[1]["range"] == "bytes=1511-"
        assert "range" not in cdn.asked[2]

    def test_a_part_that_is_shorter_than_requested_is_not_the_end(self, cdn, tmp_path):
        cdn.weather(cdn={"cut": 1})
        short = answer_of(BOAT[1511:1521], status=206, content_range=f"bytes 1511-1520/{len(BOAT)}")
        cdn.answers = [None, short]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert (tmp_path / "boat.mp4").read_bytes() == BOAT
        assert cdn.asked[2]["range"] == "bytes=1521-"

    def test_more_bytes_than_announced_are_not_stored(self, cdn, tmp_path):
        more = answer_of(b"x" * 600, status=206, content_range="bytes 500-999/1000")
        cdn.answers = [answer_of(b"x" * 500, announced=1000, etag='"a"'), more]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert (tmp_path / "boat.mp4").read_bytes() == BOAT
        assert "range" not in cdn.asked[2]

    @pytest.mark.parametrize("failure", ["html", "json", "500", "429"])
    def test_trouble_of_the_cdn_is_waited_out(self, failure, cdn, tmp_path, pauses):
        cdn.weather(cdn={failure: 0.6}, seed=4)
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert len(pauses) == len(cdn.asked) - 1 > 0

    @pytest.mark.parametrize(("status", "error"), [(429, LumaRateLimited), (503, LumaServerError)])
    def test_the_cdn_is_left_alone_for_as_long_as_it_says(self, status, error, cdn, tmp_path, pauses):
        """A Retry-After counts, also once the tries are over: for the task's own retry."""
        busy = PlainTextResponse("busy", status, {"Retry-After": "40"})
        generation_id = cdn.submit()
        cdn.answers = [busy]
        assert store(generation_id, tmp_path / "boat.mp4")["sha256"] == SHA256
        assert [seconds >= 40 for seconds in pauses] == [True]
        cdn.answers = [busy] * download.TRIES
        with pytest.raises(error) as caught:
            store(generation_id, tmp_path / "other.mp4")
        assert caught.value.retry_after == 40

    def test_the_pauses_grow_to_a_minute_in_all(self, cdn, tmp_path, pauses):
        cdn.weather(cdn={"500": 1})
        with pytest.raises(LumaServerError):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert len(cdn.asked) == download.TRIES
        assert pauses[0] < 1
        assert pauses[:5] == sorted(pauses[:5])
        assert 40 < sum(pauses) < 70

    @pytest.mark.parametrize(
        "page",
        [
            PlainTextResponse("Bad Gateway"),
            JSONResponse({"error": "gone"}, media_type="application/octet-stream"),
            PlainTextResponse("\n <html>", media_type="video/mp4"),
            PlainTextResponse("\ufeff<html>", media_type="video/mp4"),
        ],
    )
    def test_a_page_never_becomes_a_file(self, page, cdn, tmp_path):
        """Whatever it says it is."""
        cdn.answers = [page] * download.TRIES
        with pytest.raises(LumaServerError, match="page"):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("given", [{"content-encoding": "gzip", "content-length": "9"}, {}])
    def test_a_file_whose_length_is_unknown_is_not_stored(self, given, cdn, tmp_path):
        """It could be cut and look whole."""

        async def endless(scope, receive, send):
            headers = [(name.encode(), value.encode()) for name, value in given.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x" * 9})

        cdn.answers = [endless] * download.TRIES
        with pytest.raises(LumaServerError, match="how long the file is"):
            store(cdn.submit(), tmp_path / "boat.mp4")

    def test_a_cdn_that_could_compress_sends_the_file_as_it_is(self, cdn, tmp_path):
        """The length of a compressed answer does not say whether the file is whole."""

        async def compressing(scope, receive, send):
            accepted = dict(scope["headers"])[b"accept-encoding"].decode()
            whole = answer_of(BOAT, content_type="video/mp4")
            answer = answer_of(gzip.compress(BOAT), content_encoding="gzip") if "gzip" in accepted else whole
            await answer(scope, receive, send)

        cdn.answers = [compressing] * download.TRIES
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256

    def test_an_empty_file_is_no_video(self, cdn, tmp_path):
        cdn.answers = [PlainTextResponse("", media_type="video/mp4")] * download.TRIES
        with pytest.raises(LumaServerError, match="or says 0"):
            store(cdn.submit(), tmp_path / "boat.mp4")

    def test_a_killed_process_leaves_a_hidden_file_that_the_next_one_removes(self, cdn, tmp_path):
        begun = threading.Event()

        async def stuck(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
            await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
            begun.set()
            await receive()

        cdn.answers = [stuck]
        generation_id = cdn.submit()
        code = (
            "from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator as Operator\n"
            f"Operator(task_id='d', generation={generation_id!r}, destination={str(tmp_path)!r}).execute({{}})"
        )
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
        assert begun.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (left,) = tmp_path.iterdir()
        assert re.fullmatch(rf"\.{generation_id}\.mp4\.\w+\.part", left.name)
        assert store(generation_id, tmp_path)["sha256"] == SHA256
        assert [path.name for path in tmp_path.iterdir()] == [f"{generation_id}.mp4"]

    def test_a_full_disk_is_not_taken_for_a_broken_connection(self, cdn, tmp_path, monkeypatch):
        def write(file, data):
            with Path("/dev/full").open("wb", buffering=0) as full:
                full.write(data)

        monkeypatch.setattr(storage.NewLocalFile, "write", write)
        with pytest.raises(OSError, match="No space left"):
            store(cdn.submit(), tmp_path / "never.mp4")
        assert len(cdn.asked) == 1
        assert list(tmp_path.iterdir()) == []


class TestAgain:
    @pytest.mark.parametrize("replace", [False, True])
    def test_a_file_of_the_announced_length_in_its_folder_is_left_as_it_is(self, replace, cdn, tmp_path):
        """The result is the same as the first time, and there is no request but the one that would have fetched it."""
        generation_id = cdn.submit()
        first = store(generation_id, tmp_path)
        written = (tmp_path / f"{generation_id}.mp4").stat()
        again = store(generation_id, tmp_path, replace=replace)
        assert {**again, "seconds": 0} == {**first, "seconds": 0}
        now = (tmp_path / f"{generation_id}.mp4").stat()
        assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
        assert len(cdn.asked) == 2
        assert len(list(tmp_path.iterdir())) == 1

    def test_an_object_of_the_announced_length_in_its_folder_is_left_as_it_is(self, cdn, s3):
        generation_id = cdn.submit()
        first = store(generation_id, "s3://aws_default@bucket/")
        written = requests.get(f"{s3}/bucket/{generation_id}.mp4", timeout=10).headers["Last-Modified"]
        assert store(generation_id, "s3://aws_default@bucket/")["sha256"] == first["sha256"]
        assert requests.get(f"{s3}/bucket/{generation_id}.mp4", timeout=10).headers["Last-Modified"] == written
        requests.put(f"{s3}/bucket/{generation_id}.mp4", data=b"mine", timeout=10)
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(generation_id, "s3://aws_default@bucket/")

    @pytest.mark.parametrize("name", ["boat.mp4", "{}.mp4"])
    def test_a_file_of_another_length_is_an_error_unless_it_is_to_be_replaced(self, name, cdn, tmp_path, caplog):
        """The error comes before the video is fetched."""
        generation_id = cdn.submit()
        path = tmp_path / name.format(generation_id)
        path.write_bytes(b"mine")
        with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException, match="replace=True"):
            store(generation_id, path, replace="False")
        assert path.read_bytes() == b"mine"
        assert "% of" not in caplog.text
        assert len(cdn.asked) == 1
        assert store(generation_id, path, replace="True")["sha256"] == SHA256
        assert path.read_bytes() == BOAT
        assert len(cdn.asked) == 2
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("prompt", ["A paper boat", "A sunrise"])
    def test_a_file_is_not_taken_for_the_video_of_another_generation_by_its_path(self, prompt, cdn, tmp_path):
        """Neither of another length, nor of the same."""
        path = tmp_path / "latest.mp4"
        store(cdn.submit(), path)
        if prompt == "A paper boat":
            cdn.answers = [answer_of(OTHER, content_type="video/mp4")] * 2
        second = cdn.submit(prompt)
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(second, path)
        assert path.read_bytes() == BOAT
        stored = store(second, path, replace=True)
        assert stored["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() != SHA256
        assert list(tmp_path.iterdir()) == [path]

    def test_the_same_video_under_a_name_of_the_users_is_left_as_it_is(self, cdn, tmp_path):
        generation_id, path = cdn.submit(), tmp_path / "boat.mp4"
        first = store(generation_id, path)
        written = path.stat()
        assert store(generation_id, path)["sha256"] == first["sha256"]
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
        assert list(tmp_path.iterdir()) == [path]

    def test_a_page_is_no_reason_to_call_the_video_another_file(self, cdn, tmp_path):
        generation_id = cdn.submit()
        store(generation_id, tmp_path)
        cdn.answers = [PlainTextResponse("<html>", media_type="video/mp4"), None]
        assert store(generation_id, tmp_path)["sha256"] == SHA256

    @pytest.mark.parametrize("folder", ["disk", "object store"])
    def test_another_file_that_comes_meanwhile_is_not_replaced(self, folder, cdn, tmp_path, s3):
        root = str(tmp_path) if folder == "disk" else "s3://aws_default@bucket"
        path = ObjectStoragePath(f"{root}/boat.mp4")

        def come():
            if folder == "disk":
                (tmp_path / "boat.mp4").write_bytes(b"mine")
            else:
                requests.put(f"{s3}/bucket/boat.mp4", data=b"mine", timeout=10)

        ObjectStoragePath(f"{root}/older.mp4").write_bytes(b"older")
        # An object store's client remembers what it has listed.
        assert len(list(path.parent.iterdir())) == 1
        cdn.answers = [after(come, cdn.sandbox)]
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(cdn.submit(), path)
        assert path.read_bytes() == b"mine"
        assert len(list(path.parent.iterdir())) == 2

    def test_the_same_video_that_comes_meanwhile_is_what_was_wanted(self, cdn, tmp_path):
        """As it does from a try that Airflow had given up on, and that went on all the same."""
        path = tmp_path / "boat.mp4"
        cdn.answers = [after(lambda: path.write_bytes(BOAT), cdn.sandbox)]
        assert store(cdn.submit(), path)["sha256"] == SHA256
        assert list(tmp_path.iterdir()) == [path]

    def test_of_two_tasks_with_one_destination_the_later_one_stores_the_video(self, cdn, tmp_path):
        """The earlier one fails, and does not give the name to what the later one has fetched so far."""
        path = tmp_path / "boat.mp4"
        with ExitStack() as later_task:
            later = storage.new_file(ObjectStoragePath(str(path)))
            cdn.answers = [after(lambda: later_task.enter_context(later), cdn.sandbox)]
            with pytest.raises(FileNotFoundError, match=r"\.part"):
                store(cdn.submit(), path)
            assert not path.exists()
            later.write(BOAT)
            later.publish()
        assert path.read_bytes() == BOAT
        assert list(tmp_path.iterdir()) == [path]


class TestUrl:
    def test_each_expired_url_is_replaced_while_new_bytes_come(self, connect, tmp_path):
        """A long download sees several, and goes on where it was after each."""
        now = [0.0]
        with Cdn(url_seconds=10, clock=lambda: now[0]) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 1})

            async def late(scope, receive, send):
                now[0] += 11
                await cdn.sandbox(scope, receive, send)

            cdn.answers = [None, late] * 3
            assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
            assert cdn.report()["polls"] == 1 + 3
            assert all("range" in asked for asked in cdn.asked[1:])
            assert len({asked["path"] for asked in cdn.asked}) == 1 + 3

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_a_refused_url_is_replaced(self, status, cdn, tmp_path, pauses):
        """When the fresh ones are refused as well, that is an error after a minute."""
        generation_id = cdn.submit()
        cdn.answers = [PlainTextResponse("no", status)]
        assert store(generation_id, tmp_path / "a.mp4")["sha256"] == SHA256
        assert cdn.report()["polls"] == 2
        assert sum(pauses) < 1
        cdn.answers = [PlainTextResponse("no", status)] * download.TRIES
        with pytest.raises(LumaNotFound, match=f"HTTP {status}"):
            store(generation_id, tmp_path / "b.mp4")
        assert cdn.answers == []
        assert cdn.report()["polls"] == 2 + download.TRIES
        assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
    def test_a_url_is_not_taken_for_expired_while_its_cdn_is_in_trouble(self, status, cdn, tmp_path):
        generation_id = cdn.submit()
        cdn.answers = [PlainTextResponse("later", status)]
        assert store(generation_id, tmp_path / "boat.mp4")["sha256"] == SHA256
        assert cdn.report()["polls"] == 1

    def test_the_url_of_the_dict_is_tried_at_once_where_the_gateway_is_down(self, cdn, tmp_path, monkeypatch):
        def sleep(seconds):
            raise AssertionError("It waits for the gateway although it has a URL.")

        generation_id = cdn.submit()
        cdn.weather(down=True)
        monkeypatch.setattr(time, "sleep", sleep)
        assert store(cdn.known(generation_id), tmp_path / "a.mp4")["sha256"] == SHA256

    def test_a_generation_that_is_not_completed_has_to_be_waited_for(self, connect, tmp_path):
        with Cdn(seconds=600) as cdn:
            connect(host=cdn.url, password=TOKEN)
            with pytest.raises(LumaError, match="Wait for it with LumaGenerationSensor"):
                store(cdn.submit(), tmp_path)

    def test_a_generation_that_failed_fails_the_task_for_good(self, cdn, tmp_path):
        with pytest.raises(AirflowFailException, match="Job failed"):
            store(cdn.submit("A boat [fail]"), tmp_path)

    def test_redirects_that_never_end_are_not_followed_for_ever(self, cdn, tmp_path):
        cdn.answers = [RedirectResponse("/cdn/again")] * (download.TRIES * (download.REDIRECTS + 1))
        with pytest.raises(LumaServerError, match="redirects more than"):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert cdn.answers == []

    def test_a_download_that_stalls_is_resumed_after_the_timeout(self, cdn, connect, tmp_path):
        """With all that had come before."""

        async def stalling(scope, receive, send):
            async def until_client_is_gone():
                while (await receive())["type"] != "http.disconnect":
                    pass

            headers = [(b"content-length", str(len(BOAT)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": BOAT[:500], "more_body": True})
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(until_client_is_gone(), 30)
            await send({"type": "http.response.body", "body": BOAT[500:]})

        connect(host=cdn.url, password=TOKEN, extra={"timeout": 1})
        cdn.answers = [stalling]
        assert store(cdn.submit(), tmp_path / "boat.mp4")["sha256"] == SHA256
        assert [asked.get("range") for asked in cdn.asked] == [None, "bytes=500-"]

    @pytest.mark.parametrize(("asset", "leads_to"), [("video", "/video_raw.mp4"), ("thumbnail", None)])
    def test_the_link_to_watch_leads_to_the_video_and_to_no_image(self, asset, leads_to, cdn, tmp_path):
        generation_id = cdn.submit()
        operator = LumaDownloadVideoOperator(
            task_id="download", generation=generation_id, destination=f"{tmp_path}/", asset=asset
        )
        operator.execute({"ti": TaskInstance()})
        assert operator.watch_url == (leads_to and f"{cdn.url}/cdn/{generation_id}{leads_to}")

    def test_neither_the_token_nor_a_netrc_goes_to_a_cdn(self, cdn, tmp_path, monkeypatch):
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret")
        generation_id = cdn.submit()
        monkeypatch.setenv("NETRC", str(netrc))
        cdn.answers = [RedirectResponse(f"/cdn/{generation_id}/video.mp4")]
        store(generation_id, tmp_path / "boat.mp4")
        assert len(cdn.asked) == 2
        assert not any("authorization" in asked for asked in cdn.asked)

    def test_what_a_url_has_after_its_path_is_in_no_log_and_no_error(self, cdn, tmp_path, caplog):
        """It may be a key."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/video.mp4?Signature=secret"
        cdn.answers = [RedirectResponse(url)] * download.TRIES
        with caplog.at_level(logging.DEBUG, "airflow_provider_luma"), pytest.raises(LumaConnectionError) as caught:
            store(cdn.submit(), tmp_path / "boat.mp4")
        shown = "".join(traceback.format_exception(caught.value))
        assert "refused" in shown
        assert "secret" not in shown
        assert "secret" not in "".join(record.getMessage() for record in caplog.records if "luma" in record.name)


class TestAddress:
    @pytest.fixture
    def other(self):
        """A port of this machine that is not the gateway's, and what it has received."""
        received = []

        def accept():
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        received.append(connection.recv(1000))

        with socket.create_server(("", 0)) as listener:
            threading.Thread(target=accept, daemon=True).start()
            yield SimpleNamespace(port=listener.getsockname()[1], received=received)

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x.mp4", "gopher://x"])
    def test_only_http_and_https_are_followed(self, url, cdn, tmp_path):
        cdn.answers = [RedirectResponse(url)]
        with pytest.raises(AirflowFailException, match="must be http or https"):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("way", ["directly", "by a redirect"])
    @pytest.mark.parametrize("host", ["localhost", "127.1.2.3", "[::ffff:127.0.0.1]"])
    def test_a_private_address_is_not_contacted(self, host, way, cdn, tmp_path, other):
        """Unless it is the gateway's own."""
        generation_id = cdn.submit()
        url = f"http://{host}:{other.port}/video.mp4"
        if way == "directly":
            cdn.weather(down=True)
        else:
            cdn.answers = [RedirectResponse(url)]
        given = cdn.known(generation_id, url) if way == "directly" else generation_id
        with pytest.raises(AirflowFailException, match="in a private network"):
            store(given, tmp_path / "boat.mp4")
        assert other.received == []

    def test_a_url_is_judged_by_the_host_that_it_is_sent_to(self, cdn, tmp_path, other):
        """And not by the one that another parser finds in it."""
        url = f"http://127.0.0.2:{other.port}\\@127.0.0.1/x.mp4"
        cdn.answers = [PlainTextResponse("", 302, {"Location": url})]
        with pytest.raises(AirflowFailException, match="in a private network"):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert other.received == []

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_the_address_that_is_connected_to_counts(self, scheme, cdn, tmp_path, other, monkeypatch):
        """Whatever the name meant a moment before; and nothing is sent there."""
        looked_up = iter(["93.184.216.34"])
        real = socket.getaddrinfo

        def getaddrinfo(host, *rest, **options):
            address = next(looked_up, "127.0.0.1") if host == "cdn.example.com" else host
            return real(address, *rest, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        cdn.answers = [RedirectResponse(f"{scheme}://cdn.example.com:{other.port}/video.mp4")]
        with pytest.raises(AirflowFailException, match="in a private network"):
            store(cdn.submit(), tmp_path / "boat.mp4")
        assert b"".join(other.received) == b""

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
    def test_an_address_that_is_not_public_is_private(self, address):
        assert not guard._is_public(address)

    @pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"])
    def test_a_public_address_is_none(self, address):
        assert guard._is_public(address)

    def test_a_name_that_only_a_proxy_resolves_is_left_to_the_proxy(self, cdn, tmp_path, monkeypatch):
        """One that is private here is not."""
        generation_id = cdn.submit()
        cdn.weather(down=True)
        with serving_boat() as (proxy, asked):
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            given = cdn.known(generation_id, "http://cdn.invalid/video.mp4")
            assert store(given, tmp_path / "a.mp4")["sha256"] == SHA256
            with pytest.raises(AirflowFailException, match="in a private network"):
                store(cdn.known(generation_id, "http://localhost/video.mp4"), tmp_path / "b.mp4")
        assert asked == ["http://cdn.invalid/video.mp4"]

    @pytest.mark.parametrize("public", ["1.1.1.1", "93.184.216.34"])
    def test_a_name_with_a_private_address_among_others_is_not_fetched(self, public, cdn, tmp_path, monkeypatch):
        """Also through a proxy, which may take any of them."""
        generation_id = cdn.submit()
        cdn.weather(down=True)
        real = socket.getaddrinfo

        def getaddrinfo(host, *rest, **options):
            addresses = [public, "10.0.0.1"] if host == "cdn.example.com" else [host]
            return [found for address in addresses for found in real(address, *rest, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with serving_boat() as (proxy, asked):
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            with pytest.raises(AirflowFailException, match=r"at 10\.0\.0\.1, in a private network"):
                store(cdn.known(generation_id, "http://cdn.example.com/video.mp4"), tmp_path / "boat.mp4")
        assert asked == []

    @pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
    def test_the_connections_verify_is_for_its_own_host_alone(self, cdn, connect, tmp_path, monkeypatch):
        """A CDN's certificate is checked also where the gateway's is not."""
        connect(host=cdn.url, password=TOKEN, extra={"verify": False})
        monkeypatch.setattr(guard, "_is_public", lambda address: True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(context)
        with serving_boat(context) as (server, asked):
            cdn.answers = [RedirectResponse(f"https://127.0.0.1:{server.server_port}/gateway.mp4")]
            assert store(cdn.submit(), tmp_path / "a.mp4")["sha256"] == SHA256
            cdn.answers = [RedirectResponse(f"https://localhost:{server.server_port}/cdn.mp4")] * download.TRIES
            with pytest.raises(LumaConnectionError, match="certificate"):
                store(cdn.submit(), tmp_path / "b.mp4")
        assert asked == ["/gateway.mp4"]
        assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


class TestGiven:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"generation": ["a", "b"]}, "expand"),
            ({"generation": None}, "an id"),
            ({"generation": ""}, "id must be"),
            ({"generation": "{'id': 'x'}"}, "output"),
            ({"generation": {"video_url": "https://x"}}, "as the sensor returns it"),
            ({"generation": "../outside"}, "an id"),
            ({"generation": {"id": "a/b", "state": "completed"}}, "an id"),
            ({"asset": "audio"}, "video_raw"),
            ({"replace": "no"}, "True or False"),
        ],
    )
    def test_a_wrong_argument_is_an_error_when_the_dag_is_parsed(self, arguments, says):
        with DAG("dag", schedule=None), pytest.raises(AirflowFailException, match=says):
            LumaDownloadVideoOperator(task_id="d", **{"generation": "x", "destination": "/data/", **arguments})

    def test_a_template_is_checked_when_the_task_runs(self):
        operator = LumaDownloadVideoOperator(task_id="d", generation="{{ x }}", destination="{{ y }}", asset="{{ z }}")
        operator.asset = "audio"
        with pytest.raises(AirflowFailException, match="video_raw"):
            operator.execute({})


class TestProgress:
    @pytest.fixture
    def progress(self, connect, tmp_path, caplog):
        """What is logged of how far a large file has come."""
        large = tmp_path / "large.mp4"
        large.write_bytes(b"\0\0\0\x20ftypisom" + bytes(30_000_000))

        def progress():
            with Cdn(video=str(large)) as cdn, caplog.at_level(logging.INFO):
                connect(host=cdn.url, password=TOKEN)
                store(cdn.submit(), tmp_path / "there.mp4")
            return [line for line in caplog.messages if " % of " in line]

        return progress

    def test_of_a_download_that_takes_long_its_percent_is_logged(self, progress, monkeypatch):
        monkeypatch.setattr(download, "PROGRESS_INTERVAL", 0.0)
        lines = progress()
        assert len(lines) > 10
        assert all(line.endswith(" % of 30,000,012 bytes.") for line in lines)
        percents = [int(line.split()[0]) for line in lines]
        assert percents == sorted(percents)
        assert percents[-1] < 100

    def test_of_a_download_that_takes_seconds_only_the_end_is_logged(self, progress, monkeypatch, caplog, capsys):
        monkeypatch.setattr(download, "PROGRESS_INTERVAL", 3600.0)
        assert progress() == []
        assert "there.mp4: 30,000,012 bytes, SHA-256" in capsys.readouterr().out + caplog.text

"""Videos in the user's storage, on a disk and in an object store, from a CDN that has errors."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
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
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import trustme
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from airflow_provider_luma.api import (
    LumaConnectionError,
    LumaError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaRateLimited,
    LumaServerError,
    download,
    guard,
    transfer,
)
from airflow_provider_luma.operators import storage
from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator
from tests.support.cdn import BOAT, Cdn, after, answer_of, refusing, serving_boat, tunnel
from tests.support.samples import TOKEN
from tests.support.task_instance import TaskInstance

SHA256 = hashlib.sha256(BOAT).hexdigest()
OTHER = BOAT[:1000] + BOAT[1000:][::-1]
"""Another video of the same length."""

TRIES = 8
"""The requests in a minute of growing pauses."""

LARGE = b"\0\0\0\x20ftypisom" + os.urandom(20_000_000)
BUCKET = "s3://aws_default@bucket"


@pytest.fixture
def cdn(connect):
    with Cdn() as cdn:
        connect(host=cdn.url, password=TOKEN)
        yield cdn


@pytest.fixture
def large_cdn(connect, tmp_path):
    """A CDN whose video has 20 MB."""
    video = tmp_path / "large.mp4"
    video.write_bytes(LARGE)
    with Cdn(video=str(video)) as cdn:
        connect(host=cdn.url, password=TOKEN)
        yield cdn


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses of a download in seconds; no test waits for them."""
    seconds = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=seconds.append, monotonic=time.monotonic))
    return seconds


@pytest.fixture
def boat(tmp_path):
    """A path for the video, in a folder that contains nothing else."""
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder / "boat.mp4"


@pytest.fixture
def resolve(monkeypatch):
    """Let the name cdn.example.com resolve to these lists of addresses in turn; the last list stays."""

    def resolve(*answers):
        left, real = list(answers), socket.getaddrinfo

        def getaddrinfo(host, *rest, **options):
            addresses = [host]
            if host == "cdn.example.com":
                addresses = left.pop(0) if len(left) > 1 else left[0]
            return [found for address in addresses for found in real(address, *rest, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


def store(generation, destination, **arguments):
    """Run the operator, and return the XCom `download`."""
    ti = TaskInstance()
    operator = LumaDownloadVideoOperator(
        task_id="download", generation=generation, destination=str(destination), **arguments
    )
    uri = operator.execute({"ti": ti})
    assert ti.xcoms["download"]["path"] == uri
    return ti.xcoms["download"]


def copy(url, api_url=None, **options):
    """Download a URL without an operator, by default from the API's own host."""
    target = SimpleNamespace(write=len, restart=lambda: None)
    return download.Download(url, lambda: url, api_url=api_url or url, **options).copy_to(target)


def object_in(s3, key):
    return requests.get(f"{s3}/bucket/{key}", timeout=10)


class TestDestination:
    @pytest.mark.parametrize("exists", [False, True])
    @pytest.mark.parametrize("folder", ["videos", "2026.11.29", "manual__2026-11-22T17-46-29.091828+00-00", "a.mp4"])
    def test_folder_gets_generation_id(self, folder, exists, cdn, tmp_path):
        """A folder may be new, and may have dots in its name; it may only end like a video if it exists."""
        if exists or folder == "a.mp4":
            (tmp_path / folder).mkdir()
        generation_id = cdn.submit()
        stored = store(generation_id, tmp_path / folder)
        path = tmp_path / folder / f"{generation_id}.mp4"
        assert path.read_bytes() == BOAT
        assert stored.pop("seconds") >= 0
        assert stored == {"path": f"file://{path}", "size": len(BOAT), "sha256": SHA256, "content_type": "video/mp4"}

    def test_accepts_uri_of_this_machine(self, cdn, boat):
        """`file://localhost/folder` is `/folder`."""
        assert store(cdn.submit(), f"file://localhost{boat}")["path"] == f"file://{boat}"
        assert boat.read_bytes() == BOAT

    def test_file_has_usual_rights(self, cdn, tmp_path):
        """The stored file has the mode of any other new file."""
        store(cdn.submit(), (tmp_path / "new" / "boat.mp4").as_uri())
        other = tmp_path / "other"
        other.touch()
        assert (tmp_path / "new" / "boat.mp4").stat().st_mode == other.stat().st_mode

    @pytest.mark.parametrize(
        ("asset", "name"),
        [
            ("video", "{}.mp4"),
            ("video_raw", "{}_raw.mp4"),
            ("thumbnail", "{}_thumbnail.jpg"),
            ("last_frame", "{}_last_frame.jpg"),
        ],
    )
    def test_each_asset_has_own_name(self, asset, name, cdn, tmp_path):
        """The name in a folder says which of the files it is."""
        generation_id = cdn.submit()
        store(generation_id, f"{tmp_path}/", asset=asset)
        assert [path.name for path in tmp_path.iterdir()] == [name.format(generation_id)]

    def test_prefers_url_for_download(self, cdn, tmp_path):
        """If the API gives two URLs for a video, the URL for downloads is used, even if the dict has the other."""
        generation_id = cdn.submit()
        store(generation_id, tmp_path / "a.mp4")
        store(cdn.known(generation_id), tmp_path / "b.mp4")
        assert [asked["path"].rpartition("/")[2] for asked in cdn.asked] == ["video_raw.mp4", "video_raw.mp4"]

    @pytest.mark.parametrize("destination", [f"{BUCKET}/videos/", f"{BUCKET}/videos"])
    def test_object_store_uses_its_connection(self, destination, cdn, s3):
        """The URI contains the connection of the store, so that it can be opened again."""
        generation_id = cdn.submit()
        stored = store(generation_id, destination)
        assert stored["sha256"] == SHA256
        assert stored["path"].endswith(f"bucket/videos/{generation_id}.mp4")
        assert ObjectStoragePath(stored["path"]).read_bytes() == BOAT
        assert object_in(s3, f"videos/{generation_id}.mp4").content == BOAT

    def test_uploads_large_object_in_parts(self, large_cdn, s3):
        """A download that is cut several times becomes one complete object."""
        large_cdn.weather(cdn={"cut": 0.9}, seed=1)
        assert store(large_cdn.submit(), f"{BUCKET}/large.mp4")["sha256"] == hashlib.sha256(LARGE).hexdigest()
        assert object_in(s3, "large.mp4").content == LARGE
        assert len(large_cdn.asked) > 5

    @pytest.mark.parametrize("given", ["photos/", "s4://bucket/x", "https://example.com/x.mp4", "file://data/x.mp4"])
    def test_refuses_unwritable_destination_first(self, given, cdn, tmp_path, monkeypatch):
        """The error names the destination, and nothing is downloaded."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(AirflowFailException, match=re.escape(given)):
            store(cdn.submit(), given)
        assert cdn.asked == []
        assert list(tmp_path.iterdir()) == []


class TestCompleteness:
    def test_cut_download_resumes(self, cdn, boat, caplog):
        """A download that is cut twenty times continues after the last byte each time."""
        cdn.weather(cdn={"cut": 1})
        with caplog.at_level(logging.INFO):
            assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert boat.read_bytes() == BOAT
        starts = [int(asked.get("range", "bytes=0-")[6:-1]) for asked in cdn.asked]
        assert starts == sorted(set(starts))
        assert len(starts) >= 20
        assert all(asked["if-range"].startswith('"') for asked in cdn.asked[1:])
        assert "Resuming after" in caplog.text

    def test_starts_over_without_ranges(self, connect, boat):
        """A CDN that cannot send parts sends the whole file again."""
        with Cdn(ranges=False) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 0.7}, seed=3)
            assert store(cdn.submit(), boat)["sha256"] == SHA256
            assert len(cdn.asked) > 2
        assert boat.read_bytes() == BOAT

    def test_incomplete_download_leaves_no_file(self, connect, boat):
        """A video that never arrives completely fails the task and may be retried."""
        with Cdn(ranges=False) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 1})
            with pytest.raises(LumaConnectionError, match=r"broke|cut after"):
                store(cdn.submit(), boat)
        assert list(boat.parent.iterdir()) == []

    def test_incomplete_download_leaves_no_upload(self, cdn, s3):
        """No upload stays in the object store, neither the last nor an earlier try."""
        seen = []

        def uploads():
            return "<UploadId>" in requests.get(f"{s3}/bucket?uploads", timeout=10).text

        cut = answer_of(bytes(storage.BLOCK + 1), announced=3 * storage.BLOCK)
        cdn.answers = [after(lambda: seen.append(uploads()), cut) for _ in range(TRIES)]
        with pytest.raises(LumaConnectionError, match=r"broke|cut after"):
            store(cdn.submit(), f"{BUCKET}/boat.mp4")
        assert seen == [False, *[True] * (TRIES - 1)]
        assert not uploads()
        assert object_in(s3, "boat.mp4").status_code == 404

    def test_cancelled_upload_stays_closed(self, s3):
        """fsspec keeps a cancelled upload, and s3fs would hang on an open one when the process ends."""
        path = storage.open_path(f"{BUCKET}/boat.mp4")
        with storage.new_file(path) as file:
            file.write(b"x")
            file.restart()
        assert [upload.closed for upload in list(path.fs.transaction.files)[-2:]] == [True, True]

    @pytest.mark.parametrize("size", [1000, 2 * len(BOAT)])
    @pytest.mark.parametrize("folder", ["disk", "object store"])
    def test_changed_file_starts_over(self, folder, size, cdn, boat, s3):
        """No byte of the old file remains, even if the old file was longer."""
        cdn.answers = [answer_of(b"x" * (size - 1), announced=size, etag='"old"')]
        path = str(boat) if folder == "disk" else f"{BUCKET}/boat.mp4"
        assert store(cdn.submit(), path)["size"] == len(BOAT)
        assert ObjectStoragePath(path).read_bytes() == BOAT
        assert cdn.asked[1]["range"] == f"bytes={size - 1}-"
        assert cdn.asked[1]["if-range"] == '"old"'

    @pytest.mark.parametrize(
        ("headers", "resumes"),
        [
            ({"last_modified": "Sat, 21 Nov 2026 09:00:00 GMT"}, True),
            ({"etag": 'W/"a"', "last_modified": "Sat, 21 Nov 2026 09:00:00 GMT"}, True),
            ({"etag": 'W/"a"'}, False),
            ({}, False),
        ],
    )
    def test_resuming_needs_validator(self, headers, resumes, cdn, boat):
        """Only a strong ETag or a date can show that a part belongs to the same file."""
        rest = answer_of(BOAT[1000:], status=206, content_range=f"bytes 1000-30218/{len(BOAT)}", **headers)
        cdn.answers = [answer_of(BOAT[:1000], announced=len(BOAT), **headers), rest if resumes else None]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert cdn.asked[1].get("range") == ("bytes=1000-" if resumes else None)
        assert cdn.asked[1].get("if-range") == (headers["last_modified"] if resumes else None)

    @pytest.mark.parametrize("first", ['"a"', None])
    @pytest.mark.parametrize("second", ['"b"', 'W/"a"', None])
    def test_never_joins_two_files(self, first, second, cdn, boat):
        """A part with another validator, or without one, is not added, even if the CDN ignores `If-Range`."""
        old, new = ({"etag": etag} if etag else {} for etag in (first, second))

        async def ignoring_the_condition(scope, receive, send):
            asked = "range" in cdn.asked[-1]
            part = answer_of(BOAT[1000:], status=206, content_range=f"bytes 1000-30218/{len(BOAT)}", **new)
            await (part if asked else answer_of(BOAT, **new))(scope, receive, send)

        cdn.answers = [answer_of(b"x" * 1000, announced=len(BOAT), **old), *[ignoring_the_condition] * 2]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert boat.read_bytes() == BOAT

    @pytest.mark.parametrize(
        ("status", "content_range"),
        [
            (416, ""),
            (206, "bytes 3-12/30219"),
            (206, "bytes 1000-1009/1010"),
            (206, "bytes 1000-1009/*"),
            (206, ""),
        ],
    )
    def test_wrong_part_starts_over(self, status, content_range, cdn, boat):
        """A part that begins elsewhere, or belongs to a file of another length, is not used."""
        part = answer_of(b"x" * 10, status=status, content_range=content_range, etag='"a"')
        cdn.answers = [answer_of(BOAT[:1000], announced=len(BOAT), etag='"a"'), part]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert boat.read_bytes() == BOAT
        assert cdn.asked[1]["range"] == "bytes=1000-"
        assert "range" not in cdn.asked[2]

    def test_short_part_is_not_the_end(self, cdn, boat):
        """After a part that is shorter than requested, the rest is requested."""
        part = answer_of(BOAT[1000:1010], status=206, content_range=f"bytes 1000-1009/{len(BOAT)}", etag='"a"')
        rest = answer_of(BOAT[1010:], status=206, content_range=f"bytes 1010-30218/{len(BOAT)}", etag='"a"')
        cdn.answers = [answer_of(BOAT[:1000], announced=len(BOAT), etag='"a"'), part, rest]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert boat.read_bytes() == BOAT
        assert cdn.asked[2]["range"] == "bytes=1010-"

    def test_surplus_bytes_start_over(self, cdn, boat):
        """More bytes than announced are not stored."""
        more = answer_of(b"x" * 600, status=206, content_range="bytes 600-999/1000", etag='"a"')
        cdn.answers = [answer_of(b"x" * 600, announced=1000, etag='"a"'), more]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert boat.read_bytes() == BOAT
        assert "range" not in cdn.asked[2]

    @pytest.mark.parametrize(
        "page",
        [
            PlainTextResponse("Bad Gateway"),
            JSONResponse({"error": "gone"}, media_type="application/octet-stream"),
            PlainTextResponse("\n <html>", media_type="video/mp4"),
            PlainTextResponse("\ufeff<html>", media_type="video/mp4"),
        ],
    )
    def test_page_is_never_stored(self, page, cdn, boat):
        """A page is recognised by its type or by its first character."""
        cdn.answers = [page] * TRIES
        with pytest.raises(LumaServerError, match="page"):
            store(cdn.submit(), boat)
        assert list(boat.parent.iterdir()) == []

    def test_page_after_first_byte(self, cdn, boat):
        """A page is also recognised if its first byte arrives alone, before the text."""

        async def page(scope, receive, send):
            headers = [(b"content-type", b"video/mp4"), (b"content-length", b"7")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            await asyncio.sleep(0.2)
            await send({"type": "http.response.body", "body": b"<html>"})

        cdn.answers = [page] * TRIES
        with pytest.raises(LumaServerError, match="page"):
            store(cdn.submit(), boat)
        assert list(boat.parent.iterdir()) == []

    @pytest.mark.parametrize(
        "head", [b"", b"Content-Length: 0\r\n", b"Content-Encoding: br\r\nContent-Length: 30219\r\n"]
    )
    def test_refuses_file_without_end(self, head, cdn, boat):
        """Without a length or an end marker, an incomplete file would look complete."""
        server = serving_boat(head=b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        with server as (port, asked), pytest.raises(LumaServerError, match=r"gives no length|encoded file"):
            copy(f"http://127.0.0.1:{port}/video.mp4")
        assert len(asked) == TRIES

    @pytest.mark.parametrize("encoding", ["Identity", "IDENTITY", "", "aws-chunked", "identity, aws-chunked"])
    def test_stores_unencoded_file(self, encoding, cdn, boat):
        """These encodings mean that the bytes are the file's own."""
        cdn.answers = [answer_of(BOAT, content_encoding=encoding)] * TRIES
        assert store(cdn.submit(), boat)["sha256"] == SHA256

    @pytest.mark.parametrize("cut", [False, True])
    def test_stores_chunked_file(self, cut, cdn, boat):
        """A file without a length is complete after its end marker; without the marker it is requested again."""

        async def chunked(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"a"')]})
            await send({"type": "http.response.body", "body": BOAT[:2000], "more_body": True})
            if cut:
                scope["state"]["close"]()
                await receive()
            await send({"type": "http.response.body", "body": BOAT[2000:]})

        cdn.answers = [chunked]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert boat.read_bytes() == BOAT
        assert ["range" in asked for asked in cdn.asked] == [False, False][: 1 + cut]

    @pytest.mark.parametrize("cut", [False, True])
    @pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
    def test_decompresses_compressed_file(self, encoding, cut, cdn, boat):
        """The video itself is stored if a CDN compresses it; a truncated stream is requested again."""
        body = gzip.compress(BOAT)
        cdn.answers = [answer_of(body[: -100 if cut else None], content_encoding=encoding)]
        assert store(cdn.submit(), boat)["size"] == len(BOAT)
        assert boat.read_bytes() == BOAT
        assert len(cdn.asked) == 1 + cut

    def test_unknown_length_needs_comparison(self, cdn, boat):
        """If the CDN does not announce the length, an existing file is compared with the download."""
        compressed = answer_of(gzip.compress(BOAT), content_encoding="gzip")
        generation_id = cdn.submit()
        cdn.answers = [compressed] * 3
        first, again = store(generation_id, boat.parent), store(generation_id, boat.parent)
        assert {**first, "seconds": 0} == {**again, "seconds": 0}
        Path(first["path"].removeprefix("file://")).write_bytes(b"mine")
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(generation_id, boat.parent)

    @pytest.mark.parametrize("announced", [5 * 2**30 + 1, None])
    def test_limits_size_of_file(self, announced, cdn, boat, monkeypatch):
        """A file of more than 5 GiB is refused, whether its size is announced or not."""
        compressed = answer_of(gzip.compress(BOAT), content_encoding="gzip")
        if announced is None:
            monkeypatch.setattr(transfer, "MAX_SIZE", 10_000)
        cdn.answers = [answer_of(BOAT, announced=announced) if announced else compressed]
        with pytest.raises(AirflowFailException, match=r"larger than [\d,]+ bytes"):
            store(cdn.submit(), boat)
        assert list(boat.parent.iterdir()) == []

    def test_asks_for_uncompressed_file(self, cdn, boat):
        """A CDN that can compress does not, because the length would be another."""

        async def compressing(scope, receive, send):
            accepted = dict(scope["headers"])[b"accept-encoding"].decode()
            whole = answer_of(BOAT, content_type="video/mp4")
            answer = answer_of(gzip.compress(BOAT), content_encoding="gzip") if "gzip" in accepted else whole
            await answer(scope, receive, send)

        cdn.answers = [compressing] * TRIES
        assert store(cdn.submit(), boat)["sha256"] == SHA256

    def test_next_task_removes_leftovers(self, cdn, tmp_path):
        """A killed process leaves a hidden file, which the next task with the same destination removes."""
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
        assert begun.wait(100)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (left,) = tmp_path.iterdir()
        assert re.fullmatch(rf"\.{generation_id}\.mp4\.\w+\.part", left.name)
        assert store(generation_id, tmp_path)["sha256"] == SHA256
        assert [path.name for path in tmp_path.iterdir()] == [f"{generation_id}.mp4"]

    def test_full_disk_is_not_retried(self, cdn, boat, monkeypatch):
        """An error of the disk is not taken for a broken connection."""

        def write(file, data):
            with Path("/dev/full").open("wb", buffering=0) as full:
                full.write(data)

        monkeypatch.setattr(storage.NewLocalFile, "write", write)
        with pytest.raises(LumaError, match=r"boat\.mp4.*No space left.*not full"):
            store(cdn.submit(), boat)
        assert len(cdn.asked) == 1
        assert list(boat.parent.iterdir()) == []


class TestStore:
    @pytest.fixture
    def refusing_store(self, s3, monkeypatch):
        """Return the URI of the bucket, on a connection whose store refuses some requests."""
        with ExitStack() as stack:

            def refusing_store(*refused):
                url = stack.enter_context(refusing(s3, *refused))
                # Airflow looks each connection up once, so each test needs another.
                name = f"aws_{uuid.uuid4().hex}"
                extra = {"endpoint_url": url, "region_name": "us-east-1"}
                connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
                monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
                return f"s3://{name}@bucket"

            yield refusing_store

    def test_refused_lookup_is_not_absence(self, cdn, s3, refusing_store):
        """If the store refuses to say whether an object exists, nothing is replaced."""
        ObjectStoragePath(f"{BUCKET}/boat.mp4").write_bytes(b"mine")
        with pytest.raises(LumaError, match=r"bucket/boat\.mp4.*PermissionError.*connection.*look up"):
            store(cdn.submit(), f"{refusing_store('HEAD')}/boat.mp4")
        assert ObjectStoragePath(f"{BUCKET}/boat.mp4").read_bytes() == b"mine"

    def test_reports_first_cause(self, large_cdn, s3, refusing_store, caplog):
        """If a part cannot be uploaded and the upload cannot be cancelled, the error is that of the part."""
        bucket = refusing_store("PUT .*partNumber=2", "DELETE")
        with caplog.at_level(logging.INFO), pytest.raises(LumaError, match=r"boat\.mp4.*PermissionError") as caught:
            store(large_cdn.submit(), f"{bucket}/boat.mp4")
        assert "UploadPart" in "".join(traceback.format_exception(caught.value))
        assert "AbortMultipartUpload" not in str(caught.value)
        assert "boat.mp4 was not cancelled" in caplog.text

    @pytest.mark.parametrize("destination", ["s3://aws_default@no-bucket/boat.mp4", "/dev/null/boat.mp4"])
    def test_error_names_file(self, destination, cdn, s3):
        """An error of the store names the file, its store and a remedy, and may be retried."""
        with pytest.raises(LumaError, match=rf"{destination}.*Check that the disk or bucket exists"):
            store(cdn.submit(), destination)


class TestPatience:
    @pytest.mark.parametrize("failure", ["html", "json", "500", "429"])
    def test_waits_out_trouble(self, failure, cdn, boat, pauses):
        """Pages and errors of the CDN are retried, with a pause before each request."""
        cdn.weather(cdn={failure: 0.6}, seed=4)
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert len(pauses) == len(cdn.asked) - 1 > 0

    @pytest.mark.parametrize(("status", "error"), [(429, LumaRateLimited), (503, LumaServerError)])
    def test_respects_retry_after(self, status, error, cdn, tmp_path, pauses):
        """The pause is as long as the CDN asks for; the final error carries it for the task's own retry."""
        busy = PlainTextResponse("busy", status, {"Retry-After": "40"})
        generation_id = cdn.submit()
        cdn.answers = [busy]
        assert store(generation_id, tmp_path / "boat.mp4")["sha256"] == SHA256
        assert [seconds >= 40 for seconds in pauses] == [True]
        cdn.answers = [busy] * TRIES
        with pytest.raises(error) as caught:
            store(generation_id, tmp_path / "other.mp4")
        assert caught.value.retry_after == 40

    def test_long_retry_after_ends_download(self, cdn, boat, pauses):
        """A CDN that asks for an hour does not keep the worker; the task's own retry comes later."""
        cdn.answers = [PlainTextResponse("busy", 503, {"Retry-After": "3600"})] * TRIES
        with pytest.raises(LumaServerError) as caught:
            store(cdn.submit(), boat)
        assert sum(pauses) <= 60
        assert caught.value.retry_after == 3600

    def test_slow_headers_time_out(self):
        """The timeout limits all headers together, not only the time between two bytes."""
        began = time.monotonic()
        with serving_boat(pause=0.3) as (port, asked), pytest.raises(LumaConnectionError, match="no answer in time"):
            copy(f"http://127.0.0.1:{port}/video.mp4", timeout=1)
        assert len(asked) == TRIES
        assert time.monotonic() - began < TRIES * 2

    def test_gives_up_after_a_minute(self, cdn, boat, pauses):
        """The pauses grow, and last about a minute together."""
        cdn.weather(cdn={"500": 1})
        with pytest.raises(LumaServerError):
            store(cdn.submit(), boat)
        assert len(cdn.asked) == TRIES
        assert pauses[0] < 1
        assert pauses[:5] == sorted(pauses[:5])
        assert 40 < sum(pauses) < 70

    def test_stalled_download_resumes(self, cdn, connect, boat):
        """After the timeout, the download continues after the bytes that arrived."""

        async def stalling(scope, receive, send):
            async def until_client_is_gone():
                while (await receive())["type"] != "http.disconnect":
                    pass

            headers = [(b"content-length", str(len(BOAT)).encode()), (b"etag", b'"boat"')]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": BOAT[:1000], "more_body": True})
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(until_client_is_gone(), 30)
            await send({"type": "http.response.body", "body": BOAT[1000:]})

        connect(host=cdn.url, password=TOKEN, extra={"timeout": 1})
        cdn.answers = [stalling]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert [asked.get("range") for asked in cdn.asked] == [None, "bytes=1000-"]


class TestExistingFile:
    @pytest.mark.parametrize("replace", [False, True])
    @pytest.mark.parametrize("folder", ["disk", "object store"])
    def test_same_length_stays_in_folder(self, folder, replace, cdn, boat, s3):
        """The result is that of the first time, and only the headers are requested."""
        where = f"{boat.parent}" if folder == "disk" else f"{BUCKET}/"
        generation_id = cdn.submit()
        first = store(generation_id, where)
        written = ObjectStoragePath(first["path"]).stat()
        again = store(generation_id, where, replace=replace)
        assert {**again, "seconds": 0} == {**first, "seconds": 0}
        now = ObjectStoragePath(first["path"]).stat()
        assert (now.get("ino"), now.st_mtime) == (written.get("ino"), written.st_mtime)
        assert len(cdn.asked) == 2

    @pytest.mark.parametrize("name", ["boat.mp4", "{}.mp4"])
    @pytest.mark.parametrize("folder", ["disk", "object store"])
    def test_other_length_needs_replace(self, folder, name, cdn, boat, s3, caplog):
        """The error is raised before the video is downloaded."""
        generation_id = cdn.submit()
        where = str(boat.parent) if folder == "disk" else BUCKET
        path = ObjectStoragePath(f"{where}/{name.format(generation_id)}")
        path.write_bytes(b"mine")
        with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException, match="replace=True"):
            store(generation_id, path, replace="False")
        assert path.read_bytes() == b"mine"
        assert len(cdn.asked) == 1
        assert store(generation_id, path, replace="True")["sha256"] == SHA256
        assert path.read_bytes() == BOAT
        assert len(cdn.asked) == 2
        assert len(list(path.parent.iterdir())) == 1

    @pytest.mark.parametrize("prompt", ["A paper boat", "A sunrise"])
    def test_other_video_needs_replace(self, prompt, cdn, boat):
        """The video of another generation is not replaced, whether it has the same length or not."""
        store(cdn.submit(), boat)
        if prompt == "A paper boat":
            cdn.answers = [answer_of(OTHER, content_type="video/mp4")] * 2
        second = cdn.submit(prompt)
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(second, boat)
        assert boat.read_bytes() == BOAT
        stored = store(second, boat, replace=True)
        assert stored["sha256"] == hashlib.sha256(boat.read_bytes()).hexdigest() != SHA256
        assert list(boat.parent.iterdir()) == [boat]

    def test_same_video_stays(self, cdn, boat):
        """The same video under a name from the user is not written again."""
        generation_id = cdn.submit()
        first = store(generation_id, boat)
        written = boat.stat()
        assert store(generation_id, boat)["sha256"] == first["sha256"]
        assert (boat.stat().st_ino, boat.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
        assert list(boat.parent.iterdir()) == [boat]

    def test_page_proves_no_difference(self, cdn, tmp_path):
        """A page of another length does not mean that the stored video is another file."""
        generation_id = cdn.submit()
        store(generation_id, tmp_path)
        cdn.answers = [PlainTextResponse("<html>", media_type="video/mp4"), None]
        assert store(generation_id, tmp_path)["sha256"] == SHA256

    @pytest.mark.parametrize("folder", ["disk", "object store"])
    def test_keeps_file_stored_meanwhile(self, folder, cdn, boat, s3):
        """A file that appears during the download is not replaced."""
        root = str(boat.parent) if folder == "disk" else BUCKET
        path = ObjectStoragePath(f"{root}/boat.mp4")

        def appear():
            if folder == "disk":
                boat.write_bytes(b"mine")
            else:
                requests.put(f"{s3}/bucket/boat.mp4", data=b"mine", timeout=10)

        ObjectStoragePath(f"{root}/older.mp4").write_bytes(b"older")
        # The client of an object store remembers this listing.
        assert len(list(path.parent.iterdir())) == 1
        cdn.answers = [after(appear, cdn.sandbox)]
        with pytest.raises(AirflowFailException, match="replace=True"):
            store(cdn.submit(), path)
        assert path.read_bytes() == b"mine"
        assert len(list(path.parent.iterdir())) == 2

    def test_accepts_same_video_meanwhile(self, cdn, boat):
        """The same video can appear from an earlier try that Airflow gave up on."""
        cdn.answers = [after(lambda: boat.write_bytes(BOAT), cdn.sandbox)]
        assert store(cdn.submit(), boat)["sha256"] == SHA256
        assert list(boat.parent.iterdir()) == [boat]

    def test_later_of_two_tasks_stores(self, cdn, boat):
        """If two tasks have one destination, the earlier task fails and does not publish the incomplete file."""
        with ExitStack() as later_task:
            later = storage.new_file(ObjectStoragePath(str(boat)))
            cdn.answers = [after(lambda: later_task.enter_context(later), cdn.sandbox)]
            with pytest.raises(LumaError, match=r"FileNotFoundError.*\.part"):
                store(cdn.submit(), boat)
            assert not boat.exists()
            later.write(BOAT)
            later.publish()
        assert boat.read_bytes() == BOAT
        assert list(boat.parent.iterdir()) == [boat]


class TestUrl:
    def test_replaces_each_expired_url(self, connect, boat):
        """A long download gets several URLs, and resumes after each."""
        now = [0.0]
        with Cdn(url_seconds=10, clock=lambda: now[0]) as cdn:
            connect(host=cdn.url, password=TOKEN)
            cdn.weather(cdn={"cut": 1})

            async def late(scope, receive, send):
                now[0] += 11
                await cdn.sandbox(scope, receive, send)

            cdn.answers = [None, late] * 3
            assert store(cdn.submit(), boat)["sha256"] == SHA256
            assert cdn.report()["polls"] == 1 + 3
            assert all("range" in asked for asked in cdn.asked[1:])
            assert len({asked["path"] for asked in cdn.asked}) == 1 + 3

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_replaces_refused_url(self, status, cdn, boat, pauses):
        """If the fresh URLs are refused as well, the task fails after a minute."""
        generation_id = cdn.submit()
        cdn.answers = [PlainTextResponse("no", status)]
        assert store(generation_id, boat)["sha256"] == SHA256
        assert cdn.report()["polls"] == 2
        assert sum(pauses) < 1
        cdn.answers = [PlainTextResponse("no", status)] * TRIES
        with pytest.raises(LumaNotFound, match=f"HTTP {status}"):
            store(generation_id, boat.with_name("b.mp4"))
        assert cdn.answers == []
        assert cdn.report()["polls"] == 2 + TRIES
        assert list(boat.parent.iterdir()) == [boat]

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
    def test_trouble_keeps_url(self, status, cdn, boat):
        """An error of the CDN does not mean that the URL expired."""
        generation_id = cdn.submit()
        cdn.answers = [PlainTextResponse("later", status)]
        assert store(generation_id, boat)["sha256"] == SHA256
        assert cdn.report()["polls"] == 1

    def test_asks_to_wait_first(self, connect, boat):
        """The error for a generation that is not completed names the sensor."""
        with Cdn(seconds=600) as cdn:
            connect(host=cdn.url, password=TOKEN)
            with pytest.raises(LumaError, match="wait for it with LumaGenerationSensor"):
                store(cdn.submit(), boat)

    def test_failed_generation_is_not_retried(self, cdn, boat):
        """A failed generation never gets a video."""
        with pytest.raises(AirflowFailException, match="Job failed"):
            store(cdn.submit("A boat [fail]"), boat)

    @pytest.mark.parametrize("location", [b"/cdn/{id}/vid\xc3\xa9o.mp4", b"/cdn/{id}/vid%C3%A9o.mp4"])
    def test_follows_redirect_with_utf8(self, location, cdn, boat):
        """A redirect may contain raw UTF-8."""
        generation_id = cdn.submit()

        async def redirect(scope, receive, send):
            headers = [(b"location", location.replace(b"{id}", generation_id.encode()))]
            await send({"type": "http.response.start", "status": 302, "headers": headers})
            await send({"type": "http.response.body"})

        cdn.answers = [redirect, answer_of(BOAT)]
        assert store(generation_id, boat)["sha256"] == SHA256
        assert cdn.asked[1]["path"] == f"/cdn/{generation_id}/vidéo.mp4"

    def test_endless_redirects_fail(self, cdn, boat):
        """A CDN that redirects forever is given up."""
        cdn.answers = [RedirectResponse("/cdn/again")] * (TRIES * (download.REDIRECTS + 1))
        with pytest.raises(LumaServerError, match="redirects more than"):
            store(cdn.submit(), boat)
        assert cdn.answers == []

    @pytest.mark.parametrize(("asset", "watched"), [("video", "/video_raw.mp4"), ("thumbnail", None)])
    def test_watch_link_needs_video(self, asset, watched, cdn, tmp_path):
        """The link to watch a video does not point to an image."""
        generation_id = cdn.submit()
        operator = LumaDownloadVideoOperator(
            task_id="download", generation=generation_id, destination=f"{tmp_path}/", asset=asset
        )
        operator.execute({"ti": TaskInstance()})
        assert operator.watch_url == (watched and f"{cdn.url}/cdn/{generation_id}{watched}")

    def test_cdn_receives_no_password(self, cdn, boat, monkeypatch):
        """Neither the token nor a password from a .netrc file is sent to a CDN."""
        netrc = boat.parent.parent / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret")
        generation_id = cdn.submit()
        monkeypatch.setenv("NETRC", str(netrc))
        cdn.answers = [RedirectResponse(f"/cdn/{generation_id}/video.mp4")]
        store(generation_id, boat)
        assert len(cdn.asked) == 2
        assert not any("authorization" in asked for asked in cdn.asked)

    def test_query_is_never_shown(self, cdn, boat, caplog, monkeypatch):
        """The query of a URL may be a key, so it is in no log message and no error."""
        monkeypatch.setattr(guard, "is_public", lambda address: True)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/video.mp4?Signature=secret"
        cdn.answers = [RedirectResponse(url)] * TRIES
        with caplog.at_level(logging.DEBUG, "airflow_provider_luma"), pytest.raises(LumaConnectionError) as caught:
            store(cdn.submit(), boat)
        shown = "".join(traceback.format_exception(caught.value))
        assert "refused" in shown
        assert "secret" not in shown
        assert "secret" not in "".join(record.getMessage() for record in caplog.records if "luma" in record.name)


class TestAddress:
    @pytest.fixture
    def other(self):
        """A port of this machine that the API does not use, and the bytes that it received."""
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

    @pytest.fixture
    def proxy(self, monkeypatch):
        """The paths that a proxy received; it serves a video for each."""
        with serving_boat() as (port, asked):
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            yield asked

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/x.mp4", "gopher://x"])
    def test_refuses_other_schemes(self, url, cdn, boat):
        """Only http and https URLs are requested."""
        cdn.answers = [RedirectResponse(url)]
        with pytest.raises(AirflowFailException, match="must be http or https"):
            store(cdn.submit(), boat)
        assert list(boat.parent.iterdir()) == []

    @pytest.mark.parametrize("redirected", [False, True])
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::ffff:127.0.0.1]"])
    def test_private_address_is_not_contacted(self, host, redirected, cdn, boat, other):
        """A private address is refused as the URL and as a redirect, even on another port of the API's host."""
        url = f"http://{host}:{other.port}/video.mp4"
        cdn.answers = [RedirectResponse(url)]
        with pytest.raises((AirflowFailException, LumaInvalidRequest), match="in a private network"):
            store(cdn.submit(), boat) if redirected else copy(url, api_url=cdn.url)
        assert other.received == []

    def test_checks_host_after_parsing(self, cdn, boat, other):
        """The host that receives the request is checked, not the host that another parser finds."""
        url = f"http://127.0.0.2:{other.port}\\@127.0.0.1/x.mp4"
        cdn.answers = [PlainTextResponse("", 302, {"Location": url})]
        with pytest.raises(AirflowFailException, match="in a private network"):
            store(cdn.submit(), boat)
        assert other.received == []

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_checks_connected_address(self, scheme, cdn, boat, other, resolve):
        """If a name resolves differently when the connection is made, nothing is sent."""
        resolve(["93.184.216.34"], ["127.0.0.1"])
        cdn.answers = [RedirectResponse(f"{scheme}://cdn.example.com:{other.port}/video.mp4")]
        with pytest.raises(AirflowFailException, match="in a private network"):
            store(cdn.submit(), boat)
        assert b"".join(other.received) == b""

    @pytest.mark.parametrize(
        ("addresses", "public"),
        [
            ("93.184.216.34 2606:2800:220:1:248:1893:25c8:1946 64:ff9b::5db8:d822", True),
            ("10.0.0.1 169.254.169.254 192.168.1.1 172.16.0.1 100.64.0.1 224.0.0.1", False),
            ("fe80::1%eth0 fd00::1 fec0::1 ::1 ::", False),
            ("64:ff9b::a9fe:a9fe 2002:7f00:1:: ::7f00:1", False),
            ("64:ff9b:1::7f00:1 64:ff9b:1::5db8:d822 ::ffff:0:7f00:1 ::ffff:0:5db8:d822", False),
            ("2606:4700::5efe:7f00:1 2606:4700::200:5efe:a9fe:a9fe fe80::5efe:5db8:d822", False),
            ("168.63.129.16 64:ff9b::a83f:8110 192.0.0.192 5f00::1 2001:db8::1", False),
        ],
    )
    def test_tells_public_from_private(self, addresses, public):
        """An IPv6 address that contains a private IPv4 address is private."""
        assert [guard.is_public(address) for address in addresses.split()] == [public] * len(addresses.split())

    def test_api_host_is_no_exception(self, resolve):
        """If the API has a public address, its host may not resolve to a private address later."""
        with serving_boat() as (port, asked):
            resolve(["93.184.216.34"], ["127.0.0.1"])
            api_url = f"http://cdn.example.com:{port}"
            with pytest.raises(LumaInvalidRequest, match="in a private network"):
                copy(f"{api_url}/video.mp4", api_url=api_url)
        assert asked == []

    def test_private_api_stays_allowed(self, resolve):
        """The connection may name a host in a private network, which then also serves the files."""
        with serving_boat() as (port, asked):
            resolve(["127.0.0.1"])
            api_url = f"http://cdn.example.com:{port}"
            assert copy(f"{api_url}/video.mp4", api_url=api_url).sha256 == SHA256
        assert asked == ["/video.mp4"]

    def test_default_port_is_same_port(self, proxy):
        """A connection with port 80 and a URL without a port mean the same host and port."""
        assert copy("http://localhost/video.mp4", api_url="http://localhost:80").sha256 == SHA256
        assert proxy == ["http://localhost/video.mp4"]

    @pytest.mark.parametrize("password", ["pa/ss", "pa#ss", "pass"])
    def test_error_names_only_proxy_host(self, password, monkeypatch):
        """The password of a proxy is in no error, even if it makes the proxy's URL invalid."""
        monkeypatch.setenv("http_proxy", f"http://user:{password}@proxy.invalid:3128")
        with pytest.raises(LumaConnectionError, match=r"proxy.*proxy\.invalid:3128.*HTTP_PROXY") as caught:
            copy("http://cdn.invalid/video.mp4")
        shown = "".join(traceback.format_exception(caught.value))
        assert "user" not in str(caught.value)
        assert "pa" not in re.sub(r"ca\w+|pa(th|rt|ge|tience|used|ck\w+)", "", str(caught.value))
        assert password not in shown

    def test_proxy_resolves_unknown_names(self, proxy):
        """A name that only the proxy can resolve is left to the proxy; a private name is refused."""
        assert copy("http://cdn.invalid/video.mp4", api_url="http://127.0.0.1:1").sha256 == SHA256
        with pytest.raises(LumaInvalidRequest, match="in a private network"):
            copy("http://localhost/video.mp4", api_url="http://127.0.0.1:1")
        assert proxy == ["http://cdn.invalid/video.mp4"]

    @pytest.mark.parametrize("public", ["1.1.1.1", "93.184.216.34"])
    def test_one_private_address_refuses_all(self, public, proxy, resolve):
        """A proxy could use any address of a name, so all must be public."""
        resolve([public, "10.0.0.1"])
        with pytest.raises(LumaInvalidRequest, match=r"10\.0\.0\.1, in a private network"):
            copy("http://cdn.example.com/video.mp4")
        assert proxy == []

    @pytest.fixture
    def authority(self):
        return trustme.CA()

    @pytest.fixture
    def tls(self, authority, monkeypatch):
        """The port of a CDN with a certificate of a private authority, at a name that counts as public."""
        monkeypatch.setattr(guard, "is_public", lambda address: True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        with serving_boat(context) as (port, _):
            yield port

    @pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
    def test_cdn_certificate_is_always_checked(self, tls):
        """`verify: false` is for the API's own host and port only; the error names the ways to trust a CDN."""
        api_url = f"https://127.0.0.1:{tls}"
        assert copy(f"{api_url}/video.mp4", api_url=api_url, verify=False).sha256 == SHA256
        with pytest.raises(LumaConnectionError, match=r"certificate.*'verify', or REQUESTS_CA_BUNDLE"):
            copy(f"https://localhost:{tls}/video.mp4", api_url=api_url, verify=False)

    @pytest.mark.parametrize("through_proxy", [False, True])
    def test_ca_bundle_counts_for_cdn(self, through_proxy, tls, authority, tmp_path, monkeypatch):
        """A CA bundle in `verify` is also trusted for files, with or without a proxy."""
        bundle = tmp_path / "bundle.pem"
        authority.cert_pem.write_to_path(bundle)
        api_url = "https://127.0.0.1:1"
        with ExitStack() as stack:
            if through_proxy:
                monkeypatch.setenv("https_proxy", stack.enter_context(tunnel()))
            assert copy(f"https://localhost:{tls}/video.mp4", api_url=api_url, verify=str(bundle)).sha256 == SHA256


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"generation": ["a", "b"]}, "expand"),
            ({"generation": None}, "generation id"),
            ({"generation": ""}, "id must be"),
            ({"generation": "{'id': 'x'}"}, "output"),
            ({"generation": {"video_url": "https://x"}}, "not a dict that the sensor returns"),
            ({"generation": "../outside"}, "generation id"),
            ({"generation": {"id": "a/b", "state": "completed"}}, "generation id"),
            ({"asset": "audio"}, "video_raw"),
            ({"replace": "no"}, "True or False"),
        ],
    )
    def test_wrong_argument_fails_task(self, arguments, says, cdn):
        """Arguments are checked when the task runs, because templates are rendered then."""
        operator = LumaDownloadVideoOperator(task_id="d", **{"generation": "x", "destination": "/data/", **arguments})
        with pytest.raises(AirflowFailException, match=says):
            operator.execute({"ti": TaskInstance()})
        assert cdn.report()["requests"] == 0


class TestProgress:
    def test_logs_progress_of_long_download(self, large_cdn, boat, monkeypatch, caplog):
        """The log shows how much of a large file has arrived."""
        monkeypatch.setattr(transfer, "PROGRESS_INTERVAL", 0.0)
        with caplog.at_level(logging.INFO):
            store(large_cdn.submit(), boat)
        lines = [line for line in caplog.messages if re.match(r"[\d,]+ of ", line)]
        assert len(lines) > 10
        assert all(line.endswith(f" of {len(LARGE):,} bytes.") for line in lines)
        counts = [int(line.split()[0].replace(",", "")) for line in lines]
        assert counts == sorted(counts)
        assert counts[-1] < len(LARGE)

    def test_logs_only_end_of_short_download(self, large_cdn, boat, monkeypatch, caplog, capsys):
        """A download of a few seconds logs one line."""
        monkeypatch.setattr(transfer, "PROGRESS_INTERVAL", 3600.0)
        with caplog.at_level(logging.INFO):
            store(large_cdn.submit(), boat)
        assert not re.search(r"[\d,]+ of [\d,]+ bytes", caplog.text)
        assert f"boat.mp4: {len(LARGE):,} bytes, SHA-256" in capsys.readouterr().out + caplog.text

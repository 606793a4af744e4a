"""Images that an operator reads from storage and sends with the request."""

from __future__ import annotations

import base64
import json
import re

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath

from airflow_provider_luma.api import LumaError
from airflow_provider_luma.operators.images import MAX_IMAGE_BYTES
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sandbox.clips import FOLDER
from tests.support.raw_answers import far_end, json_answer
from tests.support.samples import PROMPT, TOKEN
from tests.support.task_instance import TaskInstance
from tests.support.tries import Store

JPEG = (FOLDER / "boat.jpg").read_bytes()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
WEBP = b"RIFF\x10\0\0\0WEBPVP8 " + bytes(100)


@pytest.fixture
def sent(sandbox):
    """Return the bodies of all submissions so far."""
    return lambda: [request.body for request in sandbox.requests if request.method == "POST"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "frame.png"


def submit(operator=LumaGenerateVideoOperator, store=None, **arguments):
    ti = TaskInstance()
    task = operator(task_id="submit", user_prompt=PROMPT, **arguments)
    return task.execute({"ti": ti, "task_state_store": store})


@pytest.mark.parametrize(("content", "kind"), [(JPEG, "jpeg"), (PNG, "png"), (WEBP, "webp")])
@pytest.mark.parametrize("name", ["image_url", "image_end_url"])
def test_content_decides_image_type(name, content, kind, connection, sent, tmp_path, caplog):
    """The type does not depend on the file's name; the log names the path and does not contain the image."""
    path = tmp_path / "frame.gif"
    path.write_bytes(content)
    with caplog.at_level("INFO"):
        submit(**{name: path.as_uri()})
    assert sent() == [{"user_prompt": PROMPT, name: f"data:image/{kind};base64,{base64.b64encode(content).decode()}"}]
    assert str(path) in caplog.text
    assert "base64" not in caplog.text


@pytest.mark.parametrize("given", [str, ObjectStoragePath])
def test_reads_image_from_object_store(given, connection, sent, s3):
    """The URI can be text or the path object of an earlier task."""
    requests.put(f"{s3}/bucket/frame", data=PNG, timeout=10).raise_for_status()
    submit(image_url=given("s3://aws_default@bucket/frame"))
    assert base64.b64decode(sent()[0]["image_url"].partition(",")[2]) == PNG


def test_local_path_needs_no_scheme(connection, sent, path):
    """A path is accepted as text and as a path object."""
    path.write_bytes(PNG)
    submit(image_url=str(path), image_end_url=path)
    assert sent()[0]["image_url"] == sent()[0]["image_end_url"]


def test_extension_reads_images_too(connection, sent, path):
    """The extend operator reads its last frame from storage."""
    path.write_bytes(PNG)
    submit(LumaExtendVideoOperator, generation_id=submit(), image_end_url=str(path))
    assert sent()[1]["image_end_url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "image", ["https://example.com/x.png", "HTTPS://EXAMPLE.COM/x.png", "data:image/png;base64,AAAA"]
)
def test_web_address_stays_unchanged(image, connect):
    """The API fetches web addresses, so they are sent without a change."""
    with far_end(json_answer(b'{"id": "x"}')) as (url, requests):
        connect(host=url, password=TOKEN)
        submit(image_url=image)
    assert json.loads(requests[0].partition(b"\r\n\r\n")[2])["image_url"] == image


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"GIF89a" + bytes(100), "not a PNG, JPEG or WebP"),
        (b"<html>", "not a PNG, JPEG or WebP"),
        (WEBP.replace(b"WEBP", b"WAVE"), "not a PNG, JPEG or WebP"),
        (PNG + bytes(MAX_IMAGE_BYTES), "larger than 10 MiB"),
        (None, "FileNotFoundError"),
        ("folder", "IsADirectoryError"),
    ],
)
def test_refuses_other_files_by_name(content, says, connection, sandbox, path):
    """A file that is not an image fails the task before anything is sent."""
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(AirflowFailException, match=says) as caught:
        submit(image_url=str(path))
    assert str(path) in str(caught.value)
    assert "image_url" in str(caught.value)
    assert sandbox.report()["requests"] == 0


def test_unreadable_store_is_retried(connection, sandbox, path):
    """A store that fails for now is left to the task's retries, and nothing is sent."""
    path.symlink_to(path.name)
    with pytest.raises(LumaError, match=r"image_url.*cannot be used: .*symbolic links.*Check that"):
        submit(image_url=str(path))
    assert sandbox.report()["requests"] == 0


def test_sends_image_of_10_mib(connection, sent, path):
    """10 MiB is the largest accepted size."""
    path.write_bytes(PNG.ljust(MAX_IMAGE_BYTES, b"\0"))
    submit(image_url=str(path))
    assert len(sent()) == 1


@pytest.mark.parametrize("image", ["photo.png", "s3:/bucket/key", "gopher://x"])
def test_refuses_neither_url_nor_path(image, connection, sandbox):
    """The error names the value, and nothing is sent."""
    with pytest.raises(AirflowFailException, match=re.escape(image)):
        submit(image_url=image)
    assert sandbox.report()["requests"] == 0


def test_resuming_does_not_read_image(connection, sandbox, sent, path):
    """A retry resumes the submission although the image was deleted."""
    path.write_bytes(PNG)
    memory = Store()
    first = submit(store=memory, image_url=str(path))
    path.unlink()
    assert submit(store=memory, image_url=str(path)) == first
    assert len(sent()) == 1

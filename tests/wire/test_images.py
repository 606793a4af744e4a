"""Images that are read from storage and sent in the request."""

from __future__ import annotations

import base64
import json
import re

import pytest
import requests
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, ObjectStoragePath

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
    """The bodies of all submissions so far, whole."""
    return lambda: [request.body for request in sandbox.requests if request.method == "POST"]


def submit(operator=LumaGenerateVideoOperator, store=None, **arguments):
    ti = TaskInstance()
    task = operator(task_id="submit", user_prompt=PROMPT, **arguments)
    return task.execute({"ti": ti, "task_state_store": store})


@pytest.mark.parametrize(("content", "kind"), [(JPEG, "jpeg"), (PNG, "png"), (WEBP, "webp")])
@pytest.mark.parametrize("name", ["image_url", "image_end_url"])
def test_an_image_on_disk_is_sent_as_what_its_content_is(name, content, kind, connection, sent, tmp_path, caplog):
    """The log says where it came from, and does not hold it."""
    path = tmp_path / "frame.gif"
    path.write_bytes(content)
    with caplog.at_level("INFO"):
        submit(**{name: path.as_uri()})
    assert sent() == [{"user_prompt": PROMPT, name: f"data:image/{kind};base64,{base64.b64encode(content).decode()}"}]
    assert str(path) in caplog.text
    assert "base64" not in caplog.text


@pytest.mark.parametrize("given", [str, ObjectStoragePath])
def test_an_image_in_an_object_store_is_sent(given, connection, sent, s3):
    requests.put(f"{s3}/bucket/frame", data=PNG, timeout=10).raise_for_status()
    submit(image_url=given("s3://aws_default@bucket/frame"))
    assert base64.b64decode(sent()[0]["image_url"].partition(",")[2]) == PNG


def test_a_path_on_disk_needs_no_scheme(connection, sent, tmp_path):
    path = tmp_path / "frame.png"
    path.write_bytes(PNG)
    submit(image_url=str(path), image_end_url=path)
    assert sent()[0]["image_url"] == sent()[0]["image_end_url"]


def test_an_extension_takes_images_too(connection, sent, sandbox, tmp_path):
    path = tmp_path / "frame.png"
    path.write_bytes(PNG)
    first = submit()
    submit(LumaExtendVideoOperator, generation_id=first, image_end_url=str(path))
    assert sent()[1]["image_end_url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "image", ["https://example.com/x.png", "HTTPS://EXAMPLE.COM/x.png", "data:image/png;base64,AAAA"]
)
def test_an_image_that_the_gateway_can_fetch_itself_is_sent_as_it_is(image, connect):
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
        (None, "is no file"),
    ],
)
def test_what_is_no_image_is_refused_by_name_before_anything_is_sent(content, says, connection, sandbox, tmp_path):
    path = tmp_path / "frame.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AirflowFailException, match=says) as caught:
        submit(image_url=str(path))
    assert str(path) in str(caught.value)
    assert "image_url" in str(caught.value)
    assert sandbox.report()["requests"] == 0


def test_a_folder_is_no_image(connection, sandbox, tmp_path):
    with pytest.raises(AirflowFailException, match=r"image_url.*is no file"):
        submit(image_url=str(tmp_path))
    assert sandbox.report()["requests"] == 0


def test_an_image_in_storage_that_cannot_be_read_now_is_left_to_the_tasks_retries(
    connection, sandbox, tmp_path, monkeypatch
):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(ObjectStoragePath, "open", unreachable)
    with pytest.raises(LumaError, match=r"image_url.*cannot be read: .*no route to host.*Nothing was sent"):
        submit(image_url=str(tmp_path / "frame.png"))
    assert sandbox.report()["requests"] == 0


def test_an_image_of_10_mib_is_sent(connection, sent, tmp_path):
    path = tmp_path / "frame.png"
    path.write_bytes(PNG.ljust(MAX_IMAGE_BYTES, b"\0"))
    submit(image_url=str(path))
    assert len(sent()) == 1


@pytest.mark.parametrize("image", ["photo.png", "s3:/bucket/key", "gopher://x"])
def test_what_is_neither_url_nor_path_is_refused_by_name(image, connection, sandbox):
    with DAG("dag", schedule=None), pytest.raises(AirflowFailException, match=re.escape(image)):
        LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, image_url=image).execute({"ti": TaskInstance()})
    assert sandbox.report()["requests"] == 0


def test_a_retry_resumes_without_reading_the_image_again(connection, sandbox, sent, tmp_path):
    path = tmp_path / "frame.png"
    path.write_bytes(PNG)
    memory = Store()
    first = submit(store=memory, image_url=str(path))
    path.unlink()
    assert submit(store=memory, image_url=str(path)) == first
    assert len(sent()) == 1

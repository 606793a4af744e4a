"""The sandbox does what its page and its help say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sandbox.__main__ import main
from airflow_provider_luma.sandbox.clips import CLIPS, FOLDER, VERTICAL, pick
from airflow_provider_luma.sandbox.failures import Cut
from tests.support import far_end
from tests.support.far_end import Answer, Clock

FIXTURES = Path(__file__).parents[1] / "fixtures"
TOKEN = {"Authorization": "Bearer sk-test"}


def call(sandbox, method, path, body=None, *, headers=TOKEN, timeout=10.0) -> Answer:
    return far_end.call(sandbox, method, path, body, headers=headers, timeout=timeout)


def submit(sandbox, prompt="a paper boat crosses a puddle", **fields) -> Answer:
    return call(sandbox, "POST", "/luma/generations", {"user_prompt": prompt, **fields})


def submitted_id(sandbox, prompt="a paper boat crosses a puddle", **fields) -> str:
    return submit(sandbox, prompt, **fields).json["id"]


def query(sandbox, task_id) -> Answer:
    return call(sandbox, "GET", f"/luma/generations/{task_id}")


def agents_query(sandbox, generation_id) -> Any:
    headers = {"Authorization": "Bearer luma-api-test"}
    return call(sandbox, "GET", f"/v1/generations/{generation_id}", headers=headers).json


def fixture(name) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


def shape(value) -> Any:
    """The names in a JSON value, and the kinds of what they hold."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="module")
def running():
    """One sandbox for all tests that need no settings of their own."""
    with Sandbox(seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running):
    running.reset()
    return running


@pytest.fixture
def slow_sandbox(clock):
    with Sandbox(seconds=10, clock=clock) as sandbox:
        yield sandbox


@pytest.mark.parametrize("submit_shape", ["flat", "envelope", "bare"])
def test_a_submission_is_answered_in_the_shape_that_is_set(submit_shape):
    """A submission is answered in the shape that was asked for, as the contract has it."""
    with Sandbox(submit_shape=submit_shape) as sandbox:
        answer = submit(sandbox)

        assert answer.status == 200
        assert shape(answer.json) == shape(fixture(f"submit_{submit_shape}.json"))
        task_id = sandbox.report()["generations"][0]["id"]
        assert task_id in answer.content.decode()


def test_a_generation_is_pending_then_processing_then_completed(slow_sandbox, clock):
    """A generation is pending for a fifth of its time, then processing, then completed."""
    task_id = submitted_id(slow_sandbox)

    assert shape(query(slow_sandbox, task_id).json) == shape(fixture("get_pending.json"))
    clock.now += 2
    processing = query(slow_sandbox, task_id).json
    assert shape(processing) == shape(fixture("get_processing.json"))
    assert processing["estimate_wait_seconds"] == 8
    clock.now += 7.9
    assert query(slow_sandbox, task_id).json["state"] == "processing"
    clock.now += 0.1
    completed = query(slow_sandbox, task_id).json
    assert completed["state"] == "completed"
    assert shape(completed) == shape(fixture("get_completed.json"))


def test_slow_takes_ten_times_as_long(slow_sandbox, clock):
    """`[slow]` takes ten times as long."""
    task_id = submitted_id(slow_sandbox, "a snail [slow]")

    clock.now += 99
    assert query(slow_sandbox, task_id).json["state"] == "processing"
    clock.now += 1
    assert query(slow_sandbox, task_id).json["state"] == "completed"


@pytest.mark.parametrize(
    ("word", "reason"),
    [("[fail]", "Job failed"), ("[Moderated]", "Advanced prompt moderation failed")],
)
def test_fail_and_moderated_end_as_failed_and_are_refunded(slow_sandbox, clock, word, reason):
    """`[fail]` and `[moderated]` end as failed and are refunded, and not before."""
    task_id = submitted_id(slow_sandbox, f"a {word} boat")
    assert slow_sandbox.report()["refunded"] == 0

    clock.now += 10
    failed = query(slow_sandbox, task_id).json
    assert shape(failed) == shape(fixture("get_failed.json"))
    assert failed["state"] == "failed"
    assert failed["failure_reason"] == reason
    report = slow_sandbox.report()
    assert (report["charged"], report["refunded"]) == (1, 1)


def test_429_is_refused_twice_then_accepted(sandbox):
    """`[429]` is refused twice with a second to wait, and then accepted."""
    answers = [submit(sandbox, "a boat [429]") for _ in range(3)]

    assert [answer.status for answer in answers] == [429, 429, 200]
    assert [answer.headers.get("retry-after") for answer in answers] == ["1", "1", None]
    report = sandbox.report()
    assert (report["charged"], report["refused"]) == (1, 2)


def test_429_with_seconds_is_refused_once(sandbox):
    """`[429:7]` is refused once, with 7 seconds to wait."""
    answers = [submit(sandbox, "a boat [429:7]") for _ in range(2)]

    assert [answer.status for answer in answers] == [429, 200]
    assert answers[0].headers["retry-after"] == "7"


def test_500_is_not_charged(sandbox):
    """`[500]` is answered with a page and not charged."""
    answer = submit(sandbox, "a boat [500]")

    assert answer.status == 500
    assert answer.headers["content-type"].startswith("text/html")
    assert sandbox.report()["charged"] == 0


def test_html_is_charged_and_answered_with_a_page(sandbox):
    """`[html]` is charged, and answered 200 with a page."""
    answer = submit(sandbox, "a boat [html]")

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert sandbox.report()["charged"] == 1


def test_drop_is_charged_and_the_connection_is_cut(sandbox, caplog):
    """`[drop]` is charged, then the connection is cut without a word in the log."""
    with pytest.raises(RemoteDisconnected):
        submit(sandbox, "a boat [drop]")

    assert sandbox.report()["charged"] == 1
    assert not caplog.records


def test_hang_is_charged_and_never_answered():
    """`[hang]` is charged and never answered, and does not hold up the end of the sandbox."""
    with Sandbox(seconds=0) as sandbox:
        with pytest.raises(TimeoutError):
            call(sandbox, "POST", "/luma/generations", {"user_prompt": "a boat [hang]"}, timeout=0.2)
        assert sandbox.report()["charged"] == 1
        connection = HTTPConnection("127.0.0.1", sandbox.port, timeout=10)
        connection.request("POST", "/luma/generations", json.dumps({"user_prompt": "a [hang] boat"}), TOKEN)
        while sandbox.report()["charged"] < 2:
            pass

    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        connection.getresponse()
    connection.close()


def test_every_second_query_of_a_flaky_one_fails(sandbox):
    """`[flaky]` is answered 502 with a page on every second status query."""
    task_id = submitted_id(sandbox, "a boat [flaky]")

    answers = [query(sandbox, task_id) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 502, 200, 502]
    assert answers[1].headers["content-type"].startswith("text/html")


def test_an_extension_is_a_generation_of_its_own(sandbox):
    """An extension is a generation of its own that knows its parent, and the words work in it too."""
    parent = submitted_id(sandbox)

    extension = call(sandbox, "POST", f"/luma/generations/{parent}/extend", {"user_prompt": "on it goes [fail]"})

    assert extension.status == 200
    assert extension.json["id"] != parent
    assert sandbox.report()["generations"][1]["parent"] == parent
    assert query(sandbox, extension.json["id"]).json["state"] == "failed"


def test_only_a_completed_generation_can_be_extended(slow_sandbox):
    """Neither an unknown generation nor an unfinished one can be extended."""
    body = {"user_prompt": "on it goes"}
    unfinished = submitted_id(slow_sandbox)

    assert call(slow_sandbox, "POST", f"/luma/generations/{unfinished}/extend", body).status == 400
    unknown = call(slow_sandbox, "POST", "/luma/generations/unknown/extend", body)
    assert (unknown.status, unknown.json) == (400, fixture("error_task.json"))
    assert slow_sandbox.report()["charged"] == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="cut-off"),
        pytest.param(b"\xff", id="not-utf-8"),
        pytest.param(b'{"user_prompt": "a \\ud800 boat"}', id="lone-surrogate"),
        pytest.param([], id="no-object"),
        pytest.param({}, id="empty"),
        pytest.param({"user_prompt": "  "}, id="blank"),
        pytest.param({"user_prompt": "ab"}, id="short"),
        pytest.param({"user_prompt": "a" * 5001}, id="long"),
        pytest.param({"user_prompt": "ab", "image_url": "https://example.com/a.png"}, id="short-with-image"),
        pytest.param({"user_prompt": 5}, id="prompt-number"),
        pytest.param({"user_prompt": "a boat", "model_name": None}, id="null"),
        pytest.param({"user_prompt": "a boat", "loop": "true"}, id="loop-string"),
        pytest.param({"user_prompt": "a boat", "image_url": "boat.png"}, id="image-path"),
        pytest.param({"user_prompt": "a boat", "loop": True, "image_end_url": "https://e.com/a.png"}, id="loop-end"),
    ],
)
def test_a_bad_submission_is_refused_and_not_charged(sandbox, body):
    """What the gateway does not take is refused with 400 and not charged."""
    answer = call(sandbox, "POST", "/luma/generations", body)

    assert answer.status == 400
    assert set(answer.json) == {"code", "message", "data"}
    assert answer.json["data"] is None
    report = sandbox.report()
    assert (report["charged"], report["refused"]) == (0, 1)


@pytest.mark.parametrize(
    "body",
    [
        {"user_prompt": "abc"},
        {"user_prompt": "a" * 5000},
        {"image_url": "data:image/png;base64,AAAA"},
        {"user_prompt": "a boat", "model_name": "ray-v9", "loop": True, "brand_new_field": [1]},
    ],
    ids=["shortest", "longest", "image-alone", "new-fields"],
)
def test_a_prompt_an_image_alone_and_new_fields_are_accepted(sandbox, body):
    """A prompt, an image alone and fields that are not known yet are accepted."""
    assert call(sandbox, "POST", "/luma/generations", body).status == 200


def test_any_token_is_accepted_but_none_is_not(sandbox):
    """Any token will do, but none will not."""
    assert submit(sandbox).status == 200
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}):
        refused = call(sandbox, "GET", "/luma/generations/x", headers=headers)
        assert refused.status == 401
        assert shape(refused.json) == shape(fixture("error_openai.json"))


def test_a_token_of_its_own_is_the_only_one():
    """With a token of its own the sandbox takes no other, and the report does not show it."""
    with Sandbox(token="sk-test") as sandbox:
        assert submit(sandbox).status == 200
        other = {"Authorization": "Bearer sk-other"}
        assert call(sandbox, "POST", "/luma/generations", {"user_prompt": "a boat"}, headers=other).status == 401
        assert "sk-" not in json.dumps(sandbox.report())


def test_an_unknown_id_is_answered_400(sandbox):
    """An unknown id is answered as the contract has it."""
    answer = query(sandbox, "unknown")

    assert (answer.status, answer.json) == (400, fixture("error_task.json"))


def test_a_new_id_can_be_unknown_for_a_while(clock):
    """A new id can be unknown for a while."""
    with Sandbox(seconds=0, visible_after=3, clock=clock) as sandbox:
        task_id = submitted_id(sandbox)
        assert query(sandbox, task_id).status == 400
        assert call(sandbox, "POST", "/luma/tasks", {"ids": [task_id]}).json == []
        clock.now += 3
        assert query(sandbox, task_id).status == 200


def test_a_batch_is_answered_in_another_order_without_the_unknown(sandbox):
    """A batch is answered in another order, each id once and without the unknown ones."""
    first, second = submitted_id(sandbox), submitted_id(sandbox)

    answer = call(sandbox, "POST", "/luma/tasks", {"ids": [first, "unknown", second, first]})

    assert [generation["id"] for generation in answer.json] == [second, first]
    assert shape(answer.json[0]) == shape(fixture("get_completed.json"))


def test_a_batch_in_an_envelope_has_the_status_of_each(clock):
    """In an envelope, a generation comes with its status, and without its body before the start and on failure."""
    with Sandbox(batch_shape="envelope", clock=clock) as sandbox:
        ids = [submitted_id(sandbox, "a boat"), submitted_id(sandbox, "a [fail] boat")]
        clock.now += 5
        ids.append(submitted_id(sandbox, "a boat [slow]"))

        def statuses() -> list[tuple[str, str]]:
            answer = call(sandbox, "POST", "/luma/tasks", {"ids": ids}).json
            known = {
                (task["status"], shape(task)["data"] == "NoneType") for task in fixture("tasks_envelope.json")["data"]
            }
            assert {(task["status"], task["data"] is None) for task in answer["data"]} <= known
            assert shape(answer["data"][0]).keys() == shape(fixture("tasks_envelope.json")["data"][0]).keys()
            return [(task["status"], task["fail_reason"]) for task in reversed(answer["data"])]

        assert statuses() == [("IN_PROGRESS", ""), ("IN_PROGRESS", ""), ("NOT_START", "")]
        clock.now += 5
        assert statuses() == [("SUCCESS", ""), ("FAILURE", "Job failed"), ("NOT_START", "")]


def test_a_gateway_without_the_batch_call_answers_404():
    """A gateway without the batch call answers 404."""
    with Sandbox(batch_shape="none") as sandbox:
        assert call(sandbox, "POST", "/luma/tasks", {"ids": []}).status == 404


def test_more_ids_than_the_limit_are_refused():
    """More ids than the limit are refused."""
    with Sandbox(batch_limit=2) as sandbox:
        assert call(sandbox, "POST", "/luma/tasks", {"ids": ["a", "b"]}).status == 200
        assert call(sandbox, "POST", "/luma/tasks", {"ids": ["a", "b", "c"]}).status == 400


@pytest.mark.parametrize("body", [b"", [], {}, {"ids": "abc"}, {"ids": [1]}], ids=str)
def test_a_batch_that_is_no_list_of_ids_is_refused(sandbox, body):
    """A batch that is no list of ids is refused."""
    assert call(sandbox, "POST", "/luma/tasks", body).status == 400


def test_the_gateway_can_be_under_a_path_as_well():
    """The four calls can be under a path as well."""
    with Sandbox(prefix="/v1/") as sandbox:
        task_id = call(sandbox, "POST", "/v1/luma/generations", {"user_prompt": "a boat"}).json["id"]
        assert call(sandbox, "GET", f"/v1/luma/generations/{task_id}").status == 200
        assert len(call(sandbox, "POST", "/v1/luma/tasks", {"ids": [task_id]}).json) == 1
        assert query(sandbox, task_id).status == 200


def test_another_path_is_not_found(sandbox):
    """Any other path is not found."""
    answer = call(sandbox, "GET", "/luma/account")

    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("video.mp4", "video/mp4"),
        ("video_raw.mp4", "video/mp4"),
        ("thumbnail.jpg", "image/jpeg"),
        ("last_frame.jpg", "image/jpeg"),
    ],
)
def test_each_file_is_sent_whole_and_in_part(sandbox, file, kind):
    """Every file of a completed generation is there, whole and in part."""
    path = f"/cdn/{submitted_id(sandbox)}/{file}"

    whole = call(sandbox, "GET", path, headers={})
    assert (whole.status, whole.headers["content-type"]) == (200, kind)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["etag"]
    part = call(sandbox, "GET", path, headers={"Range": "bytes=100-199"})
    assert (part.status, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    head = call(sandbox, "HEAD", path, headers={})
    assert (head.status, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(whole.content)
    assert sandbox.report()["tokens_at_cdn"] == 0


def test_the_files_are_on_the_host_that_was_asked(sandbox):
    """A completed generation says where its files are, on the host that the client asked."""
    task_id = submitted_id(sandbox)

    video = query(sandbox, task_id).json["video"]
    assert video["url"] == f"{sandbox.url}/cdn/{task_id}/video.mp4"
    elsewhere = call(sandbox, "GET", f"/luma/generations/{task_id}", headers={**TOKEN, "Host": "luma.test:99"}).json
    assert elsewhere["last_frame"]["url"] == f"http://luma.test:99/cdn/{task_id}/last_frame.jpg"


def test_an_unfinished_generation_has_no_files(slow_sandbox, clock):
    """Before its end a generation has no files, and an unknown file is never there."""
    task_id = submitted_id(slow_sandbox)

    assert call(slow_sandbox, "GET", f"/cdn/{task_id}/video.mp4").status == 404
    clock.now += 10
    assert call(slow_sandbox, "GET", f"/cdn/{task_id}/boat.mp4").status == 404


def test_a_token_at_the_cdn_is_noticed(sandbox):
    """A token that reaches the CDN is noticed."""
    call(sandbox, "GET", f"/cdn/{submitted_id(sandbox)}/thumbnail.jpg", headers=TOKEN)

    assert sandbox.report()["tokens_at_cdn"] == 1


def test_the_url_of_a_file_can_expire(clock):
    """A file's URL can be good for some seconds only; a later answer has a later one."""
    with Sandbox(seconds=0, url_seconds=10, clock=clock) as sandbox:
        task_id = submitted_id(sandbox)
        first = query(sandbox, task_id).json["video"]["url"].removeprefix(sandbox.url)
        assert call(sandbox, "GET", first, headers={}).status == 200
        clock.now += 11
        assert call(sandbox, "GET", first, headers={}).status == 403
        again = query(sandbox, task_id).json["video"]["url"].removeprefix(sandbox.url)
        assert call(sandbox, "GET", again, headers={}).status == 200


def test_the_video_can_be_a_file_of_ones_own(tmp_path):
    """A file of the user's own can be the video, and files can be sent only whole."""
    video = tmp_path / "video.mp4"
    video.write_bytes(b"ftyp" * 1000)
    with Sandbox(seconds=0, video=str(video), ranges=False) as sandbox:
        path = f"/cdn/{submitted_id(sandbox)}/video.mp4"
        answer = call(sandbox, "GET", path, headers={"Range": "bytes=100-199"})
        assert (answer.status, answer.content) == (200, video.read_bytes())


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        ("403", 403, "text/html"),
        ("429", 429, "application/json"),
        ("500", 500, "text/html"),
        ("503", 503, "text/html"),
        ("html", 200, "text/html"),
        ("json", 200, "application/json"),
    ],
)
def test_downloads_fail_by_chance(failure, status, kind, sandbox):
    """A download can meet trouble."""
    sandbox.weather(cdn={failure: 1})
    answer = call(sandbox, "GET", f"/cdn/{submitted_id(sandbox)}/video.mp4", headers={})
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (status, kind)


def test_a_download_can_be_cut_and_goes_on_from_anywhere(sandbox):
    """A download can be cut after a twentieth of the file, and goes on from wherever it is asked to."""
    path = f"/cdn/{submitted_id(sandbox)}/video.mp4"
    whole = call(sandbox, "GET", path, headers={}).content
    sandbox.weather(cdn={"cut": 1})
    for start in (0, 1000):
        with pytest.raises(IncompleteRead) as caught:
            call(sandbox, "GET", path, headers={"Range": f"bytes={start}-"})
        assert caught.value.partial == whole[start : start + len(whole) // 20 + 1]


def test_the_clips_are_small_and_of_the_size_that_is_said(sandbox):
    """The clips are small, H.264, and of the size that the gateway says."""
    for clip in (*CLIPS, VERTICAL):
        video = clip.path("video.mp4").read_bytes()
        assert len(video) < 60 * 1024
        assert b"avc1" in video
        assert clip.path("thumbnail.jpg").read_bytes() != clip.path("last_frame.jpg").read_bytes()
    assert len(list(FOLDER.iterdir())) == 3 * (len(CLIPS) + 1)
    completed = query(sandbox, submitted_id(sandbox)).json
    assert {**completed["video_raw"], "url": ""} == {
        "url": "",
        "width": 640,
        "height": 360,
        "duration": 4.0,
        "media_type": "video",
    }


@pytest.mark.parametrize(
    ("aspect_ratio", "size"),
    [("9:16", [360, 640, 10.0]), ("3:4", [360, 640, 10.0]), ("16:9", [640, 360, 4.0]), ("1:1", [640, 360, 4.0])],
)
def test_a_vertical_video_is_vertical(sandbox, aspect_ratio, size):
    """Who submits for a vertical video gets the vertical clip, whatever the prompt; who does not, a wide one."""
    generation_id = submitted_id(sandbox, "a boat", aspect_ratio=aspect_ratio)
    video = query(sandbox, generation_id).json["video_raw"]
    content = call(sandbox, "GET", f"/cdn/{generation_id}/video.mp4", headers={}).content
    assert [video[name] for name in ("width", "height", "duration")] == size
    assert (content == VERTICAL.path("video.mp4").read_bytes()) is (size[0] < size[1])


def test_the_same_prompt_gives_the_same_clip():
    """The same prompt gives the same clip, and every clip is given."""
    prompts = [f"prompt {number}" for number in range(30)]

    assert [pick(prompt).name for prompt in prompts[:6]] == [pick(prompt).name for prompt in prompts[:6]]
    assert {pick(prompt) for prompt in prompts} == set(CLIPS)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_a_prompt_that_names_a_clip_gets_it(clip):
    """A prompt that names a clip gets it."""
    assert pick(f"[fail] {clip.name.upper()}, please") is clip


def test_the_report_says_what_was_asked_and_what_it_cost(sandbox):
    """The report says what was asked, by whom, and what it cost."""
    image = "data:image/png;base64," + "A" * 1000
    task_id = submit(sandbox, "a boat", image_url=image, brand_new_field=[1]).json["id"]
    call(sandbox, "GET", f"/luma/generations/{task_id}", headers={**TOKEN, "User-Agent": "airflow"})
    call(sandbox, "POST", "/luma/tasks", {"ids": [task_id]})
    submit(sandbox, "no")

    report = sandbox.report()

    (generation,) = report.pop("generations")
    assert report == {
        "submitted": 1,
        "charged": 1,
        "refunded": 0,
        "refused": 1,
        "polls": 1,
        "batch_polls": 1,
        "requests": 4,
        "at_once": 1,
        "downloads": 0,
        "tokens_at_cdn": 0,
        "user_agents": ["airflow"],
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", generation.pop("submitted_at"))
    assert generation == {
        "id": task_id,
        "api": "gateway",
        "prompt": "a boat",
        "state": "completed",
        "failure_reason": None,
        "body": {"user_prompt": "a boat", "image_url": image[:40], "brand_new_field": [1]},
        "parent": None,
        "polls": 2,
        "charged": True,
        "refunded": False,
        "video_url": f"{sandbox.url}/cdn/{task_id}/video.mp4",
        "thumbnail_url": f"{sandbox.url}/cdn/{task_id}/thumbnail.jpg",
    }


@pytest.mark.parametrize(
    ("word", "status"),
    [("400", 400), ("402", 402), ("403", 403), ("413", 413), ("422", 422), ("502", 502), ("503", 503), ("busy", 429)],
)
def test_a_status_in_a_prompt_refuses_it(word, status, sandbox):
    """Every word that refuses on Luma's own API refuses here, too."""
    assert submit(sandbox, f"a boat [{word}]").status == status
    assert sandbox.report()["charged"] == 0


def test_proxy_is_charged_and_answered_502_with_a_page(sandbox):
    """`[proxy]` is what a proxy in between does to a submission that was accepted."""
    answer = submit(sandbox, "a boat [proxy]")

    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (502, "text/html")
    assert sandbox.report()["charged"] == 1


class TestAddGeneration:
    def test_it_is_there_as_if_it_had_been_submitted(self, sandbox):
        generation_id = sandbox.add_generation("a paper boat")

        assert shape(query(sandbox, generation_id).json) == shape(fixture("get_completed.json"))
        (generation,) = sandbox.report()["generations"]
        assert (generation["prompt"], generation["body"]) == ("a paper boat", {"user_prompt": "a paper boat"})
        assert (sandbox.report()["charged"], sandbox.report()["requests"]) == (1, 1)

    def test_the_words_in_its_prompt_work(self, sandbox):
        failed = query(sandbox, sandbox.add_generation("[moderated]")).json

        assert (failed["state"], failed["failure_reason"]) == ("failed", "Advanced prompt moderation failed")

    @pytest.mark.parametrize("state", ["pending", "processing", "completed", "failed", "dreaming"])
    def test_it_keeps_the_state_that_it_is_given(self, state, sandbox):
        assert query(sandbox, sandbox.add_generation(state=state)).json["state"] == state

    def test_luma_calls_pending_queued(self, sandbox):
        answer = agents_query(sandbox, sandbox.add_generation(api="agents", state="pending"))

        assert shape(answer) == shape(fixture("agents/get_queued.json"))
        assert answer["state"] == "queued"

    def test_it_fails_for_the_reason_that_it_is_given(self, sandbox):
        gateway = sandbox.add_generation(failure_reason="No")
        agents = sandbox.add_generation(api="agents", failure_code="solar_flare", failure_reason="No")
        uncoded = sandbox.add_generation(api="agents", state="failed", failure_code="none")

        assert query(sandbox, gateway).json["failure_reason"] == "No"
        failures = [agents_query(sandbox, one) for one in (agents, uncoded)]
        assert [one["state"] for one in failures] == ["failed", "failed"]
        assert [one["failure_code"] for one in failures] == ["solar_flare", None]
        assert failures[0]["failure_reason"] == "No"

    def test_it_can_be_old_and_take_its_time(self, slow_sandbox, clock):
        generation_id = slow_sandbox.add_generation(seconds=100, age=90)

        assert query(slow_sandbox, generation_id).json["estimate_wait_seconds"] == 10
        clock.now += 10
        assert query(slow_sandbox, generation_id).json["state"] == "completed"

    def test_its_id_its_url_and_any_field_of_the_answer_can_be_given(self, sandbox):
        url = "https://cdn.example.com/boat.mp4"
        given = sandbox.add_generation(generation_id="task-1", video_url=url, answer={"thumbnail": None})

        answer = query(sandbox, "task-1").json
        assert given == answer["id"] == "task-1"
        assert (answer["video"]["url"], answer["video"]["download_url"], answer["thumbnail"]) == (url, url, None)

    def test_it_runs_until_the_test_ends_it(self, slow_sandbox, clock):
        generation_id = slow_sandbox.add_generation(state="processing")
        clock.now += 1000
        assert query(slow_sandbox, generation_id).json["state"] == "processing"
        slow_sandbox.finish(generation_id, after=5)
        clock.now += 4
        assert query(slow_sandbox, generation_id).json["state"] == "processing"
        clock.now += 1
        assert query(slow_sandbox, generation_id).json["state"] == "completed"

    def test_a_submitted_one_can_be_ended_too(self, slow_sandbox):
        generation_id = submitted_id(slow_sandbox, "a boat [fail]")
        slow_sandbox.finish(generation_id)

        assert query(slow_sandbox, generation_id).json["state"] == "failed"


def test_a_removed_generation_is_unknown_until_it_is_added_again(sandbox):
    generation_id = submitted_id(sandbox)
    sandbox.remove_generation(generation_id)
    assert query(sandbox, generation_id).status == 400
    sandbox.add_generation(generation_id=generation_id)
    assert query(sandbox, generation_id).status == 200


def test_settings_can_be_changed_while_it_runs(clock):
    with Sandbox(seconds=10, clock=clock) as sandbox:
        old = submitted_id(sandbox)
        sandbox.change(seconds=0, token="sk-test")
        new = submitted_id(sandbox)

        assert [query(sandbox, one).json["state"] for one in (old, new)] == ["pending", "completed"]
        assert call(sandbox, "GET", "/luma/generations/1", headers={"Authorization": "Bearer other"}).status == 401


class TestRequests:
    def test_it_has_what_was_asked_in_order(self, sandbox):
        image = "data:image/png;base64," + "A" * 1000
        generation_id = submit(sandbox, image_url=image).json["id"]
        call(sandbox, "POST", "/luma/tasks", {"ids": [generation_id]})
        call(sandbox, "GET", f"/cdn/{generation_id}/video.mp4", headers={"Range": "bytes=5-"})
        call(sandbox, "GET", "/v1/files?limit=1")

        submitted, polled, downloaded, listed = sandbox.requests
        assert (submitted.method, submitted.path, submitted.status) == ("POST", "/luma/generations", 200)
        assert submitted.body["image_url"] == image
        assert (polled.path, polled.body) == ("/luma/tasks", {"ids": [generation_id]})
        assert (downloaded.headers["range"], downloaded.body) == ("bytes=5-", None)
        assert (listed.path, listed.query, listed.status) == ("/v1/files", "limit=1", 401)

    def test_it_does_not_show_the_token(self, sandbox):
        submit(sandbox)
        call(sandbox, "GET", "/luma/generations/1", headers={"Authorization": "sk-test"})

        assert [request.headers["authorization"] for request in sandbox.requests] == ["Bearer ***", "***"]
        assert "sk-test" not in str(sandbox.requests)

    def test_it_has_the_time_by_the_sandboxs_clock(self, slow_sandbox, clock):
        submit(slow_sandbox)
        clock.now += 2.5
        submit(slow_sandbox)

        assert [request.at for request in slow_sandbox.requests] == [100.0, 102.5]

    def test_a_request_whose_connection_is_cut_has_no_status(self, sandbox):
        with pytest.raises(RemoteDisconnected):
            submit(sandbox, "a boat [drop]")

        (request,) = sandbox.requests
        assert (request.body["user_prompt"], request.status) == ("a boat [drop]", None)


def test_the_report_has_the_most_calls_at_once():
    """The report says how many calls there were at the same time."""
    with Sandbox(latency=0.3) as sandbox:
        threads = [threading.Thread(target=submit, args=(sandbox,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sandbox.report()["at_once"] == 5


def test_a_reset_forgets_everything(sandbox):
    """A reset forgets everything, the weather too."""
    submit(sandbox)
    sandbox.weather(revoked=True)

    sandbox.reset()

    assert sandbox.report()["requests"] == 0
    assert sandbox.requests == []
    assert submit(sandbox).status == 200


def test_a_browser_gets_a_page_without_what_was_submitted(sandbox):
    """A browser gets a page of its own, which holds nothing that anybody submitted and loads nothing from elsewhere."""
    submit(sandbox, "<script>alert(1)</script>")

    answer = call(sandbox, "GET", "/sandbox", headers={"Accept": "text/html,*/*"})

    assert answer.headers["content-type"].startswith("text/html")
    page = answer.content.decode()
    assert "alert(1)" not in page
    assert "innerHTML" not in page
    assert not re.search(r"(src|href)=[\"']https?:", page)


@pytest.mark.parametrize("failure", ["402", "403", "413", "422", "429", "502", "503"])
def test_submissions_are_refused_by_chance(sandbox, failure):
    """Submissions can be refused by chance, and are then not charged."""
    sandbox.weather(submit={failure: 1})

    assert submit(sandbox).status == int(failure)
    assert sandbox.report()["charged"] == 0


def test_submissions_are_charged_and_cut_by_chance(sandbox):
    """Submissions can be charged and then cut, by chance."""
    sandbox.weather(submit={"drop_after_accept": 1})
    with pytest.raises(RemoteDisconnected):
        submit(sandbox)
    assert sandbox.report()["charged"] == 1


@pytest.mark.parametrize("failure", ["429", "500", "502", "503", "504"])
def test_queries_are_answered_with_an_error_by_chance(sandbox, failure):
    """Status queries, single and batch, can be answered with an error by chance."""
    task_id = submitted_id(sandbox)
    sandbox.weather(status={failure: 1})

    assert query(sandbox, task_id).status == int(failure)
    assert call(sandbox, "POST", "/luma/tasks", {"ids": [task_id]}).status == int(failure)
    assert submit(sandbox).status == 200


def test_queries_are_cut_or_left_hanging_by_chance(sandbox):
    """Status queries can be cut, answered with a page, or left hanging."""
    task_id = submitted_id(sandbox)
    sandbox.weather(status={"html": 1})
    assert query(sandbox, task_id).headers["content-type"].startswith("text/html")
    sandbox.weather(status={"drop": 1})
    with pytest.raises(RemoteDisconnected):
        query(sandbox, task_id)
    sandbox.weather(status={"hang": 1}, hang_seconds=0.05)
    with pytest.raises(RemoteDisconnected):
        query(sandbox, task_id)
    sandbox.weather(status={"hang": 1})
    with pytest.raises(TimeoutError):
        call(sandbox, "GET", f"/luma/generations/{task_id}", timeout=0.2)


def test_the_same_seed_brings_the_same_weather(sandbox):
    """The same seed brings the same weather."""
    task_id = submitted_id(sandbox)

    def forecast() -> list[int]:
        sandbox.weather(status={"429": 0.3, "500": 0.3}, seed=7)
        return [query(sandbox, task_id).status for _ in range(20)]

    first = forecast()
    assert set(first) == {200, 429, 500}
    assert forecast() == first


def test_a_gateway_that_is_down_cuts_every_connection(sandbox):
    """A gateway that is down cuts every connection, until the weather is good again."""
    sandbox.weather(down=True)
    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        submit(sandbox)
    sandbox.weather()
    assert submit(sandbox).status == 200
    assert sandbox.report()["charged"] == 1


def test_a_revoked_token_is_refused_everywhere(sandbox):
    """A revoked token is refused everywhere."""
    task_id = submitted_id(sandbox)
    sandbox.weather(revoked=True)

    assert submit(sandbox).status == query(sandbox, task_id).status == 401


@pytest.mark.parametrize(
    "weather",
    [{"snow": 1}, {"status": {"418": 1}}, {"submit": {"500": 1}}, {"status": {"429": 0.6, "500": 0.6}}, {"status": 1}],
    ids=str,
)
def test_impossible_weather_is_refused(sandbox, weather):
    """Weather that cannot be is refused."""
    with pytest.raises(ValueError, match=r"knows|chances|unexpected|has no attribute|not iterable"):
        sandbox.weather(**weather)
    assert call(sandbox, "POST", "/sandbox/weather", weather).status == 400


@pytest.mark.parametrize("body", [b"{", []], ids=str)
def test_weather_that_is_no_json_object_is_refused(sandbox, body):
    """What is no JSON object is no weather."""
    assert call(sandbox, "POST", "/sandbox/weather", body).status == 400


def test_a_server_that_cannot_cut_connections_says_so():
    """A server whose connections cannot be cut says so instead of answering."""

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    with pytest.raises(ConnectionAbortedError, match="cannot cut"):
        asyncio.run(Cut()({"type": "http"}, receive, send))


def start(*options: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command line, and return it with its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_luma.sandbox", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def test_the_command_says_where_it_listens_and_ends_in_silence():
    """The command says where it listens, and an interrupt ends it in silence, whoever is still waiting."""
    process, line = start("--port", "0", "--seconds", "0", "--submit-shape", "bare")
    with process:
        found = re.search(r"Luma sandbox on http://127\.0\.0\.1:(\d+) · ", line)
        if not found:
            process.kill()
        assert found, line
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=10) as waiting:
            body = b'{"user_prompt": "a boat [hang]"}'
            waiting.sendall(
                b"POST /luma/generations HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer x\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
            charged = 0
            while not charged:
                connection.request("GET", "/sandbox")
                charged = json.loads(connection.getresponse().read())["charged"]
            connection.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert waiting.recv(1) == b""
        assert process.stderr.read() == ""
        shown = re.findall(r"^  export AIRFLOW_CONN_LUMA_DEFAULT='(.+)'$", process.stdout.read(), re.MULTILINE)
        gateway, own = map(json.loads, shown)
        assert gateway == {"conn_type": "luma", "host": f"http://127.0.0.1:{found[1]}", "password": "any-token"}
        assert own == {**gateway, "password": "luma-api-any", "extra": {"api": "agents"}}


def test_a_port_in_use_is_one_line_on_stderr(sandbox, capsys):
    """A port that is taken is one line on stderr, not a traceback."""
    assert main(["--port", str(sandbox.port)]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("The sandbox cannot listen on 127.0.0.1 port")
    assert err.endswith("On a free port: python -m airflow_provider_luma.sandbox --port 0\n")
    assert err.count("\n") == 1


def test_listening_to_the_network_is_warned_about():
    """Listening beyond this machine is done when asked for, with a warning."""
    process, line = start("--port", "0", "--host", "0.0.0.0")  # noqa: S104
    with process:
        assert line.startswith("Luma sandbox on http://0.0.0.0:")
        assert process.stderr.readline().startswith("Warning: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0

"""The record of a task for the Luma tab, and the link to its video."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_luma.links.luma import LINKS, WatchVideoLink
from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from tests.support.samples import PROMPT, TOKEN
from tests.support.task_instance import finish, resume, run

pytestmark = pytest.mark.usefixtures("connection")


def generate(**arguments):
    return LumaGenerateVideoOperator(task_id="submit", **{"user_prompt": PROMPT, **arguments})


def watch(operator):
    return WatchVideoLink().get_link(operator, ti_key=None)


@pytest.fixture(params=["worker", "deferred"])
def deferrable(request, sandbox):
    """Whether the task is deferred: its generation then runs at the first poll."""
    if request.param == "deferred":
        sandbox.change(seconds=60)
    return request.param == "deferred"


class TestLumaTabRecord:
    def test_records_request_and_id(self, ti):
        """A task that submits records the request, the generation id and the time."""
        operator = generate(model_name="ray-v2", extra_body={"aspect_ratio": "16:9"})
        generation_id = run(operator, ti)
        record = ti.xcoms["luma"]
        assert record.pop("submitted_at")
        assert record == {
            "request": {"user_prompt": PROMPT, "model_name": "ray-v2"},
            "generation_id": generation_id,
        }
        assert watch(operator) == ""

    def test_wait_records_generation(self, deferrable, sandbox, ti):
        """A task that waits records the finished generation as well, and has a link to the video."""
        operator = generate(wait_for_completion=True, deferrable=deferrable)
        finish(operator, ti, sandbox)
        record = ti.xcoms["luma"]
        assert set(record) == {"request", "generation_id", "submitted_at", "generation", "seen_at"}
        assert record["generation"] == ti.xcoms["generation"]
        assert watch(operator) == record["generation"]["video_url"]

    def test_deferral_keeps_record(self, sandbox, ti):
        """A deferred task has recorded its request; the next process keeps that."""
        sandbox.change(seconds=60)
        with pytest.raises(TaskDeferred) as deferred:
            run(generate(wait_for_completion=True, deferrable=True), ti)
        before = dict(ti.xcoms["luma"])
        assert set(before) == {"request", "generation_id", "submitted_at"}
        sandbox.finish(before["generation_id"])
        resume(generate(wait_for_completion=True, deferrable=True), deferred.value, ti)
        assert ti.xcoms["luma"].items() >= before.items()

    def test_sensor_records_generation(self, deferrable, sandbox, ti):
        """A sensor records the generation id first, then the generation."""
        generation_id = sandbox.add_generation()
        sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, deferrable=deferrable)
        if deferrable:
            with pytest.raises(TaskDeferred):
                run(sensor, ti)
            assert ti.xcoms["luma"] == {"generation_id": generation_id}
        generation = finish(sensor, ti, sandbox)
        assert ti.xcoms["luma"].pop("seen_at")
        assert ti.xcoms["luma"] == {"generation_id": generation_id, "generation": generation}
        assert watch(sensor) == generation["video_url"]

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_skipped_sensor_records_problem(self, option, deferrable, sandbox, ti):
        """A sensor that is skipped records the generation and why it failed."""
        arguments = {"generation_id": sandbox.add_generation("A boat [fail]"), "deferrable": deferrable}
        with pytest.raises(AirflowSkipException):
            finish(LumaGenerationSensor(task_id="wait", **arguments, **{option: True}), ti, sandbox)
        assert "Job failed" in ti.xcoms["luma"]["problem"]
        assert ti.xcoms["luma"]["generation"]["state"] == "failed"

    def test_failure_records_problem(self, deferrable, sandbox, ti):
        """A task whose generation failed records the reason and what to do."""
        operator = generate(user_prompt="A boat [moderated]", wait_for_completion=True, deferrable=deferrable)
        with pytest.raises(AirflowFailException):
            finish(operator, ti, sandbox)
        record = ti.xcoms["luma"]
        assert record["request"] == {"user_prompt": "A boat [moderated]"}
        assert record["generation"]["failure_reason"] == "Advanced prompt moderation failed"
        assert "change the prompt" in record["problem"]

    def test_download_records_uri(self, sandbox, ti, tmp_path):
        """A download records the URI of the file, and has a link to the video."""
        generation_id = sandbox.add_generation(seconds=0)
        operator = LumaDownloadVideoOperator(task_id="store", generation=generation_id, destination=str(tmp_path))
        uri = run(operator, ti)
        assert ti.xcoms["luma"] == {"generation_id": generation_id, "stored": uri}
        assert watch(operator).startswith("http://")

    def test_rejection_records_problem(self, connect, sandbox, ti):
        """A rejected submission is recorded with its problem, without the token."""
        connect(host=sandbox.url, password="wrong-token-0815")
        with pytest.raises(AirflowFailException):
            run(generate(), ti)
        assert "Check the token" in ti.xcoms["luma"]["problem"]
        assert ti.xcoms["luma"]["request"] == {"user_prompt": PROMPT}
        assert "wrong-token-0815" not in json.dumps(ti.xcoms)

    def test_wrong_argument_records_problem(self, ti):
        """A wrong argument is recorded as the problem."""
        with pytest.raises(AirflowFailException, match="extra_body"):
            run(generate(extra_body="a text"), ti)
        assert "extra_body" in ti.xcoms["luma"]["problem"]

    def test_missing_connection_records_problem(self, ti):
        """A missing connection is recorded as the problem, with how to create it."""
        with pytest.raises(AirflowNotFoundException):
            run(generate(luma_conn_id="nowhere"), ti)
        assert "The connection 'nowhere' does not exist. Create it" in ti.xcoms["luma"]["problem"]

    def test_long_pause_is_no_problem(self, ti):
        """A submission that is deferred because the API asked for a pause has no problem."""
        with pytest.raises(TaskDeferred):
            run(generate(user_prompt="A boat [429:90]"), ti)
        assert ti.xcoms["luma"] == {"request": {"user_prompt": "A boat [429:90]"}}

    def test_record_has_no_secrets(self, ti):
        """The record has no image, no callback, no extra field and no token."""
        image = "data:image/png;base64,iVBORw0KGgo="
        notify_hook = "https://user:hunter2@example.com/hook?key=hunter2"
        secret = {"webhook_secret": "hunter2"}
        run(generate(image_url=image, notify_hook=notify_hook, extra_body=secret), ti)
        assert ti.xcoms["luma"]["request"] == {"user_prompt": PROMPT, "image_url": "data:…"}
        assert "hunter2" not in json.dumps(ti.xcoms)
        assert TOKEN not in json.dumps(ti.xcoms)

    def test_do_xcom_push_false(self, deferrable, sandbox, ti):
        """A task with do_xcom_push=False records nothing, and still has its link."""
        operator = generate(wait_for_completion=True, do_xcom_push=False, deferrable=deferrable)
        finish(operator, ti, sandbox)
        assert ti.xcoms == {}
        assert watch(operator).endswith("/video.mp4")

    def test_refused_record_fails_nothing(self, ti, logged):
        """If Airflow does not accept the record, the task goes on with a warning."""
        push = ti.xcom_push

        def failing(key, value):
            if key == "luma":
                raise OSError("no API server")
            push(key, value)

        ti.xcom_push = failing
        assert run(generate(), ti)
        assert logged("The Luma tab will not show everything about this task")


class TestWatchLink:
    @pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", None, ""])
    def test_links_only_web_addresses(self, url):
        """A URL that is not a web address makes no link."""
        assert watch(SimpleNamespace(watch_url=url)) == ""

    @pytest.mark.parametrize("operator", [LumaGenerateVideoOperator, LumaGenerationSensor, LumaDownloadVideoOperator])
    def test_tasks_have_link(self, operator):
        """Every task that submits, waits or downloads has the link."""
        assert operator.operator_extra_links == LINKS
        assert [type(link) for link in LINKS] == [WatchVideoLink]

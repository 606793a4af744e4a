"""What a task records for the Luma tab, and where its links lead."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.links.luma import LINKS, LumaTaskLink, WatchVideoLink
from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from tests.support.samples import PROMPT, TOKEN
from tests.support.task_instance import TaskInstance, resume, run

SUBMIT = {"task_id": "submit", "user_prompt": PROMPT}


@pytest.fixture
def ti():
    return TaskInstance()


def watch(operator):
    return WatchVideoLink().get_link(operator, ti_key=None)


class TestLumaTabRecord:
    def test_a_submitting_task_records_its_request_and_generation_id(self, connection, ti):
        operator = LumaGenerateVideoOperator(**SUBMIT, model_name="ray-v2", extra_body={"aspect_ratio": "16:9"})
        generation_id = run(operator, ti)
        record = ti.xcoms["luma"]
        assert record.pop("submitted_at")
        assert record == {
            "request": {"user_prompt": PROMPT, "model_name": "ray-v2"},
            "generation_id": generation_id,
        }
        assert watch(operator) == ""

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_task_that_waits_adds_the_generation_to_its_record(self, connection, ti, deferrable):
        arguments = {**SUBMIT, "wait_for_completion": True, "deferrable": deferrable}
        operator = LumaGenerateVideoOperator(**arguments)
        if deferrable:
            with pytest.raises(TaskDeferred) as deferred:
                run(operator, ti)
            assert set(ti.xcoms["luma"]) == {"request", "generation_id", "submitted_at"}
            operator = LumaGenerateVideoOperator(**arguments)
            resume(operator, deferred.value, ti)
        else:
            run(operator, ti)
        record = ti.xcoms["luma"]
        assert set(record) == {"request", "generation_id", "submitted_at", "generation", "seen_at"}
        assert record["generation"] == ti.xcoms["generation"]
        assert watch(operator) == record["generation"]["video_url"]

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_sensor_records_what_it_waits_for_and_then_what_it_saw(self, connection, client, ti, deferrable):
        generation_id = client.submit(PROMPT).id
        sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, deferrable=deferrable)
        generation = run(sensor, ti)
        assert ti.xcoms["luma"].pop("seen_at")
        assert ti.xcoms["luma"] == {"generation_id": generation_id, "generation": generation}
        assert watch(sensor) == generation["video_url"]

    def test_a_sensor_that_is_deferred_records_what_it_waits_for_before(self, connect, ti):
        with Sandbox(token=TOKEN, seconds=60) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            generation_id = LumaHook().submit(PROMPT).id
            sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, deferrable=True)
            with pytest.raises(TaskDeferred) as deferred:
                run(sensor, ti)
            assert ti.xcoms["luma"] == {"generation_id": generation_id}
            sandbox.finish(generation_id)
            generation = resume(sensor, deferred.value, ti)
        assert ti.xcoms["luma"].pop("seen_at")
        assert ti.xcoms["luma"] == {"generation_id": generation_id, "generation": generation}

    @pytest.mark.parametrize("deferrable", [False, True])
    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_a_skipped_sensor_records_why(self, connection, client, ti, deferrable, option):
        generation_id = client.submit("A boat [fail]").id
        arguments = {"generation_id": generation_id, "deferrable": deferrable, option: True}
        sensor = LumaGenerationSensor(task_id="wait", **arguments)
        if deferrable:
            with pytest.raises(TaskDeferred) as deferred:
                run(sensor, ti)
        with pytest.raises((AirflowSkipException, AirflowFailException)):
            resume(sensor, deferred.value, ti) if deferrable else run(sensor, ti)
        assert "Job failed" in ti.xcoms["luma"]["problem"]
        assert ti.xcoms["luma"]["generation"]["state"] == "failed"

    def test_a_download_records_where_the_video_is_and_links_to_the_cdn(self, connection, client, ti, tmp_path):
        generation_id = client.submit(PROMPT).id
        operator = LumaDownloadVideoOperator(task_id="store", generation=generation_id, destination=str(tmp_path))
        uri = run(operator, ti)
        assert ti.xcoms["luma"] == {"generation_id": generation_id, "stored": uri}
        assert watch(operator).startswith("http://")

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_failed_generation_is_recorded_with_its_reason_and_what_to_do(self, connection, ti, deferrable):
        arguments = {**SUBMIT, "user_prompt": "A boat [moderated]", "wait_for_completion": True}
        operator = LumaGenerateVideoOperator(**arguments, deferrable=deferrable)
        if deferrable:
            with pytest.raises(TaskDeferred) as deferred:
                run(operator, ti)
        with pytest.raises(AirflowFailException):
            resume(operator, deferred.value, ti) if deferrable else run(operator, ti)
        record = ti.xcoms["luma"]
        assert record["request"] == {"user_prompt": "A boat [moderated]"}
        assert record["generation"]["failure_reason"] == "Advanced prompt moderation failed"
        assert "change the prompt" in record["problem"]

    def test_a_rejected_submission_is_recorded_without_the_token(self, connect, sandbox, ti):
        connect(host=sandbox.url, password="wrong-token-0815")
        with pytest.raises(AirflowFailException):
            run(LumaGenerateVideoOperator(**SUBMIT), ti)
        assert "Check the token" in ti.xcoms["luma"]["problem"]
        assert ti.xcoms["luma"]["request"] == {"user_prompt": SUBMIT["user_prompt"]}
        assert "wrong-token-0815" not in json.dumps(ti.xcoms)

    def test_a_submission_that_waits_for_its_turn_has_no_problem(self, connection, ti):
        """It is deferred because the API has asked it to come back later."""
        with pytest.raises(TaskDeferred):
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt="A boat [429:90]"), ti)
        assert ti.xcoms["luma"] == {"request": {"user_prompt": "A boat [429:90]"}}

    def test_wrong_arguments_are_recorded_as_the_problem(self, connection, ti):
        operator = LumaGenerateVideoOperator(**SUBMIT)
        operator.extra_body, operator.notify_hook = "a text", 7
        with pytest.raises(AirflowFailException, match="extra_body"):
            run(operator, ti)
        assert "extra_body" in ti.xcoms["luma"]["problem"]

    def test_the_record_holds_no_image_callback_extra_field_or_token(self, connection, ti):
        image = "data:image/png;base64,iVBORw0KGgo="
        notify_hook = "https://user:hunter2@example.com/hook?key=hunter2"
        secret = {"webhook_secret": "hunter2"}
        run(LumaGenerateVideoOperator(**SUBMIT, image_url=image, notify_hook=notify_hook, extra_body=secret), ti)
        assert ti.xcoms["luma"]["request"] == {"user_prompt": PROMPT, "image_url": "data:…"}
        assert "hunter2" not in json.dumps(ti.xcoms)
        assert TOKEN not in json.dumps(ti.xcoms)

    def test_a_task_with_do_xcom_push_false_records_nothing_and_still_has_its_link(self, connection, ti):
        operator = LumaGenerateVideoOperator(**SUBMIT, wait_for_completion=True, do_xcom_push=False)
        run(operator, ti)
        assert ti.xcoms == {}
        assert watch(operator).endswith("/video.mp4")

    def test_a_record_that_airflow_does_not_take_fails_no_task(self, connection, ti, caplog):
        push = ti.xcom_push

        def failing(key, value):
            if key == "luma":
                raise OSError("no API server")
            push(key, value)

        ti.xcom_push = failing
        with caplog.at_level(logging.WARNING):
            assert run(LumaGenerateVideoOperator(**SUBMIT), ti)
        assert "The Luma tab will not show all of this task" in caplog.text

    def test_a_missing_connection_is_recorded_with_how_to_make_it(self, ti):
        with pytest.raises(AirflowNotFoundException):
            run(LumaGenerateVideoOperator(**SUBMIT, luma_conn_id="nowhere"), ti)
        assert "There is no connection 'nowhere'. Make it" in ti.xcoms["luma"]["problem"]


class TestTaskLinks:
    @pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", None, ""])
    def test_a_video_url_that_is_no_web_address_becomes_no_link(self, url):
        assert watch(SimpleNamespace(watch_url=url)) == ""

    @pytest.mark.parametrize(("map_index", "mapped"), [(-1, ""), (None, ""), (0, "/mapped/0"), (12, "/mapped/12")])
    @pytest.mark.parametrize("base_url", ["", "https://airflow.example.com/team", "https://airflow.example.com/team/"])
    def test_the_luma_task_link_leads_to_the_tasks_own_page(self, monkeypatch, map_index, mapped, base_url):
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
        key = SimpleNamespace(
            dag_id="a", run_id="manual__2026-11-23T06:00:00+00:00", task_id="g.t", map_index=map_index
        )
        link = LumaTaskLink().get_link(None, ti_key=key)
        tab = "plugin/luma" if AIRFLOW_V_3_1_PLUS else "xcom"
        path = f"/dags/a/runs/manual__2026-11-23T06%3A00%3A00%2B00%3A00/tasks/g.t{mapped}/{tab}"
        assert link == base_url.rstrip("/") + path

    @pytest.mark.parametrize("operator", [LumaGenerateVideoOperator, LumaGenerationSensor, LumaDownloadVideoOperator])
    def test_every_task_that_submits_waits_or_downloads_has_both_links(self, operator):
        assert operator.operator_extra_links == LINKS

"""Operators, sensor and trigger as a DAG uses them, against the sandbox."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
    task,
)

from airflow_provider_luma.api import (
    LumaConnectionError,
    LumaGenerationFailed,
    LumaNotFound,
    LumaQuotaError,
    waiting,
)
from airflow_provider_luma.api.arguments import ARGUMENT_TYPES, EXTEND_ARGUMENTS
from airflow_provider_luma.api.waiting import Wait
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from airflow_provider_luma.triggers.luma import LumaGenerationTrigger
from tests.support.clock import Clock
from tests.support.raw_answers import far_end, json_answer
from tests.support.samples import PROMPT, TOKEN
from tests.support.task_instance import TaskInstance, fire, resume, run
from tests.support.tries import Store


@pytest.fixture
def ti():
    return TaskInstance()


class TestGenerateOperator:
    def test_a_task_that_does_not_wait_ends_with_the_id_of_what_it_submitted(self, connection, sandbox, ti):
        task_id = run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, model_name="ray-v2"), ti)
        (known,) = sandbox.report()["generations"]
        assert task_id == known["id"]
        assert set(ti.xcoms) == {"return_value", "luma"}
        assert ti.xcoms["return_value"] == task_id
        assert known["body"] == {"user_prompt": PROMPT, "model_name": "ray-v2"}
        assert known["polls"] == 0

    def test_a_task_that_waits_pushes_the_id_and_the_finished_generation(self, connection, ti):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, wait_for_completion=True)
        task_id = run(operator, ti)
        assert ti.xcoms["return_value"] == task_id
        assert ti.xcoms["generation"]["id"] == task_id
        assert ti.xcoms["generation"]["video_url"].startswith("http")

    def test_a_deferred_task_pushes_the_id_before_the_wait_and_keeps_its_execution_timeout(self, connection, ti):
        operator = LumaGenerateVideoOperator(
            task_id="submit",
            user_prompt=PROMPT,
            wait_for_completion=True,
            deferrable=True,
            execution_timeout=timedelta(minutes=5),
        )
        with pytest.raises(TaskDeferred) as caught:
            run(operator, ti)
        deferred = caught.value
        submitted = ti.xcoms["return_value"]
        assert timedelta(minutes=4) < deferred.timeout <= timedelta(minutes=5)
        assert resume(operator, deferred, ti) == submitted
        assert ti.xcoms["generation"]["state"] == "completed"

    @pytest.mark.parametrize(("ago", "left"), [(2, 3), (9, 0)])
    def test_the_wait_of_a_deferred_task_has_what_is_left_of_its_execution_timeout(self, ago, left, connection, ti):
        """Airflow itself would start it again at each deferral."""
        ti.start_date -= timedelta(minutes=ago)
        operator = LumaGenerateVideoOperator(
            task_id="submit",
            user_prompt=PROMPT,
            wait_for_completion=True,
            deferrable=True,
            execution_timeout=timedelta(minutes=5),
        )
        with pytest.raises(TaskDeferred) as caught:
            run(operator, ti)
        seconds = caught.value.timeout.total_seconds()
        assert 60 * left - 30 < seconds <= max(60 * left, 1)
        assert seconds > 0

    def test_a_deferrable_task_that_does_not_wait_does_not_defer(self, connection, ti):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, deferrable=True)
        assert run(operator, ti) == ti.xcoms["return_value"]

    def test_the_trigger_polls_with_the_tasks_connection_and_poll_interval(self, connection, ti, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_LUMA_DEFAULT"])
        operator = LumaGenerateVideoOperator(
            task_id="submit",
            user_prompt=PROMPT,
            luma_conn_id="other",
            wait_for_completion=True,
            deferrable=True,
            poll_interval=17,
        )
        with pytest.raises(TaskDeferred) as caught:
            run(operator, ti)
        assert caught.value.trigger.serialize()[1] == {
            "generation_id": ti.xcoms["return_value"],
            "luma_conn_id": "other",
            "poll_interval": 17,
            "target_state": ["completed"],
        }

    def test_a_task_that_waits_on_its_worker_polls_at_its_poll_interval(self, connect, ti, slept, monkeypatch):
        clock = Clock()
        with Sandbox(seconds=10, clock=clock) as sandbox:
            connect(host=sandbox.url, password=TOKEN)

            def sleep(seconds):
                slept.append(seconds)
                clock.now += seconds

            monkeypatch.setattr("time.sleep", sleep)
            run(
                LumaGenerateVideoOperator(
                    task_id="submit", user_prompt=PROMPT, wait_for_completion=True, poll_interval=6
                ),
                ti,
            )
        assert slept == [6, 6]

    def test_a_task_with_do_xcom_push_false_pushes_nothing(self, connection, ti):
        operator = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=PROMPT, wait_for_completion=True, do_xcom_push=False
        )
        assert run(operator, ti)
        assert ti.xcoms == {}

    @pytest.mark.parametrize("deferrable", [False, True])
    @pytest.mark.parametrize(
        ("word", "error"), [("[fail]", LumaGenerationFailed), ("[moderated]", AirflowFailException)]
    )
    def test_a_failed_generation_fails_the_task_without_retry_where_moderation_refused_it(
        self, word, error, deferrable, connection, ti
    ):
        operator = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=f"{PROMPT} {word}", wait_for_completion=True, deferrable=deferrable
        )
        if deferrable:
            with pytest.raises(TaskDeferred) as deferred:
                run(operator, ti)
            with pytest.raises(error) as caught:
                resume(operator, deferred.value, ti)
        else:
            with pytest.raises(error) as caught:
                run(operator, ti)
        assert ti.xcoms["return_value"] in str(caught.value)

    def test_a_submission_that_may_have_been_charged_fails_the_task_without_retry(self, connection, sandbox, ti):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException, match="may have been accepted and charged"):
            run(operator, ti)
        assert sandbox.report()["charged"] == 1

    def test_a_bad_token_fails_the_task_without_retry(self, connect, sandbox, ti):
        connect(host=sandbox.url, password="wrong")
        with pytest.raises(AirflowFailException, match="Check the token"):
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT), ti)

    def test_a_gateway_that_is_down_is_left_to_the_tasks_retries(self, connect, ti, no_retries):
        connect(host="127.0.0.1:1", password=TOKEN)
        with pytest.raises(LumaConnectionError):
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT), ti)

    def test_an_empty_balance_is_left_to_the_tasks_retries(self, connection, sandbox, ti):
        sandbox.weather(submit={"402": 1})
        with pytest.raises(LumaQuotaError):
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT), ti)

    @pytest.mark.parametrize(("word", "value"), [("True", True), (" false ", False)])
    def test_a_template_that_renders_to_the_word_true_or_false_means_it(self, word, value, connection, sandbox, ti):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, loop="{{ params.loop }}")
        operator.loop = word
        run(operator, ti)
        assert sandbox.report()["generations"][0]["body"]["loop"] is value

    def test_a_template_that_renders_to_the_word_none_is_left_out(self, connection, sandbox, ti):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, image_url="{{ params.image }}")
        operator.image_url = "None"
        run(operator, ti)
        assert sandbox.report()["generations"][0]["body"] == {"user_prompt": PROMPT}
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt="{{ params.prompt }}")
        operator.user_prompt = "None"
        with pytest.raises(AirflowFailException, match="needs a user_prompt"):
            run(operator, ti)

    def test_a_request_that_json_cannot_hold_fails_the_task_without_retry(self, connection, ti):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, extra_body="{{ params.body }}")
        operator.extra_body = {"at": datetime.now(timezone.utc)}
        with pytest.raises(AirflowFailException, match="cannot be written as JSON"):
            run(operator, ti)

    def test_what_a_template_renders_to_is_checked_before_anything_is_sent(self, connection, sandbox, ti):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt="{{ params.prompt }}")
        operator.user_prompt = "ab"
        with pytest.raises(AirflowFailException, match="3 to 5,000 characters"):
            run(operator, ti)
        assert sandbox.report()["requests"] == 0

    def test_a_completed_generation_without_a_video_url_is_warned_about(self, connect, ti, caplog, capsys):
        answers = json_answer(b'{"id": "x"}'), json_answer(b'{"id": "x", "state": "completed"}')
        with caplog.at_level(logging.WARNING), far_end(*answers) as (url, _):
            connect(host=url, password=TOKEN)
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, wait_for_completion=True), ti)
        assert "Generation x is completed, but there is no URL of its video" in capsys.readouterr().out + caplog.text

    def test_a_killed_task_logs_which_generation_goes_on_and_is_paid(self, connection, ti, caplog, capsys):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT)
        operator.on_kill()
        submitted = run(operator, ti)
        with caplog.at_level(logging.WARNING):
            operator.on_kill()
        said = capsys.readouterr().out + caplog.text
        assert f"generation {submitted} goes on and is paid for" in said
        assert "its answer has not come" not in said

    def test_a_task_that_is_killed_after_its_submission_was_rejected_logs_nothing(self, connection, ti, caplog, capsys):
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=f"{PROMPT} [429:90]")
        with pytest.raises(TaskDeferred):
            run(operator, ti)
        capsys.readouterr()
        caplog.clear()
        operator.on_kill()
        assert capsys.readouterr().out + caplog.text == ""

    @pytest.mark.parametrize(("limit", "said"), [(None, 1), (timedelta(hours=1), 0)])
    def test_a_wait_without_a_time_limit_says_how_to_set_one(self, limit, said, connection, ti, caplog, capsys):
        arguments = {"wait_for_completion": True, "execution_timeout": limit}
        with caplog.at_level(logging.INFO):
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, **arguments), ti)
        logged = (capsys.readouterr().out, caplog.text)
        # Airflow 3.0 logs to both.
        assert max(text.count("To set one: execution_timeout=") for text in logged) == said


class TestExtendOperator:
    def test_an_extension_has_the_first_generation_as_parent_and_an_id_of_its_own(self, connection, sandbox, ti):
        first = run(LumaGenerateVideoOperator(task_id="first", user_prompt=PROMPT), ti)
        operator = LumaExtendVideoOperator(
            task_id="second",
            generation_id=first,
            user_prompt="It sinks",
            extra_body={"aspect_ratio": "16:9"},
            wait_for_completion=True,
        )
        second = run(operator, ti)
        extension = sandbox.report()["generations"][-1]
        assert extension["parent"] == first
        assert extension["body"] == {"user_prompt": "It sinks", "aspect_ratio": "16:9"}
        assert ti.xcoms["generation"]["id"] == second != first


class TestDagParsing:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "needs a user_prompt"),
            ({"user_prompt": "x" * 6001}, "3 to 5,000 characters"),
            ({"user_prompt": PROMPT, "loop": "perhaps"}, "loop must be True or False"),
            ({"user_prompt": PROMPT, "extra_body": {"user_prompt": "x"}}, "Given twice"),
            ({"user_prompt": "{{ params.prompt }}", "duration": 5}, "duration must be a string"),
            ({"user_prompt": PROMPT, "loop": True, "image_end_url": "{{ params.end }}"}, "loop does not go with"),
        ],
    )
    def test_a_wrong_literal_fails_when_the_dag_is_parsed(self, arguments, message):
        with pytest.raises(AirflowFailException, match=message):
            LumaGenerateVideoOperator(task_id="submit", **arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"user_prompt": "{{ 'x' }}"},
            {"extra_body": "{{ params.body }}"},
            {"extra_body": {"user_prompt": "{{ params.prompt }}"}},
            {"user_prompt": PROMPT, "extra_body": {"loop": "{{ params.loop }}"}},
            {"image_url": "{% if params.a %}x{% endif %}"},
        ],
    )
    def test_a_template_is_checked_only_when_the_task_runs(self, arguments):
        assert LumaGenerateVideoOperator(task_id="submit", **arguments).task_id == "submit"

    def test_the_output_of_another_task_makes_that_task_upstream(self):
        with DAG("test", schedule=None):

            @task
            def prompt():
                return PROMPT

            submit = LumaGenerateVideoOperator(task_id="submit", user_prompt=prompt())
            wait = LumaGenerationSensor(task_id="wait", generation_id=submit.output)
            extend = LumaExtendVideoOperator(task_id="extend", generation_id=submit.output, user_prompt=PROMPT)
        assert submit.upstream_task_ids == {"prompt"}
        assert wait.upstream_task_ids == extend.upstream_task_ids == {"submit"}

    @pytest.mark.parametrize(
        ("operator", "others"),
        [
            (LumaGenerateVideoOperator, ["luma_conn_id", *ARGUMENT_TYPES]),
            (LumaExtendVideoOperator, ["luma_conn_id", "generation_id", *EXTEND_ARGUMENTS]),
            (LumaGenerationSensor, ["luma_conn_id", "generation_id", "target_state"]),
        ],
    )
    def test_every_argument_may_be_a_template(self, operator, others):
        arguments = dict.fromkeys(others, "{{ value }}")
        if "user_prompt" in others:
            arguments["extra_body"] = {"seed": "{{ value }}"}
        with DAG("dag", schedule=None):
            made = operator(task_id="made", **arguments)
        made.render_template_fields({"value": "x"})
        assert {name: getattr(made, name) for name in others} == dict.fromkeys(others, "x")
        if "user_prompt" in others:
            assert made.extra_body == {"seed": "x"}

    @pytest.mark.parametrize("generation_id", ["", 7, ["a", "b"]])
    def test_an_extension_of_what_is_no_generation_id_is_refused(self, generation_id):
        with pytest.raises(AirflowFailException, match="generation id must be a string"):
            LumaExtendVideoOperator(task_id="extend", generation_id=generation_id, user_prompt=PROMPT)

    @pytest.mark.parametrize("generation_id", ["", 7, ["a", "b"]])
    def test_a_sensor_for_several_ids_says_how_to_map(self, generation_id):
        with pytest.raises(AirflowFailException, match=r"expand\(generation_id=submit.output\)"):
            LumaGenerationSensor(task_id="wait", generation_id=generation_id)

    def test_a_sensor_for_an_unknown_state_names_the_states_there_are(self):
        with pytest.raises(AirflowFailException, match="pending, processing, completed or failed, got 'done'"):
            LumaGenerationSensor(task_id="wait", generation_id="x", target_state="done")


class TestSensor:
    @pytest.fixture
    def submitted(self, connection, ti):
        def submit(prompt=PROMPT):
            return run(LumaGenerateVideoOperator(task_id="submit", user_prompt=prompt), ti)

        return submit

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_sensor_returns_the_completed_generation(self, deferrable, submitted, ti):
        generation_id = submitted()
        generation = run(LumaGenerationSensor(task_id="wait", generation_id=generation_id, deferrable=deferrable), ti)
        assert generation["id"] == generation_id
        assert generation["state"] == "completed"
        assert list(generation) == [
            "id",
            "state",
            "video_url",
            "thumbnail_url",
            "last_frame_url",
            "width",
            "height",
            "duration",
            "created_at",
            "failure_reason",
        ]

    def test_a_deferrable_sensor_whose_generation_is_not_completed_is_deferred(self, connect, ti):
        with Sandbox(seconds=60) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            generation_id = LumaHook().submit(PROMPT).id
            sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, deferrable=True)
            with pytest.raises(TaskDeferred) as caught:
                run(sensor, ti)
            sandbox.finish(generation_id)
            assert resume(sensor, caught.value, ti)["id"] == generation_id

    @pytest.mark.parametrize("connection_id", ["luma_default", "luma_missing"])
    def test_a_deferrable_sensor_that_cannot_poll_is_deferred_all_the_same(self, connection_id, submitted, sandbox, ti):
        """The triggerer waits trouble out, and says what does not pass."""
        sensor = LumaGenerationSensor(
            task_id="wait", generation_id=submitted(), deferrable=True, luma_conn_id=connection_id
        )
        sandbox.weather(status={"500": 1})
        asked = sandbox.report()["requests"]
        with pytest.raises(TaskDeferred):
            run(sensor, ti)
        # Once: the triggerer is who tries again.
        assert sandbox.report()["requests"] == asked + (connection_id == "luma_default")

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_failed_generation_fails_the_sensor_without_retry(self, deferrable, submitted, ti):
        sensor = LumaGenerationSensor(task_id="wait", generation_id=submitted("[fail] it"), deferrable=deferrable)
        if deferrable:
            with pytest.raises(TaskDeferred) as caught:
                run(sensor, ti)
            with pytest.raises(AirflowFailException, match="Job failed"):
                resume(sensor, caught.value, ti)
        else:
            with pytest.raises(AirflowFailException, match="Job failed"):
                run(sensor, ti)

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_template_for_a_sensors_id_that_renders_to_several_fails_without_retry(self, deferrable, connection, ti):
        """And is not waited for, as the API can know no such id."""
        sensor = LumaGenerationSensor(task_id="wait", generation_id="{{ several }}", deferrable=deferrable, timeout=9)
        sensor.generation_id = ["one", "two"]
        with pytest.raises(AirflowFailException, match="To wait for several"):
            run(sensor, ti)

    @pytest.mark.parametrize("target_state", ["failed", ["completed", "failed"]])
    def test_a_sensor_for_the_failed_state_returns_the_failed_generation(self, target_state, submitted, ti):
        sensor = LumaGenerationSensor(task_id="wait", generation_id=submitted("[fail] it"), target_state=target_state)
        assert run(sensor, ti)["failure_reason"] == "Job failed"

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_sensor_for_the_failed_state_fails_without_retry_when_the_generation_is_completed(
        self, deferrable, submitted, ti
    ):
        sensor = LumaGenerationSensor(
            task_id="wait", generation_id=submitted(), target_state="failed", deferrable=deferrable
        )
        if deferrable:
            with pytest.raises(TaskDeferred) as caught:
                run(sensor, ti)
            with pytest.raises(AirflowFailException, match="will never be failed"):
                resume(sensor, caught.value, ti)
        else:
            with pytest.raises(AirflowFailException, match="will never be failed"):
                run(sensor, ti)

    def test_soft_fail_skips_the_task_of_a_failed_generation(self, submitted, ti):
        sensor = LumaGenerationSensor(task_id="wait", generation_id=submitted("[fail] it"), soft_fail=True)
        with pytest.raises(AirflowSkipException):
            run(sensor, ti)

    def test_never_fail_skips_the_task_on_any_error(self, submitted, ti, monkeypatch):
        monkeypatch.setattr(waiting, "UNKNOWN_ID_GRACE", 0)
        sensor = LumaGenerationSensor(task_id="wait", generation_id="unknown", never_fail=True, deferrable=True)
        submitted()
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        with pytest.raises(AirflowSkipException):
            resume(sensor, caught.value, ti)

    def test_a_deferred_sensor_waits_for_the_shorter_of_timeout_and_execution_timeout(self, submitted, ti):
        sensor = LumaGenerationSensor(
            task_id="wait",
            generation_id=submitted(),
            target_state="failed",
            deferrable=True,
            timeout=600,
            execution_timeout=timedelta(minutes=5),
        )
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        assert caught.value.timeout == timedelta(minutes=5)

    def test_the_trigger_polls_at_the_sensors_poke_interval_for_its_target_state(self, submitted, ti):
        sensor = LumaGenerationSensor(
            task_id="wait",
            generation_id=submitted(),
            target_state=["processing", "failed"],
            deferrable=True,
            poke_interval=17,
        )
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        assert caught.value.trigger.serialize()[1] == {
            "generation_id": sensor.generation_id,
            "luma_conn_id": "luma_default",
            "poll_interval": 17,
            "target_state": ["failed", "processing"],
        }

    def test_a_timeout_of_zero_counts(self, submitted, ti):
        sensor = LumaGenerationSensor(
            task_id="wait", generation_id=submitted(), target_state="failed", deferrable=True, timeout=0
        )
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        assert caught.value.timeout == timedelta(0)

    def test_a_sensor_does_not_poll_again_before_its_backoff_is_over(self, connection, sandbox, ti):
        sandbox.weather(status={"429": 1})
        sensor = LumaGenerationSensor(task_id="wait", generation_id="x", poke_interval=100)
        sensor._hook = LumaHook()
        sensor._wait = Wait("x", log=logging.getLogger("test"))
        assert not sensor.poke({"ti": ti})
        asked = sandbox.report()["requests"]
        assert not sensor.poke({"ti": ti})
        assert sandbox.report()["requests"] == asked

    def test_a_rescheduled_sensor_logs_each_change_of_state_once(self, connect, capsys, caplog):
        with Sandbox(seconds=60) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            generation_id = LumaHook().submit(PROMPT).id
            store = Store()
            with caplog.at_level(logging.INFO):
                for _ in range(3):
                    sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, mode="reschedule")
                    assert not sensor.poke({"ti": TaskInstance(), "task_state_store": store})
        assert (capsys.readouterr().out or caplog.text).count(f"Generation {generation_id} is pending.") == 1

    @pytest.mark.parametrize("resubmitted", [False, True])
    def test_a_rescheduled_sensor_fails_when_its_token_is_refused_for_a_minute(self, resubmitted, connect, sandbox, ti):
        """A clear of both tasks lets it wait for another generation, which has a minute of its own."""
        connect(host=sandbox.url, password="wrong")
        store = Store()

        def poke(generation_id):
            sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, mode="reschedule")
            return sensor.poke({"ti": ti, "task_state_store": store}).is_done

        assert not poke("x")
        store.set("luma_wait", {**store.get("luma_wait"), "lasting_since": time.time() - 61})
        if resubmitted:
            assert not poke("y")
        else:
            with pytest.raises(AirflowFailException, match="Check the token"):
                poke("x")


class TestTrigger:
    def test_the_trigger_polls_until_the_generation_is_completed(self, connect, ti):
        with Sandbox(seconds=0.5) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            operator = LumaGenerateVideoOperator(
                task_id="submit", user_prompt=PROMPT, wait_for_completion=True, deferrable=True, poll_interval=0.1
            )
            with pytest.raises(TaskDeferred) as caught:
                run(operator, ti)
            event = fire(caught.value)
        assert event["status"] == "success"
        assert event["generation"]["state"] == "completed"

    def test_the_trigger_waits_out_a_gateway_in_trouble(self, connection, sandbox, ti):
        operator = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=PROMPT, wait_for_completion=True, deferrable=True, poll_interval=0.05
        )
        with pytest.raises(TaskDeferred) as caught:
            run(operator, ti)
        sandbox.weather(status={"500": 0.3, "drop": 0.3, "html": 0.2}, seed=1)
        assert resume(operator, caught.value, ti)

    def test_an_id_that_stays_unknown_ends_the_trigger_with_its_own_error(self, connection, monkeypatch, ti):
        monkeypatch.setattr(waiting, "UNKNOWN_ID_GRACE", 0)
        sensor = LumaGenerationSensor(task_id="wait", generation_id="unknown", deferrable=True)
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        with pytest.raises(LumaNotFound):
            resume(sensor, caught.value, ti)

    def test_a_slow_gateway_does_not_block_the_event_loop(self, connect):
        with Sandbox(latency=0.5, seconds=0) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            generation = LumaHook().submit(PROMPT)

            async def ticks_while_asking():
                asking = asyncio.ensure_future(anext(LumaGenerationTrigger(generation.id).run()))
                ticks = 0
                while not asking.done():
                    await asyncio.sleep(0.01)
                    ticks += 1
                assert asking.result().payload["status"] == "success"
                return ticks

            assert asyncio.run(ticks_while_asking()) > 10

    def test_a_killed_trigger_logs_which_generation_goes_on_and_is_paid(self, caplog, capsys):
        with caplog.at_level(logging.WARNING):
            asyncio.run(LumaGenerationTrigger("x").on_kill())
        assert "generation x goes on and is paid for" in capsys.readouterr().out + caplog.text

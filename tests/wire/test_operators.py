"""Operators, sensor and trigger, from the DAG's side, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
    task,
)

from airflow_provider_luma.api import LumaError, LumaGenerationFailed, LumaNotFound, waiting
from airflow_provider_luma.api.waiting import Wait
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from airflow_provider_luma.triggers.luma import LumaGenerationTrigger

TOKEN = "marked-token-4711"
PROMPT = "A paper boat crosses a puddle"


class TaskInstance:
    """As much of a task instance as an operator touches."""

    try_number = 1
    max_tries = 0
    map_index = -1

    def __init__(self):
        self.xcoms = {}
        self.start_date = datetime.now(timezone.utc)

    def xcom_push(self, key, value):
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, key, map_indexes):
        assert map_indexes == self.map_index
        return self.xcoms.get(key)


@pytest.fixture
def ti():
    return TaskInstance()


def run(operator, ti):
    return operator.execute({"ti": ti})


def fire(deferred: TaskDeferred) -> dict:
    """Run the trigger of a deferred task as a triggerer does, from its row, and return the payload of its event."""
    classpath, kwargs = deferred.trigger.serialize()
    assert classpath == "airflow_provider_luma.triggers.luma.LumaGenerationTrigger"
    assert TOKEN not in json.dumps(kwargs)

    async def first_event():
        return await anext(LumaGenerationTrigger(**json.loads(json.dumps(kwargs))).run())

    return json.loads(json.dumps(asyncio.run(first_event()).payload))


def resume(operator, deferred, ti):
    return getattr(operator, deferred.method_name)({"ti": ti}, **(deferred.kwargs or {}), event=fire(deferred))


class TestGenerate:
    def test_submit(self, connection, sandbox, ti):
        """By default the task ends when the generation is submitted, and gives its id."""
        task_id = run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, model_name="ray-v2"), ti)
        (known,) = sandbox.report()["generations"]
        assert task_id == known["id"]
        assert set(ti.xcoms) == {"return_value", "luma"}
        assert ti.xcoms["return_value"] == task_id
        assert known["body"] == {"user_prompt": PROMPT, "model_name": "ray-v2"}
        assert known["polls"] == 0

    def test_wait(self, connection, ti):
        """Waiting, it gives the id all the same, and the generation under a key of its own."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, wait_for_completion=True)
        task_id = run(operator, ti)
        assert ti.xcoms["return_value"] == task_id
        assert ti.xcoms["generation"]["id"] == task_id
        assert ti.xcoms["generation"]["video_url"].startswith("http")

    def test_defer(self, connection, ti):
        """So it does deferred; the id is there before the wait."""
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

    def test_deferrable_without_wait(self, connection, ti):
        """A task that does not wait does not defer either."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, deferrable=True)
        assert run(operator, ti) == ti.xcoms["return_value"]

    def test_no_xcom(self, connection, ti):
        """A task that is told to push nothing pushes nothing."""
        operator = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=PROMPT, wait_for_completion=True, do_xcom_push=False
        )
        assert run(operator, ti)
        assert ti.xcoms == {}

    @pytest.mark.parametrize("deferrable", [False, True])
    @pytest.mark.parametrize(
        ("word", "error"), [("[fail]", LumaGenerationFailed), ("[moderated]", AirflowFailException)]
    )
    def test_failed(self, word, error, deferrable, connection, ti):
        """A generation that failed fails the task, for good where moderation refused it."""
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

    def test_ambiguous(self, connection, sandbox, ti):
        """A submission that may have been charged fails the task for good, so that no retry pays again."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=f"{PROMPT} [drop]")
        with pytest.raises(AirflowFailException, match="may have been accepted and charged"):
            run(operator, ti)
        assert sandbox.report()["charged"] == 1

    def test_bad_token(self, connect, sandbox, ti):
        """A bad token fails the task for good."""
        connect(host=sandbox.url, password="wrong")
        with pytest.raises(AirflowFailException, match="Check the token"):
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT), ti)

    def test_gateway_down(self, connect, sandbox, ti):
        """A gateway that is not there is left to the task's retries."""
        connect(host=sandbox.url, password=TOKEN)
        sandbox.weather(submit={"402": 1})
        with pytest.raises(LumaError):
            run(LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT), ti)

    def test_rendered_booleans(self, connection, sandbox, ti):
        """A template that rendered to True in words is True."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, loop="{{ params.loop }}")
        operator.loop = "True"
        run(operator, ti)
        assert sandbox.report()["generations"][0]["body"]["loop"] is True

    def test_rendered_none(self, connection, sandbox, ti):
        """A template that rendered to None in words is left out, and is no prompt."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, image_url="{{ params.image }}")
        operator.image_url = "None"
        run(operator, ti)
        assert sandbox.report()["generations"][0]["body"] == {"user_prompt": PROMPT}
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt="{{ params.prompt }}")
        operator.user_prompt = "None"
        with pytest.raises(AirflowFailException, match="needs a user_prompt"):
            run(operator, ti)

    def test_not_json(self, connection, ti):
        """What JSON cannot hold fails the task for good."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT, extra_body="{{ params.body }}")
        operator.extra_body = {"at": datetime.now(timezone.utc)}
        with pytest.raises(AirflowFailException, match="cannot be written as JSON"):
            run(operator, ti)

    def test_rendered_wrong(self, connection, sandbox, ti):
        """What a template rendered to is checked when the task runs, before anything is sent."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt="{{ params.prompt }}")
        operator.user_prompt = "ab"
        with pytest.raises(AirflowFailException, match="3 to 5,000 characters"):
            run(operator, ti)
        assert sandbox.report()["requests"] == 0

    def test_kill(self, connection, ti, caplog, capsys):
        """A task that is killed says what goes on without it."""
        operator = LumaGenerateVideoOperator(task_id="submit", user_prompt=PROMPT)
        operator.on_kill()
        submitted = run(operator, ti)
        with caplog.at_level(logging.WARNING):
            operator.on_kill()
        said = capsys.readouterr().out + caplog.text
        assert f"generation {submitted} goes on and is paid for" in said


class TestExtend:
    def test_extend(self, connection, sandbox, ti):
        """An extension is submitted under the id of the first, and gives its own."""
        first = run(LumaGenerateVideoOperator(task_id="first", user_prompt=PROMPT), ti)
        operator = LumaExtendVideoOperator(
            task_id="second", generation_id=first, user_prompt="It sinks", wait_for_completion=True
        )
        second = run(operator, ti)
        assert sandbox.report()["generations"][-1]["parent"] == first
        assert ti.xcoms["generation"]["id"] == second != first


class TestParsing:
    """What is wrong in a DAG file is said when it is parsed."""

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
    def test_literals(self, arguments, message):
        """A wrong literal does not get as far as a run, whatever else is templated."""
        with pytest.raises(AirflowFailException, match=message):
            LumaGenerateVideoOperator(task_id="submit", **arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"user_prompt": "{{ 'x' }}"},
            {"extra_body": "{{ params.body }}"},
            {"extra_body": {"user_prompt": "{{ params.prompt }}"}},
            {"image_url": "{% if params.a %}x{% endif %}"},
        ],
    )
    def test_templates(self, arguments):
        """What is a template is left until the task runs."""
        assert LumaGenerateVideoOperator(task_id="submit", **arguments).task_id == "submit"

    def test_upstream(self):
        """So is what another task gives."""
        with DAG("test", schedule=None):

            @task
            def prompt():
                return PROMPT

            submit = LumaGenerateVideoOperator(task_id="submit", user_prompt=prompt())
            wait = LumaGenerationSensor(task_id="wait", generation_id=submit.output)
            extend = LumaExtendVideoOperator(task_id="extend", generation_id=submit.output, user_prompt=PROMPT)
        assert submit.upstream_task_ids == {"prompt"}
        assert wait.upstream_task_ids == extend.upstream_task_ids == {"submit"}

    @pytest.mark.parametrize("generation_id", ["", 7, ["a", "b"]])
    def test_no_id(self, generation_id):
        """A sensor for no id, or for several at once, says how to map."""
        with pytest.raises(AirflowFailException, match=r"expand\(generation_id=submit.output\)"):
            LumaGenerationSensor(task_id="wait", generation_id=generation_id)

    def test_no_state(self):
        """A sensor for a state that does not exist says which do."""
        with pytest.raises(AirflowFailException, match="pending, processing, completed or failed, got 'done'"):
            LumaGenerationSensor(task_id="wait", generation_id="x", target_state="done")


class TestSensor:
    @pytest.fixture
    def submitted(self, connection, ti):
        def submit(prompt=PROMPT):
            return run(LumaGenerateVideoOperator(task_id="submit", user_prompt=prompt), ti)

        return submit

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_completed(self, deferrable, submitted, ti):
        """The sensor returns the generation, in either mode."""
        generation_id = submitted()
        sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, deferrable=deferrable)
        if deferrable:
            with pytest.raises(TaskDeferred) as caught:
                run(sensor, ti)
            generation = resume(sensor, caught.value, ti)
        else:
            generation = run(sensor, ti)
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

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_failed(self, deferrable, submitted, ti):
        """A generation that failed fails the sensor for good: looking again will not help."""
        sensor = LumaGenerationSensor(task_id="wait", generation_id=submitted("[fail] it"), deferrable=deferrable)
        if deferrable:
            with pytest.raises(TaskDeferred) as caught:
                run(sensor, ti)
            with pytest.raises(AirflowFailException, match="Job failed"):
                resume(sensor, caught.value, ti)
        else:
            with pytest.raises(AirflowFailException, match="Job failed"):
                run(sensor, ti)

    @pytest.mark.parametrize("target_state", ["failed", ["completed", "failed"]])
    def test_failed_awaited(self, target_state, submitted, ti):
        """Unless that is what it waits for."""
        sensor = LumaGenerationSensor(task_id="wait", generation_id=submitted("[fail] it"), target_state=target_state)
        assert run(sensor, ti)["failure_reason"] == "Job failed"

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_never_failed(self, deferrable, submitted, ti):
        """A failure that will never be is not waited for again, in either mode."""
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

    def test_soft_fail(self, submitted, ti):
        """soft_fail skips in place of failing."""
        sensor = LumaGenerationSensor(task_id="wait", generation_id=submitted("[fail] it"), soft_fail=True)
        with pytest.raises(AirflowSkipException):
            run(sensor, ti)

    def test_never_fail(self, submitted, ti, monkeypatch):
        """never_fail does so for any error, also deferred."""
        monkeypatch.setattr(waiting, "UNKNOWN_ID_GRACE", 0)
        sensor = LumaGenerationSensor(task_id="wait", generation_id="unknown", never_fail=True, deferrable=True)
        submitted()
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        with pytest.raises(AirflowSkipException):
            resume(sensor, caught.value, ti)

    def test_timeout(self, submitted, ti):
        """A deferred sensor waits no longer than the shorter of Airflow's two limits."""
        sensor = LumaGenerationSensor(
            task_id="wait",
            generation_id=submitted(),
            deferrable=True,
            timeout=600,
            execution_timeout=timedelta(minutes=5),
        )
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        assert caught.value.timeout == timedelta(minutes=5)

    def test_no_time(self, submitted, ti):
        """A time-out of nothing is one."""
        sensor = LumaGenerationSensor(task_id="wait", generation_id=submitted(), deferrable=True, timeout=0)
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        assert caught.value.timeout == timedelta(0)

    def test_retry_after(self, connection, sandbox, ti):
        """A sensor that pokes does not ask again before the gateway wants it to."""
        sandbox.weather(status={"429": 1})
        sensor = LumaGenerationSensor(task_id="wait", generation_id="x", poke_interval=100)
        sensor._hook = LumaHook(retry_for=0)
        sensor._wait = Wait("x", log=logging.getLogger("test"))
        assert not sensor.poke({"ti": ti})
        asked = sandbox.report()["requests"]
        assert not sensor.poke({"ti": ti})
        assert sandbox.report()["requests"] == asked

    def test_rescheduled_log(self, connect, capsys, caplog):
        """A sensor that is rescheduled says each change of state once, where Airflow can remember it."""
        with Sandbox(seconds=60) as sandbox:
            connect(host=sandbox.url, password=TOKEN)
            generation_id = LumaHook().submit(PROMPT).id
            rows = {}

            class Store:
                get = rows.get
                set = rows.__setitem__

            with caplog.at_level(logging.INFO):
                for _ in range(3):
                    sensor = LumaGenerationSensor(task_id="wait", generation_id=generation_id, mode="reschedule")
                    assert not sensor.poke({"ti": TaskInstance(), "task_state_store": Store()})
        assert (capsys.readouterr().out or caplog.text).count(f"Generation {generation_id} is pending.") == 1

    def test_bad_token(self, connect, sandbox, ti):
        """A sensor that is rescheduled fails for good on a bad token: it could not count refusals."""
        connect(host=sandbox.url, password="wrong")

        sensor = LumaGenerationSensor(task_id="wait", generation_id="x", mode="reschedule")
        with pytest.raises(AirflowFailException, match="Check the token"):
            sensor.poke({"ti": ti})


class TestTrigger:
    def test_slow(self, connect, ti):
        """The trigger asks again until the generation is completed."""
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

    def test_flaky(self, connection, sandbox, ti):
        """A gateway in trouble is waited out."""
        operator = LumaGenerateVideoOperator(
            task_id="submit", user_prompt=PROMPT, wait_for_completion=True, deferrable=True, poll_interval=0.05
        )
        with pytest.raises(TaskDeferred) as caught:
            run(operator, ti)
        sandbox.weather(status={"500": 0.3, "drop": 0.3, "html": 0.2}, seed=1)
        assert resume(operator, caught.value, ti)

    def test_never_known(self, connection, monkeypatch, ti):
        """An id that stays unknown ends the wait with its own error."""
        monkeypatch.setattr(waiting, "UNKNOWN_ID_GRACE", 0)
        sensor = LumaGenerationSensor(task_id="wait", generation_id="unknown", deferrable=True)
        with pytest.raises(TaskDeferred) as caught:
            run(sensor, ti)
        with pytest.raises(LumaNotFound):
            resume(sensor, caught.value, ti)

    def test_event_loop(self, connect):
        """A gateway that does not answer holds up one trigger, not the loop."""
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

    def test_kill(self, caplog, capsys):
        """A person who kills a deferred task is told what goes on."""
        with caplog.at_level(logging.WARNING):
            asyncio.run(LumaGenerationTrigger("x").on_kill())
        assert "generation x goes on and is paid for" in capsys.readouterr().out + caplog.text

"""The operators that submit, as a DAG uses them, against the sandbox."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskDeferred, task

from airflow_provider_luma.api import LumaConnectionError, LumaGenerationFailed, LumaQuotaError, waiting
from airflow_provider_luma.api.arguments import ARGUMENTS, EXTEND_ARGUMENTS
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from tests.support.clock import Clock
from tests.support.raw_answers import far_end, json_answer
from tests.support.samples import PROMPT, TOKEN
from tests.support.task_instance import finish, run

pytestmark = pytest.mark.usefixtures("connection")


def generate(**arguments):
    return LumaGenerateVideoOperator(task_id="submit", **{"user_prompt": PROMPT, **arguments})


def defer(operator, ti) -> TaskDeferred:
    """Run a task that has to defer."""
    with pytest.raises(TaskDeferred) as caught:
        run(operator, ti)
    return caught.value


@pytest.fixture(params=["waiting", "deferrable", "deferred"])
def waits(request, sandbox):
    """Arguments of a task that waits on its worker, ends at its first poll, or is deferred."""
    if request.param == "deferred":
        sandbox.change(seconds=60)
    return {"wait_for_completion": True, "deferrable": request.param != "waiting"}


@pytest.fixture
def running(sandbox):
    """The sandbox; its generations run until a test finishes them."""
    sandbox.change(seconds=60)
    return sandbox


class TestGenerate:
    @pytest.mark.parametrize("deferrable", [False, True])
    def test_returns_id_without_waiting(self, deferrable, sandbox, ti):
        """A task that does not wait returns and pushes the generation id, and does not poll."""
        generation_id = run(generate(model_name="ray-v2", deferrable=deferrable), ti)
        (known,) = sandbox.report()["generations"]
        assert known["id"] == generation_id == ti.xcoms["return_value"]
        assert set(ti.xcoms) == {"return_value", "luma"}
        assert known["body"] == {"user_prompt": PROMPT, "model_name": "ray-v2"}
        assert known["polls"] == 0

    def test_waits_for_video(self, waits, sandbox, ti):
        """A task that waits also pushes the finished generation."""
        generation_id = finish(generate(**waits), ti, sandbox)
        assert ti.xcoms["return_value"] == ti.xcoms["generation"]["id"] == generation_id
        assert ti.xcoms["generation"]["video_url"].startswith("http")

    @pytest.mark.parametrize(
        ("word", "error"), [("[fail]", LumaGenerationFailed), ("[moderated]", AirflowFailException)]
    )
    def test_failed_generation_fails_task(self, word, error, waits, sandbox, ti):
        """A failed generation fails the task; after moderation, Airflow does not retry it."""
        with pytest.raises(error) as caught:
            finish(generate(user_prompt=f"{PROMPT} {word}", **waits), ti, sandbox)
        assert ti.xcoms["return_value"] in str(caught.value)
        assert ("change the prompt" in str(caught.value)) is (word == "[moderated]")

    def test_do_xcom_push_false(self, waits, sandbox, ti):
        """A task with do_xcom_push=False pushes nothing."""
        assert finish(generate(do_xcom_push=False, **waits), ti, sandbox)
        assert ti.xcoms == {}

    def test_pushes_id_before_wait(self, running, ti, monkeypatch):
        """A deferred task has pushed the generation id, and polls with the task's own settings."""
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_LUMA_DEFAULT"])
        arguments = {"luma_conn_id": "other", "poll_interval": 17}
        deferred = defer(generate(wait_for_completion=True, deferrable=True, **arguments), ti)
        assert deferred.trigger.serialize()[1] == {
            **arguments,
            "generation_id": ti.xcoms["return_value"],
            "target_state": ["completed"],
        }

    def test_defers_if_poll_fails(self, sandbox, ti):
        """A task whose first poll fails is deferred after this poll."""
        sandbox.weather(status={"500": 1})
        defer(generate(wait_for_completion=True, deferrable=True), ti)
        assert sandbox.report()["generations"][0]["id"] == ti.xcoms["return_value"]
        assert len(sandbox.requests) == 2

    @pytest.mark.parametrize(("ago", "left"), [(0, 5), (2, 3), (9, 0)])
    def test_defers_for_remaining_time(self, ago, left, running, ti):
        """A deferral gets the rest of the execution time-out, which Airflow would start again."""
        ti.start_date -= timedelta(minutes=ago)
        limit = timedelta(minutes=5)
        deferred = defer(generate(wait_for_completion=True, deferrable=True, execution_timeout=limit), ti)
        assert max(60 * left - 30, 0) < deferred.timeout.total_seconds() <= max(60 * left, 1)

    def test_defers_without_time_limit(self, running, ti):
        """A task without an execution time-out is deferred for any time."""
        assert defer(generate(wait_for_completion=True, deferrable=True), ti).timeout is None

    def test_polls_at_poll_interval(self, connect, ti, slept, monkeypatch):
        """A task that waits on its worker sleeps for its poll interval between two polls."""
        clock = Clock()
        with Sandbox(seconds=10, clock=clock) as sandbox:
            connect(host=sandbox.url, password=TOKEN)

            def sleep(seconds):
                slept.append(seconds)
                clock.now += seconds

            monkeypatch.setattr("time.sleep", sleep)
            run(generate(wait_for_completion=True, poll_interval=6), ti)
        assert slept == [6, 6]

    def test_ambiguous_submission_is_not_retried(self, sandbox, ti):
        """A submission that may have been charged fails the task without a retry."""
        with pytest.raises(AirflowFailException, match="may have been accepted and charged"):
            run(generate(user_prompt=f"{PROMPT} [drop]"), ti)
        assert sandbox.report()["charged"] == 1

    def test_bad_token_is_not_retried(self, connect, sandbox, ti):
        """A wrong token fails the task without a retry."""
        connect(host=sandbox.url, password="wrong")
        with pytest.raises(AirflowFailException, match="Check the token"):
            run(generate(), ti)

    def test_api_trouble_is_retried(self, connect, ti, no_retries):
        """If the API cannot be reached, Airflow may retry the task."""
        connect(host="127.0.0.1:1", password=TOKEN)
        with pytest.raises(LumaConnectionError):
            run(generate(), ti)

    def test_low_balance_is_retried(self, sandbox, ti):
        """If the balance is too low, Airflow may retry the task."""
        sandbox.weather(submit={"402": 1})
        with pytest.raises(LumaQuotaError):
            run(generate(), ti)

    def test_warns_of_missing_url(self, connect, ti, logged, monkeypatch):
        """A completed generation that still has no video URL after a minute succeeds with a warning."""
        monkeypatch.setattr(waiting, "NO_FILE_GRACE", 0)
        answers = json_answer(b'{"id": "x"}'), json_answer(b'{"id": "x", "state": "completed"}')
        with far_end(*answers) as (url, _):
            connect(host=url, password=TOKEN)
            assert run(generate(wait_for_completion=True), ti) == "x"
        assert logged("Generation x is completed, but the API gave no URL of its video")

    def test_kill_names_generation(self, ti, logged):
        """If a person stops the task, the log names the generation that keeps running."""
        generate().on_kill()
        assert not logged("keeps running")
        operator = generate()
        generation_id = run(operator, ti)
        operator.on_kill()
        assert logged(f"cannot cancel generation {generation_id}. It keeps running and is charged") == 1
        assert not logged("its answer has not arrived")

    def test_kill_after_rejection_is_quiet(self, ti, logged):
        """If the submission was rejected, stopping the task logs no warning."""
        operator = generate(user_prompt=f"{PROMPT} [429:90]")
        defer(operator, ti)
        operator.on_kill()
        assert not logged("keeps running")
        assert not logged("charged")

    @pytest.mark.parametrize(("limit", "said"), [(None, True), (timedelta(hours=1), False)])
    def test_suggests_time_limit(self, limit, said, ti, logged):
        """A wait without a time limit logs how to set it."""
        run(generate(wait_for_completion=True, execution_timeout=limit), ti)
        assert logged("To set a limit: execution_timeout=") == said


class TestExtend:
    def test_extends_a_generation(self, waits, sandbox, ti):
        """An extension is a new generation; it sends only the arguments that extensions have."""
        first = sandbox.add_generation(seconds=0)
        extension = LumaExtendVideoOperator(
            task_id="extend",
            generation_id=first,
            user_prompt="It sinks",
            extra_body={"aspect_ratio": "16:9"},
            **waits,
        )
        second = finish(extension, ti, sandbox)
        known = sandbox.report()["generations"][-1]
        assert known["parent"] == first
        assert known["body"] == {"user_prompt": "It sinks", "aspect_ratio": "16:9"}
        assert ti.xcoms["generation"]["id"] == second != first


class TestRenderedArguments:
    """Arguments are checked when the task runs, after their templates were rendered."""

    @pytest.mark.parametrize(
        ("rendered", "sent"),
        [
            ({"loop": "True"}, {"loop": True}),
            ({"expand_prompt": " false "}, {"expand_prompt": False}),
            ({"duration": "None", "model_name": "", "aspect_ratio": None}, {}),
            ({"aspect_ratio": 2024}, {"aspect_ratio": "2024"}),
        ],
    )
    def test_reads_rendered_words(self, rendered, sent, sandbox, ti):
        """The words that templates render become values; None and empty texts are not sent."""
        run(generate(**rendered), ti)
        assert sandbox.report()["generations"][0]["body"] == {"user_prompt": PROMPT, **sent}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"loop": "perhaps"}, "loop must be True or False, got str 'perhaps'"),
            ({"duration": ["5s"]}, "duration must be a string, got list"),
            ({"extra_body": {"user_prompt": "x"}}, "Given twice, as an argument and in extra_body: user_prompt"),
            ({"extra_body": "text"}, "extra_body must be a dict with strings as keys, got 'text'"),
            ({"extra_body": {"at": datetime.now(timezone.utc)}}, "cannot be written as JSON"),
        ],
    )
    def test_wrong_value_fails_task(self, arguments, message, sandbox, ti):
        """A wrong value fails the task without a retry before anything is sent."""
        with pytest.raises(AirflowFailException, match=message):
            run(generate(**arguments), ti)
        assert sandbox.report()["requests"] == 0

    @pytest.mark.parametrize("generation_id", ["", None, ["a", "b"]])
    def test_wrong_id_fails_extension(self, generation_id, sandbox, ti):
        """An extension of something that is not a generation id fails without a retry."""
        operator = LumaExtendVideoOperator(task_id="extend", generation_id=generation_id, user_prompt=PROMPT)
        with pytest.raises(AirflowFailException, match="generation id must be a string"):
            run(operator, ti)
        assert sandbox.report()["requests"] == 0


class TestParsing:
    def test_checks_untemplated_argument(self):
        """A wrong on_ambiguous_submission, which is not a template, fails the parsing of the DAG."""
        with pytest.raises(ValueError, match='"fail" or "resubmit", got \'retry\''):
            generate(on_ambiguous_submission="retry")

    def test_output_makes_upstream_task(self):
        """The output of a task is accepted everywhere, also inside lists and dicts, and makes it upstream."""
        with DAG("dag", schedule=None):

            @task
            def value():
                return PROMPT

            made = value()
            submit = LumaGenerateVideoOperator(task_id="submit", user_prompt=made, loop=made)
            listed = LumaGenerateVideoOperator(task_id="listed", extra_body={"keyframes": [made, "x"]})
            wait = LumaGenerationSensor(task_id="wait", generation_id=submit.output, target_state=[made, "failed"])
            extend = LumaExtendVideoOperator(task_id="extend", generation_id=submit.output, user_prompt=PROMPT)
        assert submit.upstream_task_ids == listed.upstream_task_ids == {"value"}
        assert wait.upstream_task_ids == {"submit", "value"}
        assert extend.upstream_task_ids == {"submit"}

    @pytest.mark.parametrize("begin", ["{{", "[["])
    @pytest.mark.parametrize(
        ("operator", "names"),
        [
            (LumaGenerateVideoOperator, ["luma_conn_id", *ARGUMENTS]),
            (LumaExtendVideoOperator, ["luma_conn_id", "generation_id", *EXTEND_ARGUMENTS]),
            (LumaGenerationSensor, ["luma_conn_id", "generation_id", "target_state"]),
        ],
    )
    def test_every_argument_is_template(self, operator, names, begin):
        """Every argument of a request can be a template, with the DAG's own delimiters."""
        end = begin.translate(str.maketrans("{[", "}]"))
        template = f"{begin} value {end}"
        arguments = dict.fromkeys(names, template)
        if operator is not LumaGenerationSensor:
            arguments["extra_body"] = {"seed": template}
        jinja = {"variable_start_string": begin, "variable_end_string": end}
        with DAG("dag", schedule=None, jinja_environment_kwargs=jinja):
            made = operator(task_id="made", **arguments)
        made.render_template_fields({"value": "x"})
        assert {name: getattr(made, name) for name in names} == dict.fromkeys(names, "x")
        assert getattr(made, "extra_body", {"seed": "x"}) == {"seed": "x"}

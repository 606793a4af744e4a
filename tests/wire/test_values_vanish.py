"""Values that templates, mapping and tasks turn into something else."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_luma.api import LumaClient, LumaError, LumaInvalidRequest
from airflow_provider_luma.api.arguments import check_generation_id
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from airflow_provider_luma.triggers.luma import LumaGenerationTrigger
from tests.support.raw_answers import far_end, json_answer
from tests.support.samples import PROMPT, TOKEN
from tests.support.task_instance import TaskInstance, run


@pytest.mark.parametrize("rendered", [None, "None"])
@pytest.mark.parametrize("name", ["image_url", "image_end_url"])
def test_vanished_image_fails_before_sending(name, rendered, connection, sandbox):
    """An image that was given and renders to None fails the task: a video without it would be charged."""
    operator = LumaGenerateVideoOperator(task_id="film", user_prompt=PROMPT, **{name: "{{ image }}"})
    setattr(operator, name, rendered)
    with pytest.raises(AirflowFailException, match=f"{name} was given, but its value is None"):
        run(operator, TaskInstance())
    assert sandbox.requests == []


@pytest.mark.parametrize("empty", ["", " \n"])
def test_empty_image_is_left_out(empty, connection, sandbox):
    """An empty text means that the image is left out."""
    operator = LumaGenerateVideoOperator(task_id="film", user_prompt=PROMPT, image_url="{{ image }}")
    operator.image_url = empty
    run(operator, TaskInstance())
    assert sandbox.requests[0].body == {"user_prompt": PROMPT}


def test_other_vanished_argument_is_logged(connection, sandbox, logged):
    """Any other argument that was given and is None gets one line of the log."""
    operator = LumaGenerateVideoOperator(task_id="film", user_prompt=PROMPT, duration="{{ length }}")
    operator.duration = None
    run(operator, TaskInstance())
    assert logged("duration was given, but its value is None: it is left out.") == 1
    assert sandbox.requests[0].body == {"user_prompt": PROMPT}


@pytest.mark.parametrize("operator", [LumaGenerateVideoOperator, LumaExtendVideoOperator])
@pytest.mark.parametrize("name", ["wait_for_completion", "deferrable"])
@pytest.mark.parametrize("value", ["False", 1, None])
def test_flag_must_be_boolean(name, value, operator):
    """A flag that is not templated is checked at construction: the text "False" would be true."""
    id_ = {"generation_id": "x"} if operator is LumaExtendVideoOperator else {}
    with pytest.raises(ValueError, match=f"{name} must be True or False"):
        operator(task_id="film", user_prompt=PROMPT, **id_, **{name: value})


def test_sensor_flag_must_be_boolean():
    """The sensor's flag is checked at construction, too."""
    with pytest.raises(ValueError, match="deferrable must be True or False"):
        LumaGenerationSensor(task_id="wait", generation_id="x", deferrable="False")


@pytest.mark.parametrize("around", ["\n{}", " {} ", "\t{}\n"])
def test_space_around_image_is_removed(around, client, sandbox):
    """White space around an image's URL, as templates leave it, is removed."""
    client.submit(PROMPT, image_url=around.format("https://img.example.net/a.png"))
    assert sandbox.requests[0].body["image_url"] == "https://img.example.net/a.png"


@pytest.mark.parametrize(
    "answer",
    [
        {"id": 4711, "state": "pending"},
        {"code": "success", "message": "", "data": 4711},
        {"code": 0, "data": {"task_id": 4711, "task_status": "submitted"}},
    ],
)
def test_numeric_id_is_taken_as_text(answer):
    """A number as the id of a new generation is not lost: it may have been charged."""
    with far_end(json_answer(json.dumps(answer).encode())) as (url, _):
        assert LumaClient(url, TOKEN).submit(PROMPT).id == "4711"


@pytest.mark.parametrize("body", [b'{"done": {"uuid": "4711-a"}}', b"<html>4711-a</html>", b'{"id": ["4711-a"]}'])
def test_unreadable_answer_is_logged(body, caplog):
    """The text of an answer to a submission that cannot be read is in the log, without the token."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body) + len(TOKEN), body + TOKEN.encode())
    with far_end(answer) as (url, _), pytest.raises(LumaError):
        LumaClient(url, TOKEN).submit(PROMPT)
    assert "4711-a" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("extra_body", [{1: "a", "b": 2}, {"video": {1: "a", "b": 2}}])
def test_mixed_keys_get_a_sentence(extra_body, connection, sandbox):
    """An extra_body whose keys are not all texts fails without a retry, and nothing is sent."""
    operator = LumaGenerateVideoOperator(task_id="film", user_prompt=PROMPT, extra_body=extra_body)
    with pytest.raises(AirflowFailException, match=r"strings as keys|cannot be written as JSON"):
        operator.execute({"ti": TaskInstance(), "task_state_store": Memory()})
    assert sandbox.requests == []


class Memory(dict):
    """A task state store."""

    def set(self, key, value):
        self[key] = value


@pytest.mark.parametrize("rendered", ["None", "['a', 'b']", '{"id": 1}', True, 1.5])
def test_id_from_wrong_template_is_refused(rendered):
    """An id that a template turned into None, a list or a dict is refused, and not polled for a minute."""
    with pytest.raises(LumaInvalidRequest, match="must be a string such as a UUID"):
        check_generation_id(rendered)


def test_native_rendering_numbers_become_texts(connection, sandbox):
    """Numbers that native rendering makes of texts are accepted as prompts and ids."""
    run(LumaGenerateVideoOperator(task_id="film", user_prompt=2024), TaskInstance())
    sandbox.add_generation(generation_id="4711", state="completed")
    found = run(LumaGenerationSensor(task_id="wait", generation_id=4711), TaskInstance())
    assert (sandbox.requests[0].body, found["id"]) == ({"user_prompt": "2024"}, "4711")


@pytest.mark.parametrize("reason", ["failed to moderate image", "Content policy violation", "内容违规"])
def test_moderation_words_are_recognised(reason, connection, sandbox):
    """Every documented and seen wording of a moderation counts as moderation, which no retry helps."""
    generation_id = sandbox.add_generation(failure_reason=reason)
    generation = LumaHook().get_generation(generation_id)
    assert (generation.moderated, generation.retry_may_help) == (True, False)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", "{{ 5 }}", None, True, timedelta(0)])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda value: LumaGenerateVideoOperator(task_id="film", poll_interval=value), "poll_interval"),
        (
            lambda value: LumaExtendVideoOperator(task_id="f", generation_id="x", poll_interval=value),
            "poll_interval",
        ),
        (lambda value: LumaGenerationSensor(task_id="wait", generation_id="x", poke_interval=value), "poke_interval"),
        (lambda value: LumaGenerationTrigger("x", poll_interval=value), "poll_interval"),
        (lambda value: LumaHook().wait_for_generation("x", poll_interval=value), "poll_interval"),
    ],
    ids=["generate", "extend", "sensor", "trigger", "hook"],
)
def test_wrong_interval_is_refused(make, name, value):
    """An interval that is not positive is refused by name: one such wait stopped all others."""
    with pytest.raises(LumaInvalidRequest, match=f"{name} must be a positive number of seconds or a timedelta"):
        make(value)


def test_interval_may_be_timedelta():
    """A timedelta is accepted as an interval, and a trigger's row has seconds."""
    assert LumaGenerateVideoOperator(task_id="film", poll_interval=timedelta(seconds=10)).poll_interval == 10
    assert LumaGenerationTrigger("x", poll_interval=timedelta(seconds=10)).serialize()[1]["poll_interval"] == 10


def test_hook_refuses_wrong_id(connection):
    """A wait of the hook does not poll for an id that cannot be one."""
    with pytest.raises(LumaInvalidRequest, match="such as a UUID, got 'None'"):
        LumaHook().wait_for_generation("None")

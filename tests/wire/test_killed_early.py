"""A task that is stopped early, submits twice, or waits for its turn."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_luma.api import LumaError
from airflow_provider_luma.decorators.luma import luma_video_task
from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator
from tests.support.samples import PROMPT
from tests.support.task_instance import TaskInstance, run
from tests.support.tries import Store


def test_nothing_leaves_after_early_kill(connection, sandbox):
    """From SIGTERM on nothing is sent, also if it comes before the task has begun to execute."""
    operator = LumaGenerateVideoOperator(task_id="film", user_prompt=PROMPT)
    operator.on_kill()
    with pytest.raises(LumaError, match=r"being stopped\. Nothing was submitted"):
        run(operator.prepare_for_execution(), TaskInstance())
    assert sandbox.report()["generations"] == []


@pytest.mark.parametrize("second", [PROMPT, "Another prompt"])
def test_second_submission_of_task_is_refused(second, connection, sandbox):
    """A subclass that submits twice fails with a sentence, so that no retry pays for both again."""

    class Twice(LumaGenerateVideoOperator):
        def execute(self, context):
            super().execute(context)
            self.user_prompt = second
            return super().execute(context)

    store = Store()
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="A task submits one generation"):
            Twice(task_id="film", user_prompt=PROMPT).execute({"ti": TaskInstance(), "task_state_store": store})
    assert len(sandbox.report()["generations"]) == 1


def test_function_is_called_once_in_try(connection, sandbox):
    """A decorated function is not called again after the task waited for its turn."""
    calls = []

    def prompt():
        calls.append(1)
        return f"{PROMPT} [429:60] number {len(calls)}"

    operator = luma_video_task(prompt, task_id="film")().operator
    with pytest.raises(TaskDeferred) as caught:
        run(operator, TaskInstance())
    later = luma_video_task(prompt, task_id="film")().operator
    getattr(later, caught.value.method_name)({"ti": TaskInstance()}, event=None, **caught.value.kwargs)
    (generation,) = sandbox.report()["generations"]
    assert (len(calls), generation["prompt"]) == (1, f"{PROMPT} [429:60] number 1")


def test_turn_comes_when_api_says(connection):
    """After a 429 the task defers for as long as the API asks, plus jitter of at most a quarter."""
    began = datetime.now(timezone.utc)
    with pytest.raises(TaskDeferred) as caught:
        run(LumaGenerateVideoOperator(task_id="film", user_prompt=f"{PROMPT} [429:30]"), TaskInstance())
    ended = datetime.now(timezone.utc)
    moment = caught.value.trigger.moment
    assert began + timedelta(seconds=30) <= moment <= ended + timedelta(seconds=37.5)

"""A task through its tries, and a state store that keeps its rows between them."""

from __future__ import annotations

import json

import pytest

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator
from tests.support.samples import PROMPT
from tests.support.task_instance import TaskInstance


class Killed(BaseException):
    """The process of a task ends here, as after a SIGKILL."""


class Store:
    """
    Airflow's task state store: JSON by key.

    `kill_after` is called with each value that is written; if it returns true, the process is killed, once.
    """

    def __init__(self):
        self.rows = {}
        self.kill_after = None

    def get(self, key, default=None):
        return json.loads(self.rows[key]) if key in self.rows else default

    def set(self, key, value):
        self.rows[key] = json.dumps(value)
        if self.kill_after and self.kill_after(value):
            self.kill_after = None
            raise Killed

    def delete(self, key):
        self.rows.pop(key, None)


class Task(TaskInstance):
    """
    A task instance through its tries.

    `fails_afterwards` is an error that a try raises after its `execute`. `late_callback` is an `on_success_callback`
    that is assigned after the construction of the operator.

    :param store: its state store; None for an Airflow before 3.3.
    :param retries: the operator's retries.
    :param arguments: the operator's other arguments.
    """

    def __init__(self, store, retries=2, **arguments):
        super().__init__()
        self.store = store
        self.retries = self.max_tries = retries
        self.try_number = 0
        self.arguments = {"user_prompt": PROMPT, **arguments}
        self.fails_afterwards = None
        self.late_callback = None

    def run(self, operator=LumaGenerateVideoOperator, **changed):
        """Run the next try, with some arguments changed."""
        self.try_number += 1
        self.xcoms = {}
        task = operator(task_id="submit", **{"poll_interval": 0.05, **self.arguments, **changed})
        if self.late_callback:
            task.on_success_callback = [self.late_callback]
        context = {"ti": self, "task_state_store": self.store}
        returned = task.execute(context)
        if self.fails_afterwards:
            raise self.fails_afterwards
        # As Airflow does, even if its API server then marks the task as failed.
        for callback in task.on_success_callback:
            callback(context)
        return returned

    def run_killed(self, operator=LumaGenerateVideoOperator, **changed):
        """Run the next try, kill its process after the submission, and return the id of the generation."""
        self.store.kill_after = lambda record: record.get("generation_id")
        with pytest.raises(Killed):
            self.run(operator, **changed)
        (row,) = self.store.rows
        return self.store.get(row)["generation_id"]

    def clear(self, *, discard=False):
        """Clear the task as a person does; from Airflow 3.4 on, a clear can discard the state."""
        self.max_tries = self.try_number + self.retries
        if discard:
            self.store.rows.clear()

"""A task through its tries, with a state store that outlasts them."""

from __future__ import annotations

import json
from datetime import datetime, timezone

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator
from tests.support.samples import PROMPT


class Killed(BaseException):
    """The process ends here, as from a SIGKILL."""


class Store:
    """Airflow's task state store: JSON by key, which outlasts every try."""

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


class Task:
    """One task instance through its tries, retries and clears."""

    def __init__(self, store, retries=2, **arguments):
        self.store = store
        self.retries = self.max_tries = retries
        self.try_number = 0
        self.start_date = datetime.now(timezone.utc)
        self.arguments = {"user_prompt": PROMPT, **arguments}
        self.xcoms = {}
        self.fails_afterwards = None

    map_index = -1

    def xcom_push(self, key, value):
        self.xcoms[key] = value

    def xcom_pull(self, key, map_indexes):
        return self.xcoms.get(key)

    def run(self, operator=LumaGenerateVideoOperator, **changed):
        """Run the next try, automatic unless the task was cleared before."""
        self.try_number += 1
        self.xcoms = {}
        task = operator(task_id="submit", poll_interval=0.05, **{**self.arguments, **changed})
        context = {"ti": self, "task_state_store": self.store}
        returned = task.execute(context)
        if self.fails_afterwards:
            raise self.fails_afterwards
        for callback in task.on_success_callback:
            callback(context)
        return returned

    def clear(self):
        """Do what Airflow does when a person clears the task."""
        self.max_tries = self.try_number + self.retries

"""A task instance without an Airflow around it, and what worker and triggerer do with an operator's task."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_provider_luma.triggers.luma import LumaGenerationTrigger
from tests.support.samples import TOKEN

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDeferred


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

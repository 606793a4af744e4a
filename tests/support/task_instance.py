"""Run a task without an Airflow: its worker, and its triggerer if it defers."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_luma.triggers.luma import LumaGenerationTrigger
from tests.support.samples import TOKEN


class TaskInstance:
    """The parts of a task instance that operators and sensors use; `xcoms` has the XComs by key."""

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

    def get_first_reschedule_date(self, context):
        """Return None: no earlier process has polled for this sensor."""


def run(operator, ti, **context):
    """Run a task as a worker does."""
    return operator.execute({"ti": ti, **context})


def fire(deferred: TaskDeferred) -> dict:
    """Run the trigger of a deferred task as a triggerer does, and return its event."""
    classpath, kwargs = deferred.trigger.serialize()
    assert classpath == "airflow_provider_luma.triggers.luma.LumaGenerationTrigger"
    assert TOKEN not in json.dumps(kwargs)

    async def first_event():
        return await anext(LumaGenerationTrigger(**json.loads(json.dumps(kwargs))).run())

    return json.loads(json.dumps(asyncio.run(first_event()).payload))


def resume(operator, deferred, ti, **context):
    """Wait for the trigger of a deferred task, and run the rest of the task."""
    kwargs = {**(deferred.kwargs or {}), "event": fire(deferred)}
    return operator.resume_execution(deferred.method_name, kwargs, {"ti": ti, **context})


def finish(operator, ti, sandbox, **context):
    """Run a task to its end. If it defers, its generation ends in the meantime."""
    try:
        return run(operator, ti, **context)
    except TaskDeferred as deferred:
        for generation_id in sandbox.memory.generations:
            sandbox.finish(generation_id)
        return resume(operator, deferred, ti, **context)

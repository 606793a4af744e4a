"""The time limits of a sensor."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_luma.api import LumaClient, LumaConnectionError
from airflow_provider_luma.sensors.luma import LumaGenerationSensor
from tests.support.raw_answers import error_answer, far_end
from tests.support.samples import TOKEN
from tests.support.task_instance import TaskInstance
from tests.support.tries import Store


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"timeout": 60, "execution_timeout": timedelta(seconds=30)}, AirflowTaskTimeout),
        ({"timeout": 30, "execution_timeout": timedelta(seconds=60)}, AirflowSensorTimeout),
        ({"timeout": 30}, AirflowSensorTimeout),
    ],
)
def test_only_sensor_timeout_ends_for_good(limits, error):
    """A deferral that ran into the execution time-out can be retried; one that ran into ``timeout`` cannot."""
    sensor = LumaGenerationSensor(task_id="wait", generation_id="x", deferrable=True, **limits)
    with pytest.raises(error):
        sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, {"ti": TaskInstance()})


def test_poll_ends_with_sensor(connect):
    """A poll lasts no longer than the time that the sensor has left."""
    with far_end([], then_close=False) as (url, _):
        connect(host=url, password=TOKEN, extra={"timeout": 600})
        sensor = LumaGenerationSensor(task_id="wait", generation_id="x", timeout=1, poke_interval=0.1)
        began = time.monotonic()
        with pytest.raises(AirflowSensorTimeout):
            sensor.execute({"ti": TaskInstance()})
        assert time.monotonic() - began < 60, "the connection's timeout is 600"


class Rescheduled(TaskInstance):
    """A task instance of a sensor that was rescheduled."""

    def get_first_reschedule_date(self, context):
        return datetime.now(timezone.utc) - timedelta(seconds=30)


def test_rescheduled_sensor_respects_retry_after(connect, logged):
    """A rescheduled sensor does not poll before the time that the API asked for, and warns once."""
    store = Store()

    def poke(url):
        connect(host=url, password=TOKEN)
        sensor = LumaGenerationSensor(task_id="wait", generation_id="x", mode="reschedule", poke_interval=10)
        return sensor.poke({"ti": Rescheduled(), "task_state_store": store})

    busy = error_answer(429, b'{"code": "busy", "message": "busy"}', b"Retry-After: 600\r\n")
    with far_end(busy, busy) as (url, requests):
        assert [bool(poke(url)) for _ in range(3)] == [False] * 3
    assert len(requests) == 1
    assert logged("it is polled again") == 1


def test_slow_headers_end_with_timeout():
    """A server that sends its headers one byte at a time holds a poll no longer than the timeout."""
    drip = [bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 20]
    with far_end(drip, pause=0.2) as (url, _), pytest.raises(LumaConnectionError, match="gave no answer in time"):
        LumaClient(url, TOKEN, timeout=1).get("x", repeat=False)

"""Submit a prompt from the run's configuration, and wait for it in each of the three ways."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor


@dag(
    schedule=None,
    params={"prompt": "A paper boat", "luma_conn_id": "luma_default"},
    default_args={"luma_conn_id": "{{ params.luma_conn_id }}", "retries": 1, "retry_delay": timedelta(seconds=5)},
)
def luma_bad_days():
    arguments = {"user_prompt": "{{ params.prompt }}"}
    submit = LumaGenerateVideoOperator(task_id="submit", **arguments)
    LumaGenerationSensor(task_id="reschedule", generation_id=submit.output, mode="reschedule", poke_interval=2)
    LumaGenerateVideoOperator(task_id="wait", wait_for_completion=True, poll_interval=1, **arguments)
    LumaGenerateVideoOperator(task_id="defer", wait_for_completion=True, deferrable=True, poll_interval=1, **arguments)


luma_bad_days()

"""A task that waits in the triggerer for each generation id in the run's configuration."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_luma.sensors.luma import LumaGenerationSensor


@dag(schedule=None, params={"ids": []}, max_active_tasks=32)
def luma_waiting():
    @task
    def ids(params):
        return params["ids"]

    LumaGenerationSensor.partial(task_id="wait", deferrable=True).expand(generation_id=ids())


luma_waiting()

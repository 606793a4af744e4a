"""A video in each iteration of a loop (Airflow 3.4)."""

from __future__ import annotations

from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple
from airflow.sdk import DAG, task_group

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator

if get_base_airflow_version_tuple() >= (3, 4, 0):
    with DAG("luma_loop", schedule=None):

        @task_group
        def refine():
            LumaGenerateVideoOperator(
                task_id="make",
                user_prompt="A paper boat, take {{ loop.index }}",
                wait_for_completion=True,
                deferrable=True,
                poll_interval=1,
            )

        refine.loop(max_iterations=2)

"""A hundred generations: half of them wait on a worker, half in the triggerer."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator

with DAG(
    "luma_chaos",
    schedule=None,
    max_active_tasks=64,
    default_args={
        "retries": 50,
        "retry_delay": timedelta(seconds=1),
        "poll_interval": 1,
        "wait_for_completion": True,
    },
):
    for mode, deferrable in (("worker", False), ("deferred", True)):
        LumaGenerateVideoOperator.partial(task_id=mode, deferrable=deferrable).expand(
            user_prompt=[f"A paper boat, {mode}, number {number}" for number in range(50)]
        )

with DAG("luma_chaos_cut", schedule=None, default_args={"retries": 3, "retry_delay": timedelta(seconds=1)}):
    LumaGenerateVideoOperator.partial(task_id="cut").expand(
        user_prompt=[f"A paper boat, cut, number {number}" for number in range(20)]
    )

"""A clip, and two extensions of it, each beginning where the one before ended."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator


@dag(
    schedule=None,
    default_args={"wait_for_completion": True, "deferrable": True},
    tags=["luma", "example"],
    doc_md=__doc__,
)
def example_luma_extend():
    opening = LumaGenerateVideoOperator(task_id="opening", user_prompt="Northern lights begin to glow over a lake")
    middle = LumaExtendVideoOperator(
        task_id="middle",
        generation_id=opening.output,
        user_prompt="The lights grow brighter and sweep across the sky",
    )
    LumaExtendVideoOperator(
        task_id="ending",
        generation_id=middle.output,
        user_prompt="The lights fade, and the first stars of the morning appear",
    )


example_luma_extend()

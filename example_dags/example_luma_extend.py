"""Generate a video and extend it twice. Each extension begins at the end of the video before."""

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
    generate = LumaGenerateVideoOperator(task_id="generate", user_prompt="Northern lights begin to glow over a lake")
    extend = LumaExtendVideoOperator(
        task_id="extend",
        generation_id=generate.output,
        user_prompt="The lights grow brighter and sweep across the sky",
    )
    LumaExtendVideoOperator(
        task_id="extend_again",
        generation_id=extend.output,
        user_prompt="The lights fade, and the first stars of the morning appear",
    )


example_luma_extend()

"""A video for each prompt in a list."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator


@dag(schedule=None, params={"prompts": ["A paper boat crosses a puddle"]})
def luma_ui():
    @task
    def prompts(params):
        return params["prompts"]

    LumaGenerateVideoOperator.partial(
        task_id="make", model_name="ray-v2", wait_for_completion=True, deferrable=True, poll_interval=1
    ).expand(user_prompt=prompts())


luma_ui()

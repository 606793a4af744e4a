"""Submit a generation and wait for it in the triggerer, in one task that occupies no worker while it waits."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator


@dag(
    schedule=None,
    params={"prompt": "The sun rises over misty hills"},
    tags=["luma", "example"],
    doc_md=__doc__,
)
def example_luma_deferrable():
    generate = LumaGenerateVideoOperator(
        task_id="generate",
        user_prompt="{{ params.prompt }}",
        wait_for_completion=True,
        deferrable=True,
        execution_timeout=timedelta(hours=1),
    )

    @task
    def show(generation: dict) -> None:
        print(f"{generation['duration']} s, {generation['width']}x{generation['height']}: {generation['video_url']}")

    show(generate.output["generation"])


example_luma_deferrable()

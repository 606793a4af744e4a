"""Make a vertical video of ten seconds, for phones, from a prompt."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator


@dag(
    schedule=None,
    params={"prompt": "A paper boat sails down a flooded street, seen from above"},
    tags=["luma", "example"],
    doc_md=__doc__,
)
def example_luma_vertical():
    generate = LumaGenerateVideoOperator(
        task_id="generate",
        user_prompt="{{ params.prompt }}",
        aspect_ratio="9:16",
        # Luma's own API accepts no image_url and no image_end_url for ten seconds.
        duration="10s",
        resolution="720p",
        wait_for_completion=True,
        deferrable=True,
        execution_timeout=timedelta(hours=1),
    )

    @task
    def show(generation: dict) -> None:
        print(f"Your video: {generation['video_url']}")

    show(generate.output["generation"])


example_luma_vertical()

"""Submit a generation in one task and wait for it in the next: the shortest way to a video."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor


@dag(schedule=None, tags=["luma", "example"], doc_md=__doc__)
def example_luma_quickstart():
    submit = LumaGenerateVideoOperator(
        task_id="submit",
        user_prompt="A paper boat crosses a puddle",
        duration="5s",
        resolution="720p",
    )
    wait = LumaGenerationSensor(task_id="wait", generation_id=submit.output)

    @task
    def show(generation: dict) -> None:
        print(f"Your video: {generation['video_url']}")

    show(wait.output)


example_luma_quickstart()

"""One mapped task for each prompt in a list; the grid shows the prompt in place of a number."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor


@dag(schedule=None, tags=["luma", "example"], doc_md=__doc__)
def example_luma_mapped():
    @task
    def prompts() -> list[str]:
        return [
            "A paper boat crosses a puddle",
            "The sun rises over misty hills",
            "Northern lights glow over a lake",
        ]

    submit = LumaGenerateVideoOperator.partial(
        task_id="submit",
        model_name="ray-v2",
        map_index_template="{{ task.user_prompt }}",
    ).expand(user_prompt=prompts())
    wait = LumaGenerationSensor.partial(task_id="wait", deferrable=True).expand(generation_id=submit.output)

    @task
    def show(generations: list[dict]) -> None:
        for generation in generations:
            print(generation["video_url"])

    show(wait.output)


example_luma_mapped()

"""Make a video for each prompt in a list, in mapped tasks. Airflow's grid shows the prompts instead of numbers."""

from __future__ import annotations

from airflow.sdk import Param, dag, task

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor

PROMPTS = [
    "A paper boat crosses a puddle",
    "The sun rises over misty hills",
    "Northern lights glow over a lake",
]


@dag(schedule=None, tags=["luma", "example"], doc_md=__doc__, params={"prompts": Param(PROMPTS, type="array")})
def example_luma_mapped():
    @task
    def prompts(params: dict) -> list[str]:
        return params["prompts"]

    submit = LumaGenerateVideoOperator.partial(
        task_id="submit",
        map_index_template="{{ task.user_prompt }}",
    ).expand(user_prompt=prompts())
    wait = LumaGenerationSensor.partial(task_id="wait", deferrable=True).expand(generation_id=submit.output)

    @task
    def show(generations: list[dict]) -> None:
        for generation in generations:
            print(generation["video_url"])

    show(wait.output)


example_luma_mapped()

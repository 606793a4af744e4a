"""Make and store a video of each product in a table, and write a manifest of the videos."""

from __future__ import annotations

import json

from airflow.sdk import ObjectStoragePath, dag, task

from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor


@dag(
    schedule=None,
    params={"folder": "file:///tmp/luma-videos/"},
    tags=["luma", "example"],
    doc_md=__doc__,
)
def example_luma_catalogue():
    @task
    def products() -> list[dict]:
        """Return the rows of the table. Replace this with a query of your database."""
        return [
            {"sku": "B-1", "name": "paper boat", "place": "a puddle"},
            {"sku": "L-7", "name": "lantern", "place": "misty hills at sunrise"},
            {"sku": "T-3", "name": "telescope", "place": "the foot of the night sky"},
        ]

    @task.luma_video(map_index_template="{{ task.user_prompt }}")
    def submit(product: dict) -> str:
        return f"A {product['name']} at {product['place']}, slow camera"

    rows = products()
    submitted = submit.expand(product=rows)
    wait = LumaGenerationSensor.partial(task_id="wait", deferrable=True).expand(generation_id=submitted)
    download = LumaDownloadVideoOperator.partial(
        task_id="download", destination="{{ params.folder.rstrip('/') }}/{{ run_id | replace(':', '-') }}/"
    ).expand(generation=wait.output)

    @task
    def manifest(rows: list[dict], videos: list[str], params=None, run_id=None) -> str:
        """Write the path of each product's video into a file next to the videos."""
        path = ObjectStoragePath(params["folder"]) / run_id.replace(":", "-") / "manifest.json"
        made = [{**row, "video": video} for row, video in zip(rows, videos, strict=True)]
        path.write_text(json.dumps(made, indent=2))
        return str(path)

    manifest(rows, download.output)


example_luma_catalogue()

"""Submit, wait, and store the video in a folder of yours. The folder is a param: on disk or in an object store."""

from __future__ import annotations

from airflow.sdk import Asset, dag, task

from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator
from airflow_provider_luma.sensors.luma import LumaGenerationSensor


@dag(
    schedule=None,
    params={"prompt": "A paper boat crosses a puddle", "folder": "file:///tmp/luma-videos/"},
    tags=["luma", "example"],
    doc_md=__doc__,
)
def example_luma_archive():
    submit = LumaGenerateVideoOperator(task_id="submit", user_prompt="{{ params.prompt }}")
    wait = LumaGenerationSensor(task_id="wait", generation_id=submit.output, deferrable=True)
    download = LumaDownloadVideoOperator(
        task_id="download",
        generation=wait.output,
        destination="{{ params.folder }}",
        # DAGs scheduled by this asset, such as example_luma_asset_scheduled, run when the video is stored.
        outlets=[Asset("luma_videos")],
    )

    @task
    def show(video: dict) -> None:
        print(f"Your video: {video['path']} ({video['size']:,} bytes)")

    show(download.output["download"])


example_luma_archive()

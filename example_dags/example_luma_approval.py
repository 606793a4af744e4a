"""Generate a video, and extend and store it after a person has approved it in Airflow's UI (Airflow 3.1 and later)."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_luma.operators.luma import (
    LumaDownloadVideoOperator,
    LumaExtendVideoOperator,
    LumaGenerateVideoOperator,
)


@dag(
    schedule=None,
    params={"folder": "file:///tmp/luma-videos/"},
    default_args={"deferrable": True},
    tags=["luma", "example"],
    doc_md=__doc__,
)
def example_luma_approval():
    # Imported here, because an import at the top would stop the DAG processor of Airflow 3.0.
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    generate = LumaGenerateVideoOperator(
        task_id="generate", user_prompt="The sun rises over misty hills", wait_for_completion=True
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Extend and store this video?",
        body="[Watch it]({{ ti.xcom_pull('generate', key='generation')['video_url'] }}). Only an approval costs more.",
    )
    extend = LumaExtendVideoOperator(
        task_id="extend",
        generation_id=generate.output,
        user_prompt="The mist clears and birds take off",
        wait_for_completion=True,
    )
    download = LumaDownloadVideoOperator(
        task_id="download", generation=extend.output, destination="{{ params.folder }}"
    )
    generate >> approve >> extend >> download


example_luma_approval()

"""A person looks at a clip in Airflow's UI before it is extended and stored (Airflow 3.1 and later)."""

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
    # At the top of the file, this would stop the whole DAG processor of an Airflow 3.0.
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    clip = LumaGenerateVideoOperator(
        task_id="clip", user_prompt="The sun rises over misty hills", wait_for_completion=True
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Extend this clip, and store it?",
        body="[Watch it]({{ ti.xcom_pull('clip', key='generation')['video_url'] }}). Rejecting it costs nothing more.",
    )
    longer = LumaExtendVideoOperator(
        task_id="longer",
        generation_id=clip.output,
        user_prompt="The mist clears and birds take off",
        wait_for_completion=True,
    )
    download = LumaDownloadVideoOperator(
        task_id="download", generation=longer.output, destination="{{ params.folder }}"
    )
    clip >> approve >> longer >> download


example_luma_approval()

"""A slow download with a second try."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator


@dag(
    schedule=None,
    params={"luma_conn_id": "luma_default"},
    default_args={
        "luma_conn_id": "{{ params.luma_conn_id }}",
        "retries": 1,
        "retry_delay": timedelta(seconds=0),
    },
)
def luma_download():
    submit = LumaGenerateVideoOperator(task_id="submit", user_prompt="A paper boat", wait_for_completion=True)
    LumaDownloadVideoOperator(task_id="download", generation=submit.output, destination="{{ dag_run.conf['folder'] }}")


luma_download()

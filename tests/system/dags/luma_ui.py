"""Videos of a list of prompts, and tasks beside them that are not Luma's."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_luma.operators.luma import LumaGenerateVideoOperator


@dag(schedule=None, params={"prompts": ["A paper boat crosses a puddle"]})
def luma_ui():
    @task
    def prompts(params):
        return params["prompts"]

    @task
    def forged(ti):
        """Push what a record could be, but is not: whoever writes a DAG can."""
        generation = {"id": "forged", "state": "completed", "video_url": "javascript:alert(1)", "thumbnail_url": 7}
        request = {"user_prompt": ["<b>", {"a": 1}], "image_url": "data:text/html,<script>alert(2)</script>"}
        ti.xcom_push("luma", {"generation_id": "forged", "request": request, "generation": generation, "stored": {}})

    @task
    def garbage(ti):
        ti.xcom_push("luma", ["no", "record"])

    LumaGenerateVideoOperator.partial(
        task_id="make", model_name="ray-v2", wait_for_completion=True, deferrable=True, poll_interval=1
    ).expand(user_prompt=prompts())
    forged()
    garbage()


luma_ui()

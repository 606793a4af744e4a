"""What could be a task's record, but is not: whoever writes a DAG can push it."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None)
def luma_forged():
    @task
    def forged(ti):
        generation = {"id": "forged", "state": "completed", "video_url": "javascript:alert(1)", "thumbnail_url": 7}
        request = {"user_prompt": ["<b>", {"a": 1}], "image_url": "data:text/html,<script>alert(2)</script>"}
        ti.xcom_push("luma", {"generation_id": "forged", "request": request, "generation": generation, "stored": {}})

    @task
    def garbage(ti):
        ti.xcom_push("luma", ["no", "record"])

    forged()
    garbage()


luma_forged()

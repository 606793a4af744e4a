"""Forged records. A DAG can push any XCom under the key of the record."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None)
def luma_forged():
    @task
    def forged(ti):
        generation = {"id": "forged", "state": "completed", "video_url": "javascript:alert(1)", "thumbnail_url": 7}
        request = {"user_prompt": "<b>", "image_url": "data:text/html,<script>alert(2)</script>"}
        record = {"generation_id": 'forged "<i>" é\\', "request": request, "generation": generation}
        ti.xcom_push("luma", {**record, "stored": "javascript:alert(3)"})

    @task
    def garbage(ti):
        ti.xcom_push("luma", ["no", "record"])

    forged()
    garbage()


luma_forged()

"""The DAGs of the tests of the test harness. They do not use Luma."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import dag, task


@dag(schedule=None)
def plain():
    @task
    def answer(params):
        print("thinking")
        return {"answer": params.get("answer")}

    answer()


@dag(schedule=None)
def deferring():
    TimeDeltaSensor(task_id="wait", delta=timedelta(seconds=30), deferrable=True)


@dag(schedule=None)
def killed():
    @task(retries=1, retry_delay=timedelta(seconds=0))
    def work(ti=None):
        if ti.try_number == 1:
            time.sleep(600)

    work()


plain()
deferring()
killed()

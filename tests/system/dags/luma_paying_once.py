"""A DAG for each way to submit and wait, for tests that kill tasks. The run's configuration has the prompt."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, task

from airflow_provider_luma.operators.luma import LumaExtendVideoOperator, LumaGenerateVideoOperator


def linger(context, result=None):
    """Keep the process of the first try alive after it has submitted, so that a test can kill it."""
    if context["ti"].try_number == 1:
        time.sleep(120)


def fail(context, result=None):
    """Fail the first try at its end."""
    if context["ti"].try_number == 1:
        raise AirflowFailException("no room for XComs")


PARAMS = {"prompt": "", "luma_conn_id": "luma_default"}
DEFAULTS = {
    "luma_conn_id": "{{ params.luma_conn_id }}",
    "poll_interval": 1,
    "retries": 5,
    "retry_delay": timedelta(seconds=1),
}

WAYS = {
    "afterwards": {"post_execute": fail},
    "submit": {},
    "linger": {"post_execute": linger},
    "worker": {"wait_for_completion": True},
    "deferred": {"wait_for_completion": True, "deferrable": True},
    "worker_timeout": {"wait_for_completion": True, "execution_timeout": timedelta(seconds=15)},
    "deferred_timeout": {
        "wait_for_completion": True,
        "deferrable": True,
        "execution_timeout": timedelta(seconds=15),
    },
    "resubmit": {"on_ambiguous_submission": "resubmit"},
    "variable": {"wait_for_completion": True, "user_prompt": "{{ var.value.luma_prompt }}"},
}

for way, arguments in WAYS.items():
    with DAG(f"luma_once_{way}", schedule=None, params=PARAMS, default_args=DEFAULTS):
        LumaGenerateVideoOperator(task_id="video", **{"user_prompt": "{{ params.prompt }}", **arguments})

with DAG("luma_once_mapped", schedule=None, params=PARAMS, default_args=DEFAULTS):

    @task
    def prompts(params):
        return [f"{params['prompt']} {number}" for number in range(3)]

    LumaGenerateVideoOperator.partial(task_id="video", wait_for_completion=True, deferrable=True).expand(
        user_prompt=prompts()
    )

with DAG(
    "luma_once_extend",
    schedule=None,
    params=PARAMS,
    default_args={**DEFAULTS, "wait_for_completion": True},
):
    LumaExtendVideoOperator(
        task_id="video",
        generation_id=LumaGenerateVideoOperator(task_id="first", user_prompt="A boat that will be extended").output,
        user_prompt="{{ params.prompt }}",
    )

"""What Airflow loads when it starts: where the Luma tab is, and who serves it."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

log = logging.getLogger(__name__)

PREFIX = "/luma"


class LumaPlugin(AirflowPlugin):
    """
    The tab *Luma* on task instances and DAG runs.

    Airflow 3.0 has no such tabs: nothing is served there.
    """

    name = "luma"
    # Relative, so that they hold for an Airflow under a path of its host, too.
    external_views: list[Any] = [  # noqa: RUF012  as Airflow declares it
        {
            "name": "Luma",
            "href": f"{PREFIX[1:]}/dags/{{DAG_ID}}/runs/{{RUN_ID}}/tasks/{{TASK_ID}}/{{MAP_INDEX}}/video",
            "destination": "task_instance",
            "url_route": "luma",
        },
        {
            "name": "Luma",
            "href": f"{PREFIX[1:]}/dags/{{DAG_ID}}/runs/{{RUN_ID}}/videos",
            "destination": "dag_run",
            "url_route": "luma-videos",
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """Return what the API server serves; imported only there, as every process of Airflow loads this plugin."""
        if not AIRFLOW_V_3_1_PLUS:
            return []
        try:
            from airflow_provider_luma.ui.app import app
        except ImportError:
            # An Airflow to come may have moved what that is made of; its API server has to start all the same.
            log.warning("This Airflow has no Luma tab.", exc_info=True)
            return []
        return [{"name": "Luma", "app": app, "url_prefix": PREFIX}]

"""The plugin that adds the Luma tab to Airflow. Every Airflow process loads this module."""

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

    Airflow 3.0 has no such tabs, so the plugin serves nothing there.
    """

    name = "luma"
    # Relative, so that they also work if Airflow runs under a path of its host.
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
        """The app of the tab. Only the API server reads this, so only the API server imports the app."""
        if not AIRFLOW_V_3_1_PLUS:
            return []
        try:
            from airflow_provider_luma.ui.app import app
        except ImportError:
            # A later Airflow may move a class that the app imports. Its API server must start all the same.
            log.warning("The Luma tab does not work with this version of Airflow and is left out.", exc_info=True)
            return []
        return [{"name": "Luma", "app": app, "url_prefix": PREFIX}]

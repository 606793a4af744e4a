"""Where a task's page in Airflow's UI leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator


class WatchVideoLink(BaseOperatorLink):
    """The video itself, once the task knows where it is; that URL expires, as the gateway's do."""

    name = "Watch video"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the video's URL, or nothing."""
        url: str = getattr(operator, "watch_url", None) or ""
        return url if url.lower().startswith(("https://", "http://")) else ""


class LumaTaskLink(BaseOperatorLink):
    """The task's Luma tab, which has the generation's id to copy; before Airflow 3.1 its XComs, which have it too."""

    name = "Luma task"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the address in Airflow's UI, a relative one where Airflow does not know its own."""
        path = f"dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id)}/tasks/{quote(ti_key.task_id)}"
        if ti_key.map_index is not None and ti_key.map_index >= 0:
            path += f"/mapped/{ti_key.map_index}"
        base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
        return f"{base}/{path}/{'plugin/luma' if AIRFLOW_V_3_1_PLUS else 'xcom'}"


LINKS = (WatchVideoLink(), LumaTaskLink())
"""Those of every task that submits, waits or downloads."""

"""The link on a task's page in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator


class WatchVideoLink(BaseOperatorLink):
    """Link to the video, as soon as the task knows its URL. The URL expires."""

    name = "Watch video"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the URL of the video, or an empty text."""
        url: str = getattr(operator, "watch_url", None) or ""
        return url if url.lower().startswith(("https://", "http://")) else ""


LINKS = (WatchVideoLink(),)
"""The links of each task that submits, waits or downloads."""

"""The FastAPI app of the Luma tab: its page, and the JSON that the page asks for."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003  FastAPI reads the annotation

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep  # noqa: TC002  FastAPI reads the annotation
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import PositiveInt  # noqa: TC002  FastAPI reads the annotation

from airflow_provider_luma.ui import videos

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import Request, Response

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "page.css").read_text(encoding="utf-8")
SCRIPT = "".join((FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in ("elements", "detail", "wall", "page"))
PAGE = Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(style=STYLE, script=SCRIPT)


def _source(text: str) -> str:
    """Return the source for a Content-Security-Policy that allows this inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_source(SCRIPT)}; style-src {_source(STYLE)}; connect-src 'self'; "
        "img-src http: https:; media-src http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# The tab shows only facts that Airflow also shows to users with these three rights.
app = FastAPI(
    title="Luma",
    openapi_url=None,
    dependencies=[
        Depends(requires_access_dag("GET", entity))
        for entity in (DagAccessEntity.RUN, DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)
    ],
)


@app.middleware("http")
async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Allow the page to load only pictures and videos, and only Airflow to frame it."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


@app.get("/dags/{dag_id}/runs/{run_id}/videos", response_class=HTMLResponse)
@app.get("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}/video", response_class=HTMLResponse)
def page() -> str:
    """Return the page. It asks for its JSON next."""
    return PAGE


@app.get("/dags/{dag_id}/runs/{run_id}/videos.json")
def of_run(dag_id: str, run_id: str, session: SessionDep, limit: PositiveInt = videos.LIMIT) -> dict[str, Any]:
    """Return the videos of a DAG run."""
    return _known(videos.of_run(session, dag_id, run_id, limit))


@app.get("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}/video.json")
def of_task(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    session: SessionDep,
    region_id: UUID | None = None,
    region_index: int = -1,
) -> dict[str, Any]:
    """Return the video of a task instance. If it is not mapped, ``map_index`` is Airflow's unreplaced placeholder."""
    index = int(map_index) if re.fullmatch("[0-9]{1,9}", map_index) else -1
    region = (region_id, region_index) if region_id else None
    return _known(videos.of_task(session, dag_id, run_id, task_id, index, region))


def _known(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        raise HTTPException(404, "Airflow has no such run, or the run has no such task.")
    return found

"""The pages of the Luma tab, and what they show, to whoever may see it in Airflow."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003  likewise

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep  # noqa: TC002  FastAPI reads the annotation
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import PositiveInt  # noqa: TC002  likewise

from airflow_provider_luma.ui import videos

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import Request, Response

PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


def _digests(element: str) -> str:
    """Return the Content-Security-Policy's names of the page's own elements of a kind."""
    inside = re.findall(f"<{element}>(.*?)</{element}>", PAGE, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside]
    return " ".join(f"'sha256-{one}'" for one in hashes)


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_digests('script')}; style-src {_digests('style')}; connect-src 'self'; "
        "img-src http: https:; media-src http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# Whoever may read a DAG's XComs and its task instances sees all of this there, too.
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
    """Let a page load nothing but pictures and videos, and no other site frame it."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


@app.get("/dags/{dag_id}/runs/{run_id}/videos", response_class=HTMLResponse)
@app.get("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}/video", response_class=HTMLResponse)
def page() -> str:
    """Return the page, which asks for the rest."""
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
    """Return the video of a task instance; where it is not mapped, Airflow leaves its placeholder as it is."""
    index = int(map_index) if re.fullmatch("[0-9]{1,9}", map_index) else -1
    region = (region_id, region_index) if region_id else None
    return _known(videos.of_task(session, dag_id, run_id, task_id, index, region))


def _known(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        raise HTTPException(404, "There is no such run, or no such task in it.")
    return found

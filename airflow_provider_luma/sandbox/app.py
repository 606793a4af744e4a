"""The sandbox as an ASGI application: its APIs, the CDN, and the report."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from airflow_provider_luma.sandbox import cdn
from airflow_provider_luma.sandbox.memory import Memory, Settings
from airflow_provider_luma.sandbox.played import play
from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from airflow_provider_luma.sandbox.api import PlayedApi

PAGE = Path(__file__).with_name("page.html")


def create_app(settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """
    Make a sandbox that you run on a server of your own.

    It can cut connections only if the server is uvicorn with `http=CuttableProtocol`, as in `Sandbox`.

    :param settings: its behaviour; by default `Settings()`.
    :param clock: returns the time in seconds; replace it in tests that should not wait.
    """
    memory = Memory(settings or Settings(), clock)
    return app_with(memory, play(memory))


def app_with(memory: Memory, apis: dict[str, PlayedApi]) -> Starlette:
    """Make the application of these APIs and their memory."""
    bound = functools.partial
    return Starlette(
        routes=[
            *(route for api in apis.values() for route in api.routes()),
            Route("/cdn/{generation_id}/{file}", bound(cdn.send_file, memory)),
            Route("/cdn/until-{until:float}/{generation_id}/{file}", bound(cdn.send_file, memory)),
            Route("/sandbox", bound(show, memory)),
            Route("/sandbox", bound(reset, memory), methods=["DELETE"]),
            Route("/sandbox/weather", bound(change_weather, memory), methods=["POST"]),
        ]
    )


async def show(memory: Memory, request: Request) -> Response:
    """Answer with the report: a page for a browser, JSON for a program."""
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Vary": "Accept"})
    address = cdn.address(memory, str(request.base_url), memory.settings.url_seconds)
    return JSONResponse(memory.report(address), headers={"Vary": "Accept", "Cache-Control": "no-store"})


async def reset(memory: Memory, _: Request) -> Response:
    """Forget all generations, requests and counts."""
    memory.reset()
    return Response(status_code=204)


async def change_weather(memory: Memory, request: Request) -> Response:
    """Set the weather to the fields of the body; other fields get their defaults."""
    try:
        memory.weather = Weather.parse(json.loads(await request.body()))
    except (ValueError, RecursionError) as error:
        return JSONResponse({"message": str(error)}, 400)
    return Response(status_code=204)

"""The sandbox as an ASGI application: both APIs, the CDN, and what happened."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from airflow_provider_luma.sandbox import agents, answers, cdn, gateway
from airflow_provider_luma.sandbox.memory import Memory, Settings
from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

PAGE = Path(__file__).with_name("page.html")


def create_app(settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """
    Make a sandbox to run on a server of your own.

    Connections can be cut only if the server is uvicorn with `http=CuttableProtocol`, as in `Sandbox`.

    :param settings: how it answers; the defaults of `Settings` if left out.
    :param clock: what tells the seconds; replace it in tests that should not wait.
    """
    return app_with(Memory(settings or Settings(), clock))


def app_with(memory: Memory) -> Starlette:
    """Make the application that answers out of this memory."""
    prefix = memory.settings.prefix.strip("/")
    bound = functools.partial
    return Starlette(
        routes=[
            *gateway.routes(memory),
            *(gateway.routes(memory, f"/{prefix}") if prefix else ()),
            *agents.routes(memory),
            Route("/cdn/{generation_id}/{file}", bound(cdn.send_file, memory)),
            Route("/cdn/until-{until:float}/{generation_id}/{file}", bound(cdn.send_file, memory)),
            Route("/sandbox", bound(show, memory)),
            Route("/sandbox", bound(reset, memory), methods=["DELETE"]),
            Route("/sandbox/weather", bound(change_weather, memory), methods=["POST"]),
        ]
    )


async def show(memory: Memory, request: Request) -> Response:
    """Answer what happened: a page for a browser, JSON for a program."""
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Vary": "Accept"})
    address = cdn.address(memory, str(request.base_url), memory.settings.url_seconds)
    return JSONResponse(memory.report(address), headers={"Vary": "Accept", "Cache-Control": "no-store"})


async def reset(memory: Memory, _: Request) -> Response:
    """Forget everything."""
    memory.reset()
    return Response(status_code=204)


async def change_weather(memory: Memory, request: Request) -> Response:
    """Make the weather what the body says, and good in everything it does not mention."""
    try:
        memory.weather = Weather.parse(json.loads(await request.body()))
    except (ValueError, RecursionError) as error:
        return answers.error(400, "invalid_request", str(error))
    return Response(status_code=204)

"""The sandbox as an ASGI application: the four calls, the CDN, and what happened."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from airflow_provider_luma.sandbox import answers, cdn
from airflow_provider_luma.sandbox.answers import Cut, Refused
from airflow_provider_luma.sandbox.gateway import Gateway, Generation, Settings, words_of
from airflow_provider_luma.sandbox.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

PAGE = Path(__file__).with_name("page.html")
HANG_SECONDS = 600


def create_app(settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """
    Make a sandbox to run on a server of your own.

    Connections can be cut only if the server is uvicorn with `http=CuttableProtocol`, as in `Sandbox`.

    :param settings: how it answers; the defaults of `Settings` if left out.
    :param clock: what tells the seconds; replace it in tests that should not wait.
    """
    gateway = Gateway(settings or Settings(), clock)
    prefix = gateway.settings.prefix.strip("/")
    routes = luma_routes(gateway)
    if prefix:
        routes += luma_routes(gateway, f"/{prefix}")
    bound = functools.partial
    routes += [
        Route("/cdn/{task_id}/{file}", bound(cdn.send_file, gateway)),
        Route("/cdn/until-{until:float}/{task_id}/{file}", bound(cdn.send_file, gateway)),
        Route("/sandbox", bound(show, gateway)),
        Route("/sandbox", bound(reset, gateway), methods=["DELETE"]),
        Route("/sandbox/weather", bound(change_weather, gateway), methods=["POST"]),
    ]
    return Starlette(routes=routes)


def luma_routes(gateway: Gateway, prefix: str = "") -> list[Route]:
    """Route the four calls, under this path."""
    generations = f"{prefix}/luma/generations"
    submission = Call(gateway, "submissions", submit)
    return [
        Route(generations, submission, methods=["POST"]),
        Route(f"{generations}/{{task_id}}/extend", submission, methods=["POST"]),
        Route(f"{generations}/{{task_id}}", Call(gateway, "polls", query), methods=["GET"]),
        Route(f"{prefix}/luma/tasks", Call(gateway, "batch_polls", query_many), methods=["POST"]),
    ]


class Call:
    """
    One of the gateway's calls: what all four have in common, then its own answer.

    :param kind: what it counts as: `submissions`, `polls` or `batch_polls`.
    :param answer: what gives the answer, or raises Refused.
    """

    def __init__(self, gateway: Gateway, kind: str, answer: Callable[[Gateway, Request], Awaitable[Response]]) -> None:
        self.gateway = gateway
        self.kind = kind
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        with self.gateway.counted(self.kind, request.headers.get("user-agent", "")):
            if self.gateway.settings.latency > 0:
                await asyncio.sleep(self.gateway.settings.latency)
            try:
                self.check(request)
                response = await self.answer(self.gateway, request)
            except Refused as refused:
                if self.kind == "submissions":
                    self.gateway.counts["refused"] += 1
                response = refused.response
            except ClientDisconnect:
                # Gone before it had sent its body, as a client that is killed is.
                response = Cut()
            await response(scope, receive, send)

    def check(self, request: Request) -> None:
        """Refuse the request if the gateway is down or does not know its token."""
        if self.gateway.weather.down:
            raise Refused(Cut())
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = token == self.gateway.settings.token if self.gateway.settings.token else token.strip()
        if self.gateway.weather.revoked or scheme.lower() != "bearer" or not known:
            raise Refused(answers.unauthorized())


async def submit(gateway: Gateway, request: Request) -> Response:
    """Answer `POST /luma/generations` and `POST /luma/generations/{id}/extend`."""
    body = await read_json(request)
    failure = gateway.weather.submit_failure()
    if failure is not None and failure != "drop_after_accept":
        raise Refused(failed(failure, gateway))
    generation = gateway.accept(body, request.path_params.get("task_id"))
    words = words_of(generation.prompt)
    if failure or "drop" in words:
        return Cut()
    if "hang" in words:
        return Cut(after=HANG_SECONDS)
    if "html" in words:
        return answers.page(200)
    return JSONResponse(answers.submit_body(gateway.settings.submit_shape, generation))


async def query(gateway: Gateway, request: Request) -> Response:
    """Answer `GET /luma/generations/{id}`."""
    refuse_by_weather(gateway)
    generation = gateway.find(request.path_params["task_id"])
    if generation is None:
        raise Refused(answers.no_such_task())
    generation.polls += 1
    if generation.polls % 2 == 0 and "flaky" in words_of(generation.prompt):
        raise Refused(answers.page(502))
    return JSONResponse(answers.generation_body(generation, generation.state, cdn.address(gateway, request)))


async def query_many(gateway: Gateway, request: Request) -> Response:
    """Answer `POST /luma/tasks`."""
    settings = gateway.settings
    if settings.batch_shape == "none":
        message = f"Invalid URL (POST {request.url.path})"
        raise Refused(answers.openai_error(404, "invalid_request_error", "", message))
    refuse_by_weather(gateway)
    ids = ids_of(await read_json(request))
    if settings.batch_limit and len(ids) > settings.batch_limit:
        raise Refused(answers.error(400, "too_many_ids", f"at most {settings.batch_limit} ids at once"))
    generations = found(gateway, ids)
    for generation in generations:
        generation.polls += 1
    return JSONResponse(answers.tasks_body(settings.batch_shape, generations, cdn.address(gateway, request)))


def ids_of(body: Any) -> list[str]:
    """Read the ids that a batch query asks for."""
    ids = body.get("ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(isinstance(task_id, str) for task_id in ids):
        raise Refused(answers.error(400, "invalid_request", "ids is a list of strings"))
    return ids


def found(gateway: Gateway, ids: list[str]) -> list[Generation]:
    """Find the generations with these ids, last asked first, because no caller may rely on the order."""
    generations = [gateway.find(task_id) for task_id in reversed(dict.fromkeys(ids))]
    return [generation for generation in generations if generation is not None]


def refuse_by_weather(gateway: Gateway) -> None:
    """Let a status query meet the weather."""
    failure = gateway.weather.status_failure()
    if failure is not None:
        raise Refused(failed(failure, gateway))


def failed(failure: str, gateway: Gateway) -> Response:
    """Answer a call that meets this failure."""
    if failure == "drop":
        return Cut()
    if failure == "hang":
        return Cut(after=gateway.weather.hang_seconds)
    if failure == "html":
        return answers.page(200)
    if failure == "429":
        return answers.too_many_requests()
    if failure == "402":
        return answers.error(402, "insufficient_user_quota", "用户额度不足")
    if failure in ("403", "413"):
        return answers.error(int(failure), "refused")
    return answers.page(int(failure))


async def read_json(request: Request) -> Any:
    """Read the request's JSON."""
    try:
        body = json.loads(await request.body())
        # A lone surrogate is valid JSON but cannot be sent back.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(answers.error(400, "invalid_json", str(error))) from error
    return body


async def show(gateway: Gateway, request: Request) -> Response:
    """Say what happened: a page for a browser, JSON for a program."""
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Vary": "Accept"})
    return JSONResponse(
        gateway.report(cdn.address(gateway, request)), headers={"Vary": "Accept", "Cache-Control": "no-store"}
    )


async def reset(gateway: Gateway, _: Request) -> Response:
    """Forget everything."""
    gateway.reset()
    return Response(status_code=204)


async def change_weather(gateway: Gateway, request: Request) -> Response:
    """Make the weather what the body says, and good in everything it does not mention."""
    try:
        gateway.weather = Weather.parse(await read_json(request))
    except Refused as refused:
        return refused.response
    except ValueError as error:
        return answers.error(400, "invalid_request", str(error))
    return Response(status_code=204)

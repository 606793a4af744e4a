"""The CDN: the files of completed generations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from starlette.datastructures import Headers
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from airflow_provider_luma.sandbox.failures import client_gone, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from airflow_provider_luma.sandbox.memory import Memory, ReceivedRequest


def address(memory: Memory, base_url: str, seconds: float) -> str:
    """
    Return the CDN's address for a client.

    :param base_url: the sandbox's address for this client.
    :param seconds: how long the address is valid, in seconds; 0 means no limit.
    """
    until = f"/until-{memory.clock() + seconds:.3f}" if seconds else ""
    return f"{base_url.rstrip('/')}/cdn{until}"


async def send_file(memory: Memory, request: Request) -> Response:
    """Send a file of a completed generation."""
    received = memory.note(request)
    if "authorization" in request.headers:
        memory.counts["tokens_at_cdn"] += 1
    memory.counts["downloads"] += 1
    response = choose(memory, request, received)
    received.status = response.status_code
    return response


def choose(memory: Memory, request: Request, received: ReceivedRequest) -> Response:
    """Choose the answer to a download."""
    if memory.clock() > request.path_params.get("until", float("inf")):
        return PlainTextResponse("Request has expired", 403)
    generation = memory.find(request.path_params["generation_id"])
    file = request.path_params["file"]
    if generation is None or generation.state != "completed":
        return PlainTextResponse("Not Found", 404)
    try:
        path = generation.clip.path(file)
    except KeyError:
        return PlainTextResponse("Not Found", 404)
    kind = "video/mp4" if path.suffix == ".mp4" else "image/jpeg"
    failure = memory.weather.cdn_failure()
    if failure in ("html", "json"):
        return page(200) if failure == "html" else JSONResponse({"error": "not now"})
    if failure and failure != "cut":
        return JSONResponse({"error": "too many requests"}, 429) if failure == "429" else page(int(failure))
    if path.suffix == ".mp4" and memory.settings.video:
        path = Path(memory.settings.video)
    return Sent(path, received, media_type=kind, ranges=memory.settings.ranges, cut=failure == "cut")


class Sent(FileResponse):
    """
    A file, or a part of it if the client requests a part.

    :param received: the request; its status, 200 or 206, is known when the file is sent.
    :param ranges: whether the client can request a part.
    :param cut: whether to close the connection after a twentieth of the file.
    """

    def __init__(self, path: Path, received: ReceivedRequest, *, media_type: str, ranges: bool, cut: bool) -> None:
        self.received = received
        self.size = path.stat().st_size
        super().__init__(path, media_type=media_type, stat_result=path.stat())
        self.ranges = ranges
        self.cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""

        async def send_and_note(message: Message) -> None:
            self.received.status = message.get("status", self.received.status)
            await send(message)

        if not self.ranges:
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        if self.cut:
            await self.send_some(Headers(scope=scope).get("range", ""), scope, receive, send_and_note)
        else:
            await super().__call__(scope, receive, send_and_note)

    async def send_some(self, wanted: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Announce the whole requested part, send a twentieth of the file, and close the connection."""
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(found[1]) if found else 0
        self.headers["Content-Length"] = str(self.size - start)
        if start:
            self.headers["Content-Range"] = f"bytes {start}-{self.size - 1}/{self.size}"
        await send({"type": "http.response.start", "status": 206 if start else 200, "headers": self.raw_headers})
        async with await anyio.open_file(self.path, "rb") as file:
            await file.seek(start)
            some = await file.read(self.size // 20 + 1)
        await send({"type": "http.response.body", "body": some, "more_body": True})
        scope["state"]["close"]()
        await client_gone(receive)

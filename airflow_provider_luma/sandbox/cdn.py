"""Where the files of completed generations are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from starlette.datastructures import Headers
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from airflow_provider_luma.sandbox import answers

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from airflow_provider_luma.sandbox.gateway import Gateway


def address(gateway: Gateway, request: Request) -> str:
    """Say where the CDN is for this client, and until when."""
    seconds = gateway.settings.url_seconds
    until = f"/until-{gateway.clock() + seconds:.3f}" if seconds else ""
    return f"{request.url.scheme}://{request.url.netloc}/cdn{until}"


async def send_file(gateway: Gateway, request: Request) -> Response:
    """Send a file of a completed generation."""
    if "authorization" in request.headers:
        gateway.counts["tokens_at_cdn"] += 1
    gateway.counts["downloads"] += 1
    if gateway.clock() > request.path_params.get("until", float("inf")):
        return PlainTextResponse("Request has expired", 403)
    generation = gateway.find(request.path_params["task_id"])
    file = request.path_params["file"]
    if generation is None or generation.state != "completed":
        return PlainTextResponse("Not Found", 404)
    try:
        path = generation.clip.path(file)
    except KeyError:
        return PlainTextResponse("Not Found", 404)
    kind = "video/mp4" if path.suffix == ".mp4" else "image/jpeg"
    failure = gateway.weather.cdn_failure()
    if failure in ("html", "json"):
        return answers.page(200) if failure == "html" else JSONResponse({"error": "not now"})
    if failure and failure != "cut":
        return answers.too_many_requests() if failure == "429" else answers.page(int(failure))
    if path.suffix == ".mp4" and gateway.settings.video:
        path = Path(gateway.settings.video)
    return Sent(path, media_type=kind, ranges=gateway.settings.ranges, cut=failure == "cut")


class Sent(FileResponse):
    """
    A file, or a part of it where the client asks for one and may have it.

    :param ranges: whether it may.
    :param cut: whether to close the connection after a twentieth of the file.
    """

    def __init__(self, path: Path | str, *, media_type: str, ranges: bool, cut: bool) -> None:
        self.size = Path(path).stat().st_size
        super().__init__(path, media_type=media_type, stat_result=Path(path).stat())
        self.ranges = ranges
        self.cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if not self.ranges:
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        if self.cut:
            await self.send_some(Headers(scope=scope).get("range", ""), scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def send_some(self, wanted: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Announce all of what is wanted, send some of it, and close the connection."""
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
        await answers.client_gone(receive)

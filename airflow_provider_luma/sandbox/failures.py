"""Errors that replace an API's own answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class Refused(Exception):
    """
    The API answers with an error and accepts nothing.

    :param response: the answer.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def page(status: int) -> HTMLResponse:
    """Answer with a web page, as a proxy or CDN between client and API does."""
    title = f"{status} {HTTPStatus(status).phrase}"
    return HTMLResponse(
        f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n", status
    )


class Cut(Response):
    """
    Cut the connection instead of answering.

    :param after: how long the client waits before that, in seconds; 0 by default.
    """

    def __init__(self, after: float = 0) -> None:
        super().__init__()
        self.after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Wait until the client has disconnected or its time is up, then cut the connection."""
        with anyio.move_on_after(self.after):
            await client_gone(receive)
        cut = scope.get("state", {}).get("cut")
        if cut is None:
            raise ConnectionAbortedError(
                "This server cannot cut a connection. Run the sandbox with the class Sandbox or on the command line."
            )
        cut()
        # If the application returned before the connection is lost, uvicorn would answer 500.
        await client_gone(receive)


async def client_gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

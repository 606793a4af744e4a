"""What comes in place of an API's own answer, from either API."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class Refused(Exception):
    """
    The API answers with an error, and nothing was accepted.

    :param response: what it answers.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def page(status: int) -> HTMLResponse:
    """Answer with the page that a CDN in between puts in place of the API's answer."""
    title = f"{status} {HTTPStatus(status).phrase}"
    return HTMLResponse(
        f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n", status
    )


class Cut(Response):
    """
    No answer at all: the connection is cut without a status line.

    :param after: seconds to keep the client waiting first, 0 by default.
    """

    def __init__(self, after: float = 0) -> None:
        super().__init__()
        self.after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Wait until the client has gone or its time is up, and cut the connection."""
        with anyio.move_on_after(self.after):
            await client_gone(receive)
        cut = scope.get("state", {}).get("cut")
        if cut is None:
            raise ConnectionAbortedError("this server cannot cut connections; `Sandbox` and the command line can")
        cut()
        # uvicorn answers 500 for an application that returns before the connection is lost.
        await client_gone(receive)


async def client_gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

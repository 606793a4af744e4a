"""A connection that its own answer can cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio


class CuttableProtocol(H11Protocol):
    """uvicorn's HTTP/1.1; an answer can cut its own connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put two functions into the state of every request: `cut` the connection, or `close` it after sending."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "cut": transport.abort, "close": transport.close}

    def shutdown(self) -> None:
        """Cut the connection: an answer that hangs would keep the server from stopping."""
        self.transport.abort()

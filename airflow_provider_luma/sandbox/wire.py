"""The server's side of a connection, which an answer can cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio


class CuttableProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a way for an answer to cut its own connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hand every request the means to cut this connection, and to close it after what was sent, in its state."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "cut": transport.abort, "close": transport.close}

    def shutdown(self) -> None:
        """Cut the connection, because an answer that hangs would hold up the server."""
        self.transport.abort()

"""CDNs and proxies: the sandbox's CDN with scripted answers, a plain server, and a server that refuses requests."""

from __future__ import annotations

import asyncio
import re
import select
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from airflow_provider_luma.api import Generation, GenerationState
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sandbox.clips import FOLDER
from tests.support.samples import PROMPT, TOKEN

BOAT = (FOLDER / "boat.mp4").read_bytes()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BOAT)


class Cdn(Sandbox):
    """A sandbox that records the requests for files, and answers the next ones as a test says."""

    def __init__(self, **settings):
        super().__init__(token=TOKEN, **{"seconds": 0, **settings})
        self.sandbox, self.app = self.app, self._app()
        self.asked: list[dict[str, str]] = []
        """The headers of each request for a file, and its `path`."""
        self.answers: list[object] = []
        """ASGI apps for the next requests. None, and an empty list, mean the sandbox's own answer."""

    def _app(self):
        async def app(scope, receive, send):
            answer = self.sandbox
            if scope["path"].startswith("/cdn/"):
                headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                self.asked.append({"path": scope["path"], **headers})
                if self.answers:
                    answer = self.answers.pop(0) or self.sandbox
            await answer(scope, receive, send)

        return app

    def submit(self, prompt=PROMPT) -> str:
        """Submit a generation and return its id."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        body = {"user_prompt": prompt}
        return requests.post(f"{self.url}/luma/generations", json=body, headers=headers, timeout=10).json()["id"]

    def known(self, generation_id, video_url=None):
        """Return the generation as the sensor does."""
        url = video_url or f"{self.url}/cdn/{generation_id}/video.mp4"
        return Generation(id=generation_id, state=GenerationState.COMPLETED, video_url=url).as_dict()


def answer_of(body, *, announced=None, status=200, **headers):
    """Return an answer with this body; if more bytes are announced, the connection closes after the body."""
    announced = len(body) if announced is None else announced
    sent = {"content-length": str(announced), **{name.replace("_", "-"): value for name, value in headers.items()}}

    async def answer(scope, receive, send):
        encoded = [(name.encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body, "more_body": len(body) < announced})
        if len(body) < announced:
            scope["state"]["close"]()
            await receive()

    return answer


def after(action, answer):
    """Return an answer that is sent after an action has run."""

    async def later(scope, receive, send):
        await asyncio.to_thread(action)
        await answer(scope, receive, send)

    return later


@contextmanager
def serving_boat(context=None, head=HEAD, pause=0.0):
    """
    Serve a video for every request, over TLS if there is an SSL context; yield the port and the requested paths.

    :param pause: seconds between two bytes of the head.
    """
    asked: list[str] = []

    class Handler(QuietHandler):
        def do_GET(self):
            asked.append(self.path)
            for byte in head if pause else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(pause)
            self.wfile.write(BOAT if pause else head + BOAT)

    with serving(Handler, context) as port:
        yield port, asked


@contextmanager
def refusing(url, *refused):
    """Forward requests to a server, but answer 403 to a method and path that match a pattern; yield the address."""

    class Handler(QuietHandler):
        # The clients of object stores wait for "100 Continue".
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if any(re.match(pattern, f"{self.command} {self.path}") for pattern in refused):
                denied = b"" if self.command == "HEAD" else b"<Error><Code>AccessDenied</Code></Error>"
                self.reply(403, {}, denied)
            else:
                answer = requests.request(self.command, url + self.path, headers=self.headers, data=body, timeout=10)
                self.reply(answer.status_code, answer.headers, answer.content)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def reply(self, status, headers, content):
            self.send_response(status)
            for name in headers.keys() - {"Date", "Server", "Connection", "Transfer-Encoding", "Content-Length"}:
                self.send_header(name, headers[name])
            self.send_header("Content-Length", headers.get("Content-Length", str(len(content))))
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def tunnel():
    """Act as a proxy for https; yield the address."""

    class Handler(QuietHandler):
        def do_CONNECT(self):
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port)), 5) as server:
                self.send_response(200)
                self.end_headers()
                ends = {self.connection: server, server: self.connection}
                while ready := select.select(list(ends), [], [], 5)[0]:
                    for end in ready:
                        if not (data := end.recv(65536)):
                            return
                        ends[end].sendall(data)

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Log nothing."""


@contextmanager
def serving(handler, context=None):
    """Serve on a free port of this machine; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()

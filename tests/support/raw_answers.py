"""A server that answers every request with prepared bytes."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager, suppress

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def far_end(*answers, then_close=True, pause=0.0):
    """
    Answer one connection after the other with raw bytes; yield the address and the received requests.

    :param answers: the bytes for each connection; the parts of a list are sent one by one.
    :param then_close: whether to close a connection after its answer.
    :param pause: seconds after each part.
    """
    requests: list[bytes] = []
    stopping = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in answers:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                received = connection.recv(65536)
                if stopping.is_set():
                    return
                while not is_whole(received):
                    received += connection.recv(65536)
                requests.append(received)
                for part in answer if isinstance(answer, list) else [answer]:
                    connection.sendall(part)
                    stopping.wait(pause)
                if not then_close:
                    stopping.wait(30)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        stopping.set()
        with socket.socket() as waker:
            waker.connect_ex(listener.getsockname())
        thread.join(5)
        listener.close()


def is_whole(request: bytes) -> bool:
    """Return whether the request has its whole body."""
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def json_answer(body: bytes, extra: bytes = b"") -> bytes:
    """Return an answer 200 with this JSON; `extra` is more header lines."""
    return JSON_HEAD + extra + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def error_answer(status: int, body: bytes = b"", extra: bytes = b"") -> bytes:
    """Return an answer with this status; `extra` is more header lines."""
    head = b"HTTP/1.1 %d x\r\n" % status + extra
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body

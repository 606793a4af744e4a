"""Run Postgres and Redis, from Debian's packages, in temporary folders."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.local_airflow import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


class Postgres:
    """A Postgres with its data in a folder."""

    def __init__(self, folder: str) -> None:
        # Postgres refuses to run as root, and cannot read the folders that pytest creates for root.
        owner: dict[str, Any] = {"user": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if owner:
            shutil.chown(folder, owner["user"])
        command = [program("initdb"), "-D", f"{folder}/data", "-U", "airflow", "--auth=trust", "--no-sync"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, **owner)
        port = free_port()
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=300"]
        command = [program("postgres"), "-D", f"{folder}/data", "-p", str(port), *(f"-c{one}" for one in options)]
        self._server = Server(command, folder, port, **owner)
        self.address = f"airflow@127.0.0.1:{port}/postgres"
        """``user@host:port/database``."""

    def start(self) -> None:
        """Start it and return when it is ready."""
        self._server.start()

    def stop(self) -> None:
        """Shut it down without waiting for its clients."""
        self._server.stop(signal.SIGINT)

    def crash(self) -> None:
        """End it as if its machine had lost power, and start it again."""
        self._server.stop(signal.SIGQUIT)
        self._server.start()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a Postgres during a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="luma-postgres-") as folder:
        server = Postgres(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis without persistence during a ``with`` block; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="luma-redis-") as folder:
        port = free_port()
        command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = Server(command, folder, port)
        try:
            server.start()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.stop(signal.SIGTERM)


class Server:
    """
    A server that is ready when it listens on its port.

    :param command: the command that starts it.
    :param folder: its working folder, which also contains its log.
    :param popen: more arguments of ``subprocess.Popen``.
    """

    def __init__(self, command: list[str], folder: str, port: int, **popen: Any) -> None:
        self._command = command
        self._folder = folder
        self._port = port
        self._popen = popen
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it is ready."""
        path = Path(self._folder) / "log"
        with path.open("ab") as log:
            process = self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, **self._popen
            )
        give_up = time.monotonic() + 120
        while not is_open(self._port):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self._command[0]} did not start:\n{path.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self, signum: signal.Signals) -> None:
        """End it with this signal."""
        if self._process:
            self._process.send_signal(signum)
            self._process.wait(60)


def is_open(port: int) -> bool:
    """Return whether a server listens on this port of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def program(name: str) -> str:
    """Return the path of a server's program. Debian does not put the programs of Postgres into the PATH."""
    folders = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if not found:
        raise RuntimeError(f"{name} is not installed. Run: apt-get install postgresql redis-server")
    return found

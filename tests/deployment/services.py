"""Postgres and Redis in folders of their own, as Debian packages them."""

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
    """A Postgres in a folder of its own."""

    def __init__(self, folder: str) -> None:
        # Postgres refuses to be root, and may not look into the folders that pytest makes for root.
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
        """Start it, and return when it is there."""
        self._server.start()

    def stop(self) -> None:
        """Shut it down without waiting for those who are connected."""
        self._server.stop(signal.SIGINT)

    def crash(self) -> None:
        """End it at once, as if its machine had been switched off, and start it again."""
        self._server.stop(signal.SIGQUIT)
        self._server.start()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a Postgres for as long as a ``with`` block lasts."""
    with tempfile.TemporaryDirectory(prefix="luma-postgres-") as folder:
        server = Postgres(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis that keeps nothing for as long as a ``with`` block lasts; yields its URL."""
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
    A server, which is ready once something listens on its port.

    :param command: what starts it.
    :param folder: where it runs, and where its log is.
    :param popen: what ``subprocess.Popen`` takes besides.
    """

    def __init__(self, command: list[str], folder: str, port: int, **popen: Any) -> None:
        self._command = command
        self._folder = folder
        self._port = port
        self._popen = popen
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it is ready."""
        path = Path(self._folder) / "log"
        with path.open("ab") as log:
            process = self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, **self._popen
            )
        give_up = time.monotonic() + 120
        while not is_open(self._port):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self._command[0]} does not listen:\n{path.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self, signum: signal.Signals) -> None:
        """End it with this signal."""
        if self._process:
            self._process.send_signal(signum)
            self._process.wait(60)


def is_open(port: int) -> bool:
    """Say whether something listens on this port of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def program(name: str) -> str:
    """Return the path of a server's program; Debian keeps those of Postgres out of the PATH."""
    folders = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if not found:
        raise RuntimeError(f"There is no {name} on this machine: apt-get install postgresql redis-server")
    return found

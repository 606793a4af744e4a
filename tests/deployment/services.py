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


@contextmanager
def postgres() -> Iterator[str]:
    """Run a Postgres for as long as a ``with`` block lasts; yields its address, ``user@host:port/database``."""
    # Postgres refuses to be root, and may not look into the folders that pytest makes for root.
    owner: dict[str, Any] = {"user": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="luma-postgres-") as folder:
        if owner:
            shutil.chown(folder, owner["user"])
        command = [program("initdb"), "-D", f"{folder}/data", "-U", "airflow", "--auth=trust", "--no-sync"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, **owner)
        port = free_port()
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=300"]
        command = [program("postgres"), "-D", f"{folder}/data", "-p", str(port), *(f"-c{one}" for one in options)]
        # The fast shutdown, which does not wait for those who are connected.
        with running(command, folder, port, signal.SIGINT, **owner):
            yield f"airflow@127.0.0.1:{port}/postgres"


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis that keeps nothing for as long as a ``with`` block lasts; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="luma-redis-") as folder:
        port = free_port()
        command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with running(command, folder, port, signal.SIGTERM):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running(command: list[str], folder: str, port: int, stop: signal.Signals, **popen: Any) -> Iterator[None]:
    """Run a server that is ready once something listens on its port, and stop it with that signal."""
    with (Path(folder) / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, **popen)
    try:
        give_up = time.monotonic() + 120
        while not is_open(port):
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{command[0]} does not listen:\n{(Path(folder) / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        server.send_signal(stop)
        server.wait(60)


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

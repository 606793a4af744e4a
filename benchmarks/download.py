"""
Download a large file from the sandbox to disk: with this package's operator, with a plain stream, and with curl.

Run it from a checkout: ``make download``, or ``python -m benchmarks.download 256`` for another number of MiB. Each way
runs three times in turn, in a new process each time. The table shows the fastest run of each, because other processes
slow the machine down.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from airflow_provider_luma.api import LumaClient
from airflow_provider_luma.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "token-of-the-benchmark"
TURNS = 3
WAYS = ("operator", "stream", "curl")


def main(mebibytes: int) -> None:
    """Run all downloads and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        sha256 = write(video, mebibytes)
        sandbox = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.download", "serve", str(video)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert sandbox.stdin  # noqa: S101 - it is a pipe
        assert sandbox.stdout  # noqa: S101 - it is a pipe
        url, generation_id = json.loads(sandbox.stdout.readline())
        best: dict[str, dict[str, float]] = {}
        for turn in range(TURNS):
            for way in WAYS:
                found = fetch(way, url, generation_id, Path(folder) / "fetched.mp4", sha256)
                if turn == 0 or found["seconds"] < best[way]["seconds"]:
                    best[way] = found
        sandbox.stdin.write("cut\n")
        sandbox.stdin.flush()
        sandbox.stdout.readline()
        cut = fetch("operator", url, generation_id, Path(folder) / "fetched.mp4", sha256)
        sandbox.communicate()
    show(mebibytes, best, cut)


def show(mebibytes: int, best: dict[str, dict[str, float]], cut: dict[str, float]) -> None:
    """Print the table."""
    print(f"{mebibytes:,} MiB, the best of {TURNS}; load of the machine now: {os.getloadavg()[0]:.1f}")
    print(f"{'':28}{'MiB/s':>8}{'of the plain stream':>22}{'memory above idle, MiB':>26}")
    for way, found in [*best.items(), ("operator, cut 20 times", cut)]:
        ratio = best["stream"]["seconds"] / found["seconds"]
        memory = "" if way == "curl" else f"{found['memory']:.1f}"
        print(f"{way:28}{mebibytes / found['seconds']:8.0f}{ratio:22.2f}{memory:>26}")


def write(video: Path, mebibytes: int) -> str:
    """Write random bytes after the first bytes of a video, and return the SHA-256."""
    sha256 = hashlib.sha256()
    block = os.urandom(1024 * 1024)
    with video.open("wb") as file:
        for number in range(mebibytes):
            part = (b"\0\0\0\x20ftypisom" + block)[: len(block)] if number == 0 else block
            file.write(part)
            sha256.update(part)
    return sha256.hexdigest()


def fetch(way: str, url: str, generation_id: str, path: Path, sha256: str) -> dict[str, float]:
    """Download the file in a new process, check that it is complete, and return seconds and memory."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    connection = {"conn_type": "luma", "host": url, "password": TOKEN}
    with tempfile.TemporaryDirectory() as home:
        env = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_LUMA_DEFAULT": json.dumps(connection),
        }
        output = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.download", way, url, generation_id, str(path)],
            env=env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1024 * 1024):
            digest.update(part)
    assert digest.hexdigest() == sha256, f"{way}: the file has other bytes"  # noqa: S101 - the measurement would be wrong
    return dict(json.loads(output.splitlines()[-1]))


def serve(video: str) -> None:
    """Serve one video; cut every connection after a line on stdin; stop when stdin closes."""
    with Sandbox(token=TOKEN, seconds=0, video=video) as sandbox:
        generation = LumaClient(sandbox.url, TOKEN).submit("A paper boat")
        print(json.dumps([sandbox.url, generation.id]), flush=True)
        if sys.stdin.readline():
            sandbox.weather(cdn={"cut": 1})
            print("cut", flush=True)
            sys.stdin.readline()


def by_operator(url: str, generation_id: str, path: str) -> None:  # noqa: ARG001
    """Download with the operator, after a first download has loaded Airflow's plugins and providers."""
    from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator

    def download(asset: str, destination: str) -> None:
        LumaDownloadVideoOperator(
            task_id="download", generation=generation_id, destination=destination, asset=asset, do_xcom_push=False
        ).execute({})

    download("thumbnail", f"{path}.jpg")
    measure(lambda: download("video", path))


def by_stream(url: str, generation_id: str, path: str) -> None:
    """Download with a minimal loop that does not check, resume or sync to the disk."""
    import requests

    def stream() -> None:
        with requests.get(f"{url}/cdn/{generation_id}/video.mp4", stream=True, timeout=30) as answer:
            answer.raise_for_status()
            with Path(path).open("wb") as file:
                file.writelines(answer.iter_content(1024 * 1024))

    measure(stream)


def by_curl(url: str, generation_id: str, path: str) -> None:
    """Download with curl; its memory is not measured."""
    command = ["curl", "--silent", "--fail", "--output", path, f"{url}/cdn/{generation_id}/video.mp4"]
    measure(lambda: subprocess.run(command, check=True))


def measure(download: Callable[[], object]) -> None:
    """Print the seconds, and the difference between the process's peak memory and its memory before."""
    __import__("requests")
    before = psutil.Process().memory_info().rss
    began = time.monotonic()
    download()
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "memory": (peak - before) / 2**20}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    elif sys.argv[1:2] and sys.argv[1] in WAYS:
        {"operator": by_operator, "stream": by_stream, "curl": by_curl}[sys.argv[1]](*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 1024)

"""`python -m airflow_provider_luma.sandbox`."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import signal
import sys
from typing import TYPE_CHECKING

from airflow_provider_luma import __version__
from airflow_provider_luma.sandbox.agents import KEY_PREFIX
from airflow_provider_luma.sandbox.app import create_app
from airflow_provider_luma.sandbox.memory import Settings
from airflow_provider_luma.sandbox.server import address, listen, make_server

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Read the options of the command line."""
    options = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma.sandbox",
        description="Luma on your own machine, free of charge: a gateway in /luma, Luma's own API in /v1, and the CDN.",
    )
    add = options.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8787, help="port to listen on; 0 is a free one (%(default)s)")
    add("--token", default="", metavar="T", help="the only token or key it accepts; any, if left out")
    add("--seconds", type=float, default=10.0, metavar="S", help="how long a generation takes (%(default)s)")
    add(
        "--submit-shape",
        choices=("flat", "envelope", "bare"),
        default="flat",
        help="the gateway's answer to a submission (%(default)s)",
    )
    add(
        "--batch-shape",
        choices=("list", "envelope", "none"),
        default="list",
        help="answer to POST /luma/tasks (%(default)s)",
    )
    add("--batch-limit", type=int, default=0, metavar="N", help="ids in one POST /luma/tasks; 0 is any number")
    add(
        "--running-limit",
        type=int,
        default=0,
        metavar="N",
        help="generations at once under /v1; 0 is any number",
    )
    add("--rate-limit", type=int, default=0, metavar="N", help="submissions in 60 s under /v1; 0 is any number")
    add("--latency", type=float, default=0.0, metavar="S", help="seconds before every answer")
    add("--visible-after", type=float, default=0.0, metavar="S", help="seconds until a new id is found")
    add("--video", default="", metavar="FILE", help="send this file as the video, in place of the sandbox's own clips")
    add(
        "--url-seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="how long a file's URL is good; 0 is for ever, under /v1 an hour",
    )
    add("--no-ranges", dest="ranges", action="store_false", help="send files only whole, never a part of one")
    add("--prefix", default="", metavar="PATH", help="serve the gateway's calls under this path too, such as /proxy")
    add("--version", action="version", version=__version__)
    return options


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sandbox until it is interrupted."""
    options = vars(parser().parse_args(arguments))
    host, port = options.pop("host"), options.pop("port")
    try:
        listener = listen(host, port)
    except (OSError, OverflowError) as error:
        free = f"{parser().prog} --port 0"
        print(f"The sandbox cannot listen on {host} port {port}: {error}. On a free port: {free}", file=sys.stderr)
        return 1
    url = address(listener)
    # A shell has what it runs in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        print(f"Luma sandbox on {url} · {url}/sandbox shows what happens · Ctrl-C stops it")
        for heading, extra, token in (
            ("A connection to it as a gateway:", {}, "any-token"),
            ("Or as Luma's own API:", {"extra": {"api": "agents"}}, f"{KEY_PREFIX}any"),
        ):
            password = "<token>" if options["token"] else token
            fields = {"conn_type": "luma", "host": url, "password": password, **extra}
            print(f"{heading}\n  export AIRFLOW_CONN_LUMA_DEFAULT='{json.dumps(fields)}'", flush=True)
        if not is_loopback(host):
            print(f"Warning: others on the network can reach {url}", file=sys.stderr)
        make_server(create_app(Settings(**options))).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())

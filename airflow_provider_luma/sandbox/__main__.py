"""`python -m airflow_provider_luma.sandbox`."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from airflow_provider_luma import __version__
from airflow_provider_luma.sandbox.app import create_app
from airflow_provider_luma.sandbox.memory import Settings
from airflow_provider_luma.sandbox.played import PLAYED, connection
from airflow_provider_luma.sandbox.server import address, listen, make_server

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNT: dict[str, Any] = {"type": int, "default": 0, "metavar": "N"}
SECONDS: dict[str, Any] = {"type": float, "default": 0.0, "metavar": "S"}
OPTIONS: dict[str, dict[str, Any]] = {
    "host": {"default": "127.0.0.1", "help": "the address to listen on (%(default)s)"},
    "port": {"type": int, "default": 8787, "help": "the port to listen on; 0 means any free port (%(default)s)"},
    "token": {"default": "", "metavar": "T", "help": "the only token or key that it accepts (any)"},
    "seconds": {**SECONDS, "default": 10.0, "help": "how long a generation takes, in seconds (%(default)s)"},
    "submit-shape": {
        "choices": ("flat", "envelope", "bare"),
        "default": "flat",
        "help": "the gateway's answer to a submission (%(default)s)",
    },
    "batch-shape": {
        "choices": ("list", "envelope", "none"),
        "default": "list",
        "help": "the gateway's answer to POST /luma/tasks (%(default)s)",
    },
    "batch-limit": {**COUNT, "help": "the highest number of ids in one POST /luma/tasks (no limit)"},
    "running-limit": {**COUNT, "help": "the highest number of running generations under /v1 (no limit)"},
    "rate-limit": {**COUNT, "help": "the highest number of submissions under /v1 in 60 seconds (no limit)"},
    "latency": {**SECONDS, "help": "the delay before every answer, in seconds (%(default)s)"},
    "visible-after": {**SECONDS, "help": "how long a new id is unknown, in seconds (%(default)s)"},
    "video": {"default": "", "metavar": "FILE", "help": "a file to send as the video, instead of the sample clips"},
    "url-seconds": {**SECONDS, "help": "how long a file's URL is valid, in seconds (no limit; under /v1 an hour)"},
    "prefix": {"default": "", "metavar": "PATH", "help": "a second path for the gateway's calls, such as /proxy"},
}


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    apis = " and ".join(row.label for row in PLAYED.values())
    options = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma.sandbox",
        description=f"Luma on your own machine, free of charge. It plays {apis}, with a CDN for the videos.",
    )
    for name, keywords in OPTIONS.items():
        options.add_argument(f"--{name}", **keywords)
    options.add_argument("--no-ranges", dest="ranges", action="store_false", help="send files only as a whole")
    options.add_argument("--version", action="version", version=__version__)
    return options


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server on this host."""
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
        print(f"The sandbox cannot listen on {host} port {port}: {error}. Use a free port: {free}", file=sys.stderr)
        return 1
    url = address(listener)
    # A shell lets its background processes ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        print(f"Luma sandbox on {url} · {url}/sandbox shows what happens · Ctrl-C stops it")
        for name, row in PLAYED.items():
            # The only token that it accepts is a secret.
            password = "<token>" if options["token"] else f"{row.key_prefix}any-token"
            fields = json.dumps(connection(name, url, password))
            print(f"A connection to {row.label}:\n  export AIRFLOW_CONN_LUMA_DEFAULT='{fields}'", flush=True)
        if not is_loopback(host):
            print(f"Warning: other machines on the network can reach {url}", file=sys.stderr)
        make_server(create_app(Settings(**options))).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())

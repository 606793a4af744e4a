"""`python -m airflow_provider_luma.sandbox`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection

from airflow_provider_luma.apis import APIS
from airflow_provider_luma.sandbox.__main__ import main, parser
from airflow_provider_luma.sandbox.memory import Settings
from airflow_provider_luma.sandbox.played import PLAYED


def start(*options: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command, and return it with its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_luma.sandbox", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def test_prints_connections_and_stops_silently():
    """The command prints a connection for every API, and an interrupt stops it silently, even with a waiting client."""
    process, line = start("--port", "0", "--seconds", "0", "--submit-shape", "bare")
    with process:
        found = re.search(r"Luma sandbox on http://127\.0\.0\.1:(\d+) · ", line)
        if not found:
            process.kill()
        assert found, line
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=10) as waiting:
            body = b'{"user_prompt": "a boat [hang]"}'
            waiting.sendall(
                b"POST /luma/generations HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer x\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
            charged = 0
            while not charged:
                connection.request("GET", "/sandbox")
                charged = json.loads(connection.getresponse().read())["charged"]
            connection.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert waiting.recv(1) == b""
        assert process.stderr.read() == ""
        printed = process.stdout.read()
    shown = [
        json.loads(one) for one in re.findall(r"^  export AIRFLOW_CONN_LUMA_DEFAULT='(.+)'$", printed, re.MULTILINE)
    ]
    default, *others = [row for row in APIS.values() if row.sandbox_token]
    host = f"http://127.0.0.1:{found[1]}"
    assert shown[0] == {"conn_type": "luma", "host": host, "password": f"{default.key_prefix}any-token"}
    assert shown[1:] == [
        {**shown[0], "password": f"{row.key_prefix}any-token", "extra": {"api": row.name}} for row in others
    ]
    assert [row.label for row in (default, *others) if row.label not in printed] == []


def test_hides_its_only_token():
    """With a token of its own, the command does not print the token."""
    process, _ = start("--port", "0", "--token", "sk-secret")
    with process:
        printed = [process.stdout.readline() for _ in range(2 * len(PLAYED))]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "sk-secret" not in process.stderr.read()
    assert all("<token>" in line and "sk-secret" not in line for line in printed[1::2])


def test_every_setting_is_an_option():
    """Every setting has an option with the same default."""
    options = vars(parser().parse_args([]))
    del options["host"], options["port"]
    assert Settings(**options) == Settings()
    assert options.keys() == Settings.__dataclass_fields__.keys()


def test_port_in_use_is_one_line(sandbox, capsys):
    """A port that is in use is one line on stderr, not a traceback."""
    assert main(["--port", str(sandbox.port)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"The sandbox cannot listen on 127.0.0.1 port {sandbox.port}: ")
    assert err.endswith("Use a free port: python -m airflow_provider_luma.sandbox --port 0\n")
    assert err.count("\n") == 1


def test_warns_about_the_network():
    """The command warns if other machines can reach the sandbox."""
    process, line = start("--port", "0", "--host", "0.0.0.0")  # noqa: S104
    with process:
        assert line.startswith("Luma sandbox on http://0.0.0.0:")
        assert process.stderr.readline().startswith("Warning: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0

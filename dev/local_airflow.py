"""A real Airflow in a folder, for `make demo`, `make airflow` and the system tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"

#: Seconds for which a component waits for another's write to SQLite before it ends; an API server waits for 5, fails
#: the request and goes on.
PATIENCE = 60

#: What runs, and the `airflow` command of each. The log servers' ports are fixed, and a second Airflow on this machine
#: could not have them.
COMPONENTS: Mapping[str, Sequence[str]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}

CHECKOUT = Path(__file__).parents[1]
EXAMPLE_DAGS = CHECKOUT / "example_dags"
#: What the commands leave behind; git ignores it.
HOME = CHECKOUT / ".airflow"

#: The token that the sandbox of a command accepts.
TOKEN = "token-of-the-sandbox"
#: The login of every Airflow started here; it listens on this machine only.
USER = PASSWORD = "admin"


class LocalAirflow:
    """
    Airflow's components on SQLite, each in a session of its own with a log file in the folder.

    A session holds whatever a component forks, also after the component itself is gone: the scheduler's
    workers and the tasks they run, the triggerer's runner, the dag processor's parsers.

    :param home: becomes ``AIRFLOW_HOME``; database, logs and the keys that Airflow generates stay there.
    :param dags: the folder of DAG files.
    :param env: further environment variables; they win over those set here.
    :param python: the interpreter whose Airflow runs.
    :param port: the port to listen on, another one when it is taken; 0 for any.
    :param components: what runs, and the ``airflow`` command of each.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        port: int = 0,
        components: Mapping[str, Sequence[str]] = COMPONENTS,
    ) -> None:
        self.components = components
        self.home = home.absolute()
        self.dags = dags.absolute()
        self.python = python
        # One file per version: a database of a newer Airflow cannot be opened by an older one.
        self.database = self.home / f"airflow-{_airflow_version(python)}.db"
        self.url = f"http://127.0.0.1:{free_port(port)}"
        self.sessions: dict[str, subprocess.Popen[bytes]] = {}
        self._session_ids: set[int] = set()
        self._mark = uuid4().hex
        self._token = ""
        self._env = {**self._settings(), **(env or {})}

    def __enter__(self) -> LocalAirflow:  # noqa: PYI034
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _settings(self) -> dict[str, str]:
        host, port = self.url.removeprefix("http://").split(":")
        options = {
            "AIRFLOW_HOME": self.home,
            "AIRFLOW__CORE__DAGS_FOLDER": self.dags,
            "AIRFLOW__CORE__LOAD_EXAMPLES": False,
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": 8,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": self.home / "passwords.json",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": host,
            "AIRFLOW__API__PORT": port,
            "AIRFLOW__API__WORKERS": 1,
            # An error of the database is then named in the answer, and not in a log only.
            "AIRFLOW__API__EXPOSE_STACKTRACE": True,
            # Airflow 3.0 has no default that today's PyJWT accepts.
            "AIRFLOW__API_AUTH__JWT_ISSUER": self.url,
            DATABASE: f"sqlite:///{self.database}",
            # Edited DAGs are seen within seconds.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": 5,
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 5,
            # As long may a task's supervisor take to see that the task has ended, and to be done itself.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
            "LUMA_LOCAL_AIRFLOW": self._mark,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return inherited | {name: str(value) for name, value in options.items()}

    def migrate(self) -> None:
        """Make the database, unless it is there: this takes Airflow some five seconds."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "passwords.json").write_text(json.dumps({USER: PASSWORD}) + "\n")
        if self._env[DATABASE] != f"sqlite:///{self.database}":
            self.command("db", "migrate")
            return
        if self.database.exists():
            return
        # Moved into place when complete, so that an interrupted one is not mistaken for a database.
        unfinished = self.database.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        self.command("db", "migrate", env={DATABASE: f"sqlite:///{unfinished}"})
        unfinished.rename(self.database)

    def start(self) -> None:
        """Start every component and return when all of them are healthy."""
        self.migrate()
        try:
            for component in self.components:
                self.restart(component)
            self.wait_for(self.healthy, timeout=300)
        except BaseException:
            self.stop()
            raise

    def check_alive(self) -> None:
        """Raise a ``RuntimeError`` when a component has ended by itself."""
        for component, leader in self.sessions.items():
            if leader.poll() is not None:
                msg = f"{component} ended with exit code {leader.returncode}\n{self.log_tails()}"
                raise RuntimeError(msg)

    def healthy(self) -> bool:
        """Say whether the API server answers, and that there is a scheduler, a dag processor and a triggerer."""
        self.check_alive()
        answer = requests.get(f"{self.url}/api/v2/monitor/health", timeout=10)
        answer.raise_for_status()
        health = answer.json()
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return all(health[part]["status"] == "healthy" for part in parts)

    def stop(self, patience: float = 3) -> None:
        """
        End every process started here, and those that they started.

        :param patience: seconds for the components to end by themselves, of which only running tasks need many.
        """
        # Not to the whole session: a worker that dies while it holds the lock on the scheduler's queue keeps the
        # others, and so the scheduler, waiting for ever.
        for leader in self.sessions.values():
            leader.terminate()
        give_up = time.monotonic() + patience
        while self.processes() and time.monotonic() < give_up:
            time.sleep(0.1)
        left = self.processes()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for leader in self.sessions.values():
            leader.wait()
        psutil.wait_procs(left, timeout=10)
        self.sessions.clear()

    def kill(self, name: str) -> None:
        """SIGKILL a component with all it has forked: with the scheduler die all running tasks."""
        leader = self.sessions.pop(name)
        for process in self.processes(leader.pid):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        leader.wait()

    def restart(self, component: str) -> None:
        """Start a component, after killing the one that runs; does not wait until it is ready."""
        if component in self.sessions:
            self.kill(component)
        with (self.home / f"{component}.log").open("ab") as log:
            self.spawn(component, *self.components[component], stdout=log, stderr=subprocess.STDOUT)

    def spawn(self, name: str, *args: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Run an ``airflow`` command in a session of its own, which :meth:`stop` ends."""
        command = [self.python, "-m", "airflow", *args]
        env = self._env
        if env[DATABASE].startswith("sqlite") and args[0] != "api-server":
            env = {**env, DATABASE: f"{env[DATABASE]}?timeout={PATIENCE}"}
        # From its home, as `-m` lets a Python import whatever is in the folder that it is started from.
        leader = subprocess.Popen(
            command, cwd=self.home, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **popen
        )
        self.sessions[name] = leader
        self._session_ids.add(leader.pid)
        return leader

    def command(self, *args: str, env: Mapping[str, str] | None = None) -> str:
        """Run an ``airflow`` command to its end and return what it printed."""
        done = subprocess.run(
            [self.python, "-m", "airflow", *args],
            cwd=self.home,
            env={**self._env, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            msg = f"airflow {' '.join(args)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise RuntimeError(msg)
        return done.stdout

    def processes(self, session: int | None = None) -> list[psutil.Process]:
        """Return the living processes of one session, or of all that was started here."""
        sessions = {session} if session else self._session_ids
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                # The mark finds what made itself a session, as Bash tasks do. The session finds the task
                # processes, whose environment only root may read.
                ours = os.getsid(process.pid) in sessions or (
                    session is None and process.environ().get("LUMA_LOCAL_AIRFLOW") == self._mark
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def api_token(self) -> str:
        """Return a token of Airflow's API, for the one user there is."""
        if not self._token:
            login = {"username": USER, "password": PASSWORD}
            answer = requests.post(f"{self.url}/auth/token", json=login, timeout=30)
            answer.raise_for_status()
            self._token = answer.json()["access_token"]
        return self._token

    def api(self, method: str, path: str, *, json: Any = None, params: Any = None) -> Any:
        """
        Call Airflow's REST API, `path` being what follows ``/api/v2/``, and return its JSON.

        A change that SQLite refused is asked for again: Airflow writes its audit log on the API server's event loop,
        and when another request, not yet committed, needs that loop, each waits for the other until SQLite gives the
        log up after 5 s, and the change with it.
        """
        for _ in range(5):
            answer = requests.request(
                method,
                f"{self.url}/api/v2/{path}",
                json=json,
                params=params,
                headers={"Authorization": f"Bearer {self.api_token()}"},
                timeout=30,
            )
            if answer.ok or "database is locked" not in answer.text:
                break
        if not answer.ok:
            msg = f"{method} {path}: {answer.status_code} {answer.text[:500]}"
            raise requests.HTTPError(msg, response=answer)
        return answer.json() if answer.content else None

    def add_connection(self, connection_id: str, **fields: Any) -> None:
        """Store a connection in the database, in place of one of that name; fields as in the REST API."""
        connection = {"connection_id": connection_id, **fields}
        action = {"action": "create", "action_on_existence": "overwrite", "entities": [connection]}
        outcome = self.api("PATCH", "connections", json={"actions": [action]})
        if outcome["create"]["errors"]:
            raise RuntimeError(outcome["create"]["errors"])

    def wait_for(self, probe: Callable[[], T], timeout: float = 60, every: float = 0.25) -> T:
        """
        Return what the probe returns as soon as that is true.

        :param probe: what to call; an ``OSError``, as `requests` raises them, means not yet.
        :param timeout: seconds until a ``TimeoutError`` with the last answer and the ends of the logs.
        :param every: seconds between two calls.
        """
        give_up = time.monotonic() + timeout
        while True:
            try:
                last: Any = probe()
                if last:
                    return last
            except OSError as error:
                last = error
            if time.monotonic() > give_up:
                msg = f"Still {last!r} after {timeout:.0f} s\n{self.log_tails()}"
                raise TimeoutError(msg)
            time.sleep(every)

    def log_tails(self, lines: int = 15) -> str:
        """Return the last lines of every component's log."""
        tails = []
        for path in sorted(self.home.glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            tails.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(tails)


def _airflow_version(python: str) -> str:
    code = "import importlib.metadata; print(importlib.metadata.version('apache-airflow'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def free_port(wanted: int = 0) -> int:
    """Return the wanted port when nothing listens on it, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            # Without this, a port counts as taken for a minute after the last Airflow has left it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def run_until_interrupted(main: Callable[[], None]) -> None:
    """Run a command; Ctrl-C, or its terminal going away, lets it clean up and ends it without a traceback."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(*_: object) -> None:
        # A second Ctrl-C would stop the cleaning up.
        for signum in signals:
            signal.signal(signum, signal.SIG_IGN)
        print("\nStopping …", flush=True)
        raise KeyboardInterrupt

    for signum in signals:
        signal.signal(signum, interrupt)
    try:
        main()
    except KeyboardInterrupt:
        # What was wished, and so no error for `make` to report.
        sys.exit(0)
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"\n{error}")

"""Run a real Airflow in a folder, for `make demo`, `make airflow` and the system tests."""

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

#: Seconds that a component waits for another component's write to SQLite before it ends. The API server waits for 5
#: seconds, then fails the request and continues.
PATIENCE = 60

#: The `airflow` command of each component. They serve no logs: the port for that is fixed, so a second Airflow on this
#: machine could not start.
COMPONENTS: Mapping[str, Sequence[str]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}

CHECKOUT = Path(__file__).parents[1]
EXAMPLE_DAGS = CHECKOUT / "example_dags"
#: The files of these commands; git ignores them.
HOME = CHECKOUT / ".airflow"

#: The token that the sandbox of these commands accepts.
TOKEN = "token-of-the-sandbox"
#: The login of every Airflow started here. Other machines cannot reach it.
USER = PASSWORD = "admin"


class LocalAirflow:
    """
    Airflow's components on SQLite. Each has its own session of processes, and a log file in the folder.

    A session contains all processes that a component forks, also after the component has ended: the scheduler's workers
    and their tasks, the triggerer's runner, the dag processor's parsers.

    :param home: becomes ``AIRFLOW_HOME``; contains the database, the logs and the keys that Airflow generates.
    :param dags: the folder of DAG files.
    :param env: more environment variables; they override those set here.
    :param python: the Python interpreter whose Airflow runs.
    :param port: the port to listen on; if it is taken, any free port. 0 for any free port.
    :param components: the ``airflow`` command of each component.
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
        # Each version has its own file, because an older Airflow cannot open the database of a newer Airflow.
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
            # An error of the database is then in the answer, not only in a log.
            "AIRFLOW__API__EXPOSE_STACKTRACE": True,
            # Today's PyJWT does not accept the default of Airflow 3.0.
            "AIRFLOW__API_AUTH__JWT_ISSUER": self.url,
            DATABASE: f"sqlite:///{self.database}",
            # Airflow sees edited DAGs within seconds.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": 5,
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 5,
            # The supervisor of a task needs this long to see that the task has ended, and then ends itself.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
            "LUMA_LOCAL_AIRFLOW": self._mark,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return inherited | {name: str(value) for name, value in options.items()}

    def migrate(self) -> None:
        """Create the database if it does not exist, which takes five seconds."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "passwords.json").write_text(json.dumps({USER: PASSWORD}) + "\n")
        if self._env[DATABASE] != f"sqlite:///{self.database}":
            self.command("db", "migrate")
            return
        if self.database.exists():
            return
        # Rename it when it is complete, so that an interrupted setup does not leave half a database.
        unfinished = self.database.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        self.command("db", "migrate", env={DATABASE: f"sqlite:///{unfinished}"})
        unfinished.rename(self.database)

    def start(self) -> None:
        """Start all components and return when they are healthy."""
        self.migrate()
        try:
            for component in self.components:
                self.restart(component)
            self.wait_for(self.healthy, timeout=300)
        except BaseException:
            self.stop()
            raise

    def check_alive(self) -> None:
        """Raise a ``RuntimeError`` if a component has ended unexpectedly."""
        for component, leader in self.sessions.items():
            if leader.poll() is not None:
                msg = f"{component} ended with exit code {leader.returncode}\n{self.log_tails()}"
                raise RuntimeError(msg)

    def healthy(self) -> bool:
        """Return whether the API server answers and reports a healthy scheduler, dag processor and triggerer."""
        self.check_alive()
        answer = requests.get(f"{self.url}/api/v2/monitor/health", timeout=10)
        answer.raise_for_status()
        health = answer.json()
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return all(health[part]["status"] == "healthy" for part in parts)

    def stop(self, patience: float = 3) -> None:
        """
        End all processes started here, and their children.

        :param patience: seconds for the components to end before they are killed. Only running tasks need many.
        """
        # Signal the leaders only. If a worker died while it holds the lock on the scheduler's queue, the other workers
        # and the scheduler would wait for ever.
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
        """SIGKILL a component and all processes that it forked. With the scheduler, all running tasks die."""
        leader = self.sessions.pop(name)
        for process in self.processes(leader.pid):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        leader.wait()

    def restart(self, component: str) -> None:
        """Start a component, and kill it before if it runs; does not wait until it is ready."""
        if component in self.sessions:
            self.kill(component)
        with (self.home / f"{component}.log").open("ab") as log:
            self.spawn(component, *self.components[component], stdout=log, stderr=subprocess.STDOUT)

    def spawn(self, name: str, *args: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start an ``airflow`` command in its own session. :meth:`stop` ends it."""
        command = [self.python, "-m", "airflow", *args]
        env = self._env
        if env[DATABASE].startswith("sqlite") and args[0] != "api-server":
            env = {**env, DATABASE: f"{env[DATABASE]}?timeout={PATIENCE}"}
        # Start it in its home: with `-m`, Python can import all modules in the current folder.
        leader = subprocess.Popen(
            command, cwd=self.home, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **popen
        )
        self.sessions[name] = leader
        self._session_ids.add(leader.pid)
        return leader

    def command(self, *args: str, env: Mapping[str, str] | None = None) -> str:
        """Run an ``airflow`` command and return its output."""
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
        """Return the living processes of one session, or of all processes started here."""
        sessions = {session} if session else self._session_ids
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                # The mark finds processes with a new session, such as those of Bash tasks. The session finds processes
                # of tasks, whose environment only root may read.
                ours = os.getsid(process.pid) in sessions or (
                    session is None and process.environ().get("LUMA_LOCAL_AIRFLOW") == self._mark
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def api_token(self) -> str:
        """Return a token of Airflow's API for the only user."""
        if not self._token:
            login = {"username": USER, "password": PASSWORD}
            answer = requests.post(f"{self.url}/auth/token", json=login, timeout=30)
            answer.raise_for_status()
            self._token = answer.json()["access_token"]
        return self._token

    def api(self, method: str, path: str, *, json: Any = None, params: Any = None) -> Any:
        """
        Call Airflow's REST API and return its JSON; retry while SQLite is locked.

        Airflow writes its audit log on the API server's event loop. If another request that is not yet committed needs
        that loop, each waits for the other, until SQLite drops the log and the change after 5 seconds.

        :param path: the part of the URL after ``/api/v2/``.
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
        """Store a connection in the database, or replace it; the fields are those of the REST API."""
        connection = {"connection_id": connection_id, **fields}
        action = {"action": "create", "action_on_existence": "overwrite", "entities": [connection]}
        outcome = self.api("PATCH", "connections", json={"actions": [action]})
        if outcome["create"]["errors"]:
            raise RuntimeError(outcome["create"]["errors"])

    def wait_for(self, probe: Callable[[], T], timeout: float = 60, every: float = 0.25) -> T:
        """
        Call the probe until it returns a true value, and return that value.

        :param probe: a function; an ``OSError``, such as the errors of `requests`, means "not yet".
        :param timeout: seconds until a ``TimeoutError``, which contains the last answer and the ends of the logs.
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
        """Return the last lines of each component's log."""
        tails = []
        for path in sorted(self.home.glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            tails.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(tails)


def _airflow_version(python: str) -> str:
    code = "import importlib.metadata; print(importlib.metadata.version('apache-airflow'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            # Without this option, a port stays taken for a minute after the last Airflow has ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("There is no free port on 127.0.0.1")


def run_until_interrupted(main: Callable[[], None]) -> None:
    """Run a command. If you press Ctrl-C or close the terminal, it cleans up and ends without a traceback."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(*_: object) -> None:
        # A second Ctrl-C would interrupt the clean-up.
        for signum in signals:
            signal.signal(signum, signal.SIG_IGN)
        print("\nStopping …", flush=True)
        raise KeyboardInterrupt

    for signum in signals:
        signal.signal(signum, interrupt)
    try:
        main()
    except KeyboardInterrupt:
        # The user asked for this, so `make` must not report an error.
        sys.exit(0)
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"\n{error}")

"""A real Airflow for tests. Its settings let it notice dead processes within seconds."""

from __future__ import annotations

import sqlite3
import sys
import threading
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import airflow
import sqlalchemy
from packaging.version import Version
from sqlalchemy.pool import NullPool

from dev.local_airflow import COMPONENTS, DATABASE, LocalAirflow
from tests.support import killing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import psutil

T = TypeVar("T")

#: The version that runs, unless a test uses another Python interpreter.
AIRFLOW = Version(airflow.__version__)

#: Airflow's defaults take minutes to notice a dead process; tests need seconds.
IMPATIENT = {
    # The time that a stopped task has to end. Before Airflow 3.4, it is always 5 seconds.
    "AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME": "5",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    # No test edits a DAG, and frequent parsing would keep a core busy.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


class Deployment(LocalAirflow):
    """
    A running Airflow with links to DAG files, used by its REST API.

    :param home: an empty folder.
    :param dags: DAG files, or folders of them.
    :param env: more environment variables, such as ``AIRFLOW_CONN_LUMA_DEFAULT``.
    :param python: the Python interpreter whose Airflow runs.
    :param components: the ``airflow`` command of each component.
    """

    def __init__(
        self,
        home: Path,
        *dags: Path,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        components: Mapping[str, Sequence[str]] = COMPONENTS,
    ) -> None:
        folder = home / "dags"
        folder.mkdir(parents=True)
        for path in dags:
            (folder / path.name).symlink_to(path.absolute())
        super().__init__(home, folder, env={**IMPATIENT, **(env or {})}, python=python, components=components)
        self.stopped = False
        self.undisturbed = threading.Lock()
        """Held while a component restarts, and by a test that needs all components for a while."""
        self._changing = threading.Lock()

    def stop(self, patience: float = 3) -> None:
        """End all processes started here, and the waits of other threads."""
        self.stopped = True
        super().stop(patience)

    def api(self, method: str, path: str, *, json: Any = None, params: Any = None) -> Any:
        """Call Airflow's REST API; only one change at a time, because two changes can wait for each other."""
        with nullcontext() if method == "GET" else self._changing:
            return super().api(method, path, json=json, params=params)

    def restart(self, component: str) -> None:
        """Start a component, and kill it before if it runs; tests take turns."""
        with self.undisturbed:
            super().restart(component)

    def wait_for(self, probe: Callable[[], T], timeout: float = 60, every: float = 0.25) -> T:
        """Call the probe until it returns a true value, like :meth:`LocalAirflow.wait_for`."""

        def probe_while_it_runs() -> T:
            if self.stopped:
                raise RuntimeError("This Airflow has been stopped.")
            return probe()

        return super().wait_for(probe_while_it_runs, timeout, every)

    def run(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a DAG run when the DAG has been parsed, and return its run id."""
        try:
            self.wait_for(lambda: self.api("GET", f"dags/{dag_id}"))
        except TimeoutError as error:
            msg = f"{dag_id} was not parsed; import errors: {self.import_errors()}"
            raise TimeoutError(msg) from error
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.api("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, timeout: float = 300) -> str:
        """Wait until the run has ended and return ``success`` or ``failed``."""
        path = f"dags/{dag_id}/dagRuns/{run_id}"

        def ended() -> str:
            state = str(self.api("GET", path)["state"])
            return state if state in {"success", "failed"} else ""

        try:
            # Many tests can wait at a time, and each call keeps the API server busy.
            return self.wait_for(ended, timeout, every=1)
        except TimeoutError as error:
            states = {ti["task_id"]: ti["state"] for ti in self.task_instances(dag_id, run_id)}
            msg = f"{dag_id} still has {states}\n{error}"
            raise TimeoutError(msg) from error

    def run_to_end(self, dag_id: str, conf: Mapping[str, Any] | None = None, *, state: str = "success") -> str:
        """Trigger a DAG run, wait until it has ended in this state, and return its run id."""
        run_id = self.run(dag_id, conf)
        ended = self.wait(dag_id, run_id)
        assert ended == state, f"{dag_id} {run_id} ended as {ended}, not as {state}"
        return run_id

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of the run, in the form of the REST API."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.api("GET", path, params={"limit": 100, "offset": len(found)})
            found += page["task_instances"]
            if len(found) >= page["total_entries"]:
                return found

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return a task instance, in the form of the REST API."""
        return dict(self.api("GET", _task_path(dag_id, run_id, task_id, map_index)))

    def wait_for_task(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, *, timeout: float = 180, **fields: Any
    ) -> dict[str, Any]:
        """Wait until the task instance has these fields, such as ``state="deferred"``, and return it."""

        def arrived() -> dict[str, Any] | None:
            found = self.task_instance(dag_id, run_id, task_id, map_index)
            return found if fields.items() <= found.items() else None

        try:
            return self.wait_for(arrived, timeout)
        except TimeoutError as error:
            msg = f"{self.task_instance(dag_id, run_id, task_id, map_index)} has not {fields}\n{error}"
            raise TimeoutError(msg) from error

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.api("GET", path, params={"map_index": map_index})["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of a try, first of the task and then of its triggers, as lines of JSON."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        return "".join(path.read_text() for path in sorted(folder.glob(f"attempt={try_number}.log*")))

    def clear(self, dag_id: str, run_id: str, *task_ids: str, **options: Any) -> None:
        """Clear tasks, so that they run again; the options are those of the REST API."""
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": task_ids, **options}
        self.api("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance as ``success``, ``failed`` or ``skipped``, like the buttons in the UI."""
        self.api("PATCH", _task_path(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def kill_task(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, *, only_runner: bool = False
    ) -> None:
        """
        SIGKILL the processes that run a task, like the death of a machine.

        A task of the LocalExecutor has two processes: the worker, which supervises it and sends its heartbeats, and the
        runner, which the worker forks and which executes the operator. The titles of both contain the id of the task
        instance, which is different in each try.

        If both are dead, Airflow gets no report. The scheduler looks every 2 s, and fails the try when the last
        heartbeat is 20 s old. The next try begins after the task's ``retry_delay``: after 21 to 24 s in total. If only
        the runner is dead, the supervisor reports the failure immediately, and the next try begins within two seconds.

        :param only_runner: kill the runner and not its supervisor.
        """
        supervisors, runners = self.wait_for(
            lambda: self.task_processes(dag_id, run_id, task_id, map_index), timeout=30
        )
        # Kill the supervisor first, so that it cannot report that its runner died.
        killing.kill(runners if only_runner else supervisors + runners)

    def task_processes(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1
    ) -> tuple[list[psutil.Process], list[psutil.Process]] | None:
        """Return the supervisor and the runner of a task, each in a list; None if it does not run."""
        ti = self.task_instance(dag_id, run_id, task_id, map_index)
        processes = [process for process in self.processes() if killing.task_of(process) == ti["id"]]
        runners = [process for process in processes if killing.is_runner(process)]
        supervisors = [process for process in processes if process not in runners]
        return (supervisors, runners) if supervisors and runners else None

    def query(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query in Airflow's database; `values` fill its ``:names``."""
        engine = sqlalchemy.create_engine(self._env[DATABASE], poolclass=NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query), values)]

    def dump(self) -> Iterator[tuple[str, str]]:
        """Yield each row of the database, as its table and its text."""
        with closing(sqlite3.connect(self.database)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608
                    yield table, repr(row)

    def log_files(self) -> Iterator[Path]:
        """Yield each log file, of components, tasks, triggers and DAG files."""
        yield from self.home.glob("*.log")
        yield from (path for path in (self.home / "logs").rglob("*") if path.is_file())

    def import_errors(self) -> list[dict[str, Any]]:
        """Return the errors of DAG files that could not be parsed."""
        return list(self.api("GET", "importErrors")["import_errors"])


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"

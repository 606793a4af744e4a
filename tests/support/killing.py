"""How tests and benchmarks kill Airflow's processes, and how they know what they would interrupt."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL processes in this order; those that are gone already do not matter."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def held(find: Callable[[], Iterable[psutil.Process]], settle: float) -> Iterator[list[psutil.Process]]:
    """
    Let processes stand still for as long as a ``with`` block lasts, so that it can see what a kill would interrupt.

    Those that it does not kill run on afterwards.

    :param find: returns the processes; called again until all are held, as they may fork meanwhile.
    :param settle: seconds for other processes to finish what these have asked of them.
    """
    processes: list[psutil.Process] = []
    try:
        while new := [process for process in find() if process not in processes]:
            for process in new:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
            processes += new
        time.sleep(settle)
        yield processes
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def is_submitting(remembered: Iterable[str | None]) -> bool:
    """
    Return whether a task has begun to submit and does not remember the answer yet.

    A task that is killed there fails without a retry, as it is unknown what was paid.

    :param remembered: what tasks have in the task state store, as JSON; None for nothing.
    """
    return any(value and "generation_id" not in json.loads(value) for value in remembered)


def title(process: psutil.Process) -> str:
    """Return a process's title; "" when the process is gone."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


def task_of(process: psutil.Process) -> str:
    """Return the id of the task instance that a process runs or supervises; "" for a process that does neither."""
    words = title(process).split()
    return words[-1] if words[:3] == ["airflow", "worker", "--"] and len(words) > 3 else ""


def is_runner(process: psutil.Process) -> bool:
    """Return whether an operator executes in this process; its supervisor is another process, its parent."""
    return bool(task_of(process)) and "LocalExecutor" not in title(process)

"""Find Airflow's processes and kill them, and see whether that would interrupt a submission."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL processes in this order, and ignore those that have ended."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def held(find: Callable[[], Iterable[psutil.Process]], settle: float) -> Iterator[list[psutil.Process]]:
    """
    Suspend processes during a ``with`` block, so that it can see what a kill would interrupt.

    At its end, the processes that it did not kill continue.

    :param find: returns the processes; called again until all are suspended, because they can fork meanwhile.
    :param settle: seconds for other processes to finish the requests of these processes.
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
    Return whether a task is submitting and has not stored the answer yet.

    If it is killed now, it fails without a retry, because nobody knows whether it was charged.

    :param remembered: the tasks' values in the task state store, as JSON; None if a task has no value.
    """
    return any(value and "generation_id" not in json.loads(value) for value in remembered)


def title(process: psutil.Process) -> str:
    """Return the title of a process, or an empty text if the process has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


def task_of(process: psutil.Process) -> str:
    """Return the id of the task instance that a process runs or supervises, or an empty text."""
    words = title(process).split()
    return words[-1] if words[:3] == ["airflow", "worker", "--"] and len(words) > 3 else ""


def is_runner(process: psutil.Process) -> bool:
    """Return whether the process executes an operator. Its supervisor is its parent process."""
    return bool(task_of(process)) and "LocalExecutor" not in title(process)

"""
Tests that wait most of their time are run at the same time: those marked `together`, each in a thread of its own; first
those marked `together(first=True)`, which wait for a minute, or they would end after all others.

pytest still sets up, reports and times them one after the other, in their order; the call of such a test is to wait for
its thread. All that they may take are parameters and fixtures of the whole session.
"""

from __future__ import annotations

import inspect
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNNING: pytest.StashKey[Future[None]] = pytest.StashKey()


@contextmanager
def started(request: pytest.FixtureRequest, folder: Path, at_once: int) -> Iterator[None]:
    """Start every selected test of a folder that is marked `together`, so many at once, while a block lasts."""
    pool = ThreadPoolExecutor(at_once)
    marked = [one for one in request.session.items if folder in one.path.parents and one.get_closest_marker("together")]
    for item in sorted(marked, key=lambda one: "first" not in one.get_closest_marker("together").kwargs):
        given = item.callspec.params if hasattr(item, "callspec") else {}
        names = inspect.signature(item.obj).parameters
        arguments = {name: given[name] if name in given else request.getfixturevalue(name) for name in names}
        item.stash[RUNNING] = pool.submit(item.obj, **arguments)
    yield
    pool.shutdown(wait=False, cancel_futures=True)


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Wait for the test's thread, if it has one; what it raised is raised here."""
    running = pyfuncitem.stash.get(RUNNING, None)
    if running is None:
        return None
    running.result()
    return True

"""
Run tests that mostly wait at the same time: tests marked `together` run in threads.

Tests marked `together(first=True)` start first, because they wait for a minute. pytest still sets up, reports and times
the tests in their order; the call of such a test waits for its thread. Such tests can only use parameters and fixtures
of the session.
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
    """Start the selected tests of a folder that are marked `together`, at most ``at_once`` at a time."""
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
    """Wait for the thread of the test, if there is one, and raise its error."""
    running = pyfuncitem.stash.get(RUNNING, None)
    if running is None:
        return None
    running.result()
    return True

"""Sandboxes for the tests of the sandbox."""

from __future__ import annotations

import pytest

from airflow_provider_luma.sandbox import Sandbox
from tests.support.clock import Clock


@pytest.fixture(scope="module")
def running():
    """A sandbox for all tests that need no settings of their own."""
    with Sandbox(seconds=0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running):
    """An empty sandbox that accepts any token and completes generations immediately."""
    running.reset()
    return running


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slow_sandbox(clock):
    """A sandbox whose generations take ten seconds of the clock."""
    with Sandbox(seconds=10, clock=clock) as sandbox:
        yield sandbox

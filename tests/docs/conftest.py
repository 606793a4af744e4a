"""What the tests of the documentation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import together
from tests.support.together import pytest_pyfunc_call as pytest_pyfunc_call


@pytest.fixture(scope="session", autouse=True)
def all_together(request):
    """The tests marked `together` begin with the first: each runs pytest in a process of its own."""
    with together.started(request, Path(__file__).parent, at_once=1):
        yield

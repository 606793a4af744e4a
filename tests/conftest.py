"""Set up an empty Airflow home for the tests before anything imports Airflow."""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import version
from typing import TYPE_CHECKING

from hypothesis import settings
from packaging.version import Version

if TYPE_CHECKING:
    import pytest

HOME = tempfile.TemporaryDirectory(prefix="airflow-provider-luma-")
os.environ["AIRFLOW_HOME"] = HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__FERNET_KEY"] = "8qYhCSLVNC8TwyDq1fPWT4nLtT_q3lBrF2KX0Wj6v1s="

pytest_plugins = ["pytester", "airflow_provider_luma.pytest_plugin"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests marked `since` with a later Airflow. The docs list these features by version."""
    # A pre-release has the features of its release.
    airflow = Version(Version(version("apache-airflow")).base_version)
    too_new = {one for one in items for mark in one.iter_markers("since") if Version(mark.args[0]) > airflow}
    config.hook.pytest_deselected(items=too_new)
    items[:] = [one for one in items if one not in too_new]


# A slow machine must not fail a test.
settings.register_profile("luma", deadline=None)
settings.load_profile("luma")

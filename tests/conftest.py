"""Give every test an Airflow home of its own, before anything imports Airflow."""

from __future__ import annotations

import os
import tempfile

from hypothesis import settings

HOME = tempfile.TemporaryDirectory(prefix="airflow-provider-luma-")
os.environ["AIRFLOW_HOME"] = HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__FERNET_KEY"] = "8qYhCSLVNC8TwyDq1fPWT4nLtT_q3lBrF2KX0Wj6v1s="

pytest_plugins = ["pytester", "airflow_provider_luma.pytest_plugin"]

# A slow machine is no failure.
settings.register_profile("luma", deadline=None)
settings.load_profile("luma")

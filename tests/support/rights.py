"""The rights of users in the Airflow of the system tests."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class RightsByDag(SimpleAuthManager):
    """Airflow's simple auth manager, with a user `outsider` who may see only the DAG of the quickstart."""

    def is_authorized_dag(self, *, user: Any, details: Any = None, **kwargs: Any) -> bool:
        """Return whether the user has a right on a DAG."""
        if user.get_name() == "outsider" and details and details.id not in (None, "example_luma_quickstart"):
            return False
        return bool(super().is_authorized_dag(user=user, details=details, **kwargs))

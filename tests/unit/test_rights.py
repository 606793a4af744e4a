"""The rights that a user needs to see the Luma tab."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api import security
from airflow.models.dag import DagModel
from fastapi.testclient import TestClient

from airflow_provider_luma.ui.app import app

PATHS = ["/dags/a_dag/runs/a_run/videos", "/dags/a_dag/runs/a_run/tasks/submit/-1/video"]
NEEDED = [DagAccessEntity.RUN, DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM]


@pytest.fixture
def status(monkeypatch):
    """A function: the statuses of the tab's answers for a user who may read all of a DAG except these entities."""

    def status(*denied):
        def is_authorized_dag(*, method, access_entity, details, user):
            assert (method, details.id, user) == ("GET", "a_dag", "someone")
            return access_entity not in denied

        manager = SimpleNamespace(is_authorized_dag=is_authorized_dag)
        monkeypatch.setattr(security, "get_auth_manager", lambda: manager)
        return {TestClient(app).get(path).status_code for path in PATHS}

    # Versions of Airflow with teams look up the DAG's team in the database.
    monkeypatch.setattr(DagModel, "get_team_name", lambda dag_id: None, raising=False)
    monkeypatch.setitem(app.dependency_overrides, security.get_user, lambda: "someone")
    return status


def test_full_rights_show_tab(status):
    """A user who may read runs, task instances and XComs of the DAG sees the tab."""
    assert status() == {200}


@pytest.mark.parametrize("entity", NEEDED, ids=str)
def test_missing_right_hides_tab(entity, status):
    """A user who lacks one of these rights sees nothing, because the tab shows parts of all three."""
    assert status(entity) == {403}

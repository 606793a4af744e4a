"""Who may see the Luma tab."""

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
    """The statuses of the tab's answers to a user who may read all of a DAG but what is given."""

    def status(*denied):
        def is_authorized_dag(*, method, access_entity, details, user):
            assert (method, details.id, user) == ("GET", "a_dag", "someone")
            return access_entity not in denied

        manager = SimpleNamespace(is_authorized_dag=is_authorized_dag)
        monkeypatch.setattr(security, "get_auth_manager", lambda: manager)
        return {TestClient(app).get(path).status_code for path in PATHS}

    # Airflow looks a DAG's team up in its database, where it knows of teams.
    monkeypatch.setattr(DagModel, "get_team_name", lambda dag_id: None, raising=False)
    monkeypatch.setitem(app.dependency_overrides, security.get_user, lambda: "someone")
    return status


def test_who_may_read_runs_task_instances_and_xcoms_of_the_dag_sees_the_tab(status):
    assert status() == {200}


@pytest.mark.parametrize("entity", NEEDED, ids=str)
def test_who_may_not_read_one_of_these_sees_nothing(entity, status):
    """All that the tab shows stands in them, the video's URL in an XCom."""
    assert status(entity) == {403}

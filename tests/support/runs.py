"""A DAG run in an empty database, and the answers of the Luma tab about it."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from datetime import datetime, timezone

import sqlalchemy
from airflow import models
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.models import xcom
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airflow_provider_luma.ui import videos
from airflow_provider_luma.ui.app import app

DAG, RUN = "a_dag", "manual__2026-11-23T06:00:00+00:00"
NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
CLIENT = TestClient(app)
SINCE_3_4 = hasattr(TaskInstance, "region_id")
REQUEST = {"user_prompt": "A boat", "model_name": "ray-v2"}
DONE = {
    "id": "g1",
    "state": "completed",
    "video_url": "https://cdn/v.mp4",
    "thumbnail_url": "https://cdn/t.jpg",
    "width": 1280,
    "height": 720,
    "duration": 5.0,
}


class Run:
    """A DAG run in a database of its own."""

    def __init__(self, session):
        self.session = session
        self.insert(DagRun, id=1, dag_id=DAG, run_id=RUN, state="running", run_type="manual", run_after=NOON)

    def insert(self, model, **values):
        # Fill the dozens of columns that do not matter here. They differ between versions of Airflow.
        for column in model.__table__.columns:
            if not column.nullable and column.default is None and column.server_default is None:
                kind = column.type.python_type
                values.setdefault(column.name, {datetime: NOON, uuid.UUID: uuid.uuid4()}.get(kind) or kind())
        self.session.execute(model.__table__.insert().values(**values))

    def task(self, task_id, state, record=None, *, map_index=-1, run=(1, DAG, RUN), **more):
        instance = TaskInstance.id.default.arg(None)  # Airflow 3.0 has other ids
        dag_run_id, dag_id, run_id = run
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
        index = {"region_index" if SINCE_3_4 else "map_index": map_index}
        self.insert(TaskInstance, **key, **index, id=instance, state=state, **more)
        if record is None:
            return
        value = {"key": "luma", "value": record}
        if SINCE_3_4:
            self.insert(xcom.XComModelV2, **value, id=uuid.uuid4(), task_instance_id=instance)
        else:
            self.insert(xcom.XComModel, **value, **key, map_index=map_index, dag_run_id=dag_run_id)

    def region(self, node_id, **more):
        """Insert a region (in Airflow 3.4, the expansion of a mapped task or a loop) and return its id."""
        from airflow.models.dynamic_region import DynamicRegion

        region_id = uuid.uuid4()
        key = {"dag_id": DAG, "run_id": RUN, "node_id": node_id}
        self.insert(DynamicRegion, **key, id=region_id, family_root_id=region_id, **more)
        return region_id

    @property
    def videos(self):
        return videos.of_run(self.session, DAG, RUN, videos.LIMIT)["videos"]

    def of_task(self, task_id, map_index=-1, region=None):
        return videos.of_task(self.session, DAG, RUN, task_id, map_index, region)

    def answer(self, path):
        """Return the JSON that the API server answers for a path of the run, to a user with all rights."""
        (session_of,) = SessionDep.__metadata__
        app.dependency_overrides = {
            session_of.dependency: lambda: self.session,
            **{one.dependency: lambda: None for one in app.router.dependencies},
        }
        try:
            response = CLIENT.get(f"/dags/{DAG}/runs/{RUN}/{path}")
        finally:
            app.dependency_overrides = {}
        assert response.status_code == 200
        return response.json()


@contextmanager
def database():
    """Yield the engine of an empty database with Airflow's tables, which threads can share."""
    models.import_all_models()
    options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    engine = sqlalchemy.create_engine("sqlite://", **options)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@contextmanager
def new_run(engine):
    """Yield a run without tasks. It is removed at the end."""
    with engine.connect() as connection, Session(connection) as session:
        yield Run(session)

"""Reads the task instances of a DAG run, and their records, from Airflow's database."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import String, and_, cast, or_, select

from airflow_provider_luma.outcome import RECORD_KEY
from airflow_provider_luma.ui.record import Record, read

# Airflow 3.4 adds loops. Before, a task id and a map index identify a task instance.
regions: Any = import_module("airflow.models.dynamic_region") if hasattr(TaskInstance, "region_id") else None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

    from sqlalchemy.orm import Session

Found: TypeAlias = "tuple[str, int, tuple[UUID, int] | None, str, str | None, Record]"
"""Task id, map index, region, name, state, record."""

RECORD: Any = cast(XComModel.value, String)
"""The record as text: SQLAlchemy would fail on JSON that is too deep."""

TO_START = (None, "scheduled", "queued")


@dataclass(frozen=True)
class Task:
    """A task instance and its record."""

    task_id: str
    map_index: int
    region: tuple[UUID, int] | None
    """The ``region_id`` and ``region_index`` of Airflow 3.4, different in each iteration of a loop."""
    name: str
    state: str | None
    submits: bool
    record: Record


def find_tasks(session: Session, dag_id: str, run_id: str, *conditions: Any) -> list[Task]:
    """Return the run's task instances that meet the SQL conditions, with their records, in a stable order."""
    conditions = TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, *conditions
    found = list((_in_regions if regions else _by_map_index)(session, conditions))
    submitting = {task_id for task_id, *_, record in found if record.request}
    return [
        Task(task_id, map_index, region, name, state, task_id in submitting, record)
        for task_id, map_index, region, name, state, record in found
    ]


def _by_map_index(session: Session, conditions: Iterable[Any]) -> Iterator[Found]:
    label: Any = TaskInstance.rendered_map_index
    query = (
        select(TaskInstance.task_id, TaskInstance.map_index, label, TaskInstance.state, RECORD)
        .outerjoin(XComModel, and_(*_recorded_by(TaskInstance.map_index)))
        .where(*conditions)
        .order_by(TaskInstance.task_id, TaskInstance.map_index)
    )
    for task_id, map_index, shown, state, value in session.execute(query):
        yield task_id, map_index, None, _name(task_id, map_index, shown), state, read(value)


def _in_regions(session: Session, conditions: Iterable[Any]) -> Iterator[Found]:
    """Read the tables of Airflow 3.4: each try is a row with its own XComs, each iteration of a loop is a region."""
    for row in _rows_in_regions(session, conditions):
        task_id, region_id, index, node_id, parent_index, shown, state, value = row
        outside = region_id == regions.SENTINEL_REGION_ID
        mapped = outside or node_id == task_id
        map_index = index if mapped else -1
        name = _name(task_id, map_index, shown)
        iteration = parent_index if mapped else index
        if iteration is not None:
            name += f", iteration {iteration}"
        yield task_id, map_index, None if outside else (region_id, index), name, state, read(value)


def _rows_in_regions(session: Session, conditions: Iterable[Any]) -> Iterable[Any]:
    """Return a row for each task instance, with the newest record of its tries."""
    instance: Any = TaskInstance
    region = regions.DynamicRegion
    # Until a try begins, show the record of the try before, as earlier versions of Airflow do.
    begins = or_(instance.state.is_(None), instance.state.in_((*TO_START[1:], "up_for_retry")))
    recorded = (
        *_recorded_by(instance.region_index),
        XComModel.region_id == instance.region_id,
        or_(XComModel.task_instance_id == instance.id, begins),
    )
    place = instance.region_id, instance.region_index, region.node_id, region.parent_region_index
    query = (
        select(instance.task_id, *place, instance.rendered_map_index, instance.state, RECORD)
        .outerjoin(region, region.id == instance.region_id)
        .outerjoin(XComModel, and_(*recorded))
        .where(instance.working_set.is_(True), *conditions)
        .order_by(instance.task_id, region.parent_region_index, instance.region_index, XComModel.timestamp)
        .execution_options(include_all_attempts=True)
    )
    return {row[:3]: row for row in session.execute(query)}.values()


def _recorded_by(index: Any) -> tuple[Any, ...]:
    return (
        XComModel.dag_id == TaskInstance.dag_id,
        XComModel.run_id == TaskInstance.run_id,
        XComModel.task_id == TaskInstance.task_id,
        XComModel.map_index == index,
        XComModel.key == RECORD_KEY,
    )


def _name(task_id: str, map_index: int, shown: str | None) -> str:
    return f"{task_id} [{shown or map_index}]" if map_index >= 0 else task_id

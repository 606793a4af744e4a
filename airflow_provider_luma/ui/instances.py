"""The task instances of a DAG run and what each has recorded, out of the tables of the Airflow that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import and_, or_, select

from airflow_provider_luma.outcome import RECORD_KEY

# Before Airflow 3.4, which brings loops, a task id and a map index say which task instance it is.
regions: Any = import_module("airflow.models.dynamic_region") if hasattr(TaskInstance, "region_id") else None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

    from sqlalchemy.orm import Session

Found: TypeAlias = "tuple[str, int, tuple[UUID, int] | None, str, str | None, Mapping[str, Any]]"
"""Task id, map index, region, name, state, record."""

TO_START = (None, "scheduled", "queued")


@dataclass(frozen=True)
class Task:
    """A task instance, and what it has recorded; whoever writes XComs may have written anything there."""

    task_id: str
    map_index: int
    region: tuple[UUID, int] | None
    """The ``region_id`` and ``region_index`` by which Airflow 3.4 knows it, another in each iteration of a loop."""
    name: str
    state: str | None
    submits: bool
    record: Mapping[str, Any]

    @property
    def generation_id(self) -> str:
        """Return the id of the generation that it submitted, waits for or downloads."""
        known = self.record.get("generation_id")
        return known if isinstance(known, str) else ""

    @property
    def generation(self) -> Mapping[str, Any]:
        """Return the generation as it saw it last."""
        return mapping(self.record.get("generation"))


def find_tasks(session: Session, dag_id: str, run_id: str, *conditions: Any) -> list[Task]:
    """Return the run's task instances that meet the conditions, each with its record, in a steady order."""
    conditions = TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, *conditions
    found = list((_in_regions if regions else _by_map_index)(session, conditions))
    submitting = {task_id for task_id, *_, record in found if "request" in record}
    return [
        Task(task_id, map_index, region, name, state, task_id in submitting, record)
        for task_id, map_index, region, name, state, record in found
    ]


def _by_map_index(session: Session, conditions: Iterable[Any]) -> Iterator[Found]:
    label: Any = TaskInstance.rendered_map_index
    query = (
        select(TaskInstance.task_id, TaskInstance.map_index, label, TaskInstance.state, XComModel.value)
        .outerjoin(XComModel, and_(*_recorded_by(TaskInstance.map_index)))
        .where(*conditions)
        .order_by(TaskInstance.task_id, TaskInstance.map_index)
    )
    for task_id, map_index, shown, state, value in session.execute(query):
        yield task_id, map_index, None, _name(task_id, map_index, shown), state, _record(value)


def _in_regions(session: Session, conditions: Iterable[Any]) -> Iterator[Found]:
    """Find what is by Airflow 3.4, where every try is a row with XComs of its own, and a loop's passes are regions."""
    instance: Any = TaskInstance
    region, outside = regions.DynamicRegion, regions.SENTINEL_REGION_ID
    # Until a try begins, the last record is that of the try before, as it was in earlier Airflows.
    begins = or_(instance.state.is_(None), instance.state.in_((*TO_START[1:], "up_for_retry")))
    recorded = (
        *_recorded_by(instance.region_index),
        XComModel.region_id == instance.region_id,
        or_(XComModel.task_instance_id == instance.id, begins),
    )
    place = instance.region_id, instance.region_index, region.node_id, region.parent_region_index
    label: Any = instance.rendered_map_index
    query = (
        select(instance.task_id, *place, label, instance.state, XComModel.value)
        .outerjoin(region, region.id == instance.region_id)
        .outerjoin(XComModel, and_(*recorded))
        .where(instance.working_set.is_(True), *conditions)
        .order_by(instance.task_id, region.parent_region_index, instance.region_index, XComModel.timestamp)
        .execution_options(include_all_attempts=True)
    )
    last = {row[:3]: row for row in session.execute(query)}
    for task_id, region_id, index, node_id, parent_index, shown, state, value in last.values():
        mapped = region_id == outside or node_id == task_id
        map_index = index if mapped else -1
        name = _name(task_id, map_index, shown)
        iteration = parent_index if mapped else index
        if iteration is not None:
            name += f", iteration {iteration}"
        at = None if region_id == outside else (region_id, index)
        yield task_id, map_index, at, name, state, _record(value)


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


def _record(value: Any) -> Mapping[str, Any]:
    # Airflow keeps an XCom as JSON in a JSON column.
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return mapping(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return what should be a JSON object, or an empty one."""
    return value if isinstance(value, Mapping) else {}

"""Turns the task instances of a DAG run, and their records, into the videos that the Luma tab shows."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import select

from airflow_provider_luma.outcome import RECORD_KEY
from airflow_provider_luma.ui.instances import RECORD, TO_START, Task, find_tasks
from airflow_provider_luma.ui.record import Generation, Record, Request, Unreadable, web_url

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.orm import Session

LIMIT = 600
"""Videos in one answer, unless the page asks for more."""

PROMPT_AMONG_MANY = 300
"""Characters of each prompt in the answer for a whole run."""

NOT_MADE = {
    "up_for_retry": "retrying",
    "failed": "failed",
    "upstream_failed": "skipped",
    "skipped": "skipped",
    "removed": "skipped",
}
"""The state of a video whose task has ended without it, by the state of the task."""

NEVER = datetime.min.replace(tzinfo=timezone.utc)

UNDER_WAY = (*TO_START, "running", "deferred", "up_for_reschedule", "restarting", "up_for_retry")


def of_run(session: Session, dag_id: str, run_id: str, limit: int) -> dict[str, Any] | None:
    """
    Return the videos of a DAG run, in the order of their tasks.

    :param limit: the largest number of videos to return.
    :return: ``live`` (whether the run is active), ``total``, ``states`` (the number of videos in each state) and
        ``videos`` (as in :func:`of_task`, but with the beginning of the prompt only); None if there is no such run.
    """
    live = _is_live(session, dag_id, run_id)
    if live is None:
        return None
    groups: dict[object, list[Task]] = {}
    # If an instance of a mapped task has a record, all its instances make videos, also before they begin.
    have_recorded = select(XComModel.task_id).where(
        XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == RECORD_KEY
    )
    for task in find_tasks(session, dag_id, run_id, TaskInstance.task_id.in_(have_recorded)):
        generation_id = task.record.generation_id
        if task.submits or generation_id or isinstance(task.record, Unreadable):
            groups.setdefault(generation_id or (task.task_id, task.map_index, task.region), []).append(task)
    videos = [_video(group) for group in groups.values()]
    for video in videos:
        video["prompt"] = video["prompt"][:PROMPT_AMONG_MANY]
    return {
        "live": live,
        "total": len(videos),
        "states": Counter(video["state"] for video in videos),
        "videos": videos[:limit],
    }


def of_task(
    session: Session, dag_id: str, run_id: str, task_id: str, map_index: int, region: tuple[UUID, int] | None = None
) -> dict[str, Any] | None:
    """
    Return the video that a task instance submits, waits for or downloads, with facts from all tasks of its run.

    :param map_index: -1 if the task is not mapped.
    :param region: the ``region_id`` and ``region_index`` of an iteration of a loop (Airflow 3.4); by default, those
        of the last iteration.
    :return: ``live`` (whether the run is active) and ``video`` (None if the task makes no video); None if there is no
        such task instance. URLs are http(s) or None; ``took`` is in seconds.
    """
    live = _is_live(session, dag_id, run_id)
    instances = find_tasks(session, dag_id, run_id, TaskInstance.task_id == task_id)
    meant = [one for one in instances if one.map_index == map_index and region in (None, one.region)]
    if not meant:
        return None
    task = meant[-1]
    generation_id = task.record.generation_id
    found = []
    if generation_id:
        # JSON can write other characters in several ways, so the database could miss them.
        plain = re.fullmatch(r"[\w.:-]+", generation_id, re.ASCII)
        mentions_it = [RECORD.contains(generation_id, autoescape=True)] if plain else []
        others = find_tasks(session, dag_id, run_id, *mentions_it)
        found = [other for other in others if other.record.generation_id == generation_id]
    has_video = task.submits or task.record != Record()
    return {"live": live, "video": _video(found or [task]) if has_video else None}


def _is_live(session: Session, dag_id: str, run_id: str) -> bool | None:
    state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return None if state is None else state in ("queued", "running")


def _video(tasks: list[Task]) -> dict[str, Any]:
    """Return the video of these tasks, which all submit, await or download the same generation."""
    first = next((task for task in tasks if task.submits), tasks[0])
    # Prefer a task that saw the generation end, then the task that saw it last: its URLs expire last.
    last = max(tasks, key=_freshness)
    submitted = first.record.submitted_at
    return {
        "task_id": first.task_id,
        "map_index": first.map_index,
        "region": first.region and dict(zip(("region_id", "region_index"), map(str, first.region), strict=True)),
        "name": first.name,
        "state": _state(tasks, first, last),
        "generation_id": first.record.generation_id,
        "submitted_at": submitted.isoformat() if submitted else "",
        "took": _took(tasks, first),
        "stored": [task.record.stored for task in tasks if task.record.stored],
        "problems": [
            {"task": task.name, "text": task.record.problem}
            for task in tasks
            if task.record.problem or (task.state == "failed" and _state_of(last) != "failed")
        ],
        **_facts(last.record.generation or Generation(), first.record.request or Request()),
    }


def _facts(generation: Generation, request: Request) -> dict[str, Any]:
    """Return the facts about a video that its generation or, before that, its request contains."""
    width, height, duration = generation.width, generation.height, generation.duration
    images = {"image_url": request.image_url, "image_end_url": request.image_end_url}
    return {
        "prompt": request.user_prompt,
        "model": request.model_name,
        "size": f"{width:g} \u00d7 {height:g}" if width and height else request.resolution,
        "ratio": _ratio(width, height, request.aspect_ratio),
        "length": f"{duration:g} s" if duration else re.sub(r"(?<=\d)s$", " s", request.duration),
        "images": [{"is": name, "url": web_url(text), "text": text} for name, text in images.items() if text],
        "video_url": generation.video_url,
        "poster_url": generation.thumbnail_url,
        "reason": generation.failure_reason,
    }


def _state(tasks: list[Task], first: Task, last: Task) -> str:
    if first.submits and first.state in TO_START:
        # A cleared task keeps its record until it starts again.
        return "waiting"
    if first.state == "up_for_retry":
        return "retrying"
    if isinstance(first.record, Unreadable):
        return "unknown"
    if _state_of(last) in ("completed", "failed"):
        return _state_of(last)
    if any(task.record.stored for task in tasks):
        return "completed"
    if first.state in NOT_MADE:
        return NOT_MADE[first.state]
    if not first.record.generation_id:
        return "unknown" if first.state == "success" else "waiting"
    if any(task.state == "failed" for task in tasks):
        return "failed"
    return "processing" if any(task.state in UNDER_WAY for task in tasks) else "submitted"


def _freshness(task: Task) -> tuple[bool, bool, datetime]:
    ended = _state_of(task) in ("completed", "failed")
    return ended, task.record.generation is not None, task.record.seen_at or NEVER


def _state_of(task: Task) -> str:
    return task.record.generation.state if task.record.generation else ""


def _took(tasks: list[Task], first: Task) -> float | None:
    """Return the seconds from the submission until the first task saw the generation completed."""
    completed = [task.record.seen_at for task in tasks if _state_of(task) == "completed" and task.record.seen_at]
    submitted = first.record.submitted_at
    # The clocks of two machines can differ.
    return max(0.0, (min(completed) - submitted).total_seconds()) if completed and submitted else None


def _ratio(width: float | None, height: float | None, aspect_ratio: str) -> float | None:
    """Return width / height, or None if it is unknown or too extreme to show."""
    across, _, down = (width, "", height) if width and height else aspect_ratio.partition(":")
    try:
        ratio = float(across) / float(down)
    except (ArithmeticError, ValueError):
        return None
    return ratio if 0.2 < ratio < 5 else None

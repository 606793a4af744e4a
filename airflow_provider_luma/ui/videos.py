"""What the tasks of a DAG run have recorded, put together into its videos."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import String, cast, select

from airflow_provider_luma.outcome import RECORD_KEY
from airflow_provider_luma.ui.instances import TO_START, Task, find_tasks, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy.orm import Session

LIMIT = 600
"""How many videos of a run are given unless more are asked for."""

PROMPT_AMONG_MANY = 300
"""How many characters of a prompt are given when many are."""

NOT_MADE = {
    "up_for_retry": "retrying",
    "failed": "failed",
    "upstream_failed": "skipped",
    "skipped": "skipped",
    "removed": "skipped",
}
"""What the state of a task means for the video that it has not made."""

UNDER_WAY = (*TO_START, "running", "deferred", "up_for_reschedule", "restarting", "up_for_retry")


def of_run(session: Session, dag_id: str, run_id: str, limit: int) -> dict[str, Any] | None:
    """
    Return the videos of a DAG run, in the order of their tasks.

    :return: ``live``, ``total``, ``states`` (how many are in which), ``videos`` (as :func:`of_task` gives them, with
        the beginning of the prompt, and no more than ``limit``); None where there is no such run.
    """
    live = _is_live(session, dag_id, run_id)
    if live is None:
        return None
    groups: dict[object, list[Task]] = {}
    # Of a mapped task also those that have not begun: their sisters have recorded what all of them are there for.
    have_recorded = select(XComModel.task_id).where(
        XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == RECORD_KEY
    )
    for task in find_tasks(session, dag_id, run_id, TaskInstance.task_id.in_(have_recorded)):
        if task.submits or task.generation_id:
            groups.setdefault(task.generation_id or (task.task_id, task.map_index, task.region), []).append(task)
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
    Return the video that a task instance submits, waits for or downloads, with what others of its run know of it.

    :param region: the ``region_id`` and ``region_index`` by which Airflow 3.4 knows one iteration of a loop from
        another; without them, the last one's.
    :return: ``live``, and ``video``, which is None if the task has nothing to do with one; None where there is no such
        task instance. URLs are http(s) or None; lengths and times are in seconds.
    """
    live = _is_live(session, dag_id, run_id)
    instances = find_tasks(session, dag_id, run_id, TaskInstance.task_id == task_id)
    meant = [one for one in instances if one.map_index == map_index and region in (None, one.region)]
    if not meant:
        return None
    task = meant[-1]
    found = [task]
    if task.generation_id:
        mentions_it = cast(XComModel.value, String).contains(task.generation_id, autoescape=True)
        others = find_tasks(session, dag_id, run_id, mentions_it)
        found = [other for other in others if other.generation_id == task.generation_id]
    return {"live": live, "video": _video(found) if task.record or task.submits else None}


def _is_live(session: Session, dag_id: str, run_id: str) -> bool | None:
    state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return None if state is None else state in ("queued", "running")


def _video(tasks: list[Task]) -> dict[str, Any]:
    """Return what the tasks that have to do with one video know of it together."""
    first = next((task for task in tasks if task.submits), tasks[0])
    request = mapping(first.record.get("request"))
    # The one that saw the end, if one did, and most lately, as URLs expire.
    last = max(tasks, key=_freshness)
    generation = last.generation
    submitted = _when(first.record.get("submitted_at"))
    completed = [
        seen for task in tasks if _state_of(task) == "completed" and (seen := _when(task.record.get("seen_at")))
    ]
    return {
        "task_id": first.task_id,
        "map_index": first.map_index,
        "region": first.region and dict(zip(("region_id", "region_index"), map(str, first.region), strict=True)),
        "name": first.name,
        "state": _state(tasks, first, last),
        "generation_id": first.generation_id,
        "prompt": _text(request.get("user_prompt")),
        "model": _text(request.get("model_name")),
        "size": _size(generation) or _text(request.get("resolution")),
        "ratio": _ratio(generation, request),
        "length": _length(generation.get("duration") or request.get("duration")),
        "submitted_at": _text(first.record.get("submitted_at")),
        "took": (min(completed) - submitted).total_seconds() if completed and submitted else None,
        "images": [
            {"is": name, "url": _web(request[name]), "text": _text(request[name])}
            for name in ("image_url", "image_end_url")
            if request.get(name)
        ],
        "video_url": _web(generation.get("video_url")),
        "poster_url": _web(generation.get("thumbnail_url")),
        "reason": _text(generation.get("failure_reason")),
        "stored": [_text(task.record["stored"]) for task in tasks if task.record.get("stored")],
        "problems": [
            {"task": task.name, "text": _text(task.record.get("problem"))}
            for task in tasks
            if task.record.get("problem") or (task.state == "failed" and _state_of(last) != "failed")
        ],
    }


def _state(tasks: list[Task], first: Task, last: Task) -> str:
    if first.submits and first.state in TO_START:
        # Also where it was cleared, which leaves its record until it starts again.
        return "waiting"
    if first.state == "up_for_retry":
        return "retrying"
    if _state_of(last) in ("completed", "failed"):
        return _state_of(last)
    if any(task.record.get("stored") for task in tasks):
        return "completed"
    if first.state in NOT_MADE:
        return NOT_MADE[first.state]
    if not first.generation_id:
        return "unknown" if first.state == "success" else "waiting"
    if any(task.state == "failed" for task in tasks):
        return "failed"
    return "processing" if any(task.state in UNDER_WAY for task in tasks) else "submitted"


def _freshness(task: Task) -> tuple[bool, bool, str]:
    ended = _state_of(task) in ("completed", "failed")
    return ended, bool(task.generation), _text(task.record.get("seen_at"))


def _state_of(task: Task) -> str:
    return _text(task.generation.get("state"))


def _size(generation: Mapping[str, Any]) -> str:
    width, height = generation.get("width"), generation.get("height")
    return f"{width} \u00d7 {height}" if width and height else ""


def _ratio(generation: Mapping[str, Any], request: Mapping[str, Any]) -> float | None:
    """Return how wide a video is for its height, as far as the page can show it."""
    width, height = generation.get("width"), generation.get("height")
    if not width or not height:
        width, _, height = _text(request.get("aspect_ratio")).partition(":")
    try:
        ratio = float(width) / float(height)
    except (ArithmeticError, TypeError, ValueError):
        return None
    return ratio if 0.2 < ratio < 5 else None


def _length(duration: Any) -> str:
    return f"{duration:g} s" if isinstance(duration, int | float) else re.sub(r"(?<=\d)s$", " s", _text(duration))


def _when(value: Any) -> pendulum.DateTime | None:
    try:
        when = pendulum.parse(value)
    except (TypeError, ValueError):
        return None
    return when if isinstance(when, pendulum.DateTime) else None


def _text(value: Any) -> str:
    # Half a character, which JSON can hold, cannot be sent.
    return "" if value is None else str(value).encode(errors="replace").decode()


def _web(value: Any) -> str | None:
    """Return a URL that a browser may be given; nothing else, such as javascript: or a file."""
    return value if isinstance(value, str) and value.lower().startswith(("https://", "http://")) else None

"""The answers of the gateway, in the shapes of its wire contract."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from airflow_provider_luma.sandbox.generation import Generation

BATCH_STATUS = {"pending": "NOT_START", "processing": "IN_PROGRESS", "completed": "SUCCESS", "failed": "FAILURE"}


def error(status: int, code: str, message: str = "", **headers: str) -> JSONResponse:
    """Answer with an error in the gateway's own shape; the message defaults to the code."""
    return JSONResponse({"code": code, "message": message or code, "data": None}, status, headers)


def openai_error(status: int, kind: str, code: str, message: str) -> JSONResponse:
    """Answer with an error in the gateway's shape for refused tokens and unknown paths."""
    return JSONResponse({"error": {"message": message, "type": kind, "param": "", "code": code}}, status)


def unauthorized() -> JSONResponse:
    """Answer 401 with the gateway's message."""
    return openai_error(401, "new_api_error", "invalid_token", f"无效的令牌 (request id: {uuid.uuid4()})")


def too_many_requests(retry_after: int | None = None) -> JSONResponse:
    """Answer 429; `retry_after` is in seconds."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return error(429, "too_many_requests", "too many running generations, please try again later", **headers)


def generation_body(generation: Generation, state: str, cdn: str) -> dict[str, Any]:
    """
    Write a generation as `GET /luma/generations/{id}` answers it.

    :param state: its state; the caller reads it once, because it can change at any moment.
    :param cdn: the address of its files, without a trailing slash.
    """
    if state == "completed":
        return {**completed_body(generation, f"{cdn}/{generation.id}"), **generation.answer}
    processing = state == "processing"
    body: dict[str, Any] = {
        "id": generation.id,
        "prompt": "",
        "state": state,
        "queue_state": {"position": 1} if processing else None,
        "created_at": created_at(generation),
        "batch_id": "",
        "video": None,
        "video_raw": None,
        "liked": None,
        "estimate_wait_seconds": math.ceil(generation.seconds_left) if processing else None,
        "thumbnail": None,
        "last_frame": None,
    }
    if state == "failed":
        body["failure_reason"] = generation.reported_failure.reason
    return {**body, **generation.answer}


def created_at(generation: Generation) -> str:
    """Write the time of the submission in the gateway's format."""
    return generation.submitted.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def completed_body(generation: Generation, folder: str) -> dict[str, Any]:
    """Write a completed generation; `folder` is the address of its files."""
    size = {"width": generation.clip.width, "height": generation.clip.height}
    video, raw = generation.video_url or f"{folder}/video.mp4", generation.video_url or f"{folder}/video_raw.mp4"
    files = {
        "video": {"url": video, **size, "download_url": raw},
        "video_raw": {
            "url": raw,
            **size,
            "duration": generation.clip.duration,
            "media_type": "video",
        },
        "thumbnail": {
            "url": f"{folder}/thumbnail.jpg",
            **size,
            "palette": {"grid": "em9c"},
            "media_type": "image",
        },
        "last_frame": {"url": f"{folder}/last_frame.jpg", **size, "palette": None, "media_type": "image"},
    }
    return {
        "id": generation.id,
        "state": "completed",
        "request": {
            "prompt": generation.prompt,
            "aspect_ratio": generation.body.get("aspect_ratio", "16:9"),
        },
        "artifact": {**files, "created_at": "0001-01-01T00:00:00Z"},
        "created_at": created_at(generation),
        **files,
    }


def submit_body(shape: str, generation: Generation) -> dict[str, Any]:
    """Write the answer to a submission: `flat`, `envelope` or `bare`."""
    if shape == "bare":
        return {"code": "success", "message": "", "data": generation.id}
    if shape == "envelope":
        submitted_ms = int(generation.submitted.timestamp() * 1000)
        return {
            "code": 0,
            "message": "SUCCEED",
            "request_id": str(uuid.uuid4()),
            "data": {
                "task_id": generation.id,
                "task_status": "submitted",
                "created_at": submitted_ms,
                "updated_at": submitted_ms,
            },
        }
    return generation_body(generation, "pending", "")


def tasks_body(shape: str, generations: list[Generation], cdn: str) -> Any:
    """Write the answer to `POST /luma/tasks`: a `list` or an `envelope`."""
    if shape == "list":
        return [generation_body(generation, generation.state, cdn) for generation in generations]
    tasks = [task(number, generation, cdn) for number, generation in enumerate(generations, start=1)]
    return {"code": "success", "message": "", "data": tasks}


def task(number: int, generation: Generation, cdn: str) -> dict[str, Any]:
    """Write one generation in the envelope of `POST /luma/tasks`."""
    state = generation.state
    submitted = int(generation.submitted.timestamp())
    return {
        "id": number,
        "created_at": created_at(generation),
        "updated_at": created_at(generation),
        "task_id": generation.id,
        "platform": "luma",
        "action": "LUMA_VIDEO",
        "status": BATCH_STATUS.get(state, "UNKNOWN"),
        "fail_reason": generation.reported_failure.reason,
        "submit_time": submitted,
        "start_time": 0 if state == "pending" else submitted,
        "finish_time": submitted + math.ceil(generation.seconds) if generation.ended else 0,
        "progress": f"{100 * generation.progress:.0f}%",
        "data": generation_body(generation, state, cdn) if state in ("processing", "completed") else None,
    }

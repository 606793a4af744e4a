"""What the gateway says, shape by shape, as its wire contract has it."""

from __future__ import annotations

import math
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
from starlette.responses import HTMLResponse, JSONResponse, Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_provider_luma.sandbox.gateway import Generation, State

BATCH_STATUS = {"pending": "NOT_START", "processing": "IN_PROGRESS", "completed": "SUCCESS", "failed": "FAILURE"}


class Refused(Exception):
    """
    The gateway answers with an error, and nothing was accepted.

    :param response: what it answers.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def error(status: int, code: str, message: str = "", **headers: str) -> JSONResponse:
    """Answer with an error in the gateway's own shape; its message is the code unless given."""
    return JSONResponse({"code": code, "message": message or code, "data": None}, status, headers)


def openai_error(status: int, kind: str, code: str, message: str) -> JSONResponse:
    """Answer with an error in the shape that the gateway has for tokens and for paths it does not know."""
    return JSONResponse({"error": {"message": message, "type": kind, "param": "", "code": code}}, status)


def unauthorized() -> JSONResponse:
    """Answer 401, in the gateway's words."""
    return openai_error(401, "new_api_error", "invalid_token", f"无效的令牌 (request id: {uuid.uuid4()})")


def no_such_task() -> JSONResponse:
    """Answer as for an unknown id."""
    return error(400, "task_not_exist")


def too_many_requests(retry_after: int | None = None) -> JSONResponse:
    """Answer 429, with the seconds to wait if given."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return error(429, "too_many_requests", "too many running generations, please try again later", **headers)


def page(status: int) -> HTMLResponse:
    """Answer with the page that a CDN in between puts in place of the gateway's answer."""
    title = f"{status} {HTTPStatus(status).phrase}"
    return HTMLResponse(
        f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n", status
    )


def generation_body(generation: Generation, state: State, cdn: str) -> dict[str, Any]:
    """
    Write a generation as `GET /luma/generations/{id}` answers it.

    :param state: its state, read once, because the clock goes on.
    :param cdn: the address under which its files are, without a trailing slash.
    """
    if state == "completed":
        return completed_body(generation, f"{cdn}/{generation.id}")
    processing = state == "processing"
    body: dict[str, Any] = {
        "id": generation.id,
        "prompt": "",
        "state": state,
        "queue_state": {"position": 1} if processing else None,
        "created_at": generation.created_at,
        "batch_id": "",
        "video": None,
        "video_raw": None,
        "liked": None,
        "estimate_wait_seconds": math.ceil(generation.seconds_left) if processing else None,
        "thumbnail": None,
        "last_frame": None,
    }
    if state == "failed":
        body["failure_reason"] = generation.failure_reason
    return body


def completed_body(generation: Generation, folder: str) -> dict[str, Any]:
    """Write a completed generation, whose files are in this folder of the CDN."""
    size = {"width": generation.clip.width, "height": generation.clip.height}
    files = {
        "video": {"url": f"{folder}/video.mp4", **size, "download_url": f"{folder}/video_raw.mp4"},
        "video_raw": {
            "url": f"{folder}/video_raw.mp4",
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
        "created_at": generation.created_at,
        **files,
    }


def submit_body(shape: str, generation: Generation) -> dict[str, Any]:
    """Write the answer to a submission, `flat`, `envelope` or `bare`."""
    if shape == "bare":
        return {"code": "success", "message": "", "data": generation.id}
    if shape == "envelope":
        return {
            "code": 0,
            "message": "SUCCEED",
            "request_id": str(uuid.uuid4()),
            "data": {
                "task_id": generation.id,
                "task_status": "submitted",
                "created_at": generation.submitted_ms,
                "updated_at": generation.submitted_ms,
            },
        }
    return generation_body(generation, "pending", "")


def tasks_body(shape: str, generations: list[Generation], cdn: str) -> Any:
    """Write the answer to `POST /luma/tasks`, a `list` or an `envelope`."""
    if shape == "list":
        return [generation_body(generation, generation.state, cdn) for generation in generations]
    tasks = [task(number, generation, cdn) for number, generation in enumerate(generations, start=1)]
    return {"code": "success", "message": "", "data": tasks}


def task(number: int, generation: Generation, cdn: str) -> dict[str, Any]:
    """Write one generation in the envelope of `POST /luma/tasks`."""
    state = generation.state
    submitted = generation.submitted_ms // 1000
    ended = state in ("completed", "failed")
    return {
        "id": number,
        "created_at": generation.created_at,
        "updated_at": generation.created_at,
        "task_id": generation.id,
        "platform": "luma",
        "action": "LUMA_VIDEO",
        "status": BATCH_STATUS[state],
        "fail_reason": generation.failure_reason if state == "failed" else "",
        "submit_time": submitted,
        "start_time": 0 if state == "pending" else submitted,
        "finish_time": submitted + math.ceil(generation.seconds) if ended else 0,
        "progress": f"{100 * generation.progress:.0f}%",
        "data": generation_body(generation, state, cdn) if state in ("processing", "completed") else None,
    }


class Cut(Response):
    """
    No answer at all: the connection is cut without a status line.

    :param after: seconds to keep the client waiting first, 0 by default.
    """

    def __init__(self, after: float = 0) -> None:
        super().__init__()
        self.after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Wait until the client has gone or its time is up, and cut the connection."""
        with anyio.move_on_after(self.after):
            await client_gone(receive)
        cut = scope.get("state", {}).get("cut")
        if cut is None:
            raise ConnectionAbortedError("this server cannot cut connections; `Sandbox` and the command line can")
        cut()
        # uvicorn answers 500 for an application that returns before the connection is lost.
        await client_gone(receive)


async def client_gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

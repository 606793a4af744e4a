"""The table of the contract suite: how each API answers. A new API joins the suite with one entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_luma.api import (
    LumaApiError,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.dialects import DIALECTS
from airflow_provider_luma.api.dialects.protocol import Answer
from tests.support.agents_judge import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIXTURES = Path(__file__).parents[1] / "fixtures"
CALL = "Calling at example.net"
VALUES = {
    "user_prompt": "a paper boat crosses a puddle",
    "model_name": "ray-9",
    "duration": "5s",
    "resolution": "540p",
    "aspect_ratio": "21:9",
    "expand_prompt": True,
    "loop": True,
    "image_url": "https://img.example.net/first.jpg",
    "image_end_url": "https://img.example.net/last.jpg",
    "notify_hook": "https://hook.example.net/x",
}
"""A value for each argument; no two are the same text."""


class Case(NamedTuple):
    """
    One API.

    :param folder: the folder of its fixtures.
    :param model: a model that it has.
    :param headers: headers of each answer.
    :param judge: raises an error if a request's body is not valid.
    :param refused: the arguments that it has no counterpart for.
    :param refused_in_extensions: further ones that an extension does not accept.
    :param submitted: fixtures that answer a submission.
    :param states: fixtures that answer a poll, and the state of the generation.
    :param failures: fixtures of failed generations: moderated, retry_may_help, refunded.
    :param errors: fixtures of errors with their status: the class, and whether a submission may have been charged.
    """

    folder: Path
    model: str
    headers: Mapping[str, str]
    judge: Callable[[Any], None]
    refused: tuple[str, ...]
    refused_in_extensions: tuple[str, ...]
    submitted: tuple[str, ...]
    states: Mapping[str, str]
    failures: Mapping[str, tuple[bool, bool, bool | None]]
    errors: Mapping[tuple[str, int], tuple[type[LumaApiError], bool]]


CASES = {
    "gateway": Case(
        folder=FIXTURES,
        model="ray-v2",
        headers={},
        judge=json.dumps,
        refused=(),
        refused_in_extensions=(),
        submitted=("submit_flat", "submit_envelope", "submit_bare"),
        states={
            "get_pending": "pending",
            "get_processing": "processing",
            "get_dreaming": "processing",
            "get_completed": "completed",
            "get_completed_artifact_only": "completed",
            "get_completed_without_video": "completed",
            "get_failed": "failed",
            "get_unknown_state": "unknown",
        },
        failures={"get_failed": (True, False, True)},
        errors={
            ("error_200", 200): (LumaApiError, False),
            ("error_quota", 200): (LumaQuotaError, False),
            ("error_200", 400): (LumaInvalidRequest, False),
            ("error_task", 400): (LumaNotFound, False),
            ("error_openai", 401): (LumaAuthenticationError, False),
            ("error_detail", 401): (LumaAuthenticationError, False),
            ("error_detail_text", 401): (LumaAuthenticationError, False),
            ("error_200", 402): (LumaQuotaError, False),
            ("error_quota", 403): (LumaQuotaError, False),
            ("error_200", 403): (LumaAuthenticationError, False),
            ("error_200", 404): (LumaNotFound, False),
            ("error_200", 405): (LumaNotFound, False),
            ("error_200", 413): (LumaInvalidRequest, False),
            ("error_200", 429): (LumaRateLimited, False),
            ("error_detail", 500): (LumaAuthenticationError, False),
            ("error_detail_text", 500): (LumaServerError, False),
            ("error_200", 500): (LumaServerError, True),
            ("error_detail_text", 502): (LumaServerError, True),
            ("error_200", 503): (LumaServerError, True),
            ("error_detail_text", 504): (LumaServerError, True),
        },
    ),
    "agents": Case(
        folder=FIXTURES / "agents",
        model="ray-3.2",
        headers={"X-Request-Id": "r-1", "X-API-Version": "2026-04-01"},
        judge=judge,
        refused=("expand_prompt", "notify_hook"),
        refused_in_extensions=("image_url", "image_end_url"),
        submitted=("submit_created",),
        states={
            "get_queued": "pending",
            "get_processing": "processing",
            "get_unknown_model": "processing",
            "get_completed": "completed",
            "get_completed_fields_left_out": "completed",
            "get_completed_hdr_exr": "completed",
            "get_completed_output_null": "completed",
            "get_completed_without_output": "completed",
            "get_failed_moderated": "failed",
            "get_unknown_state": "unknown",
        },
        failures={
            "get_failed_moderated": (True, False, True),
            "get_failed_generation": (False, True, True),
            "get_failed_output_not_found": (False, True, True),
            "get_failed_rate_limited": (False, True, None),
            "get_failed_budget": (False, False, None),
            "get_failed_image_too_large": (False, False, None),
            "get_failed_unsupported_format": (False, False, None),
            "get_failed_corrupt_input": (False, False, None),
            "get_failed_invalid_request": (False, False, None),
            "get_failed_unknown_code": (False, False, None),
            "get_failed_without_code": (False, False, None),
        },
        errors={
            ("error_bad_request", 400): (LumaInvalidRequest, False),
            ("error_unknown_model", 400): (LumaInvalidRequest, False),
            ("error_unauthorized", 401): (LumaAuthenticationError, False),
            ("error_key_revoked", 401): (LumaAuthenticationError, False),
            ("error_insufficient_balance", 402): (LumaQuotaError, False),
            ("error_suspended", 403): (LumaAuthenticationError, False),
            ("error_not_found", 404): (LumaNotFound, False),
            ("error_too_large", 413): (LumaInvalidRequest, False),
            ("error_unprocessable", 422): (LumaInvalidRequest, False),
            ("error_validation", 422): (LumaInvalidRequest, False),
            ("error_rate_limited", 429): (LumaRateLimited, False),
            ("error_concurrent_jobs", 429): (LumaRateLimited, False),
            ("error_upstream", 408): (LumaServerError, True),
            ("error_upstream", 500): (LumaServerError, True),
            ("error_upstream", 502): (LumaServerError, False),
            ("error_ingestion", 503): (LumaServerError, False),
            ("error_upstream", 504): (LumaServerError, True),
            ("error_upstream", 520): (LumaServerError, True),
        },
    ),
}
"""How each API of ``apis.py`` answers."""


def fixture(api: str, name: str) -> Any:
    """Return the JSON of a fixture."""
    return json.loads((CASES[api].folder / f"{name}.json").read_text())


def answer(api: str, content: Any, status: int = 200, headers: Mapping[str, str | None] | None = None) -> Answer:
    """Return an answer with these bytes, with this JSON, or with the fixture of this name; a header may be None."""
    if isinstance(content, str):
        content = (CASES[api].folder / f"{content}.json").read_bytes()
    elif not isinstance(content, bytes):
        content = json.dumps(content).encode()
    sent = {**CASES[api].headers, **(headers or {})}
    return Answer(status, content, {name: value for name, value in sent.items() if value is not None})


def polled(api: str, content: Any, status: int = 200, headers: Mapping[str, str | None] | None = None) -> Any:
    """Return the result of a poll with this answer."""
    return DIALECTS[api].query("x").read(answer(api, content, status, headers), CALL)


def submitted(api: str, content: Any, status: int = 200) -> Any:
    """Return the result of a submission with this answer."""
    request = DIALECTS[api].submission({"user_prompt": VALUES["user_prompt"]}, None)
    return request.read(answer(api, content, status), CALL)

"""The errors: after which of them a retry may help, and their attributes."""

from __future__ import annotations

import pickle

import pytest

from airflow_provider_luma.api import (
    Generation,
    GenerationState,
    LumaAmbiguousSubmission,
    LumaApiError,
    LumaAuthenticationError,
    LumaConnectionError,
    LumaError,
    LumaGenerationFailed,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)


def failed(**fields):
    return Generation(id="x-1", state=GenerationState.FAILED, **fields)


@pytest.mark.parametrize(
    ("kind", "retry_may_help"),
    [
        (LumaError, True),
        (LumaConnectionError, True),
        (LumaAmbiguousSubmission, False),
        (LumaApiError, True),
        (LumaAuthenticationError, False),
        (LumaQuotaError, True),
        (LumaInvalidRequest, False),
        (LumaNotFound, True),
        (LumaRateLimited, True),
        (LumaServerError, True),
    ],
)
def test_retry_may_help_or_not(kind, retry_may_help):
    """Each class says if the same request may succeed later; an error may say otherwise."""
    assert kind("x").retry_may_help is retry_may_help
    assert kind("x", retry_may_help=not retry_may_help).retry_may_help is not retry_may_help


def test_attributes_belong_to_the_class():
    """An error carries the attributes of its class, and no others."""
    error = LumaServerError("x", status=502, code="a", request_id="r", retry_after=7.0, maybe_charged=False)
    assert (error.status, error.code, error.request_id, error.retry_after) == (502, "a", "r", 7.0)
    assert error.maybe_charged is False
    assert LumaServerError("x").maybe_charged is True
    with pytest.raises(TypeError, match="LumaConnectionError has no attribute maybe_charged"):
        LumaConnectionError("x", maybe_charged=True)


def test_invalid_request_is_a_value_error():
    """A wrong argument is also a ValueError, as Python users expect."""
    assert issubclass(LumaInvalidRequest, ValueError)


@pytest.mark.parametrize(
    ("fields", "message", "retry_may_help"),
    [
        ({}, "Generation x-1 failed: no reason was given. To try again, retry or clear the task", True),
        ({"failure_reason": "Job failed.", "refunded": True}, "failed: Job failed. It is refunded. To try again", True),
        ({"moderated": True}, "change the prompt or the images.", False),
        ({"retry_may_help": False}, "first do what the reason asks for, then clear the task.", False),
    ],
)
def test_failure_says_what_to_do(fields, message, retry_may_help):
    """The message of a failed generation has its reason, a refund if there is a refund, and an advice."""
    error = LumaGenerationFailed(failed(**fields))
    assert message in str(error)
    assert ("refunded" in str(error)) is bool(fields.get("refunded"))
    assert error.retry_may_help is retry_may_help
    assert error.moderated is bool(fields.get("moderated"))


def test_failure_can_be_pickled():
    """A failed generation's error survives pickling."""
    error = pickle.loads(pickle.dumps(LumaGenerationFailed(failed(failure_reason="Job failed"))))  # noqa: S301
    assert error.generation == failed(failure_reason="Job failed")
    assert "Job failed" in str(error)

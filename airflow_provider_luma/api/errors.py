"""
The errors between a DAG and an API.

::

    LumaError                      all of the following
    ├── LumaConnectionError        the API was never reached: it is safe to send again
    ├── LumaAmbiguousSubmission    a submission was sent and its answer was lost: it may have been charged
    ├── LumaApiError               the API answered with an error
    │   ├── LumaAuthenticationError   the token is missing, wrong, or not allowed to do this
    │   ├── LumaQuotaError            the balance is too low
    │   ├── LumaInvalidRequest        the arguments are wrong; raised before sending if that can be known
    │   ├── LumaNotFound              the generation does not exist, or this host does not have the call
    │   ├── LumaRateLimited           too many requests, or too many running generations
    │   └── LumaServerError           the API, or a proxy in front of it, is in trouble
    └── LumaGenerationFailed       the generation failed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_luma.api.generation import Generation


class LumaError(Exception):
    """
    The base of all errors of this package.

    :param message: what happened, in which call, and what to do about it; never the token.
    :param attributes: values for the attributes of the class.
    """

    status: int | None = None
    """The HTTP status, if there was an answer."""
    code: str | None = None
    """The API's error code, if it gave one."""
    request_id: str | None = None
    """The id that the API's support needs to find the request, if there is one."""
    retry_after: float | None = None
    """The seconds that the API asked to wait, if it did."""
    retry_may_help: bool = True
    """The same request may succeed later."""
    advice: str = ""
    """What to do about it, if the message has no better advice."""

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        for name, value in attributes.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no attribute {name}.")
            setattr(self, name, value)


class LumaConnectionError(LumaError):
    """The API was not reached, or its answer to a poll was lost; nothing was charged."""


class LumaAmbiguousSubmission(LumaError):
    """A submission was sent and its answer was lost: it may have been charged."""

    retry_may_help = False


class LumaApiError(LumaError):
    """The API answered with an error; nothing was charged."""

    from_api: bool = True
    """The API itself answered, and not, for example, a proxy in front of it."""


class LumaAuthenticationError(LumaApiError):
    """The token is missing, wrong, or not allowed to do this."""

    retry_may_help = False
    advice = "Check the token, and that it may use this model from this address."


class LumaQuotaError(LumaApiError):
    """The account's balance is too low."""

    advice = "Top up the balance of the token's account."


class LumaInvalidRequest(LumaApiError, ValueError):
    """The arguments are wrong: the API says so, or it was known before sending (``status`` is then None)."""

    retry_may_help = False
    advice = "Change the request: the same request will fail again."


class LumaNotFound(LumaApiError):
    """The API does not know the generation, or does not have the call."""

    unknown_id: bool = False
    """The API says explicitly that it does not know the generation."""


class LumaRateLimited(LumaApiError):
    """Too many requests, or too many running generations."""

    advice = "Wait, or run fewer generations in parallel (an Airflow pool limits them)."


class LumaServerError(LumaApiError):
    """The API, or a proxy in front of it, is in trouble, or its answer cannot be understood."""

    maybe_charged: bool = True
    """A submission with this answer may have been accepted."""
    advice = "The API, or a proxy in front of it, is in trouble: try again later."


class LumaGenerationFailed(LumaError):
    """
    The generation failed.

    :param generation: the generation.
    """

    def __init__(self, generation: Generation) -> None:
        reason = generation.failure_reason or "no reason was given"
        if generation.moderated:
            advice = "Moderation refused it, and will refuse the same request again: change the prompt or the images."
        elif generation.retry_may_help:
            advice = "To try again, retry or clear the task that submitted it."
        else:
            advice = "The task does not submit it again: first do what the reason asks for, then clear the task."
        refunded = " It is refunded." if generation.refunded else ""
        super().__init__(
            f"Generation {generation.id} failed: {reason.rstrip('.')}.{refunded} {advice}",
            retry_may_help=generation.retry_may_help and not generation.moderated,
        )
        self.generation = generation
        self.moderated = generation.moderated
        """Moderation refused the prompt or an image."""

    def __reduce__(self) -> tuple[type[LumaGenerationFailed], tuple[Generation]]:
        return type(self), (self.generation,)

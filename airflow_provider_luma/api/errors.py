"""
What can go wrong between a DAG and Luma.

::

    LumaError                      everything below
    ├── LumaConnectionError        never reached the gateway: safe to send again
    ├── LumaAmbiguousSubmission    a submission went out and nothing readable came back: maybe charged
    ├── LumaApiError               the gateway answered with an error
    │   ├── LumaAuthenticationError   the token is missing, wrong, or not allowed to do this
    │   ├── LumaQuotaError            the balance is too low
    │   ├── LumaInvalidRequest        the arguments are wrong; raised before sending where that can be known
    │   ├── LumaNotFound              no such generation, or no such call on this host
    │   ├── LumaRateLimited           too many requests, or too many running generations
    │   └── LumaServerError           the gateway, or something in front of it, is in trouble
    └── LumaGenerationFailed       the generation itself failed
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_luma.api.generation import Generation


UNKNOWN_ID = "task_not_exist"
"""The gateway's own error code for a generation that it does not know."""


class LumaError(Exception):
    """
    Anything that goes wrong with Luma.

    :param message: what happened, on which call, and what to do about it; never the token.
    :param status: the HTTP status, where there was an answer.
    :param code: the gateway's own error code, where it gave one.
    :param request_id: the gateway's id of the request, for its support, where it gave one.
    """

    retry_may_help: bool = True
    """Whether doing the same again later can turn out better."""

    retry_after: float | None = None
    """The seconds that the gateway asked to wait, or None."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id


class LumaConnectionError(LumaError):
    """The gateway was never reached, or what it said to a question was lost; nothing was charged."""


class LumaAmbiguousSubmission(LumaError):
    """A submission went out and nothing readable came back: it may have been charged."""

    retry_may_help = False


class LumaApiError(LumaError):
    """The gateway answered with an error; nothing was charged."""


class LumaAuthenticationError(LumaApiError):
    """The token is missing, wrong, or not allowed to do this."""

    retry_may_help = False


class LumaQuotaError(LumaApiError):
    """The account's balance is too low."""


class LumaInvalidRequest(LumaApiError, ValueError):
    """The arguments are wrong, said by the gateway or known before anything was sent (``status`` is then None)."""

    retry_may_help = False


class LumaNotFound(LumaApiError):
    """
    The gateway knows no such generation, or has no such call.

    ``of_gateway`` says whether it seems to be the gateway that says so, and nothing before it, such as a proxy.
    """

    of_gateway: bool = True

    @property
    def unknown_id(self) -> bool:
        """Whether it surely is a generation that is not known: the gateway says so in its own word for that."""
        return self.code == UNKNOWN_ID


class LumaRateLimited(LumaApiError):
    """Too many requests, or too many generations at once."""


class LumaServerError(LumaApiError):
    """
    The gateway, or something in front of it, is in trouble or cannot be understood.

    ``maybe_charged`` says whether a submission that is answered like this may have been accepted all the same.
    """

    maybe_charged: bool = True


class LumaGenerationFailed(LumaError):
    """
    The generation itself failed; Luma refunds those.

    :param generation: the generation that failed.
    """

    def __init__(self, generation: Generation) -> None:
        reason = generation.failure_reason or "the gateway gave no reason"
        self.generation = generation
        self.moderated = re.search("moderation|moderated|审核|违规|敏感", reason, re.IGNORECASE) is not None
        """Whether moderation refused the prompt or an image."""
        self.retry_may_help = not self.moderated
        advice = (
            "Moderation refused it, so the same request will fail again: change the prompt or the images."
            if self.moderated
            else "Failed generations are refunded; submitting it again may help."
        )
        super().__init__(f"Generation {generation.id} failed: {reason.rstrip('.')}. {advice}")

    def __reduce__(self) -> tuple[type[LumaGenerationFailed], tuple[Generation]]:
        return type(self), (self.generation,)


def cause(error: BaseException) -> str:
    """Return what is at the bottom of an exception of requests, which wraps one of urllib3's, which wraps one more."""
    while error.__context__:
        error = error.__context__
    return str(error)[:200].rstrip(".") or type(error).__name__

"""
What can go wrong between a DAG and Luma.

::

    LumaError                      everything below
    ├── LumaConnectionError        never reached the API: safe to send again
    ├── LumaAmbiguousSubmission    a submission went out and nothing readable came back: maybe charged
    ├── LumaApiError               the API answered with an error
    │   ├── LumaAuthenticationError   the token is missing, wrong, or not allowed to do this
    │   ├── LumaQuotaError            the balance is too low
    │   ├── LumaInvalidRequest        the arguments are wrong; raised before sending where that can be known
    │   ├── LumaNotFound              no such generation, or no such call on this host
    │   ├── LumaRateLimited           too many requests, or too many running generations
    │   └── LumaServerError           the API, or something in front of it, is in trouble
    └── LumaGenerationFailed       the generation itself failed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_luma.api.generation import Generation


class LumaError(Exception):
    """
    Anything that goes wrong with Luma.

    :param message: what happened, on which call, and what to do about it; never the token.
    :param status: the HTTP status, where there was an answer.
    :param code: the API's own error code, where it gave one.
    :param request_id: the API's id of the request, for its support, where it gave one.
    :param retry_after: the seconds that the API asked to wait, where it did.
    :param retry_may_help: whether doing the same again later can turn out better; by default what the class says.
    """

    retry_may_help: bool = True
    advice: str = ""
    """What to do about it, where the message has nothing better."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retry_may_help: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        if retry_may_help is not None:
            self.retry_may_help = retry_may_help


class LumaConnectionError(LumaError):
    """The API was never reached, or its answer to a poll was lost; nothing was charged."""


class LumaAmbiguousSubmission(LumaError):
    """A submission went out and nothing readable came back: it may have been charged."""

    retry_may_help = False


class LumaApiError(LumaError):
    """The API answered with an error; nothing was charged."""


class LumaAuthenticationError(LumaApiError):
    """The token is missing, wrong, or not allowed to do this."""

    retry_may_help = False
    advice = "Check the token, and that it may use this model from this address."


class LumaQuotaError(LumaApiError):
    """The account's balance is too low."""

    advice = "Top up the balance of the token's account."


class LumaInvalidRequest(LumaApiError, ValueError):
    """The arguments are wrong: the API says so, or it was known before anything was sent (``status`` is then None)."""

    retry_may_help = False
    advice = "Change the request; sending it again as it is cannot help."


class LumaNotFound(LumaApiError):
    """
    The API knows no such generation, or has no such call.

    :param from_api: whether the API itself says so, and not something before it, such as a proxy.
    :param unknown_id: whether the API says in so many words that it does not know the generation.
    """

    def __init__(self, message: str, *, from_api: bool = True, unknown_id: bool = False, **answer: Any) -> None:
        super().__init__(message, **answer)
        self.from_api = from_api
        self.unknown_id = unknown_id


class LumaRateLimited(LumaApiError):
    """Too many requests, or too many generations at once."""

    advice = "Wait, or run fewer generations at once (an Airflow pool limits them)."


class LumaServerError(LumaApiError):
    """
    The API, or something in front of it, is in trouble or cannot be understood.

    :param maybe_charged: whether a submission that is answered like this may have been accepted all the same.
    """

    advice = "The API, or a proxy before it, is in trouble: try again later."

    def __init__(self, message: str, *, maybe_charged: bool = True, **answer: Any) -> None:
        super().__init__(message, **answer)
        self.maybe_charged = maybe_charged


class LumaGenerationFailed(LumaError):
    """
    The generation itself failed.

    :param generation: the generation that failed.
    """

    def __init__(self, generation: Generation) -> None:
        reason = generation.failure_reason or "no reason was given"
        if generation.moderated:
            advice = "Moderation refused it, so the same request will fail again: change the prompt or the images."
        elif generation.retry_may_help:
            advice = (
                "Failed generations are refunded. To try again, submit it again: in Airflow, clear or retry the task "
                "that submitted it."
            )
        else:
            advice = "It is not submitted again by itself: see first what the reason asks for."
        super().__init__(
            f"Generation {generation.id} failed: {reason.rstrip('.')}. {advice}",
            retry_may_help=generation.retry_may_help and not generation.moderated,
        )
        self.generation = generation
        self.moderated = generation.moderated
        """Whether moderation refused the prompt or an image."""

    def __reduce__(self) -> tuple[type[LumaGenerationFailed], tuple[Generation]]:
        return type(self), (self.generation,)

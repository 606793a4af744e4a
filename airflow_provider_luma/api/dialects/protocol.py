"""What every dialect has, and what an HTTP status means in all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from airflow_provider_luma.api.dialects.values import content_kind
from airflow_provider_luma.api.errors import (
    LumaApiError,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.retry import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_luma.api.generation import Generation

T = TypeVar("T")

_STATUSES: Mapping[int, type[LumaApiError]] = {
    401: LumaAuthenticationError,
    402: LumaQuotaError,
    403: LumaAuthenticationError,
    404: LumaNotFound,
    # A server of pages says so of a POST.
    405: LumaNotFound,
    408: LumaServerError,
    429: LumaRateLimited,
}


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    content: bytes
    headers: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether the status says that the call succeeded."""
        return 200 <= self.status < 300

    @property
    def kind(self) -> type[LumaApiError]:
        """The error that the status means."""
        if self.status >= 500:
            return LumaServerError
        return _STATUSES.get(self.status, LumaApiError if self.ok else LumaInvalidRequest)

    def error(
        self, call: str, kind: type[LumaApiError], said: str | None = None, advice: str | None = None, **more: Any
    ) -> LumaApiError:
        """
        Return the error that this answer is.

        :param call: what was called where, to begin the message with.
        :param kind: which error it is.
        :param said: what the answer says, where it can be read.
        :param advice: what to do about it, where that is not what the kind says.
        :param more: further arguments of the error.
        """
        if 300 <= self.status < 400:
            said, advice = "a redirect, which is not followed", "Set the host to the API's own address."
        return kind(
            f"{call}: HTTP {self.status}, {said or content_kind(self.content)}. {advice or kind.advice}".rstrip(),
            status=self.status,
            retry_after=parse_retry_after(self.headers.get("Retry-After")),
            **more,
        )


@dataclass(frozen=True)
class Request(Generic[T]):
    """
    One call of an API: what to send, and how to read the answer.

    :param call: what is done, to begin an error's message with.
    :param method: the HTTP method.
    :param path: what follows the API's URL.
    :param read: turns the answer, and what was called where, into the result; raises LumaApiError.
    :param body: sent as JSON, where there is one.
    :param request_id: sent as ``X-Request-Id``, by which the API's support can find the call.
    """

    call: str
    method: str
    path: str
    read: Callable[[Answer, str], T]
    body: Mapping[str, Any] | None = None
    request_id: str | None = None


class Dialect(Protocol):
    """One API. A module with these names is one."""

    NAME: str
    """What it is, in a message to users."""

    DEFAULT_URL: str
    """Where it is, unless the connection says otherwise."""

    BATCH_SIZE: int
    """How many ids go into one batch query; 1 where there is no such call."""

    REQUESTS_PER_SECOND: float
    """How many single polls may be sent in a second for one token; ``inf`` where nobody says."""

    def base_path(self, path: str) -> str:
        """Return the path that stands before this API's own ones, given that of the connection's host."""

    def submission(self, given: Mapping[str, Any]) -> Request[Generation]:
        """
        Return the request that submits a generation; raise LumaInvalidRequest for what this API would refuse.

        :param given: arguments by the names that users type, of the right types, and what ``extra_body`` had beside
            them. A :class:`~airflow_provider_luma.api.arguments.Template` counts as right.
        """

    def extension(self, generation_id: str, given: Mapping[str, Any]) -> Request[Generation]:
        """Return the request that extends a generation; ``given`` and the errors are those of :meth:`submission`."""

    def query(self, generation_id: str) -> Request[Generation]:
        """Return the request that polls one generation."""

    def batch_query(self, generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
        """Return the request that polls many; raise LumaNotFound where :data:`BATCH_SIZE` is 1."""

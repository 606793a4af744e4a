"""What every dialect has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow_provider_luma.api.generation import Generation

T = TypeVar("T")


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    content: bytes
    headers: Mapping[str, str]


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

    def check(
        self, arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None, templated: Collection[str] = ()
    ) -> None:
        """
        Raise LumaInvalidRequest for arguments that this API would refuse.

        :param arguments: by the names that users type.
        :param extra_body: fields that this API takes and ``arguments`` has no name for.
        :param templated: names whose values are still templates, and count as given.
        """

    def submission(self, arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None) -> Request[Generation]:
        """Return the request that submits a generation; raise LumaInvalidRequest as :meth:`check` does."""

    def extension(
        self, generation_id: str, arguments: Mapping[str, Any], extra_body: Mapping[str, Any] | None
    ) -> Request[Generation]:
        """Return the request that extends a generation; raise LumaInvalidRequest as :meth:`check` does."""

    def query(self, generation_id: str) -> Request[Generation]:
        """Return the request that polls one generation."""

    def batch_query(self, generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
        """Return the request that polls many; raise LumaNotFound where :data:`BATCH_SIZE` is 1."""

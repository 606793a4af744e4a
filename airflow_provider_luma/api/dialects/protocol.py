"""The parts that all dialects share: requests, answers, and the meaning of an HTTP status."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from airflow_provider_luma.api import errors
from airflow_provider_luma.api.dialects.values import json_value
from airflow_provider_luma.api.retry import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_luma.api.generation import Generation
    from airflow_provider_luma.apis import Api

T = TypeVar("T")

_STATUSES: Mapping[int, type[errors.LumaApiError]] = {
    401: errors.LumaAuthenticationError,
    402: errors.LumaQuotaError,
    403: errors.LumaAuthenticationError,
    404: errors.LumaNotFound,
    # Some servers answer 405 to a POST that they do not have.
    405: errors.LumaNotFound,
    408: errors.LumaServerError,
    429: errors.LumaRateLimited,
}


@dataclass(frozen=True)
class Answer:
    """
    An HTTP answer.

    :param status: the HTTP status.
    :param content: the body.
    :param headers: the headers; their names are not case-sensitive.
    """

    status: int
    content: bytes
    headers: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """The HTTP status means success."""
        return 200 <= self.status < 300

    @property
    def kind(self) -> type[errors.LumaApiError]:
        """The error class for the HTTP status, if the API itself answered."""
        if self.status >= 500:
            return errors.LumaServerError
        return _STATUSES.get(self.status, errors.LumaApiError if self.ok else errors.LumaInvalidRequest)

    @cached_property
    def payload(self) -> Any:
        """The body's JSON, or None if it is not JSON."""
        return json_value(self.content)

    def error(
        self,
        call: str,
        kind: type[errors.LumaApiError] | None = None,
        said: str | None = None,
        advice: str = "",
        **more: Any,
    ) -> errors.LumaApiError:
        """
        Make the error for an answer that the API itself gave.

        :param call: the call and its host, for the message.
        :param kind: the error class; the default is :attr:`kind`.
        :param said: the API's text.
        :param advice: the user's next step; the default is the error class's ``advice``.
        :param more: further attributes of the error.
        """
        kind = kind or self.kind
        return kind(
            f"{call}: HTTP {self.status}, {said or 'no message that can be read'}. {advice or kind.advice}".rstrip(),
            status=self.status,
            retry_after=parse_retry_after(self.headers.get("Retry-After")),
            **more,
        )

    def trouble(self, call: str, advice: str) -> errors.LumaApiError:
        """
        Make the error for an answer that the API itself did not give, such as the page of a proxy.

        Such an answer says nothing about the token or the generation, so a wait polls again. If a submission gets this
        answer, the API may have accepted it, unless the status shows that the API did not.

        :param call: the call and its host, for the message.
        :param advice: the user's next step; some statuses have their own.
        """
        said = "an HTML page" if self.content.lstrip().startswith(b"<") else "no message that can be read"
        if self.status == 429:
            return self.error(call, errors.LumaRateLimited, said, from_api=False)
        if 300 <= self.status < 400:
            said, advice = "a redirect, which is not followed", "Set the host to the API's own address."
            return self.error(call, errors.LumaInvalidRequest, said, advice, from_api=False)
        if self.status == 407:
            said = "a proxy wants a password"
            advice = "Set HTTPS_PROXY, with the user name and password, on the machine where Airflow runs."
        maybe_charged = self.ok or self.kind is errors.LumaServerError or self.status in (401, 403)
        return self.error(call, errors.LumaServerError, said, advice, from_api=False, maybe_charged=maybe_charged)


@dataclass(frozen=True)
class Request(Generic[T]):
    """
    One call of an API: the request, and the function that reads its answer.

    :param call: a description of the call for messages, such as ``Submitting a generation``.
    :param method: the HTTP method.
    :param path: the path below the API's URL.
    :param read: converts the answer to the result; its second parameter is the call and its host, for messages.
        Raises LumaApiError.
    :param body: the JSON body, or None.
    :param request_id: the header ``X-Request-Id``, which helps the API's support to find the request, or None.
    """

    call: str
    method: str
    path: str
    read: Callable[[Answer, str], T]
    body: Mapping[str, Any] | None = None
    request_id: str | None = None


class Dialect(Protocol):
    """The names that each dialect defines: a module in ``api/dialects/`` for an API that ``apis.py`` lists."""

    API: Api
    """The row of this API in the table of ``apis.py``."""

    BATCH_SIZE: int
    """Number of ids in a batch query; 1 if the API has no batch query."""

    REQUESTS_PER_SECOND: float
    """Number of single polls per second and token; ``inf`` if no limit is known."""

    def base_path(self, path: str) -> str:
        """
        Return the path that comes before :attr:`Request.path`.

        :param path: the path that the user typed in the connection's host, or an empty text.
        """

    def submission(self, given: Mapping[str, Any], extra: Any) -> Request[Generation]:
        """
        Return the request that submits a generation.

        :param given: the arguments that are sent, as :func:`~airflow_provider_luma.api.arguments.read_arguments`
            returns them.
        :param extra: the user's ``extra_body``: further fields under the API's own names, or None.
        :raises LumaInvalidRequest: the API has no counterpart for an argument, or a value cannot be sent.
        """

    def extension(self, generation_id: str, given: Mapping[str, Any], extra: Any) -> Request[Generation]:
        """Return the request that extends a generation; parameters and errors are those of :meth:`submission`."""

    def query(self, generation_id: str) -> Request[Generation]:
        """Return the request that polls one generation."""

    def batch_query(self, generation_ids: Sequence[str]) -> Request[dict[str, Generation]]:
        """Return the request that polls many generations. A dialect with a :attr:`BATCH_SIZE` of 1 does not need it."""


def refuse(given: Mapping[str, Any], no_counterpart: Mapping[str, str], api: Api) -> None:
    """
    Refuse arguments that an API does not have.

    :param given: the arguments that the user passed.
    :param no_counterpart: the arguments that the API does not have, and the user's alternative to each.
    :param api: the API.
    :raises LumaInvalidRequest: ``given`` contains such an argument.
    """
    for name, instead in no_counterpart.items():
        if name in given:
            raise errors.LumaInvalidRequest(f"{api.label} has no {name}. {instead}")

"""The HTTP client: one method for each call of an API."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow_provider_luma.api import errors
from airflow_provider_luma.api.arguments import EXTEND_ARGUMENTS, encode, read_arguments
from airflow_provider_luma.api.dialects import DIALECTS, choose_api
from airflow_provider_luma.api.retry import backoff
from airflow_provider_luma.api.transport import TrackedBody, Transport
from airflow_provider_luma.api.url import base_url, parse_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_luma.api.dialects.protocol import Request
    from airflow_provider_luma.api.generation import Generation
    from airflow_provider_luma.api.transport import SubmissionListener

T = TypeVar("T")

log = logging.getLogger(__name__)

LONGEST_PAUSE = 15.0
"""Longest sleep before a call is repeated, in seconds. For a longer pause, a task can free its worker."""
NO_SUCH_GENERATION = "00000000-0000-0000-0000-000000000000"


class LumaClient:
    """
    A client for one API and one token.

    The API is the chosen one. Without a choice the host decides, and without a host the token. A token goes to the host
    of another owner only if the API is chosen.

    Polls are repeated with exponential back-off and jitter while the API is in trouble. A submission is repeated only
    if it was certainly not accepted: no request was sent, or the answer was 429. A call that is asked to wait for more
    than :data:`LONGEST_PAUSE` seconds is not repeated.

    Threads can share a client: each has its own session.

    :param url: the host, with or without scheme, port and path; empty for the API's default.
    :param token: the API token, with or without ``Bearer`` before it.
    :param api: the API's name in :data:`~airflow_provider_luma.apis.APIS`, or empty.
    :param schema: ``http`` or ``https``, if the URL has no scheme.
    :param port: the port, if the URL has none.
    :param timeout: limit for a request, in seconds.
    :param verify: check the API's TLS certificate, or the path of a CA bundle to check it against.
    :param retry_for: seconds during which a call is repeated; 0 tries once.
    :raises LumaInvalidRequest: the URL or the API is not valid, or the token belongs to another API.
    :raises LumaAuthenticationError: the token is empty, or cannot be a token.
    """

    def __init__(
        self,
        url: str | None,
        token: str,
        *,
        api: str | None = None,
        schema: str | None = None,
        port: int | None = None,
        timeout: float = 30.0,
        verify: bool | str = True,
        retry_for: float = 60.0,
    ) -> None:
        host = parse_host(url)
        self.dialect = DIALECTS[choose_api(api, host.name, token).name]
        self.url = base_url(host, self.dialect, schema=schema, port=port)
        self.api = f"{self.dialect.API.name} {urlsplit(self.url).scheme}://{urlsplit(self.url).netloc}"
        """The API and its host, for the record of a submission."""
        self.timeout = timeout
        self.verify = verify
        self.retry_for = retry_for
        self._transport = Transport(self.url, token, timeout, verify)

    @property
    def account(self) -> tuple[str, str]:
        """The URL and the token, which share the API's limits. Do not log it."""
        return self._transport.account

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.api, self.account, self.timeout, self.verify, self.retry_for

    def __eq__(self, other: object) -> bool:
        """Clients are equal if they call the same API with the same token and settings."""
        return isinstance(other, LumaClient) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def submit(
        self,
        user_prompt: str | None = None,
        *,
        extra_body: Mapping[str, Any] | None = None,
        listener: SubmissionListener | None = None,
        **arguments: Any,
    ) -> Generation:
        """
        Submit a generation. It is charged when the API accepts it.

        Arguments that are left out are not sent. An argument that the API does not have is refused.
        Source: https://docs.lumalabs.ai/docs/video-generation and the gateway's documentation.

        :param user_prompt: the prompt; some APIs accept an image without a prompt.
        :param model_name: the model, for example ``ray-v2`` or ``ray-3.2``.
        :param duration: the length, for example ``5s``.
        :param resolution: for example ``720p`` or ``1080p``.
        :param aspect_ratio: for example ``16:9`` or ``9:16``.
        :param expand_prompt: the API may improve the prompt.
        :param loop: the video ends with its first frame.
        :param image_url: the first frame: a URL or a ``data:`` URI.
        :param image_end_url: the last frame, likewise.
        :param notify_hook: a URL that the API calls when the generation has ended.
        :param extra_body: further fields under the API's own names.
        :param listener: is called before the request is sent, and if it was rejected.
        :return: the generation, which has not begun yet, with its ``id``.
        :raises LumaInvalidRequest: the arguments are wrong; nothing was charged.
        :raises LumaAmbiguousSubmission: the request was sent and its answer was lost: it may have been charged.
        :raises LumaError: the submission failed; nothing was charged.
        """
        given = read_arguments({"user_prompt": user_prompt, **arguments})
        return self._submit(self.dialect.submission(given, extra_body), listener)

    def extend(
        self,
        generation_id: str,
        user_prompt: str | None = None,
        *,
        extra_body: Mapping[str, Any] | None = None,
        listener: SubmissionListener | None = None,
        **arguments: Any,
    ) -> Generation:
        """
        Submit an extension of a completed generation. It is a new generation with its own id and price.

        :param generation_id: the generation to extend.

        The other parameters are those of :meth:`submit` that an extension accepts; result and errors are the same.
        """
        given = read_arguments({"user_prompt": user_prompt, **arguments}, EXTEND_ARGUMENTS)
        return self._submit(self.dialect.extension(generation_id, given, extra_body), listener)

    def get(self, generation_id: str, *, repeat: bool = True, timeout: float | None = None) -> Generation:
        """
        Poll one generation.

        :param repeat: repeat the call while the API is in trouble; False for a caller that repeats it later.
        :param timeout: seconds for one request, if they are fewer than the client's ``timeout``.
        :raises LumaNotFound: the API does not know the id. Directly after a submission it may not know it yet.
        :raises LumaError: polling failed.
        """
        generation = self._read(self.dialect.query(generation_id), repeat=repeat, timeout=timeout)
        if generation.id != str(generation_id).strip():
            raise errors.LumaServerError(f"The answer for generation {generation_id} is about {generation.id}.")
        return generation

    def get_many(self, generation_ids: Iterable[str], *, repeat: bool = True) -> dict[str, Generation]:
        """
        Poll many generations in one request, which is free of charge.

        :param repeat: as for :meth:`get`.
        :return: the generations by id, without those that the API does not know.
        :raises LumaNotFound: this API has no batch query.
        :raises LumaInvalidRequest: there are more ids than the API accepts in one query.
        :raises LumaError: polling failed.
        """
        ids = list(generation_ids)
        if self.dialect.BATCH_SIZE == 1:
            raise errors.LumaNotFound(f"{self.dialect.API.label} has no batch query: poll each generation with get().")
        return self._read(self.dialect.batch_query(ids), repeat=repeat) if ids else {}

    def test(self) -> None:
        """
        Check, free of charge, that the API can be reached and accepts the token.

        :raises LumaError: it cannot be reached, or refuses the token.
        """
        try:
            self._transport.send(replace(self.dialect.query(NO_SUCH_GENERATION), call="Testing the connection"))
        except errors.LumaNotFound as error:
            if not error.unknown_id:
                raise

    def _read(self, request: Request[T], *, repeat: bool, timeout: float | None = None) -> T:
        if not repeat:
            return self._transport.send(request, timeout=timeout)
        return self._retry(
            lambda: self._transport.send(request),
            errors.LumaConnectionError,
            errors.LumaRateLimited,
            errors.LumaServerError,
        )

    def _submit(self, request: Request[Generation], listener: SubmissionListener | None) -> Generation:
        content = encode(request.body or {})
        sent = {"api": self.api, **({"request_id": request.request_id} if request.request_id else {})}
        found_by = f" For the API's support: X-Request-Id {request.request_id}." if request.request_id else ""

        def attempt() -> Generation:
            body = TrackedBody(content, listener, sent)
            try:
                return self._transport.send(request, body)
            except Exception as error:
                lost = not isinstance(error, errors.LumaError) or isinstance(error, errors.LumaConnectionError)
                if body.started and (lost or getattr(error, "maybe_charged", False)):
                    raise errors.LumaAmbiguousSubmission(
                        f"{error} The request was sent, so it may have been accepted and charged.{found_by}",
                        status=getattr(error, "status", None),
                        code=getattr(error, "code", None),
                        request_id=getattr(error, "request_id", None) or request.request_id,
                    ) from error
                if body.started and listener:
                    listener.rejected()
                raise

        return self._retry(attempt, errors.LumaConnectionError, errors.LumaRateLimited)

    def _retry(self, attempt: Callable[[], T], *repeated: type[errors.LumaError]) -> T:
        """Repeat ``attempt`` after the ``repeated`` errors, unless the API asks for a long pause."""
        deadline = time.monotonic() + self.retry_for
        failures = 0
        while True:
            try:
                return attempt()
            except repeated as error:
                failures += 1
                seconds = backoff(0.25, failures, error.retry_after, longest=LONGEST_PAUSE)
                if (error.retry_after or 0) > LONGEST_PAUSE or time.monotonic() + seconds > deadline:
                    raise
                log.info("%s Trying again in %.1f s.", error, seconds)
            time.sleep(seconds)

"""Luma over HTTP: one method a call."""

from __future__ import annotations

import io
import logging
import os
import re
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from airflow_provider_luma import __version__
from airflow_provider_luma.api.arguments import encode, merge_arguments
from airflow_provider_luma.api.diagnosis import unreachable
from airflow_provider_luma.api.dialects import DIALECTS, Answer, Request, choose_dialect
from airflow_provider_luma.api.errors import (
    LumaAmbiguousSubmission,
    LumaAuthenticationError,
    LumaConnectionError,
    LumaError,
    LumaNotFound,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.retry import backoff
from airflow_provider_luma.api.url import base_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    # Imported late everywhere else: it costs a DAG that only mentions an operator 190 ms of parsing.
    import requests
    from typing_extensions import Unpack

    from airflow_provider_luma.api.arguments import ExtendArguments, SubmitArguments
    from airflow_provider_luma.api.generation import Generation

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
MAX_ANSWER_BYTES = 10 * 1024 * 1024
LONGEST_PAUSE = 15.0
"""Seconds for which a call that is asked to wait sleeps here; for longer, a task can free its worker."""
NO_SUCH_GENERATION = "00000000-0000-0000-0000-000000000000"


class SubmissionListener(Protocol):
    """Whoever has to know, at any moment, whether a submission may have been charged."""

    def before_send(self, sent: Mapping[str, str]) -> None:
        """
        Record that the request is about to leave; what this raises keeps it from leaving.

        :param sent: ``api``, which API it goes to, and ``request_id``, by which that API's support can find it, where
            there is one.
        """

    def rejected(self) -> None:
        """Record that it left, and that the API definitely rejected it."""


class LumaClient:
    """
    One API that offers Luma's models, and a token for it.

    Calls that only read are repeated, with exponential back-off and jitter, while the API is in trouble. A submission
    is repeated only where it certainly was not accepted: no request went out, or the answer was 429. No call is
    repeated that was asked to wait for more than :data:`LONGEST_PAUSE` seconds.

    Safe to share between threads: each has a session of its own.

    :param url: where the API is, in any form that a person would type; empty for the dialect's default.
    :param token: the API token, with or without ``Bearer`` before it.
    :param dialect: which API it is, a key of :data:`~airflow_provider_luma.api.dialects.DIALECTS`; by default what
        the URL says, and with an empty one the token, of which Luma's begin with ``luma-``.
    :param timeout: seconds that one request may take.
    :param verify: whether to check the API's TLS certificate, or the path of a CA bundle to check it against.
    :param retry_for: seconds after which no call is repeated any more; 0 tries once.
    :raises LumaInvalidRequest: the URL is none, or the token is one of Luma's and the URL is not.
    :raises LumaAuthenticationError: the token is empty, or cannot be one.
    """

    def __init__(
        self,
        url: str | None,
        token: str,
        *,
        dialect: str | None = None,
        timeout: float = 30.0,
        verify: bool | str = True,
        retry_for: float = 60.0,
    ) -> None:
        name = choose_dialect(dialect, url, token)
        self.dialect = DIALECTS[name]
        self.url = base_url(url, self.dialect)
        self._host = urlsplit(self.url).netloc
        self.api = f"{name} {urlsplit(self.url).scheme}://{self._host}"
        """Which API it is and where, for a record of what was sent there."""
        self.timeout = timeout
        self.verify = verify
        self.retry_for = retry_for
        self._token = re.sub(r"(?i)^bearer(\s+|$)", "", token.strip())
        if not re.fullmatch("[!-~]+", self._token):
            raise LumaAuthenticationError(
                "The API token is empty, or holds characters that no token has; copy it again."
            )
        self._identity = (self.dialect, self.url, self._token, timeout, verify, retry_for)
        self._thread = threading.local()

    def __eq__(self, other: object) -> bool:
        """Return whether the other would call the same API, with the same token, in the same way."""
        return isinstance(other, LumaClient) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def submit(
        self,
        user_prompt: str | None = None,
        *,
        extra_body: Mapping[str, Any] | None = None,
        listener: SubmissionListener | None = None,
        **arguments: Unpack[SubmitArguments],
    ) -> Generation:
        """
        Submit a generation, which is charged when the API accepts it.

        Arguments that are left out are not sent; what an API has no counterpart for is refused. What they mean:
        https://docs.lumalabs.ai/docs/video-generation and the gateway's own page.

        :param user_prompt: what to show, 3 to 5,000 characters for a gateway, 1 to 6,000 for Luma's own API; for a
            gateway it may be left out where there is an image.
        :param model_name: a gateway's ``ray-v1`` or ``ray-v2``, Luma's ``ray-3.2`` (its default), or a newer one.
        :param duration: ``5s``, or what else the model has.
        :param resolution: ``720p`` (the default), ``1080p``, or what else the model has.
        :param aspect_ratio: such as ``16:9`` or ``9:16``.
        :param expand_prompt: whether a gateway may improve the prompt.
        :param loop: whether the video ends where it began; not together with ``image_end_url``.
        :param image_url: the first frame, an http(s) URL (for Luma's own API https) or a ``data:`` URI.
        :param image_end_url: the last frame, likewise.
        :param notify_hook: URL that a gateway calls back when the generation is finished.
        :param extra_body: further fields, sent as they are.
        :param listener: is called before the request leaves, and when it was definitely rejected.
        :return: the generation, not yet begun; its ``id`` is what matters.
        :raises LumaInvalidRequest: the arguments are wrong; nothing was charged.
        :raises LumaAmbiguousSubmission: it went out and nothing readable came back; it may have been charged.
        :raises LumaError: it was not accepted, and nothing was charged.
        """
        given = merge_arguments({"user_prompt": user_prompt, **arguments}, extra_body)
        return self._submit(self.dialect.submission(given), listener)

    def extend(
        self,
        generation_id: str,
        user_prompt: str | None = None,
        *,
        extra_body: Mapping[str, Any] | None = None,
        listener: SubmissionListener | None = None,
        **arguments: Unpack[ExtendArguments],
    ) -> Generation:
        """
        Submit the continuation of a completed generation, which is a new one with an id and a price of its own.

        :param generation_id: the generation to continue.

        The other parameters, the return and the errors are those of :meth:`submit`.
        """
        given = merge_arguments({"user_prompt": user_prompt, **arguments}, extra_body)
        return self._submit(self.dialect.extension(generation_id, given), listener)

    def get(self, generation_id: str, *, repeat: bool = True) -> Generation:
        """
        Poll one generation.

        :param repeat: repeat the call while the API is in trouble; False for a caller that repeats it later.
        :raises LumaNotFound: the API does not know the id; right after a submission it may not know it yet.
        :raises LumaError: polling failed.
        """
        return self._read(self.dialect.query(generation_id), repeat=repeat)

    def get_many(self, generation_ids: Iterable[str], *, repeat: bool = True) -> dict[str, Generation]:
        """
        Poll many generations in one request, which is free of charge.

        :param repeat: as for :meth:`get`.
        :return: the generations by their ids; ids that the API does not know are left out.
        :raises LumaNotFound: this API has no batch query.
        :raises LumaInvalidRequest: more ids than this API takes at once.
        :raises LumaError: polling failed.
        """
        ids = list(generation_ids)
        return self._read(self.dialect.batch_query(ids), repeat=repeat) if ids else {}

    def test(self) -> None:
        """
        Find out, at no cost, whether the API is there and accepts the token.

        :raises LumaError: it is not, or does not.
        """
        try:
            self._send(replace(self.dialect.query(NO_SUCH_GENERATION), call="Testing the connection"))
        except LumaNotFound as error:
            if not error.unknown_id:
                raise

    def _read(self, request: Request[T], *, repeat: bool) -> T:
        if not repeat:
            return self._send(request)
        return self._retry(lambda: self._send(request), LumaConnectionError, LumaRateLimited, LumaServerError)

    def _submit(self, request: Request[Generation], listener: SubmissionListener | None) -> Generation:
        content = encode(request.body or {})
        sent = {"api": self.api, **({"request_id": request.request_id} if request.request_id else {})}
        found_by = f" Its X-Request-Id, for the API's support, is {request.request_id}." if request.request_id else ""

        def attempt() -> Generation:
            body = _TrackedBody(content, listener, sent)
            try:
                return self._send(request, body)
            except Exception as error:
                lost = not isinstance(error, LumaError) or isinstance(error, LumaConnectionError)
                if body.started and (lost or getattr(error, "maybe_charged", False)):
                    raise LumaAmbiguousSubmission(
                        f"{error} The request went out, so it may have been accepted and charged.{found_by}",
                        status=getattr(error, "status", None),
                        code=getattr(error, "code", None),
                        request_id=getattr(error, "request_id", None) or request.request_id,
                    ) from error
                if body.started and listener:
                    listener.rejected()
                raise

        return self._retry(attempt, LumaConnectionError, LumaRateLimited)

    def _retry(self, attempt: Callable[[], T], *errors: type[LumaError]) -> T:
        """Call ``attempt`` again and again while it raises one of ``errors`` and is not asked to wait for long."""
        deadline = time.monotonic() + self.retry_for
        failures = 0
        while True:
            try:
                return attempt()
            except errors as error:
                failures += 1
                seconds = backoff(0.25, failures, error.retry_after, longest=15.0)
                if (error.retry_after or 0) > LONGEST_PAUSE or time.monotonic() + seconds > deadline:
                    raise
                log.info("%s Trying again in %.1f s.", error, seconds)
            time.sleep(seconds)

    def _send(self, request: Request[T], body: _TrackedBody | None = None) -> T:
        """Send a request once, and return what its answer says."""
        import requests
        import urllib3

        call = f"{request.call} at {self._host}"
        # A connection that was idle may be dead, which a submission could not tell from an answer that was lost.
        session = self._new_session() if body else self._session
        try:
            with session.request(
                request.method,
                self.url + request.path,
                data=body or (encode(request.body) if request.body else None),
                headers={"X-Request-Id": request.request_id} if request.request_id else None,
                timeout=(min(CONNECT_TIMEOUT, self.timeout), self.timeout),
                verify=self.verify,
                allow_redirects=False,
                stream=True,
            ) as answer:
                return request.read(Answer(answer.status_code, self._read_body(answer, call), answer.headers), call)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise LumaConnectionError(f"{call}: {unreachable(error, self.url)}.") from error
        finally:
            if body:
                session.close()

    def _read_body(self, answer: requests.Response, call: str) -> bytes:
        """Return the whole body, without the token in it, as long as it is neither too large nor too slow."""
        received = bytearray()
        deadline = time.monotonic() + self.timeout
        # As it comes: requests itself waits for a full chunk, however slowly that drips in. urllib3 1 has no read1.
        read = getattr(answer.raw, "read1", answer.raw.read)
        while part := read(64 * 1024, decode_content=True):
            received += part
            if len(received) > MAX_ANSWER_BYTES:
                raise LumaServerError(f"{call}: response too large, over 10 MiB.")
            if time.monotonic() > deadline and answer.raw.length_remaining != 0:
                raise LumaConnectionError(f"{call}: the answer took too long to come.")
        # An API may repeat the token that it refuses. A word shorter than any token is a part of other words.
        token = self._token.encode()
        return bytes(received.replace(token, b"***") if len(token) >= 8 else received)

    @property
    def _session(self) -> requests.Session:
        """This thread's session, which neither another thread nor a forked child may use."""
        if getattr(self._thread, "pid", None) != os.getpid():
            self._thread.session, self._thread.pid = self._new_session(), os.getpid()
        return self._thread.session  # type: ignore[no-any-return]

    def _new_session(self) -> requests.Session:
        import requests

        session = requests.Session()
        session.headers.update(
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": f"airflow-provider-luma/{__version__}",
            }
        )
        # As a function and not as a header, or requests would put the entry of a .netrc file in its place.
        session.auth = self._authorize
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _TrackedBody(io.BytesIO):
    """A request body that knows whether it began to go out; until then, nothing can have been accepted."""

    def __init__(self, content: bytes, listener: SubmissionListener | None, sent: Mapping[str, str]) -> None:
        super().__init__(content)
        self.started = False
        self._listener = listener
        self._sent = sent

    def read(self, size: int | None = -1) -> bytes:
        if not self.started:
            if self._listener:
                self._listener.before_send(self._sent)
            if "request_id" in self._sent:
                log.info("Submitting to %s with X-Request-Id %s.", self._sent["api"], self._sent["request_id"])
        self.started = True
        return super().read(size)

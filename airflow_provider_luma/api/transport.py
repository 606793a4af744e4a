"""One HTTP exchange with an API: the token, the session, the limits, and whether anything was sent."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from airflow_provider_luma import __version__
from airflow_provider_luma.api.arguments import encode
from airflow_provider_luma.api.diagnosis import unreachable
from airflow_provider_luma.api.dialects.protocol import Answer, Request
from airflow_provider_luma.api.dialects.values import json_value
from airflow_provider_luma.api.errors import LumaAuthenticationError, LumaConnectionError, LumaServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    # Imported late everywhere else: it would add 190 ms to the parsing of each DAG that uses an operator.
    import requests

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
MAX_ANSWER_BYTES = 10 * 1024 * 1024


class SubmissionListener(Protocol):
    """Is told when a submission is about to be sent, and when the API rejected it."""

    def before_send(self, sent: Mapping[str, str]) -> None:
        """
        Record that the request is about to be sent; an exception here prevents that.

        :param sent: ``api``, the API and its host, and ``request_id``, the id that the API's support needs to find the
            request, if there is one.
        """

    def rejected(self) -> None:
        """Record that the request was sent, and that the API rejected it."""


class TrackedBody(io.BytesIO):
    """A request body that knows if its first byte was read; before that, the API cannot have accepted it."""

    def __init__(self, content: bytes, listener: SubmissionListener | None, sent: Mapping[str, str]) -> None:
        super().__init__(content)
        self.started = False
        self._listener = listener
        self._sent = sent

    def read(self, size: int | None = -1) -> bytes:
        """Read the next bytes; the first call tells the listener."""
        if not self.started:
            if self._listener:
                self._listener.before_send(self._sent)
            if "request_id" in self._sent:
                log.info("Submitting to %s with X-Request-Id %s.", self._sent["api"], self._sent["request_id"])
        self.started = True
        return super().read(size)


class Transport:
    """
    Sends requests to one API with one token.

    :param url: the URL to which paths are appended.
    :param token: the API token, with or without ``Bearer`` before it.
    :param timeout: limit for a request, in seconds.
    :param verify: check the API's TLS certificate, or the path of a CA bundle to check it against.
    :raises LumaAuthenticationError: the token is empty, or cannot be a token.
    """

    def __init__(self, url: str, token: str, timeout: float, verify: bool | str) -> None:
        self.url = url
        self.host = urlsplit(url).netloc
        self.timeout = timeout
        self.verify = verify
        self._token = re.sub(r"(?i)^bearer(\s+|$)", "", token.strip())
        if not re.fullmatch("[!-~]+", self._token):
            raise LumaAuthenticationError("The API token is empty or contains invalid characters: copy it again.")
        self._thread = threading.local()

    @property
    def account(self) -> tuple[str, str]:
        """The URL and the token."""
        return self.url, self._token

    def send(self, request: Request[T], body: TrackedBody | None = None, timeout: float | None = None) -> T:
        """
        Send a request once, and return its result.

        :param body: the body of a submission.
        :param timeout: seconds for this request, if they are fewer than those of the transport.
        """
        import requests
        import urllib3

        call = f"{request.call} at {self.host}"
        limit = min(self.timeout, timeout or self.timeout)
        # A submission gets a new connection: an idle connection may be dead, and then nobody knows if it was sent.
        session = self._new_session() if body else self._session
        try:
            with session.request(
                request.method,
                self.url + request.path,
                data=body or (encode(request.body) if request.body else None),
                headers={"X-Request-Id": request.request_id} if request.request_id else None,
                timeout=(min(CONNECT_TIMEOUT, limit), limit),
                verify=self.verify,
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = self._masked(_read_body(answer, call, limit))
                return self._result(
                    request, Answer(answer.status_code, content, answer.headers), call, submits=bool(body)
                )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise LumaConnectionError(f"{call}: {unreachable(error, self.url)}.") from error
        finally:
            if body:
                session.close()

    def _result(self, request: Request[T], answer: Answer, call: str, *, submits: bool) -> T:
        try:
            return request.read(answer, call)
        except Exception:
            if submits:
                # It may contain the id of a generation that was charged.
                log.warning("%s: HTTP %s: %r", call, answer.status, answer.content[:2000].decode(errors="replace"))
            raise

    def _masked(self, content: bytes) -> bytes:
        """Return an answer without the token, which an API may repeat; JSON may contain it with escapes."""
        token = self._token
        # Not for short tokens: they could match ordinary text.
        if len(token) < 8:
            return content
        content = content.replace(token.encode(), b"***")
        if b"\\" in content and (value := json_value(content)) is not None:
            plain = json.dumps(value)
            if (escaped := json.dumps(token)[1:-1]) in plain:
                return plain.replace(escaped, "***").encode()
        return content

    @property
    def _session(self) -> requests.Session:
        """This thread's session. Other threads and forked processes have their own."""
        if getattr(self._thread, "pid", None) != os.getpid():
            self._thread.session, self._thread.pid = self._new_session(), os.getpid()
        return self._thread.session  # type: ignore[no-any-return]

    def _new_session(self) -> requests.Session:
        import requests

        from airflow_provider_luma.api.timed import TimedAdapter

        session = requests.Session()
        session.headers.update(
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": f"airflow-provider-luma/{__version__}",
            }
        )
        session.mount("http://", TimedAdapter())
        session.mount("https://", TimedAdapter())
        # A function and not a header: requests would replace the header with the entry of a .netrc file.
        session.auth = self._authorize
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _read_body(answer: requests.Response, call: str, limit: float) -> bytes:
    """Return the body; raise an error if it is too large, or takes longer than the limit in seconds."""
    received = bytearray()
    deadline = time.monotonic() + limit
    # In the parts that arrive: requests would wait for a full chunk. urllib3 1 has no read1.
    read = getattr(answer.raw, "read1", answer.raw.read)
    while part := read(64 * 1024, decode_content=True):
        received += part
        if len(received) > MAX_ANSWER_BYTES:
            raise LumaServerError(f"{call}: the answer is larger than 10 MiB.")
        if time.monotonic() > deadline and answer.raw.length_remaining != 0:
            raise LumaConnectionError(f"{call}: the answer took longer than {limit:g} s.")
    return bytes(received)

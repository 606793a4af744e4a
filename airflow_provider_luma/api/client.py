"""Luma over HTTP: one method a call."""

from __future__ import annotations

import io
import logging
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

import tenacity

from airflow_provider_luma import __version__
from airflow_provider_luma.api import gateway
from airflow_provider_luma.api.errors import (
    LumaAmbiguousSubmission,
    LumaAuthenticationError,
    LumaConnectionError,
    LumaError,
    LumaRateLimited,
    LumaServerError,
    cause,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    # Imported late everywhere else: it costs a DAG that only mentions an operator 190 ms of parsing.
    import requests

    from airflow_provider_luma.api.generation import Generation

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
MAX_ANSWER_BYTES = 10 * 1024 * 1024


class Witness(Protocol):
    """Whoever has to know, at any moment, whether a submission may have been charged."""

    def sending(self) -> None:
        """Take note that the request is about to leave; what this raises keeps it from leaving."""

    def refused(self) -> None:
        """Take note that it left and surely was not accepted."""


class LumaClient:
    """
    A Luma gateway, ready to be asked.

    Calls that only read are repeated, with exponential back-off and jitter, while the gateway is in trouble. A
    submission is repeated only where it surely was not accepted: no request went out, or the gateway said 429.

    Safe to share between threads: each has a session of its own.

    :param host: the gateway, in any form :func:`~airflow_provider_luma.api.gateway.gateway_url` reads.
    :param token: the API token, with or without ``Bearer`` before it.
    :param timeout: seconds that one request may take.
    :param verify: whether to check the gateway's TLS certificate, or the path of a CA bundle to check it against.
    :param patience: seconds for which a call is repeated in all; 0 tries once.
    :raises LumaInvalidRequest: the host is no host.
    :raises LumaAuthenticationError: the token is empty, or cannot be one.
    """

    def __init__(
        self,
        host: str,
        token: str,
        timeout: float = 30.0,
        verify: bool | str = True,
        *,
        patience: float = 60.0,
    ) -> None:
        self.url = gateway.gateway_url(host)
        self.timeout = timeout
        self.verify = verify
        self.patience = patience
        self._token = re.sub(r"(?i)^bearer(\s+|$)", "", token.strip())
        if not self._token:
            raise LumaAuthenticationError("The API token is empty.")
        if not (self._token.isascii() and self._token.isprintable()) or " " in self._token:
            raise LumaAuthenticationError("The API token holds characters that no token has; copy it again.")
        self._own = threading.local()

    def __repr__(self) -> str:
        return f"<LumaClient {self.url}>"

    def __eq__(self, other: object) -> bool:
        """Say whether the other would ask the same gateway, with the same token, in the same way."""
        return isinstance(other, LumaClient) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, str, float, bool | str, float]:
        return self.url, self._token, self.timeout, self.verify, self.patience

    def submit(
        self,
        user_prompt: str | None = None,
        *,
        model_name: str | None = None,
        duration: str | None = None,
        resolution: str | None = None,
        expand_prompt: bool | None = None,
        loop: bool | None = None,
        image_url: str | None = None,
        image_end_url: str | None = None,
        notify_hook: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        witness: Witness | None = None,
    ) -> Generation:
        """
        Submit a generation, which is charged when the gateway accepts it.

        Arguments that are left out are not sent. What they mean:
        https://docs.lumalabs.ai/docs/video-generation and the gateway's own page.

        :param user_prompt: what to show, 3 to 5,000 characters; may be left out where there is an image.
        :param model_name: ``ray-v1``, ``ray-v2``, or whatever else the gateway has by now.
        :param duration: such as ``5s``.
        :param resolution: ``720p`` (the gateway's default) or ``1080p``.
        :param expand_prompt: whether the gateway may improve the prompt.
        :param loop: whether the video ends where it began; not together with ``image_end_url``.
        :param image_url: the first frame, an http(s) URL or a ``data:`` URI.
        :param image_end_url: the last frame, likewise.
        :param notify_hook: URL that the gateway calls back when the generation is finished.
        :param extra_body: further fields, sent as they are.
        :param witness: is told when the request is about to leave, and when it surely was not accepted.
        :return: the generation, not yet begun; its ``id`` is what matters.
        :raises LumaInvalidRequest: the arguments are wrong; nothing was charged.
        :raises LumaAmbiguousSubmission: it went out and nothing readable came back; it may have been charged.
        :raises LumaError: it was not accepted, and nothing was charged.
        """
        arguments = {
            "user_prompt": user_prompt,
            "model_name": model_name,
            "duration": duration,
            "resolution": resolution,
            "expand_prompt": expand_prompt,
            "loop": loop,
            "image_url": image_url,
            "image_end_url": image_end_url,
            "notify_hook": notify_hook,
        }
        body = gateway.request_body(arguments, extra_body)
        return self._submit(gateway.SUBMIT_PATH, body, witness, call="Submitting a generation")

    def extend(
        self,
        task_id: str,
        user_prompt: str | None = None,
        *,
        expand_prompt: bool | None = None,
        image_url: str | None = None,
        image_end_url: str | None = None,
        notify_hook: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        witness: Witness | None = None,
    ) -> Generation:
        """
        Submit the continuation of a finished generation, which is a new one with an id and a price of its own.

        :param task_id: the id of the generation to continue.

        The other parameters, the return and the errors are those of :meth:`submit`.
        """
        arguments = {
            "user_prompt": user_prompt,
            "expand_prompt": expand_prompt,
            "image_url": image_url,
            "image_end_url": image_end_url,
            "notify_hook": notify_hook,
        }
        body = gateway.request_body(arguments, extra_body)
        return self._submit(gateway.extend_path(task_id), body, witness, call=f"Extending generation {task_id}")

    def get(self, task_id: str) -> Generation:
        """
        Ask about one generation.

        :raises LumaNotFound: the gateway does not know the id; right after a submission it may not know it yet.
        :raises LumaError: it could not be asked.
        """
        call = f"Asking about generation {task_id}"
        path = gateway.generation_path(task_id)
        return self._read(
            "GET", path, lambda answer: gateway.parse_generation(answer, call=call, task_id=task_id), call
        )

    def get_many(self, task_ids: Iterable[str]) -> dict[str, Generation]:
        """
        Ask about many generations in one request, which is free of charge.

        :return: the generations by their ids; ids that the gateway does not know are left out.
        :raises LumaNotFound: this gateway has no such call.
        :raises LumaInvalidRequest: more ids than this gateway takes at once (it does not say how many those are).
        :raises LumaError: it could not be asked.
        """
        ids = list(task_ids)
        if not ids:
            return {}
        call = f"Asking about {len(ids)} generations"
        content = gateway.encode({"ids": ids})
        return self._read(
            "POST", gateway.QUERY_MANY_PATH, lambda answer: gateway.parse_generations(answer, call=call), call, content
        )

    def _read(self, method: str, path: str, parse: Callable[[Any], T], call: str, content: bytes | None = None) -> T:
        return self._repeated(
            lambda left: parse(self._send(method, path, content, call=call, limit=min(self.timeout, left))),
            (LumaConnectionError, LumaRateLimited, LumaServerError),
        )

    def _submit(self, path: str, body: Mapping[str, Any], witness: Witness | None, *, call: str) -> Generation:
        content = gateway.encode(body)

        def attempt(_left: float) -> Generation:
            outgoing = _Outgoing(content, witness)
            try:
                answer = self._send("POST", path, outgoing, call=call, limit=self.timeout)
                return gateway.parse_generation(answer, call=call)
            except Exception as error:
                lost = not isinstance(error, LumaError) or isinstance(error, LumaConnectionError)
                if outgoing.begun and (lost or getattr(error, "maybe_charged", False)):
                    raise LumaAmbiguousSubmission(
                        f"{error} The request went out, so it may have been accepted and charged: nobody can know.",
                        status=getattr(error, "status", None),
                        code=getattr(error, "code", None),
                        request_id=getattr(error, "request_id", None),
                    ) from error
                if outgoing.begun and witness:
                    witness.refused()
                raise

        return self._repeated(attempt, (LumaConnectionError, LumaRateLimited))

    def _repeated(self, attempt: Callable[[float], T], errors: tuple[type[LumaError], ...]) -> T:
        """Call ``attempt`` with the seconds that are left, again and again while it raises one of ``errors``."""
        deadline = time.monotonic() + self.patience
        repeat = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(errors),
            stop=tenacity.stop_before_delay(self.patience),
            wait=_wait,
            before_sleep=_log_wait,
            reraise=True,
        )
        return repeat(lambda: attempt(max(1.0, deadline - time.monotonic()) if self.patience else self.timeout))

    def _send(self, method: str, path: str, content: bytes | _Outgoing | None, *, call: str, limit: float) -> Any:
        """Send one request and return the JSON of its answer, all within about ``limit`` seconds."""
        import requests
        import urllib3

        call = f"{call} at {urlsplit(self.url).netloc}"
        # A connection that was idle may be dead, which a submission could not tell from an answer that was lost.
        session = self._new_session() if isinstance(content, _Outgoing) else self._session
        try:
            with session.request(
                method,
                self.url + path,
                data=content,
                timeout=(min(CONNECT_TIMEOUT, limit), limit),
                verify=self.verify,
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = self._received(answer, call=call, limit=limit)
                return gateway.read_answer(answer.status_code, body, answer.headers, call=call)
        except requests.Timeout as error:
            raise LumaConnectionError(f"{call}: no answer within {limit:g} s.") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise LumaConnectionError(f"{call}: {cause(error)}.") from error
        except OSError as error:
            raise LumaConnectionError(f"{call}: {error}.") from error
        finally:
            if isinstance(content, _Outgoing):
                session.close()

    def _received(self, answer: requests.Response, *, call: str, limit: float) -> bytes:
        """Return the whole body, without the token in it, as long as it is neither too large nor too slow."""
        received = bytearray()
        deadline = time.monotonic() + limit
        # As it comes: requests itself waits for a full chunk, however slowly that drips in. urllib3 1 knows no better.
        read = getattr(answer.raw, "read1", answer.raw.read)
        while part := read(64 * 1024, decode_content=True):
            received += part
            if len(received) > MAX_ANSWER_BYTES:
                raise LumaServerError(f"{call}: answered with over 10 MiB, which was not read on.")
            if time.monotonic() > deadline and answer.raw.length_remaining != 0:
                raise LumaConnectionError(f"{call}: the answer took too long to come.")
        # A gateway may repeat the token that it refuses. A word shorter than any token is a part of other words.
        token = self._token.encode()
        return bytes(received.replace(token, b"***") if len(token) >= 8 else received)

    @property
    def _session(self) -> requests.Session:
        """This thread's session, which neither another thread nor a forked child may use."""
        if getattr(self._own, "pid", None) != os.getpid():
            self._own.session, self._own.pid = self._new_session(), os.getpid()
        return self._own.session  # type: ignore[no-any-return]

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


class _Outgoing(io.BytesIO):
    """A request body that knows whether it began to go out; until then, nothing can have been accepted."""

    def __init__(self, content: bytes, witness: Witness | None) -> None:
        super().__init__(content)
        self.begun = False
        self._witness = witness

    def read(self, size: int | None = -1) -> bytes:
        if not self.begun and self._witness:
            self._witness.sending()
        self.begun = True
        return super().read(size)


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the seconds to wait before the next try: what the gateway asked for, or back-off with jitter."""
    error = state.outcome.exception() if state.outcome else None
    back_off = tenacity.wait_random_exponential(multiplier=0.5, max=15)(state)
    return (getattr(error, "retry_after", None) or 0) + back_off


def _log_wait(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.info("%s Trying again in %.1f s.", error, state.upcoming_sleep)

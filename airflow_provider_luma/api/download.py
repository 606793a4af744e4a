"""Fetching a finished file from the CDN: whole, going on where it was cut, and never with the token."""

from __future__ import annotations

import base64
import hashlib
import logging
import random
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from airflow_provider_luma import __version__
from airflow_provider_luma.api.errors import (
    LumaApiError,
    LumaConnectionError,
    LumaError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaRateLimited,
    LumaServerError,
    cause,
)
from airflow_provider_luma.api.guard import guard
from airflow_provider_luma.api.retry import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

log = logging.getLogger(__name__)

CHUNK = 1024 * 1024
REDIRECTS = 5
TRIES = 8
"""So many failures in a row, without a byte that was new, end a download: about a minute."""

REPORT_EVERY = 10.0


class Target(Protocol):
    """What a file is written to."""

    def write(self, data: bytes) -> object:
        """Take the next bytes."""

    def restart(self) -> None:
        """Forget all that was written."""


@dataclass(frozen=True)
class Described:
    """What a CDN says of a file: its size in bytes, its type, and its MD5 in Base64 where it has that."""

    size: int
    content_type: str
    md5: str | None


@dataclass(frozen=True)
class Fetched:
    """A file that has arrived whole: its size in bytes, its SHA-256 in hexadecimal, and its type."""

    size: int
    sha256: str
    content_type: str


class Download:
    """
    One file on a CDN.

    Only http and https, and no address of a private network, on this host or on one that it redirects to: a URL comes
    from outside, and must not make a worker ask what only a worker can reach.

    :param url: where it is.
    :param fresh_url: asked for another URL when this one is refused, which is what becomes of old ones.
    :param gateway_host: the one host name that may be on a private network.
    :param timeout: seconds to wait for the next bytes.
    :param verify: whether to check the TLS certificate of ``gateway_host``, or a CA bundle to check it against; all
        others are checked as `requests` does by default.
    """

    def __init__(
        self,
        url: str,
        fresh_url: Callable[[], str],
        *,
        gateway_host: str,
        timeout: float = 30.0,
        verify: bool | str = True,
    ) -> None:
        self.url = url
        self._fresh_url = fresh_url
        self._gateway_host = gateway_host
        self._timeout = timeout
        self._verify = verify

    def describe(self) -> Described:
        """
        Ask what the file is like, without fetching it.

        :raises LumaError: it could not be asked.
        """
        described: Described = self._insisting(self._describe)
        return described

    def copy_to(self, target: Target) -> Fetched:
        """
        Fetch the file into the target, and check that it is whole.

        :raises LumaNotFound: the URL is refused, and so is a fresh one.
        :raises LumaInvalidRequest: the URL leads where it must not.
        :raises LumaError: it could not be fetched.
        """
        transfer = _Transfer(target)
        self._insisting(lambda: self._transfer(transfer), lambda: transfer.most)
        return Fetched(transfer.received, transfer.sha256.hexdigest(), transfer.content_type)

    def _insisting(self, attempt: Callable[[], Any], progress: Callable[[], int] = lambda: 0) -> Any:
        """Repeat an attempt while there is trouble that may pass, and for as long as each brings something new."""
        failures, refused, reached = 0, False, 0
        while True:
            try:
                return attempt()
            except (LumaConnectionError, LumaRateLimited, LumaServerError, LumaNotFound) as error:
                if progress() > reached:
                    failures, refused, reached = 0, False, progress()
                if isinstance(error, LumaNotFound):
                    if refused:
                        raise
                    refused = True
                    log.info("%s Asking the gateway for a fresh URL.", error)
                    self.url = self._fresh_url()
                    continue
                failures += 1
                if failures >= TRIES:
                    raise
                back_off = min(0.25 * 2**failures, 15.0) * random.uniform(0.5, 1)  # noqa: S311
                seconds = max(back_off, min(error.retry_after or 0.0, 600.0))
                log.info("%s Trying again in %.1f s.", error, seconds)
                time.sleep(seconds)

    def _describe(self) -> Described:
        with self._answer({}) as answer:
            size = _length(answer)
            with _told(_name(answer.url)):
                start = answer.raw.read(64)
            _refuse_page(_content_type(answer), start, _name(answer.url))
            return Described(size, _content_type(answer), answer.headers.get("Content-MD5"))

    def _transfer(self, transfer: _Transfer) -> None:
        """Fetch what is missing, or all of it where the CDN cannot give a part."""
        with transfer.retraced(), self._answer(transfer.wanted()) as answer:
            transfer.begin(answer)
            where = _name(answer.url)
            # As it comes: what `read` has gathered when a connection is cut would be lost. urllib3 1 knows no better.
            read = getattr(answer.raw, "read1", answer.raw.read)
            with _told(where):
                part = read(CHUNK, decode_content=False)
            while part:
                # Outside of it, so that a full disk is not taken for a broken connection.
                transfer.take(part, where)
                with _told(where):
                    part = read(CHUNK, decode_content=False)
            transfer.end(where)

    @contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Send one request, follow where it leads, and give the answer if that is good."""
        url = self.url
        for _ in range(REDIRECTS + 1):
            with _told(_name(url)):
                session, answer = self._ask(url, headers)
            try:
                if not answer.is_redirect:
                    _check_status(answer)
                    yield answer
                    return
                with _told(_name(url)):
                    url = urljoin(url, answer.headers["Location"])
            finally:
                answer.close()
                session.close()
        raise LumaServerError(f"{_name(self.url)} redirects more than {REDIRECTS} times.")

    def _ask(self, url: str, headers: dict[str, str]) -> tuple[requests.Session, requests.Response]:
        import requests

        # As it will be sent: what comes before a backslash, say, is another host to one parser than to the next.
        url = requests.Request("GET", url).prepare().url or ""
        parts = urlsplit(url)
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host:
            raise LumaInvalidRequest(f"A file's URL must be http or https, not {parts.scheme}. Nothing was fetched.")
        session = requests.Session()
        # Keeps requests from sending a password out of a .netrc file.
        session.auth = lambda request: request
        own = host == self._gateway_host
        if not own:
            guard(session, url, host)
        answer = session.get(
            url,
            headers={
                "User-Agent": f"airflow-provider-luma/{__version__}",
                "Accept": "*/*",
                # Or the length would be that of something else than the file.
                "Accept-Encoding": "identity",
                **headers,
            },
            timeout=(min(10.0, self._timeout), self._timeout),
            verify=self._verify if own else None,
            allow_redirects=False,
            stream=True,
        )
        return session, answer


class _Transfer:
    """How far a file has come, over as many connections as that takes."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.most = 0
        self.content_type = ""
        self._forget()

    def _forget(self) -> None:
        self.received = 0
        self.total = -1
        self.sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._said_md5: str | None = None
        self._validator: str | None = None
        self._reported = (0, time.monotonic())

    def wanted(self) -> dict[str, str]:
        """Return the headers that ask for what is missing, if the file is still the one that was begun."""
        if not self.received:
            return {}
        headers = {"Range": f"bytes={self.received}-"}
        if self._validator:
            headers["If-Range"] = self._validator
        return headers

    @contextmanager
    def retraced(self) -> Iterator[None]:
        """Start over after an answer that says that there is nothing from here on."""
        try:
            yield
        except LumaServerError as error:
            if error.status == 416:
                self.start_over()
            raise

    def begin(self, answer: requests.Response) -> None:
        """Take note of what an answer is going to bring."""
        if answer.status_code == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if found and (int(found[1]), int(found[2])) == (self.received, self.total):
                log.info("Going on after %s bytes.", f"{self.received:,}")
                return
            self.start_over()
            raise LumaServerError(f"{_name(answer.url)}: sent another part of the file than it was asked for.")
        if self.received:
            log.info("The file begins anew: it has changed, or the CDN cannot send a part of it.")
            self.start_over()
        self.total = _length(answer)
        self.content_type = _content_type(answer)
        self._said_md5 = answer.headers.get("Content-MD5")
        etag = answer.headers.get("ETag", "")
        self._validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")

    def take(self, part: bytes, where: str) -> None:
        """Write the next bytes."""
        if not self.received:
            _refuse_page(self.content_type, part, where)
        self._target.write(part)
        self.sha256.update(part)
        if self._said_md5:
            self._md5.update(part)
        self.received += len(part)
        self.most = max(self.most, self.received)
        self._report()

    def end(self, where: str) -> None:
        """Raise LumaError unless the file is whole."""
        if self.received < self.total:
            raise LumaConnectionError(f"{where}: cut after {self.received:,} of {self.total:,} bytes.")
        wrong = self.received > self.total or (
            self._said_md5 and base64.b64encode(self._md5.digest()).decode() != self._said_md5
        )
        if wrong:
            received = self.received
            self.start_over()
            raise LumaServerError(f"{where}: sent {received:,} bytes that are not the file it had announced.")

    def start_over(self) -> None:
        """Forget all that came."""
        self._target.restart()
        self._forget()

    def _report(self) -> None:
        """Log a line for each tenth, and each ten seconds."""
        tenth, now = 10 * self.received // self.total, time.monotonic()
        if tenth > self._reported[0] or now > self._reported[1] + REPORT_EVERY:
            self._reported = tenth, now
            log.info("%d %% of %s bytes.", 100 * self.received // self.total, f"{self.total:,}")


def _check_status(answer: requests.Response) -> None:
    """Raise what an answer means that brings no file."""
    status, where = answer.status_code, _name(answer.url)
    if status in (200, 206):
        return
    if status == 429:
        raise LumaRateLimited(
            f"{where}: HTTP 429, too many requests.",
            status=status,
            retry_after=parse_retry_after(answer.headers.get("Retry-After")),
        )
    if status >= 500 or status in (408, 416, 425):
        raise LumaServerError(f"{where}: HTTP {status}.", status=status)
    if status >= 400:
        # Each CDN has a number of its own for a URL whose time is over.
        raise LumaNotFound(f"{where}: HTTP {status}, the URL has expired, or the file is gone.", status=status)
    raise LumaApiError(f"{where}: HTTP {status}, which brings no file.", status=status)


def _refuse_page(content_type: str, start: bytes, where: str) -> None:
    """Raise LumaServerError for a page or a message in place of a video or an image."""
    kind = content_type.lower()
    begins = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if kind.startswith("text/") or kind.endswith(("json", "xml")) or begins in (b"<", b"{", b"["):
        raise LumaServerError(f"{where}: answered with a page ({kind}) in place of the file.")


def _length(answer: requests.Response) -> int:
    """Return how long the file is; one whose length nobody says cannot be known to be whole."""
    said = answer.headers.get("Content-Length", "")
    where = _name(answer.url)
    if answer.headers.get("Content-Encoding", "identity") != "identity" or not said.isdecimal():
        raise LumaServerError(f"{where}: does not say how long the file is, so nobody could tell whether it is whole.")
    if not int(said):
        raise LumaServerError(f"{where}: the file is empty.")
    return int(said)


def _content_type(answer: requests.Response) -> str:
    return str(answer.headers.get("Content-Type", "")).partition(";")[0].strip() or "application/octet-stream"


def _name(url: str) -> str:
    """Return a URL as it may be logged: what comes after the path may be a key to it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn what `requests` raises into this package's errors."""
    import requests
    import urllib3

    try:
        yield
    except LumaError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # Nothing of it is kept but what is at its bottom: the rest may hold the query, which may be a key.
        if isinstance(error, ValueError):
            raise LumaInvalidRequest(f"{where}: a URL that makes no sense. Nothing was fetched.") from None
        raise LumaConnectionError(f"{where}: {cause(error)}.") from None

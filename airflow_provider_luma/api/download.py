"""Fetching a finished file from the CDN: whole, resumed where it was cut, and never with the token."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urljoin, urlsplit

from airflow_provider_luma import __version__
from airflow_provider_luma.api.diagnosis import unreachable
from airflow_provider_luma.api.errors import (
    LumaConnectionError,
    LumaError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.api.retry import backoff, parse_retry_after
from airflow_provider_luma.api.url import redact_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

log = logging.getLogger(__name__)

USER_AGENT = f"airflow-provider-luma/{__version__}"
CHUNK = 1024 * 1024
REDIRECTS = 5
TRIES = 8
"""So many failures in a row, without a new byte, end a download: about a minute."""

PROGRESS_INTERVAL = 10.0
"""Seconds between two lines of the log that say how far a download has come."""


class Target(Protocol):
    """What a file is written to."""

    def write(self, data: bytes) -> object:
        """Append bytes."""

    def restart(self) -> None:
        """Discard all that was written."""


@dataclass(frozen=True)
class DownloadResult:
    """A file's size in bytes, its SHA-256 in hexadecimal (None where it was not fetched), and its content type."""

    size: int
    sha256: str | None
    content_type: str


@dataclass
class Download:
    """
    One file on a CDN.

    Only http and https, and no address of a private network, on this host or on one that it redirects to: a URL comes
    from outside, and must not make a worker contact what only a worker can reach.

    :param url: where it is.
    :param fresh_url: returns another URL when this one is refused, as expired ones are.
    :param api_host: the one host name that may be on a private network.
    :param timeout: seconds to wait for the next bytes.
    :param verify: whether to check the TLS certificate of ``api_host``, or a CA bundle to check it against; all
        others are checked as `requests` does by default.
    """

    url: str
    fresh_url: Callable[[], str]
    api_host: str
    timeout: float = 30.0
    verify: bool | str = True

    def copy_to(self, target: Target, wanted: Callable[[int], bool] | None = None) -> DownloadResult:
        """
        Fetch the file into the target, and check that it is whole.

        :param wanted: is given the size in bytes before anything is written; if it returns False, nothing is.
        :raises LumaNotFound: the URL is refused, and so are fresh ones.
        :raises LumaInvalidRequest: the URL leads where it must not.
        :raises LumaError: it could not be fetched.
        """
        transfer = _Transfer(target)
        failures, reached = 0, 0
        while True:
            try:
                return self._fetch(transfer, wanted)
            except (LumaConnectionError, LumaRateLimited, LumaServerError, LumaNotFound) as error:
                if transfer.received > reached:
                    failures, reached = 0, transfer.received
                if failures == TRIES - 1:
                    raise
                if error.status == 416:
                    # The CDN has no byte from here on: it is another file now.
                    transfer.restart()
                seconds = backoff(0.5, failures, error.retry_after, longest=15.0)
                failures += 1
                log.info("%s Trying again in %.1f s.", error, seconds)
                time.sleep(seconds)
                if isinstance(error, LumaNotFound):
                    log.info("Getting a fresh URL from the API.")
                    self.url = self.fresh_url()

    def _fetch(self, transfer: _Transfer, wanted: Callable[[int], bool] | None) -> DownloadResult:
        """Fetch what is missing, or all of it where the CDN cannot send a part."""
        with self._answer(transfer.range_headers()) as answer:
            transfer.begin(answer)
            for part in _parts(answer):
                if not transfer.received:
                    _refuse_page(answer, part)
                    if wanted and not wanted(transfer.total):
                        return DownloadResult(transfer.total, None, transfer.content_type)
                transfer.write(part)
        return transfer.result()

    @contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Send one request, follow redirects, and give the answer if it brings a file."""
        import requests

        url = self.url
        for _ in range(REDIRECTS + 1):
            with requests.Session() as session, self._get(session, url, headers) as answer:
                if not answer.is_redirect:
                    _check_status(answer)
                    yield answer
                    return
                with _translate_errors(url):
                    url = urljoin(url, answer.headers["Location"])
        raise LumaServerError(f"{redact_uri(self.url)} redirects more than {REDIRECTS} times.")

    def _get(self, session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
        import requests

        from airflow_provider_luma.api.guard import guard

        with _translate_errors(url):
            # As it will be sent: what comes before a backslash, say, is another host to one parser than to the next.
            url = requests.Request("GET", url).prepare().url or ""
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise LumaInvalidRequest(
                    f"A file's URL must be http or https, not {parts.scheme}. Nothing was fetched."
                )
            # Keeps requests from sending a password out of a .netrc file.
            session.auth = lambda request: request
            is_api = parts.hostname == self.api_host
            if not is_api:
                guard(session, url, parts.hostname)
            return session.get(
                url,
                # Without "identity", the length would be that of a compressed file.
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
                timeout=(min(10.0, self.timeout), self.timeout),
                verify=self.verify if is_api else None,
                allow_redirects=False,
                stream=True,
            )


class _Transfer:
    """How far a file has come, over as many connections as that takes."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._where = ""
        self._reset()

    def _reset(self) -> None:
        self.received = 0
        self.total = -1
        self.content_type = ""
        self._sha256 = hashlib.sha256()
        self._validator: str | None = None
        self._logged_at = time.monotonic()

    def range_headers(self) -> dict[str, str]:
        """Return the headers that request what is missing, if the file is still the one that was begun."""
        if not self.received:
            return {}
        headers = {"Range": f"bytes={self.received}-"}
        if self._validator:
            headers["If-Range"] = self._validator
        return headers

    def begin(self, answer: requests.Response) -> None:
        """Read what an answer's headers say of the file."""
        self._where = redact_uri(answer.url)
        if answer.status_code == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if found and (int(found[1]), int(found[2])) == (self.received, self.total):
                log.info("Resuming after %s bytes.", f"{self.received:,}")
                return
            self.restart()
            raise LumaServerError(f"{self._where}: sent another part of the file than was requested.")
        if self.received:
            log.info("Starting over: the file has changed, or the CDN cannot send a part of it.")
            self.restart()
        self.total = _length(answer)
        self.content_type = _content_type(answer)
        etag = answer.headers.get("ETag", "")
        # A weak ETag (W/"...") promises the same meaning, not the same bytes.
        self._validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")

    def write(self, part: bytes) -> None:
        """Write the next bytes."""
        if self.received + len(part) > self.total:
            total = self.total
            self.restart()
            raise LumaServerError(f"{self._where}: sent more than the {total:,} bytes that it had announced.")
        self._target.write(part)
        self._sha256.update(part)
        self.received += len(part)
        now = time.monotonic()
        if now - self._logged_at >= PROGRESS_INTERVAL and self.received < self.total:
            self._logged_at = now
            log.info("%d %% of %s bytes.", 100 * self.received // self.total, f"{self.total:,}")

    def result(self) -> DownloadResult:
        """Return what was fetched; raise LumaConnectionError unless it is whole."""
        if self.received < self.total:
            raise LumaConnectionError(f"{self._where}: cut after {self.received:,} of {self.total:,} bytes.")
        return DownloadResult(self.received, self._sha256.hexdigest(), self.content_type)

    def restart(self) -> None:
        """Discard all that came."""
        self._target.restart()
        self._reset()


def _parts(answer: requests.Response) -> Iterator[bytes]:
    # As they come: what `read` has gathered when a connection is cut would be lost. urllib3 1 has no `read1`.
    read = getattr(answer.raw, "read1", answer.raw.read)
    while True:
        with _translate_errors(answer.url):
            part = read(CHUNK, decode_content=False)
        if not part:
            return
        yield part


def _check_status(answer: requests.Response) -> None:
    """Raise the error that an answer means that brings no file."""
    status, where = answer.status_code, redact_uri(answer.url)
    if status in (200, 206):
        return
    retry_after = parse_retry_after(answer.headers.get("Retry-After"))
    if status == 429:
        raise LumaRateLimited(f"{where}: HTTP 429, too many requests.", status=status, retry_after=retry_after)
    if not 400 <= status < 500 or status in (408, 416, 425):
        raise LumaServerError(f"{where}: HTTP {status}.", status=status, retry_after=retry_after)
    # Each CDN has a status of its own for an expired URL.
    raise LumaNotFound(f"{where}: HTTP {status}, the URL has expired, or the file is gone.", status=status)


def _refuse_page(answer: requests.Response, start: bytes) -> None:
    """Raise LumaServerError for a page or a message in place of a video or an image."""
    kind = _content_type(answer).lower()
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if kind.startswith("text/") or kind.endswith(("json", "xml")) or first in (b"<", b"{", b"["):
        raise LumaServerError(f"{redact_uri(answer.url)}: answered with a page ({kind}) in place of the file.")


def _length(answer: requests.Response) -> int:
    """Return the file's length in bytes; without one, a file could be cut and look whole."""
    length, where = answer.headers.get("Content-Length", ""), redact_uri(answer.url)
    if answer.headers.get("Content-Encoding", "identity") != "identity" or not length.isdecimal() or not int(length):
        raise LumaServerError(f"{where}: does not say how long the file is, or says 0: it may be cut.")
    return int(length)


def _content_type(answer: requests.Response) -> str:
    return str(answer.headers.get("Content-Type", "")).partition(";")[0].strip() or "application/octet-stream"


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Turn what `requests` raises into this package's errors, which hold no query of a URL."""
    import requests
    import urllib3

    try:
        yield
    except LumaError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise LumaConnectionError(f"The file was not fetched: {unreachable(error, redact_uri(url))}.") from None
    except ValueError:
        raise LumaInvalidRequest(f"{redact_uri(url)}: invalid URL. Nothing was fetched.") from None

"""Download a finished file from the CDN: complete, resumed after a cut, and without the token."""

from __future__ import annotations

import gzip
import logging
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING
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
from airflow_provider_luma.api.transfer import DownloadResult, Transfer, is_compressed
from airflow_provider_luma.api.url import redact_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from airflow_provider_luma.api.transfer import Target

log = logging.getLogger(__name__)

USER_AGENT = f"airflow-provider-luma/{__version__}"
CHUNK = 1024 * 1024
REDIRECTS = 5
START = 512
"""Bytes to wait for before the first look at a file; a connection may bring the first byte alone."""

PATIENCE = 60.0
"""Give up before the pauses since the last new byte become longer than this, in seconds."""


@dataclass
class Download:
    """
    One file on a CDN.

    Only http and https URLs are requested, and no host in a private network. This also holds for redirects: a URL from
    outside must not make a worker contact hosts that only the worker can reach. The host and port of ``api_url`` are
    exempt if all addresses of that host are private when the object is created.

    :param url: the file's URL.
    :param fresh_url: returns a new URL; called after the CDN refused the old one.
    :param api_url: the URL of the API that the connection points to.
    :param timeout: seconds to wait for a connection (10 at most), for all headers of an answer, and for the next bytes.
    :param verify: True, False or the path of a CA bundle: how to check the TLS certificate of the API's host and port.
        The certificates of other hosts are always checked; a bundle is trusted in addition to the default one.
    """

    url: str
    fresh_url: Callable[[], str]
    api_url: str
    timeout: float = 30.0
    verify: bool | str = True

    def __post_init__(self) -> None:
        from airflow_provider_luma.api.guard import is_private

        self._api_is_private = is_private(urlsplit(self.api_url).hostname or "")

    def copy_to(self, target: Target, wanted: Callable[[int | None], bool] | None = None) -> DownloadResult:
        """
        Download the complete file into the target.

        :param wanted: called before anything is written with the size in bytes, or None if the CDN does not announce
            it; return False to skip the download.
        :raises LumaNotFound: the CDN refused the URL and its replacements.
        :raises LumaInvalidRequest: the URL is invalid, or its host is in a private network.
        :raises LumaError: the download failed.
        """
        transfer = Transfer(target)
        failures, paused, reached = 0, 0.0, 0
        while True:
            try:
                return self._fetch(transfer, wanted)
            except (LumaConnectionError, LumaRateLimited, LumaServerError, LumaNotFound) as error:
                if transfer.received > reached:
                    failures, paused, reached = 0, 0.0, transfer.received
                if error.status == 416:
                    # The file is shorter now, so it is a different file.
                    transfer.restart()
                seconds = backoff(0.5, failures, error.retry_after, longest=15.0)
                failures, paused = failures + 1, paused + seconds
                if paused > PATIENCE:
                    raise
                log.info("%s Trying again in %.1f s.", error, seconds)
                time.sleep(seconds)
                if isinstance(error, LumaNotFound):
                    self.url = self.fresh_url()

    def _fetch(self, transfer: Transfer, wanted: Callable[[int | None], bool] | None) -> DownloadResult:
        """Request the missing bytes once and write them."""
        with self._answer(transfer.range_headers()) as answer:
            transfer.begin(answer)
            for part in _parts(answer):
                if not transfer.received:
                    transfer.refuse_page(part)
                    if wanted and not wanted(transfer.size):
                        return DownloadResult(transfer.size or 0, None, transfer.content_type)
                transfer.write(part)
        return transfer.result()

    @contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Send the request, follow redirects, and yield the answer with the file."""
        import requests

        url = self.url
        for _ in range(REDIRECTS + 1):
            with requests.Session() as session, self._get(session, url, headers) as answer:
                with _translate_errors(url):
                    location = session.get_redirect_target(answer)
                    url = urljoin(url, location or "")
                if location is None:
                    _check_status(answer)
                    yield answer
                    return
        raise LumaServerError(f"{redact_uri(self.url)} redirects more than {REDIRECTS} times.")

    def _get(self, session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
        import requests

        from airflow_provider_luma.api.guard import guard
        from airflow_provider_luma.api.timed import TimedAdapter

        with _translate_errors(url):
            # Check the URL that will be sent: parsers disagree on the host of a URL that contains a backslash.
            url = requests.Request("GET", url).prepare().url or ""
            scheme, origin = urlsplit(url).scheme, _origin(url)
            if scheme not in ("http", "https") or not origin[0]:
                raise LumaInvalidRequest(f"The URL of the file must be http or https, got {scheme}.")
            # Otherwise requests would send a password from a .netrc file.
            session.auth = lambda request: request
            is_api = origin == _origin(self.api_url)
            checks = [] if is_api and self._api_is_private else guard(url)
            bundle = self.verify if isinstance(self.verify, str) and not is_api else None
            session.mount(f"{scheme}://", TimedAdapter(*checks, bundle=bundle))
            return session.get(
                url,
                # A compressed answer would have another length than the file.
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
                timeout=(min(10.0, self.timeout), self.timeout),
                verify=self.verify if is_api else None,
                allow_redirects=False,
                stream=True,
            )


def _origin(url: str) -> tuple[str | None, int]:
    """Return the host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or {"http": 80}.get(parts.scheme, 443)


def _parts(answer: requests.Response) -> Iterator[bytes]:
    """Yield the bytes as they arrive: `read` would lose its buffer if the connection breaks."""
    # urllib3 1 has no `read1`.
    read = getattr(answer.raw, "read1", answer.raw.read)
    if is_compressed(answer):
        read = gzip.GzipFile(fileobj=SimpleNamespace(read=read)).read1
    start = b""
    with _translate_errors(answer.url):
        while len(start) < START and (part := read(CHUNK)):
            start += part
        while start:
            yield start
            start = read(CHUNK)


def _check_status(answer: requests.Response) -> None:
    """Raise an error for an answer that does not contain a file."""
    status, where = answer.status_code, redact_uri(answer.url)
    if status in (200, 206):
        return
    if not 400 <= status < 500 or status in (408, 416, 425, 429):
        retry_after = parse_retry_after(answer.headers.get("Retry-After"))
        kind = LumaRateLimited if status == 429 else LumaServerError
        raise kind(f"{where}: the CDN answered with HTTP {status}.", status=status, retry_after=retry_after)
    # CDNs use different statuses for an expired URL.
    raise LumaNotFound(f"{where}: HTTP {status}. The URL has expired, or the file was deleted.", status=status)


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Turn errors of `requests` into errors of this package, without the query of the URL."""
    import requests
    import urllib3

    try:
        yield
    except LumaError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, EOFError, zlib.error) as error:
        raise LumaConnectionError(f"The download failed: {unreachable(error, redact_uri(url))}.") from None
    except ValueError:
        raise LumaInvalidRequest(f"The URL of the file is invalid: {redact_uri(url)}") from None

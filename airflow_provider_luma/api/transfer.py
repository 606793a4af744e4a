"""The bookkeeping of one download: the identity of the file, its progress, and whether it is complete."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_luma.api.errors import LumaConnectionError, LumaInvalidRequest, LumaServerError
from airflow_provider_luma.api.url import redact_uri

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

MAX_SIZE = 5 * 2**30
"""Largest file in bytes."""

PROGRESS_INTERVAL = 10.0
"""Seconds between two progress messages in the log."""


class Target(Protocol):
    """The place that a file is written to."""

    def write(self, data: bytes) -> object:
        """Append bytes."""

    def restart(self) -> None:
        """Discard everything written so far."""


@dataclass(frozen=True)
class DownloadResult:
    """A file's size in bytes, its SHA-256 (hexadecimal; None if it was not downloaded) and its content type."""

    size: int
    sha256: str | None
    content_type: str


def is_compressed(answer: requests.Response) -> bool:
    """Return whether an answer is compressed with gzip; raise LumaServerError for other encodings."""
    # Some object stores report the encoding of the upload, `aws-chunked`, for a file that is not encoded.
    encoding = re.sub(r"identity|aws-chunked|[\s,]", "", answer.headers.get("Content-Encoding", "").lower())
    if encoding not in ("", "gzip", "x-gzip"):
        raise LumaServerError(f"{redact_uri(answer.url)}: the CDN sent an encoded file ({encoding:.80}).")
    return bool(encoding)


def _identity(answer: requests.Response) -> tuple[str | None, int | None]:
    """
    Return the validator and the size that tell one file from another; raise LumaServerError if the file has no end.

    The validator is the strong ETag or the date of the last change. A chunked or compressed answer has no size. Two
    files are the same if both have both values, and the values are equal.
    """
    etag = answer.headers.get("ETag", "")
    # A weak ETag (W/"...") promises the same meaning, not the same bytes.
    validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
    part = answer.status_code == 206
    if is_compressed(answer) or (not part and answer.headers.get("Transfer-Encoding", "").lower() == "chunked"):
        return validator, None
    size = answer.headers.get("Content-Range" if part else "Content-Length", "").rpartition("/")[2]
    if size.isdecimal() and int(size):
        return validator, int(size)
    if part:
        return validator, None
    raise LumaServerError(f"{redact_uri(answer.url)}: the CDN gives no length, so the file may be incomplete.")


class Transfer:
    """Writes one file to a target, over as many connections as necessary."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._where = ""
        self._reset()

    def _reset(self) -> None:
        self.received = 0
        self.validator: str | None = None
        self.size: int | None = None
        self.content_type = ""
        self._sha256 = hashlib.sha256()
        self._logged_at = time.monotonic()

    def range_headers(self) -> dict[str, str]:
        """Return the request headers for the missing bytes; empty if the file cannot be recognised."""
        if not self.validator or not 0 < self.received < (self.size or 0):
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self.validator}

    def begin(self, answer: requests.Response) -> None:
        """Read the headers of an answer; raise LumaServerError if it does not contain the requested bytes."""
        self._where = redact_uri(answer.url)
        validator, size = _identity(answer)
        if answer.status_code == 206:
            continues = answer.headers.get("Content-Range", "").startswith(f"bytes {self.received}-")
            if continues and self.range_headers() and (validator, size) == (self.validator, self.size):
                log.info("Resuming after %s bytes.", f"{self.received:,}")
                return
            self.restart()
            raise LumaServerError(f"{self._where}: the CDN sent a different part or file than requested.")
        if self.received:
            log.info("Starting over: the file has changed, or the CDN cannot send parts of it.")
            self.restart()
        self.validator, self.size = validator, size
        content_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        self.content_type = content_type or "application/octet-stream"

    def write(self, part: bytes) -> None:
        """Write the next bytes; raise LumaInvalidRequest if the file is too large."""
        end = self.received + len(part)
        if max(end, self.size or 0) > MAX_SIZE:
            raise LumaInvalidRequest(f"{self._where}: larger than {MAX_SIZE:,} bytes, so it was not stored.")
        self._target.write(part)
        self._sha256.update(part)
        self.received = end
        now = time.monotonic()
        if now - self._logged_at >= PROGRESS_INTERVAL and end != self.size:
            self._logged_at = now
            log.info("%s of %s bytes.", f"{end:,}", f"{self.size:,}" if self.size else "an unknown number of")

    def refuse_page(self, start: bytes) -> None:
        """Raise LumaServerError if a file starts like a web page or JSON, or is declared as text."""
        kind = self.content_type.lower()
        first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if kind.startswith("text/") or kind.endswith(("json", "xml")) or first in (b"", b"<", b"{", b"["):
            raise LumaServerError(f"{self._where}: the CDN sent a page ({kind}), not the file.")

    def result(self) -> DownloadResult:
        """Return the downloaded file; raise LumaConnectionError if it is empty or has not the announced size."""
        size = self.size or self.received or 1
        if self.received != size:
            raise LumaConnectionError(f"{self._where}: cut after {self.received:,} of {size:,} bytes.")
        return DownloadResult(self.received, self._sha256.hexdigest(), self.content_type)

    def restart(self) -> None:
        """Discard everything received so far."""
        self._target.restart()
        self._reset()

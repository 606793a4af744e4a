"""Read images from storage for a request."""

from __future__ import annotations

import base64
import logging
import re
from typing import Any

from airflow_provider_luma.api.errors import LumaInvalidRequest

log = logging.getLogger(__name__)

MAX_IMAGE_BYTES = 10 * 1024 * 1024

_SIGNATURE = re.compile(rb"(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpeg>\xff\xd8\xff)|(?P<webp>RIFF.{4}WEBP)", re.DOTALL)
"""The first bytes of an image by type."""


def is_stored(image: Any) -> bool:
    """
    Return whether an image must be read from storage, because the API cannot fetch it.

    :raises LumaInvalidRequest: the image is neither a path nor a URL.
    """
    scheme, separator, _ = str(image).partition(":")
    if scheme.lower() in ("http", "https", "data"):
        return False
    if not separator and not str(image).startswith("/"):
        raise LumaInvalidRequest(
            "An image must be an http(s) URL, a data: URI, or a path such as s3://bucket/key or /folder/file, got "
            f"{str(image)!r:.80}."
        )
    return True


def image_uri(image: str) -> str:
    """Return the URI of an image; a plain path gets the scheme ``file``."""
    return f"file://{image}" if image.startswith("/") else image


def data_uri(source: Any, argument: str) -> str:
    """
    Read an image from storage and return it as a ``data:`` URI.

    :param source: the path of the image.
    :param argument: the argument's name, for error messages.
    :raises LumaInvalidRequest: the image does not exist, is empty, is larger than 10 MiB, or is not PNG, JPEG or WebP.
    :raises LumaError: the store cannot be read now.
    """
    from airflow_provider_luma.operators import storage

    where = f"{argument}: {str(source)!r:.200}"
    path = storage.open_path(source)
    # A file system remembers its listings, which may be older than the image.
    path.fs.invalidate_cache()
    with storage.explain_errors(where, FileNotFoundError, IsADirectoryError), path.open("rb") as file:
        content: bytes = file.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise LumaInvalidRequest(f"{where} is larger than 10 MiB. Nothing was sent; make it smaller.")
    found = _SIGNATURE.match(content)
    if not found:
        problem = "is not a PNG, JPEG or WebP image" if content else "is empty"
        raise LumaInvalidRequest(f"{where} {problem}. Nothing was sent.")
    kind = str(found.lastgroup)
    log.info("%s is %s, %s bytes.", where, kind.upper(), f"{len(content):,}")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

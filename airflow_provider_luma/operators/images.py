"""Images on their way from storage into a request."""

from __future__ import annotations

import base64
import logging
from typing import Any

from airflow_provider_luma.api.errors import LumaError, LumaInvalidRequest

log = logging.getLogger(__name__)

MAX_IMAGE_BYTES = 10 * 1024 * 1024


def is_stored(image: Any) -> bool:
    """
    Return whether an image has to be read here, as the API cannot.

    :raises LumaInvalidRequest: it is neither a path nor a URL.
    """
    scheme, separator, _ = str(image).partition(":")
    if scheme.lower() in ("http", "https", "data"):
        return False
    if not separator and not str(image).startswith("/"):
        raise LumaInvalidRequest(
            "An image is an http(s) URL, a data: URI, or a path such as s3://bucket/key or /folder/file, got "
            f"{str(image)!r:.80}."
        )
    return True


def image_uri(image: str) -> str:
    """Return the URI of an image, with its scheme also where a plain path was given."""
    return f"file://{image}" if image.startswith("/") else image


def data_uri(source: Any, argument: str) -> str:
    """
    Return an image out of storage as a request has it.

    :param source: where it is.
    :param argument: what it is for, to be named in an error.
    :raises LumaInvalidRequest: it is not there, empty, over 10 MiB, or neither PNG, JPEG nor WebP.
    :raises LumaError: it cannot be read for now.
    """
    from airflow_provider_luma.operators import storage

    where = f"{argument}: {str(source)!r:.200}"
    path = storage.open_path(source)
    # An earlier look into the folder may have been before the image was there.
    path.fs.invalidate_cache()
    try:
        with path.open("rb") as file:
            content: bytes = file.read(MAX_IMAGE_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise LumaInvalidRequest(f"{where} is no file. Nothing was sent.") from error
    except Exception as error:
        raise LumaError(f"{where} cannot be read: {error!r:.300}. Nothing was sent.") from error
    if len(content) > MAX_IMAGE_BYTES:
        raise LumaInvalidRequest(f"{where} is larger than 10 MiB. Nothing was sent; make it smaller.")
    kind = _image_type(content)
    if kind is None:
        what = "is not a PNG, JPEG or WebP image" if content else "is empty"
        raise LumaInvalidRequest(f"{where} {what}. Nothing was sent.")
    log.info("%s is %s, %s bytes.", where, kind.upper(), f"{len(content):,}")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _image_type(content: bytes) -> str | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None

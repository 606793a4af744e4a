"""Images on their way from storage into a request."""

from __future__ import annotations

import base64
import logging
from typing import Any

from airflow_provider_luma.api import LumaError, LumaInvalidRequest
from airflow_provider_luma.template import is_template

log = logging.getLogger(__name__)

MAX_IMAGE_BYTES = 10 * 1024 * 1024


class ImageField:
    """
    An operator's argument that may hold a whole image as a ``data:`` URI, of which it shows only what it is.

    Airflow stores what a template field holds, and shows it to whoever looks at the task. The value itself is under
    the same name with an underscore before it.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, operator: Any, owner: type | None = None) -> Any:
        return self if operator is None else _shown(getattr(operator, self._name, None))

    def __set__(self, operator: Any, value: Any) -> None:
        # Airflow sets, once it has rendered it, what it has read here.
        if value is None or value != self.__get__(operator):
            setattr(operator, self._name, value)


def _shown(value: Any) -> Any:
    # What has Jinja in it is Airflow's to look at, and to know again: it renders no text that comes out of an XCom.
    if isinstance(value, str) and value.lower().startswith("data:") and not is_template(value):
        return f"{value.partition(',')[0][:40]},… ({len(value):,} characters)"
    return value


def is_stored(image: Any) -> bool:
    """
    Say whether an image has to be read here, the gateway being unable to.

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


def data_uri(source: Any, argument: str) -> str:
    """
    Return an image out of storage as the gateway takes it.

    :param source: where it is.
    :param argument: what it is for, to be named in an error.
    :raises LumaInvalidRequest: it is not there, empty, over 10 MiB, or neither PNG, JPEG nor WebP.
    :raises LumaError: it cannot be read for now.
    """
    from airflow_provider_luma.operators import storage

    where = f"{argument}: {str(source)!r:.200}"
    path = storage.open_path(source)
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

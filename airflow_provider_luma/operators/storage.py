"""Files in any store that Airflow's ObjectStoragePath can open."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_luma.api import LumaError, LumaInvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

log = logging.getLogger(__name__)

MEDIA = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".gif", ".jpg", ".jpeg", ".png", ".webp", ".exr")
"""Endings that make a destination a file; anything else is a folder."""

BLOCK = 8 * 1024 * 1024
"""Bytes in one part of an upload. An object store keeps two or three parts in memory."""


def open_path(uri: Any) -> ObjectStoragePath:
    """
    Return the path for a URI such as ``s3://conn_id@bucket/key`` or ``/folder/file``.

    :raises LumaInvalidRequest: the URI is not valid, or no installed package can open it.
    :raises LumaError: the store cannot be opened now.
    """
    text = re.sub("^(file|local)://localhost/", r"\1:///", str(uri))
    # Anything else before the path of a file would become a folder in the task's working folder.
    if not re.match(r"/|(file|local)://([^/@]*@)?/|(?!file:|local:)\w[\w+.-]*://", text):
        raise LumaInvalidRequest(f"{text!r:.200} is not a path: use one such as s3://bucket/key or /folder/file.")
    with explain_errors(text, ImportError, ValueError):
        path = uri if isinstance(uri, ObjectStoragePath) and text == str(uri) else ObjectStoragePath(text)
        path.fs  # noqa: B018 - fails if nothing can open the path
        return path


@contextmanager
def explain_errors(path: Any, *final: type[Exception]) -> Iterator[None]:
    """Turn any error of a store into a LumaError that names the file; ``final`` are errors that a retry cannot fix."""
    try:
        yield
    except LumaError:
        raise
    except Exception as error:
        kind = LumaInvalidRequest if isinstance(error, final) else LumaError
        raise kind(
            f"{path!s:.200} cannot be used: {type(error).__name__}: {error!s:.300}. Check that the disk or bucket "
            "exists and is not full, that this task (for a bucket, its connection) may look up, read and write files, "
            "and that the package for it is installed, for s3:// apache-airflow-providers-amazon[s3fs]."
        ) from error


def uri_of(path: ObjectStoragePath) -> str:
    """Return the URI that opens a path again, including its connection."""
    text = str(path)
    return text if "://" in text else f"file://{text}"


def resolve_destination(destination: Any, name: str) -> ObjectStoragePath:
    """
    Return the path of the file to store.

    :param destination: the file or its folder. It is a file if it ends like a video or an image (see :data:`MEDIA`),
        unless a folder of that name exists.
    :param name: the file's name in a folder.
    """
    path = open_path(destination)
    if str(destination).lower().endswith(MEDIA) and (look(path) or {}).get("type") != "directory":
        return path
    return open_path(f"{uri_of(path).removesuffix('/')}/{name}")


def look(path: ObjectStoragePath) -> dict[str, Any] | None:
    """Return the type and size (bytes) of a file or folder, or None if the store says that it does not exist."""
    # `is_file`, `is_dir` and `exists` also answer False if the store refuses to answer.
    path.fs.invalidate_cache()
    with explain_errors(path), suppress(FileNotFoundError):
        return dict(path.fs.info(path.path))
    return None


def sha256_of(path: ObjectStoragePath) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    # `path.open` would make the file an input of the task.
    with path.fs.open(path.path, "rb", block_size=BLOCK) as file:
        while part := file.read(BLOCK):
            sha256.update(part)
    return sha256.hexdigest()


def new_file(path: ObjectStoragePath) -> NewLocalFile | NewObject:
    """Return a file that appears at a path when it is complete."""
    return NewLocalFile(Path(path.path)) if path.protocol in ("", "file", "local") else NewObject(path)


class NewLocalFile:
    """
    A file on a local disk that appears when it is complete; a context manager.

    Until :meth:`publish` it is a hidden file in the same folder. Leaving the context removes the hidden file. If the
    process is killed, the next download to the same path removes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in self._path.parent.glob(f".{glob.escape(self._path.name)}.????????.part"):
            left_behind.unlink(missing_ok=True)
        self._file = self._part.open("xb")
        return self

    def __exit__(self, *_: object) -> None:
        self._part.unlink(missing_ok=True)
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def restart(self) -> None:
        """Discard everything written so far."""
        self._file.seek(0)
        self._file.truncate()

    def publish(self) -> None:
        """Put the file in place; replaces an existing file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        # Fails if another task started to store the same file, and removed our hidden file.
        self._part.replace(self._path)


class NewObject:
    """
    A file in an object store that appears when it is complete; a context manager.

    Until :meth:`publish` it is an incomplete upload. Leaving the context cancels the upload. If the process is killed,
    the store keeps the uploaded parts.
    """

    def __init__(self, path: ObjectStoragePath) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._upload = self._path.fs.open(self._path.path, "wb", block_size=BLOCK, autocommit=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._upload is None:
            return
        try:
            self._upload.discard()
        except Exception:
            # The task fails with the error that ended the upload.
            log.warning("The upload of %s was not cancelled: the store keeps its parts.", self._path, exc_info=True)
        # fsspec keeps an open upload until the process ends. It would then upload the rest, and s3fs would hang.
        with suppress(AttributeError):
            self._upload.closed = True

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._upload.write(data)

    def restart(self) -> None:
        """Discard everything written so far."""
        self.__exit__()
        self.__enter__()

    def publish(self) -> None:
        """Put the file in place; replaces an existing file."""
        self._upload.close()
        self._upload.commit()
        self._upload = None

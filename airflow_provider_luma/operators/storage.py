"""Files in whatever Airflow's ObjectStoragePath opens."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_luma.api import LumaInvalidRequest

if TYPE_CHECKING:
    from typing_extensions import Self

BLOCK = 8 * 1024 * 1024
"""Bytes in one part of an upload; an object store holds two or three of them in memory."""


def open_path(uri: Any) -> ObjectStoragePath:
    """
    Return the path that a URI means, such as ``s3://conn_id@bucket/key`` or ``/folder/file``.

    :raises LumaInvalidRequest: nothing here can open it.
    """
    scheme, separator, _ = str(uri).partition("://")
    if not separator and not str(uri).startswith("/"):
        raise LumaInvalidRequest(f"{str(uri)!r:.200} is no path: give one such as s3://bucket/key or /folder/file.")
    try:
        path = uri if isinstance(uri, ObjectStoragePath) else ObjectStoragePath(str(uri))
        path.fs  # noqa: B018 - finds out whether there is one
    except (ImportError, ValueError) as error:
        raise LumaInvalidRequest(
            f"{str(uri)!r:.200} cannot be opened: {error}. Install what brings {scheme}://, for s3:// that is "
            "apache-airflow-providers-amazon[s3fs]."
        ) from error
    return path


def uri_of(path: ObjectStoragePath) -> str:
    """Return what opens a path again, with its connection where it has one."""
    text = str(path)
    return text if "://" in text else f"file://{text}"


def resolve_destination(destination: Any, name: str) -> ObjectStoragePath:
    """
    Return the path of the file that goes to a destination.

    :param destination: the file, or the folder it goes into: one that exists, one that ends in a slash, or one whose
        last part has no ending such as ``.mp4``.
    :param name: what the file is called in a folder.
    """
    path = open_path(destination)
    has_ending = re.search(r"\.[A-Za-z0-9]{1,5}$", str(destination))
    folder = not has_ending or path.is_dir()
    return open_path(f"{uri_of(path).removesuffix('/')}/{name}") if folder else path


def size_of(path: ObjectStoragePath) -> int | None:
    """Return the size of a file in bytes, or None where there is no file."""
    path.fs.invalidate_cache()
    return path.stat().st_size if path.is_file() else None


def sha256_of(path: ObjectStoragePath) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    # Not by the path's own `open`, which would make the file an input of the task.
    with path.fs.open(path.path, "rb", block_size=BLOCK) as file:
        while part := file.read(BLOCK):
            sha256.update(part)
    return sha256.hexdigest()


def new_file(path: ObjectStoragePath) -> NewLocalFile | NewObject:
    """Return a file that is not there until it is whole."""
    return NewLocalFile(Path(path.path)) if path.protocol in ("", "file", "local") else NewObject(path)


class NewLocalFile:
    """
    A file on a local disk that is not there until it is whole, for use in a ``with`` block.

    Until :meth:`publish` it is a hidden file beside the path. Leaving the block removes that; of a process that is
    killed, the next one for the same path does.
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
        """Discard all that was written."""
        self._file.seek(0)
        self._file.truncate()

    def publish(self) -> None:
        """Let the file be there, in place of any other."""
        self._file.flush()
        os.fsync(self._file.fileno())
        # Fails if another task has begun to store the same file meanwhile, and removed what was here.
        self._part.replace(self._path)


class NewObject:
    """
    A file in an object store that is not there until it is whole, for use in a ``with`` block.

    Until :meth:`publish` it is an upload that is not completed. Leaving the block cancels that; of a process that is
    killed, the store keeps the parts that it had uploaded.
    """

    def __init__(self, path: ObjectStoragePath) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._upload = self._path.fs.open(self._path.path, "wb", block_size=BLOCK, autocommit=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._upload is None:
            return
        self._upload.discard()
        # Else fsspec, which keeps it, would upload the rest when the process ends, where s3fs then hangs.
        with suppress(AttributeError):
            self._upload.closed = True

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._upload.write(data)

    def restart(self) -> None:
        """Discard all that was written."""
        self.__exit__()
        self.__enter__()

    def publish(self) -> None:
        """Let the file be there, in place of any other."""
        self._upload.close()
        self._upload.commit()
        self._upload = None

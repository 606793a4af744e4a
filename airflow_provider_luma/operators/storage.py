"""Files in whatever Airflow's ObjectStoragePath opens."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_luma.api import LumaInvalidRequest

if TYPE_CHECKING:
    from typing import BinaryIO

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


def place(destination: Any, name: str) -> ObjectStoragePath:
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


class NewFile:
    """
    A file that is not there until it is whole, for use in a ``with`` block.

    On a local disk its bytes have no name until :meth:`publish`; in an object store they are an upload that is not
    completed. Leaving the block without that leaves nothing behind, and neither does a process that is killed, but for
    what an object store keeps of an upload that was begun.

    :param replace: whether it takes the place of another file.
    """

    def __init__(self, path: ObjectStoragePath, *, replace: bool) -> None:
        self._path = path
        self._replace = replace
        self._local = _local(path)
        self._file: Any = None

    def __enter__(self) -> Self:
        if self._local:
            self._local.parent.mkdir(parents=True, exist_ok=True)
            self._part = self._local.with_name(f".{self._local.name}.{uuid.uuid4().hex[:8]}.part")
            self._nameless = True
            self._file = self._open_local(self._local.parent)
        else:
            self._open_remote()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._discard()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._file.write(data)

    def restart(self) -> None:
        """Forget all that was written."""
        if self._local:
            self._file.seek(0)
            self._file.truncate()
        else:
            self._discard()
            self._open_remote()

    def publish(self) -> None:
        """
        Let the file be there.

        :raises FileExistsError: another has come in its place meanwhile, and is not to be replaced.
        """
        if not self._local:
            self._path.fs.invalidate_cache()
            if not self._replace and self._path.exists():
                raise FileExistsError(str(self._path))
            self._file.close()
            self._file.commit()
        else:
            self._file.flush()
            if self._nameless:
                # The number of a directory that is not needed: without one, Python links the link.
                number = self._file.fileno()
                name = self._part if self._replace else self._local
                os.link(f"/proc/self/fd/{number}", name, src_dir_fd=number, follow_symlinks=True)
            elif not self._replace:
                os.link(self._part, self._local)
            if self._replace:
                self._part.replace(self._local)
            self._part.unlink(missing_ok=True)
            self._file.close()
        self._file = None

    def _open_local(self, folder: Path) -> BinaryIO:
        try:
            return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), "wb")
        except (AttributeError, OSError):
            # Neither every system nor every file system can do it; a SIGKILL then leaves a hidden file.
            self._nameless = False
            return self._part.open("xb")

    def _open_remote(self) -> None:
        self._file = self._path.fs.open(self._path.path, "wb", block_size=BLOCK, autocommit=False)

    def _discard(self) -> None:
        if self._local:
            self._file.close()
            self._part.unlink(missing_ok=True)
        else:
            self._file.discard()
        self._file = None


def _local(path: ObjectStoragePath) -> Path | None:
    return Path(path.path) if path.protocol in ("", "file", "local") else None


def checksums(path: ObjectStoragePath) -> tuple[str, str]:
    """Return the SHA-256 of a file in hexadecimal, and its MD5 in Base64."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    # Not by the path's own `open`, which would make the file an input of the task.
    with path.fs.open(path.path, "rb", block_size=BLOCK) as file:
        while part := file.read(BLOCK):
            sha256.update(part)
            md5.update(part)
    return sha256.hexdigest(), base64.b64encode(md5.digest()).decode()

"""The rules of Luma's own API for a single value of a submission: types, and references to images and videos."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

REFERENCE: dict[str, Any] = dict.fromkeys(("url", "data", "media_type", "generation_id", "file_id"), str)
JSON_NAMES = {str: "string", bool: "boolean", list: "list", dict: "dictionary"}
MEGABYTE = 1024 * 1024
MAX_MEGABYTES = {"image": 50, "video": 200}


class InvalidSubmission(Exception):
    """
    The API refuses this submission.

    :param status: 400, 413 or 422.
    :param detail: the `detail` of the answer.
    """

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


def fields(value: Any, kinds: dict[str, Any], path: list[str], never_null: Iterable[str] = ()) -> dict[str, Any]:
    """Check the known fields of an object; return all fields that are not null."""
    if not isinstance(value, dict):
        raise wrong("dict_type", path, "Input should be a valid dictionary", value)
    for name, kind in kinds.items():
        given = value.get(name)
        if name not in value or (given is None and name not in never_null):
            continue
        if isinstance(kind, tuple):
            if given not in kind:
                words = ", ".join(f"'{word}'" for word in kind[:-1]) + f" or '{kind[-1]}'"
                raise wrong("enum", [*path, name], f"Input should be {words}", given, expected=words)
        elif not isinstance(given, kind):
            label = JSON_NAMES[kind]
            raise wrong(f"{kind.__name__}_type", [*path, name], f"Input should be a valid {label}", given)
    return {name: inner for name, inner in value.items() if inner is not None}


def wrong(kind: str, path: list[str], message: str, given: Any, **context: str) -> InvalidSubmission:
    """Return the error for a value with the wrong type, or an unknown word."""
    detail: dict[str, Any] = {"type": kind, "loc": path, "msg": message, "input": given}
    return InvalidSubmission(422, [{**detail, "ctx": context} if context else detail])


def check_reference(path: str, reference: Any, state_of: Callable[[str], str | None], medium: str) -> None:
    """Check a reference; nothing is fetched, but a host that ends in `.invalid` fails like a failed fetch."""
    read = fields(reference, REFERENCE, ["body", *path.split(".")])
    given = [name for name in ("url", "data", "generation_id", "file_id") if name in read]
    if len(given) != 1:
        raise InvalidSubmission(400, f"{path}: exactly one of url, data, generation_id and file_id is required")
    if "data" in read and "media_type" not in read:
        raise InvalidSubmission(400, f"{path}: data requires media_type")
    if given[0] in ("url", "data"):
        expected = f"{medium}/"
        needed = "data" in read or medium == "video"
        if not read.get("media_type", "" if needed else expected).startswith(expected):
            raise InvalidSubmission(422, f"{path}: media_type must be {expected}*")
    if "url" in read:
        check_url(path, read["url"])
    elif "data" in read:
        check_base64(path, read["data"], medium)
    elif "generation_id" in read:
        state = state_of(read["generation_id"])
        if state != "completed":
            raise InvalidSubmission(400, f"{path}: generation is {state or 'not found'}")
    elif not is_uuid(read["file_id"]):
        raise InvalidSubmission(400, f"{path}: file not found")


def check_url(path: str, url: str) -> None:
    """Check that a URL is public and uses https."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise InvalidSubmission(422, f"{path}: invalid URL") from None
    if parts.scheme != "https":
        raise InvalidSubmission(422, f"{path}: URL must use https")
    try:
        is_public = ipaddress.ip_address(host).is_global
    except ValueError:
        is_public = bool(host) and host != "localhost"
    if not is_public:
        raise InvalidSubmission(422, f"{path}: URL must resolve to a public address")
    if host.endswith(".invalid"):
        raise InvalidSubmission(422, f"{path}: failed to fetch URL")


def check_base64(path: str, content: str, medium: str) -> None:
    """Check that this is base64 below the size limit."""
    try:
        size = len(base64.b64decode(content, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidSubmission(422, f"{path}: invalid base64") from None
    if not size:
        raise InvalidSubmission(422, f"{path}: {medium} is empty")
    if size > MAX_MEGABYTES[medium] * MEGABYTE:
        raise InvalidSubmission(413, f"{path}: {medium} exceeds {MAX_MEGABYTES[medium]} MB limit")


def is_uuid(text: str) -> bool:
    """Return whether this text is a UUID."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True

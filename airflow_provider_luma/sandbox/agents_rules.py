"""What Luma's own API takes in a submission: types, words, lengths, and what does not go together."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VIDEO_RATIOS = ("9:16", "3:4", "1:1", "4:3", "16:9", "21:9")
IMAGE_RATIOS = ("3:1", "2:1", "21:9", "16:9", "4:3", "3:2", "1:1", "3:4", "2:3", "9:16", "1:2", "1:3")
VIDEO_TYPES = ("video", "video_edit", "video_reframe")
TYPES = ("image", "image_edit", *VIDEO_TYPES, "layering")
IMAGE_MODELS = ("uni-1", "uni-1-max")
VIDEO_MODELS = ("ray-3.2",)
STRENGTHS = tuple(f"{kind}_{level}" for kind in ("adhere", "flex", "reimagine") for level in (1, 2, 3))

# For each field, a type, or the words that it may be.
BODY: dict[str, Any] = {
    "prompt": str,
    "type": TYPES,
    "model": str,
    "aspect_ratio": IMAGE_RATIOS,
    "user_id": str,
    "source": dict,
    "video": dict,
    "image_ref": list,
    "output_format": ("png", "jpeg"),
    "style": ("auto", "manga"),
    "web_search": bool,
    "layering": dict,
}
NEVER_NULL = frozenset({"prompt", "type", "model", "image_ref", "style", "web_search"})
VIDEO: dict[str, Any] = {
    "duration": ("5s", "10s"),
    "resolution": ("360p", "540p", "720p", "1080p"),
    "loop": bool,
    "start_frame": dict,
    "end_frame": dict,
    "keyframes": list,
    "keyframe_indexes": list,
    "hdr": bool,
    "exr_export": bool,
    "edit": dict,
    "source_position": dict,
}
EDIT: dict[str, Any] = {
    "auto_controls": bool,
    "strength": STRENGTHS,
    "controls": dict,
    "keyframes": list,
    "keyframe_indexes": list,
}
REFERENCE: dict[str, Any] = dict.fromkeys(("url", "data", "media_type", "generation_id", "file_id"), str)
POSITION = ("x_norm", "y_norm", "w_norm", "h_norm")
JSON_NAMES = {str: "string", bool: "boolean", list: "list", dict: "dictionary"}

# Of a video: the first does not go with any of the others. `10s` and the resolutions stand for themselves.
CONFLICTS = (
    ("10s", ("start_frame", "end_frame", "loop")),
    ("loop", ("hdr", "end_frame", "keyframes")),
    ("hdr", ("360p", "540p")),
    ("keyframes", ("start_frame", "end_frame")),
)
NOT_FOR = {
    "video": ("edit", "source_position"),
    "video_edit": ("loop", "source_position"),
    "video_reframe": ("edit", "hdr", "loop", "start_frame", "end_frame", "keyframes", "keyframe_indexes"),
}
MEGABYTE = 1024 * 1024
MAX_MEGABYTES = {"image": 50, "video": 200}


class InvalidSubmission(Exception):
    """
    The API does not take this submission.

    :param status: 400, 413 or 422.
    :param detail: what is wrong, as the answer has it.
    """

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


def check(body: Any, state_of: Callable[[str], str | None]) -> dict[str, Any]:
    """
    Check a submission, and return it without its nulls, and with its type and model.

    :param state_of: returns the state of the generation with an id; None if there is none.
    :raises InvalidSubmission: if the API does not take it.
    """
    read = {"type": "image", "model": IMAGE_MODELS[0], **fields(body, BODY, ["body"], NEVER_NULL)}
    if "prompt" not in read:
        raise wrong("missing", ["body", "prompt"], "Field required", body)
    if not 1 <= len(read["prompt"]) <= 6000:
        raise InvalidSubmission(400, "Prompt must be between 1 and 6000 characters")
    if len(read.get("user_id", "")) > 256:
        raise InvalidSubmission(400, "user_id: at most 256 characters")
    if read["model"] not in (VIDEO_MODELS if read["type"] in VIDEO_TYPES else IMAGE_MODELS):
        raise InvalidSubmission(400, f"Unknown model: {read['model']}")
    if read["type"] in VIDEO_TYPES:
        read["video"] = fields(read.get("video", {}), VIDEO, ["body", "video"])
        refuse(read, ("image_ref", "output_format", "style", "web_search", "layering"), f"type {read['type']}")
        if read.get("aspect_ratio", "16:9") not in VIDEO_RATIOS:
            raise InvalidSubmission(400, f"aspect_ratio: {read['aspect_ratio']} is not supported for videos")
        {"video": check_video, "video_edit": check_edit, "video_reframe": check_reframe}[read["type"]](read)
    else:
        refuse(read, ("video",), f"type {read['type']}")
    for where, reference in references(read):
        video_taken = where == "source" and read["type"] in VIDEO_TYPES
        check_reference(where, reference, state_of, "video" if video_taken else "image")
    return read


def check_video(read: dict[str, Any]) -> None:
    """Check what does not go together in a video out of words and images."""
    video = read["video"]
    refuse(read, ("source",), "type video")
    refuse(given_in(video), NOT_FOR["video"], "type video", "video.")
    given = given_in(video) | {video.get("duration", "5s"), video.get("resolution", "720p")}
    for name, others in CONFLICTS:
        if name in given:
            refuse(given, others, name, "video.")
    if {"10s", "hdr"} <= given and "keyframes" not in given:
        raise InvalidSubmission(400, "video.hdr: not supported with 10s without keyframes")
    if "exr_export" in given and "hdr" not in given:
        raise InvalidSubmission(400, "video.exr_export: requires hdr")
    frames = {name for name in ("start_frame", "end_frame") if name in given}
    if any("generation_id" in video[name] for name in frames):
        refuse(given, ("hdr",), "an extension", "video.")
        if len(frames) > 1:
            raise InvalidSubmission(400, "video.end_frame: an extension takes no other frame")
    check_keyframes(video, "video", 240 if "10s" in given else 120)


def check_edit(read: dict[str, Any]) -> None:
    """Check the edit of a video."""
    video = read["video"]
    require(read, "source")
    refuse(given_in(video), NOT_FOR["video_edit"], "type video_edit", "video.")
    edit = fields(video.get("edit", {}), EDIT, ["body", "video", "edit"])
    check_keyframes(edit, "video.edit")


def check_reframe(read: dict[str, Any]) -> None:
    """Check the reframing of a video."""
    video = read["video"]
    require(read, "source")
    require(read, "aspect_ratio")
    refuse(given_in(video), NOT_FOR["video_reframe"], "type video_reframe", "video.")
    position = video.get("source_position")
    if position is not None and not all(is_number(position.get(name)) for name in POSITION):
        raise InvalidSubmission(400, f"video.source_position: needs the numbers {', '.join(POSITION)}")


def check_keyframes(holder: dict[str, Any], where: str, last: int | None = None) -> None:
    """Check that each keyframe has a place of its own."""
    frames, indexes = holder.get("keyframes"), holder.get("keyframe_indexes")
    if frames is None and indexes is None:
        return
    if not frames or not indexes or len(frames) != len(indexes) or len(frames) > 64:
        raise InvalidSubmission(400, f"{where}.keyframes: 1 to 64, and as many keyframe_indexes")
    places = [index for index in indexes if isinstance(index, int) and not isinstance(index, bool)]
    if len(set(places)) != len(indexes) or min(places) < 0 or (last is not None and max(places) > last):
        limit = "" if last is None else f" to {last}"
        raise InvalidSubmission(400, f"{where}.keyframe_indexes: distinct integers from 0{limit}")


def references(read: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Find the references of a submission, and where each stands."""
    video = read.get("video", {})
    if "source" in read:
        yield "source", read["source"]
    for name in ("start_frame", "end_frame"):
        if name in video:
            yield f"video.{name}", video[name]
    for where, listed in (
        ("image_ref", read.get("image_ref")),
        ("video.keyframes", video.get("keyframes")),
        ("video.edit.keyframes", (video.get("edit") or {}).get("keyframes")),
    ):
        for number, reference in enumerate(listed or ()):
            yield f"{where}[{number}]", reference


def check_reference(where: str, reference: Any, state_of: Callable[[str], str | None], medium: str) -> None:
    """Check a reference, of which nothing is fetched: a host in `.invalid` is one that cannot be."""
    read = fields(reference, REFERENCE, ["body", *where.split(".")])
    given = [name for name in ("url", "data", "generation_id", "file_id") if name in read]
    if len(given) != 1:
        raise InvalidSubmission(400, f"{where}: exactly one of url, data, generation_id and file_id is required")
    if "data" in read and "media_type" not in read:
        raise InvalidSubmission(400, f"{where}: data requires media_type")
    if given[0] in ("url", "data"):
        expected = f"{medium}/"
        needed = "data" in read or medium == "video"
        if not read.get("media_type", "" if needed else expected).startswith(expected):
            raise InvalidSubmission(422, f"{where}: media_type must be {expected}*")
    if "url" in read:
        check_url(where, read["url"])
    elif "data" in read:
        check_base64(where, read["data"], medium)
    elif "generation_id" in read:
        state = state_of(read["generation_id"])
        if state != "completed":
            raise InvalidSubmission(400, f"{where}: generation is {state or 'not found'}")
    elif not is_uuid(read["file_id"]):
        raise InvalidSubmission(400, f"{where}: file not found")


def check_url(where: str, url: str) -> None:
    """Check that a URL leads to a public address over https."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise InvalidSubmission(422, f"{where}: invalid URL") from None
    if parts.scheme != "https":
        raise InvalidSubmission(422, f"{where}: URL must use https")
    try:
        is_public = ipaddress.ip_address(host).is_global
    except ValueError:
        is_public = bool(host) and host != "localhost"
    if not is_public:
        raise InvalidSubmission(422, f"{where}: URL must resolve to a public address")
    if host.endswith(".invalid"):
        raise InvalidSubmission(422, f"{where}: failed to fetch URL")


def check_base64(where: str, content: str, medium: str) -> None:
    """Check that this is base64, and not too much of it."""
    try:
        size = len(base64.b64decode(content, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidSubmission(422, f"{where}: invalid base64") from None
    if not size:
        raise InvalidSubmission(422, f"{where}: {medium} is empty")
    if size > MAX_MEGABYTES[medium] * MEGABYTE:
        raise InvalidSubmission(413, f"{where}: {medium} exceeds {MAX_MEGABYTES[medium]} MB limit")


def fields(value: Any, kinds: dict[str, Any], where: list[str], never_null: Iterable[str] = ()) -> dict[str, Any]:
    """Check the fields of an object that are known, and return all that are not null."""
    if not isinstance(value, dict):
        raise wrong("dict_type", where, "Input should be a valid dictionary", value)
    for name, kind in kinds.items():
        given = value.get(name)
        if name not in value or (given is None and name not in never_null):
            continue
        if isinstance(kind, tuple):
            if given not in kind:
                words = ", ".join(f"'{word}'" for word in kind[:-1]) + f" or '{kind[-1]}'"
                raise wrong("enum", [*where, name], f"Input should be {words}", given, expected=words)
        elif not isinstance(given, kind):
            label = JSON_NAMES[kind]
            raise wrong(f"{kind.__name__}_type", [*where, name], f"Input should be a valid {label}", given)
    return {name: inner for name, inner in value.items() if inner is not None}


def given_in(video: dict[str, Any]) -> set[str]:
    """Return the names of what is asked for; false is not."""
    return {name for name, value in video.items() if value is not False}


def refuse(given: Iterable[str], names: Iterable[str], beside: str, where: str = "") -> None:
    """Refuse the first of these names that is given."""
    for name in names:
        if name in given:
            raise InvalidSubmission(400, f"{where}{name}: not supported with {beside}")


def require(read: dict[str, Any], name: str) -> None:
    """Refuse a submission without this field."""
    if name not in read:
        raise InvalidSubmission(400, f"{name}: required for type {read['type']}")


def wrong(kind: str, where: list[str], message: str, given: Any, **context: str) -> InvalidSubmission:
    """Refuse a value that is of the wrong type, or no word that is known."""
    detail: dict[str, Any] = {"type": kind, "loc": where, "msg": message, "input": given}
    return InvalidSubmission(422, [{**detail, "ctx": context} if context else detail])


def is_number(value: Any) -> bool:
    """Return whether this is a JSON number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_uuid(text: str) -> bool:
    """Return whether this is a UUID."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True

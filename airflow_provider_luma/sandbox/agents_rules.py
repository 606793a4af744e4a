"""The rules of Luma's own API for a submission: its fields, and which of them exclude each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_luma.sandbox.agents_values import InvalidSubmission, check_reference, fields, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VIDEO_RATIOS = ("9:16", "3:4", "1:1", "4:3", "16:9", "21:9")
IMAGE_RATIOS = ("3:1", "2:1", "21:9", "16:9", "4:3", "3:2", "1:1", "3:4", "2:3", "9:16", "1:2", "1:3")
VIDEO_TYPES = ("video", "video_edit", "video_reframe")
TYPES = ("image", "image_edit", *VIDEO_TYPES, "layering")
IMAGE_MODELS = ("uni-1", "uni-1-max")
VIDEO_MODELS = ("ray-3.2",)
STRENGTHS = tuple(f"{kind}_{level}" for kind in ("adhere", "flex", "reimagine") for level in (1, 2, 3))

# The type or the allowed words of each field.
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
POSITION = ("x_norm", "y_norm", "w_norm", "h_norm")

# In a video, the first excludes each of the others. `10s` means this duration; `360p` and `540p` mean this resolution.
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


def check(body: Any, state_of: Callable[[str], str | None]) -> dict[str, Any]:
    """
    Check a submission; return it without nulls, and with the default type and model.

    :param state_of: returns the state of a generation; None if its id is unknown.
    :raises InvalidSubmission: if the API refuses it.
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
    for path, reference in references(read):
        is_video = path == "source" and read["type"] in VIDEO_TYPES
        check_reference(path, reference, state_of, "video" if is_video else "image")
    return read


def check_video(read: dict[str, Any]) -> None:
    """Check the fields of a video from a prompt and images that exclude each other."""
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
    """Check a submission that edits a video."""
    video = read["video"]
    require(read, "source")
    refuse(given_in(video), NOT_FOR["video_edit"], "type video_edit", "video.")
    edit = fields(video.get("edit", {}), EDIT, ["body", "video", "edit"])
    check_keyframes(edit, "video.edit")


def check_reframe(read: dict[str, Any]) -> None:
    """Check a submission that reframes a video."""
    video = read["video"]
    require(read, "source")
    require(read, "aspect_ratio")
    refuse(given_in(video), NOT_FOR["video_reframe"], "type video_reframe", "video.")
    position = video.get("source_position")
    if position is not None and not all(is_number(position.get(name)) for name in POSITION):
        raise InvalidSubmission(400, f"video.source_position: needs the numbers {', '.join(POSITION)}")


def check_keyframes(holder: dict[str, Any], path: str, last: int | None = None) -> None:
    """Check that every keyframe has its own index; `last` is the highest index."""
    frames, indexes = holder.get("keyframes"), holder.get("keyframe_indexes")
    if frames is None and indexes is None:
        return
    if not frames or not indexes or len(frames) != len(indexes) or len(frames) > 64:
        raise InvalidSubmission(400, f"{path}.keyframes: 1 to 64, and as many keyframe_indexes")
    places = [index for index in indexes if isinstance(index, int) and not isinstance(index, bool)]
    if len(set(places)) != len(indexes) or min(places) < 0 or (last is not None and max(places) > last):
        limit = "" if last is None else f" to {last}"
        raise InvalidSubmission(400, f"{path}.keyframe_indexes: distinct integers from 0{limit}")


def references(read: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return the path and the value of each reference in a submission."""
    video = read.get("video", {})
    if "source" in read:
        yield "source", read["source"]
    for name in ("start_frame", "end_frame"):
        if name in video:
            yield f"video.{name}", video[name]
    for path, listed in (
        ("image_ref", read.get("image_ref")),
        ("video.keyframes", video.get("keyframes")),
        ("video.edit.keyframes", (video.get("edit") or {}).get("keyframes")),
    ):
        for number, reference in enumerate(listed or ()):
            yield f"{path}[{number}]", reference


def given_in(video: dict[str, Any]) -> set[str]:
    """Return the names of the fields that are not false."""
    return {name for name, value in video.items() if value is not False}


def refuse(given: Iterable[str], names: Iterable[str], beside: str, path: str = "") -> None:
    """Refuse a submission with one of these names."""
    for name in names:
        if name in given:
            raise InvalidSubmission(400, f"{path}{name}: not supported with {beside}")


def require(read: dict[str, Any], name: str) -> None:
    """Refuse a submission without this field."""
    if name not in read:
        raise InvalidSubmission(400, f"{name}: required for type {read['type']}")


def is_number(value: Any) -> bool:
    """Return whether this value is a JSON number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)

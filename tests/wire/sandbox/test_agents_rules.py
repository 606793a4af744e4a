"""The sandbox's `/v1` has the rules of Luma's own API for a submission."""

from __future__ import annotations

import base64
import json

import pytest

from tests.support.sandbox_calls import AGENTS, fixture, fixture_names

NIL_UUID = "00000000-0000-0000-0000-000000000000"
VIDEO = AGENTS.fields
FRAME = {"url": "https://img.example.net/first.jpg"}
DATA = {"data": "iVBORw0KGgo=", "media_type": "image/png"}
KEYFRAMES = {"keyframes": [FRAME, DATA], "keyframe_indexes": [0, 120]}
submit = AGENTS.submit


@pytest.mark.parametrize("name", [name for name in fixture_names("agents/requests") if not name.startswith("file_")])
def test_request_of_contract_is_accepted(name, sandbox):
    """Every submission of the contract is accepted."""
    parent = "5a1c7e40-8d2f-4b39-9e67-0c4f1b2a3d51"
    sandbox.add_generation(api="agents", generation_id=parent)

    assert AGENTS.call(sandbox, "POST", AGENTS.path, fixture(f"agents/requests/{name}")).status == 201


@pytest.mark.parametrize(
    "video",
    [
        {"duration": "10s", "resolution": "360p"},
        {"duration": "10s", "loop": False},
        {"hdr": True},
        {"hdr": True, "exr_export": True, "resolution": "1080p"},
        {"loop": True, "start_frame": FRAME},
        {"end_frame": DATA},
        {"duration": "10s", "hdr": True, **KEYFRAMES, "keyframe_indexes": [0, 240]},
        KEYFRAMES,
        {"start_frame": {"file_id": NIL_UUID}},
        {"start_frame": {**FRAME, "media_type": "image/jpeg"}},
        {"start_frame": {**FRAME, "data": None}, "end_frame": None},
    ],
    ids=str,
)
def test_valid_combination_is_accepted(video, sandbox):
    """Fields of a video that do not exclude each other are accepted."""
    assert submit(sandbox, video=video).status == 201


@pytest.mark.parametrize(
    "video",
    [
        {"duration": "10s", "start_frame": FRAME},
        {"duration": "10s", "end_frame": FRAME},
        {"duration": "10s", "loop": True},
        {"duration": "10s", "hdr": True},
        {"loop": True, "hdr": True},
        {"loop": True, "end_frame": FRAME},
        {"loop": True, **KEYFRAMES},
        {"hdr": True, "resolution": "360p"},
        {"hdr": True, "resolution": "540p"},
        {"exr_export": True},
        {"start_frame": FRAME, **KEYFRAMES},
        {"end_frame": FRAME, **KEYFRAMES},
        {"keyframes": [FRAME]},
        {"keyframe_indexes": [0]},
        {"keyframes": [], "keyframe_indexes": []},
        {**KEYFRAMES, "keyframe_indexes": [0]},
        {**KEYFRAMES, "keyframe_indexes": [5, 5]},
        {**KEYFRAMES, "keyframe_indexes": [0, 121]},
        {**KEYFRAMES, "keyframe_indexes": [-1, 5]},
        {**KEYFRAMES, "keyframe_indexes": [0, "5"]},
        {"keyframes": [FRAME] * 65, "keyframe_indexes": list(range(65))},
        {"edit": {"strength": "flex_2"}},
        {"source_position": {}},
        {"start_frame": {}},
        {"start_frame": {**FRAME, **DATA}},
        {"start_frame": {"data": DATA["data"]}},
        {"start_frame": {"file_id": "first.jpg"}},
        {"start_frame": {"generation_id": NIL_UUID}},
    ],
    ids=str,
)
def test_invalid_combination_is_refused(video, sandbox):
    """Fields of a video that exclude each other are refused by name, and not charged."""
    answer = submit(sandbox, video=video)

    assert answer.status == 400
    assert isinstance(answer.json["detail"], str)
    assert answer.json["detail"].startswith("video.")
    assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (0, 1)


@pytest.mark.parametrize(
    "video",
    [{"end_frame": FRAME}, {"hdr": True}, {"duration": "10s"}, {"end_frame": {"generation_id": "another"}}],
    ids=str,
)
def test_extension_has_one_frame(video, sandbox):
    """An extension has no second frame, no HDR and no other duration than 5 s."""
    parent = submit(sandbox).json["id"]
    frames = json.loads(json.dumps(video).replace("another", parent))

    assert submit(sandbox, video={"start_frame": {"generation_id": parent}, **frames}).status == 400


def test_unfinished_generation_is_not_extended(slow_sandbox):
    """An unfinished generation cannot be extended."""
    parent = submit(slow_sandbox).json["id"]

    answer = submit(slow_sandbox, video={"start_frame": {"generation_id": parent}})
    assert (answer.status, answer.json["detail"]) == (400, "video.start_frame: generation is pending")


@pytest.mark.parametrize(
    "reference",
    [
        {"url": "http://img.example.net/first.jpg"},
        {"url": "https://127.0.0.1/first.jpg"},
        {"url": "https://10.0.0.1/first.jpg"},
        {"url": "https://[::1]/first.jpg"},
        {"url": "https://localhost/first.jpg"},
        {"url": "https://img.invalid/first.jpg"},
        {"url": "https://[/first.jpg"},
        {"url": "first.jpg"},
        {"data": "data:image/png;base64,iVBORw0KGgo=", "media_type": "image/png"},
        {"data": "not base64", "media_type": "image/png"},
        {"data": "", "media_type": "image/png"},
        {"data": "iVBORw0KGgo=", "media_type": "video/mp4"},
    ],
    ids=lambda reference: str(reference)[:60],
)
def test_unusable_image_is_422(reference, sandbox):
    """An image that cannot be fetched or decoded is refused with 422."""
    answer = submit(sandbox, video={"end_frame": reference})

    assert answer.status == 422
    assert answer.json["detail"].startswith("video.end_frame: ")


def test_large_image_is_413(sandbox):
    """An image over 50 MB is refused with 413."""
    data = base64.b64encode(bytes(50 * 1024 * 1024 + 1)).decode()

    answer = submit(sandbox, video={"start_frame": {"data": data, "media_type": "image/png"}}, timeout=60)
    assert (answer.status, answer.json) == (413, fixture("agents/error_too_large.json"))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": "a" * 6001}, 400),
        ({"model": "ray-9"}, 400),
        ({"model": "uni-1"}, 400),
        ({"user_id": "a" * 257}, 400),
        ({"aspect_ratio": "3:2"}, 400),
        ({"aspect_ratio": "5:4"}, 422),
        ({"source": FRAME}, 400),
        ({"image_ref": [FRAME]}, 400),
        ({"web_search": True}, 400),
        ({"type": "film"}, 422),
        ({"prompt": None}, 422),
        ({"prompt": 5}, 422),
        ({"video": []}, 422),
        ({"video": {"loop": "true"}}, 422),
        ({"video": {"start_frame": "https://img.example.net/first.jpg"}}, 422),
        ({"video": {"start_frame": {"url": 5}}}, 422),
        ({"video": {"keyframes": ["first.jpg"], "keyframe_indexes": [0]}}, 422),
        ({"type": "video_edit"}, 400),
        ({"type": "video_edit", "source": {"url": "https://img.example.net/in.mp4"}}, 422),
        ({"type": "video_reframe", "source": {"file_id": NIL_UUID}}, 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_broken_rule_is_refused(fields, status, sandbox):
    """A submission against a rule is refused: 400 for a conflict, 422 for a type or a word."""
    body = {**VIDEO, "prompt": "a paper boat", **fields}

    assert AGENTS.call(sandbox, "POST", AGENTS.path, body).status == status
    assert sandbox.report()["charged"] == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"video": {"hdr": True}}, 400),
        ({"video": {"source_position": {"x_norm": 0, "y_norm": 0, "w_norm": 1}}}, 400),
        ({"video": {"source_position": {"x_norm": 0, "y_norm": 0, "w_norm": 1, "h_norm": 0.5}}}, 201),
    ],
    ids=str,
)
def test_reframing_needs_four_numbers(fields, status, sandbox):
    """A reframing needs all four numbers of a position, and has no HDR."""
    body = {**fixture("agents/requests/video_reframe.json"), "source": {"file_id": NIL_UUID}, **fields}

    assert AGENTS.call(sandbox, "POST", AGENTS.path, body).status == status


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({**VIDEO, "prompt": ""}, "error_bad_request.json"),
        ({**VIDEO, "prompt": "a boat", "model": "ray-9"}, "error_unknown_model.json"),
        ({**VIDEO, "prompt": "a boat", "video": {"duration": "7s"}}, "error_validation.json"),
    ],
)
def test_refusal_matches_the_contract(body, name, sandbox):
    """The `detail` of a refusal matches the contract."""
    assert AGENTS.call(sandbox, "POST", AGENTS.path, body).json == fixture(f"agents/{name}")


@pytest.mark.parametrize("left_out", ["type", "model"])
def test_video_needs_type_and_model(left_out, sandbox):
    """A video without a type or a model is refused, because the defaults are those of an image."""
    body = {**VIDEO, "prompt": "a paper boat", "video": {}}
    del body[left_out]

    assert AGENTS.call(sandbox, "POST", AGENTS.path, body).status == 400


def test_unknown_video_field_is_accepted(sandbox):
    """An unknown field of a video is accepted."""
    assert submit(sandbox, video={"brand_new_field": 1}).status == 201

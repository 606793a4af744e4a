"""A generation as DAGs see it."""

from __future__ import annotations

import json

import pytest

from airflow_provider_luma.api import Generation, GenerationState
from airflow_provider_luma.api.generation import KNOWN_STATES
from tests.support.dialects import polled


def test_dict_has_json_types():
    """A DAG gets ten fields as JSON types, and a generation can be built from them."""
    seen = json.loads(json.dumps(polled("gateway", "get_completed").as_dict()))
    assert seen == {
        "id": "7c2f4b90-3d1e-4a55-9b0c-5f8e21d6a713",
        "state": "completed",
        "video_url": "https://media.example.net/g/7c2f/video.mp4",
        "thumbnail_url": "https://img.example.net/7c2f/public",
        "last_frame_url": "https://media.example.net/g/7c2f/last.jpg",
        "width": 1360,
        "height": 752,
        "duration": 5.041667,
        "created_at": "2026-01-15T09:30:00.123456Z",
        "failure_reason": None,
    }
    built = Generation.from_dict(seen)
    assert built.as_dict() == seen
    assert built.created_at == polled("gateway", "get_completed").created_at


def test_short_dict_is_enough():
    """A dict may lack fields, and have others."""
    generation = Generation.from_dict({"id": "x", "state": "failed", "added_later": 1})
    assert (generation.id, generation.state, generation.video_url) == ("x", GenerationState.FAILED, None)
    assert generation.created_at is None


@pytest.mark.parametrize(
    ("asset", "url"),
    [("video", "clean"), ("video_raw", "raw"), ("thumbnail", "thumbnail"), ("last_frame", "last")],
)
def test_each_file_has_a_url(asset, url):
    """Each file has its URL; the video is stored from its own address for downloads, if there is one."""
    urls = {"video_raw_url": "raw", "thumbnail_url": "thumbnail", "last_frame_url": "last"}
    generation = Generation(id="x", state=GenerationState.COMPLETED, video_url="seen", download_url="clean", **urls)
    assert generation.asset_url(asset) == url
    assert Generation(id="x", state=GenerationState.COMPLETED, video_url="seen").asset_url("video") == "seen"


def test_states_print_as_words():
    """A state prints as its word; users can wait for all but an unknown one."""
    assert f"{GenerationState.COMPLETED}" == "completed"
    assert KNOWN_STATES == ["pending", "processing", "completed", "failed"]
    assert not GenerationState.UNKNOWN.terminal

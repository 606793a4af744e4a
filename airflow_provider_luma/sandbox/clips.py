"""The videos that the sandbox makes: three wide clips and a vertical clip."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "clips"


@dataclass(frozen=True)
class Clip:
    """A short video, its first and last frame, and the words in a prompt that select it."""

    name: str
    words: frozenset[str] = frozenset()
    width: int = 640
    height: int = 360
    duration: float = 4.0

    def path(self, file: str) -> Path:
        """Return the path of a file: `video.mp4`, `video_raw.mp4`, `thumbnail.jpg` or `last_frame.jpg`."""
        endings = {
            "video.mp4": ".mp4",
            "video_raw.mp4": ".mp4",
            "thumbnail.jpg": ".jpg",
            "last_frame.jpg": "_last.jpg",
        }
        return FOLDER / f"{self.name}{endings[file]}"


CLIPS = (
    Clip("boat", frozenset({"boat", "lake", "ocean", "puddle", "river", "sea", "ship", "water", "wave", "waves"})),
    Clip("sunrise", frozenset({"dawn", "hill", "hills", "morning", "mountain", "mountains", "sun", "sunrise"})),
    Clip("aurora", frozenset({"aurora", "moon", "night", "sky", "space", "star", "stars", "winter"})),
)
VERTICAL_RATIOS = ("9:16", "9:21", "3:4")
VERTICAL = Clip("vertical", width=360, height=640, duration=10.0)


def pick(prompt: str, aspect_ratio: str = "") -> Clip:
    """
    Pick the clip for this prompt: by a word in it, else by its hash, so that a prompt always has the same clip.

    :param aspect_ratio: such as `9:16`; all prompts share the vertical clip.
    """
    if aspect_ratio in VERTICAL_RATIOS:
        return VERTICAL
    for word in re.findall(r"\w+", prompt.lower()):
        for clip in CLIPS:
            if word in clip.words:
                return clip
    return CLIPS[hashlib.sha256(prompt.encode()).digest()[0] % len(CLIPS)]

"""A prompt and a token that many tests send."""

from __future__ import annotations

TOKEN = "marked-token-4711"
PROMPT = "A paper boat crosses a puddle"

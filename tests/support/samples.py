"""The prompt and the token of many tests."""

from __future__ import annotations

TOKEN = "marked-token-4711"
PROMPT = "A paper boat crosses a puddle"

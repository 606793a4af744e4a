"""Convert docstrings, which are reStructuredText, to Markdown for the documentation site."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|data|attr|mod):`~?([\w.]+)`")


class Markdown(griffe.Extension):
    """Converts roles to code, and literal blocks to fenced blocks."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Convert a docstring before it is parsed."""
        if obj.docstring:
            text = ROLE.sub(lambda role: f"`{role[1].rsplit('.', 1)[-1]}`", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?m)^::\n\n((?:    .*\n|\n)+)", r"```text\n\1```\n", text + "\n").strip()

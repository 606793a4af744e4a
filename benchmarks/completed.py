"""The function that a DAG author writes for `HttpEventTrigger`."""

from __future__ import annotations

from typing import Any


async def completed(response: Any) -> bool:
    """Return whether the generation in a response is completed."""
    return bool(response.json()["state"] == "completed")

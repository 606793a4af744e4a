"""
The APIs that the sandbox plays.

Each row of the table of APIs that has a `sandbox_token` has a module here, named after the API, with a class `Api`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.apis import APIS

if TYPE_CHECKING:
    from airflow_provider_luma.sandbox.api import PlayedApi
    from airflow_provider_luma.sandbox.memory import Memory

PLAYED = {name: row for name, row in APIS.items() if row.sandbox_token}
DEFAULT_API = next(iter(PLAYED))


def play(memory: Memory) -> dict[str, PlayedApi]:
    """Make every API that the sandbox plays, by name; they share this memory."""
    return {name: import_module(f"{__package__}.{name}").Api(row, memory) for name, row in PLAYED.items()}


def connection(name: str, url: str, password: str) -> dict[str, Any]:
    """Return the Airflow connection that uses this API of the sandbox at `url`."""
    extra = {} if name == next(iter(APIS)) else {"extra": {"api": name}}
    return {"conn_type": "luma", "host": url, "password": password, **extra}

"""The tokens of the system tests, of which none may turn up in a log or in Airflow's database."""

from __future__ import annotations

TOKEN = "marked-token-4711-of-the-system-tests"
REFUSED_TOKEN = "marked-token-0815-that-is-refused"
UNREACHABLE_TOKEN = "marked-token-1234-that-goes-nowhere"

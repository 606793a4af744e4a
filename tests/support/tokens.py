"""The tokens of the system tests, of which none may turn up in a log or in Airflow's database."""

from __future__ import annotations

TOKEN = "marked-token-4711-of-the-system-tests"
REFUSED_TOKEN = "marked-token-0815-that-is-refused"
UNREACHABLE_TOKEN = "marked-token-1234-that-goes-nowhere"
#: Keys of Luma's own API begin so, and one that does not is no such key.
KEY = "luma-api-marked-4712-of-the-system-tests"
REFUSED_KEY = "luma-api-marked-0816-that-is-refused"
MISPLACED_KEY = "luma-api-marked-1235-of-a-connection-to-a-gateway"

ALL = (TOKEN, REFUSED_TOKEN, UNREACHABLE_TOKEN, KEY, REFUSED_KEY, MISPLACED_KEY)

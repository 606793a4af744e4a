"""The tokens of the system tests; no log and no database of Airflow may contain them."""

from __future__ import annotations

TOKEN = "marked-token-4711-of-the-system-tests"
REFUSED_TOKEN = "marked-token-0815-that-is-refused"
UNREACHABLE_TOKEN = "marked-token-1234-that-goes-nowhere"
#: Luma's own API accepts only keys with this prefix.
KEY = "luma-api-marked-4712-of-the-system-tests"
REFUSED_KEY = "luma-api-marked-0816-that-is-refused"
MISPLACED_KEY = "luma-api-marked-1235-of-a-connection-to-a-gateway"

ALL = (TOKEN, REFUSED_TOKEN, UNREACHABLE_TOKEN, KEY, REFUSED_KEY, MISPLACED_KEY)

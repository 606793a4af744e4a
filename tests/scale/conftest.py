"""What these tests have of others."""

from __future__ import annotations

from tests.wire.conftest import connect as connect
from tests.wire.test_poller import gateway as gateway
from tests.wire.test_poller import loop as loop

"""
What pytest gets from this package: the fixture `luma_sandbox`.

It is no part of the sandbox's own package, whose import every run of pytest would pay for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_luma.sandbox import Sandbox

TOKENS = {"gateway": "token-of-the-sandbox", "agents": "luma-api-of-the-sandbox"}


def pytest_configure(config: pytest.Config) -> None:
    """Let `--strict-markers` know the marker."""
    config.addinivalue_line(
        "markers",
        "luma_sandbox(api='gateway', luma_conn_id='luma_default', **settings): what the fixture luma_sandbox starts, "
        "such as seconds=2; see airflow_provider_luma.sandbox.Settings",
    )


@pytest.fixture
def luma_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """
    Give a Luma on this machine, to which the Airflow connection `luma_default` leads during the test.

    Its generations are completed at once. Change that, or anything else that `Settings` has, with a marker:
    `@pytest.mark.luma_sandbox(seconds=2, url_seconds=1)`. `api="agents"` lets the connection speak Luma's own API, with
    a key like Luma's, in place of a gateway's; `luma_conn_id="…"` names another connection. Markers of a module or a
    class apply as well; the nearest counts.
    """
    import json
    import os

    from airflow_provider_luma.sandbox import Sandbox

    settings: dict[str, Any] = {"seconds": 0.0}
    for marker in reversed(list(request.node.iter_markers("luma_sandbox"))):
        if marker.args:
            pytest.fail(f"The marker luma_sandbox takes settings by name, such as seconds=2; got {marker.args}.")
        settings.update(marker.kwargs)
    luma_conn_id, api = settings.pop("luma_conn_id", "luma_default"), settings.pop("api", "gateway")
    if api not in TOKENS:
        pytest.fail(f"The api of the marker luma_sandbox is {' or '.join(TOKENS)}; got {api!r}.")
    settings.setdefault("token", TOKENS[api])
    with Sandbox(**settings) as sandbox:
        connection = {"conn_type": "luma", "host": sandbox.url, "password": settings["token"] or TOKENS[api]}
        if api != "gateway":
            connection["extra"] = {"api": api}
        monkeypatch.setenv(f"AIRFLOW_CONN_{luma_conn_id.upper()}", json.dumps(connection))
        # A proxy that the machine has set would be asked for this address, and could not reach it.
        bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        monkeypatch.setenv("no_proxy", f"{bypassed},127.0.0.1" if bypassed else "127.0.0.1")
        yield sandbox

"""
The pytest plugin: the fixture `luma_sandbox`.

It is not a part of the sandbox's package, because every run of pytest would then import the sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_luma.apis import APIS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_luma.sandbox import Sandbox

TOKENS = {name: row.sandbox_token for name, row in APIS.items() if row.sandbox_token}
DEFAULT_API = next(iter(TOKENS))


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, because `--strict-markers` refuses unknown markers."""
    config.addinivalue_line(
        "markers",
        f"luma_sandbox(api={DEFAULT_API!r}, luma_conn_id='luma_default', **settings): settings of the fixture "
        f"luma_sandbox, such as seconds=2 (see airflow_provider_luma.sandbox.Settings); api is {' or '.join(TOKENS)}",
    )


@pytest.fixture
def luma_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """
    Start a sandbox for one test; the Airflow connection `luma_default` points to it.

    Generations are completed immediately. A marker changes this and every other field of `Settings`:
    `@pytest.mark.luma_sandbox(seconds=2, url_seconds=1)`. With `api="agents"`, or another name of the table of APIs,
    the connection uses that API and a token for it; `luma_conn_id="…"` names another connection. Markers of a module or
    a class apply as well; for each setting, the nearest marker counts.
    """
    import json
    import os

    from airflow_provider_luma.sandbox import Sandbox
    from airflow_provider_luma.sandbox.played import connection

    settings: dict[str, Any] = {"seconds": 0.0}
    for marker in reversed(list(request.node.iter_markers("luma_sandbox"))):
        if marker.args:
            pytest.fail(f"The marker luma_sandbox has only named settings, such as seconds=2; got {marker.args}.")
        settings.update(marker.kwargs)
    luma_conn_id, api = settings.pop("luma_conn_id", "luma_default"), settings.pop("api", DEFAULT_API)
    if api not in TOKENS:
        pytest.fail(f"The marker luma_sandbox has no api {api!r}. Use {' or '.join(map(repr, TOKENS))}.")
    settings.setdefault("token", TOKENS[api])
    with Sandbox(**settings) as sandbox:
        fields = connection(api, sandbox.url, settings["token"] or TOKENS[api])
        monkeypatch.setenv(f"AIRFLOW_CONN_{luma_conn_id.upper()}", json.dumps(fields))
        # A proxy in the environment cannot reach this address.
        bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        monkeypatch.setenv("no_proxy", f"{bypassed},127.0.0.1" if bypassed else "127.0.0.1")
        yield sandbox

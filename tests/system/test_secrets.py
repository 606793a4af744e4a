"""No token of the system tests is in a log, in the database or at a CDN. These tests run last."""

from __future__ import annotations

import pytest

from tests.support.tokens import ALL


@pytest.mark.together(first=True)
@pytest.mark.parametrize(
    ("conf", "state", "error"),
    [
        ({"luma_conn_id": "luma_refused"}, "failed", "LumaAuthenticationError"),
        ({"prompt": "A boat [drop]"}, "failed", "LumaAmbiguousSubmission"),
        ({"luma_conn_id": "luma_unreachable"}, "up_for_retry", "LumaConnectionError"),
        ({"luma_conn_id": "luma_own_refused"}, "failed", "LumaAuthenticationError"),
        ({"luma_conn_id": "luma_own", "prompt": "A boat [drop]"}, "failed", "LumaAmbiguousSubmission"),
        ({"luma_conn_id": "luma_own_misplaced"}, "failed", "a key of Luma's own API, which is not sent to 127.0.0.1"),
    ],
    ids=["refused", "dropped", "unreachable", "own-refused", "own-dropped", "own-misplaced"],
)
def test_errors_with_token_are_logged(conf, state, error, deployment):
    """Errors of requests that carried a token are logged. The next test searches these logs."""
    run_id = deployment.run("luma_bad_days", conf=conf)
    deployment.wait_for_task("luma_bad_days", run_id, "submit", state=state, timeout=240)
    assert error in deployment.log("luma_bad_days", run_id, "submit")


def test_no_token_is_left(deployment, sandboxes):
    """No token is in a log or a table, and none was sent to a CDN."""
    searched = list(deployment.log_files())
    # The search works: it finds log lines, and the id of the connection in its tables.
    assert any("Submitted generation" in path.read_text(errors="replace") for path in searched)
    assert any("LumaAuthenticationError" in path.read_text(errors="replace") for path in searched)
    for connection_id in ("luma_refused", "luma_own_refused"):
        assert {table for table, row in deployment.dump() if connection_id in row} >= {"connection", "dag_run"}
    for token in ALL:
        for path in searched:
            assert token not in path.read_text(errors="replace"), path
        for table, row in deployment.dump():
            assert token not in row, table
    assert [sandbox.report()["tokens_at_cdn"] for sandbox in sandboxes.values()] == [0, 0]

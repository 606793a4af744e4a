"""Where the tokens of all the system tests have got to; the name of this file has it run last."""

from __future__ import annotations

from tests.system.conftest import REFUSED_TOKEN, TOKEN, UNREACHABLE_TOKEN


def test_no_token_anywhere(deployment, sandbox):
    """After good days and bad, the tokens are in no log and in no table, and never went to the CDN."""
    for conf, state, error in (
        ({"luma_conn_id": "luma_refused"}, "failed", "LumaAuthenticationError"),
        ({"prompt": "A boat [drop]"}, "failed", "LumaAmbiguousSubmission"),
        ({"luma_conn_id": "luma_unreachable"}, "up_for_retry", "LumaConnectionError"),
    ):
        run_id = deployment.run("luma_bad_days", conf=conf)
        deployment.wait_for_task("luma_bad_days", run_id, "submit", state=state, timeout=120)
        assert error in deployment.log("luma_bad_days", run_id, "submit")
    searched = list(deployment.log_files())
    # What would be found if it were there: both the prompt and the connection are.
    assert any("Submitted generation" in path.read_text(errors="replace") for path in searched)
    assert {table for table, row in deployment.dump() if "luma_refused" in row} >= {"connection", "dag_run"}
    for token in (TOKEN, REFUSED_TOKEN, UNREACHABLE_TOKEN):
        for path in searched:
            assert token not in path.read_text(errors="replace"), path
        for table, row in deployment.dump():
            assert token not in row, table
    assert sandbox.report()["tokens_at_cdn"] == 0

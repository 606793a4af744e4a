"""The behaviour that all APIs of the sandbox share; a new API joins with its line in `CALLS`."""

from __future__ import annotations

import json
from http.client import HTTPConnection, RemoteDisconnected

import pytest

from airflow_provider_luma.apis import APIS
from airflow_provider_luma.pytest_plugin import TOKENS
from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sandbox.__main__ import parser
from tests.support.sandbox_calls import CALLS

EXPECTED = {name: row for name, row in APIS.items() if row.sandbox_token}
BROKEN = (RemoteDisconnected, ConnectionResetError)


@pytest.fixture(params=CALLS, ids=lambda calls: calls.api)
def api(request):
    """The calls of each API in turn."""
    return request.param


class TestTable:
    def test_contract_covers_every_api(self):
        """Every API with a sandbox token is tested here."""
        assert [calls.api for calls in CALLS] == list(EXPECTED)

    def test_sandbox_plays_every_api(self, sandbox):
        """The sandbox plays every API with a sandbox token, and no other."""
        assert list(sandbox.apis) == list(EXPECTED)

    def test_fixture_has_every_token(self):
        """The pytest fixture has the token of every API with a sandbox token."""
        assert {name: row.sandbox_token for name, row in EXPECTED.items()} == TOKENS

    def test_help_names_every_api(self):
        """The help of the command line names every API with a sandbox token."""
        shown = " ".join(parser().format_help().split())
        assert [row.label for row in EXPECTED.values() if row.label not in shown] == []

    def test_accepts_token_of_fixture(self, api):
        """An API accepts its token of the pytest fixture, with and without that token in the settings."""
        token = TOKENS[api.api]
        headers = {"Authorization": f"Bearer {token}"}
        for setting in (token, ""):
            with Sandbox(token=setting) as sandbox:
                assert api.submit(sandbox, headers=headers).status == api.created


class TestTokens:
    def test_accepts_only_its_token(self, api):
        """With a token in the settings, an API accepts only that token, and the report does not contain it."""
        with Sandbox(token=f"{APIS[api.api].key_prefix}test") as sandbox:
            assert api.submit(sandbox).status == api.created
            other = {"Authorization": f"Bearer {APIS[api.api].key_prefix}other"}
            assert api.submit(sandbox, headers=other).status == 401
            assert "test" not in json.dumps(sandbox.report())

    @pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}], ids=str)
    def test_missing_token_is_refused(self, api, headers, sandbox):
        """A request without a Bearer token is refused with 401."""
        assert api.submit(sandbox, headers=headers).status == 401
        assert api.query(sandbox, "1", headers=headers).status == 401
        assert sandbox.report()["charged"] == 0

    def test_revoked_token_is_refused(self, api, sandbox):
        """A revoked token is refused by every call."""
        generation_id = api.submitted_id(sandbox)
        sandbox.weather(revoked=True)
        assert api.submit(sandbox).status == api.query(sandbox, generation_id).status == 401


class TestQueries:
    def test_state_follows_the_time(self, api, slow_sandbox, clock):
        """A generation is processing after a fifth of its time, and completed at its end."""
        generation_id = api.submitted_id(slow_sandbox)
        clock.now += 2
        assert api.query(slow_sandbox, generation_id).json["state"] == "processing"
        clock.now += 7.9
        assert api.query(slow_sandbox, generation_id).json["state"] == "processing"
        clock.now += 0.1
        assert api.query(slow_sandbox, generation_id).json["state"] == "completed"

    def test_slow_takes_ten_times_longer(self, api, slow_sandbox, clock):
        """A generation with `[slow]` takes ten times as long."""
        generation_id = api.submitted_id(slow_sandbox, "a snail [slow]")
        clock.now += 99
        assert api.query(slow_sandbox, generation_id).json["state"] == "processing"
        clock.now += 1
        assert api.query(slow_sandbox, generation_id).json["state"] == "completed"

    @pytest.mark.parametrize("word", ["[fail]", "[Moderated]"])
    def test_failed_generation_is_refunded(self, api, word, slow_sandbox, clock):
        """A generation with `[fail]` or `[moderated]` fails with a reason and is refunded at its end."""
        generation_id = api.submitted_id(slow_sandbox, f"a {word} boat")
        assert slow_sandbox.report()["refunded"] == 0
        clock.now += 10
        failed = api.query(slow_sandbox, generation_id).json
        assert failed["state"] == "failed"
        assert failed["failure_reason"]
        assert (slow_sandbox.report()["charged"], slow_sandbox.report()["refunded"]) == (1, 1)

    def test_flaky_fails_every_second_query(self, api, sandbox):
        """Every second query of a generation with `[flaky]` is answered with 502."""
        generation_id = api.submitted_id(sandbox, "a boat [flaky]")
        assert [api.query(sandbox, generation_id).status for _ in range(4)] == [200, 502, 200, 502]

    def test_new_id_is_unknown_first(self, api, clock):
        """An id is unknown until it is `visible_after` seconds old."""
        with Sandbox(seconds=0, visible_after=3, clock=clock) as sandbox:
            generation_id = api.submitted_id(sandbox)
            clock.now += 2.9
            assert api.query(sandbox, generation_id).status == api.unknown
            clock.now += 0.1
            assert api.query(sandbox, generation_id).status == 200

    def test_knows_only_its_generations(self, api, sandbox):
        """An API does not know the generations of other APIs."""
        for other in set(CALLS) - {api}:
            assert api.query(sandbox, other.submitted_id(sandbox)).status == api.unknown
        assert api.query(sandbox, "unknown").status == api.unknown

    @pytest.mark.parametrize("state", ["processing", "completed", "failed", "dreaming"])
    def test_added_generation_keeps_its_state(self, api, state, sandbox):
        """A generation that a test adds is charged and keeps the state that the test chose."""
        generation_id = sandbox.add_generation("a boat", api=api.api, state=state, seconds=100)
        assert api.query(sandbox, generation_id).json["state"] == state
        (generation,) = sandbox.report()["generations"]
        assert (generation["api"], generation["prompt"], generation["charged"]) == (api.api, "a boat", True)
        assert generation["body"] == {**api.fields, api.prompt: "a boat"}
        assert generation["refunded"] is (state == "failed")


class TestSubmissions:
    @pytest.mark.parametrize("body", [b"{", b"\xff", b'{"%b": "a \\ud800 boat"}', []], ids=str)
    def test_invalid_json_is_refused(self, api, body, sandbox):
        """A body that is not a JSON object of valid text is refused and not charged."""
        if isinstance(body, bytes):
            body = body.replace(b"%b", api.prompt.encode())
        assert api.call(sandbox, api.method, api.path, body).status in (400, 422)
        assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (0, 1)

    def test_unknown_fields_are_accepted(self, api, sandbox):
        """A field that the API does not know is accepted."""
        assert api.submit(sandbox, brand_new_field=[1]).status == api.created

    @pytest.mark.parametrize("word", ["400", "402", "403", "413", "422", "500", "502", "503", "busy"])
    def test_word_refuses_submission(self, api, word, sandbox):
        """A status in the prompt refuses the submission with this status, without a charge."""
        assert api.submit(sandbox, f"a boat [{word}]").status == int(word.replace("busy", "429"))
        assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (0, 1)

    def test_429_is_refused_twice(self, api, sandbox):
        """A submission with `[429]` is refused twice with a second to wait, then accepted."""
        answers = [api.submit(sandbox, "a boat [429]") for _ in range(3)]
        assert [answer.status for answer in answers] == [429, 429, api.created]
        assert [answer.headers.get("retry-after") for answer in answers] == ["1", "1", None]
        assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (1, 2)

    def test_429_with_seconds_once(self, api, sandbox):
        """A submission with `[429:7]` is refused once, with seven seconds to wait."""
        answers = [api.submit(sandbox, "a boat [429:7]") for _ in range(2)]
        assert [answer.status for answer in answers] == [429, api.created]
        assert answers[0].headers["retry-after"] == "7"

    def test_busy_counts_refusals(self, api, sandbox):
        """A submission with `[busy:2]` is refused twice, then accepted."""
        assert [api.submit(sandbox, "a boat [busy:2]").status for _ in range(3)] == [429, 429, api.created]

    @pytest.mark.parametrize(("word", "status"), [("html", None), ("proxy", 502)])
    def test_web_page_is_charged(self, api, word, status, sandbox):
        """A submission with `[html]` or `[proxy]` is charged, but the answer is a web page."""
        answer = api.submit(sandbox, f"a boat [{word}]")
        assert (answer.status, answer.kind) == (status or api.created, "text/html")
        assert sandbox.report()["charged"] == 1

    def test_drop_is_charged_and_cut(self, api, sandbox, caplog):
        """A submission with `[drop]` is charged, then its connection is cut, without a log line."""
        with pytest.raises(RemoteDisconnected):
            api.submit(sandbox, "a boat [drop]")
        assert sandbox.report()["charged"] == 1
        assert not caplog.records

    def test_hang_is_charged_without_answer(self, api):
        """A submission with `[hang]` is charged and never answered, and the sandbox can still stop."""
        with Sandbox(seconds=0) as sandbox:
            with pytest.raises(TimeoutError):
                api.submit(sandbox, "a boat [hang]", timeout=0.2)
            assert sandbox.report()["charged"] == 1
            connection = HTTPConnection("127.0.0.1", sandbox.port, timeout=10)
            body = json.dumps({**api.fields, api.prompt: "a [hang] boat"})
            connection.request(api.method, api.path, body, api.headers)
            while sandbox.report()["charged"] < 2:
                pass
        with pytest.raises(BROKEN):
            connection.getresponse()
        connection.close()


class TestWeather:
    @pytest.mark.parametrize("failure", ["402", "403", "413", "422", "429", "502", "503", "busy"])
    def test_can_refuse_submissions(self, api, failure, sandbox):
        """The weather can refuse submissions without a charge."""
        sandbox.weather(submit={failure: 1})
        assert api.submit(sandbox).status == int(failure.replace("busy", "429"))
        assert sandbox.report()["charged"] == 0

    def test_cuts_accepted_submissions(self, api, sandbox):
        """The weather can cut the connection of a submission that was accepted and charged."""
        sandbox.weather(submit={"drop_after_accept": 1})
        with pytest.raises(RemoteDisconnected):
            api.submit(sandbox)
        assert sandbox.report()["charged"] == 1

    @pytest.mark.parametrize("failure", ["429", "500", "502", "503", "504"])
    def test_fails_status_queries(self, api, failure, sandbox):
        """The weather can answer queries with an error, while submissions are accepted."""
        generation_id = api.submitted_id(sandbox)
        sandbox.weather(status={failure: 1})
        assert api.query(sandbox, generation_id).status == int(failure)
        assert api.submit(sandbox).status == api.created

    def test_chooses_seconds_to_wait(self, api, sandbox):
        """The weather can choose the seconds to wait after a 429."""
        sandbox.weather(status={"429": 1}, submit={"429": 1}, retry_after=7)
        assert api.submit(sandbox).headers["retry-after"] == "7"
        assert api.query(sandbox, "1").headers["retry-after"] == "7"

    def test_cuts_or_delays_queries(self, api, sandbox):
        """The weather can answer a query with a web page, cut it, or let it hang."""
        generation_id = api.submitted_id(sandbox)
        sandbox.weather(status={"html": 1})
        answer = api.query(sandbox, generation_id)
        assert (answer.status, answer.kind) == (200, "text/html")
        for weather in ({"status": {"drop": 1}}, {"status": {"hang": 1}, "hang_seconds": 0.05}):
            sandbox.weather(**weather)
            with pytest.raises(RemoteDisconnected):
                api.query(sandbox, generation_id)
        sandbox.weather(status={"hang": 1})
        with pytest.raises(TimeoutError):
            api.query(sandbox, generation_id, timeout=0.2)

    def test_down_cuts_every_connection(self, api, sandbox):
        """An API that is down cuts every connection, until the weather is good again."""
        sandbox.weather(down=True)
        with pytest.raises(BROKEN):
            api.submit(sandbox)
        with pytest.raises(BROKEN):
            api.query(sandbox, "1")
        sandbox.weather()
        assert api.submit(sandbox).status == api.created
        assert sandbox.report()["charged"] == 1

"""The sandbox's `/luma` is a gateway, by the wire contract."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_luma.sandbox import Sandbox
from tests.support.sandbox_calls import GATEWAY, fixture

PATH = "/luma/generations"
call, submit, submitted_id, query = GATEWAY.call, GATEWAY.submit, GATEWAY.submitted_id, GATEWAY.query


def query_many(sandbox, ids):
    return call(sandbox, "POST", "/luma/tasks", {"ids": ids})


def shape(value) -> Any:
    """The names in a JSON value, and the types of their values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


class TestAnswers:
    @pytest.mark.parametrize("submit_shape", ["flat", "envelope", "bare"])
    def test_submission_in_chosen_shape(self, submit_shape):
        """The answer to a submission has the shape of the settings, and contains the id."""
        with Sandbox(submit_shape=submit_shape) as sandbox:
            answer = submit(sandbox)
            assert answer.status == 200
            assert shape(answer.json) == shape(fixture(f"submit_{submit_shape}.json"))
            assert sandbox.report()["generations"][0]["id"] in answer.content.decode()

    def test_generation_in_each_state(self, slow_sandbox, clock):
        """A generation has the shape of the contract in each of its states."""
        generation_id = submitted_id(slow_sandbox)
        assert shape(query(slow_sandbox, generation_id).json) == shape(fixture("get_pending.json"))
        clock.now += 2
        processing = query(slow_sandbox, generation_id).json
        assert shape(processing) == shape(fixture("get_processing.json"))
        assert processing["estimate_wait_seconds"] == 8
        clock.now += 8
        assert shape(query(slow_sandbox, generation_id).json) == shape(fixture("get_completed.json"))

    @pytest.mark.parametrize(
        ("word", "reason"), [("[fail]", "Job failed"), ("[moderated]", "Advanced prompt moderation failed")]
    )
    def test_failed_generation_has_reason(self, word, reason, sandbox):
        """A failed generation has the shape and the reason of the contract."""
        failed = query(sandbox, submitted_id(sandbox, f"a {word} boat")).json
        assert shape(failed) == shape(fixture("get_failed.json"))
        assert failed["failure_reason"] == reason

    def test_unknown_id_is_400(self, sandbox):
        """The query of an unknown id has the error of the contract."""
        answer = query(sandbox, "unknown")
        assert (answer.status, answer.json) == (400, fixture("error_task.json"))

    def test_refused_token_is_401(self, sandbox):
        """A request without a token has the error of the contract."""
        refused = query(sandbox, "x", headers={})
        assert refused.status == 401
        assert shape(refused.json) == shape(fixture("error_openai.json"))

    @pytest.mark.parametrize("word", ["500", "502", "503"])
    def test_server_error_is_web_page(self, word, sandbox):
        """A server error is a web page, not JSON."""
        assert submit(sandbox, f"a boat [{word}]").kind == "text/html"

    def test_empty_balance_has_code(self, sandbox):
        """A balance that is too low has the code of the contract."""
        assert submit(sandbox, "a boat [402]").json["code"] == fixture("error_quota.json")["code"]

    def test_other_path_is_404(self, sandbox):
        """A path that is not a call of the gateway is not found."""
        answer = call(sandbox, "GET", "/luma/account")
        assert (answer.status, answer.kind) == (404, "text/plain")

    def test_prefix_is_second_path(self):
        """With a prefix, the four calls work under both paths."""
        with Sandbox(seconds=0, prefix="/v1/") as sandbox:
            generation_id = call(sandbox, "POST", f"/v1{PATH}", {"user_prompt": "a boat"}).json["id"]
            assert call(sandbox, "GET", f"/v1{PATH}/{generation_id}").status == 200
            assert call(sandbox, "POST", f"/v1{PATH}/{generation_id}/extend", {"user_prompt": "more"}).status == 200
            assert len(call(sandbox, "POST", "/v1/luma/tasks", {"ids": [generation_id]}).json) == 1
            assert query(sandbox, generation_id).status == 200


class TestSubmissions:
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param({}, id="empty"),
            pytest.param({"user_prompt": "  "}, id="blank"),
            pytest.param({"user_prompt": "ab"}, id="short"),
            pytest.param({"user_prompt": "a" * 5001}, id="long"),
            pytest.param({"user_prompt": "ab", "image_url": "https://example.com/a.png"}, id="short-with-image"),
            pytest.param({"user_prompt": 5}, id="prompt-number"),
            pytest.param({"user_prompt": "a boat", "model_name": None}, id="null"),
            pytest.param({"user_prompt": "a boat", "loop": "true"}, id="loop-string"),
            pytest.param({"user_prompt": "a boat", "image_url": "boat.png"}, id="image-path"),
            pytest.param({"user_prompt": "a boat", "image_end_url": "boat.png"}, id="end-image-path"),
            pytest.param(
                {"user_prompt": "a boat", "loop": True, "image_end_url": "https://e.com/a.png"}, id="loop-end"
            ),
        ],
    )
    def test_invalid_submission_is_refused(self, body, sandbox):
        """A submission against the gateway's rules is refused with 400 and not charged."""
        answer = call(sandbox, "POST", PATH, body)
        assert answer.status == 400
        assert set(answer.json) == {"code", "message", "data"}
        assert answer.json["data"] is None
        assert (sandbox.report()["charged"], sandbox.report()["refused"]) == (0, 1)

    @pytest.mark.parametrize(
        "body",
        [
            {"user_prompt": "abc"},
            {"user_prompt": "a" * 5000},
            {"image_url": "data:image/png;base64,AAAA"},
            {"user_prompt": "a boat", "model_name": "ray-v9", "loop": True},
        ],
        ids=["shortest", "longest", "image-alone", "new-model"],
    )
    def test_valid_submission_is_accepted(self, body, sandbox):
        """A prompt of 3 to 5,000 characters, an image without a prompt, and any model are accepted."""
        assert call(sandbox, "POST", PATH, body).status == 200

    def test_extension_is_new_generation(self, sandbox):
        """An extension is a new generation that knows its parent, and the words in its prompt work."""
        parent = submitted_id(sandbox)
        extension = call(sandbox, "POST", f"{PATH}/{parent}/extend", {"user_prompt": "on it goes [fail]"})
        assert extension.status == 200
        assert extension.json["id"] != parent
        assert sandbox.report()["generations"][1]["parent"] == parent
        assert query(sandbox, extension.json["id"]).json["state"] == "failed"

    def test_extends_only_completed_generation(self, slow_sandbox):
        """An unknown or unfinished generation cannot be extended."""
        body = {"user_prompt": "on it goes"}
        unfinished = submitted_id(slow_sandbox)
        assert call(slow_sandbox, "POST", f"{PATH}/{unfinished}/extend", body).status == 400
        unknown = call(slow_sandbox, "POST", f"{PATH}/unknown/extend", body)
        assert (unknown.status, unknown.json) == (400, fixture("error_task.json"))
        assert slow_sandbox.report()["charged"] == 1


class TestBatchQuery:
    def test_answers_in_another_order(self, sandbox):
        """The answer has another order than the request, each id once, and no unknown ids."""
        first, second = submitted_id(sandbox), submitted_id(sandbox)
        answer = query_many(sandbox, [first, "unknown", second, first])
        assert [generation["id"] for generation in answer.json] == [second, first]
        assert shape(answer.json[0]) == shape(fixture("get_completed.json"))

    def test_leaves_out_hidden_ids(self, clock):
        """The answer leaves out ids that are not visible yet, and generations of another API."""
        with Sandbox(seconds=0, visible_after=3, clock=clock) as sandbox:
            ids = [submitted_id(sandbox), sandbox.add_generation(api="agents")]
            assert query_many(sandbox, ids).json == []
            clock.now += 3
            assert [generation["id"] for generation in query_many(sandbox, ids).json] == ids[:1]

    def test_envelope_has_each_status(self, clock):
        """An envelope has the status of each generation, and a body only while it is processing or completed."""
        with Sandbox(batch_shape="envelope", clock=clock) as sandbox:
            ids = [submitted_id(sandbox, "a boat"), submitted_id(sandbox, "a [fail] boat")]
            clock.now += 5
            ids.append(submitted_id(sandbox, "a boat [slow]"))

            def statuses() -> list[tuple[str, str, str]]:
                answer = query_many(sandbox, ids).json
                expected = fixture("tasks_envelope.json")["data"]
                known = {(task["status"], task["data"] is None) for task in expected}
                assert {(task["status"], task["data"] is None) for task in answer["data"]} <= known
                assert answer["data"][0].keys() == expected[0].keys()
                for task in answer["data"]:
                    started, ended = task["status"] != "NOT_START", task["status"] in ("SUCCESS", "FAILURE")
                    assert task["start_time"] == (task["submit_time"] if started else 0)
                    assert task["finish_time"] == (task["submit_time"] + 10 if ended else 0)
                return [(task["status"], task["fail_reason"], task["progress"]) for task in reversed(answer["data"])]

            assert statuses() == [("IN_PROGRESS", "", "50%"), ("IN_PROGRESS", "", "50%"), ("NOT_START", "", "0%")]
            clock.now += 5
            assert statuses() == [("SUCCESS", "", "100%"), ("FAILURE", "Job failed", "100%"), ("NOT_START", "", "5%")]

    def test_can_be_missing(self):
        """A gateway without the batch query answers 404."""
        with Sandbox(batch_shape="none") as sandbox:
            assert query_many(sandbox, []).status == 404

    def test_has_limit_of_ids(self):
        """A batch query with more ids than `batch_limit` is refused."""
        with Sandbox(batch_limit=2) as sandbox:
            assert query_many(sandbox, ["a", "b"]).status == 200
            assert query_many(sandbox, ["a", "b", "c"]).status == 400

    @pytest.mark.parametrize("body", [b"", [], {}, {"ids": "abc"}, {"ids": [1]}], ids=str)
    def test_needs_list_of_ids(self, body, sandbox):
        """A batch query without a list of strings is refused."""
        assert call(sandbox, "POST", "/luma/tasks", body).status == 400

    @pytest.mark.parametrize("failure", ["429", "500"])
    def test_fails_by_weather(self, failure, sandbox):
        """The weather of status queries applies to batch queries as well."""
        sandbox.weather(status={failure: 1})
        assert query_many(sandbox, ["a"]).status == int(failure)

    def test_counts_as_poll_of_each(self, sandbox):
        """A batch query is counted once, and as a poll of each generation in it."""
        ids = [submitted_id(sandbox), submitted_id(sandbox)]
        query_many(sandbox, ids)
        report = sandbox.report()
        assert (report["polls"], report["batch_polls"]) == (0, 1)
        assert [generation["polls"] for generation in report["generations"]] == [1, 1]

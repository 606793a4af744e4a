"""The parts of the sandbox that a test uses: add_generation, requests, the report, settings and weather."""

from __future__ import annotations

import asyncio
import re
import threading
from http.client import RemoteDisconnected

import pytest

from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.sandbox.failures import Cut
from tests.support.sandbox_calls import AGENTS, GATEWAY, call

submit, submitted_id, query = GATEWAY.submit, GATEWAY.submitted_id, GATEWAY.query


class TestAddGeneration:
    def test_words_in_prompt_work(self, sandbox):
        """The words in the prompt of an added generation work."""
        failed = query(sandbox, sandbox.add_generation("[moderated]")).json
        assert (failed["state"], failed["failure_reason"]) == ("failed", "Advanced prompt moderation failed")

    def test_fails_for_chosen_reason(self, sandbox):
        """A test chooses the reason and the code of a failure."""
        generation_id = sandbox.add_generation(failure_reason="No")
        assert query(sandbox, generation_id).json["failure_reason"] == "No"
        failures = [
            AGENTS.query(sandbox, sandbox.add_generation(api="agents", **fields)).json
            for fields in (
                {"failure_code": "solar_flare", "failure_reason": "No"},
                {"state": "failed", "failure_code": "none"},
                {"failure_code": "content_moderated"},
            )
        ]
        assert [(one["state"], one["failure_code"]) for one in failures] == [
            ("failed", "solar_flare"),
            ("failed", None),
            ("failed", "content_moderated"),
        ]
        assert failures[0]["failure_reason"] == "No"
        assert "moderation" in failures[2]["failure_reason"]

    def test_has_chosen_age_and_time(self, slow_sandbox, clock):
        """A test chooses the age of a generation and how long it takes."""
        generation_id = slow_sandbox.add_generation(seconds=100, age=90)
        assert query(slow_sandbox, generation_id).json["estimate_wait_seconds"] == 10
        clock.now += 10
        assert query(slow_sandbox, generation_id).json["state"] == "completed"

    def test_has_chosen_id_and_answer(self, sandbox):
        """A test chooses the id, the video's URL and any field of the answer."""
        url = "https://cdn.example.com/boat.mp4"
        given = sandbox.add_generation(generation_id="task-1", video_url=url, answer={"thumbnail": None})
        answer = query(sandbox, "task-1").json
        assert given == answer["id"] == "task-1"
        assert (answer["video"]["url"], answer["video"]["download_url"], answer["thumbnail"]) == (url, url, None)

    def test_unknown_api_is_refused(self, sandbox):
        """An unknown API is refused with the names of all APIs."""
        with pytest.raises(ValueError, match=r"does not play the API 'dream'. Use api='gateway' or 'agents'"):
            sandbox.add_generation(api="dream")

    def test_finish_ends_fixed_state(self, slow_sandbox, clock):
        """A generation in a fixed state runs until `finish` lets it end."""
        generation_id = slow_sandbox.add_generation(state="processing")
        clock.now += 1000
        assert query(slow_sandbox, generation_id).json["state"] == "processing"
        slow_sandbox.finish(generation_id, after=5)
        clock.now += 4
        assert query(slow_sandbox, generation_id).json["state"] == "processing"
        clock.now += 1
        assert query(slow_sandbox, generation_id).json["state"] == "completed"

    def test_finish_ends_submitted_generation(self, slow_sandbox):
        """`finish` ends a submitted generation as its prompt says."""
        generation_id = submitted_id(slow_sandbox, "a boat [fail]")
        slow_sandbox.finish(generation_id)
        assert query(slow_sandbox, generation_id).json["state"] == "failed"

    def test_removed_generation_is_unknown(self, sandbox):
        """A removed generation is unknown until a test adds its id again."""
        generation_id = submitted_id(sandbox)
        sandbox.remove_generation(generation_id)
        assert query(sandbox, generation_id).status == 400
        sandbox.add_generation(generation_id=generation_id)
        assert query(sandbox, generation_id).status == 200


class TestRequests:
    def test_are_kept_in_order(self, sandbox):
        """The requests are kept in order, with path, query, body, headers and status."""
        image = "data:image/png;base64," + "A" * 1000
        generation_id = submitted_id(sandbox, image_url=image)
        GATEWAY.call(sandbox, "POST", "/luma/tasks", {"ids": [generation_id]})
        GATEWAY.call(sandbox, "GET", f"/cdn/{generation_id}/video.mp4", headers={"Range": "bytes=5-"})
        GATEWAY.call(sandbox, "GET", "/v1/files?limit=1")

        submitted, polled, downloaded, listed = sandbox.requests
        assert (submitted.method, submitted.path, submitted.status) == ("POST", "/luma/generations", 200)
        assert submitted.body["image_url"] == image
        assert (polled.path, polled.body) == ("/luma/tasks", {"ids": [generation_id]})
        assert (downloaded.headers["range"], downloaded.body, downloaded.status) == ("bytes=5-", None, 206)
        assert (listed.path, listed.query, listed.status) == ("/v1/files", "limit=1", 401)

    def test_hide_the_token(self, sandbox):
        """The requests do not contain the token."""
        submit(sandbox, headers={"Authorization": "Bearer sk-test"})
        query(sandbox, "1", headers={"Authorization": "sk-test"})
        assert [request.headers["authorization"] for request in sandbox.requests] == ["Bearer ***", "***"]
        assert "sk-test" not in str(sandbox.requests)

    def test_have_the_clocks_time(self, slow_sandbox, clock):
        """A request has its time by the sandbox's clock."""
        submit(slow_sandbox)
        clock.now += 2.5
        submit(slow_sandbox)
        first, second = slow_sandbox.requests
        assert second.at - first.at == 2.5

    def test_cut_request_has_no_status(self, sandbox):
        """A request whose connection was cut has no status."""
        with pytest.raises(RemoteDisconnected):
            submit(sandbox, "a boat [drop]")
        (request,) = sandbox.requests
        assert (request.body["user_prompt"], request.status) == ("a boat [drop]", None)


class TestReport:
    def test_has_generations_and_counts(self, sandbox):
        """The report has every generation, and counts requests, polls and charges."""
        image = "data:image/png;base64," + "A" * 1000
        generation_id = submitted_id(sandbox, "a boat", image_url=image, brand_new_field=[1])
        query(sandbox, generation_id, headers={**GATEWAY.headers, "User-Agent": "airflow"})
        GATEWAY.call(sandbox, "POST", "/luma/tasks", {"ids": [generation_id]})
        submit(sandbox, "no")

        report = sandbox.report()
        (generation,) = report.pop("generations")
        assert report == {
            "submitted": 1,
            "charged": 1,
            "refunded": 0,
            "refused": 1,
            "polls": 1,
            "batch_polls": 1,
            "requests": 4,
            "at_once": 1,
            "downloads": 0,
            "tokens_at_cdn": 0,
            "user_agents": ["airflow"],
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", generation.pop("submitted_at"))
        assert generation == {
            "id": generation_id,
            "api": "gateway",
            "prompt": "a boat",
            "state": "completed",
            "failure_reason": None,
            "body": {"user_prompt": "a boat", "image_url": image[:40], "brand_new_field": [1]},
            "parent": None,
            "polls": 2,
            "charged": True,
            "refunded": False,
            "video_url": f"{sandbox.url}/cdn/{generation_id}/video.mp4",
            "thumbnail_url": f"{sandbox.url}/cdn/{generation_id}/thumbnail.jpg",
        }

    def test_covers_every_api(self, sandbox):
        """The report has the generations of all APIs, with short images and each API's refunds."""
        submit(sandbox, "a boat")
        frame = {"start_frame": {"data": "A" * 1000, "media_type": "image/png"}}
        AGENTS.submit(sandbox, "a ship [fail]", video=frame)
        AGENTS.submit(sandbox, "a raft [fail:budget_exhausted]")

        report = sandbox.report()
        assert [(one["api"], one["prompt"], one["refunded"]) for one in report["generations"]] == [
            ("gateway", "a boat", False),
            ("agents", "a ship [fail]", True),
            ("agents", "a raft [fail:budget_exhausted]", False),
        ]
        assert report["generations"][1]["failure_reason"] == "The model could not finish"
        assert report["generations"][1]["body"]["video"]["start_frame"]["data"] == "A" * 40
        assert (report["charged"], report["refunded"]) == (3, 1)

    def test_counts_calls_in_parallel(self):
        """The report has the highest number of calls that ran at the same time."""
        with Sandbox(latency=0.3) as sandbox:
            threads = [threading.Thread(target=submit, args=(sandbox,)) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            submit(sandbox)
            assert sandbox.report()["at_once"] == 5

    def test_page_is_for_browsers(self, sandbox):
        """A browser gets a page that contains no submitted text and loads nothing from other hosts."""
        submit(sandbox, "<script>alert(1)</script>")
        answer = call(sandbox, "GET", "/sandbox", headers={"Accept": "text/html,*/*"})
        assert answer.kind == "text/html"
        page = answer.content.decode()
        assert "alert(1)" not in page
        assert "innerHTML" not in page
        assert not re.search(r"(src|href)=[\"']https?:", page)

    def test_json_is_for_programs(self, sandbox):
        """A program gets the same report as from `report()`."""
        submit(sandbox)
        answer = call(sandbox, "GET", "/sandbox", headers={})
        assert answer.json == sandbox.report()


class TestSettings:
    def test_change_while_running(self, clock):
        """A changed setting applies to later calls and generations."""
        with Sandbox(seconds=10, clock=clock) as sandbox:
            old = submitted_id(sandbox)
            sandbox.change(seconds=0, token="test")
            new = submitted_id(sandbox)
            assert [query(sandbox, one).json["state"] for one in (old, new)] == ["pending", "completed"]
            assert query(sandbox, old, headers={"Authorization": "Bearer other"}).status == 401

    def test_reset_forgets_everything(self, sandbox):
        """A reset forgets generations, requests, counts and the weather, from Python and over HTTP."""
        for reset in (sandbox.reset, lambda: call(sandbox, "DELETE", "/sandbox", headers={})):
            submit(sandbox, "a boat [429]")
            sandbox.weather(revoked=True)
            reset()
            assert (sandbox.report()["requests"], sandbox.report()["generations"], sandbox.requests) == (0, [], [])
            assert [submit(sandbox, "a boat [429:1]").status for _ in range(2)] == [429, 200]
            reset()


class TestWeather:
    def test_can_be_set_over_http(self, sandbox):
        """The weather can be set over HTTP; fields that are left out are good."""
        sandbox.weather(revoked=True)
        body = {"submit": {"402": 1}}
        assert call(sandbox, "POST", "/sandbox/weather", body, headers={}).status == 204
        assert submit(sandbox).status == 402

    def test_seed_makes_it_repeatable(self, sandbox):
        """The same seed has the same failures, and every failure can happen."""
        generation_id = submitted_id(sandbox)

        def statuses() -> list[int]:
            sandbox.weather(status={"429": 0.3, "500": 0.3}, seed=7)
            return [query(sandbox, generation_id).status for _ in range(20)]

        first = statuses()
        assert set(first) == {200, 429, 500}
        assert statuses() == first

    @pytest.mark.parametrize(
        ("weather", "message"),
        [
            ({"snow": 1}, "unexpected keyword argument 'snow'"),
            ({"status": {"418": 1}}, "status has no 418. Use 429, 500"),
            ({"submit": {"500": 1}}, "submit has no 500. Use 402"),
            ({"cdn": {"drop": 1}}, "cdn has no drop. Use 403"),
            ({"status": {"429": 0.6, "500": 0.6}}, "at most 1 in total"),
            ({"status": {"429": -0.1}}, "must be 0 or more"),
            ({"status": 1}, "int"),
        ],
        ids=str,
    )
    def test_impossible_weather_is_refused(self, weather, message, sandbox):
        """Impossible weather is refused, from Python and over HTTP."""
        with pytest.raises(ValueError, match=message):
            sandbox.weather(**weather)
        answer = call(sandbox, "POST", "/sandbox/weather", weather, headers={})
        assert answer.status == 400
        assert message in answer.json["message"]

    @pytest.mark.parametrize("body", [b"{", []], ids=str)
    def test_needs_json_object(self, body, sandbox):
        """A body that is not a JSON object is refused."""
        assert call(sandbox, "POST", "/sandbox/weather", body, headers={}).status == 400


def test_other_server_cannot_cut():
    """A server that cannot cut connections fails with an error that says so."""

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    with pytest.raises(ConnectionAbortedError, match="cannot cut"):
        asyncio.run(Cut()({"type": "http"}, receive, send))

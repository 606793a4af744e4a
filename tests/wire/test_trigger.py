"""The trigger: its event, its connection, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psutil
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from asgiref.sync import SyncToAsync, async_to_sync

from airflow_provider_luma.api import Generation, GenerationState, LumaGenerationFailed, LumaInvalidRequest
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.triggers import connections, poller, subscriptions
from airflow_provider_luma.triggers.luma import LumaGenerationTrigger, generation_from
from tests.support.simulation import TASK, Triggerer, refusal, statuses


@pytest.fixture
def triggerer():
    """A triggerer whose clock jumps to its next timer: an hour takes a second."""
    with Triggerer() as triggerer:
        yield triggerer


class TestEvent:
    def test_fires_generation(self, triggerer):
        """The event of a completed generation has its dict; the task builds it again."""
        (one,) = triggerer.api().add(1)
        ((event, _),) = triggerer.wait([one])
        assert event["status"] == "success"
        assert generation_from(json.loads(json.dumps(event))).video_url == "https://cdn.example.com/video.mp4"

    @pytest.mark.parametrize("failure", [{"moderated": True}, {"retry_may_help": False}, {}])
    def test_fires_failure(self, failure, triggerer):
        """The event of a failed generation has all that its error needs."""
        failed = Generation(id="x", state=GenerationState.FAILED, failure_reason="Job failed", **failure)
        triggerer.api().answer = lambda ids: {"x": failed}
        ((event, _),) = triggerer.wait(["x"])
        with pytest.raises(LumaGenerationFailed) as raised:
            generation_from(json.loads(json.dumps(event)))
        assert raised.value.generation == failed
        assert str(raised.value) == event["message"]

    def test_fires_after_a_second(self, triggerer):
        """A trigger fires no sooner than a second after it began: its task may still be deferring."""
        triggerer.connections["luma_default"] = LumaInvalidRequest("No host.")
        ((_, at),) = triggerer.wait(["x"])
        assert at == 1
        ((_, at),) = triggerer.wait(triggerer.api().add(1, seconds=0))
        assert at == 2

    def test_fires_error(self, triggerer):
        """The event of any other error names its class; the task builds it again."""
        triggerer.connections["luma_default"] = LumaInvalidRequest("No host.")
        ((event, _),) = triggerer.wait(["x"])
        with pytest.raises(LumaInvalidRequest, match="No host"):
            generation_from(json.loads(json.dumps(event)))

    def test_survives_another_triggerer(self, triggerer):
        """A trigger that is built from its row waits for the same state with the same connection."""
        (one,) = triggerer.api("luma_other").add(1)
        trigger = LumaGenerationTrigger(one, "luma_other", 2, ["processing", "failed"])
        path, arguments = trigger.serialize()
        assert path == "airflow_provider_luma.triggers.luma.LumaGenerationTrigger"
        fired = triggerer.run(anext(LumaGenerationTrigger(**json.loads(json.dumps(arguments))).run()))
        assert fired.payload["generation"]["state"] == "processing"

    def test_kill_names_generation(self, caplog, capsys):
        """If a person stops the task, the log says that the generation keeps running."""
        with caplog.at_level(logging.WARNING):
            asyncio.run(LumaGenerationTrigger("x").on_kill())
        assert "generation x" in capsys.readouterr().out + caplog.text


class TestInterval:
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**400, "5", "{{ 5 }}", None, True, [5]])
    def test_refuses_other_values(self, value):
        """Only a positive number of seconds or a `timedelta` is a poll interval; the message names the argument."""
        with pytest.raises(LumaInvalidRequest, match="poll_interval must be a positive number"):
            LumaGenerationTrigger("x", poll_interval=value)

    @pytest.mark.parametrize("value", [timedelta(seconds=10), 10, 10.0])
    def test_accepts_numbers_and_timedelta(self, value):
        """A `timedelta` becomes seconds, which Airflow can store."""
        _, arguments = LumaGenerationTrigger("x", poll_interval=value).serialize()
        assert arguments["poll_interval"] == 10
        assert json.dumps(arguments)


class TestConnection:
    def test_is_looked_up_every_five_minutes(self, triggerer):
        """A connection is looked up again after five minutes, once for all waits."""
        triggerer.wait(triggerer.api().add(20, seconds=700))
        assert len(triggerer.look_ups) == 3

    def test_changes_during_pause(self, triggerer):
        """A changed connection is used even if the old API asked not to be polled for half an hour."""
        old = triggerer.api()
        ids = old.add(150, seconds=20)
        old.answer = lambda _: refusal(429, retry_after=1800)

        async def waiting():
            started = [triggerer.start(one) for one in ids]
            await asyncio.sleep(400)
            triggerer.api().add(150, seconds=20)
            return await asyncio.gather(*started)

        fired = triggerer.run(waiting())
        assert statuses(fired) == {"success": 150}
        assert max(at for _, at in fired) <= 2 * subscriptions.CACHE_TTL + 10
        assert len(triggerer.look_ups) == 3
        assert len(old.requests) <= poller.SLOTS["batch"]

    def test_refused_token_is_looked_up(self, triggerer):
        """A token that was replaced is looked up once for all waits, also for polls that were under way."""
        old = triggerer.api(batch_size=1)
        ids = old.add(10, seconds=20)

        async def waiting():
            started = [triggerer.start(one) for one in ids]
            await asyncio.sleep(4)
            # Two polls are refused while the others are under way.
            old.answer = lambda _: refusal(401)
            old.seconds = lambda one: 3 if one != ids[:1] and triggerer.loop.now < 5.3 else 0.1
            triggerer.api(batch_size=1).add(10, seconds=16)
            return await asyncio.gather(*started)

        fired = triggerer.run(waiting())
        assert statuses(fired) == {"success": 10}
        assert max(at for _, at in fired) <= 26
        assert len(triggerer.look_ups) == 2
        assert old.between(4, 100) <= 11

    def test_refused_token_ends_waits(self, triggerer):
        """While a token stays refused it is looked up again; after the grace period all waits end."""
        triggerer.api().answer = lambda _: refusal(401)
        fired = triggerer.wait([f"{number}" for number in range(150)])
        assert {event["error"] for event, _ in fired} == {"LumaAuthenticationError"}
        assert all(60 < at < 180 for _, at in fired)
        assert 3 <= len(triggerer.look_ups) <= 10

    def test_same_key_shares_pace(self, triggerer):
        """Connections with the same host and token, but another timeout, share the limit of polls in a second."""
        first = triggerer.api(batch_size=1, per_second=20)
        second = triggerer.api("luma_other", batch_size=1, per_second=20)
        second.account = first.account

        async def waiting():
            return await asyncio.gather(
                triggerer.events(first.add(150, seconds=20)),
                triggerer.events(second.add(150, seconds=20), luma_conn_id="luma_other"),
            )

        triggerer.run(waiting())
        polls = Counter(int(sent.at) for sent in first.requests + second.requests)
        assert max(polls.values()) <= 21

    def test_slow_look_up_delays_nothing(self, triggerer):
        """Polls go on while the connection is looked up again."""
        api = triggerer.api()

        def slow():
            triggerer.loop.take(40 if triggerer.loop.now > 200 else 0)
            return api

        triggerer.connections["luma_default"] = slow
        ids = api.add(150, seconds=330)
        fired = triggerer.wait(ids)
        assert statuses(fired) == {"success": 150}
        assert len(triggerer.look_ups) == 2
        assert api.longest_gap(ids) <= 5.5
        assert max(at for _, at in fired) <= 336

    @pytest.mark.parametrize(
        "error",
        [
            AirflowNotFoundException("There is no connection"),
            AttributeError("'list' object has no attribute 'get'"),
            ValueError("'1.2.3' does not appear to be an IPv4 or IPv6 address"),
            OSError("File name too long"),
        ],
    )
    def test_missing_connection_ends_waits(self, error, triggerer):
        """A connection that cannot be looked up for a minute ends the waits with a sentence, not with a crash."""
        triggerer.connections["luma_default"] = error
        fired = triggerer.wait(["x"] * 20)
        assert {event["status"] for event, _ in fired} == {"error"}
        assert all(str(error) in event["message"] and "luma_default" in event["message"] for event, _ in fired)
        assert all(event["retry_may_help"] for event, _ in fired)
        assert 60 <= triggerer.loop.now < 70
        assert len(triggerer.look_ups) <= 14

    def test_invalid_connection_ends_waits(self, triggerer):
        """An invalid connection ends the waits with a message that says what is wrong."""
        triggerer.connections["luma_default"] = LumaInvalidRequest("The host of 'luma_default' is not valid.")
        fired = triggerer.wait(["x", "y"])
        assert {event["message"] for event, _ in fired} == {"The host of 'luma_default' is not valid."}
        assert triggerer.loop.now < 10

    @pytest.mark.parametrize("error", [RuntimeError("busy"), AirflowNotFoundException("the API server is down")])
    def test_waits_for_look_up(self, error, triggerer):
        """A look-up that fails for some seconds, before or after the first poll, ends nothing."""
        api = triggerer.api()
        triggerer.connections["luma_default"] = lambda: api if 12 < triggerer.loop.now < 20 else error
        assert statuses(triggerer.wait(api.add(20))) == {"success": 20}

    def test_failed_look_up_keeps_client(self, triggerer, monkeypatch):
        """If the connection cannot be looked up again, the old client stays in use and the triggerer's log says so."""
        lines = []
        monkeypatch.setattr(connections.log, "warning", lambda line, *values: lines.append((line % values, TASK.get())))
        api = triggerer.api()
        triggerer.connections["luma_default"] = lambda: api if triggerer.loop.now < 20 else RuntimeError("busy")
        assert statuses(triggerer.wait(api.add(20, seconds=400))) == {"success": 20}
        ((line, task),) = lines
        assert "old client stays in use: busy" in line
        assert task == "no task"


async def events(ids):
    fired = await asyncio.gather(*(anext(LumaGenerationTrigger(one, poll_interval=0.5).run()) for one in ids))
    return [one.payload["status"] for one in fired]


def poller_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("luma-poller")]


class TestRealTime:
    """With real threads, and HTTP to a sandbox whose generations are completed in a moment."""

    @pytest.fixture
    def ids(self, sandbox, connection):
        return [sandbox.add_generation(seconds=1.5) for _ in range(40)]

    def test_ends_threads_and_sessions(self, sandbox, connection):
        """The last wait, whether it ends or is cancelled, closes threads and sessions; a new wait opens others."""
        sandbox.change(batch_shape="none")

        def connected():
            opened = psutil.Process().net_connections("tcp")
            return {one.laddr for one in opened if one.raddr and one.raddr.port == sandbox.port}

        async def waiting(cancel):
            before = len(sandbox.requests)
            ids = [sandbox.add_generation(seconds=60) for _ in range(40)]
            started = {one: asyncio.ensure_future(events([one])) for one in ids}
            while len(sandbox.requests) < before + 41:  # noqa: ASYNC110 - the sandbox runs in another thread
                await asyncio.sleep(0.05)
            opened = connected()
            for one, waiting in started.items():
                waiting.cancel() if cancel else sandbox.finish(one)
            await asyncio.gather(*started.values(), return_exceptions=True)
            assert not connections._OF_LOOP[asyncio.get_running_loop()]
            for thread in poller_threads():
                await asyncio.to_thread(thread.join, 30)
            # A session of a thread that met an error is part of a reference cycle.
            gc.collect()
            assert not connected()
            return opened

        first, second = asyncio.run(waiting(cancel=True)), asyncio.run(waiting(cancel=False))
        assert first
        assert second
        assert not first & second

    def test_event_loops_poll_apart(self, ids, sandbox):
        """Two event loops in one process have their own pollers."""
        fired = []
        halves = (ids[:20], ids[20:])
        threads = [
            threading.Thread(target=lambda half=half: fired.extend(asyncio.run(events(half)))) for half in halves
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fired == ["success"] * 40
        assert {len(request.body["ids"]) for request in sandbox.requests} == {20}

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_fork_starts_afresh(self, ids):
        """A forked process has its own poller."""

        def child():
            # Airflow looks up connections in a thread of asgiref, which does not exist in the child.
            SyncToAsync.single_thread_executor = ThreadPoolExecutor(1)
            assert asyncio.run(events(ids[:1])) == ["success"]

        async def waiting():
            started = asyncio.ensure_future(events(ids))
            await asyncio.sleep(0.5)
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            await asyncio.to_thread(process.join)
            assert process.exitcode == 0
            return await started

        assert asyncio.run(waiting()) == ["success"] * 40

    def test_cancelled_look_up_finishes(self, ids, monkeypatch):
        """A look-up is not cancelled with its trigger: before Airflow 3.2, another look-up would get its answer."""
        get_connection = LumaHook.get_connection
        begun, answer, ended = asyncio.Event(), asyncio.Event(), []

        async def over_the_pipe():
            begun.set()
            try:
                await answer.wait()
            finally:
                ended.append(answer.is_set())

        def look_up(conn_id):
            if not ended:
                async_to_sync(over_the_pipe)()
            return get_connection(conn_id)

        monkeypatch.setattr(LumaHook, "get_connection", staticmethod(look_up))

        async def waiting():
            first, second = (asyncio.ensure_future(events([one])) for one in ids[:2])
            await begun.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            answer.set()
            return await second

        assert asyncio.run(waiting()) == ["success"]
        assert ended == [True]

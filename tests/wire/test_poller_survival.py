"""The poller survives: whatever one generation, one answer or one step does, the other waits end as they should."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from airflow_provider_luma.api import LumaError, LumaInvalidRequest
from airflow_provider_luma.triggers import pacing, poller, subscriptions
from airflow_provider_luma.triggers.connections import Connection
from benchmarks.one_bad_wait import rows
from tests.support.simulation import Triggerer, refusal, statuses


@pytest.fixture
def triggerer():
    """A triggerer whose clock jumps to its next timer: an hour takes a second."""
    with Triggerer() as triggerer:
        yield triggerer


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.situation)
def test_odd_ids_cost_little(row):
    """Odd generations and proxies cost the other waits no more than the benchmark's table allows."""
    assert row.measure() <= row.limit


def steps():
    for owner in (poller.Poller, pacing.Trouble, pacing.Pace, pacing.BatchSize, subscriptions.Subscription):
        for name, step in vars(owner).items():
            if inspect.isfunction(step) and name not in ("__init__", "__eq__", "__repr__", "close", "next", "end"):
                yield pytest.param(owner, name, id=f"{owner.__name__}.{name}")


class TestSteps:
    @pytest.mark.parametrize("call", [1, 2, 7])
    @pytest.mark.parametrize(("owner", "name"), [*steps()])
    def test_survives_each_step(self, owner, name, call, triggerer, monkeypatch):
        """A step that raises ends one wait at most, and stops nothing."""
        step, calls = getattr(owner, name), []

        def broken(*arguments, **named):
            calls.append(name)
            if len(calls) == call:
                raise RuntimeError("broken")
            return step(*arguments, **named)

        monkeypatch.setattr(owner, name, broken)
        api = triggerer.api(batch_size=20)
        ids = api.add(60, seconds=100)
        rejected, slow = ids[3], ids[40]

        def answer(batch):
            """Begin with trouble for all, then reject an id, and let another id time out."""
            if 8 < triggerer.loop.now < 20:
                return refusal(502)
            return refusal(400) if rejected in batch else refusal(503) if slow in batch else None

        api.answer = answer
        api.seconds = lambda batch: 25 if slow in batch else 0.1

        fired = triggerer.wait(ids, without=[rejected, slow])
        assert statuses(fired)["success"] >= 57
        assert max(at for _, at in fired) <= 200


def poller_of(conn_id="luma_default"):
    return Connection.for_running_loop(conn_id).poller


class TestOddAnswers:
    @pytest.mark.parametrize("odd", [TypeError("broken"), KeyError("id"), {"generation-0030": object()}])
    def test_ends_one_wait(self, odd, triggerer, caplog):
        """An answer that raises an unexpected error ends one wait with an error, and the log has its traceback."""
        api = triggerer.api()
        ids = api.add(150, seconds=60)
        api.answer = lambda batch: odd if ids[30] in batch else None
        fired = triggerer.wait(ids)
        (ended,) = [event for event, _ in fired if event["status"] == "error"]
        assert "generation-0030 raised an unexpected error" in ended["message"]
        assert ended["error"] == "LumaError"
        assert max(at for _, at in fired) <= 66
        assert 1 <= len([record for record in caplog.records if record.exc_info]) <= 2

    def test_waits_out_errors_of_all(self, triggerer):
        """An unexpected error of all requests is trouble that passes."""
        api = triggerer.api()
        api.answer = lambda _: RuntimeError("can't start new thread") if 8 < triggerer.loop.now < 60 else None
        assert statuses(triggerer.wait(api.add(150, seconds=20))) == {"success": 150}
        assert api.between(8, 60) <= 12

    def test_refuses_odd_subscription(self, triggerer):
        """A subscription with an interval that is not a number is refused, and the others go on."""
        api = triggerer.api()
        ids = api.add(20, seconds=60)

        async def waiting():
            connection = Connection.for_running_loop("luma_default")
            started = [triggerer.start(one) for one in ids]
            await asyncio.sleep(8)
            for interval in ("5", None, float("nan")):
                with pytest.raises(LumaInvalidRequest, match="poll_interval"):
                    connection.subscribe(ids[0], interval)
            return await asyncio.gather(*started)

        fired = triggerer.run(waiting())
        assert statuses(fired) == {"success": 20}
        assert max(at for _, at in fired) <= 66

    def test_odd_id_ends_one_wait(self, triggerer):
        """An id that is not even a string ends its own wait only."""
        api = triggerer.api()
        ids = api.add(20, seconds=60)

        async def waiting():
            started = [triggerer.start(one) for one in ids]
            odd = Connection.for_running_loop("luma_default").subscribe(["x"], 5)
            with pytest.raises(LumaError, match="unexpected error"):
                await odd.next()
            Connection.for_running_loop("luma_default").unsubscribe(odd)
            return await asyncio.gather(*started)

        fired = triggerer.run(waiting())
        assert statuses(fired) == {"success": 20}
        assert max(at for _, at in fired) <= 66


class TestBrokenPoller:
    def test_is_replaced(self, triggerer):
        """If the poller itself ends, its waits go on with a new poller."""
        ids = triggerer.api().add(150, seconds=60)

        async def waiting():
            started = [triggerer.start(one) for one in ids]
            for _ in range(3):
                await asyncio.sleep(8)
                broken = poller_of()
                broken.running.cancel()
                await asyncio.sleep(7)
                assert poller_of() is not broken
            return await asyncio.gather(*started)

        fired = triggerer.run(waiting())
        assert statuses(fired) == {"success": 150}
        assert max(at for _, at in fired) <= 66

    def test_ends_waits_without_connection(self, triggerer):
        """If the task that looks the connection up ends, its waits end with an error, and the next wait starts anew."""
        first, *others = triggerer.api().add(20, seconds=60)

        async def waiting():
            started = [triggerer.start(one) for one in others]
            await asyncio.sleep(8)
            Connection.for_running_loop("luma_default")._watching.cancel()
            ended = await asyncio.gather(*started)
            return ended, await triggerer.event(first)

        ended, fired = triggerer.run(waiting())
        assert statuses(ended) == {"error": 19}
        assert all("ended unexpectedly" in event["message"] for event, _ in ended)
        assert fired.payload["status"] == "success"
        assert fired.at <= 66

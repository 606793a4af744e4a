"""
What the poller does in one step of the event loop.

Counted in lines of Python, which among all the other tests once in a while has others' lines in it: so not in the gate.
"""

from __future__ import annotations

import asyncio
import sys

import pytest
from starlette.responses import JSONResponse

from airflow_provider_luma.triggers import poller
from tests.wire.patience import Gateway, PatientLoop, Steps, refusal
from tests.wire.test_poller import TOKEN, event, events


@pytest.fixture
def scans_not_counted(monkeypatch):
    """Leave out the look at all who wait, which takes half a millisecond for 1,000 of them."""
    scan = poller.Schedule._scan

    def uncounted(schedule, now):
        before = sys.gettrace()
        sys.settrace(None)
        try:
            scan(schedule, now)
        finally:
            sys.settrace(before)

    monkeypatch.setattr(poller.Schedule, "_scan", uncounted)


@pytest.fixture
def most(connect):
    """Return how many lines the longest step runs, while this many wait for a gateway that is set up so."""

    def most(count, set_up=lambda far: None, stay=None):
        # One that has run to its end starts no more triggers.
        loop = PatientLoop()
        # Kept, as to throw a thousand tasks away is a long step, too, but not the poller's.
        tasks = []

        async def waiting(ids):
            for one in ids:
                # As the triggerer does.
                await asyncio.sleep(0)
                tasks.append(loop.create_task(event(one)))
            await asyncio.sleep(7)
            for task in tasks[stay:] if stay else ():
                task.cancel()
                await asyncio.sleep(0)
            for task in tasks[:stay]:
                payload, _ = await task
                assert payload["status"] == "success"
                # To look at all that have ended meanwhile would be a long step, too.
                await asyncio.sleep(0)

        with Gateway(loop, token=TOKEN, seconds=17) as far, Steps() as steps:
            connect(host=far.url, password=TOKEN)
            set_up(far)
            loop.run(waiting(far.submit(count)))
        loop.close()
        return steps.most, steps.worst.most_common(3)

    return most


@pytest.mark.usefixtures("scans_not_counted")
class TestSteps:
    """What one step of the event loop does, for 200 and for 1,000 that wait."""

    def test_answers(self, most):
        """Answers of many are handed over a few at a time."""
        (few, _), (many, where) = most(200), most(1000)
        assert many <= 1.5 * few, where

    @pytest.mark.parametrize("status", [401, 429, 502])
    def test_trouble(self, most, status):
        """So is the trouble of all."""

        def in_trouble(far):
            far.many = far.one = lambda _: refusal(status) if 1004 < far.loop.now < 1030 else None

        (few, _), (many, where) = most(200, in_trouble), most(1000, in_trouble)
        assert many <= 1.5 * few, where

    def test_trouble_of_each(self, most):
        """So is trouble after each was in trouble of its own."""

        def in_trouble(far):
            far.many = lambda ids: refusal(404, "")
            far.one = lambda one: refusal(422 if far.loop.now < 1016 else 502) if far.loop.now < 1040 else None

        (few, _), (many, where) = most(200, in_trouble), most(1000, in_trouble)
        assert many <= 1.5 * few, where

    @pytest.mark.parametrize("answers", ["all", "none", "in trouble"])
    def test_leaving(self, most, answers):
        """Those who have left are struck off a few at a time."""

        def set_up(far):
            far.many = lambda ids: JSONResponse([]) if answers == "none" else None
            if answers == "in trouble":
                far.many = far.one = lambda _: refusal(502) if 1004 < far.loop.now < 1030 else None

        (few, _), (many, where) = most(200, set_up, stay=3), most(1000, set_up, stay=3)
        assert many <= 1.5 * few, where

    def test_in_threads(self, gateway, loop):
        """The event loop itself sends and reads nothing."""
        far = gateway(seconds=7)
        with Steps() as steps:
            loop.run(events(far.submit(50)))
        assert not {"requests.sessions", "urllib3.connectionpool", "http.client", "json.decoder"} & steps.modules
        assert poller.__name__ in steps.modules


def test_scan(most):
    """The look at all who wait runs no more than ten lines for each."""
    longest, where = most(1000)
    assert longest <= 10 * 1000, where

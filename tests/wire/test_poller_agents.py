"""What a thousand waiting triggers ask of Luma's own API, which has no batch query, by a clock of their own."""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections import Counter, defaultdict
from itertools import cycle, pairwise

import pytest

from airflow_provider_luma.sandbox import Sandbox
from airflow_provider_luma.triggers.luma import LumaGenerationTrigger
from tests.wire.patience import PatientLoop

KEY = "luma-api-4711"


class SlowSandbox(Sandbox):
    """
    Luma's own API, whose every answer takes some seconds by the clock of the triggers' event loop.

    :param takes: returns the seconds for the next answer.

    `polls` has when each generation was polled, by its id.
    """

    def __init__(self, loop, takes, **settings):
        super().__init__(token=KEY, clock=loop.time, **settings)
        self.polls = defaultdict(list)
        self.most_at_once = 0
        sandbox, answering = self.app, []

        async def app(scope, receive, send):
            folder, _, generation_id = scope["path"].rpartition("/")
            assert (scope["method"], folder) == ("GET", "/v1/generations")
            self.polls[generation_id].append(loop.now)
            answering.append(scope)
            self.most_at_once = max(self.most_at_once, len(answering))
            await loop.taken(takes())
            answering.remove(scope)
            await sandbox(scope, receive, send)

        self.app = app

    @property
    def most_in_a_second(self):
        """The most polls in any second, of which a thousandth is left to rounding."""
        times = sorted(time for polls in self.polls.values() for time in polls)
        return max(bisect(times, begin + 0.999) - first for first, begin in enumerate(times))

    @property
    def longest_gap(self):
        return max(later - earlier for polls in self.polls.values() for earlier, later in pairwise(polls))


@pytest.fixture
def loop():
    loop = PatientLoop()
    yield loop
    loop.close()


@pytest.fixture
def waited(loop, connect):
    """
    Let so many triggers wait, and return the sandbox that they polled and when each generation's event came.

    The weather is good again after 20 s.
    """

    def waited(count, *, takes, weather=(), **settings):
        async def event(generation_id):
            fired = await anext(LumaGenerationTrigger(generation_id, poll_interval=5).run())
            assert fired.payload["status"] == "success"
            return generation_id, loop.time()

        async def events(ids):
            return dict(await asyncio.gather(*map(event, ids)))

        with SlowSandbox(loop, takes, **settings) as sandbox:
            connect(host=sandbox.url, password=KEY, extra={"api": "agents"})
            sandbox.weather(**dict(weather))
            loop.call_later(20, sandbox.weather)
            return sandbox, loop.run(events([sandbox.add_generation(api="agents") for _ in range(count)]))

    return waited


def test_a_thousand_waits_end_with_20_requests_a_second_and_16_at_once_at_most(waited, caplog, capsys):
    sandbox, ended = waited(1000, takes=cycle((0.02, 0.5, 1.4)).__next__, seconds=70)
    assert len(ended) == 1000
    assert sandbox.most_in_a_second == 20
    assert sandbox.most_at_once <= 16
    # All are completed at 1070, and each is polled every 51 s, or a little later as some answers take long.
    assert max(ended.values()) <= 1070 + 50 + 10
    assert sandbox.longest_gap <= 50 + 10
    polls = Counter(map(len, sandbox.polls.values()))
    assert max(polls) - min(polls) <= 1
    # Airflow 3.0 logs to both.
    said = "1000 generations are waited for, and"
    assert max(text.count(said) for text in (capsys.readouterr().out, caplog.text)) == 1
    assert "19.5 polls a second: each is polled every 51 s" in caplog.text


def test_answers_that_take_long_are_waited_for_by_16_at_most(waited):
    """A stuck API is not asked by ever more threads."""
    sandbox, ended = waited(100, takes=lambda: 4.0, seconds=20)
    assert len(ended) == 100
    assert sandbox.most_at_once == 16


def test_nobody_polls_before_the_guards_retry_after_is_over(waited):
    """Thousands of calls a minute meet that guard: 429 with `Retry-After`, and nothing of a limit."""
    guard = {"status": {"429": 1}, "retry_after": 60}
    sandbox, ended = waited(100, takes=lambda: 0.3, weather=guard, seconds=30)
    assert len(ended) == 100
    times = [time for polls in sandbox.polls.values() for time in polls]
    # Those that were under way when the first was answered, and then nothing for a minute.
    assert 1 <= sum(time < 1060 for time in times) <= 16


@pytest.mark.parametrize("failure", ["500", "drop"])
def test_failed_polls_raise_the_pace_by_nothing(failure, waited):
    weather = {"status": {failure: 0.1}, "seed": 1}
    sandbox, ended = waited(200, takes=lambda: 0.1, weather=weather, seconds=30)
    assert len(ended) == 200
    assert sandbox.most_in_a_second <= 20

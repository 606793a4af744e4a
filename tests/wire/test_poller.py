"""What a thousand waiting triggers ask of a gateway, by a clock of their own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing
import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise
from types import ModuleType

import psutil
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async
from starlette.responses import JSONResponse, PlainTextResponse

from airflow_provider_luma.api import Generation
from airflow_provider_luma.api.dialects import DIALECTS
from airflow_provider_luma.api.waiting import Wait
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.triggers import connections, poller
from airflow_provider_luma.triggers.luma import LumaGenerationTrigger
from tests.support.samples import TOKEN
from tests.wire.patience import Gateway, PatientLoop, refusal


@pytest.fixture
def loop():
    loop = PatientLoop()
    yield loop
    loop.close()


@pytest.fixture
def gateway(loop, connect):
    """Start a gateway with these settings, to which the connection leads."""
    started = []

    def gateway(**settings):
        started.append(Gateway(loop, token=TOKEN, **{"seconds": 30, **settings}).__enter__())
        connect(host=started[-1].url, password=TOKEN)
        return started[-1]

    yield gateway
    for one in started:
        one.__exit__()


@pytest.fixture
def look_ups(monkeypatch):
    """The ids of the connections that were looked up."""
    look_ups = []
    get_connection = LumaHook.get_connection

    def counted(conn_id):
        look_ups.append(conn_id)
        return get_connection(conn_id)

    monkeypatch.setattr(LumaHook, "get_connection", staticmethod(counted))
    return look_ups


@pytest.fixture
def only_first_look_up(loop, monkeypatch):
    """A connection can be looked up at the start, and never again."""
    get_connection = LumaHook.get_connection

    def at_first(conn_id):
        if loop.now > 1020:
            raise RuntimeError("the supervisor is busy")
        return get_connection(conn_id)

    monkeypatch.setattr(LumaHook, "get_connection", staticmethod(at_first))


TASK = contextvars.ContextVar("task", default="none")


@pytest.fixture
def spoken(monkeypatch):
    """What the triggers log, and in whose context."""
    lines = []

    class Log:
        def info(self, line, *values):
            lines.append((line % values, TASK.get()))

        warning = info

    monkeypatch.setattr(LumaGenerationTrigger, "log", Log())
    return lines


async def event(generation_id, **kwargs):
    """The payload of a trigger's one event, and when it came."""
    fired = await anext(LumaGenerationTrigger(generation_id, **kwargs).run())
    return fired.payload, asyncio.get_running_loop().time()


async def events(ids, **kwargs):
    return await asyncio.gather(*(event(one, **kwargs) for one in ids))


def statuses(events):
    return Counter(payload["status"] for payload, _ in events)


def gaps(gateway):
    """The seconds between two questions about the same id, by id."""
    times = defaultdict(list)
    for now, ids in gateway.asked:
        for one in [ids] if isinstance(ids, str) else ids:
            times[one].append(now)
    return {one: [later - earlier for earlier, later in pairwise(asked)] for one, asked in times.items()}


def pollers():
    """The pollers of the running event loop."""
    return {one.poller for one in connections._OF_LOOP[asyncio.get_running_loop()].values()}


def poller_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("luma-poller")]


class TestPolledTogether:
    def test_waits_share_their_requests_and_all_news_come_in_time(self, gateway, loop, look_ups):
        """Those who wait are asked for together: 250 in 3 requests an interval, and all on time."""
        far = gateway(seconds=30)
        fired = loop.run(events(far.submit(250)))
        assert statuses(fired) == {"success": 250}
        assert len(far.asked) <= 3 * 7
        assert max(map(len, far.batches)) <= 100
        assert far.report()["at_once"] <= poller.MAX_BATCH_QUERIES
        assert max(at for _, at in fired) <= 1000 + 30 + 5 + 1
        assert look_ups == ["luma_default"]

    def test_one_wait_alone_is_polled_once_an_interval(self, gateway, loop):
        """One alone costs what it would cost without the others."""
        far = gateway(seconds=30)
        loop.run(events(far.submit()))
        assert far.singles == [*far.singles[:1] * 7]
        assert not far.batches

    def test_one_wait_costs_no_more_than_it_would_without_the_poller(self, gateway, connect, look_ups):
        """And so do its look-ups."""

        async def alone(generation_id):
            """As this trigger was before it shared a poller."""
            hook = LumaHook()
            await sync_to_async(hook.get_conn)()
            wait = Wait(generation_id, log=hook.log)
            while True:
                seen = wait.update(await asyncio.to_thread(hook.get_generation, generation_id))
                if seen:
                    return
                await asyncio.sleep(wait.pause(5))

        costs = []
        for wait in (alone, event):
            loop = PatientLoop()
            look_ups.clear()
            with Gateway(loop, token=TOKEN, seconds=250) as far:
                connect(host=far.url, password=TOKEN)
                (one,) = far.submit()
                loop.run(wait(one))
            loop.close()
            costs.append((len(far.asked), len(look_ups)))
        before, now = costs
        assert now == before

    def test_a_new_wait_is_polled_within_a_second_and_then_with_the_others(self, gateway, loop):
        """One that joins is asked for within a second, and rides along from then on."""
        far = gateway(seconds=60)
        first, second = far.submit(2)

        async def joining():
            begun = asyncio.ensure_future(event(first))
            await asyncio.sleep(12.4)
            return await asyncio.gather(begun, event(second))

        loop.run(joining())
        joined = [now for now, ids in far.asked if second in ids]
        assert joined[0] - 1012.4 <= 1
        assert far.singles.count(second) <= 2
        assert all(set(batch) == {first, second} for batch in far.batches)
        assert len(far.batches) >= 8

    def test_each_wait_has_its_own_interval(self, gateway, loop):
        """Each has its own interval, which is the longest that it goes unasked."""
        far = gateway(seconds=60)
        ids = far.submit(3)
        intervals = dict(zip(ids, (2, 5, 9), strict=True))

        async def waiting():
            await asyncio.gather(*(event(one, poll_interval=seconds) for one, seconds in intervals.items()))

        loop.run(waiting())
        for one, seconds in intervals.items():
            assert max(gaps(far)[one]) <= seconds + 0.01
        # Those that go anyway take others along, but no one is asked more often than twice an interval.
        assert all(min(gaps(far)[one]) >= seconds / 2 - 0.01 for one, seconds in intervals.items())

    def test_two_tasks_wait_for_the_same_generation(self, gateway, loop):
        """Two tasks may wait for the same generation."""
        far = gateway(seconds=10)
        (one,) = far.submit()
        assert statuses(loop.run(events([one, one]))) == {"success": 2}

    def test_connections_with_the_same_token_share_requests(self, gateway, loop, monkeypatch, connect):
        """Two connections with the same gateway and token share the requests, another token does not."""
        far = gateway(seconds=10)
        conn = f'{{"conn_type": "luma", "host": "{far.url}", "password": "Bearer {TOKEN}"}}'
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_OTHER", conn)
        ids = far.submit(2)

        async def waiting():
            return await asyncio.gather(event(ids[0]), event(ids[1], luma_conn_id="luma_other"))

        assert statuses(loop.run(waiting())) == {"success": 2}
        assert not far.singles

    def test_another_token_has_a_poller_of_its_own(self, gateway, loop, monkeypatch):
        """Another token has a poller of its own, which ends and starts afresh while the first goes on."""
        far = gateway(seconds=20)
        far.memory.settings = replace(far.memory.settings, token="")
        conn = f'{{"conn_type": "luma", "host": "{far.url}", "password": "another"}}'
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_OTHER", conn)
        first, second = far.submit(2)

        async def waiting():
            begun = asyncio.ensure_future(event(first))
            for _ in range(2):
                other = asyncio.ensure_future(event(second, luma_conn_id="luma_other"))
                await asyncio.sleep(6)
                assert len(pollers()) == 2
                other.cancel()
                await asyncio.sleep(0.1)
                assert len(pollers()) == 1
            return await begun

        payload, _ = loop.run(waiting())
        assert payload["status"] == "success"
        assert not far.batches
        assert far.singles.count(second) == 4

    def test_metrics_say_how_many_wait_and_are_polled(self, gateway, loop, monkeypatch):
        """Airflow's metrics say how many wait, how many requests that takes, and how late the event is."""
        sent = []

        class Stats:
            incr = staticmethod(lambda name, *_: sent.append(name))
            gauge = staticmethod(lambda name, value: sent.append(f"{name} {value}"))

        monkeypatch.setattr(poller, "Stats", Stats)
        timings = []
        monkeypatch.setattr(
            "airflow_provider_luma.triggers.luma.Stats.timing", lambda name, seconds: timings.append(name)
        )
        far = gateway(seconds=0, batch_shape="envelope")
        loop.run(events(far.submit(2)))
        assert sent == ["luma.status_requests", "luma.generations_waiting 2", "luma.generations_waiting 0"]
        assert timings == ["luma.completion_to_event"] * 2

    def test_no_more_than_four_batch_queries_are_under_way_at_once(self, gateway, loop):
        far = gateway(seconds=20)
        far.many = lambda ids: far.slowly(2)
        fired = loop.run(events(far.submit(700)))
        assert statuses(fired) == {"success": 700}
        assert far.most_at_once == poller.MAX_BATCH_QUERIES

    def test_the_metric_of_waits_counts_those_of_all_connections(self, gateway, loop, monkeypatch):
        """Or it would jump between the numbers of two."""
        waiting_now = []
        monkeypatch.setattr(poller.Stats, "gauge", lambda name, value: waiting_now.append(value))
        far = gateway(seconds=20)
        far.memory.settings = replace(far.memory.settings, token="")
        conn = f'{{"conn_type": "luma", "host": "{far.url}", "password": "another"}}'
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_OTHER", conn)
        ids = far.submit(5)

        async def waiting():
            await asyncio.gather(events(ids[:3]), events(ids[3:], luma_conn_id="luma_other"))

        loop.run(waiting())
        assert waiting_now[0] == max(waiting_now) == 5
        assert waiting_now[-1] == 0

    def test_a_connection_that_nobody_waits_with_any_more_ends_no_wait_of_another(self, gateway, loop, monkeypatch):
        """Though both lead to the same gateway with the same token."""
        far = gateway(seconds=60)
        conn = f'{{"conn_type": "luma", "host": "{far.url}", "password": "{TOKEN}"}}'
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_OTHER", conn)
        first, second = far.submit(2)

        async def waiting():
            leaving = asyncio.ensure_future(event(first, luma_conn_id="luma_other"))
            staying = asyncio.ensure_future(event(second))
            await asyncio.sleep(12)
            leaving.cancel()
            return await staying

        payload, at = loop.run(waiting())
        assert payload["status"] == "success"
        assert at <= 1066


class TestNoBatchQuery:
    @pytest.mark.parametrize("status", [404, 405])
    def test_without_a_batch_query_each_is_polled_singly(self, gateway, loop, status):
        """That is remembered, and each is polled once an interval, at most 16 at once."""
        far = gateway(seconds=40)
        far.many = lambda ids: refusal(status, "")
        fired = loop.run(events(far.submit(100)))
        assert statuses(fired) == {"success": 100}
        assert len(far.batches) == 1
        assert far.report()["at_once"] <= poller.MAX_SINGLE_REQUESTS
        assert max(max(of_one) for of_one in gaps(far).values()) <= 5.01
        assert max(Counter(far.singles).values()) <= 40 / 5 + 2

    def test_a_batch_query_is_looked_for_again_after_five_minutes(self, gateway, loop):
        """After five minutes it may have come."""
        far = gateway(seconds=700)
        far.many = lambda ids: refusal(404, "") if loop.now < 1200 else None
        loop.run(events(far.submit(5)))
        assert len([now for now, ids in far.asked if isinstance(ids, list) and now < 1300]) == 1
        assert far.asked[-1][1] == far.batches[-1]

    def test_without_a_batch_query_none_is_polled_more_often_than_it_asks_for(self, gateway, loop):
        """There is no request that one could share with another that is due earlier."""
        far = gateway(seconds=60)
        far.many = lambda ids: refusal(404, "")
        often, seldom = far.submit(2)

        async def waiting():
            await asyncio.gather(event(often, poll_interval=3), event(seldom, poll_interval=5))

        loop.run(waiting())
        assert min(gaps(far)[often][1:]) >= 3
        assert min(gaps(far)[seldom][1:]) >= 5

    @pytest.mark.parametrize("status", [403, 500])
    def test_a_batch_query_that_never_works_is_not_used(self, gateway, loop, status):
        """A call for many that never works is done without, too."""
        far = gateway(seconds=60)
        far.many = lambda ids: refusal(status)
        fired = loop.run(events(far.submit(150)))
        assert statuses(fired) == {"success": 150}
        assert max(at for _, at in fired) <= 1066
        # A hundred and fifty ids are two batches, which are halved at the same time, down to two ids: 7 and 6 of them.
        assert len(far.batches) <= 13


class TestPace:
    """An API that is polled singly, and allows 20 requests a second."""

    @pytest.fixture
    def paced(self, gateway, monkeypatch):
        dialect = ModuleType("paced")
        vars(dialect).update(vars(DIALECTS["gateway"]), BATCH_SIZE=1, REQUESTS_PER_SECOND=20.0)
        monkeypatch.setattr("airflow_provider_luma.api.client.DIALECTS", {"gateway": dialect})
        return gateway

    def test_many_waits_take_turns_and_the_log_says_why_once(self, paced, loop, caplog, capsys):
        """200 waits are polled every 10 s instead of every 5 s, none of them less often than another."""
        far = paced(seconds=60)
        fired = loop.run(events(far.submit(200)))
        assert statuses(fired) == {"success": 200}
        assert not far.batches
        polled = Counter(int(now) for now, _ in far.asked)
        assert max(polled.values()) <= 21
        assert max(max(of_one) for of_one in gaps(far).values()) <= 10.5
        assert max(Counter(far.singles).values()) - min(Counter(far.singles).values()) <= 1
        said = "200 generations are waited for, and"
        # Airflow 3.0 logs to both.
        assert max(text.count(said) for text in (capsys.readouterr().out, caplog.text)) == 1
        assert "20 polls a second: each is polled every 10 s" in caplog.text

    def test_few_waits_are_polled_as_often_as_they_ask_for(self, paced, loop, caplog):
        far = paced(seconds=60)
        loop.run(events(far.submit(20)))
        assert max(max(of_one) for of_one in gaps(far).values()) <= 5.1
        assert "polls a second" not in caplog.text


class TestBatchLimit:
    @pytest.mark.parametrize("status", [400, 413])
    def test_a_batch_limit_is_found_and_kept(self, gateway, loop, status):
        """Too many at once are halved until they fit, which is remembered."""
        far = gateway(seconds=60)
        far.many = lambda ids: refusal(status) if len(ids) > 30 else None
        fired = loop.run(events(far.submit(200)))
        assert statuses(fired) == {"success": 200}
        assert max(at for _, at in fired) <= 1066
        assert not far.singles
        assert {int(now) for now, ids in far.asked if len(ids) > 30} == {1000}
        assert len([ids for ids in far.batches if len(ids) > 30]) <= 8

    def test_a_batch_limit_that_shrinks_is_found_again(self, gateway, loop):
        """A limit that becomes smaller is found again."""
        far = gateway(seconds=300)
        refused = []

        def many(ids):
            if len(ids) <= (100 if loop.now < 1020 else 30):
                return None
            refused.append(loop.now)
            return refusal(413)

        far.many = many
        assert statuses(loop.run(events(far.submit(200)))) == {"success": 200}
        assert len(refused) <= 10

    def test_the_batch_limit_of_the_sandbox_is_kept(self, gateway, loop):
        """The sandbox's own limit."""
        far = gateway(batch_limit=7)
        assert statuses(loop.run(events(far.submit(60)))) == {"success": 60}
        assert max(map(len, far.batches[-20:])) <= 7

    def test_a_failure_that_passes_leaves_the_batch_size_as_it_is(self, gateway, loop):
        """One that is asked for in halves, which both work, because one server of many was down."""
        far = gateway(seconds=60)
        failed = []

        def many(ids):
            if loop.now > 1010 and len(failed) < 2:
                failed.append(ids)
                return refusal(500)
            return None

        far.many = many
        assert statuses(loop.run(events(far.submit(200)))) == {"success": 200}
        assert len(failed) == 2
        assert max(len(ids) for now, ids in far.asked if now > 1030) == 100


class TestBadId:
    @pytest.mark.parametrize("status", [400, 401, 403, 422, 500, 503])
    def test_one_bad_id_delays_the_others_by_one_round_at_most(self, gateway, loop, status):
        """An id that spoils every request holds up no other."""
        far = gateway(seconds=60)
        ids = far.submit(250)
        poison = ids[77]
        far.many = lambda ids: refusal(status) if poison in ids else None
        far.one = lambda one: refusal(status) if one == poison else None

        async def waiting():
            waiting = {one: asyncio.ensure_future(event(one)) for one in ids}
            failing = waiting.pop(poison)
            fired = await asyncio.gather(*waiting.values())
            failing.cancel()
            return fired

        fired = loop.run(waiting())
        assert statuses(fired) == {"success": 249}
        assert max(at for _, at in fired) <= 1066
        assert max(max(of_one) for one, of_one in gaps(far).items() if one != poison) <= 5.5
        assert len(far.asked) < 12 * 8 + 60

    @pytest.mark.parametrize("status", [400, 401, 422, 500])
    def test_one_bad_id_of_two_delays_the_other_by_one_round_at_most(self, gateway, loop, status):
        """Even where nothing but the two of them can show whether the gateway is in trouble."""
        far = gateway(seconds=60)
        bad, good = far.submit(2)
        far.many = lambda ids: refusal(status) if bad in ids else None
        far.one = lambda one: refusal(status) if one == bad else None

        async def waiting():
            rejected = asyncio.ensure_future(event(bad))
            fired = await event(good)
            rejected.cancel()
            return fired

        payload, at = loop.run(waiting())
        assert payload["status"] == "success"
        assert at <= 1066
        assert max(gaps(far)[good]) <= 10

    @pytest.mark.parametrize("bad", [2, 3, 6])
    def test_several_bad_ids_delay_the_others_for_less_than_a_minute(self, gateway, loop, bad):
        """Several of them hold up the others for under a minute, until each of them goes alone, and then no more."""
        far = gateway(seconds=200)
        ids = far.submit(250)
        poison = set(ids[7 :: 250 // bad][:bad])
        far.many = lambda batch: refusal(500) if poison & set(batch) else None
        far.one = lambda one: refusal(500) if one in poison else None

        async def waiting():
            failing = [asyncio.ensure_future(event(one)) for one in poison]
            fired = await events(set(ids) - poison)
            for one in failing:
                one.cancel()
            return fired

        assert statuses(loop.run(waiting())) == {"success": 250 - bad}
        assert max(max(of_one) for one, of_one in gaps(far).items() if one not in poison) <= 60
        far.asked = [(now, asked) for now, asked in far.asked if now > 1100]
        assert max(max(of_one) for one, of_one in gaps(far).items() if one not in poison) <= 5.5

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_ids_that_go_bad_delay_another_for_less_than_two_minutes(self, place, gateway, loop):
        """Though each was an example of what the gateway answers, until it was not."""
        far = gateway(seconds=300)
        ids = far.submit(3)
        good = ids[place]
        far.many = lambda _: refusal(500) if loop.now > 1010 else None
        far.one = lambda one: refusal(500) if loop.now > 1010 and one != good else None

        async def waiting():
            waiting = {one: asyncio.ensure_future(event(one)) for one in ids}
            fired = await waiting.pop(good)
            for one in waiting.values():
                one.cancel()
            return fired

        payload, _ = loop.run(waiting())
        assert payload["status"] == "success"
        far.asked = [(now, asked) for now, asked in far.asked if now > 1130]
        assert max(gaps(far)[good]) <= 5.5

    def test_most_ids_go_bad_at_once_and_the_others_are_found(self, gateway, loop):
        """Nearly each example of what the gateway answers is a bad one then."""
        far = gateway(seconds=900)
        ids = far.submit(30)
        good = ids[11], ids[29]
        far.many = lambda _: refusal(500) if loop.now > 1010 else None
        far.one = lambda one: refusal(500) if loop.now > 1010 and one not in good else None

        async def waiting():
            waiting = {one: asyncio.ensure_future(event(one)) for one in ids}
            fired = await asyncio.gather(*(waiting.pop(one) for one in good))
            for one in waiting.values():
                one.cancel()
            return fired

        assert statuses(loop.run(waiting())) == {"success": 2}
        assert max(max(gaps(far)[one]) for one in good) <= 400
        far.asked = [(now, asked) for now, asked in far.asked if now > 1500]
        assert max(max(gaps(far)[one]) for one in good) <= 5.5

    def test_an_id_that_only_batch_queries_reject_is_polled_singly(self, gateway, loop):
        """An id that can be asked for singly is."""
        far = gateway(seconds=60)
        ids = far.submit(20)
        far.many = lambda batch: refusal(500) if ids[3] in batch else None
        assert statuses(loop.run(events(ids))) == {"success": 20}

    @pytest.mark.parametrize("status", [400, 422])
    def test_a_bad_id_among_few_leaves_the_batch_size_as_it_is(self, status, gateway, loop):
        """An id that spoils a request for a few does not have later ones ask for as few at a time."""
        far = gateway(seconds=200)
        poison, *few = far.submit(4)
        far.many = lambda ids: refusal(status) if poison in ids else None
        far.one = lambda one: refusal(status) if one == poison else None

        async def waiting():
            failing, *fired = (asyncio.ensure_future(event(one)) for one in (poison, *few))
            await asyncio.sleep(20)
            fired += [asyncio.ensure_future(event(one)) for one in far.submit(200)]
            fired = await asyncio.gather(*fired)
            failing.cancel()
            return fired

        assert statuses(loop.run(waiting())) == {"success": 203}
        assert max(map(len, far.batches)) == 100

    def test_an_id_that_a_batch_query_leaves_out_is_polled_singly(self, gateway, loop):
        """An id that the answer leaves out is asked for singly."""
        far = gateway(seconds=20)
        ids = far.submit(10)
        far.many = lambda batch: without(far, ids[4])
        fired = loop.run(events(ids))
        assert statuses(fired) == {"success": 10}
        assert set(far.singles) == {ids[4]}
        # At once, or its news would come an interval later.
        (first, _), (then, single), *_ = far.asked
        assert single == ids[4]
        assert then - first < 1

    def test_a_batch_query_that_finds_nothing_delays_nothing(self, gateway, loop):
        """All news come in time where a batch query never finds what is found singly."""
        far = gateway(seconds=60)
        far.many = lambda ids: JSONResponse([])
        fired = loop.run(events(far.submit(20)))
        assert statuses(fired) == {"success": 20}
        assert max(at for _, at in fired) <= 1066

    def test_batch_queries_go_on_while_no_id_is_known(self, gateway, loop):
        """One that finds nothing where there is nothing is not."""
        far = gateway(seconds=60, visible_after=40)
        assert statuses(loop.run(events(far.submit(20)))) == {"success": 20}
        assert far.asked[-1][1] == far.batches[-1]

    def test_a_batch_query_that_rejects_an_unknown_id_is_used_for_the_others(self, gateway, loop):
        """Such as one whose answer for many is that one of them does not exist."""
        far = gateway(seconds=40)
        far.many = lambda ids: refusal(400, "task_not_exist") if "nowhere" in ids else None
        ids = far.submit(19)

        async def waiting():
            unknown = asyncio.ensure_future(event("nowhere"))
            fired = await events(ids)
            unknown.cancel()
            return fired

        assert statuses(loop.run(waiting())) == {"success": 19}
        assert set(far.batches[-1]) == set(ids)

    def test_a_rejected_id_is_polled_less_and_less_often_and_after_it_is_accepted_as_often_as_before(
        self, gateway, loop
    ):
        far = gateway(seconds=700)
        bad, *others = far.submit(20)

        once_more = []

        def rejected():
            return 1010 < loop.now < 1310 or (loop.now > 1500 and not once_more)

        def one(generation_id):
            if generation_id != bad or not rejected():
                return None
            if loop.now > 1500:
                once_more.append(loop.now)
            return refusal(422)

        far.many = lambda ids: refusal(422) if bad in ids and rejected() else None
        far.one = one
        loop.run(events([bad, *others]))
        polled = [now for now, asked in far.asked if bad in asked]
        assert 5 <= len([now for now in polled if 1020 < now < 1310]) <= 12
        later = [now for now in polled if 1400 < now < 1600]
        assert len(once_more) == 1
        assert max(second - first for first, second in pairwise(later)) <= 7

    def test_an_unknown_id_ends_its_wait_after_a_minute(self, gateway, loop):
        """It is polled singly, once an interval, and believed missing after a minute."""
        far = gateway(seconds=300)

        async def waiting():
            others = [asyncio.ensure_future(event(one)) for one in far.submit(3)]
            fired = await event("nowhere")
            for other in others:
                other.cancel()
            return fired

        payload, at = loop.run(waiting())
        assert payload["error"] == "LumaNotFound"
        assert 1060 <= at <= 1085
        assert set(far.singles) == {"nowhere"}
        # Once an interval, with its jitter, and not less and less often: it may be known in a moment.
        assert 60 / 6.25 <= len(far.singles) <= 60 / 5 + 2

    def test_ids_that_are_not_known_yet_are_waited_for(self, gateway, loop):
        """Ids that the gateway does not know yet are waited for."""
        far = gateway(seconds=40, visible_after=12)
        fired = loop.run(events(far.submit(50)))
        assert statuses(fired) == {"success": 50}
        assert max(at for _, at in fired) <= 1046


def without(far, generation_id):
    """The sandbox, as if it did not know this id."""

    async def app(scope, receive, send):
        hidden = far.memory.generations.pop(generation_id)
        try:
            await far.sandbox(scope, receive, send)
        finally:
            far.memory.generations[generation_id] = hidden

    return app


class TestTrouble:
    def test_two_minutes_without_a_gateway_take_few_requests_and_two_lines_of_log(self, gateway, loop, spoken):
        """Two minutes without a gateway are waited out, with few requests, and a line when they begin and end."""
        far = gateway(seconds=20)
        ids = far.submit(250)
        far.many = lambda batch: refusal(502) if 1008 < loop.now < 1128 else None
        far.one = lambda one: refusal(502) if 1008 < loop.now < 1128 else None
        fired = loop.run(events(ids))
        assert statuses(fired) == {"success": 250}
        assert max(at for _, at in fired) <= 1128 + 75 + 5
        assert len([now for now, _ in far.asked if 1008 < now < 1128]) <= 12
        assert len(far.asked) <= 12 + 3 * 5 + 12
        for one in ids:
            lines = [line for line, _ in spoken if one in line]
            assert len([line for line in lines if "Polling generation" in line]) == 1
            assert len([line for line in lines if "can be polled again" in line]) == 1

    def test_pauses_double_up_to_a_minute_and_differ_between_triggerers(self, connect):
        """Pauses double up to a minute, and those of two triggerers differ, so that they do not come back together."""
        pauses = []
        for seed in (1, 2):
            random.seed(seed)
            loop = PatientLoop()
            with Gateway(loop, token=TOKEN, seconds=1) as far:
                connect(host=far.url, password=TOKEN)
                far.one = lambda _: refusal(429) if loop.now < 1400 else None  # noqa: B023 - it is over by then
                loop.run(event(*far.submit()))
            loop.close()
            asked = [now for now, _ in far.asked]
            pauses.append([later - earlier for earlier, later in pairwise(asked)])
        for of_one in pauses:
            longest = [min(5 * 2**failures, 60) for failures in range(len(of_one))]
            assert all(1 <= pause / least <= 1.26 for pause, least in zip(of_one, longest, strict=True))
        assert all(abs(one - other) > 0.01 for one, other in zip(*pauses, strict=False))

    @pytest.mark.parametrize("status", [302, 402, 418, 429])
    def test_other_answers_are_waited_out_too(self, gateway, loop, status):
        """So is whatever else it says for a while, such as that there is no money left."""
        far = gateway(seconds=20)
        far.many = far.one = lambda _: refusal(status) if loop.now < 1200 else None
        assert statuses(loop.run(events(far.submit(50)))) == {"success": 50}

    def test_cut_connections_are_waited_out(self, gateway, loop):
        """A gateway that cuts every connection is waited out as well."""
        far = gateway(seconds=20)
        ids = far.submit(30)

        async def waiting():
            far.memory.weather.down = True
            fired = asyncio.ensure_future(events(ids))
            await asyncio.sleep(120)
            far.memory.weather.down = False
            return await fired

        assert statuses(loop.run(waiting())) == {"success": 30}

    def test_a_page_of_a_proxy_is_no_unknown_id(self, gateway, loop):
        """A proxy that knows no page is no gateway that knows no id."""
        far = gateway(seconds=20)
        far.many = far.one = lambda _: PlainTextResponse("<html>", 404) if 1008 < loop.now < 1200 else None
        ids = far.submit(50)
        assert statuses(loop.run(events(ids))) == {"success": 50}
        assert len([now for now, _ in far.asked if 1030 < now < 1200]) <= 16

    def test_failures_by_chance_are_waited_out(self, gateway, loop):
        """So are chance failures of all kinds."""
        far = gateway(seconds=60)
        far.weather(status={"429": 0.1, "500": 0.1, "drop": 0.1, "html": 0.1}, seed=1)
        assert statuses(loop.run(events(far.submit(300)))) == {"success": 300}

    @pytest.mark.parametrize("as_date", [False, True])
    def test_retry_after_holds_with_a_503_too(self, as_date, gateway, loop):
        """Not after a 503, either, be it a number of seconds or a date."""
        date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
        headers = {"Retry-After": date if as_date else "90"}
        far = gateway(seconds=20)
        far.many = lambda _: refusal(503, **headers) if loop.now < 1005 else None
        loop.run(events(far.submit(250)))
        assert len([now for now, _ in far.asked if now < 1080]) <= poller.MAX_BATCH_QUERIES

    def test_a_long_interval_makes_no_long_pause_for_others(self, gateway, loop):
        """One that may go unasked for long does not have the others do so when it meets trouble."""
        far = gateway(seconds=200)
        ids = far.submit(51)

        async def waiting():
            others = asyncio.ensure_future(events(ids[1:]))
            await asyncio.sleep(11.3)
            far.one = lambda _: refusal(429)
            joined = asyncio.ensure_future(event(ids[0], poll_interval=3600))
            await asyncio.sleep(1)
            far.one = lambda _: None
            fired = await others
            joined.cancel()
            return fired

        assert statuses(loop.run(waiting())) == {"success": 50}
        assert max(max(gaps(far)[one]) for one in ids[1:]) <= 80

    @pytest.mark.parametrize("metric", ["incr", "gauge", "timing"])
    def test_metrics_that_fail_stop_nothing(self, metric, gateway, loop, monkeypatch):
        """Metrics that cannot be sent are no reason not to ask, or to lose an answer."""

        def broken(*_):
            raise OSError("no such socket")

        monkeypatch.setattr(poller.Stats, metric, broken)
        assert statuses(loop.run(events(gateway(seconds=20, batch_shape="rows").submit(10)))) == {"success": 10}

    def test_unread_news_are_kept_when_trouble_begins(self, gateway, loop):
        """What one has not read yet is not replaced when all hear of the gateway's trouble."""
        far = gateway(seconds=1000)
        ids = far.submit(300)
        answered = []

        def many(batch):
            if loop.now < 1003 or not answered:
                answered[:] = batch if loop.now > 1003 else ()
                return None
            return refusal(502)

        far.many = many
        far.one = lambda _: refusal(502)

        async def waiting():
            own = connections.Connection.for_running_loop("luma_default")
            subscriptions = [own.subscribe(one, 5) for one in ids]
            for one in subscriptions:
                await one.next()
            await asyncio.sleep(6)
            news = {one.generation_id: await one.next() for one in subscriptions}
            for one in subscriptions:
                own.unsubscribe(one)
            return news

        news = loop.run(waiting())
        assert len(answered) == 100
        assert {type(news.pop(one)) for one in answered} == {Generation}
        assert {error.status for error in news.values()} == {502}

    def test_the_newest_news_count(self, gateway, loop):
        """Of what is said before a trigger wakes, the newest counts."""
        far = gateway(seconds=1000)
        (one,) = far.submit()

        async def waiting():
            own = connections.Connection.for_running_loop("luma_default")
            subscription = own.subscribe(one, 1000)
            hearing = asyncio.ensure_future(subscription.next())
            await asyncio.sleep(0)
            for said in ("first", "second"):
                subscription.notify(said)
            heard = await hearing
            own.unsubscribe(subscription)
            return heard

        assert loop.run(waiting()) == "second"

    def test_nobody_polls_before_the_gateway_said_to(self, gateway, loop):
        """Nobody asks before the gateway said to."""
        far = gateway(seconds=20)
        far.many = lambda ids: refusal(429, "slowly", **{"Retry-After": "90"}) if loop.now < 1005 else None
        loop.run(events(far.submit(250)))
        # Those that were already under way are not called back.
        assert len([now for now, _ in far.asked if now < 1090]) <= poller.MAX_BATCH_QUERIES

    def test_the_longest_retry_after_of_several_answers_holds(self, gateway, loop):
        """Those that were under way with it bring shorter ones, or none, and later."""
        far = gateway(seconds=20)
        ids = far.submit(250)

        def many(batch):
            if loop.now > 1005:
                return None
            asked = {"Retry-After": "90"} if ids[0] in batch else {}
            return far.slowly(1 if asked else 3, refusal(429, **asked))

        far.many = many
        assert statuses(loop.run(events(ids))) == {"success": 250}
        assert not [now for now, _ in far.asked if 1005 < now < 1090]

    def test_what_was_under_way_together_fails_as_one(self, gateway, loop):
        """And lets the next pause be no longer than one failure does."""
        far = gateway(seconds=20)
        far.many = lambda ids: far.slowly(2, refusal(503)) if 1008 < loop.now < 1018 else far.slowly(2)
        far.one = lambda _: refusal(503) if 1008 < loop.now < 1022 else None
        fired = loop.run(events(far.submit(250)))
        assert statuses(fired) == {"success": 250}
        assert max(at for _, at in fired) <= 1045

    def test_a_redirect_is_waited_out_with_few_requests(self, gateway, loop):
        """As a proxy sends one to its page for signing in: that is no matter of one generation."""
        far = gateway(seconds=20)
        far.many = far.one = lambda _: refusal(302) if 1008 < loop.now < 1128 else None
        assert statuses(loop.run(events(far.submit(250)))) == {"success": 250}
        assert len([now for now, _ in far.asked if 1008 < now < 1128]) <= 12

    def test_the_event_loop_goes_on_while_a_thousand_waits_are_notified(self, gateway, loop, monkeypatch):
        """Each of them writes to its task's log: all in one step would stop all triggers, and the heartbeat."""
        news, trouble = [], []

        class Log:
            info = staticmethod(lambda *_: news.append(loop.steps))
            warning = staticmethod(lambda *_: trouble.append(loop.steps))

        monkeypatch.setattr(LumaGenerationTrigger, "log", Log())
        far = gateway(seconds=20)
        far.many = far.one = lambda _: refusal(502) if 1003 < loop.now < 1008 else None
        assert statuses(loop.run(events(far.submit(1000)))) == {"success": 1000}
        assert len(trouble) == 1000
        assert max(Counter(trouble).values()) <= poller.NOTIFY_BATCH
        # One that polls again after trouble has two lines: that it does, and the state.
        assert len(news) >= 2000
        assert max(Counter(news).values()) <= poller.NOTIFY_BATCH * 2

    def test_a_token_refused_for_a_minute_ends_the_waits(self, gateway, loop, look_ups):
        """A token that is refused three times in a row, over a minute, ends the waits, and not before."""
        far = gateway(seconds=200)
        ids = far.submit(150)
        far.memory.weather.revoked = True
        fired = loop.run(events(ids))
        assert Counter(payload["error"] for payload, _ in fired) == {"LumaAuthenticationError": 150}
        assert all(1060 < at < 1180 for _, at in fired)
        assert 3 <= len(look_ups) <= 10

    def test_a_token_refused_for_less_ends_nothing(self, gateway, loop):
        """One that is refused for less than that is not lost."""
        far = gateway(seconds=20)
        far.many = lambda ids: refusal(401) if loop.now < 1050 else None
        assert statuses(loop.run(events(far.submit(50)))) == {"success": 50}

    def test_a_changed_token_is_looked_up_once_for_all(self, gateway, loop, connect, look_ups):
        """A token that is changed meanwhile is looked up when the old one is refused, once for all."""
        far = gateway(seconds=60)
        ids = far.submit(150)
        known = set()

        async def waiting():
            fired = asyncio.ensure_future(events(ids))
            await asyncio.sleep(12)
            far.memory.settings = replace(far.memory.settings, token="another")
            connect(host=far.url, password="another")
            await asyncio.sleep(20)
            known.update(one.client for one in pollers())
            return await fired

        fired = loop.run(waiting())
        assert statuses(fired) == {"success": 150}
        assert max(at for _, at in fired) <= 1066
        assert look_ups == ["luma_default"] * 2
        assert len(known) == 1


class TestConnection:
    def test_it_is_looked_up_again_after_five_minutes(self, gateway, loop, look_ups):
        """It is looked up again after five minutes, not before."""
        far = gateway(seconds=700)
        loop.run(events(far.submit(20)))
        assert len(look_ups) == 3

    def test_it_is_looked_up_again_while_nothing_is_polled(self, gateway, loop, connect, look_ups):
        """So it is while the gateway rests for half an hour, or nobody would hear of another gateway."""
        far = gateway(seconds=20)
        far.many = lambda ids: refusal(429, **{"Retry-After": "1800"})
        ids = far.submit(150)
        other = gateway(seconds=20)
        other.memory.generations.update(far.memory.generations)
        connect(host=far.url, password=TOKEN)

        async def waiting():
            fired = asyncio.ensure_future(events(ids))
            await asyncio.sleep(400)
            connect(host=other.url, password=TOKEN)
            return await fired

        fired = loop.run(waiting())
        assert statuses(fired) == {"success": 150}
        assert max(at for _, at in fired) <= 1000 + 2 * poller.CACHE_TTL + 10
        assert len(look_ups) == 3
        assert len(far.asked) <= poller.MAX_BATCH_QUERIES

    def test_a_slow_look_up_delays_no_poll(self, gateway, loop, monkeypatch):
        """While it is looked up again, which may take long, all go on being asked for."""
        far = gateway(seconds=330)
        get_connection = LumaHook.get_connection
        begun = []

        def slowly(conn_id):
            if loop.now > 1200:
                begun.append(loop.now)
                loop.take(40)
            return get_connection(conn_id)

        monkeypatch.setattr(LumaHook, "get_connection", staticmethod(slowly))

        async def waiting():
            fired = await events(far.submit(150))
            # The look-up goes on, and its thread is that of the tests that follow, too.
            await asyncio.sleep(20)
            return fired

        fired = loop.run(waiting())
        assert statuses(fired) == {"success": 150}
        assert len(begun) == 1
        assert max(max(of_one) for of_one in gaps(far).values()) <= 5.5
        assert max(at for _, at in fired) <= 1330 + 5 + 1

    def test_a_missing_connection_ends_the_waits_after_a_minute(self, loop, look_ups):
        """A connection that does not exist ends the waits after a minute, with one look-up for all at each interval."""

        async def waiting():
            return await asyncio.gather(*(event(str(one)) for one in range(20)), return_exceptions=True)

        assert {type(error) for error in loop.run(waiting())} == {AirflowNotFoundException}
        assert 1060 <= loop.now < 1070
        assert len(look_ups) <= 14

    def test_an_invalid_connection_ends_the_waits(self, loop, connect):
        """No time mends that: the message says what is wrong with which connection."""
        connect(host="https://user:password@gateway.example.com", password=TOKEN)

        async def waiting():
            return await asyncio.gather(*(event(str(one)) for one in range(3)))

        fired = loop.run(waiting())
        assert {payload["error"] for payload, _ in fired} == {"LumaInvalidRequest"}
        assert all("luma_default" in payload["message"] for payload, _ in fired)
        assert loop.now < 1010

    def test_a_changed_token_is_used_also_for_what_was_under_way_when_the_old_one_was_refused(
        self, gateway, loop, connect, monkeypatch
    ):
        far = gateway(seconds=20)
        far.memory.settings = replace(far.memory.settings, token="")
        far.many = lambda batch: refusal(404, "")
        ids = far.submit(10)
        get_connection = LumaHook.get_connection
        looked_up_again = threading.Event()
        held, all_held = set(), asyncio.Event()

        def looked_up(conn_id):
            if held:
                looked_up_again.set()
            return get_connection(conn_id)

        async def after_that(scope, receive, send):
            await asyncio.to_thread(looked_up_again.wait)
            await far.sandbox(scope, receive, send)

        async def refuse_when_the_others_are_under_way(scope, receive, send):
            await all_held.wait()
            await refusal(401)(scope, receive, send)

        def one(generation_id):
            if loop.now < 1004 or looked_up_again.is_set():
                return None
            if generation_id == ids[0] or generation_id in held:
                return refuse_when_the_others_are_under_way
            held.add(generation_id)
            if len(held) == 9:
                all_held.set()
            return after_that

        monkeypatch.setattr(LumaHook, "get_connection", staticmethod(looked_up))
        far.one = one

        async def waiting():
            fired = asyncio.ensure_future(events(ids))
            await asyncio.sleep(2)
            connect(host=far.url, password="another")
            return await fired

        fired = loop.run(waiting())
        assert len(held) == 9
        assert statuses(fired) == {"success": 10}
        assert max(at for _, at in fired) <= 1030

    @pytest.mark.parametrize(
        "error", [RuntimeError("the supervisor is busy"), AirflowNotFoundException("the API is down")]
    )
    def test_a_connection_that_cannot_be_looked_up_for_a_moment_ends_nothing(self, error, gateway, loop, monkeypatch):
        """One that cannot be looked up for now is waited for; Airflow 3.3 says of that, too, that there is none."""
        far = gateway(seconds=20)
        get_connection = LumaHook.get_connection

        def at_times(conn_id):
            if loop.now < 1012 or loop.now > 1020:
                raise error
            return get_connection(conn_id)

        monkeypatch.setattr(LumaHook, "get_connection", staticmethod(at_times))
        assert statuses(loop.run(events(far.submit(20)))) == {"success": 20}

    def test_a_look_up_goes_on_when_its_trigger_is_cancelled(self, gateway, loop, monkeypatch):
        """A look-up goes on where its trigger is cancelled: Airflow before 3.2 would take its answer for another's."""
        far = gateway(seconds=20)
        get_connection = LumaHook.get_connection
        begun, answer, ended = asyncio.Event(), asyncio.Event(), []

        async def over_the_pipe():
            begun.set()
            try:
                await answer.wait()
            finally:
                ended.append(answer.is_set())

        def looked_up(conn_id):
            if not ended:
                async_to_sync(over_the_pipe)()
            return get_connection(conn_id)

        monkeypatch.setattr(LumaHook, "get_connection", staticmethod(looked_up))

        async def waiting():
            first, second = (asyncio.ensure_future(event(one)) for one in far.submit(2))
            await begun.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            answer.set()
            return await second

        payload, _ = loop.run(waiting())
        assert payload["status"] == "success"
        assert ended == [True]

    def test_a_connection_that_cannot_be_looked_up_again_stays_as_it_was(
        self, gateway, loop, only_first_look_up, caplog, capsys
    ):
        """One that cannot be looked up again goes on as it was."""
        far = gateway(seconds=400)
        assert statuses(loop.run(events(far.submit(20)))) == {"success": 20}
        # Airflow 3.0 logs to both.
        assert max(text.count("going on as before") for text in (capsys.readouterr().out, caplog.text)) == 1


def in_the_middle(loop, cancelled):
    """Cancel a task while the gateway, which answers later, has its request."""
    loop.call_soon_threadsafe(cancelled.cancel)
    time.sleep(0.2)


class TestLeaving:
    def test_a_cancelled_wait_leaves_and_the_others_get_their_answer(self, gateway, loop):
        """One that is cancelled in the middle of a request leaves, and the others get their answer."""
        far = gateway(seconds=10)
        ids = far.submit(20)
        waiting = []
        far.many = lambda batch: in_the_middle(loop, waiting[3]) if not waiting[3].done() else None

        async def run():
            waiting.extend(asyncio.ensure_future(event(one)) for one in ids)
            return await asyncio.gather(*waiting, return_exceptions=True)

        fired = loop.run(run())
        assert isinstance(fired.pop(3), asyncio.CancelledError)
        assert statuses(fired) == {"success": 19}
        assert not any(ids[3] in batch for batch in far.batches[1:])

    def test_the_last_one_out_ends_the_threads_and_a_new_one_starts_afresh(self, gateway, loop, look_ups):
        """The last one out closes the threads, even in the middle of a request, and a new one starts afresh."""
        far = gateway(seconds=10)
        first, second = far.submit(2)

        async def waiting():
            for _ in range(2):
                cancelled = asyncio.ensure_future(event(first))
                far.one = lambda one, cancelled=cancelled: in_the_middle(loop, cancelled)
                await asyncio.gather(cancelled, return_exceptions=True)
                assert cancelled.cancelled()
                assert not connections._OF_LOOP[loop]
            far.one = lambda one: None
            return await event(second)

        payload, _ = loop.run(waiting())
        assert payload["status"] == "success"
        assert len(look_ups) == 3
        for thread in poller_threads():
            thread.join(30)
        assert not poller_threads()

    def test_the_last_one_out_closes_the_sessions(self, gateway, loop):
        """The last one out closes the sessions, whether it was answered or cancelled, and new ones are opened."""
        far = gateway(seconds=20)
        far.many = lambda ids: refusal(404, "")
        ids = far.submit(40)
        opened = []

        def connected():
            return {c.laddr for c in psutil.Process().net_connections("tcp") if c.raddr and c.raddr.port == far.port}

        async def waiting():
            for last in (asyncio.CancelledError, tuple):
                fired = [asyncio.ensure_future(event(one)) for one in ids]
                await asyncio.sleep(7)
                opened.append(connected())
                if last is asyncio.CancelledError:
                    for one in fired:
                        one.cancel()
                assert {type(one) for one in await asyncio.gather(*fired, return_exceptions=True)} == {last}
                for thread in poller_threads():
                    thread.join(30)
                assert not poller_threads()
                # The session of a thread that met an error hangs on that error, which is a cycle of tenacity's.
                gc.collect()
                assert not connected()

        loop.run(waiting())
        first, second = opened
        assert first
        assert second
        assert not first & second

    def test_two_event_loops_have_a_poller_each(self, gateway, loop):
        """Two event loops in one process have a poller each."""
        far = gateway(seconds=0)
        ids = far.submit(40)
        fired = []
        threads = [
            threading.Thread(target=lambda half=half: fired.extend(asyncio.run(events(half))))
            for half in (ids[:20], ids[20:])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses(fired) == {"success": 40}
        assert sorted(map(len, far.batches)) == [20, 20]

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_process_starts_afresh(self, gateway, loop):
        """A forked child waits with a poller of its own."""
        far = gateway(seconds=30)
        ids = far.submit(20)
        fork = multiprocessing.get_context("fork")

        def child():
            # asgiref's own thread does not come along, with which Airflow itself could look nothing up any more.
            SyncToAsync.single_thread_executor = ThreadPoolExecutor(1)
            fired = PatientLoop().run(events(ids[:1], target_state="processing"))
            assert statuses(fired) == {"success": 1}

        async def waiting():
            fired = asyncio.ensure_future(events(ids))
            await asyncio.sleep(7)
            process = fork.Process(target=child)
            process.start()
            await asyncio.to_thread(process.join)
            assert process.exitcode == 0
            return await fired

        assert statuses(loop.run(waiting())) == {"success": 20}


def test_each_wait_logs_in_the_context_of_its_own_task(gateway, loop, spoken):
    """What is logged of a generation is logged in the context of its own task."""
    far = gateway(seconds=20)
    ids = far.submit(150)
    far.many = lambda batch: refusal(502) if 1008 < loop.now < 1058 else None
    far.one = far.many

    async def own(one):
        TASK.set(one)
        return await event(one)

    async def waiting():
        return await asyncio.gather(*(own(one) for one in ids))

    loop.run(waiting())
    assert len(spoken) >= 4 * len(ids)
    assert all(owner in line for line, owner in spoken)


def test_what_the_poller_logs_is_in_the_log_of_no_task(gateway, loop, only_first_look_up, monkeypatch):
    """It concerns all that wait, not the one that came first."""
    contexts = []
    monkeypatch.setattr(connections.log, "warning", lambda *_: contexts.append(TASK.get()))
    far = gateway(seconds=320)

    async def waiting():
        TASK.set("the first")
        return await event(*far.submit())

    loop.run(waiting())
    assert contexts == ["none"]

"""Polling for many waits together: how many requests they need, and how late their events fire."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import cycle, pairwise
from types import SimpleNamespace

import pytest

from airflow_provider_luma.api import Generation, GenerationState, LumaConnectionError
from airflow_provider_luma.triggers import poller, subscriptions
from airflow_provider_luma.triggers.connections import Connection
from tests.support.simulation import TASK, Triggerer, page, refusal, statuses


@pytest.fixture
def triggerer():
    """A triggerer whose clock jumps to its next timer: an hour takes a second. No HTTP, no threads."""
    with Triggerer() as triggerer:
        yield triggerer


class TestTogether:
    def test_shares_batch_queries(self, triggerer):
        """250 waits need three batch queries per poll interval, one look-up, and no event is late."""
        api = triggerer.api()
        fired = triggerer.wait(api.add(250, seconds=30))
        assert statuses(fired) == {"success": 250}
        assert len(api.requests) <= 3 * 7
        assert max(len(sent.ids) for sent in api.requests) <= 100
        assert max(at for _, at in fired) <= 30 + 5 + 1
        assert triggerer.look_ups == ["luma_default"]

    def test_polls_one_wait_alone(self, triggerer):
        """One wait needs one single poll per poll interval, and no batch query."""
        api = triggerer.api()
        triggerer.wait(api.add(1, seconds=30))
        assert len(api.singles) == 7
        assert not api.batches

    def test_new_wait_joins(self, triggerer):
        """A new wait is polled within a second, and in the others' batch queries from then on."""
        api = triggerer.api()
        first, second = api.add(2, seconds=60)

        async def joining():
            begun = triggerer.start(first)
            await asyncio.sleep(12.4)
            await asyncio.gather(begun, triggerer.event(second))

        triggerer.run(joining())
        assert api.polls(second)[0] <= 12.4 + 1
        assert len([sent for sent in api.singles if second in sent.ids]) <= 2
        assert len(api.batches) >= 8

    def test_keeps_each_poll_interval(self, triggerer):
        """The interval is the longest time between two polls; polls for others may halve it."""
        api = triggerer.api()
        intervals = dict(zip(api.add(3, seconds=60), (2, 5, 9), strict=True))

        async def waiting():
            await asyncio.gather(*(triggerer.event(one, poll_interval=each) for one, each in intervals.items()))

        triggerer.run(waiting())
        for one, seconds in intervals.items():
            gaps = [later - earlier for earlier, later in pairwise(api.polls(one))]
            assert max(gaps) <= seconds + 0.01
            assert min(gaps) >= seconds / 2 - 0.01

    def test_two_tasks_share_generation(self, triggerer):
        """Two tasks can wait for the same generation."""
        (one,) = triggerer.api().add(1)
        assert statuses(triggerer.wait([one, one])) == {"success": 2}

    def test_same_client_shares_requests(self, triggerer):
        """Two connections with the same host and token share batch queries."""
        api = triggerer.api()
        triggerer.connections["luma_other"] = api
        first, second = api.add(2, seconds=10)

        async def waiting():
            return await asyncio.gather(triggerer.event(first), triggerer.event(second, luma_conn_id="luma_other"))

        assert statuses(triggerer.run(waiting())) == {"success": 2}
        assert not api.singles

    def test_other_token_polls_apart(self, triggerer):
        """A connection with another token gets its own poller, which ends with its last wait."""
        first, second = triggerer.api(), triggerer.api("luma_other")

        async def waiting():
            begun = triggerer.start(*first.add(1, seconds=20))
            for wait in range(2):
                other = triggerer.start(*second.add(1, seconds=100), luma_conn_id="luma_other")
                await asyncio.sleep(6)
                other.cancel()
                await asyncio.sleep(0.1)
                assert len(second.requests) == 2 * (wait + 1)
            return await begun

        assert triggerer.run(waiting()).payload["status"] == "success"
        assert len(second.requests) == 4

    def test_leaving_connection_ends_nothing(self, triggerer):
        """The last wait of one connection leaves the poller of another connection running."""
        api = triggerer.api()
        triggerer.connections["luma_other"] = api
        first, second = api.add(2, seconds=60)

        async def waiting():
            leaving = triggerer.start(first, luma_conn_id="luma_other")
            staying = triggerer.start(second)
            await asyncio.sleep(12)
            leaving.cancel()
            return await staying

        fired = triggerer.run(waiting())
        assert fired.payload["status"] == "success"
        assert fired.at <= 66

    def test_cancelled_wait_leaves(self, triggerer):
        """A cancelled wait is not polled any more; the answer under way still reaches the others."""
        api = triggerer.api()
        leaving, *others = api.add(20, seconds=10)
        api.seconds = lambda ids: 2

        async def waiting():
            cancelled, *started = [triggerer.start(one) for one in (leaving, *others)]
            await asyncio.sleep(1)
            cancelled.cancel()
            return await asyncio.gather(*started)

        assert statuses(triggerer.run(waiting())) == {"success": 19}
        assert len(api.polls(leaving)) == 1

    def test_limits_batch_queries(self, triggerer):
        """At most four batch queries run at the same time."""
        api = triggerer.api()
        api.seconds = lambda ids: 2
        assert statuses(triggerer.wait(api.add(700, seconds=20))) == {"success": 700}
        assert api.most_at_once(api.requests) == poller.SLOTS["batch"]


class TestMetrics:
    @pytest.fixture
    def sent(self, monkeypatch):
        """The metrics that the poller sends."""
        sent = []
        stats = SimpleNamespace(incr=lambda name: sent.append(name), gauge=lambda name, value: sent.append(value))
        monkeypatch.setattr(poller, "Stats", stats)
        return sent

    def test_counts_requests_and_waits(self, triggerer, sent):
        """Airflow's metrics have each request and the number of waits."""
        triggerer.wait(triggerer.api().add(2, seconds=0))
        assert sent == ["luma.status_requests", 2, 0]

    def test_counts_waits_of_all_connections(self, triggerer, sent):
        """The number of waits includes those of other connections, or it would jump between two numbers."""
        first, second = triggerer.api(), triggerer.api("luma_other")

        async def waiting():
            await asyncio.gather(
                triggerer.events(first.add(3)), triggerer.events(second.add(2), luma_conn_id="luma_other")
            )

        triggerer.run(waiting())
        counts = [value for value in sent if isinstance(value, int)]
        assert counts[0] == max(counts) == 5
        assert counts[-1] == 0

    @pytest.mark.parametrize("metric", ["incr", "gauge"])
    def test_ignores_failing_metrics(self, metric, triggerer, monkeypatch):
        """Waits go on if metrics cannot be sent."""

        def broken(*_):
            raise OSError("no such socket")

        monkeypatch.setattr(poller.Stats, metric, broken)
        assert statuses(triggerer.wait(triggerer.api().add(10))) == {"success": 10}


class TestNoBatchQuery:
    def test_polls_each_singly(self, triggerer):
        """After one "not found", each generation is polled alone, once per interval, 16 at the same time."""
        api = triggerer.api()
        api.answer = lambda ids: refusal(404) if len(ids) > 1 else None
        api.seconds = lambda ids: 0.5
        ids = api.add(100, seconds=40)
        assert statuses(triggerer.wait(ids)) == {"success": 100}
        assert len(api.batches) == 1
        assert api.most_at_once(api.singles) == poller.SLOTS["single"]
        assert api.longest_gap(ids) <= 5.01
        assert max(len(api.polls(one)) for one in ids) <= 40 / 5 + 3

    def test_tries_batch_query_again(self, triggerer):
        """After five minutes, a batch query is tried again."""
        api = triggerer.api()
        api.answer = lambda ids: refusal(404) if len(ids) > 1 and triggerer.loop.now < 200 else None
        triggerer.wait(api.add(5, seconds=700))
        assert len([sent for sent in api.batches if sent.at < 300]) == 1
        assert api.requests[-1] == api.batches[-1]

    def test_keeps_longer_intervals(self, triggerer):
        """Without batch queries, no generation is polled earlier because another is due."""
        api = triggerer.api(batch_size=1)
        often, seldom = api.add(2, seconds=60)

        async def waiting():
            await asyncio.gather(triggerer.event(often, poll_interval=3), triggerer.event(seldom, poll_interval=5))

        triggerer.run(waiting())
        for one, seconds in ((often, 3), (seldom, 5)):
            assert min(later - earlier for earlier, later in pairwise(api.polls(one))) >= seconds

    def test_gives_up_slow_batch_queries(self, triggerer):
        """Batch queries that time out are given up after a minute if none has worked."""
        api = triggerer.api()
        api.answer = lambda ids: LumaConnectionError("The answer took too long.") if len(ids) > 1 else None
        api.seconds = lambda ids: 30 if len(ids) > 1 else 0.1
        ids = api.add(50, seconds=200)
        assert statuses(triggerer.wait(ids)) == {"success": 50}
        assert len(api.batches) <= 3
        assert api.longest_gap(ids) <= 36
        assert api.longest_gap(ids, since=110) <= 5.5

    def test_survives_batch_outage(self, triggerer):
        """If batch queries stop to work for some seconds, few queries are wasted, and single polls go on."""
        api = triggerer.api()
        ids = api.add(500, seconds=400)
        api.answer = lambda ids: refusal(500) if len(ids) > 1 and 20 < triggerer.loop.now < 30 else None
        assert statuses(triggerer.wait(ids)) == {"success": 500}
        assert len([sent for sent in api.batches if 20 < sent.at < 30]) <= 50
        assert api.longest_gap(ids) <= 6
        assert not [sent for sent in api.singles if sent.at > 340]

    @pytest.mark.parametrize("status", [403, 500])
    def test_gives_up_failing_batch_queries(self, status, triggerer):
        """If batch queries never work, but single polls do, the poller stops sending batch queries."""
        api = triggerer.api()
        api.answer = lambda ids: refusal(status) if len(ids) > 1 else None
        fired = triggerer.wait(api.add(150, seconds=60))
        assert statuses(fired) == {"success": 150}
        assert max(at for _, at in fired) <= 66
        # 150 ids are two batches, which are halved in parallel down to two ids: 7 and 6 queries, and one under way.
        assert len(api.batches) <= 14


class TestPace:
    """An API without batch queries, with a limit of single polls in a second."""

    def test_waits_take_turns(self, triggerer, caplog, capsys):
        """1,000 waits are polled 20 times a second, equally often, and one log line gives the reason."""
        api = triggerer.api(batch_size=1, per_second=20)
        takes = cycle((0.02, 0.4, 1.2))
        api.seconds = lambda ids: next(takes)
        ids = api.add(1000, seconds=70)
        fired = triggerer.wait(ids)
        assert statuses(fired) == {"success": 1000}
        assert max(at for _, at in fired) <= 70 + 50 + 10
        assert max(Counter(int(sent.at) for sent in api.requests).values()) <= 21
        assert api.most_at_once(api.requests) <= poller.SLOTS["single"]
        polls = [len(api.polls(one)) for one in ids]
        assert max(polls) - min(polls) <= 1
        # Airflow 3.0 logs to both.
        warning = "1000 generations are waited for, and"
        assert max(text.count(warning) for text in (capsys.readouterr().out, caplog.text)) == 1
        assert "20 polls a second: each is polled every 50 s" in caplog.text

    def test_few_waits_keep_interval(self, triggerer, caplog):
        """Waits that the limit allows are polled at their interval, without a warning."""
        api = triggerer.api(batch_size=1, per_second=20)
        ids = api.add(20, seconds=60)
        triggerer.wait(ids)
        assert api.longest_gap(ids) <= 5.1
        assert "polls a second" not in caplog.text

    def test_slow_answers_limit_polls(self, triggerer):
        """A slow API is polled by 16 threads, not by more and more."""
        api = triggerer.api(batch_size=1, per_second=20)
        api.seconds = lambda ids: 4.0
        assert statuses(triggerer.wait(api.add(100, seconds=20))) == {"success": 100}
        assert api.most_at_once(api.requests) == poller.SLOTS["single"]

    def test_hanging_ids_have_own_slots(self, triggerer):
        """Forty ids that hang occupy the slots for failing ids after their first poll, so the others go on."""
        api = triggerer.api(batch_size=1, per_second=20)
        ids = api.add(240, seconds=400)
        hanging = {*ids[::6]}
        api.answer = lambda one: LumaConnectionError("The answer took too long.") if hanging & {*one} else None
        api.seconds = lambda one: 30 if hanging & {*one} else 0.1
        assert statuses(triggerer.wait(ids, without=hanging)) == {"success": 200}
        assert api.longest_gap({*ids} - hanging, since=120) <= 16

    def test_failures_keep_pace(self, triggerer):
        """Failed polls do not raise the number of polls in a second."""
        api = triggerer.api(batch_size=1, per_second=20)
        api.answer = lambda ids: refusal(500) if random.random() < 0.1 else None
        assert statuses(triggerer.wait(api.add(200, seconds=30))) == {"success": 200}
        assert max(Counter(int(sent.at) for sent in api.requests).values()) <= 21


class TestBatchLimit:
    def test_finds_and_keeps_limit(self, triggerer):
        """Refused batches are halved until the API takes them, and the size is remembered."""
        api = triggerer.api()
        api.answer = lambda ids: refusal(413) if len(ids) > 30 else None
        fired = triggerer.wait(api.add(200, seconds=60))
        assert statuses(fired) == {"success": 200}
        assert max(at for _, at in fired) <= 66
        assert not api.singles
        refused = [sent.at for sent in api.batches if len(sent.ids) > 30]
        assert len(refused) <= 8
        assert max(refused) < 1

    def test_finds_smaller_limit(self, triggerer):
        """A limit that becomes smaller is found again."""
        api = triggerer.api()
        refused = []

        def answer(ids):
            if len(ids) <= (100 if triggerer.loop.now < 20 else 30):
                return None
            refused.append(ids)
            return refusal(413)

        api.answer = answer
        assert statuses(triggerer.wait(api.add(200, seconds=300))) == {"success": 200}
        assert len(refused) <= 10

    def test_passing_failure_keeps_size(self, triggerer):
        """The batch size stays if both halves of a failed batch work, as if a single server failed."""
        api = triggerer.api()
        failed = []

        def answer(ids):
            if triggerer.loop.now < 10 or len(failed) == 2:
                return None
            failed.append(ids)
            return refusal(500)

        api.answer = answer
        assert statuses(triggerer.wait(api.add(200, seconds=60))) == {"success": 200}
        assert len(failed) == 2
        assert max(len(sent.ids) for sent in api.requests if sent.at > 30) == 100

    @pytest.mark.parametrize("status", [400, 422])
    def test_bad_id_keeps_size(self, status, triggerer):
        """A rejected id in a small batch does not make later batches small."""
        api = triggerer.api()
        bad, *few = api.add(4, seconds=200)
        api.answer = lambda ids: refusal(status) if bad in ids else None

        async def waiting():
            failing, *started = [triggerer.start(one) for one in (bad, *few)]
            await asyncio.sleep(20)
            started += [triggerer.start(one) for one in api.add(200, seconds=180)]
            fired = await asyncio.gather(*started)
            failing.cancel()
            return fired

        assert statuses(triggerer.run(waiting())) == {"success": 203}
        assert max(len(sent.ids) for sent in api.batches) == 100


class TestBadId:
    @pytest.mark.parametrize("status", [400, 401, 403, 422, 500, 503])
    def test_delays_no_other(self, status, triggerer):
        """An id that spoils every request delays the other 249 by less than a second."""
        api = triggerer.api()
        ids = api.add(250, seconds=60)
        bad = ids[77]
        api.answer = lambda ids: refusal(status) if bad in ids else None
        fired = triggerer.wait(ids, without=[bad])
        assert statuses(fired) == {"success": 249}
        assert max(at for _, at in fired) <= 66
        assert api.longest_gap(set(ids) - {bad}) <= 5.5
        assert len(api.requests) < 12 * 8 + 60

    @pytest.mark.parametrize("status", [400, 401, 422, 500])
    def test_one_of_two_delays_little(self, status, triggerer):
        """If only two are waited for, a bad one delays the other by one interval at most."""
        api = triggerer.api()
        bad, good = ids = api.add(2, seconds=60)
        api.answer = lambda ids: refusal(status) if bad in ids else None
        (fired,) = triggerer.wait(ids, without=[bad])
        assert fired.at <= 66
        assert api.longest_gap([good]) <= 10

    @pytest.mark.parametrize("count", [2, 3, 6])
    def test_several_delay_for_a_minute(self, count, triggerer):
        """Several bad ids delay others for less than a minute, until each is polled alone."""
        api = triggerer.api()
        ids = api.add(250, seconds=200)
        bad = set(ids[7 :: 250 // count][:count])
        api.answer = lambda ids: refusal(500) if bad & {*ids} else None
        assert statuses(triggerer.wait(ids, without=bad)) == {"success": 250 - count}
        good = set(ids) - bad
        assert api.longest_gap(good) <= 60
        assert api.longest_gap(good, since=100) <= 5.5

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_last_good_id_is_found(self, place, triggerer):
        """If all ids but one begin to fail, the good id is polled in time again after two minutes."""
        api = triggerer.api()
        ids = api.add(3, seconds=300)
        good = ids[place]
        api.answer = lambda ids: refusal(500) if triggerer.loop.now > 10 and ids != [good] else None
        (fired,) = triggerer.wait(ids, without={*ids} - {good})
        assert fired.payload["status"] == "success"
        assert api.longest_gap([good], since=130) <= 5.5

    def test_few_good_ids_are_found(self, triggerer):
        """If 28 of 30 ids begin to fail, the other two are polled in time again after a few minutes."""
        api = triggerer.api()
        ids = api.add(30, seconds=900)
        good = [ids[11], ids[29]]
        api.answer = lambda ids: refusal(500) if triggerer.loop.now > 10 and {*ids} - {*good} else None
        assert statuses(triggerer.wait(ids, without={*ids} - {*good})) == {"success": 2}
        assert api.longest_gap(good) <= 400
        assert api.longest_gap(good, since=500) <= 5.5

    def test_batch_rejects_good_id(self, triggerer):
        """An id that only batch queries reject is polled alone."""
        api = triggerer.api()
        ids = api.add(20, seconds=60)
        api.answer = lambda batch: refusal(500) if ids[3] in batch and len(batch) > 1 else None
        assert statuses(triggerer.wait(ids)) == {"success": 20}

    def test_batch_leaves_id_out(self, triggerer):
        """An id that a batch query leaves out is polled alone right after it."""
        api = triggerer.api()
        ids = api.add(10, seconds=20)
        missing = ids[4]

        def answer(batch):
            return {**api.found(batch), missing: None} if batch == [missing] else api.found({*batch} - {missing})

        api.answer = lambda batch: answer(batch) if len(batch) > 1 else None
        assert statuses(triggerer.wait(ids)) == {"success": 10}
        first, second, *_ = api.requests
        assert second.ids == [missing]
        assert second.at - first.at < 1
        assert {one for sent in api.singles for one in sent.ids} == {missing}

    def test_polls_completed_without_file_alone(self, triggerer):
        """A batch query can be late with the file of a completed generation, so it is polled alone right after."""
        api = triggerer.api()
        ids = api.add(10, seconds=0)
        late = Generation(id=ids[4], state=GenerationState.COMPLETED, state_name="success")
        api.answer = lambda batch: {**api.found(batch), ids[4]: late} if len(batch) > 1 else None

        async def waiting():
            connection = Connection.for_running_loop("luma_default")
            subscribed = [connection.subscribe(one, 5) for one in ids]
            news = [await subscribed[4].next() for _ in range(2)], triggerer.loop.now
            for subscription in subscribed:
                connection.unsubscribe(subscription)
            return news

        (first, second), at = triggerer.run(waiting())
        assert first.video_url is None
        assert second.video_url
        assert at < 1

    def test_empty_batch_delays_nothing(self, triggerer):
        """No event is late if batch queries leave all ids out."""
        api = triggerer.api()
        api.answer = lambda ids: {} if len(ids) > 1 else None
        fired = triggerer.wait(api.add(20, seconds=60))
        assert statuses(fired) == {"success": 20}
        assert max(at for _, at in fired) <= 66

    def test_new_ids_become_known(self, triggerer):
        """Ids that the API does not know yet are polled alone, and together as soon as they are known."""
        api = triggerer.api()
        ids = api.add(20, seconds=60)
        api.answer = lambda batch: (
            None if triggerer.loop.now > 40 else {} if len(batch) > 1 else refusal(404, unknown_id=True)
        )
        fired = triggerer.wait(ids)
        assert statuses(fired) == {"success": 20}
        assert max(at for _, at in fired) <= 66
        assert api.requests[-1] == api.batches[-1]

    def test_unknown_id_spoils_batch(self, triggerer):
        """If the API answers "unknown" to a whole batch, all others but one still share batch queries."""
        api = triggerer.api()
        ids = api.add(19, seconds=40)
        api.answer = lambda batch: refusal(404, unknown_id=True) if "unknown" in batch else None
        assert statuses(triggerer.wait([*ids, "unknown"], without=["unknown"])) == {"success": 19}
        assert len(api.batches[-1].ids) == 18

    def test_unknown_id_keeps_interval(self, triggerer):
        """An unknown id is polled once per interval until its wait ends: it may become known any moment."""
        api = triggerer.api()
        (fired,) = triggerer.wait([*api.add(3, seconds=300), "unknown"], without=[*api.ends])
        assert fired.payload["error"] == "LumaNotFound"
        assert 60 <= fired.at <= 85
        polls = len([sent for sent in api.singles if sent.ids == ["unknown"]])
        assert 60 / 6.25 <= polls <= 60 / 5 + 2

    def test_backs_off_until_accepted(self, triggerer):
        """A rejected id is polled less and less often, and at its interval again after it was accepted."""
        api = triggerer.api()
        bad, *others = api.add(20, seconds=700)
        refused_again = []

        def answer(ids):
            time = triggerer.loop.now
            if bad in ids and time > 500 and not refused_again:
                refused_again.append(time)
                return refusal(422)
            return refusal(422) if bad in ids and 10 < time < 310 else None

        api.answer = answer
        triggerer.wait([bad, *others])
        polls = api.polls(bad)
        assert 5 <= len([at for at in polls if 20 < at < 310]) <= 12
        assert api.longest_gap([bad], since=400) <= 7


class TestTrouble:
    @pytest.mark.parametrize("error", [refusal(502), refusal(402), refusal(429), LumaConnectionError("cut")])
    def test_waits_out_outage(self, error, triggerer):
        """250 waits survive two minutes without an API with few requests and two log lines each."""
        api = triggerer.api()
        ids = api.add(250, seconds=20)
        api.answer = lambda ids: error if 8 < triggerer.loop.now < 128 else None
        fired = triggerer.wait(ids)
        assert statuses(fired) == {"success": 250}
        assert max(at for _, at in fired) <= 128 + 75 + 5
        assert api.between(8, 128) <= 12
        assert len(api.requests) <= 12 + 3 * 5 + 12
        for line in ("Polling generation", "can be polled again"):
            assert Counter(each.task for each in triggerer.lines if line in each.text) == dict.fromkeys(ids, 1)

    @pytest.mark.parametrize("status", [302, 404])
    def test_waits_out_pages(self, status, triggerer):
        """A redirect or a page of a proxy is trouble, not an answer about an id."""
        api = triggerer.api()
        api.answer = lambda ids: page(status) if 8 < triggerer.loop.now < 128 else None
        assert statuses(triggerer.wait(api.add(250, seconds=20))) == {"success": 250}
        assert api.between(30, 128) <= 12

    def test_survives_random_failures(self, triggerer):
        """300 waits survive an API with a failure in four of ten requests."""
        api = triggerer.api()
        errors = [refusal(429), refusal(500), LumaConnectionError("cut"), page(503)]
        api.answer = lambda ids: random.choice(errors) if random.random() < 0.4 else None
        assert statuses(triggerer.wait(api.add(300, seconds=60))) == {"success": 300}

    def test_pauses_double(self):
        """Pauses double up to a minute, and two triggerers choose different ones."""
        pauses = []
        for seed in (1, 2):
            with Triggerer() as triggerer:
                random.seed(seed)
                api = triggerer.api()
                api.answer = lambda _: refusal(429) if triggerer.loop.now < 400 else None
                triggerer.wait(api.add(1, seconds=1))
                pauses.append([later.at - earlier.at for earlier, later in pairwise(api.requests)])
        for of_one in pauses:
            least = [min(5 * 2**failures, 60) for failures in range(len(of_one))]
            assert all(1 <= pause / shortest <= 1.26 for pause, shortest in zip(of_one, least, strict=True))
        assert all(abs(one - other) > 0.01 for one, other in zip(*pauses, strict=False))

    @pytest.mark.parametrize("status", [429, 503])
    def test_respects_retry_after(self, status, triggerer):
        """After `Retry-After`, only requests that were already under way reach the API."""
        api = triggerer.api()
        api.seconds = lambda ids: 0.5
        api.answer = lambda ids: refusal(status, retry_after=90) if triggerer.loop.now < 5 else None
        triggerer.wait(api.add(500, seconds=20))
        assert api.between(-1, 90) <= poller.SLOTS["batch"]

    def test_longest_retry_after_counts(self, triggerer):
        """Of several answers under way, the longest `Retry-After` counts."""
        api = triggerer.api()
        ids = api.add(250, seconds=20)
        api.seconds = lambda batch: 1 if ids[0] in batch else 3
        api.answer = lambda batch: (
            None if triggerer.loop.now > 5 else refusal(429, retry_after=90 if ids[0] in batch else None)
        )
        assert statuses(triggerer.wait(ids)) == {"success": 250}
        assert api.between(5, 90) == 0

    def test_failures_together_count_once(self, triggerer):
        """Failures that were under way together do not make the next pause longer."""
        api = triggerer.api()
        api.seconds = lambda ids: 2 if len(ids) > 1 else 0
        api.answer = lambda ids: refusal(503) if 8 < triggerer.loop.now < (18 if len(ids) > 1 else 22) else None
        fired = triggerer.wait(api.add(250, seconds=20))
        assert statuses(fired) == {"success": 250}
        assert max(at for _, at in fired) <= 45

    def test_long_interval_delays_no_other(self, triggerer):
        """A wait with a long interval does not make the pause of the others longer."""
        api = triggerer.api()
        ids = api.add(51, seconds=200)

        async def waiting():
            others = [triggerer.start(one) for one in ids[1:]]
            await asyncio.sleep(11.3)
            api.answer = lambda batch: refusal(429) if len(batch) == 1 else None
            joined = triggerer.start(ids[0], poll_interval=3600)
            await asyncio.sleep(1)
            api.answer = lambda batch: None
            fired = await asyncio.gather(*others)
            joined.cancel()
            return fired

        assert statuses(triggerer.run(waiting())) == {"success": 50}
        assert api.longest_gap(ids[1:]) <= 80

    def test_keeps_unread_news(self, triggerer):
        """An answer that a trigger has not read yet is not replaced by the API's trouble."""
        api = triggerer.api()
        ids = api.add(300, seconds=1000)
        answered = []

        def answer(batch):
            if triggerer.loop.now > 3 and not answered:
                answered.extend(batch)
                return None
            return refusal(502) if triggerer.loop.now > 3 else None

        api.answer = answer

        async def waiting():
            connection = Connection.for_running_loop("luma_default")
            subscribed = [connection.subscribe(one, 5) for one in ids]
            for subscription in subscribed:
                await subscription.next()
            await asyncio.sleep(6)
            news = {subscription.generation_id: await subscription.next() for subscription in subscribed}
            for subscription in subscribed:
                connection.unsubscribe(subscription)
            return news

        news = triggerer.run(waiting())
        assert len(answered) == 100
        assert {type(news.pop(one)) for one in answered} == {Generation}
        assert {error.status for error in news.values()} == {502}

    def test_newest_news_count(self, triggerer):
        """A trigger that wakes late gets the newest of two answers."""

        async def waiting():
            subscription = subscriptions.Subscription("generation", 1000)
            reading = asyncio.ensure_future(subscription.next())
            await asyncio.sleep(0)
            for news in ("first", "second"):
                subscription.notify(news)
            return await reading

        assert triggerer.run(waiting()) == "second"


class TestNotify:
    def test_keeps_event_loop_free(self, triggerer):
        """1,000 waits log a change in small groups: the event loop serves other triggers in between."""
        api = triggerer.api()
        api.answer = lambda ids: refusal(502) if 3 < triggerer.loop.now < 8 else None
        assert statuses(triggerer.wait(api.add(1000, seconds=20))) == {"success": 1000}
        trouble = Counter(line.step for line in triggerer.lines if "Polling generation" in line.text)
        assert trouble.total() == 1000
        assert max(trouble.values()) <= subscriptions.NOTIFY_BATCH
        # After trouble, each wait logs two lines: that it can be polled again, and its state.
        news = Counter(line.step for line in triggerer.lines if "Polling generation" not in line.text)
        assert news.total() >= 2000
        assert max(news.values()) <= subscriptions.NOTIFY_BATCH * 2

    def test_logs_to_own_task(self, triggerer):
        """Each wait logs in the context of its task."""
        api = triggerer.api()
        api.answer = lambda ids: refusal(502) if 8 < triggerer.loop.now < 58 else None
        ids = api.add(150, seconds=20)
        triggerer.wait(ids)
        assert len(triggerer.lines) >= 4 * len(ids)
        assert all(line.task in line.text for line in triggerer.lines)

    def test_poller_logs_to_no_task(self, triggerer, monkeypatch):
        """The poller's warnings are in the triggerer's log, not in that of the first task."""
        contexts = []
        monkeypatch.setattr(poller.log, "warning", lambda *_: contexts.append(TASK.get()))
        api = triggerer.api(batch_size=1, per_second=1)
        triggerer.wait(api.add(20))
        assert contexts == ["no task"]

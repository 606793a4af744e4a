"""
Measure how much a few odd generations, or a proxy in front of the API, cost all other waits of a triggerer.

Run it in a checkout: ``make bad-waits``. Each row simulates 290 seconds with 300 waits, 5 seconds
between two polls and a fake API; all rows take about a minute. The column *before* has the figures of the poller
before it got separate slots for batch queries and single polls. The tests of the poller check the limits.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_luma.api import LumaConnectionError
from tests.support.simulation import Triggerer, page, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[list[str], set[str], float], Any]
    """Gets the ids of a request, the odd ids and the time; returns an error, the generations by id, or None."""

PERIOD = 290.0


class Row(NamedTuple):
    """A situation, its former and its highest allowed figure, and how to measure it."""

    situation: str
    before: int
    limit: int
    unit: str
    measure: Callable[[], float]


def simulate(answer: Answer, *, waits: int = 300, odd: int = 1, seconds: Any = None, ends: bool = False) -> tuple:
    """
    Simulate the waits.

    :param answer: the API's answers.
    :param waits: number of waits.
    :param odd: number of odd ids among them.
    :param seconds: returns the duration of an answer, given the ids of the request and the odd ids.
    :param ends: let the generations end one after the other, and simulate until all events but the odd ones fired.
    :return: the API, the ids that are not odd, and the events.
    """
    with Triggerer() as triggerer:
        api = triggerer.api()
        ids = api.add(waits, seconds=10_000)
        dice = random.Random(1)
        bad = set(dice.sample(ids, odd))
        good = [one for one in ids if one not in bad]
        api.answer = lambda asked: answer(asked, bad, triggerer.loop.now)
        if seconds:
            api.seconds = lambda asked: seconds(asked, bad)
        if ends:
            api.ends.update({one: dice.uniform(10, PERIOD) for one in good})
            return api, good, triggerer.wait(ids, without=bad)

        async def waiting() -> None:
            tasks = [triggerer.start(one) for one in ids]
            await asyncio.sleep(PERIOD)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        triggerer.run(waiting())
        return api, good, []


def requests(answer: Answer, begin: float = -1.0, end: float = PERIOD, **settings: Any) -> int:
    """Return the number of requests in a period."""
    api, *_ = simulate(answer, **settings)
    return api.between(begin, end)


def gap(answer: Answer, **settings: Any) -> float:
    """Return the longest time between two polls of a generation that is not odd."""
    api, good, _ = simulate(answer, **settings)
    return api.longest_gap(good)


def late(answer: Answer, **settings: Any) -> float:
    """Return the longest time from the end of a generation that is not odd to its event."""
    api, _, fired = simulate(answer, ends=True, **settings)
    return max(one.at - api.ends[one.payload["generation"]["id"]] for one in fired)


def only_in_batches(status: int, limit: int = 1000) -> Answer:
    """Reject odd ids in batch queries, and batch queries above a limit."""

    def answer(ids: list[str], odd: set[str], _: float) -> Any:
        return (
            refusal(status if len(ids) <= limit else 413)
            if len(ids) > 1 and (odd & {*ids} or len(ids) > limit)
            else None
        )

    return answer


def one_page(status: int) -> Answer:
    """Answer one batch query with a page of a proxy."""
    sent = []

    def answer(ids: list[str], _: set[str], now: float) -> Any:
        if now > 20 and len(ids) > 1 and not sent:
            sent.append(ids)
            return page(status)
        return None

    return answer


def pages(*statuses: int) -> Answer:
    """Answer everything with pages of a proxy for two minutes."""
    return lambda _ids, _odd, now: page(random.choice(statuses)) if 20 < now < 140 else None


def left_out(single: Any = None) -> Answer:
    """Leave odd ids out of the answers to batch queries."""

    def answer(ids: list[str], odd: set[str], _: float) -> Any:
        return single if {*ids} <= odd else [one for one in ids if one not in odd]

    return answer


def hang(ids: list[str], odd: set[str], _: float) -> Any:
    """Let requests for odd ids fail; they take their time."""
    return LumaConnectionError("The answer took too long.") if odd & {*ids} else None


def seconds_alone(seconds: float) -> Any:
    """Return the duration of a single poll of an odd id."""
    return lambda ids, odd: seconds if {*ids} <= odd else 0.1


def seconds_with(seconds: float) -> Any:
    """Return the duration of any request for an odd id."""
    return lambda ids, odd: seconds if odd & {*ids} else 0.1


def rows() -> list[Row]:
    """Return the rows of the table."""
    return [
        Row("1 id that only batch queries reject", 17_461, 400, "requests", lambda: requests(only_in_batches(500))),
        Row(
            "1 id that only batch queries reject (400)", 17_461, 400, "requests", lambda: requests(only_in_batches(400))
        ),
        Row("3 such ids", 17_617, 700, "requests", lambda: requests(only_in_batches(500), odd=3)),
        Row("3 such ids (400)", 17_617, 700, "requests", lambda: requests(only_in_batches(400), odd=3)),
        Row("limit of 30 ids and 1 such id", 17_596, 1000, "requests", lambda: requests(only_in_batches(500, 30))),
        Row(
            "limit of 30 ids and 1 such id (400)", 17_596, 1000, "requests", lambda: requests(only_in_batches(400, 30))
        ),
        Row(
            "one 404 page for one batch, 500 waits", 28_511, 350, "requests", lambda: requests(one_page(404), waits=500)
        ),
        Row(
            "one 405 page for one batch, 500 waits", 28_511, 350, "requests", lambda: requests(one_page(405), waits=500)
        ),
        Row("pages for 120 s", 5990, 10, "requests", lambda: requests(pages(400, 406, 418, 451), 20, 140, waits=1000)),
        Row("502 pages for 120 s", 10, 10, "requests", lambda: requests(pages(502), 20, 140, waits=1000)),
        Row(
            "8 ids left out, 25 s each",
            50,
            6,
            "s between polls",
            lambda: gap(left_out(), odd=8, seconds=seconds_alone(25)),
        ),
        Row(
            "40 ids, 500 after 25 s",
            221,
            6,
            "s between polls",
            lambda: gap(left_out(refusal(500)), odd=40, seconds=seconds_alone(25)),
        ),
        Row("1 id hangs for 30 s", 240, 35, "s between polls", lambda: gap(hang, seconds=seconds_with(30))),
        Row("3 ids hang for 30 s", 1145, 40, "s late", lambda: late(hang, odd=3, seconds=seconds_with(30))),
    ]


def main() -> None:
    """Measure all rows and print the table."""
    print(f"{'':45}{'before':>8}{'now':>10}{'limit':>8}")
    for row in rows():
        print(f"{row.situation:45}{row.before:>8,}{row.measure():>10,.0f}{row.limit:>8,}  {row.unit}", flush=True)


if __name__ == "__main__":
    main()

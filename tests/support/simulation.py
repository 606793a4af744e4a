"""A triggerer in simulated time: an hour of waiting takes a second, without HTTP and threads."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from contextlib import ExitStack
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

from airflow_provider_luma.api import (
    Generation,
    GenerationState,
    LumaAuthenticationError,
    LumaInvalidRequest,
    LumaNotFound,
    LumaQuotaError,
    LumaRateLimited,
    LumaServerError,
)
from airflow_provider_luma.hooks.luma import LumaHook
from airflow_provider_luma.triggers.luma import LumaGenerationTrigger

TASK = ContextVar("task", default="no task")
KINDS = {
    401: LumaAuthenticationError,
    402: LumaQuotaError,
    403: LumaAuthenticationError,
    404: LumaNotFound,
    405: LumaNotFound,
    429: LumaRateLimited,
    500: LumaServerError,
    502: LumaServerError,
    503: LumaServerError,
}


def refusal(status, **details):
    """Return the error for an answer in the API's own words."""
    return KINDS.get(status, LumaInvalidRequest)(f"HTTP {status}", status=status, **details)


def page(status):
    """Return the error for a page of a proxy, or for a redirect."""
    kind = LumaInvalidRequest if 300 <= status < 400 else LumaServerError
    return kind(f"HTTP {status}, an HTML page", status=status, from_api=False)


class _Selector(selectors.DefaultSelector):
    """Moves the clock of its event loop to the next timer, instead of waiting for it."""

    def select(self, timeout=None):
        assert timeout is not None, "all tasks wait, and no timer is left"
        self.loop.steps += 1
        self.loop.now += timeout
        assert self.loop.now < 10_000, "nothing ends this"
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """
    An event loop that moves its clock instead of sleeping.

    It also runs the calls that are meant for threads; their results arrive when the seconds of :meth:`take` are over.
    """

    def __init__(self):
        self.now = 0.0
        self.steps = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self):
        return self.now

    def take(self, seconds):
        """Let the running call take some seconds."""
        self.taken = seconds

    def run_in_executor(self, executor, function, *arguments):
        self.taken = 0.0
        future = self.create_future()
        try:
            arrive = partial(future.set_result, function(*arguments))
        except Exception as error:  # noqa: BLE001 - as an executor does
            arrive = partial(future.set_exception, error)
        self.call_later(self.taken, lambda: future.cancelled() or arrive())
        return future


class Sent(NamedTuple):
    """A request to a fake API; a batch query has several ids."""

    at: float
    ids: list[str]
    answered_at: float


class FakeApi:
    """
    An API in place of a `LumaClient`.

    A test can set `answer` and `seconds`. Both are called with the ids of each request. `answer` returns an error to
    raise, the generations by id, a list of the ids that the answer has, or None for the normal answer. `seconds`
    returns how long the answer takes.

    :param loop: the clock.
    :param batch_size: ids in one batch query; 1 for an API without batch queries.
    :param per_second: single polls that are allowed in a second.
    """

    def __init__(self, loop, *, batch_size=100, per_second=float("inf")):
        self.loop = loop
        self.dialect = SimpleNamespace(BATCH_SIZE=batch_size, REQUESTS_PER_SECOND=per_second)
        self.url = "https://api.example.com"
        self.account = object()
        self.answer = lambda ids: None
        self.seconds = lambda ids: 0.0
        self.ends: dict[str, float] = {}
        self.requests: list[Sent] = []

    def add(self, count, seconds=30):
        """Add generations that are completed in some seconds, and return their ids."""
        ids = [f"generation-{number:04}" for number in range(len(self.ends), len(self.ends) + count)]
        self.ends.update(dict.fromkeys(ids, self.loop.now + seconds))
        return ids

    def get(self, generation_id, *, repeat):
        found = self._ask([generation_id])
        if generation_id not in found:
            raise LumaNotFound("unknown", status=400, unknown_id=True)
        return found[generation_id]

    def get_many(self, generation_ids, *, repeat):
        return self._ask(sorted(generation_ids))

    def _ask(self, ids):
        seconds = self.seconds(ids)
        self.loop.take(seconds)
        self.requests.append(Sent(self.loop.now, ids, self.loop.now + seconds))
        answer = self.answer(ids)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict):
            return answer
        return self.found(ids if answer is None else answer)

    def found(self, ids):
        """Return the normal answer."""
        return {one: self._generation(one) for one in ids if one in self.ends}

    def _generation(self, generation_id):
        ended = self.loop.now >= self.ends[generation_id]
        state = GenerationState.COMPLETED if ended else GenerationState.PROCESSING
        url = "https://cdn.example.com/video.mp4" if ended else None
        return Generation(id=generation_id, state=state, state_name=state.value, video_url=url)

    @property
    def batches(self):
        return [sent for sent in self.requests if len(sent.ids) > 1]

    @property
    def singles(self):
        return [sent for sent in self.requests if len(sent.ids) == 1]

    def between(self, begin, end):
        """Return how many requests were sent in a period."""
        return sum(begin < sent.at < end for sent in self.requests)

    def polls(self, generation_id):
        """Return when a generation was polled."""
        return [sent.at for sent in self.requests if generation_id in sent.ids]

    def longest_gap(self, ids, since=0.0):
        """Return the longest time between two polls of any of these generations."""
        times = [[at for at in self.polls(one) if at >= since] for one in ids]
        return max(later - earlier for polls in times for earlier, later in pairwise(polls))

    @staticmethod
    def most_at_once(requests):
        """Return how many of these requests were under way at the same time."""
        return max(sum(other.at <= sent.at < other.answered_at - 1e-6 for other in requests) for sent in requests)


class Fired(NamedTuple):
    """The event of a trigger, and when it fired."""

    payload: dict
    at: float


class Line(NamedTuple):
    """A line in the log of a task."""

    text: str
    task: str
    step: int


class Triggerer:
    """
    Runs triggers in simulated time, inside a `with` block.

    `connections` has a fake API or an error for each connection id, or a function that returns it; `look_ups` has the
    ids that were looked up; `lines` has the tasks' log.
    """

    def __init__(self):
        self.loop = SimulatedLoop()
        self.connections = {}
        self.look_ups = []
        self.lines = []
        self.info = self.warning = self._log

    def __enter__(self):
        random.seed(4711)
        self._patches = ExitStack()
        self._patches.enter_context(mock.patch.object(LumaHook, "get_conn", lambda hook: self._look_up(hook)))
        self._patches.enter_context(mock.patch.object(LumaGenerationTrigger, "log", self))
        return self

    def __exit__(self, *_):
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self._patches.close()

    def _look_up(self, hook):
        self.look_ups.append(hook.luma_conn_id)
        found = self.connections[hook.luma_conn_id]
        found = found() if callable(found) else found
        if isinstance(found, Exception):
            raise found
        return found

    def _log(self, text, *values):
        self.lines.append(Line(text % values, TASK.get(), self.loop.steps))

    def api(self, conn_id="luma_default", **settings):
        """Return a new API, and let a connection point to it."""
        self.connections[conn_id] = api = FakeApi(self.loop, **settings)
        return api

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def event(self, generation_id, **arguments):
        """Wait for a generation in a task of its own."""
        TASK.set(generation_id)
        fired = await anext(LumaGenerationTrigger(generation_id, **arguments).run())
        return Fired(fired.payload, self.loop.now)

    def start(self, generation_id, **arguments):
        """Start to wait; return the asyncio task."""
        return self.loop.create_task(self.event(generation_id, **arguments))

    async def events(self, ids, **arguments):
        return await asyncio.gather(*(self.start(one, **arguments) for one in ids))

    def wait(self, ids, *, without=(), **arguments):
        """Wait for all generations, then stop waiting for those in `without`; return the other events."""

        async def waiting():
            stopped = [self.start(one, **arguments) for one in without]
            fired = await self.events([one for one in ids if one not in without], **arguments)
            for one in stopped:
                one.cancel()
            await asyncio.gather(*stopped, return_exceptions=True)
            return fired

        return self.run(waiting())


def statuses(fired):
    return Counter(one.payload["status"] for one in fired)

"""An event loop that waits for nothing but answers, and a sandbox that lives by its clock."""

from __future__ import annotations

import asyncio
import json
import selectors
import threading
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from airflow_provider_luma.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable


class _Selector(selectors.DefaultSelector):
    loop: PatientLoop

    def select(self, timeout=None):
        self.loop.steps += 1
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.loop.asking:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            # A little more, or it may be early by a rounding error for ever.
            self.loop.now += timeout + 1e-6
            assert self.loop.now < 5000, "nothing ends this"
        return ready


class PatientLoop(asyncio.SelectorEventLoop):
    """Time stands still while a thread is at work, and jumps to the next alarm when none is."""

    def __init__(self):
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        self.now = 1000.0
        self.asking = 0
        self.steps = 0
        """In how many steps it has run what it had to run."""

    def time(self):
        return self.now

    def run_in_executor(self, executor, func, *args):
        future = super().run_in_executor(executor, func, *args)
        self.asking += 1
        future.add_done_callback(self._answered)
        return future

    def _answered(self, _):
        self.asking -= 1

    def take(self, seconds):
        """Let the calling thread be at work for this long by this clock, which goes on meanwhile."""
        over = threading.Event()

        def end():
            self.asking += 1
            over.set()

        def begin():
            self.asking -= 1
            self.call_later(seconds, end)

        self.call_soon_threadsafe(begin)
        over.wait()

    async def taken(self, seconds):
        """Let the calling coroutine, of another event loop, take this long by this clock, which goes on meanwhile."""
        elsewhere, over = asyncio.get_running_loop(), asyncio.Event()

        def end():
            self.asking += 1
            elsewhere.call_soon_threadsafe(over.set)

        def begin():
            self.asking -= 1
            self.call_later(seconds, end)

        self.call_soon_threadsafe(begin)
        await over.wait()

    def run(self, coroutine):
        """Run to the end, as asyncio.run does."""
        try:
            return self.run_until_complete(coroutine)
        finally:
            for task in asyncio.all_tasks(self):
                task.cancel()
            self.run_until_complete(self.shutdown_asyncgens())
            self.run_until_complete(self.shutdown_default_executor())


class Gateway(Sandbox):
    """
    A sandbox that records its polls, and whose answers a test can replace.

    `asked` has the time, and the ids of a batch query or the one id of a single request; `most_at_once` is how many
    of them were under way at the same time.
    """

    def __init__(self, loop: PatientLoop, **settings):
        super().__init__(clock=loop.time, **settings)
        self.loop = loop
        self.sandbox = self.app
        self.app = self._app()
        self.asked: list[tuple[float, list[str] | str]] = []
        self.under_way = self.most_at_once = 0
        self.many: Callable[[list[str]], object] = lambda ids: None
        self.one: Callable[[str], object] = lambda generation_id: None

    @property
    def batches(self) -> list[list[str]]:
        return [ids for _, ids in self.asked if isinstance(ids, list)]

    @property
    def singles(self) -> list[str]:
        return [one for _, one in self.asked if isinstance(one, str)]

    def submit(self, count=1, prompt="A paper boat") -> list[str]:
        return [self.add_generation(prompt) for _ in range(count)]

    def _app(self):
        async def app(scope, receive, send):
            await self.wiretap(scope, receive, send)

        return app

    async def wiretap(self, scope, receive, send):
        instead = None
        if scope["path"] == "/luma/tasks":
            message = await receive()
            while message.get("more_body"):
                more = await receive()
                message = {**more, "body": message["body"] + more["body"]}
            ids = json.loads(message["body"])["ids"]
            self.asked.append((self.loop.now, ids))
            instead = self.many(ids)
            before, waiting = [message], receive

            async def receive():
                return before.pop() if before else await waiting()

        elif scope["method"] == "GET" and scope["path"].startswith("/luma/generations/"):
            generation_id = scope["path"].rpartition("/")[2]
            self.asked.append((self.loop.now, generation_id))
            instead = self.one(generation_id)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await (instead or self.sandbox)(scope, receive, send)
        finally:
            self.under_way -= 1

    def slowly(self, seconds: float, answer: object = None):
        """Return an answer, or the sandbox's own, that takes this long by the loop's clock."""

        async def app(scope, receive, send):
            await self.loop.taken(seconds)
            await (answer or self.sandbox)(scope, receive, send)

        return app


def refusal(status: int, code: str = "no", **headers: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": code, "data": None}, status, headers)

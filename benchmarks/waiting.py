"""
Let a triggerer's event loop wait for many generations, with this package's trigger and with `HttpEventTrigger`.

Run it from a checkout: ``make waiting``, or ``python -m benchmarks.waiting 100 1000`` for some numbers of triggers. The
gateway and each wait are processes of their own; both triggers poll every 5 s, and an answer takes 50 ms. They take
turns, and each figure is the median of three, which takes seven minutes for each number of triggers.

``python -m benchmarks.waiting agents 1000`` measures waits for Luma's own API, which has no batch query and is polled
20 times a second at most, beside as many of Airflow's own `DateTimeTrigger`.

10,000 of this package's are measured beside 10,000 of Airflow's own `DateTimeTrigger`, which poll nothing and only wait
until then: what those cost is what Airflow and Python need for so many.

Beside each wait, a process watches an event loop that has nothing to do. Where that stalls too, the machine stood
still, and that time is not counted.

For both, what Airflow keeps in memory is kept from Python's garbage collection, as docs/scale.md sets up a triggerer:
the worst stalls of others are longer than these by such a collection.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import deque
from typing import IO, Any

TOKEN = "token-of-the-benchmark"
POLL_INTERVAL = 5.0
LATENCY = 0.05
FIRST_AFTER, LAST_AFTER = 10.0, 40.0
TICK = 0.01
IDLE_TICK = 0.002
"""Seconds; the idle loop misses as much of a moment in which the machine stands still."""

SHORTEST_STALL = 0.001
TURNS = 3

SIDES = {
    "HttpEventTrigger": ("http", "list"),
    "batch queries": ("luma", "list"),
    "single requests": ("luma", "none"),
}
MANY = 10_000
"""From so many on, `HttpEventTrigger` would take hours."""

SIDES_OF_MANY = {
    "DateTimeTrigger": ("idle", "list"),
    "batch queries": ("luma", "list"),
}

SIDES_OF_LUMAS_OWN = {
    "DateTimeTrigger": ("idle", "list"),
    "Luma's own API": ("luma", "agents"),
}

ROWS = {
    "requests": "{:,.0f}",
    "in a second": "{:,.0f}",
    "at once": "{:,.0f}",
    "CPU a task, ms": "{:.2f}",
    "worst stall, ms": "{:,.0f}",
    "late, median s": "{:.2f}",
    "late, 99 % s": "{:.2f}",
    "late, worst s": "{:.2f}",
    "memory a trigger, KiB": "{:.1f}",
}


def main(counts: list[int], *, agents: bool) -> None:
    """Run all and print the tables."""
    for count in counts:
        load = os.getloadavg()[0]
        sides = SIDES_OF_LUMAS_OWN if agents else SIDES_OF_MANY if count >= MANY else SIDES
        turns = [{name: run(count, *how) for name, how in sides.items()} for _ in range(TURNS)]
        show(count, load, {name: medians([turn[name] for turn in turns]) for name in sides})


def medians(measured: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {row: statistics.median(one[row] for one in measured) for row in ROWS}


def show(count: int, load: float, sides: dict[str, dict[str, float]]) -> None:
    """Print one table."""
    theirs, *ours = sides.values()
    compared = theirs["requests"] > 0
    print(f"\n{count:,} triggers, medians of {TURNS} turns; load of the machine before: {load:.1f}")
    first, *others = sides
    print(f"{'':24}{first:>18}" + f"{'':9}".join(f"{name:>18}" for name in others))
    for row, form in ROWS.items():
        line = f"{row:24}{form.format(theirs[row]):>18}"
        for one in ours:
            ratio = theirs[row] / one[row] if one[row] > 0 else float("inf")
            line += f"{form.format(one[row]):>18}" + (f"{f'1/{ratio:.1f}':>9}" if compared else "")
        print(line, flush=True)


def run(count: int, trigger: str, api: str) -> dict[str, float]:
    """Let one kind of trigger wait, in fresh processes, and an event loop beside it that has nothing to do."""
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        gateway = start(env, "gateway", str(count), api)
        url = receive(gateway)
        extra = {"api": "agents" if api == "agents" else "gateway"}
        connection = {"conn_type": "luma", "host": url, "password": TOKEN, "extra": extra}
        env["AIRFLOW_CONN_LUMA_DEFAULT"] = json.dumps(connection)
        env["AIRFLOW_CONN_HTTP_DEFAULT"] = json.dumps({"conn_type": "http", "host": url})
        waiting, idle = start(env, "wait", trigger), start(env, "idle")
        receive(waiting), receive(idle)
        # All have imported what they need: from here on the time counts.
        send(gateway, "go")
        send(idle, "go")
        send(waiting, receive(gateway))
        measured = receive(waiting)
        for process in (idle, gateway):
            send(process, "report")
        nothing = receive(idle)
        report = receive(gateway)
        for process in (gateway, waiting, idle):
            process.communicate()
    stalls = [
        ended - began - sum(max(0, min(ended, end) - max(began, begin)) for begin, end in nothing["stalls"])
        for began, ended in measured["stalls"]
    ]
    return {
        "requests": report["requests"],
        "at once": report["at_once"],
        "in a second": report["in_a_second"],
        # Less what the watch itself takes, which is as much as a few hundred waiting tasks.
        "CPU a task, ms": (measured["CPU"] - measured["ticks"] * nothing["CPU"] / nothing["ticks"]) / count * 1000,
        "worst stall, ms": max(stalls, default=0) * 1000,
        **measured["rows"],
    }


def start(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start a part of this in a process of its own, which is spoken with in lines of JSON."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.waiting", *arguments]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def send(process: subprocess.Popen[str], what: Any) -> None:
    """Say something to a process."""
    assert process.stdin  # noqa: S101 - it is a pipe
    send_line(process.stdin, what)


def send_line(pipe: IO[str], what: Any) -> None:
    """Write a line of JSON."""
    print(json.dumps(what), file=pipe, flush=True)


def receive(process: subprocess.Popen[str]) -> Any:
    """Return what a process says next."""
    assert process.stdout  # noqa: S101 - it is a pipe
    return json.loads(process.stdout.readline())


def gateway(count: int, api: str) -> None:
    """
    Be an API with this many generations, which are completed one after the other.

    :param api: ``agents`` for Luma's own, else how the gateway answers a batch query.
    """
    from airflow_provider_luma.sandbox import Sandbox

    fields: dict[str, Any] = {"api": "agents"} if api == "agents" else {}
    settings: dict[str, Any] = {} if fields else {"batch_shape": api}
    with Sandbox(token=TOKEN, latency=LATENCY, **settings) as sandbox:
        # All of them, also where there are more than it usually keeps.
        sandbox.memory.requests = deque()
        send_line(sys.stdout, sandbox.url)
        sys.stdin.readline()
        dice = random.Random(count)
        completed_at = {}
        for _ in range(count):
            seconds = dice.uniform(FIRST_AFTER, LAST_AFTER)
            generation_id = sandbox.add_generation(seconds=seconds, **fields)
            completed_at[generation_id] = time.time() + seconds
        send_line(sys.stdout, completed_at)
        sys.stdin.readline()
        times = sorted(request.at for request in sandbox.requests)
        in_a_second = max((bisect_left(times, begin + 1) - first for first, begin in enumerate(times)), default=0)
        send_line(sys.stdout, {**sandbox.memory.report(""), "in_a_second": in_a_second})


def wait(trigger: str) -> None:
    """Wait as a triggerer does, and say what it took."""
    answer = own_stdout()
    completed_at: dict[str, float] = {"warm-up": 0.0}
    makers = {"http": http_trigger, "luma": luma_trigger, "idle": lambda one: idle_trigger(completed_at[one])}
    make = makers[trigger]
    make("warm-up")
    for imported_by_a_triggerer in ("requests", "airflow.sdk.execution_time.supervisor"):
        importlib.import_module(imported_by_a_triggerer)
    # What Airflow itself keeps in memory takes Python 50 to 120 ms to search for garbage, whoever waits.
    gc.collect()
    gc.freeze()
    send_line(answer, "ready")
    completed_at = json.loads(sys.stdin.readline())
    send_line(answer, asyncio.run(measured(make, completed_at)))


def idle() -> None:
    """Do nothing but watch an event loop, and say what that took."""
    answer = own_stdout()
    send_line(answer, "ready")
    sys.stdin.readline()

    async def watched() -> dict[str, Any]:
        watch = Watch(IDLE_TICK)
        await asyncio.to_thread(sys.stdin.readline)
        return watch.seen()

    send_line(answer, asyncio.run(watched()))


def http_trigger(generation_id: str) -> Any:
    """Wait as one would without this package."""
    from airflow.providers.http.triggers.http import HttpEventTrigger

    return HttpEventTrigger(
        response_check_path="benchmarks.completed.completed",
        endpoint=f"luma/generations/{generation_id}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        poll_interval=POLL_INTERVAL,
    )


def luma_trigger(generation_id: str) -> Any:
    """Wait with this package."""
    from airflow_provider_luma.triggers.luma import LumaGenerationTrigger

    return LumaGenerationTrigger(generation_id, poll_interval=POLL_INTERVAL)


def idle_trigger(completed_at: float) -> Any:
    """Poll nothing, and know when it is completed: what Airflow itself has to wait for a time."""
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger
    from pendulum import from_timestamp

    return DateTimeTrigger(from_timestamp(completed_at))


async def measured(make: Any, completed_at: dict[str, float]) -> dict[str, Any]:
    """Run the triggers for generations that are completed at these times, and return what it took."""
    import psutil
    from pendulum import DateTime

    late = []

    async def fire(generation_id: str) -> None:
        async for event in make(generation_id).run():
            ended = isinstance(event.payload, DateTime) or event.payload["status"] == "success"
            assert ended, event.payload  # noqa: S101 - or nothing was measured
            late.append(time.time() - completed_at[generation_id])

    memory = psutil.Process().memory_info().rss
    watch = Watch(TICK)
    firing = []
    for generation_id in completed_at:
        # As the triggerer does.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        firing.append(asyncio.create_task(fire(generation_id)))
    await asyncio.gather(*firing)
    seen = watch.seen()
    count = len(completed_at)
    late.sort()
    rows = {
        "late, median s": statistics.median(late),
        "late, 99 % s": late[int(count * 0.99) - 1],
        "late, worst s": late[-1],
        "memory a trigger, KiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory / 1024) / count,
    }
    return {**seen, "rows": rows}


class Watch:
    """When the running event loop does not turn, and the seconds of CPU that its process uses meanwhile."""

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._stalls: list[tuple[float, float]] = []
        self._ticks = 0
        self._cpu = time.process_time()
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            self._ticks += 1
            due = time.monotonic() + self._tick
            await asyncio.sleep(self._tick)
            ran = time.monotonic()
            if ran - due > SHORTEST_STALL:
                self._stalls.append((due, ran))

    def seen(self) -> dict[str, Any]:
        """Watch no more, and return what was seen; a stall is given as when it began and ended."""
        self._watching.cancel()
        return {"stalls": self._stalls, "ticks": self._ticks, "CPU": time.process_time() - self._cpu}


def own_stdout() -> IO[str]:
    """Return what to say things to; what is logged goes nowhere, at the cost of a task's log."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return answer


if __name__ == "__main__":
    part, *arguments = sys.argv[1:] or [""]
    if part == "gateway":
        gateway(int(arguments[0]), arguments[1])
    elif part == "wait":
        wait(arguments[0])
    elif part == "idle":
        idle()
    else:
        agents = part == "agents"
        main([int(count) for count in sys.argv[1 + agents :]] or [100, 1000, 3000, MANY], agents=agents)

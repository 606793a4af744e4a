"""
Compare many waits in one event loop: this package's trigger, and `HttpEventTrigger` of Airflow's HTTP provider.

Run it in a checkout: ``make waiting``, or ``python -m benchmarks.waiting 100 1000`` with the numbers of triggers. The
API and the event loop run in separate processes. Both triggers poll every 5 s, and an answer takes 50 ms. The triggers
take turns, and each figure is the median of three runs. Each number of triggers takes seven minutes.

``python -m benchmarks.waiting agents 1000`` measures the API without batch queries, with at most 20 polls a second.
Airflow's `DateTimeTrigger` is beside it.

10,000 triggers are compared with 10,000 `DateTimeTrigger`, because `HttpEventTrigger` would take hours. These only wait
for a time, so their figures are the cost of Airflow and Python alone.

Another process watches an idle event loop. If both stall together, the machine stood still, and the stall is not
counted.

Objects that Airflow keeps in memory are excluded from Python's garbage collection, as docs/scale.md recommends for a
triggerer. Without that, the worst stalls are longer by one collection.
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
"""Seconds between two ticks of the idle loop; it can miss as much of a stall of the machine."""

SHORTEST_STALL = 0.001
TURNS = 3

SIDES = {
    "HttpEventTrigger": ("http", "list"),
    "batch queries": ("luma", "list"),
    "single requests": ("luma", "none"),
}
MANY = 10_000
"""With more triggers than this, `HttpEventTrigger` would take hours."""

SIDES_OF_MANY = {
    "DateTimeTrigger": ("idle", "list"),
    "batch queries": ("luma", "list"),
}

SIDES_WITHOUT_BATCHES = {
    "DateTimeTrigger": ("idle", "list"),
    "single polls only": ("luma", "agents"),
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
    """Run all comparisons and print the tables."""
    for count in counts:
        load = os.getloadavg()[0]
        sides = SIDES_WITHOUT_BATCHES if agents else SIDES_OF_MANY if count >= MANY else SIDES
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
    """Run one kind of trigger and an idle event loop, in new processes, and return the figures."""
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
        # All imports are done: measure from here.
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
        # Without the CPU of the watch, which is as much as that of some hundred waits.
        "CPU a task, ms": (measured["CPU"] - measured["ticks"] * nothing["CPU"] / nothing["ticks"]) / count * 1000,
        "worst stall, ms": max(stalls, default=0) * 1000,
        **measured["rows"],
    }


def start(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start a part of the benchmark in a new process; it reads and writes lines of JSON."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.waiting", *arguments]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def send(process: subprocess.Popen[str], message: Any) -> None:
    """Send a message to a process."""
    assert process.stdin  # noqa: S101 - it is a pipe
    send_line(process.stdin, message)


def send_line(pipe: IO[str], message: Any) -> None:
    """Write a line of JSON."""
    print(json.dumps(message), file=pipe, flush=True)


def receive(process: subprocess.Popen[str]) -> Any:
    """Return the next message of a process."""
    assert process.stdout  # noqa: S101 - it is a pipe
    return json.loads(process.stdout.readline())


def gateway(count: int, api: str) -> None:
    """
    Run an API with this many generations, which are completed one after the other.

    :param api: ``agents``, or the shape of the gateway's answer to a batch query.
    """
    from airflow_provider_luma.sandbox import Sandbox

    fields: dict[str, Any] = {"api": "agents"} if api == "agents" else {}
    settings: dict[str, Any] = {} if fields else {"batch_shape": api}
    with Sandbox(token=TOKEN, latency=LATENCY, **settings) as sandbox:
        # The sandbox usually keeps only the latest 10,000 requests.
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
    """Wait as a triggerer does, and send the figures."""
    answer = own_stdout()
    completed_at: dict[str, float] = {"warm-up": 0.0}
    makers = {"http": http_trigger, "luma": luma_trigger, "idle": lambda one: idle_trigger(completed_at[one])}
    make = makers[trigger]
    make("warm-up")
    for imported_by_a_triggerer in ("requests", "airflow.sdk.execution_time.supervisor"):
        importlib.import_module(imported_by_a_triggerer)
    # A garbage collection takes 50 to 120 ms for Airflow's own objects, with any trigger.
    gc.collect()
    gc.freeze()
    send_line(answer, "ready")
    completed_at = json.loads(sys.stdin.readline())
    send_line(answer, asyncio.run(measured(make, completed_at)))


def idle() -> None:
    """Watch an idle event loop, and send the figures."""
    answer = own_stdout()
    send_line(answer, "ready")
    sys.stdin.readline()

    async def watched() -> dict[str, Any]:
        watch = Watch(IDLE_TICK)
        await asyncio.to_thread(sys.stdin.readline)
        return watch.stop()

    send_line(answer, asyncio.run(watched()))


def http_trigger(generation_id: str) -> Any:
    """Return the trigger of Airflow's HTTP provider."""
    from airflow.providers.http.triggers.http import HttpEventTrigger

    return HttpEventTrigger(
        response_check_path="benchmarks.completed.completed",
        endpoint=f"luma/generations/{generation_id}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        poll_interval=POLL_INTERVAL,
    )


def luma_trigger(generation_id: str) -> Any:
    """Return this package's trigger."""
    from airflow_provider_luma.triggers.luma import LumaGenerationTrigger

    return LumaGenerationTrigger(generation_id, poll_interval=POLL_INTERVAL)


def idle_trigger(completed_at: float) -> Any:
    """Return Airflow's trigger that only waits for a time."""
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger
    from pendulum import from_timestamp

    return DateTimeTrigger(from_timestamp(completed_at))


async def measured(make: Any, completed_at: dict[str, float]) -> dict[str, Any]:
    """Run the triggers for generations that are completed at these times, and return the figures."""
    import psutil
    from pendulum import DateTime

    late = []

    async def fire(generation_id: str) -> None:
        async for event in make(generation_id).run():
            ended = isinstance(event.payload, DateTime) or event.payload["status"] == "success"
            assert ended, event.payload  # noqa: S101 - the figures of a failed wait are useless
            late.append(time.time() - completed_at[generation_id])

    memory = psutil.Process().memory_info().rss
    watch = Watch(TICK)
    firing = []
    for generation_id in completed_at:
        # The triggerer does the same.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        firing.append(asyncio.create_task(fire(generation_id)))
    await asyncio.gather(*firing)
    seen = watch.stop()
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
    """Records the stalls of the running event loop, and the CPU seconds of its process."""

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

    def stop(self) -> dict[str, Any]:
        """Stop watching, and return the stalls (begin and end), the number of ticks and the CPU seconds."""
        self._watching.cancel()
        return {"stalls": self._stalls, "ticks": self._ticks, "CPU": time.process_time() - self._cpu}


def own_stdout() -> IO[str]:
    """Return the standard output for messages; log lines are written, as in a task, but discarded."""
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

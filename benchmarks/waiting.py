"""
Let a triggerer's event loop wait for many generations, with this package's trigger and with `HttpEventTrigger`.

Run it from a checkout: ``make waiting``, or ``python -m benchmarks.waiting 100 1000`` for some numbers of triggers. The
gateway and each wait are processes of their own; both triggers ask every 5 s, and an answer takes 50 ms.

For both, what Airflow keeps in memory is kept from Python's garbage collection, which a triggerer does not do: its
worst stalls are longer than these by such a collection.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

TOKEN = "token-of-the-benchmark"
POLL_INTERVAL = 5.0
LATENCY = 0.05
FIRST_AFTER, LAST_AFTER = 10.0, 40.0
TICK = 0.01

ROWS = {
    "requests": "{:,.0f}",
    "at once": "{:,.0f}",
    "CPU a task, ms": "{:.2f}",
    "worst stall, ms": "{:,.0f}",
    "late, median s": "{:.2f}",
    "late, 99 % s": "{:.2f}",
    "late, worst s": "{:.2f}",
    "memory a trigger, KiB": "{:.1f}",
}


def main(counts: list[int]) -> None:
    """Run all and print the tables."""
    for count in counts:
        load = os.getloadavg()[0]
        theirs = run("http", count, "list")
        show(
            count, load, theirs, {"with query-many": run("luma", count, "list"), "without": run("luma", count, "none")}
        )


def show(count: int, load: float, theirs: dict[str, float], ours: dict[str, dict[str, float]]) -> None:
    """Print one table."""
    print(f"\n{count:,} triggers; load of the machine before: {load:.1f}")
    print(f"{'':24}{'HttpEventTrigger':>18}" + "".join(f"{name:>18}{'':>9}" for name in ours))
    for row, form in ROWS.items():
        line = f"{row:24}{form.format(theirs[row]):>18}"
        for one in ours.values():
            ratio = theirs[row] / one[row] if one[row] > 0 else float("inf")
            line += f"{form.format(one[row]):>18}{f'1/{ratio:.1f}':>9}"
        print(line, flush=True)


def run(trigger: str, count: int, batch_shape: str) -> dict[str, float]:
    """Let one kind of trigger wait, in fresh processes."""
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        gateway = start(env, "gateway", str(count), batch_shape)
        url = told(gateway)
        env["AIRFLOW_CONN_LUMA_DEFAULT"] = json.dumps({"conn_type": "luma", "host": url, "password": TOKEN})
        env["AIRFLOW_CONN_HTTP_DEFAULT"] = json.dumps({"conn_type": "http", "host": url})
        waiting = start(env, "wait", trigger)
        told(waiting)
        # Both have imported all they need: from here on the time counts.
        say(gateway, "go")
        say(waiting, told(gateway))
        measured: dict[str, float] = told(waiting)
        say(gateway, "report")
        measured |= told(gateway)
        for process in (gateway, waiting):
            process.communicate()
    return measured


def start(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start a part of this in a process of its own, which is spoken with in lines of JSON."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.waiting", *arguments]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def say(process: subprocess.Popen[str], what: Any) -> None:
    """Say something to a process."""
    assert process.stdin  # noqa: S101 - it is a pipe
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()


def told(process: subprocess.Popen[str]) -> Any:
    """Return what a process says next."""
    assert process.stdout  # noqa: S101 - it is a pipe
    return json.loads(process.stdout.readline())


def gateway(count: int, batch_shape: str) -> None:
    """Be a gateway with this many generations, which are completed one after the other."""
    from airflow_provider_luma.sandbox.app import create_app
    from airflow_provider_luma.sandbox.gateway import Settings
    from airflow_provider_luma.sandbox.server import address, listen, make_server

    app = create_app(Settings(token=TOKEN, latency=LATENCY, batch_shape=batch_shape))  # type: ignore[arg-type]
    memory = app.routes[0].app.gateway  # type: ignore[attr-defined]
    listener = listen("127.0.0.1", 0)
    threading.Thread(target=make_server(app).run, kwargs={"sockets": [listener]}, daemon=True).start()
    print(json.dumps(address(listener)), flush=True)
    sys.stdin.readline()
    dice = random.Random(count)
    completed_at = {}
    for _ in range(count):
        generation = memory.accept({"user_prompt": "A paper boat"})
        generation.seconds = dice.uniform(FIRST_AFTER, LAST_AFTER)
        completed_at[generation.id] = time.time() + generation.seconds
    print(json.dumps(completed_at), flush=True)
    sys.stdin.readline()
    report = memory.report("")
    print(json.dumps({"requests": report["requests"], "at once": report["at_once"]}), flush=True)


def wait(trigger: str) -> None:
    """Wait as a triggerer does, and say what it took."""
    answer = os.fdopen(os.dup(1), "w")
    # What the triggers log goes to their tasks' logs; here to nowhere, at the same cost.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    make = {"http": http_trigger, "luma": luma_trigger}[trigger]
    make("warm-up")
    __import__("requests")
    # What Airflow itself keeps in memory takes Python 50 to 120 ms to search for garbage, whoever waits.
    gc.collect()
    gc.freeze()

    def say_begin() -> None:
        print(json.dumps("ready"), file=answer, flush=True)

    print(json.dumps(asyncio.run(measured(make, say_begin))), file=answer, flush=True)


def http_trigger(generation_id: str) -> Any:
    """Wait as someone without this package would."""
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


async def measured(make: Any, say_begin: Any) -> dict[str, float]:
    """Run the triggers for the generations that come on stdin, and return what it took, by the names of the rows."""
    import psutil

    late = []
    worst_stall = 0.0
    ticks = 0

    async def fire(generation_id: str) -> None:
        async for event in make(generation_id).run():
            assert event.payload["status"] == "success", event.payload  # noqa: S101 - or nothing was measured
            late.append(time.time() - completed_at[generation_id])

    async def watch() -> None:
        nonlocal worst_stall, ticks
        while True:
            ticks += 1
            began = time.monotonic()
            await asyncio.sleep(TICK)
            worst_stall = max(worst_stall, time.monotonic() - began - TICK)

    watching = asyncio.create_task(watch())
    used = cpu()
    await asyncio.sleep(3)
    cpu_of_tick = (cpu() - used) / ticks
    say_begin()
    completed_at: dict[str, float] = await asyncio.to_thread(lambda: json.loads(sys.stdin.readline()))
    ticks, worst_stall = 0, 0.0
    memory = psutil.Process().memory_info().rss
    used = cpu()
    firing = []
    for generation_id in completed_at:
        # As the triggerer does.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        firing.append(asyncio.create_task(fire(generation_id)))
    await asyncio.gather(*firing)
    watching.cancel()
    count = len(completed_at)
    late.sort()
    return {
        # Less what the watch itself takes, which is as much as a few hundred waiting tasks.
        "CPU a task, ms": (cpu() - used - ticks * cpu_of_tick) / count * 1000,
        "worst stall, ms": worst_stall * 1000,
        "late, median s": statistics.median(late),
        "late, 99 % s": late[int(count * 0.99) - 1],
        "late, worst s": late[-1],
        "memory a trigger, KiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory / 1024) / count,
    }


def cpu() -> float:
    """Return the seconds of CPU that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    if sys.argv[1:2] == ["gateway"]:
        gateway(int(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["wait"]:
        wait(sys.argv[2])
    else:
        main([int(count) for count in sys.argv[1:]] or [100, 1000, 3000])

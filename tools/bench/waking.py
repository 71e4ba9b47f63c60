"""Rows about waiting: how soon a waiting reader has a message, in the same process and in another, and what it costs
to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from mq_server import Mailroom
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, payload
from tools.bench.measuring import OURS, Figure, Row, Sample, Site, check, percentiles

_CHANNEL = CHANNELS[3]
_TIMEOUT_S = 30.0
_PAUSE_S = 0.005  # lets the reader go back to waiting
_SETTLE_S = 2.0  # lets the first wait, which starts the watcher, get under way
_IDLE_S = 20
_LATENCY = (
    Figure("p50_ms", "ms", "from the call, p50"),
    Figure("p95_ms", "ms", "from the call, p95"),
    Figure("after_p50_ms", "ms", "from its return, p50"),
)
# perf_counter and monotonic are the machine's on Linux and Windows: two processes can compare their readings.
_now = time.perf_counter
Times = dict[str, tuple[float, float]]


async def _post(room: Mailroom, posts: int, waits: Callable[[int], Awaitable[None]]) -> Times:
    """When each post was called and returned, by id; `waits` returns once the reader has so many and waits again."""
    times: Times = {}
    for number in range(posts):
        await waits(number)
        await asyncio.sleep(_PAUSE_S if number else _SETTLE_S)
        called = _now()
        posted = await room.post(_CHANNEL, sender=SENDER, msg_type=MSG_TYPE, payload=payload(number))
        times[posted.id] = (called, _now())
    return times


async def _receive(room: Mailroom, posts: int, waiting: Callable[[int], object]) -> dict[str, float]:
    """When each message arrived, by id; `waiting` is told before each wait how many came so far."""
    received: dict[str, float] = {}
    while len(received) < posts:
        waiting(len(received))
        page = await room.wait(_CHANNEL, ack=list(received)[-1:], timeout_s=_TIMEOUT_S)
        arrived = _now()
        received |= {message.id: arrived for message in page.messages if message.id not in received}
        if page.timed_out:
            break
    return received


def _sample(times: Times, received: dict[str, float]) -> Sample:
    check(times, list(received))
    latencies = [received[name] - called for name, (called, _) in times.items()]
    after = [received[name] - returned for name, (_, returned) in times.items()]
    return percentiles(latencies) | percentiles(after, "after_")


def measure_one_process(site: Site) -> Sample:
    """Poster and reader share a Mailroom."""

    async def work() -> Sample:
        posts = site.count(200)
        came: asyncio.Queue[int] = asyncio.Queue()

        async def waits(number: int) -> None:
            while await came.get() < number:
                pass

        async with Mailroom(site.folder) as room:
            reading = asyncio.create_task(_receive(room, posts, came.put_nowait))
            times = await _post(room, posts, waits)
            return _sample(times, await reading)

    return asyncio.run(work())


def measure_two_processes(site: Site) -> Sample:
    """The reader is another process on the same folder."""
    posts = site.count(200)
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    reader = spawn.Process(target=_receive_elsewhere, args=(site.folder, posts, there))
    reader.start()
    there.close()

    async def waits(number: int) -> None:
        while await asyncio.to_thread(here.recv) < number:
            pass

    async def work() -> Times:
        async with Mailroom(site.folder) as room:
            return await _post(room, posts, waits)

    times = asyncio.run(work())
    received = here.recv()
    reader.join()
    return _sample(times, received)


def _receive_elsewhere(folder: Path, posts: int, pipe: Connection) -> None:
    async def work() -> dict[str, float]:
        async with Mailroom(folder) as room:
            return await _receive(room, posts, pipe.send)

    pipe.send(asyncio.run(work()))


def measure_idle(site: Site) -> Sample:
    """The share of a core that a process takes while it waits and nothing comes."""

    async def work() -> float:
        async with Mailroom(site.folder) as room:
            await room.post(_CHANNEL, sender=SENDER, msg_type=MSG_TYPE, payload=payload(0))
            idle_s = site.count(_IDLE_S)
            waiting = asyncio.create_task(room.wait(CHANNELS[0], timeout_s=idle_s + 2 * _SETTLE_S))
            await asyncio.sleep(_SETTLE_S)
            used, started = time.process_time(), time.monotonic()
            await asyncio.sleep(idle_s)
            share = (time.process_time() - used) / (time.monotonic() - started)
            room.end_waits()
            check([], [message.id for message in (await waiting).messages])
            return share

    return {"percent": asyncio.run(work()) * 100}


ROWS = (
    Row(
        name="wake",
        title="wake of a reader in the same process",
        figures=_LATENCY,
        contenders={OURS: measure_one_process},
    ),
    Row(
        name="wake-processes",
        title="wake of a reader in another process",
        figures=_LATENCY,
        contenders={OURS: measure_two_processes},
    ),
    Row(
        name="idle",
        title="a process that waits",
        figures=(Figure("percent", "% of a core"),),
        contenders={OURS: measure_idle},
    ),
)

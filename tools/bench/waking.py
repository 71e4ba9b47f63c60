"""Rows about waiting: how soon a waiting reader has a message, in the same process and in another, and what it costs
to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from mq_server import Mailroom
from tools.bench import posting
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, payload
from tools.bench.measuring import NATS, OURS, REDIS, Figure, Row, Sample, Site, check, percentiles
from tools.bench.nats_peer import NatsReceiver
from tools.bench.redis_peer import RedisReceiver
from tools.bench.servers import cpu_seconds

_CHANNEL = CHANNELS[3]
_TIMEOUT_S = 30.0
_PAUSE_S = 0.005  # lets the reader go back to waiting
_SETTLE_S = 2.0  # lets the first wait, which starts the watcher, get under way
_IDLE_S = 20
_LATENCY = (
    Figure("p50_ms", "ms", "from the call, p50"),
    Figure("p95_ms", "ms", "from the call, p95"),
    Figure("max_ms", "ms", "from the call, longest"),
    Figure("after_p50_ms", "ms", "from its return, p50"),
)
# perf_counter and monotonic are the machine's on Linux and Windows: two processes can compare their readings.
_now = time.perf_counter
Times = dict[str, tuple[float, float]]


class Receiver(Protocol):
    """One that waits for a mailbox's messages."""

    async def receive(self, timeout_s: float) -> list[str]:
        """The ids of what came; none when the time is over."""

    async def close(self) -> None:
        """Let go of everything."""


class Kind(NamedTuple):
    """What a contender is made of: who posts, and who waits in a folder."""

    posts: posting.Kind
    receiver: Callable[[Path], Receiver]


class MailroomReceiver:
    """Waits through the public API; each wait acknowledges what the last one gave."""

    def __init__(self, room: Mailroom) -> None:
        self._room = room
        self._ack: list[str] = []

    @classmethod
    def of(cls, folder: Path) -> Self:
        """One with a Mailroom of its own."""
        return cls(Mailroom(folder))

    async def receive(self, timeout_s: float) -> list[str]:
        """The ids of what came; none when the time is over."""
        page = await self._room.wait(_CHANNEL, ack=self._ack, timeout_s=timeout_s)
        self._ack = [message.id for message in page.messages]
        return self._ack

    async def close(self) -> None:
        """Finish what is queued."""
        await self._room.close()


_OURS = Kind(posting.MAILROOM, MailroomReceiver.of)
_REDIS = Kind(posting.REDIS_POSTS, RedisReceiver)
_NATS = Kind(posting.NATS_POSTS, NatsReceiver)


async def _post(
    post: Callable[[str, int], Awaitable[str]], posts: int, waits: Callable[[int], Awaitable[None]]
) -> Times:
    """When each post was called and returned, by id; `waits` returns once the reader has so many and waits again."""
    times: Times = {}
    for number in range(posts):
        await waits(number)
        await asyncio.sleep(_PAUSE_S if number else _SETTLE_S)
        called = _now()
        posted = await post(_CHANNEL, number)
        times[posted] = (called, _now())
    return times


async def _receive(receiver: Receiver, posts: int, waiting: Callable[[int], object]) -> dict[str, float]:
    """When each message arrived, by id; `waiting` is told before each wait how many came so far."""
    received: dict[str, float] = {}
    while len(received) < posts:
        waiting(len(received))
        ids = await receiver.receive(_TIMEOUT_S)
        arrived = _now()
        received |= {name: arrived for name in ids if name not in received}
        if not ids:
            break
    return received


def _sample(times: Times, received: dict[str, float]) -> Sample:
    check(times, list(received))
    timed = list(times.items())[1:]  # a program's first post imports what posting takes, and makes the mailbox
    latencies = [received[name] - called for name, (called, _) in timed]
    after = [received[name] - returned for name, (_, returned) in timed]
    return percentiles(latencies) | {"max_ms": max(latencies) * 1000} | percentiles(after, "after_")


def measure_one_process(site: Site) -> Sample:
    """Poster and reader share a Mailroom."""

    async def work() -> Sample:
        posts = site.count(200) + 1
        came: asyncio.Queue[int] = asyncio.Queue()

        async def waits(number: int) -> None:
            while await came.get() < number:
                pass

        async def post(channel: str, number: int) -> str:
            posted = await room.post(channel, sender=SENDER, msg_type=MSG_TYPE, payload=payload(number))
            return posted.id

        async with Mailroom(site.folder) as room:
            reading = asyncio.create_task(_receive(MailroomReceiver(room), posts, came.put_nowait))
            times = await _post(post, posts, waits)
            return _sample(times, await reading)

    return asyncio.run(work())


def measure_two_processes(kind: Kind, site: Site) -> Sample:
    """The reader is another process on the same folder."""
    posts = site.count(200) + 1
    spawn = get_context("spawn")
    here, there = spawn.Pipe()

    async def waits(number: int) -> None:
        while await asyncio.to_thread(here.recv) < number:
            pass

    async def work() -> Times:
        poster = kind.posts.poster(site.folder, True)
        times = await _post(poster.post, posts, waits)
        await poster.close()
        return times

    with kind.posts.served(site.folder, True):
        reader = spawn.Process(target=_receive_elsewhere, args=(kind, site.folder, posts, there))
        reader.start()
        there.close()
        times = asyncio.run(work())
        received = here.recv()
        reader.join()
    return _sample(times, received)


def _receive_elsewhere(kind: Kind, folder: Path, posts: int, pipe: Connection) -> None:
    async def work() -> dict[str, float]:
        receiver = kind.receiver(folder)
        received = await _receive(receiver, posts, pipe.send)
        await receiver.close()
        return received

    pipe.send(asyncio.run(work()))


def measure_idle(kind: Kind, site: Site) -> Sample:
    """The share of a core that a process takes while it waits and nothing comes, and its server's share."""
    with kind.posts.served(site.folder, True) as served:

        async def work() -> Sample:
            receiver = kind.receiver(site.folder)
            idle_s = site.count(_IDLE_S)
            check([], await receiver.receive(_SETTLE_S))  # what a first wait makes stays for the next
            server_s = cpu_seconds(served.pid) if served.pid else 0
            used_s, started = time.process_time(), time.monotonic()
            check([], await receiver.receive(idle_s))
            used_s, elapsed_s = time.process_time() - used_s, time.monotonic() - started
            sample = {"percent": used_s / elapsed_s * 100}
            if served.pid:
                sample["server_percent"] = (cpu_seconds(served.pid) - server_s) / elapsed_s * 100
            await receiver.close()
            return sample

        return asyncio.run(work())


_CHAPTER = "Waiting"
KINDS = {OURS: _OURS, REDIS: _REDIS, NATS: _NATS}
_PEERS = {
    REDIS: "XADD with appendfsync always, XREAD BLOCK",
    NATS: "JetStream with sync_interval always, an ordered consumer that is pushed to",
}
ROWS = (
    Row(
        name="wake",
        title="wake of a reader in the same process",
        chapter=_CHAPTER,
        figures=_LATENCY,
        contenders={OURS: measure_one_process},
    ),
    Row(
        name="wake-processes",
        title="wake of a reader in another process",
        chapter=_CHAPTER,
        figures=_LATENCY,
        contenders={name: partial(measure_two_processes, kind) for name, kind in KINDS.items()},
        peers=_PEERS,
    ),
    Row(
        name="idle",
        title="a process that waits",
        chapter=_CHAPTER,
        figures=(Figure("percent", "% of a core"), Figure("server_percent", "% of a core", "its server")),
        contenders={name: partial(measure_idle, kind) for name, kind in KINDS.items()},
        peers=_PEERS,
    ),
)

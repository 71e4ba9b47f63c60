"""Rows about posting: one caller, eight in one process, eight processes; durable and not.

Contenders are `Poster`s. All post the same payloads; each tells by an id or a number what it stored, and that is read
back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson

from mq_server import Mailroom
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, payload
from tools.bench.floor import PlainFile, line_of
from tools.bench.measuring import FLOOR, NATS, OURS, REDIS, SQLITE, Figure, Measure, Row, Sample, Site, check
from tools.bench.nats_peer import NatsPoster, served_nats
from tools.bench.redis_peer import RedisPoster, served_redis
from tools.bench.servers import Served
from tools.bench.sqlite_peer import SqlitePoster, served_sqlite

CALLERS = 8
_WARM_UP_POSTS = 20
_RATE = Figure("per_s", "msgs/s", more_is_better=True)
SQLITE_NORMAL = "sqlite NORMAL"
_DURABLE_PEERS = {
    REDIS: "Redis Streams over a Unix socket, appendfsync always; concurrent callers share a pipeline",
    NATS: "NATS JetStream on the loopback, a stream on files for each mailbox, sync_interval always",
    SQLITE: "SQLite, WAL, synchronous FULL, no further index; concurrent callers share a transaction",
}
_FAST_PEERS = {
    REDIS: "Redis Streams over a Unix socket, appendfsync no; concurrent callers share a pipeline",
    NATS: "NATS JetStream on the loopback, a stream on files for each mailbox, synced every two minutes",
    SQLITE: "SQLite, WAL, synchronous OFF, no further index; concurrent callers share a transaction",
    SQLITE_NORMAL: "the same with synchronous NORMAL: synced at checkpoints",
}


class Poster(Protocol):
    """Something that stores messages in a folder."""

    async def post(self, channel: str, number: int) -> str:
        """Store the message of this number; what identifies it when it is read back."""

    async def close(self) -> None:
        """Let go of everything."""


class Kind(NamedTuple):
    """What a contender is made of: what serves a folder and reads back what is in it, and a poster for it; both are
    told whether a post must be durable.
    """

    served: Callable[[Path, bool], AbstractContextManager[Served]]
    poster: Callable[[Path, bool], Poster]


@contextmanager
def served_files(folder: Path, _: bool) -> Iterator[Served]:
    """A folder needs no server."""
    yield Served(lambda: ids_in(folder))


class MailroomPoster:
    """Posts through the public API; if it also `reads`, its index follows each post, as a server's does."""

    def __init__(self, folder: Path, durable: bool, *, reads: bool = False) -> None:
        settings = folder / f"mq.toml.{os.getpid()}"
        settings.write_text(f'durability = "{"disk" if durable else "os"}"\n')
        settings.replace(folder / "mq.toml")  # several processes come at once, and none may read half of it
        self._room = Mailroom(folder)
        self._unread = set(CHANNELS) if reads else set()

    async def post(self, channel: str, number: int) -> str:
        """Store the message of this number."""
        if channel in self._unread:
            self._unread.discard(channel)
            await self._room.read(channel, limit=1)
        posted = await self._room.post(channel, sender=SENDER, msg_type=MSG_TYPE, payload=payload(number))
        return posted.id

    async def close(self) -> None:
        """Finish what is queued."""
        await self._room.close()


class FloorPoster:
    """Appends to plain files. Each line is encoded beforehand but for a number."""

    def __init__(self, folder: Path, durable: bool, *, shared: bool = False) -> None:
        self._folder, self._durable, self._shared = folder, durable, shared
        self._files: dict[str, PlainFile] = {}

    async def post(self, channel: str, number: int) -> str:
        """Append the line of this number."""
        file = self._files.get(channel)
        if file is None:
            file = self._files[channel] = PlainFile(self._folder / f"{channel}.jsonl", durable=self._durable)
        line = line_of(number) + b"\n"
        if self._shared:
            await file.append_with_others(line)
        else:
            file.append(line)
        return str(number)

    async def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


MAILROOM = Kind(served_files, MailroomPoster)
READING_MAILROOM = Kind(served_files, partial(MailroomPoster, reads=True))
_PLAIN, _PLAIN_SHARED = Kind(served_files, FloorPoster), Kind(served_files, partial(FloorPoster, shared=True))
REDIS_POSTS = Kind(served_redis, RedisPoster)
_REDIS_SHARED = Kind(served_redis, partial(RedisPoster, shared=True))
NATS_POSTS = Kind(served_nats, NatsPoster)
SQLITE_POSTS = Kind(served_sqlite, SqlitePoster)
_SQLITE_SHARED = Kind(served_sqlite, partial(SqlitePoster, shared=True))
_SQLITE_NORMAL = Kind(served_sqlite, partial(SqlitePoster, not_durable="NORMAL"))


def measure_callers(kind: Kind, callers: int, posts: int, durable: bool, site: Site) -> Sample:
    """Posts per second of some callers in one process, all to one mailbox."""
    each = site.count(posts) // callers
    with kind.served(site.folder, durable) as served:
        ids, elapsed_s = asyncio.run(_callers(kind.poster(site.folder, durable), callers, each))
        check(ids, served.ids())
    return {"per_s": callers * each / elapsed_s}


async def _callers(poster: Poster, callers: int, each: int) -> tuple[list[str], float]:
    channel = CHANNELS[0]
    ids = [await poster.post(channel, -number - 1) for number in range(_WARM_UP_POSTS)]

    async def call(caller: int) -> list[str]:
        return [await poster.post(channel, caller * each + number) for number in range(each)]

    started = time.perf_counter()
    posted = await asyncio.gather(*map(call, range(callers)))
    elapsed_s = time.perf_counter() - started
    await poster.close()
    return [*ids, *chain.from_iterable(posted)], elapsed_s


def measure_processes(kind: Kind, posts: int, durable: bool, site: Site) -> Sample:
    """Posts per second of eight processes, each to eight mailboxes in turn."""
    spawn = get_context("spawn")
    ready = spawn.Barrier(CALLERS)
    answers: Queue[tuple[float, float, list[str]]] = spawn.Queue()
    each = site.count(posts) // CALLERS
    with kind.served(site.folder, durable) as served:
        processes = [
            spawn.Process(target=_process, args=(kind, number, each, durable, site.folder, ready, answers))
            for number in range(CALLERS)
        ]
        for process in processes:
            process.start()
        found = [answers.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        check([name for _, _, ids in found for name in ids], served.ids())
    elapsed_s = max(stopped for _, stopped, _ in found) - min(started for started, _, _ in found)
    return {"per_s": CALLERS * each / elapsed_s}


def _process(
    kind: Kind,
    own_number: int,
    each: int,
    durable: bool,
    folder: Path,
    ready: Barrier,
    answers: Queue[tuple[float, float, list[str]]],
) -> None:
    async def work() -> None:
        poster = kind.poster(folder, durable)
        first = own_number * (each + _WARM_UP_POSTS)
        ids = [await poster.post(CHANNELS[own_number], first + number) for number in range(_WARM_UP_POSTS)]
        ready.wait()
        # The monotonic clock is the machine's, so the processes' times can be compared.
        started = time.monotonic()
        for number in range(each):
            channel = CHANNELS[(own_number + number) % len(CHANNELS)]
            ids.append(await poster.post(channel, first + _WARM_UP_POSTS + number))
        answers.put((started, time.monotonic(), ids))
        await poster.close()

    asyncio.run(work())


def ids_in(folder: Path) -> list[str]:
    """The `id` of every line in a folder's mailboxes."""
    return [
        orjson.loads(line)["id"] for path in folder.glob("*.jsonl") for line in path.read_bytes().split(b"\n") if line
    ]


def _contenders(
    measure: Callable[..., Sample], kinds: Mapping[str, Kind], *arguments: int, durable: bool
) -> dict[str, Measure]:
    return {name: partial(measure, kind, *arguments, durable) for name, kind in kinds.items()}


def _rows(durable: bool, posts: tuple[int, int, int]) -> tuple[Row, ...]:
    kind, name = ("durable", "durable") if durable else ("not durable", "fast")
    chapter = "Posting, on disk when it returns" if durable else "Posting, left to the system to write"
    one, many, processes = posts
    synced = ", then fdatasync" if durable else ""
    each = {OURS: MAILROOM, FLOOR: _PLAIN, REDIS: REDIS_POSTS, NATS: NATS_POSTS, SQLITE: SQLITE_POSTS}
    shared = {OURS: MAILROOM, FLOOR: _PLAIN_SHARED, REDIS: _REDIS_SHARED, NATS: NATS_POSTS, SQLITE: _SQLITE_SHARED}
    normal = {} if durable else {SQLITE_NORMAL: _SQLITE_NORMAL}
    peers = _DURABLE_PEERS if durable else _FAST_PEERS
    return (
        Row(
            name=f"{name}-1",
            title=f"{kind} post, one caller",
            chapter=chapter,
            figures=(_RATE,),
            contenders=_contenders(measure_callers, each | normal, 1, one, durable=durable),
            floor=f"lock, append, unlock{synced}",
            peers=peers,
        ),
        Row(
            name=f"{name}-8",
            title=f"{kind}, {CALLERS} concurrent callers in one process",
            chapter=chapter,
            figures=(_RATE,),
            contenders=_contenders(measure_callers, shared, CALLERS, many, durable=durable),
            floor=f"the same, one append{' and one sync' if durable else ''} for all callers",
            peers=peers,
        ),
        Row(
            name=f"{name}-8-indexed",
            title=f"{kind}, {CALLERS} concurrent callers, into a mailbox that the process has indexed",
            chapter=chapter,
            figures=(_RATE,),
            contenders=_contenders(measure_callers, {OURS: READING_MAILROOM}, CALLERS, many, durable=durable),
        ),
        Row(
            name=f"{name}-processes",
            title=f"{kind}, {CALLERS} processes over {CALLERS} mailboxes",
            chapter=chapter,
            figures=(_RATE,),
            contenders=_contenders(measure_processes, each, processes, durable=durable),
            floor=f"lock, append, unlock{synced}",
            peers=peers,
        ),
    )


ROWS = _rows(True, (2_000, 8_000, 8_000)) + _rows(False, (6_000, 16_000, 16_000))

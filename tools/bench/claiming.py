"""Rows about shared work: claim messages of a full mailbox, then acknowledge them; one by one, in batches, and by four
processes that share one reader.

Contenders are `Kind`s: a mailbox that is filled beforehand, and consumers that work it off. An acknowledgement is on
disk when it returns. Each message must have been handled once, and none may be left or held in the end.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson
import portalocker

from mq_server import Mailroom
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, lines, payload
from tools.bench.floor import PlainFile
from tools.bench.measuring import FLOOR, OURS, REDIS, Figure, Row, Sample, Site, WrongResult, check
from tools.bench.posting import ids_in
from tools.bench.streams import StreamConsumer, filled_stream

CONSUMERS = 4
_CHANNEL = CHANNELS[3]
_BATCH = 50
_LEASE_S = 60.0
_WARM_UP_ROUNDS = 5
_RATE = Figure("per_s", "msgs/s", more_is_better=True)


class Consumer(Protocol):
    """One of those that share a reader."""

    async def take(self, count: int) -> list[str]:
        """Claim so many messages, or as many as are left; their ids."""

    async def ack(self) -> None:
        """Acknowledge what was taken; durable on return."""

    async def close(self) -> None:
        """Let go of everything."""


class Backlog(Protocol):
    """A mailbox that was filled."""

    ids: list[str]

    def check_settled(self) -> None:
        """Make sure that everything is acknowledged.

        Raises:
            WrongResult: It is not so.
        """


class Kind(NamedTuple):
    """What a contender is made of: a folder and a number of messages make a backlog, a folder and a name a consumer."""

    filled: Callable[[Path, int], AbstractContextManager[Backlog]]
    consumer: Callable[[Path, str], Consumer]


class MailroomConsumer:
    """Claims and settles through the public API."""

    def __init__(self, folder: Path, name: str) -> None:
        self._room, self._name = Mailroom(folder), name
        self._held: list[str] = []

    async def take(self, count: int) -> list[str]:
        """Claim with a lease, as a worker does that waits for work."""
        page = await self._room.wait(_CHANNEL, consumer=self._name, lease_s=_LEASE_S, limit=count, timeout_s=0)
        self._held = [lease.name for lease in page.leases]
        return [message.id for message in page.messages]

    async def ack(self) -> None:
        """Settle by the leases."""
        settled = await self._room.settle(_CHANNEL, consumer=self._name, ack=self._held)
        settled.require_all()

    async def close(self) -> None:
        """Finish what is queued."""
        await self._room.close()


class MailroomBacklog:
    """A production with one full mailbox."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        (folder / "mq.toml").write_text('durability = "disk"\n')
        asyncio.run(self._fill(count))
        self.ids = ids_in(folder)

    async def _fill(self, count: int) -> None:
        async with Mailroom(self._folder) as room:
            bodies = map(payload, range(count))
            await asyncio.gather(
                *(room.post(_CHANNEL, sender=SENDER, msg_type=MSG_TYPE, payload=body) for body in bodies)
            )

    def check_settled(self) -> None:
        """Read the receipts, and the mailbox as another process sees it."""
        check(self.ids, _receipted(self._folder / "receipts" / f"{_CHANNEL}.jsonl"))
        left = asyncio.run(self._left())
        if left:
            raise WrongResult(f"{left} messages are unread after all")

    async def _left(self) -> int:
        async with Mailroom(self._folder) as room:
            page = await room.read(_CHANNEL)
            return len(page.messages) + page.remaining


@contextmanager
def filled_mailroom(folder: Path, count: int) -> Iterator[MailroomBacklog]:
    """Our mailbox."""
    yield MailroomBacklog(folder, count)


class FloorConsumer:
    """Claims under a lock, by one byte a message in a file whose size is the number of the next message; reads the
    lines at their places; acknowledges by a line that is appended and synced.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._start = b'{"consumer":"%s","ids":' % name.encode()
        self._mailbox = _mailbox(folder).open("rb")
        self._length = len(self._mailbox.readline())
        self._count = os.fstat(self._mailbox.fileno()).st_size // self._length
        self._claims = (folder / "claims").open("ab", buffering=0)
        self._receipts = PlainFile(_receipts(folder), durable=True)
        self._held: list[str] = []

    async def take(self, count: int) -> list[str]:
        """Claim so many messages, or as many as are left; their ids."""
        portalocker.lock(self._claims, portalocker.LockFlags.EXCLUSIVE)
        first = os.fstat(self._claims.fileno()).st_size
        end = min(first + count, self._count)
        self._claims.write(b"." * (end - first))
        portalocker.unlock(self._claims)
        self._mailbox.seek(first * self._length)
        found = self._mailbox.read((end - first) * self._length).splitlines()
        self._held = [orjson.loads(line)["id"] for line in found]
        return self._held

    async def ack(self) -> None:
        """Append the receipt."""
        self._receipts.append(self._start + orjson.dumps(self._held) + b"}\n")

    async def close(self) -> None:
        """Close the files."""
        self._receipts.close()
        self._claims.close()
        self._mailbox.close()


class FloorBacklog:
    """A file of lines."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self.ids: list[str] = []
        with _mailbox(folder).open("wb") as file:
            for message_id, line in lines(count):
                self.ids.append(message_id)
                file.write(line)

    def check_settled(self) -> None:
        """Read the receipts."""
        check(self.ids, _receipted(_receipts(self._folder)))


@contextmanager
def filled_file(folder: Path, count: int) -> Iterator[FloorBacklog]:
    """The floor's mailbox."""
    yield FloorBacklog(folder, count)


def _mailbox(folder: Path) -> Path:
    return folder / "mailbox.jsonl"


def _receipts(folder: Path) -> Path:
    return folder / "receipts.jsonl"


def _receipted(path: Path) -> list[str]:
    """All ids in the receipts of a file."""
    return list(chain.from_iterable(orjson.loads(line)["ids"] for line in path.read_bytes().splitlines()))


def measure_one(kind: Kind, messages: int, batch: int, site: Site) -> Sample:
    """Messages per second that one consumer handles, so many a round."""

    async def work() -> tuple[list[str], float]:
        consumer = kind.consumer(site.folder, "consumer")
        handled = await _work_off(consumer, batch, _WARM_UP_ROUNDS)
        started = time.perf_counter()
        handled += await _work_off(consumer, batch)
        elapsed_s = time.perf_counter() - started
        await consumer.close()
        return handled, elapsed_s

    count = site.count(messages)
    with kind.filled(site.folder, count + _WARM_UP_ROUNDS * batch) as backlog:
        handled, elapsed_s = asyncio.run(work())
        check(backlog.ids, handled)
        backlog.check_settled()
    return {"per_s": count / elapsed_s}


def measure_processes(kind: Kind, messages: int, site: Site) -> Sample:
    """Messages per second of four processes that share a reader, one message a round."""
    spawn = get_context("spawn")
    ready = spawn.Barrier(CONSUMERS)
    answers: Queue[tuple[float, float, list[str]]] = spawn.Queue()
    count = site.count(messages)
    with kind.filled(site.folder, count + _WARM_UP_ROUNDS * CONSUMERS) as backlog:
        processes = [
            spawn.Process(target=_process, args=(kind, f"consumer_{number}", site.folder, ready, answers))
            for number in range(CONSUMERS)
        ]
        for process in processes:
            process.start()
        found = [answers.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        check(backlog.ids, list(chain.from_iterable(handled for _, _, handled in found)))
        backlog.check_settled()
    return {"per_s": count / (max(stopped for _, stopped, _ in found) - min(started for started, _, _ in found))}


def _process(
    kind: Kind, name: str, folder: Path, ready: Barrier, answers: Queue[tuple[float, float, list[str]]]
) -> None:
    async def work() -> None:
        consumer = kind.consumer(folder, name)
        handled = await _work_off(consumer, 1, _WARM_UP_ROUNDS)
        ready.wait()
        # The monotonic clock is the machine's, so the processes' times can be compared.
        started = time.monotonic()
        handled += await _work_off(consumer, 1)
        answers.put((started, time.monotonic(), handled))
        await consumer.close()

    asyncio.run(work())


async def _work_off(consumer: Consumer, batch: int, rounds: int | None = None) -> list[str]:
    """Claim and acknowledge for so many rounds, or until nothing is left to claim; the ids of what was handled."""
    handled: list[str] = []
    while rounds is None or rounds > 0:
        taken = await consumer.take(batch)
        if not taken:
            break
        await consumer.ack()
        handled += taken
        rounds = None if rounds is None else rounds - 1
    return handled


_OURS = Kind(filled_mailroom, MailroomConsumer)
_FLOOR = Kind(filled_file, FloorConsumer)
_REDIS = Kind(filled_stream, StreamConsumer)
_FLOOR_DOES = "claim by a byte under a lock, read the line, append a receipt under a lock, then fdatasync"
_PEERS = {REDIS: "Redis Streams, XREADGROUP and XACK over a Unix socket; appendfsync always, so both are synced"}


def _row(name: str, title: str, measure: Callable[..., Sample], *arguments: int) -> Row:
    kinds = {OURS: _OURS, FLOOR: _FLOOR, REDIS: _REDIS}
    return Row(
        name=name,
        title=title,
        chapter="Sharing work",
        figures=(_RATE,),
        contenders={contender: partial(measure, kind, *arguments) for contender, kind in kinds.items()},
        floor=_FLOOR_DOES,
        peers=_PEERS,
    )


ROWS = (
    _row("claim-ack-1", "claim and durable ack, one consumer", measure_one, 1_000, 1),
    _row("claim-ack-batch", f"claim and durable ack, one consumer, {_BATCH} at a time", measure_one, 10_000, _BATCH),
    _row("claim-ack-4", f"claim and durable ack, {CONSUMERS} processes share one reader", measure_processes, 1_000),
)

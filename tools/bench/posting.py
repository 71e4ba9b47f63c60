"""Rows about posting: one caller, eight in one process, eight processes; durable and not.

Contenders are `Poster`s. All post the same payloads; each tells by an id or a number what it stored, and that is read
back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Protocol

import orjson

from mq_server import Mailroom
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, payload
from tools.bench.floor import PlainFile
from tools.bench.measuring import FLOOR, OURS, Figure, Row, Sample, Site, check

CALLERS = 8
_WARM_UP_POSTS = 20
_FILLER_CHARACTERS = 121  # as long as what a message has beside its payload
_RATE = Figure("per_s", "msgs/s", more_is_better=True)


class Poster(Protocol):
    """Something that stores messages in a folder."""

    async def post(self, channel: str, number: int) -> str:
        """Store the message of this number; what identifies it when it is read back."""

    async def close(self) -> None:
        """Let go of everything."""


MakePoster = Callable[[Path, bool], Poster]


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
        body = orjson.dumps({"filler": "." * _FILLER_CHARACTERS, "payload": payload(0)})
        self._rest = b'",' + body[1:] + b"\n"

    async def post(self, channel: str, number: int) -> str:
        """Append the line of this number."""
        file = self._files.get(channel)
        if file is None:
            file = self._files[channel] = PlainFile(self._folder / f"{channel}.jsonl", durable=self._durable)
        line = b'{"id":"%d%s' % (number, self._rest)
        if self._shared:
            await file.append_with_others(line)
        else:
            file.append(line)
        return str(number)

    async def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


ReadingMailroomPoster = partial(MailroomPoster, reads=True)
SharingFloorPoster = partial(FloorPoster, shared=True)


def measure_callers(make: MakePoster, callers: int, posts: int, durable: bool, site: Site) -> Sample:
    """Posts per second of some callers in one process, all to one mailbox."""
    each = site.count(posts) // callers
    return asyncio.run(_callers(make, callers, each, durable, site.folder))


async def _callers(make: MakePoster, callers: int, each: int, durable: bool, folder: Path) -> Sample:
    poster = make(folder, durable)
    channel = CHANNELS[0]
    ids = [await poster.post(channel, -number - 1) for number in range(_WARM_UP_POSTS)]

    async def call(caller: int) -> list[str]:
        return [await poster.post(channel, caller * each + number) for number in range(each)]

    started = time.perf_counter()
    posted = await asyncio.gather(*map(call, range(callers)))
    elapsed_s = time.perf_counter() - started
    await poster.close()
    check([*ids, *chain.from_iterable(posted)], ids_in(folder))
    return {"per_s": callers * each / elapsed_s}


def measure_processes(make: MakePoster, posts: int, durable: bool, site: Site) -> Sample:
    """Posts per second of eight processes, each to eight mailboxes in turn."""
    spawn = get_context("spawn")
    ready = spawn.Barrier(CALLERS)
    answers: Queue[tuple[float, float, list[str]]] = spawn.Queue()
    each = site.count(posts) // CALLERS
    processes = [
        spawn.Process(target=_process, args=(make, number, each, durable, site.folder, ready, answers))
        for number in range(CALLERS)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    check([name for _, _, ids in found for name in ids], ids_in(site.folder))
    elapsed_s = max(stopped for _, stopped, _ in found) - min(started for started, _, _ in found)
    return {"per_s": CALLERS * each / elapsed_s}


def _process(
    make: MakePoster,
    own_number: int,
    each: int,
    durable: bool,
    folder: Path,
    ready: Barrier,
    answers: Queue[tuple[float, float, list[str]]],
) -> None:
    async def work() -> None:
        poster = make(folder, durable)
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


def _rows(durable: bool, posts: tuple[int, int, int]) -> tuple[Row, ...]:
    kind, name = ("durable", "durable") if durable else ("not durable", "fast")
    one, many, processes = posts
    synced = ", then fdatasync" if durable else ""
    return (
        Row(
            name=f"{name}-1",
            title=f"{kind} post, one caller",
            figures=(_RATE,),
            contenders={
                OURS: partial(measure_callers, MailroomPoster, 1, one, durable),
                FLOOR: partial(measure_callers, FloorPoster, 1, one, durable),
            },
            floor=f"lock, append, unlock{synced}",
        ),
        Row(
            name=f"{name}-8",
            title=f"{kind}, {CALLERS} concurrent callers in one process",
            figures=(_RATE,),
            contenders={
                OURS: partial(measure_callers, MailroomPoster, CALLERS, many, durable),
                FLOOR: partial(measure_callers, SharingFloorPoster, CALLERS, many, durable),
            },
            floor=f"the same, one append{' and one sync' if durable else ''} for all callers",
        ),
        Row(
            name=f"{name}-8-indexed",
            title=f"{kind}, {CALLERS} concurrent callers, into a mailbox that the process has indexed",
            figures=(_RATE,),
            contenders={OURS: partial(measure_callers, ReadingMailroomPoster, CALLERS, many, durable)},
        ),
        Row(
            name=f"{name}-processes",
            title=f"{kind}, {CALLERS} processes over {CALLERS} mailboxes",
            figures=(_RATE,),
            contenders={
                OURS: partial(measure_processes, MailroomPoster, processes, durable),
                FLOOR: partial(measure_processes, FloorPoster, processes, durable),
            },
            floor=f"lock, append, unlock{synced}",
        ),
    )


ROWS = _rows(True, (2_000, 8_000, 8_000)) + _rows(False, (6_000, 16_000, 16_000))

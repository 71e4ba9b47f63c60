"""Rows about the index: how long it takes to build, and what memory it takes."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import tracemalloc
from dataclasses import replace
from functools import partial

import orjson

from mq_server import Mailroom
from tools.bench import libraries
from tools.bench.corpus import Corpus
from tools.bench.libraries import NATS_LIBRARY, REDIS_LIBRARY, SQLITE_LIBRARY, measure_ready
from tools.bench.measuring import FLOOR, NATS, OURS, REDIS, SQLITE, Figure, Row, Sample, Site, WrongResult

_BUILD = (Figure("s", "s", "time"), Figure("per_s", "msgs/s", "rate", more_is_better=True))
_MEMORY = (Figure("held_b", "bytes", "held"), Figure("peak_b", "bytes", "at the peak"))


def measure_build(site: Site) -> Sample:
    """From a new Mailroom to its first answer that concerns all messages."""
    return _timed(site.known())


def measure_again(site: Site) -> Sample:
    """The same where an earlier process has kept what it knew."""
    known = site.known()
    root = site.folder / "production"
    (root / ".mq").mkdir(parents=True)
    for path in known.root.glob("*.jsonl"):
        os.link(path, root / path.name)
    corpus = replace(known, root=root)
    asyncio.run(_built(corpus))
    return _timed(corpus)


def _timed(corpus: Corpus) -> Sample:
    started = time.perf_counter()
    held = asyncio.run(_built(corpus))
    elapsed_s = time.perf_counter() - started
    if held != corpus.messages:
        raise WrongResult(f"{held} of {corpus.messages} messages are indexed")
    return {"s": elapsed_s, "per_s": corpus.messages / elapsed_s}


def measure_build_floor(site: Site) -> Sample:
    """Reading all files and decoding each line."""
    corpus = site.known()
    started = time.perf_counter()
    count = 0
    for path in corpus.root.glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            orjson.loads(line)
            count += 1
    elapsed_s = time.perf_counter() - started
    if count != corpus.messages:
        raise WrongResult(f"{count} of {corpus.messages} lines were read")
    return {"s": elapsed_s, "per_s": corpus.messages / elapsed_s}


def measure_memory(site: Site) -> Sample:
    """What Python has allocated for the index, per message."""
    corpus = site.known()
    asyncio.run(_warmed_up())
    tracemalloc.start()
    held_b, peak_b = asyncio.run(_memory(corpus))
    return {"held_b": held_b / corpus.messages, "peak_b": peak_b / corpus.messages}


async def _built(corpus: Corpus) -> int:
    async with Mailroom(corpus.root) as room:
        directory = await room.directory()
        return sum(channel.messages for channel in directory.channels)


async def _memory(corpus: Corpus) -> tuple[int, int]:
    async with Mailroom(corpus.root) as room:
        await room.directory()
        gc.collect()
        return tracemalloc.get_traced_memory()


async def _warmed_up() -> None:
    """Import and create what every event loop and Mailroom needs, so that only messages are counted."""
    async with Mailroom(os.devnull + "-no-such-folder") as room:
        await room.directory()


_CHAPTER = "A large production"
ROWS = (
    Row(
        name="index",
        title="ready after the first start",
        chapter=_CHAPTER,
        figures=_BUILD,
        contenders={
            OURS: measure_build,
            FLOOR: measure_build_floor,
            REDIS: partial(measure_ready, REDIS_LIBRARY),
            NATS: partial(measure_ready, NATS_LIBRARY),
            SQLITE: partial(measure_ready, SQLITE_LIBRARY),
        },
        floor="read the files, decode each line",
        peers={
            REDIS: "Redis, from its start, with an append-only file that was never rewritten",
            NATS: "NATS JetStream, from its start",
            SQLITE: "SQLite, from its opening",
        },
        reads_corpus=True,
    ),
    Row(
        name="index-again",
        title="ready after a further start",
        chapter=_CHAPTER,
        figures=_BUILD,
        contenders={OURS: measure_again, REDIS: partial(measure_ready, REDIS_LIBRARY)},
        peers={REDIS: "Redis, as at the first start"},
        reads_corpus=True,
    ),
    Row(
        name="index-memory",
        title="memory per message",
        chapter=_CHAPTER,
        figures=_MEMORY,
        contenders={
            OURS: measure_memory,
            REDIS: partial(libraries.measure_memory, REDIS_LIBRARY),
            NATS: partial(libraries.measure_memory, NATS_LIBRARY),
        },
        peers={
            REDIS: "Redis, its used memory without what it starts with; it holds the messages",
            NATS: "NATS JetStream, the resident memory of its process without an empty one's",
        },
        reads_corpus=True,
    ),
)

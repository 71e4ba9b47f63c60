"""Rows about looking things up in a large production, once its index stands."""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple

import orjson

from mq_server import Mailroom
from tools.bench.corpus import CHANNELS, RARE_WORD, THREAD_LENGTH, Corpus
from tools.bench.libraries import (
    ACTIVITY,
    HISTORY,
    NATS_LIBRARY,
    REDIS_LIBRARY,
    SEARCHABLE_SQLITE,
    SQLITE_LIBRARY,
    Question,
    activity,
    history,
    measure_question,
    search,
    thread,
)
from tools.bench.measuring import (
    FLOOR,
    NATS,
    OURS,
    REDIS,
    SQLITE,
    Figure,
    Measure,
    Row,
    Sample,
    Site,
    WrongResult,
    percentiles,
)

SQLITE_FTS5 = "sqlite FTS5"
_CHANNEL = CHANNELS[3]
_LATENCY = (Figure("p50_ms", "ms", "p50"), Figure("p95_ms", "ms", "p95"))


# --- queries ------------------------------------------------------------------------------------------------------

Ask = Callable[[Mailroom, int], Awaitable[bool]]
"""One call, given the number of the call; whether the answer is right."""


def measure_query(ask: Callable[[Corpus], Ask], calls: int, site: Site) -> Sample:
    """The latency of one query, the index being loaded."""
    return percentiles(asyncio.run(_query_seconds(ask(site.known()), site.known(), site.count(calls))))


async def _query_seconds(ask: Ask, corpus: Corpus, calls: int) -> list[float]:
    async with Mailroom(corpus.root) as room:
        await room.directory()
        seconds = []
        for number in range(-2, calls):
            started = time.perf_counter()
            right = await ask(room, number)
            if number >= 0:
                seconds.append(time.perf_counter() - started)
            if not right:
                raise WrongResult("a query gave a wrong answer")
        return seconds


def ask_history(corpus: Corpus) -> Ask:
    """The newest 50 of a channel."""
    stored = (corpus.root / f"{_CHANNEL}.jsonl").read_bytes().splitlines()
    count, newest = min(HISTORY, len(stored)), orjson.loads(stored[-1])["id"]

    async def ask(room: Mailroom, _: int) -> bool:
        messages = (await room.history(_CHANNEL, limit=HISTORY)).messages
        return len(messages) == count and messages[-1].id == newest

    return ask


def ask_unread(_: Corpus) -> Ask:
    """The first 50 unread of a channel."""

    async def ask(room: Mailroom, _: int) -> bool:
        return len((await room.read(_CHANNEL, limit=HISTORY)).messages) == HISTORY

    return ask


def ask_thread(corpus: Corpus) -> Ask:
    """A thread of 20 across channels, another one each time."""

    async def ask(room: Mailroom, number: int) -> bool:
        head = corpus.heads[number * 37 % len(corpus.heads)]
        messages = (await room.thread(head)).messages
        return len(messages) == THREAD_LENGTH and messages[0].id == head

    return ask


def ask_activity(_: Corpus) -> Ask:
    """The newest 100 across all channels."""

    async def ask(room: Mailroom, _: int) -> bool:
        times = [message.timestamp for message in (await room.activity(limit=ACTIVITY)).messages]
        return len(times) == ACTIVITY and times == sorted(times)

    return ask


def ask_search(corpus: Corpus) -> Ask:
    """A word that occurs in one message."""

    async def ask(room: Mailroom, _: int) -> bool:
        return [hit.message.id for hit in (await room.search(RARE_WORD)).hits] == [corpus.rare_id]

    return ask


# --- their floor --------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Where a line stands."""

    channel: str
    offset: int
    length: int


def measure_spans(choose: Callable[[Corpus, dict[str, Span]], Iterable[list[Span]]], calls: int, site: Site) -> Sample:
    """The latency of reading and decoding lines whose places are known."""
    corpus = site.known()
    wanted = list(islice(cycle(choose(corpus, _spans(corpus))), site.count(calls)))
    handles = {name: os.open(corpus.root / f"{name}.jsonl", os.O_RDONLY) for name in CHANNELS}
    seconds = []
    for spans in wanted:
        started = time.perf_counter()
        messages = []
        for channel, offset, length in spans:
            os.lseek(handles[channel], offset, os.SEEK_SET)
            messages.append(orjson.loads(os.read(handles[channel], length)))
        seconds.append(time.perf_counter() - started)
        if not all("id" in message for message in messages):
            raise WrongResult("a line was not read whole")
    return percentiles(seconds)


def newest_of_channel(_: Corpus, spans: dict[str, Span]) -> list[list[Span]]:
    """The last 50 lines of a file."""
    return [[span for span in spans.values() if span.channel == _CHANNEL][-HISTORY:]]


def newest_of_all(_: Corpus, spans: dict[str, Span]) -> list[list[Span]]:
    """The newest 100 lines of all files."""
    return [[spans[message_id] for message_id in sorted(spans)[-ACTIVITY:]]]


def threads(corpus: Corpus, spans: dict[str, Span]) -> list[list[Span]]:
    """Lines of some threads: twenty that stand as far apart."""
    ids = sorted(spans)
    apart = len(ids) // len(corpus.heads) // 2
    starts = [number * 37 * THREAD_LENGTH % (len(ids) - apart * THREAD_LENGTH) for number in range(50)]
    return [[spans[message_id] for message_id in ids[at : at + apart * THREAD_LENGTH : apart]] for at in starts]


def measure_find(calls: int, site: Site) -> Sample:
    """The latency of looking for a word's bytes in all files."""
    corpus = site.known()
    seconds = []
    for _ in range(site.count(calls)):
        started = time.perf_counter()
        found = 0
        for path in corpus.root.glob("*.jsonl"):
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found += data.find(RARE_WORD.encode()) >= 0
        seconds.append(time.perf_counter() - started)
        if found != 1:
            raise WrongResult(f"the word was found in {found} files")
    return percentiles(seconds)


def _spans(corpus: Corpus) -> dict[str, Span]:
    """Each message's place by its id."""
    spans = {}
    for channel in CHANNELS:
        offset = 0
        for line in (corpus.root / f"{channel}.jsonl").read_bytes().splitlines(keepends=True):
            spans[orjson.loads(line)["id"]] = Span(channel, offset, len(line))
            offset += len(line)
    return spans


_PEERS = {
    REDIS: "Redis, a stream for each channel, a list of places for each thread; over a Unix socket",
    NATS: "NATS JetStream, one stream, a subject for each channel and thread; batches of direct gets over the loopback",
    SQLITE: "SQLite, indexes on channel and thread, none on text",
    SQLITE_FTS5: "the same with an index on text, which each post would have to keep up",
}
_KINDS = {REDIS: REDIS_LIBRARY, NATS: NATS_LIBRARY, SQLITE: SQLITE_LIBRARY, SQLITE_FTS5: SEARCHABLE_SQLITE}


def _row(
    name: str,
    title: str,
    ours: Callable[[Corpus], Ask],
    floor: Measure | None,
    does: str,
    question: Callable[[Corpus], Question] | None,
    calls: int,
    peers: Sequence[str] = (REDIS, NATS, SQLITE),
) -> Row:
    asked = {peer: partial(measure_question, _KINDS[peer], question, calls) for peer in peers} if question else {}
    return Row(
        name=name,
        title=title,
        chapter="Looking up",
        figures=_LATENCY,
        contenders={OURS: partial(measure_query, ours, calls)} | ({FLOOR: floor} if floor else {}) | asked,
        floor=does,
        peers={peer: _PEERS[peer] for peer in asked},
        reads_corpus=True,
    )


_PLACES = "read and decode lines at known places"
ROWS = (
    _row(
        "history",
        f"newest {HISTORY} of a channel",
        ask_history,
        partial(measure_spans, newest_of_channel, 500),
        _PLACES,
        history,
        500,
    ),
    _row("unread", f"first {HISTORY} unread of a channel", ask_unread, None, "", None, 200),
    _row(
        "thread",
        f"thread of {THREAD_LENGTH} across channels",
        ask_thread,
        partial(measure_spans, threads, 500),
        _PLACES,
        thread,
        500,
    ),
    _row(
        "activity",
        f"newest {ACTIVITY} across all channels",
        ask_activity,
        partial(measure_spans, newest_of_all, 500),
        _PLACES,
        activity,
        500,
    ),
    _row(
        "search",
        "search for a rare word",
        ask_search,
        partial(measure_find, 10),
        "look for its bytes in the files",
        search,
        10,
        (SQLITE, SQLITE_FTS5),
    ),
)

"""The rows about a large production, for peers that hold the same messages: how soon each is ready, what memory it
takes, how quickly it answers.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from tools.bench.corpus import CHANNELS, RARE_WORD, THREAD_LENGTH, Corpus
from tools.bench.measuring import Sample, Site, WrongResult, percentiles
from tools.bench.nats_peer import NatsLibrary, filled_nats, nats_library
from tools.bench.redis_peer import RedisLibrary, filled_redis, redis_library
from tools.bench.sqlite_peer import (
    filled_searchable_sqlite,
    filled_sqlite,
    searchable_sqlite_library,
    sqlite_library,
)

HISTORY, ACTIVITY = 50, 100
_CHANNEL = CHANNELS[3]
_WARM_UP_CALLS = 2
_LINE_BYTES = 1_000  # more than a line has
Answer = list[dict[str, Any]]


class Library(Protocol):
    """A production that can be asked; answers are decoded messages, oldest first."""

    async def count(self) -> int:
        """How many messages there are."""

    async def history(self, channel: str, limit: int) -> Answer:
        """The newest of a channel."""

    async def thread(self, head: str) -> Answer:
        """The thread that a message heads."""

    async def activity(self, limit: int) -> Answer:
        """The newest of all channels."""


class Kind(NamedTuple):
    """What a peer is made of: a corpus makes a filled folder, and the folder opens as a library."""

    filled: Callable[[Corpus], Path]
    opened: Callable[[Path], AbstractAsyncContextManager[Library]]


REDIS_LIBRARY: Kind = Kind(filled_redis, redis_library)
NATS_LIBRARY: Kind = Kind(filled_nats, nats_library)
SQLITE_LIBRARY: Kind = Kind(filled_sqlite, sqlite_library)
SEARCHABLE_SQLITE: Kind = Kind(filled_searchable_sqlite, searchable_sqlite_library)


class Question(NamedTuple):
    """What is asked: a call, given its number, and whether the answer is right."""

    ask: Callable[[Any, int], Any]
    right: Callable[[Answer, int], bool]


def history(corpus: Corpus) -> Question:
    """The newest 50 of a channel."""
    ids = _newest(corpus, _CHANNEL, HISTORY)
    return Question(lambda library, _: library.history(_CHANNEL, HISTORY), lambda answer, _: _ids(answer) == ids)


def thread(corpus: Corpus) -> Question:
    """A thread of 20 across channels, another one each time."""

    def head(number: int) -> str:
        return corpus.heads[number * 37 % len(corpus.heads)]

    def right(answer: Answer, number: int) -> bool:
        return len(set(_ids(answer))) == THREAD_LENGTH and answer[0]["id"] == head(number)

    return Question(lambda library, number: library.thread(head(number)), right)


def activity(corpus: Corpus) -> Question:
    """The newest 100 across all channels."""
    ids = sorted(name for channel in CHANNELS for name in _newest(corpus, channel, ACTIVITY))[-ACTIVITY:]
    return Question(lambda library, _: library.activity(ACTIVITY), lambda answer, _: _ids(answer) == ids)


def search(corpus: Corpus) -> Question:
    """A word that occurs in one message."""
    return Question(lambda library, _: library.search(RARE_WORD), lambda answer, _: _ids(answer) == [corpus.rare_id])


def measure_question(kind: Kind, question: Callable[[Corpus], Question], calls: int, site: Site) -> Sample:
    """The latency of one question."""
    asked, folder = question(site.known()), kind.filled(site.known())

    async def work() -> list[float]:
        seconds = []
        async with kind.opened(folder) as library:
            for number in range(-_WARM_UP_CALLS, site.count(calls)):
                started = time.perf_counter()
                answer = await asked.ask(library, number)
                seconds.append(time.perf_counter() - started)
                if not asked.right(answer, number):
                    raise WrongResult("a query gave a wrong answer")
        return seconds[_WARM_UP_CALLS:]

    return percentiles(asyncio.run(work()))


def measure_ready(kind: Kind, site: Site) -> Sample:
    """From the start of the server to the count of all messages."""
    corpus = site.known()
    folder = kind.filled(corpus)

    async def work() -> Sample:
        started = time.perf_counter()
        async with kind.opened(folder) as library:
            _check_count(await library.count(), corpus)
            elapsed_s = time.perf_counter() - started
        return {"s": elapsed_s}

    return asyncio.run(work())


def measure_memory(kind: Kind, site: Site) -> Sample:
    """What a server that has answered some questions has in use, per message."""
    corpus = site.known()
    folder = kind.filled(corpus)

    async def work() -> Sample:
        async with kind.opened(folder) as library:
            if not isinstance(library, RedisLibrary | NatsLibrary):
                raise WrongResult("it does not tell what it has in use")
            _check_count(await library.count(), corpus)
            for channel in CHANNELS:
                await library.history(channel, HISTORY)
            return {"held_b": library.bytes_used() / corpus.messages}

    return asyncio.run(work())


def _newest(corpus: Corpus, channel: str, count: int) -> list[str]:
    """The ids of a channel's newest messages, by its file."""
    with (corpus.root / f"{channel}.jsonl").open("rb") as file:
        file.seek(-min(count * _LINE_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return [orjson.loads(line)["id"] for line in file.read().splitlines()[-count:]]


def _check_count(found: int, corpus: Corpus) -> None:
    if found != corpus.messages:
        raise WrongResult(f"{found} of {corpus.messages} messages are there")


def _ids(answer: Answer) -> list[str]:
    return [message["id"] for message in answer]

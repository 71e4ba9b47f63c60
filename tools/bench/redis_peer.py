"""Redis: a stream for each mailbox. For lookups a thread is a list of the places of its messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from heapq import nlargest
from pathlib import Path
from typing import Any

import orjson

from tools.bench.corpus import CHANNELS, Corpus
from tools.bench.floor import Round, line_of
from tools.bench.servers import Served, redis_client, redis_server

_ALWAYS, _NEVER = "always", "no"
_AT_ONCE = 2_000
_CHANNEL = CHANNELS[3]


@contextmanager
def served_redis(folder: Path, durable: bool) -> Iterator[Served]:
    """An empty Redis."""
    with redis_server(folder, _ALWAYS if durable else _NEVER) as pid:
        yield Served(lambda: _ids(folder), pid)


def _ids(folder: Path) -> list[str]:
    client = redis_client(folder)
    found = [fields[b"line"] for key in client.keys("*") for _, fields in client.xrange(key)]
    client.close()
    return [orjson.loads(line)["id"] for line in found]


class RedisPoster:
    """Adds lines to streams; with `shared`, the callers of one round in one pipeline."""

    def __init__(self, folder: Path, _: bool, *, shared: bool = False) -> None:
        self._client = redis_client(folder)
        self._round = Round(self._add_all) if shared else None

    async def post(self, channel: str, number: int) -> str:
        """Add the line of this number."""
        line = line_of(number)
        if self._round:
            await self._round.add((channel, line))
        else:
            self._client.xadd(channel, {"line": line})
        return str(number)

    def _add_all(self, waiting: list[tuple[str, bytes]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for channel, line in waiting:
            pipeline.xadd(channel, {"line": line})
        pipeline.execute()

    async def close(self) -> None:
        """Disconnect."""
        self._client.close()


class RedisReceiver:
    """Waits with XREAD BLOCK."""

    def __init__(self, folder: Path) -> None:
        self._client = redis_client(folder)
        self._last: Any = "0"

    async def receive(self, timeout_s: float) -> list[str]:
        """The ids of what came; none when the time is over."""
        answer = self._client.xread({_CHANNEL: self._last}, block=int(timeout_s * 1000))
        entries = answer[0][1] if answer else []
        if entries:
            self._last = entries[-1][0]
        return [orjson.loads(fields[b"line"])["id"] for _, fields in entries]

    async def close(self) -> None:
        """Disconnect."""
        self._client.close()


class RedisLibrary:
    """A production in Redis. The id of an entry is its message's time, so that streams can be merged unread."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def count(self) -> int:
        """How many messages there are."""
        return sum(self._client.xlen(channel) for channel in CHANNELS)

    def bytes_used(self) -> int:
        """The memory of all messages."""
        memory = self._client.info("memory")
        return int(memory["used_memory"] - memory["used_memory_startup"])

    async def history(self, channel: str, limit: int) -> list[dict[str, Any]]:
        """The newest of a channel, oldest first."""
        return _decoded(reversed(self._client.xrevrange(channel, count=limit)))

    async def thread(self, head: str) -> list[dict[str, Any]]:
        """A thread: its places, then what stands there."""
        pipeline = self._client.pipeline(transaction=False)
        for place in self._client.lrange(f"thread:{head}", 0, -1):
            channel, _, entry_id = place.partition(b" ")
            pipeline.xrange(channel, entry_id, entry_id)
        return _decoded(entry for found in pipeline.execute() for entry in found)

    async def activity(self, limit: int) -> list[dict[str, Any]]:
        """The newest of all channels, oldest first: as many of each, merged."""
        pipeline = self._client.pipeline(transaction=False)
        for channel in CHANNELS:
            pipeline.xrevrange(channel, count=limit)
        entries = [entry for found in pipeline.execute() for entry in found]
        return _decoded(reversed(nlargest(limit, entries, key=lambda entry: int(entry[0].partition(b"-")[0]))))


def filled_redis(corpus: Corpus) -> Path:
    """The folder of a Redis that has the corpus."""
    return corpus.kept_for("redis", _fill)


@asynccontextmanager
async def redis_library(folder: Path) -> AsyncIterator[RedisLibrary]:
    """A Redis that has just started on a filled folder."""
    with redis_server(folder, _NEVER):
        client = redis_client(folder)
        yield RedisLibrary(client)
        client.close()


def _fill(corpus: Corpus, folder: Path) -> None:
    with redis_server(folder, _NEVER):
        client = redis_client(folder)
        for some in corpus.in_batches(_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for message in some:
                pipeline.xadd(message.channel, {"line": message.line}, id=f"{message.time_ms}-0")
                pipeline.rpush(f"thread:{message.head}", f"{message.channel} {message.time_ms}-0")
            pipeline.execute()
        client.close()


def _decoded(entries: Any) -> list[dict[str, Any]]:
    return [orjson.loads(fields[b"line"]) for _, fields in entries]

"""NATS JetStream: a stream on files for each mailbox, since streams are synced side by side. For lookups there is one
stream, whose subjects are `mail.CHANNEL.THREAD`.

Ranges are read by batches of direct gets, the quickest way to them: no consumer has to be made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tools.bench.corpus import CHANNELS, Corpus
from tools.bench.floor import line_of
from tools.bench.measuring import WrongResult
from tools.bench.servers import Served, client_errors, nats_client, nats_server, resident_bytes

_STREAM = "MAIL"
_CHANNEL = CHANNELS[3]
_BATCH = 500
_TIMEOUT_S = 30.0
_END, _NONE = "204", "404"


@contextmanager
def served_nats(folder: Path, durable: bool) -> Iterator[Served]:
    """A server with an empty stream for each channel."""
    with nats_server(folder, durable=durable) as pid:
        asyncio.run(_make_streams(folder, {channel: f"mail.{channel}" for channel in CHANNELS}))
        yield Served(lambda: asyncio.run(_ids(folder)), pid)


async def _make_streams(folder: Path, subjects: Mapping[str, str]) -> None:
    client = await nats_client(folder)
    for name, subject in subjects.items():
        await client.jetstream().add_stream(name=name, subjects=[subject], allow_direct=True)
    await client.close()


async def _ids(folder: Path) -> list[str]:
    client = await nats_client(folder)
    found: list[str] = []
    for channel in CHANNELS:
        reader = await _Reader.made(client, channel)
        at = 1
        while answer := await reader.get({"seq": at, "batch": _BATCH}):
            found += [orjson.loads(entry.line)["id"] for entry in answer]
            at = answer[-1].sequence + 1
    await client.close()
    return found


class NatsPoster:
    """Publishes lines, each acknowledged by the stream."""

    def __init__(self, folder: Path, _: bool) -> None:
        self._folder = folder
        self._client: Any = None
        self._stream: Any = None

    async def post(self, channel: str, number: int) -> str:
        """Publish the line of this number."""
        if self._client is None:
            self._client = await nats_client(self._folder)
            self._stream = self._client.jetstream()
        await self._stream.publish(f"mail.{channel}", line_of(number), timeout=_TIMEOUT_S)
        return str(number)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()


class NatsReceiver:
    """Waits for what an ordered consumer pushes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._client: Any = None
        self._subscription: Any = None

    async def receive(self, timeout_s: float) -> list[str]:
        """The id of what came; none when the time is over."""
        if self._client is None:
            self._client = await nats_client(self._folder)
            stream = self._client.jetstream()
            self._subscription = await stream.subscribe(f"mail.{_CHANNEL}", ordered_consumer=True)
        try:
            message = await self._subscription.next_msg(timeout=timeout_s)
        except client_errors("nats.errors", "TimeoutError"):
            return []
        return [orjson.loads(message.data)["id"]]

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()


class _Entry(NamedTuple):
    """A stored message."""

    sequence: int
    line: bytes


class _Reader:
    """Direct gets from one stream over one inbox."""

    def __init__(self, client: Any, stream: str, inbox: str) -> None:
        self._client, self._inbox = client, inbox
        self._subject = f"$JS.API.DIRECT.GET.{stream}"
        self._entries: list[_Entry] = []
        self._done: asyncio.Future[None] | None = None

    @classmethod
    async def made(cls, client: Any, stream: str) -> _Reader:
        """Subscribe."""
        reader = cls(client, stream, client.new_inbox())
        await client.subscribe(reader._inbox, cb=reader._take)
        return reader

    async def get(self, request: dict[str, Any]) -> list[_Entry]:
        """What a request names, in the stream's order."""
        self._entries, self._done = [], asyncio.get_running_loop().create_future()
        await self._client.publish(self._subject, orjson.dumps(request), reply=self._inbox)
        await asyncio.wait_for(self._done, _TIMEOUT_S)
        return self._entries

    async def last(self) -> int:
        """The number of the newest message."""
        request = orjson.dumps({"last_by_subj": ">"})
        newest = await self._client.request(self._subject, request, timeout=_TIMEOUT_S)
        return int(newest.headers["Nats-Sequence"])

    async def _take(self, message: Any) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None:
            self._entries.append(_Entry(int(headers["Nats-Sequence"]), message.data))
        elif self._done and not self._done.done():
            if status in (_END, _NONE):
                self._done.set_result(None)
            else:
                self._done.set_exception(WrongResult(f"NATS answered {dict(headers)}"))


class NatsLibrary:
    """A production in a stream."""

    def __init__(self, client: Any, reader: _Reader, pid: int, empty_bytes: int) -> None:
        self._stream, self._reader = client.jetstream(), reader
        self._pid, self._empty_bytes = pid, empty_bytes

    async def count(self) -> int:
        """How many messages there are."""
        return int((await self._stream.stream_info(_STREAM)).state.messages)

    def bytes_used(self) -> int:
        """What the server takes more than an empty one."""
        return resident_bytes(self._pid) - self._empty_bytes

    async def history(self, channel: str, limit: int) -> list[dict[str, Any]]:
        """The newest of a channel, oldest first: from half as far back again as they begin if all post alike."""
        last, span = await self._reader.last(), limit * len(CHANNELS) * 3 // 2
        while True:
            start = max(1, last - span)
            found = await self._reader.get({"seq": start, "batch": _BATCH, "next_by_subj": f"mail.{channel}.>"})
            if len(found) >= limit or start == 1:
                return _decoded(found[-limit:])
            span *= 2

    async def thread(self, head: str) -> list[dict[str, Any]]:
        """A thread, by its subject."""
        return _decoded(await self._reader.get({"seq": 1, "batch": _BATCH, "next_by_subj": f"mail.*.{head}"}))

    async def activity(self, limit: int) -> list[dict[str, Any]]:
        """The newest of all channels, oldest first: the end of the stream."""
        return _decoded(await self._reader.get({"seq": await self._reader.last() - limit + 1, "batch": limit}))


def filled_nats(corpus: Corpus) -> Path:
    """The folder of a server that has the corpus."""
    return corpus.kept_for("nats", _fill)


@asynccontextmanager
async def nats_library(folder: Path) -> AsyncIterator[NatsLibrary]:
    """A server that has just started on a filled folder."""
    with nats_server(folder, durable=False) as pid:
        client = await nats_client(folder)
        yield NatsLibrary(client, await _Reader.made(client, _STREAM), pid, int(_empty_bytes(folder).read_text()))
        await client.close()


def _fill(corpus: Corpus, folder: Path) -> None:
    with nats_server(folder, durable=False) as pid:
        asyncio.run(_make_streams(folder, {_STREAM: "mail.>"}))
        _empty_bytes(folder).write_text(str(resident_bytes(pid)))
        asyncio.run(_publish(corpus, folder))


def _empty_bytes(folder: Path) -> Path:
    return folder / "empty-bytes"


async def _publish(corpus: Corpus, folder: Path) -> None:
    client = await nats_client(folder)
    stream = client.jetstream()
    publish = partial(stream.publish, timeout=_TIMEOUT_S)
    for some in corpus.in_batches(_BATCH):
        await asyncio.gather(*(publish(f"mail.{message.channel}.{message.head}", message.line) for message in some))
    await client.close()


def _decoded(entries: list[_Entry]) -> list[dict[str, Any]]:
    return [orjson.loads(entry.line) for entry in entries]

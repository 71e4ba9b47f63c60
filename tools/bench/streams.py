"""Redis Streams, for the rows about claiming: XREADGROUP claims, XACK acknowledges, and the append-only file is synced
before either is answered. The server is started in the sample's folder and ended with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from tools.bench.corpus import lines
from tools.bench.measuring import WrongResult
from tools.bench.servers import redis_client, redis_server

_STREAM = "mailbox"
_GROUP = "reader"


class StreamConsumer:
    """A consumer of the group, with a connection of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._client, self._name = redis_client(folder), name
        self._held: list[bytes] = []

    async def take(self, count: int) -> list[str]:
        """Claim so many messages, or as many as are left; their ids."""
        answer = self._client.xreadgroup(_GROUP, self._name, {_STREAM: ">"}, count=count)
        entries = [entry for _, found in answer for entry in found]
        self._held = [entry_id for entry_id, _ in entries]
        return [orjson.loads(fields[b"line"])["id"] for _, fields in entries]

    async def ack(self) -> None:
        """Acknowledge what was taken; durable on return."""
        if self._client.xack(_STREAM, _GROUP, *self._held) != len(self._held):
            raise WrongResult("XACK does not know what XREADGROUP gave")

    async def close(self) -> None:
        """Disconnect."""
        self._client.close()


class Stream:
    """A stream with one consumer group, filled."""

    def __init__(self, client: Any, count: int) -> None:
        self._client = client
        self.ids: list[str] = []
        pipeline = client.pipeline(transaction=False)
        for message_id, line in lines(count):
            self.ids.append(message_id)
            pipeline.xadd(_STREAM, {"line": line})
        pipeline.execute()
        client.xgroup_create(_STREAM, _GROUP, id="0")

    def check_settled(self) -> None:
        """Make sure that nothing is pending and everything was delivered.

        Raises:
            WrongResult: It is not so.
        """
        group = self._client.xinfo_groups(_STREAM)[0]
        if group["pending"] or group["lag"]:
            raise WrongResult(f"{group['pending']} messages are pending, {group['lag']} were not delivered")


@contextmanager
def filled_stream(folder: Path, count: int) -> Iterator[Stream]:
    """A server with that many messages of the usual length.

    Raises:
        LeftOut: There is no redis-server here, or no client for it.
    """
    with redis_server(folder, "always"):
        client = redis_client(folder)
        yield Stream(client, count)
        client.close()

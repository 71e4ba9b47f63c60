"""The floor: the least that plain files need for the same promise, without ids, checks, stamps or answers.

A line is appended under the same kind of lock that the mailroom takes, and synced after the lock is released. Callers
that come together share one write and one sync.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import orjson
import portalocker

from tools.bench.corpus import payload

_FLAGS = portalocker.LockFlags.EXCLUSIVE
_FILLER_CHARACTERS = 121  # as long as what a message has beside its payload
_REST = b'",' + orjson.dumps({"filler": "." * _FILLER_CHARACTERS, "payload": payload(0)})[1:]
_sync = getattr(os, "fdatasync", os.fsync)
_Item = TypeVar("_Item")


def line_of(number: int) -> bytes:
    """A line of the usual length without its newline, encoded beforehand but for the number that is its id."""
    return b'{"id":"%d%s' % (number, _REST)


class Round(Generic[_Item]):
    """Stores together what callers bring in the same round of the event loop.

    Args:
        store: Stores some items at once; durable on return if that was asked for.
    """

    def __init__(self, store: Callable[[list[_Item]], None]) -> None:
        self._store = store
        self._waiting: list[tuple[_Item, asyncio.Future[None]]] = []

    async def add(self, item: _Item) -> None:
        """Return once the item is stored."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._store_waiting)
        self._waiting.append((item, done))
        await done

    def _store_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._store([item for item, _ in waiting])
        for _, done in waiting:
            done.set_result(None)


class PlainFile:
    """A file of lines and its lock, both held open.

    Args:
        path: The file.
        durable: Whether lines are synced.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self._durable = durable
        self._lock: BinaryIO = path.with_suffix(".lock").open("ab")
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._round = Round(self._append_all)

    def append(self, lines: bytes) -> None:
        """Append whole lines; durable on return if that was asked for."""
        portalocker.lock(self._lock, _FLAGS)
        os.write(self._handle, lines)
        portalocker.unlock(self._lock)
        if self._durable:
            _sync(self._handle)

    async def append_with_others(self, line: bytes) -> None:
        """The same, in one go with all callers that come in the same round of the event loop."""
        await self._round.add(line)

    def _append_all(self, lines: list[bytes]) -> None:
        self.append(b"".join(lines))

    def close(self) -> None:
        """Close both handles."""
        os.close(self._handle)
        self._lock.close()

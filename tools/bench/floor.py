"""The floor: the least that plain files need for the same promise, without ids, checks, stamps or answers.

A line is appended under the same kind of lock that the mailroom takes, and synced after the lock is released. Callers
that come together share one write and one sync.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import BinaryIO

import portalocker

_FLAGS = portalocker.LockFlags.EXCLUSIVE
_sync = getattr(os, "fdatasync", os.fsync)


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
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []

    def append(self, lines: bytes) -> None:
        """Append whole lines; durable on return if that was asked for."""
        portalocker.lock(self._lock, _FLAGS)
        os.write(self._handle, lines)
        portalocker.unlock(self._lock)
        if self._durable:
            _sync(self._handle)

    async def append_with_others(self, line: bytes) -> None:
        """The same, in one go with all callers that come in the same round of the event loop."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._append_waiting)
        self._waiting.append((line, done))
        await done

    def _append_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.append(b"".join([line for line, _ in waiting]))
        for _, done in waiting:
            done.set_result(None)

    def close(self) -> None:
        """Close both handles."""
        os.close(self._handle)
        self._lock.close()

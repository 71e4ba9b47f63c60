"""Locks between processes: an empty sidecar file per mailbox that is only ever locked, never read or written.

Locking the mailbox itself would shut readers, editors and git out on Windows, where locks are mandatory. A blocking
lock has no time-out; short attempts with a jittered pause are fair (8 processes: 2,247 to 2,322 posts each) and bounded
on every system. The system is called without a library between: `portalocker`, which does the same, takes as long to
import as the rest of a post does, more if redis is installed.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mq_server.errors import LockTimeout, MailError, WriteFailed

_PAUSE_S = (0.0001, 0.002)
_MAKE_ATTEMPTS = 20


class FileLock:
    """An exclusive lock between threads and processes. Not reentrant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()
        self._tasks = asyncio.Lock()
        self._handle: BinaryIO | None = None
        self._owner_pid = 0
        self._keeps = True

    @contextmanager
    def held(self, timeout_s: float, *, make: bool = True) -> Iterator[None]:
        """Hold the lock.

        Args:
            timeout_s: How long to try, in seconds.
            make: Whether to make the lock file if it is missing, and to keep its handle for the next time. Who only
                reads does neither.

        Raises:
            LockTimeout: Somebody else held it all that time.
            WriteFailed: There is no lock file, and none can be made.
        """
        deadline = time.monotonic() + timeout_s
        if not self._threads.acquire(timeout=max(0.0, timeout_s)):
            raise LockTimeout(self.path, timeout_s)
        try:
            handle = self._acquire(deadline, timeout_s, make)
            try:
                yield
            finally:
                _unlock(handle.fileno())
        finally:
            if not (make and self._keeps):
                self._drop()
            self._threads.release()

    @asynccontextmanager
    async def held_by_task(self, timeout_s: float) -> AsyncIterator[None]:
        """Hold the lock in a task, which lets others run while it waits; one that waits takes up no thread.

        Args:
            timeout_s: How long to try, in seconds.

        Raises:
            LockTimeout: Somebody else held it all that time.
            WriteFailed: There is no lock file, and none can be made.
        """
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._tasks.acquire()
        except TimeoutError:
            raise LockTimeout(self.path, timeout_s) from None
        try:
            with ExitStack() as held:
                while True:
                    try:
                        held.enter_context(self.held(0.0))
                        break
                    except LockTimeout:
                        if time.monotonic() >= deadline:
                            raise LockTimeout(self.path, timeout_s) from None
                    await asyncio.sleep(random.uniform(*_PAUSE_S))
                yield
        finally:
            self._tasks.release()

    def close(self) -> None:
        """Give the kept handle back; while somebody holds the lock, maybe a task of this thread, once that ends."""
        self._keeps = False
        if self._threads.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._threads.release()

    def _acquire(self, deadline: float, timeout_s: float, make: bool) -> BinaryIO:
        while True:
            handle = self._open(make)
            try:
                _lock(handle.fileno())
            except (BlockingIOError, PermissionError):  # EAGAIN, or EACCES: somebody else has it
                if time.monotonic() >= deadline:
                    raise LockTimeout(self.path, timeout_s) from None
                time.sleep(random.uniform(*_PAUSE_S))
                continue
            except OSError as error:
                text = f"{self.path}: this file system cannot lock files ({error.strerror}); use a local disk"
                raise MailError(text) from error
            if self._is_current(handle):
                return handle
            # The lock file was deleted and made anew: whoever holds the new one does not see ours.
            self._drop()

    def _open(self, make: bool) -> BinaryIO:
        # A forked child shares its parent's lock through an inherited handle, so it must open its own.
        if self._handle is not None and self._owner_pid != os.getpid():
            self._drop()
        if self._handle is None:
            self._handle = self._opened(make)
            self._owner_pid = os.getpid()
        return self._handle

    def _opened(self, make: bool) -> BinaryIO:
        try:
            if not make:
                return self.path.open("r+b")
            for _ in range(_MAKE_ATTEMPTS):
                # Somebody who deletes the folder right now may come between any two steps.
                with suppress(FileNotFoundError, FileExistsError):
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    return self.path.open("ab")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self.path.open("ab")
        except OSError as error:
            raise WriteFailed(self.path, error) from error

    def _is_current(self, handle: BinaryIO) -> bool:
        try:
            return os.fstat(handle.fileno()).st_ino == self.path.stat().st_ino
        except FileNotFoundError:
            return False

    def _drop(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


if sys.platform == "win32":
    import msvcrt

    _BYTES = 0x10000
    """What is locked, from the beginning on; the file need not have them."""

    def _lock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, _BYTES)

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, _BYTES)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)

"""Locks between processes: an empty sidecar file per mailbox that is only ever locked, never read or written.

Locking the mailbox itself would shut readers, editors and git out on Windows, where locks are mandatory. A blocking
lock has no time-out, and `portalocker.Lock` polls every 250 ms and starves under load; short attempts with a jittered
pause are fair (8 processes: 2,247 to 2,322 posts each) and bounded on every system. A lock is mostly held for a tenth
of a millisecond, so at first the pauses are as short; event loops, whose pauses last a millisecond or more whatever is
asked for, don't run meanwhile. POSIX systems lock by flock itself:
what portalocker, which does it on Windows, puts around that call takes ten times as long as the call.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path

from mq_server.errors import LockTimeout, MailError, WriteFailed

_FIRST_S = 0.001
_FIRST_PAUSE_S = (0.00002, 0.00005)
_PAUSE_S = (0.0001, 0.002)
_MAKE_ATTEMPTS = 20
_pid = os.getpid()
"""Of this process; known, since the system is asked for little else as often as for locks."""


def _forked() -> None:
    global _pid
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

if sys.platform == "win32":
    import portalocker

    _FLAGS = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING

    def try_lock(handle: int) -> bool:
        """Try to lock an open file; False if somebody else has locked it."""
        try:
            portalocker.lock(handle, _FLAGS)
        except portalocker.AlreadyLocked:
            return False
        except portalocker.LockException as error:
            raise OSError(str(error)) from error
        return True

    _unlock = portalocker.unlock

else:
    import fcntl

    _NOW = fcntl.LOCK_EX | fcntl.LOCK_NB

    def try_lock(handle: int) -> bool:
        """Try to lock an open file; False if somebody else has locked it."""
        try:
            fcntl.flock(handle, _NOW)
        except (BlockingIOError, PermissionError):  # the latter where a file system makes it a lock of fcntl's
            return False
        return True

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)


class FileLock:
    """An exclusive lock between threads and processes. Not reentrant.

    Args:
        path: The file; made by the first who takes the lock.
        before_made: Called before that.
    """

    def __init__(self, path: Path, before_made: Callable[[], None] | None = None) -> None:
        self.path = path
        self._name = os.fspath(path)
        self._before_made = before_made
        self._threads = threading.Lock()
        self._tasks = asyncio.Lock()
        self._askers = 0
        """How many tasks hold the lock or wait for it."""
        self._handle: int | None = None
        self._inode = 0
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
        self.acquire(timeout_s, make=make)
        try:
            yield
        finally:
            self.release(keep=make)

    def acquire(self, timeout_s: float, *, make: bool = True) -> None:
        """Take the lock, as `held` does; whoever does so releases it."""
        # At once first: with a time-out it takes three times as long.
        if not self._threads.acquire(blocking=False) and not self._threads.acquire(timeout=max(0.0, timeout_s)):
            raise LockTimeout(self.path, timeout_s)
        try:
            self._acquire(time.monotonic() + timeout_s, timeout_s, make)
        except BaseException as error:
            # A handle that could not be locked may stay for the next try; one that may be locked must not.
            if not (make and self._keeps and isinstance(error, LockTimeout)):
                self._drop()
            self._threads.release()
            raise

    def release(self, *, keep: bool = True) -> None:
        """Give the lock back.

        Args:
            keep: Whether to keep the handle for the next time.
        """
        if self._handle is not None:
            _unlock(self._handle)
        if not (keep and self._keeps):
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
        await self.acquire_by_task(timeout_s)
        try:
            yield
        finally:
            self.release_by_task()

    async def acquire_by_task(self, timeout_s: float, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        """Take the lock, as `held_by_task` does; whoever does so releases it.

        Args:
            timeout_s: How long to try, in seconds.
            meanwhile: What can be done, once, while somebody else holds it.
        """
        deadline = time.monotonic() + timeout_s
        self._askers += 1
        try:
            # A time limit is set only where somebody is before us: it costs more than the lock.
            async with asyncio.timeout(timeout_s) if self._askers > 1 else nullcontext():
                await self._tasks.acquire()
        except BaseException as error:
            self._askers -= 1
            if isinstance(error, TimeoutError):
                raise LockTimeout(self.path, timeout_s) from None
            raise
        try:
            at_once_s = 0.0 if meanwhile else _FIRST_S
            while True:
                try:
                    self.acquire(min(timeout_s, at_once_s))
                    return
                except LockTimeout:
                    if time.monotonic() >= deadline:
                        raise LockTimeout(self.path, timeout_s) from None
                if meanwhile is not None:
                    await meanwhile()
                    meanwhile, at_once_s = None, _FIRST_S
                else:
                    await asyncio.sleep(random.uniform(*_PAUSE_S))
                    at_once_s = 0.0
        except BaseException:
            self._next_asker()
            raise

    def release_by_task(self) -> None:
        """Give the lock back."""
        self.release()
        self._next_asker()

    def _next_asker(self) -> None:
        self._askers -= 1
        self._tasks.release()

    def close(self) -> None:
        """Give the kept handle back; while somebody holds the lock, maybe a task of this thread, once that ends."""
        self._keeps = False
        if self._threads.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._threads.release()

    def _acquire(self, deadline: float, timeout_s: float, make: bool) -> None:
        while True:
            # A forked child shares its parent's lock through an inherited handle, so it must open its own.
            handle = self._handle
            if handle is None or self._owner_pid != _pid:
                handle = self._open(make)
            try:
                locked = try_lock(handle)
            except OSError as error:
                text = f"{self.path}: this file system cannot lock files ({error}); use a local disk"
                raise MailError(text) from error
            if not locked:
                now = time.monotonic()
                if now >= deadline:
                    raise LockTimeout(self.path, timeout_s)
                waited_s = now - (deadline - timeout_s)
                time.sleep(random.uniform(*(_FIRST_PAUSE_S if waited_s < _FIRST_S else _PAUSE_S)))
            elif self._is_current():
                return
            else:  # the lock file was deleted and made anew: whoever holds the new one does not see ours
                self._drop()

    def _open(self, make: bool) -> int:
        self._drop()
        handle = self._handle = self._opened(make)
        self._inode = os.fstat(handle).st_ino
        self._owner_pid = _pid
        return handle

    def _opened(self, make: bool) -> int:
        try:
            if not make:
                return os.open(self.path, os.O_RDWR)
            for _ in range(_MAKE_ATTEMPTS):
                # Somebody who deletes the folder right now may come between any two steps.
                with suppress(FileNotFoundError, FileExistsError):
                    return self._made()
            return self._made()
        except OSError as error:
            raise WriteFailed(self.path, error) from error

    def _made(self) -> int:
        if self._before_made is not None:
            self._before_made()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)

    def _is_current(self) -> bool:
        try:
            return os.stat(self._name).st_ino == self._inode  # noqa: PTH116 - every post comes here
        except FileNotFoundError:
            return False

    def _drop(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

"""Who waits right now, across processes: a locked file for each process and channel, `.mq/waiting/<channel>/<process>`.

The system lets go of a lock when its process ends, however it ends, so a file that can be locked is one that a dead
process left behind, or one that waits no more just now. Whoever finds it removes it, and its process makes it again.
Otherwise it stays from one wait to the next: a lock is a matter of microseconds, a file is not.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mq_server.errors import MailError
from mq_server.listing import Listing
from mq_server.locks import FileLock, try_lock

_BRIEFLY_S = 0.05
"""Somebody who counts may just be trying whether the file is locked."""
_OPEN = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)


class Presence:
    """The readers of this process that wait, shown to other processes; and theirs.

    Args:
        folder: Where the files are.
        process: The name of this process, as no other has it.
        can_be_made: Whether there is a place for that folder.
    """

    def __init__(self, folder: Path, process: str, can_be_made: Callable[[], bool]) -> None:
        self._folder = folder
        self._process = process
        self._can_be_made = can_be_made
        self._here: Counter[str] = Counter()
        self._locks: dict[str, FileLock] = {}
        self._shown: set[str] = set()
        self._folders: dict[str, Listing] = {}

    @contextmanager
    def waiting_for(self, channels: Iterable[str]) -> Iterator[None]:
        """Let other processes see that a reader of these channels waits."""
        names = frozenset(channels)
        for name in names:
            self._here[name] += 1
            if self._here[name] == 1:
                self._show(name)
        try:
            yield
        finally:
            for name in names:
                self._here[name] -= 1
                if not self._here[name]:
                    self._hide(name)

    def count(self, channel: str) -> int:
        """How many readers wait for messages of a channel: those of this process, and one for each other process."""
        here = self._here.get(channel, 0)
        listing = self._folders.get(channel)
        if listing is None:
            listing = self._folders[channel] = Listing(self._folder / channel)
        try:
            names = listing.names()
        except OSError:  # we may not look, which is no reason not to post
            return here
        for name in names:
            if name != self._process and _is_locked(os.path.join(self._folder, channel, name)):  # noqa: PTH118
                here += 1
        return here

    def channels(self) -> set[str]:
        """The channels that readers wait for."""
        folders = []
        with suppress(OSError):
            folders = [folder.name for folder in self._folder.iterdir()]
        return {name for name in folders if self.count(name)} | set(+self._here)

    def close(self) -> None:
        """Be seen no more, and leave nothing behind."""
        for lock in self._locks.values():
            lock.close()
            _removed(str(lock.path))

    def _show(self, channel: str) -> None:
        # Being seen is a courtesy: a folder that cannot be written to is no reason not to wait.
        with suppress(MailError):
            if self._can_be_made():
                if channel not in self._locks:
                    self._locks[channel] = FileLock(self._folder / channel / self._process)
                self._locks[channel].acquire(_BRIEFLY_S)
                self._shown.add(channel)

    def _hide(self, channel: str) -> None:
        if channel in self._shown:
            self._shown.discard(channel)
            self._locks[channel].release()


def _is_locked(path: str) -> bool:
    """Whether somebody holds a file locked; if not, it is removed."""
    is_current = removed = False
    while not is_current:
        try:
            handle = os.open(path, _OPEN)
        except OSError:
            return False  # gone meanwhile, or none of ours
        try:
            if not try_lock(handle):
                return True
            is_current = os.fstat(handle).st_ino == os.stat(path).st_ino  # noqa: PTH116 - every post comes here
            removed = is_current and _removed(path)  # under the lock, lest it be a file that was locked since
        except OSError:
            return False  # gone meanwhile, or a file system without locks
        finally:
            os.close(handle)
    if not removed:
        _removed(path)
    return False


def _removed(path: str) -> bool:
    """Remove a file; whether it is gone. Windows removes none that is open, be it by us."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError:
        return False
    return True

"""Who waits right now, across processes: a locked file for each process and channel, `.mq/waiting/<channel>/<process>`.

The system lets go of a lock when its process ends, however it ends, so a file that can be locked is one that a dead
process left behind, and is removed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mq_server.errors import LockTimeout, MailError
from mq_server.locks import FileLock

_BRIEFLY_S = 0.05
"""Somebody who counts may just be trying whether the file is locked."""
_DOUBT_NS = 50_000_000
"""A folder that changed so shortly before it was listed may have changed again without showing it."""


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
        self._shown: dict[str, ExitStack] = {}
        self._listed: dict[str, tuple[int, list[Path]]] = {}

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
        return self._here[channel] + sum(1 for path in self._others(channel) if _is_locked(path))

    def channels(self) -> set[str]:
        """The channels that readers wait for."""
        folders = []
        with suppress(OSError):
            folders = [folder.name for folder in self._folder.iterdir()]
        return {name for name in folders if self.count(name)} | set(+self._here)

    def _others(self, channel: str) -> list[Path]:
        """The files of other processes, listed anew when the folder has changed since."""
        folder = f"{self._folder}{os.sep}{channel}"
        try:
            changed_ns = os.stat(folder).st_mtime_ns  # noqa: PTH116 - every post comes here
            known = self._listed.get(channel)
            if known is not None and known[0] == changed_ns:
                return known[1]
            now_ns = time.time_ns()
            with os.scandir(folder) as entries:
                others = [Path(entry.path) for entry in entries if entry.name != self._process]
        except OSError:  # nobody has waited there yet; or we may not look, which is no reason not to post
            return []
        if now_ns - changed_ns > _DOUBT_NS:
            self._listed[channel] = changed_ns, others
        return others

    def _show(self, channel: str) -> None:
        shown = self._shown[channel] = ExitStack()
        # Being seen is a courtesy: a folder that cannot be written to is no reason not to wait.
        with suppress(MailError):
            if self._can_be_made():
                lock = FileLock(self._folder / channel / self._process)
                shown.callback(lock.close)
                shown.enter_context(lock.held(_BRIEFLY_S))

    def _hide(self, channel: str) -> None:
        path = self._folder / channel / self._process
        # Under the lock: a file of that name that is made afterwards is another one, which who counts must not remove.
        removed = _removed(path)
        self._shown.pop(channel).close()
        if not removed:
            _removed(path)


def _removed(path: Path) -> bool:
    """Remove a file; whether it is gone. Windows removes none that is open, be it by us."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    """Whether its process lives; if not, the file is removed."""
    lock = FileLock(path)
    removed = True
    try:
        with lock.held(0.0, make=False):
            removed = _removed(path)  # under the lock, lest it be a file that was locked since
    except LockTimeout:
        return True
    except MailError:
        return False  # gone meanwhile
    finally:
        lock.close()
    if not removed:
        _removed(path)
    return False

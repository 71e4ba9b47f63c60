"""A consistent cut through a live production: every mailbox and receipts file as it was at one moment.

While the locks of all files are held nobody of ours is between two mailboxes, so their sizes belong together. Only
those are noted; the files are read when posting goes on again, up to there. A file that only we have appended to since
still begins with what it held at the moment of the cut; one that somebody else touched is told by its stamp, and the
cut is made anew. A last line without its end is left out: whoever writes it is not done, or never will be.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mq_server.blocks import opened, patiently, read_at
from mq_server.errors import Problem, Unsteady
from mq_server.git.comparison import log_name
from mq_server.git.ranges import log_paths
from mq_server.logfile import QUIET_S, Change, LogFile, Look, View
from mq_server.stamp import Fingerprint
from mq_server.store import SUFFIX, Store

_ATTEMPTS = 40
_PAUSE_S = 0.05


class Cut(NamedTuple):
    """What the files held: whole lines, by the files' names relative to the production.

    `torn` tells of last lines that were left out, `paused_s` how long posting had to wait, at most.
    """

    contents: dict[str, bytes]
    torn: tuple[Problem, ...]
    paused_s: float


class _Seen(NamedTuple):
    """A file at the moment of the cut: how it looked, and what a reader knows of it then if its stamp fits."""

    path: Path
    fingerprint: Fingerprint
    log: LogFile | None = None
    view: View | None = None


def cut(store: Store, timeout_s: float) -> Cut:
    """Cut through a production.

    Args:
        store: Its files.
        timeout_s: How long to wait for the locks.

    Raises:
        LockTimeout: Somebody held one for so long.
        Unsteady: The files were replaced again and again meanwhile.
    """
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            _stamp(store)
            begun = time.monotonic()
            with store.held_still(timeout_s) as names:
                seen = _look(store, names)
            paused_s = time.monotonic() - begun
            contents = {name: _content(file) for name, file in seen.items()}
            # Git takes a file away before it puts a new one in its place: that must not pass for a deletion.
            same_files = [file.path for file in seen.values()] == log_paths(store.root)
            if same_files and all(map(_only_grew, seen.values())):
                whole = {name: data[: data.rfind(b"\n") + 1] for name, data in contents.items()}
                torn = [
                    Problem(name, data.count(b"\n") + 1, "left out: the last line has no end")
                    for name, data in contents.items()
                    if len(data) > len(whole[name])
                ]
                return Cut(whole, tuple(torn), paused_s)
        time.sleep(_PAUSE_S)
    raise Unsteady(store.root)


def _stamp(store: Store) -> None:
    """Read what somebody else has touched before anybody has to wait for it."""
    for path in log_paths(store.root):
        log = _log(store, path)
        if log is not None and log.glance(View()) is Look.UNCLEAR:
            log.examine(View())


def _look(store: Store, names: list[str]) -> dict[str, _Seen]:
    """How all files look now. The locks are held, so this is quick."""
    seen: dict[str, _Seen] = {}
    logs = {store.log(name).path: store.log(name) for name in names}
    for path in log_paths(store.root):
        fingerprint = Fingerprint.at(path)
        if fingerprint is not None:
            log = logs.get(path)
            look = log.glance(View()) if log else None
            view = look.view if isinstance(look, Change) else None
            seen[path.relative_to(store.root).as_posix()] = _Seen(path, fingerprint, log, view)
    return seen


def _content(file: _Seen) -> bytes:
    """What a file held at the cut, read from the file as it is now.

    Raises:
        FileNotFoundError: It is not there any more, or another one.
    """

    def read() -> bytes:
        with opened(file.path) as handle:
            if os.fstat(handle).st_ino != file.fingerprint.inode:
                raise FileNotFoundError(file.path)
            return read_at(handle, 0, file.fingerprint.size)

    return patiently(read)


def _only_grew(file: _Seen) -> bool:
    """Whether nothing but appends of ours has happened to a file since the cut."""
    if file.log is None or file.view is None:
        quiet = time.time_ns() - file.fingerprint.mtime_ns > QUIET_S * 1e9
        return quiet and Fingerprint.at(file.path) == file.fingerprint
    look = file.log.glance(file.view)
    if look is Look.UNCLEAR:
        look = file.log.examine(file.view)
    return look is Look.SAME or (isinstance(look, Change) and not look.replaced)


def _log(store: Store, path: Path) -> LogFile | None:
    """The log of a path; None for an archived part, which nobody appends to."""
    name = path.relative_to(store.root).as_posix()
    found = log_name(name)
    if found is None or name.count("/") > 1:
        return None
    return store.log(name.removesuffix(SUFFIX))

"""One file of JSON lines as it is read: what has changed in it since it was last read, its lines, bytes at a place.

What the changes are told by, and why that is sure, is stated in `appendlog`, which writes the file.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Callable, Iterator
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from mq_server.blocks import BOM, READ, Block, count_line_feeds, opened, read_at, read_blocks, read_line
from mq_server.errors import MailError
from mq_server.locks import FileLock
from mq_server.message import Unreadable, parse_fields
from mq_server.names import parse_time
from mq_server.stamp import Fingerprint, Stamp, StampFile, looks_like, new_generation

UNSTAMPED = -1
QUIET_S = 0.05
_TAIL_BYTES = 1024 * 1024
_GAP_BYTES = 4096  # to read over less than that takes less time than to read twice
_READER_LOCK_S = 0.05  # answers wait for it; without the lock a reader re-reads more than it must


class View(NamedTuple):
    """How much of the file a reader knows; by default nothing, not even whether there is one.

    `settled` is false while the file was changed by somebody else so recently that a further change might not show in
    its fingerprint; its `checksum` is then compared as well.
    """

    fingerprint: Fingerprint | None = None
    generation: int = UNSTAMPED
    line_feeds: int = 0
    settled: bool = False
    seen_at: float = 0.0
    checksum: int = 0


ABSENT = View(settled=True)


class Own(NamedTuple):
    """What this process appended last: how it left the file, where that starts, the bytes; `plain` as with `append`."""

    fingerprint: Fingerprint
    start: int
    data: bytes
    plain: bool


class Look(Enum):
    """What a glance at the file showed when it was no change that can be read at once."""

    SAME = auto()
    UNCLEAR = auto()
    """Somebody else touched it, or one of our writers is between its write and its stamp."""


class Change(NamedTuple):
    """What a reader must take in to know the file: new lines at the end, or everything anew (`replaced`)."""

    log: LogFile
    view: View
    replaced: bool
    start: int
    first_line: int

    @property
    def size_bytes(self) -> int:
        """How much there is to read."""
        return (self.view.fingerprint.size if self.view.fingerprint else 0) - self.start

    def blocks(self) -> Iterator[Block]:
        """The lines to take in.

        Raises:
            FileNotFoundError: The file was replaced or removed since; look for changes again.
        """
        return self.log.blocks(self) if self.size_bytes else iter(())


class Tail(NamedTuple):
    """The end of the file as a writer under the lock finds it.

    `handle` is of the file that looked so, if it is open already; `append` takes it over, or whoever appends nothing
    closes it.
    """

    fingerprint: Fingerprint | None
    generation: int
    line_feeds: int
    newest_us: int
    torn: bool = False
    handle: int | None = None

    def close(self) -> None:
        """Close the handle."""
        if self.handle is not None:
            os.close(self.handle)

    @property
    def size(self) -> int:
        """How long the file is, in bytes; 0 if there is none."""
        return 0 if self.fingerprint is None else self.fingerprint.size


class LogFile:
    """One JSONL file with its lock and stamp, for reading.

    Args:
        path: The file.
        lock_path: Its lock file.
        stamp_path: Its stamp file.
        begin: Called by whoever writes before the lock file is opened, that is before the first write, and before the
            first after somebody took the folder of locks away.
    """

    def __init__(self, path: Path, lock_path: Path, stamp_path: Path, begin: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._name = os.fspath(path)
        self.lock = FileLock(lock_path, self._begin)
        self._stamp = StampFile(stamp_path)
        self._begin_writing = begin
        self.own: Own | None = None

    @property
    def was_written(self) -> bool:
        """Whether this process has written to the file."""
        return self._stamp.written is not None

    def close(self) -> None:
        """Give the handles of lock and stamp back."""
        self.lock.close()
        self._stamp.close()

    def _begin(self) -> None:
        self._stamp.close()  # its folder may be another one now
        self._begin_writing()

    def is_as_seen(self, view: View) -> bool:
        """Whether the file still looks as in `view`, and no change since could look the same.

        Raises:
            OSError: It cannot be looked at.
        """
        return view.settled and looks_like(self._name, view.fingerprint)

    def glance(self, view: View) -> Change | Look:
        """What happened to the file since `view`, as far as one `stat` and the stamp tell.

        Raises:
            OSError: It cannot be looked at.
        """
        current = Fingerprint.at(self.path)
        if current == view.fingerprint and view.settled:
            return Look.SAME
        if current is None:
            return Change(self, ABSENT, True, 0, 1)
        return self._stamped(view, current) or Look.UNCLEAR

    def with_own(self, view: View, own: Own) -> View | None:
        """How the file is known with what this process appended last, if nothing else has happened since `view`.

        No look is needed for that: the append looked, once its lines stood.
        """
        if view.fingerprint is None or view.fingerprint.size != own.start:
            return None
        change = self._stamped(view, own.fingerprint)
        return None if change is None or change.replaced else change.view

    def examine(self, view: View) -> Change:
        """What happened to the file since `view`, when a glance did not tell. It may wait a moment, and read the file.

        Raises:
            OSError: It cannot be looked at.
        """
        # Under the lock no writer of ours is between its write and its stamp. Where no lock can be had (a folder that
        # may only be read), the file is taken as it is.
        try:
            with self.lock.held(_READER_LOCK_S, make=False):
                current = Fingerprint.at(self.path)
                return (current and self._stamped(view, current)) or self._changed(view, current, adopt=True)
        except MailError:
            return self._changed(view, Fingerprint.at(self.path), adopt=False)

    def _stamped(self, view: View, current: Fingerprint) -> Change | None:
        """What happened since `view`, if the file is just as one of our writers left it."""
        stamp = self._stamp.read(current)
        if stamp is None or stamp.fingerprint != current:
            return None
        known = View(current, stamp.generation, stamp.line_feeds, settled=True)
        before = view.fingerprint
        if before and view.settled and stamp.generation == view.generation and current.inode == before.inode:
            return Change(self, known, False, before.size, view.line_feeds + 1)
        return Change(self, known, True, 0, 1)

    def _changed(self, view: View, current: Fingerprint | None, *, adopt: bool) -> Change:
        """The file anew. If it is quiet and may be adopted, it gets a stamp, so that this happens once."""
        if current is None:
            return Change(self, ABSENT, True, 0, 1)
        looks_same = current == view.fingerprint and view.seen_at > 0
        seen_at = view.seen_at if looks_same else time.monotonic()
        settled = is_quiet(current, seen_at)
        checksum = 0 if settled and not looks_same else self._checksum(current.size)
        known = View(current, UNSTAMPED, 0, settled, seen_at, checksum)
        if adopt and settled:
            stamp = self._stamp.read(current)
            tail = self._read_tail(current, stamp)
            # An unended last line is not stamped: the next writer must look and put a line feed in front of its own.
            if tail is not None and not tail.torn:
                self._stamp.write(Stamp(current, tail.generation, tail.line_feeds, tail.newest_us))
                known = View(current, tail.generation, tail.line_feeds, settled=True)
        if looks_same and checksum == view.checksum:
            return Change(self, known, False, current.size, known.line_feeds + 1)
        return Change(self, known, True, 0, 1)

    def _checksum(self, size: int) -> int:
        checksum = 0
        with opened(self.path) as handle:
            for block in read_blocks(handle, 0, size, 1):
                checksum = zlib.crc32(block.data, checksum)
        return checksum

    def blocks(self, change: Change) -> Iterator[Block]:
        """The lines that a change says are to be taken in.

        Raises:
            FileNotFoundError: The file was replaced or removed since; look for changes again.
        """
        seen, own = change.view.fingerprint, self.own
        if own is not None and own.start == change.start and own.fingerprint == seen:
            # Just what this process wrote last, in the file as it left it: known without being read.
            yield Block(own.start, change.first_line, own.data)
            return
        handle = os.open(self._name, READ)
        try:
            if seen is None or os.fstat(handle).st_ino != seen.inode:
                raise FileNotFoundError(errno.ENOENT, "replaced while it was read", self._name)
            yield from read_blocks(handle, change.start, seen.size, change.first_line)
        finally:
            os.close(handle)

    def line(self, number: int) -> bytes:
        """The bytes of a line, without its end; empty if there is none, or it is blank.

        Args:
            number: From 1.

        Raises:
            OSError: The file cannot be read.
        """
        with opened(self.path) as handle:
            seen = Fingerprint.of(os.fstat(handle))
            stamp = self._stamp.read(seen)
            line_feeds = stamp.line_feeds if stamp is not None and stamp.fingerprint == seen else None
            return read_line(handle, seen.size, number, line_feeds)

    def read_span(self, offset: int, length: int) -> bytes:
        """The bytes at one place.

        Raises:
            FileNotFoundError: There is no such file now.
        """
        return self.read_spans([(offset, length)])[0]

    def read_spans(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """The bytes at (offset, length) pairs, in the order given; neighbours are read together.

        Raises:
            FileNotFoundError: There is no such file now.
        """
        found: list[bytes] = []
        handle = os.open(self._name, READ)
        try:
            first = 0
            for following, (offset, length) in enumerate(spans, 1):
                stop = offset + length
                if following < len(spans) and 0 <= spans[following][0] - stop <= _GAP_BYTES:
                    continue
                start = spans[first][0]
                data = read_at(handle, start, stop - start)
                run = spans[first:following]
                found += [data[offset - start : offset - start + length] for offset, length in run]
                first = following
        finally:
            os.close(handle)
        return found

    def _read_tail(self, current: Fingerprint, stamp: Stamp | None) -> Tail | None:
        """Line feeds, last timestamp and tornness, read from the file; None if it moved meanwhile."""
        try:
            with opened(self.path) as handle:
                line_feeds = count_line_feeds(handle, current.size)
                end = read_at(handle, max(0, current.size - _TAIL_BYTES), _TAIL_BYTES)
                if Fingerprint.of(os.fstat(handle)) != current:
                    return None
        except FileNotFoundError:
            return None
        torn = bool(end) and not end.endswith(b"\n")
        return Tail(current, new_generation(stamp), line_feeds, _newest_us(end), torn)


def is_quiet(current: Fingerprint, seen_at: float) -> bool:
    """Whether a file's last change is long enough ago that a further one would show.

    Args:
        current: How it looks.
        seen_at: Since when it is known to look so, by `time.monotonic`.
    """
    return time.monotonic() - seen_at >= QUIET_S or time.time_ns() - current.mtime_ns > QUIET_S * 1e9


def _newest_us(end: bytes) -> int:
    """The timestamp of the last readable line, in microseconds since 1970; 0 when there is none."""
    for line in reversed(end.split(b"\n")):
        try:
            return parse_time(parse_fields(line.strip().removeprefix(BOM))["timestamp"])
        except Unreadable:
            continue
    return 0

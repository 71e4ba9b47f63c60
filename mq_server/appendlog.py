r"""One append-only file of JSON lines: how it is written, how its changes are read.

The file
    Lines end in LF; a CR before it, a byte order mark at the start, blank lines and a missing last line end are read
    without complaint. A line number is what an editor shows: line feeds before it, plus one.

The lock
    `locks/X.lock` is held from looking at the file's end to the stamp. Nobody else of ours writes meanwhile; editors
    and git do not know of it.

The stamp
    `stamps/X.stamp` holds, checksummed: size, mtime, ctime and inode of the file as the last of our writers left it, a
    generation, the number of line feeds and the last timestamp. If the file still looks so, only we have written to
    it. Each append sets the file's mtime from the precise clock, while the kernel stamps other people's writes from a
    clock that ticks every few milliseconds; so even a save of the same size within the same tick shows. Whoever finds
    that the file and its stamp disagree re-reads the file and stamps it with a new generation.

Appending
    1. Under the lock compare file and stamp. A file that somebody else touched is first left alone until it has been
       quiet for 50 ms (git and editors write in several steps), then read. A file that is missing though its stamp
       knows it is given a second to come back, since git unlinks before it creates.
    2. One write of whole lines. A torn last line gets a line feed in front. A write that fails half-way is cut off.
    3. Set the mtime, and look at the file that now has this name. If it is the one written to, and has grown by just
       what was written, nobody else has written to it: stamp it. If not, read whether the lines stand in it, as lines;
       append them again if they don't. The stamp is then left alone, so that whoever comes next reads the file.
    4. Release the lock. The sync comes after that, and is the caller's.

Somebody else at the same moment
    Who writes before the look of 1 shows in the stamp. Between that look and that of 3, who puts another file in place
    shows in the inode, who appends or cuts off in the size. A save in place shows in the size as well, unless all of it
    falls into these microseconds and leaves exactly the size that is expected. Who comes after 3 shows in the stamp
    again. If our lines are gone then, the journal has them.

A crash
    before 2 leaves nothing; within 2 leaves a torn line that was never answered for, which is reported and kept; after
    2 leaves a whole line. A stamp that is torn or behind costs one re-read. The file is closed after each append: a
    handle that is held would block git on Windows and write to a replaced file elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from mq_server.blocks import (
    BOM,
    READ,
    Block,
    count_line_feeds,
    opened,
    patiently,
    read_at,
    read_blocks,
    read_line,
    sync_folder,
)
from mq_server.errors import FileVanished, MailError, WriteFailed
from mq_server.locks import FileLock
from mq_server.message import Unreadable, parse_fields
from mq_server.names import parse_time
from mq_server.stamp import Fingerprint, Stamp, StampFile, looks_like, new_generation, set_mtime

UNSTAMPED = -1
QUIET_S = 0.05
GONE_S = 1.0
_PAUSE_S = 0.005
_SETTLE_LIMIT_S = 5.0
_REPLACED_ATTEMPTS = 20
_TAIL_BYTES = 1024 * 1024
_OWN_BYTES = 64 * 1024
_GAP_BYTES = 4096  # to read over less than that takes less time than to read twice
_READER_LOCK_S = 0.05  # answers wait for it; without the lock a reader re-reads more than it must
_APPEND = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_fdatasync = getattr(os, "fdatasync", os.fsync)  # Windows and macOS have fsync only


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


class Written(NamedTuple):
    """An append that stands in the file but is not yet synced: an open handle, and the first new line's number."""

    handle: int
    first_line: int
    created: bool


@dataclass(frozen=True, slots=True)
class View:
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


class _Own(NamedTuple):
    """What this process appended last: how it left the file, where that starts, the bytes."""

    fingerprint: Fingerprint
    start: int
    data: bytes


class Look(Enum):
    """What a glance at the file showed when it was no change that can be read at once."""

    SAME = auto()
    UNCLEAR = auto()
    """Somebody else touched it, or one of our writers is between its write and its stamp."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a reader must take in to know the file: new lines at the end, or everything anew (`replaced`)."""

    log: AppendLog
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


class AppendLog:
    """One JSONL file with its lock and stamp.

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
        self._own: _Own | None = None

    @property
    def was_written(self) -> bool:
        """Whether this process has written to the file."""
        return self._stamp.was_written

    def close(self) -> None:
        """Give the handles of lock and stamp back."""
        self.lock.close()
        self._stamp.close()

    def _begin(self) -> None:
        self._stamp.close()  # its folder may be another one now
        self._begin_writing()

    # --- writing; the caller holds the lock -----------------------------------------------------------------------

    def tail(self) -> Tail:
        """The end of the file, once it is quiet. The lock must be held.

        Raises:
            WriteFailed: It cannot be looked at.
            FileVanished: Somebody kept rewriting it for 5 s.
        """
        try:
            return patiently(self._quiet_tail)
        except OSError as error:
            raise WriteFailed(self.path, error) from error

    def known_tail(self) -> Tail | None:
        """The end of the file, open, as one of our writers left it; None if `tail` must look. The lock must be held."""
        try:
            handle = os.open(self._name, _APPEND)
        except OSError:
            return None
        current = Fingerprint.of(os.fstat(handle))
        stamp = self._stamp.read(current)
        if stamp is None or stamp.fingerprint != current:
            os.close(handle)
            return None
        return Tail(current, stamp.generation, stamp.line_feeds, stamp.newest_us, handle=handle)

    def append(self, tail: Tail, lines: bytes, newest_us: int) -> Written:
        """Append whole lines. The lock must be held; the caller syncs and closes the handle it gets.

        Args:
            tail: What `tail()` or `known_tail()` found.
            lines: One or more lines, each with its line end.
            newest_us: The timestamp of the last of them.

        Raises:
            WriteFailed: The system refused; nothing stays behind.
            FileVanished: The file was replaced under our hands again and again.
        """
        for _ in range(_REPLACED_ATTEMPTS):
            handle = self._open(tail) if tail.handle is None else tail.handle
            if handle is not None:
                data = b"\n" + lines if tail.torn else lines
                self._write(handle, data, tail.size, created=tail.fingerprint is None)
                try:
                    written = self._landed(handle, tail, lines, newest_us)
                except OSError as error:
                    os.close(handle)
                    raise WriteFailed(self.path, error, "The post was not confirmed") from error
                if written is not None:
                    return written
                os.close(handle)
            tail = self.tail()
        raise FileVanished(self.path)

    def sync(self, written: Written, *, durable: bool = True) -> None:
        """Make an append durable, unless that is not wanted, and close its handle. The lock need not be held.

        Raises:
            WriteFailed: The disk did not confirm; the lines stand in the file all the same.
        """
        try:
            if durable:
                _fdatasync(written.handle)
            if durable and written.created:
                sync_folder(self.path.parent)
                sync_folder(self.path.parent.parent)
        except OSError as error:
            outcome = "The message is in the file, but the disk did not confirm it"
            raise WriteFailed(self.path, error, outcome) from error
        finally:
            os.close(written.handle)

    def _quiet_tail(self) -> Tail:
        started = changed_at = time.monotonic()
        seen: Fingerprint | None = None
        while True:
            current = Fingerprint.at(self.path)
            stamp = self._stamp.read(current)
            if current is not None and stamp is not None and stamp.fingerprint == current:
                return Tail(current, stamp.generation, stamp.line_feeds, stamp.newest_us)
            now = time.monotonic()
            if current != seen:
                seen, changed_at = current, now
            if now - started > _SETTLE_LIMIT_S:
                raise FileVanished(self.path)
            if current is None:
                if stamp is None or now - changed_at >= GONE_S or self._long_gone():
                    return Tail(None, new_generation(stamp), 0, 0)
            elif now - changed_at >= QUIET_S or _is_quiet(current):
                found = self._read_tail(current, stamp)
                if found is not None:
                    return found
            time.sleep(_PAUSE_S)

    def _open(self, tail: Tail) -> int | None:
        """A handle for appending, or None if the file is no longer the one `tail` saw."""
        try:
            if tail.fingerprint is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    return patiently(lambda: os.open(self.path, _APPEND | os.O_CREAT | os.O_EXCL, 0o666))
                except FileExistsError:
                    return None
            handle = patiently(lambda: os.open(self._name, _APPEND))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WriteFailed(self.path, error) from error
        if Fingerprint.of(os.fstat(handle)) == tail.fingerprint:
            return handle
        os.close(handle)
        return None

    def _write(self, handle: int, data: bytes, size: int, *, created: bool) -> None:
        count = 0
        try:
            while count < len(data):  # a full disk or a file size limit takes a part; the next write says which it is
                count += os.write(handle, data[count:])
        except OSError as error:
            # What is not cut off is a torn line, which the next append repairs. Others' bytes are not ours to cut.
            with contextlib.suppress(OSError):
                if os.fstat(handle).st_size == size + count:
                    os.ftruncate(handle, size)
                created = created and os.fstat(handle).st_size == 0
            os.close(handle)
            if created:
                self.path.unlink(missing_ok=True)
            raise WriteFailed(self.path, error, "Nothing was posted") from error

    def _landed(self, handle: int, tail: Tail, lines: bytes, newest_us: int) -> Written | None:
        """Stamp what was written; None if it does not stand, as lines, in the file that has our name now."""
        written = Written(handle, tail.line_feeds + tail.torn + 1, tail.fingerprint is None)
        inode = os.fstat(handle).st_ino if tail.fingerprint is None else tail.fingerprint.inode
        set_mtime(handle, time.time_ns())
        current = Fingerprint.at(self._name)
        if current is None or current.inode != inode:
            return None
        if current.size == tail.size + tail.torn + len(lines):
            line_feeds = tail.line_feeds + tail.torn + lines.count(b"\n")
            self._stamp.write(Stamp(current, tail.generation, line_feeds, newest_us))
            self._own = None if tail.torn or len(lines) > _OWN_BYTES else _Own(current, tail.size, lines)
            return written
        # Somebody else wrote at the same moment. Without a stamp, whoever comes next reads the file anew.
        start = max(0, tail.size - 1)
        end = (b"" if tail.size else b"\n") + read_at(handle, start, current.size - start)
        found = end.find(b"\n" + lines)
        return None if found < 0 else written._replace(first_line=count_line_feeds(handle, tail.size + found) + 1)

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

    def _long_gone(self) -> bool:
        try:
            return time.time() - self.path.parent.stat().st_mtime > GONE_S
        except FileNotFoundError:
            return False

    # --- reading --------------------------------------------------------------------------------------------------

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
        now = time.monotonic()
        looks_same = current == view.fingerprint and view.seen_at > 0
        seen_at = view.seen_at if looks_same else now
        settled = now - seen_at >= QUIET_S or _is_quiet(current)
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
        seen, own = change.view.fingerprint, self._own
        if own is not None and own.start == change.start and own.fingerprint == seen:
            # Just what this process wrote last, in the file as it left it: known without being read.
            yield Block(own.start, change.first_line, own.data)
            return
        with opened(self.path) as handle:
            if seen is None or os.fstat(handle).st_ino != seen.inode:
                raise FileNotFoundError(errno.ENOENT, "replaced while it was read", str(self.path))
            yield from read_blocks(handle, change.start, seen.size, change.first_line)

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


def _is_quiet(current: Fingerprint) -> bool:
    """Whether the file's last change is long enough ago that a further one would show."""
    return time.time_ns() - current.mtime_ns > QUIET_S * 1e9


def _newest_us(end: bytes) -> int:
    """The timestamp of the last readable line, in microseconds since 1970; 0 when there is none."""
    for line in reversed(end.split(b"\n")):
        try:
            return parse_time(parse_fields(line.strip().removeprefix(BOM))["timestamp"])
        except Unreadable:
            continue
    return 0

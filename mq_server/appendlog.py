r"""One append-only file of JSON lines: how it is written, how its changes are read.

The file
    Lines end in LF; a CR before it, a byte order mark at the start, blank lines and a missing last line end are read
    without complaint. A line number is what an editor shows: line feeds before it, plus one.

The lock
    `locks/X.lock` is held from looking at the file's end to the stamp. Nobody else of ours writes meanwhile; editors
    and git do not know of it.

The stamp
    `stamps/X` holds, checksummed: size, mtime, ctime and inode of the file as the last of our writers left it, a
    generation, the number of line feeds and the newest timestamp. If the file still looks so, only we have written to
    it. Each append sets the file's mtime from the precise clock, while the kernel stamps other people's writes from a
    clock that ticks every few milliseconds; so even a save of the same size within the same tick shows. Whoever finds
    that the file and its stamp disagree re-reads the file and stamps it with the next generation.

Appending
    1. Under the lock compare file and stamp. A file that somebody else touched is first left alone until it has been
       quiet for 50 ms (git and editors write in several steps), then read. A file that is missing though its stamp
       knows it is given a second to come back, since git unlinks before it creates.
    2. One write of whole lines. A torn last line gets a line feed in front. A write that fails half-way is cut off.
    3. Look whether the bytes stand in the file that now has this name; if it was replaced, append again.
    4. Set the mtime, write the stamp, release the lock. The sync comes after that, and is the caller's.

A crash
    before 2 leaves nothing; within 2 leaves a torn line that was never answered for, which is reported and kept; after
    2 leaves a whole line. A stamp that is torn or behind costs one re-read. Handles are closed after each step: a held
    one would block git on Windows and write to a replaced file elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mq_server.errors import FileVanished, LockTimeout, WriteFailed
from mq_server.locks import FileLock
from mq_server.message import Unreadable, parse_fields, parse_time

UNSTAMPED = -1
QUIET_S = 0.05
GONE_S = 1.0
_PAUSE_S = 0.005
_SETTLE_LIMIT_S = 5.0
_REPLACED_ATTEMPTS = 20
_BLOCK_BYTES = 4 * 1024 * 1024
_TAIL_BYTES = 1024 * 1024
_READER_LOCK_S = 0.05  # a reader may be an event loop; without the lock it re-reads more than it must
_APPEND = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_BOM = b"\xef\xbb\xbf"
_fdatasync = getattr(os, "fdatasync", os.fsync)  # Windows and macOS have fsync only


class Fingerprint(NamedTuple):
    """What `stat` says of a file: enough to see that it is not the one seen before."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Fingerprint:
        """The fingerprint in a stat result."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class Stamp(NamedTuple):
    """What the last of our writers left behind."""

    fingerprint: Fingerprint
    generation: int
    line_feeds: int
    newest_us: int

    def encode(self) -> bytes:
        """The stamp file's content: seven numbers and their CRC, of constant length."""
        numbers = b" ".join(b"%d" % number for number in (*self.fingerprint, *self[1:])).ljust(_STAMP_LENGTH)
        return b"%s %08x\n" % (numbers, zlib.crc32(numbers))

    @classmethod
    def decode(cls, data: bytes) -> Stamp | None:
        """The stamp, or None if these bytes are torn, foreign or old."""
        numbers, checksum = data[:_STAMP_LENGTH], data[_STAMP_LENGTH:]
        if len(numbers) != _STAMP_LENGTH or checksum.strip() != b"%08x" % zlib.crc32(numbers):
            return None
        values = [int(number) for number in numbers.split()]
        return cls(Fingerprint(*values[:4]), *values[4:])


_STAMP_LENGTH = 150  # seven 64-bit numbers in decimal


class Tail(NamedTuple):
    """The end of the file as a writer under the lock finds it."""

    fingerprint: Fingerprint | None
    generation: int
    line_feeds: int
    newest_us: int
    torn: bool = False


class Written(NamedTuple):
    """An append that stands in the file but is not yet synced: an open handle, and the first new line's number."""

    handle: int
    first_line: int
    created: bool


@dataclass(frozen=True, slots=True)
class View:
    """How much of the file a reader knows. The empty view knows nothing.

    `settled` is false while the file was changed by somebody else so recently that a further change might not show in
    its fingerprint; it is then read again.
    """

    fingerprint: Fingerprint | None = None
    generation: int = UNSTAMPED
    line_feeds: int = 0
    settled: bool = True
    seen_at: float = 0.0


class Block(NamedTuple):
    """Some whole lines: where they start, the first one's number, their bytes."""

    offset: int
    first_line: int
    data: bytes

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """(offset, line number, bytes without line end) of each line that is not blank."""
        offset, number, data = self.offset, self.first_line, self.data
        start = 0
        if offset == 0 and data.startswith(_BOM):
            start = len(_BOM)
        while start < len(data):
            end = data.find(b"\n", start)
            stop = len(data) if end < 0 else end
            line = data[start : stop - 1] if data[stop - 1 : stop] == b"\r" and stop > start else data[start:stop]
            if line and not line.isspace():
                yield offset + start, number, line
            number += 1
            start = stop + 1


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
        if self.view.fingerprint is None or self.size_bytes == 0:
            return
        with self.log.path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_ino != self.view.fingerprint.inode:
                raise FileNotFoundError(f"{self.log.path} was replaced")
            yield from _blocks(file.fileno(), self.start, self.view.fingerprint.size, self.first_line)


class AppendLog:
    """One JSONL file with its lock and stamp.

    Args:
        path: The file.
        lock_path: Its lock file.
        stamp_path: Its stamp file.
    """

    def __init__(self, path: Path, lock_path: Path, stamp_path: Path) -> None:
        self.path = path
        self.lock = FileLock(lock_path)
        self._stamp_path = stamp_path

    # --- writing; the caller holds the lock -----------------------------------------------------------------------

    def tail(self) -> Tail:
        """The end of the file, once it is quiet. The lock must be held.

        Raises:
            FileVanished: Somebody kept rewriting it for 5 s.
        """
        started = changed_at = time.monotonic()
        seen: Fingerprint | None = None
        while True:
            stamp, current = self._read_stamp(), self._fingerprint()
            if current is not None and stamp is not None and stamp.fingerprint == current:
                return Tail(current, stamp.generation, stamp.line_feeds, stamp.newest_us)
            now = time.monotonic()
            if current != seen:
                seen, changed_at = current, now
            if now - started > _SETTLE_LIMIT_S:
                raise FileVanished(self.path)
            generation = 0 if stamp is None else stamp.generation + 1
            if current is None:
                if stamp is None or now - changed_at >= GONE_S or self._long_gone():
                    return Tail(None, generation, 0, 0)
            elif now - changed_at >= QUIET_S or time.time_ns() - current.mtime_ns > QUIET_S * 1e9:
                found = self._read_tail(current, generation)
                if found is not None:
                    return found
            time.sleep(_PAUSE_S)

    def append(self, tail: Tail, lines: bytes, newest_us: int) -> Written:
        """Append whole lines. The lock must be held; the caller syncs and closes the handle it gets.

        Args:
            tail: What `tail()` found.
            lines: One or more lines, each with its line end.
            newest_us: The timestamp of the last of them.

        Raises:
            WriteFailed: The system refused; nothing stays behind.
            FileVanished: The file was replaced under our hands again and again.
        """
        for _ in range(_REPLACED_ATTEMPTS):
            handle = self._open(tail)
            if handle is None:
                tail = self.tail()
                continue
            size = os.fstat(handle).st_size
            data = b"\n" + lines if tail.torn else lines
            self._write(handle, data, size, created=tail.fingerprint is None)
            if self._landed(handle, lines, size):
                line_feeds = tail.line_feeds + data.count(b"\n")
                self._touch(handle)
                self._write_stamp(
                    Stamp(Fingerprint.of(os.fstat(handle)), tail.generation, line_feeds, max(newest_us, tail.newest_us))
                )
                first_line = tail.line_feeds + 1 + tail.torn
                return Written(handle, first_line, tail.fingerprint is None)
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
                _sync_folder(self.path.parent)
        except OSError as error:
            outcome = "The message is in the file, but the disk did not confirm it"
            raise WriteFailed(self.path, error, outcome) from error
        finally:
            os.close(written.handle)

    def _open(self, tail: Tail) -> int | None:
        """A handle for appending, or None if the file is no longer the one `tail` saw."""
        try:
            if tail.fingerprint is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    return os.open(self.path, _APPEND | os.O_CREAT | os.O_EXCL, 0o666)
                except FileExistsError:
                    return None
            handle = os.open(self.path, _APPEND)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WriteFailed(self.path, error) from error
        if Fingerprint.of(os.fstat(handle)) == tail.fingerprint:
            return handle
        os.close(handle)
        return None

    def _write(self, handle: int, data: bytes, size: int, *, created: bool) -> None:
        try:
            count = os.write(handle, data)
            while count < len(data):  # a full disk or a file size limit: the next write says which
                count += os.write(handle, data[count:])
        except OSError as error:
            with contextlib.suppress(OSError):  # what cannot be cut off is a torn line, which the next append repairs
                os.ftruncate(handle, size)
            os.close(handle)
            if created:
                self.path.unlink(missing_ok=True)
            raise WriteFailed(self.path, error, "Nothing was posted") from error

    def _landed(self, handle: int, lines: bytes, size: int) -> bool:
        """Whether the lines stand in the file that has our name now, and not in one that was just replaced."""
        current = self._fingerprint()
        if current is None or current.inode != os.fstat(handle).st_ino:
            return False
        # Normally they stand just where the file ended; if somebody else appended in between, further on.
        return _read_at(handle, size, current.size - size).find(lines) >= 0

    def _touch(self, handle: int) -> None:
        now = time.time_ns()
        os.utime(handle if os.utime in os.supports_fd else self.path, ns=(now, now))

    def _read_tail(self, current: Fingerprint, generation: int) -> Tail | None:
        """Line feeds, newest timestamp and tornness, read from the file; None if it moved meanwhile."""
        try:
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WriteFailed(self.path, error) from error
        try:
            line_feeds = sum(block.data.count(b"\n") for block in _blocks(handle, 0, current.size, 1))
            end = _read_at(handle, max(0, current.size - _TAIL_BYTES), _TAIL_BYTES)
            if Fingerprint.of(os.fstat(handle)) != current:
                return None
        finally:
            os.close(handle)
        return Tail(current, generation, line_feeds, _newest_us(end), bool(end) and not end.endswith(b"\n"))

    def _long_gone(self) -> bool:
        try:
            return time.time() - self.path.parent.stat().st_mtime > GONE_S
        except FileNotFoundError:
            return False

    # --- reading --------------------------------------------------------------------------------------------------

    def changes(self, view: View) -> Change | None:
        """What happened to the file since `view`, or None. Cheap when nothing did: one `stat`."""
        current = self._fingerprint()
        if current == view.fingerprint and view.settled:
            return None
        if current is None:
            return Change(self, View(), True, 0, 1)
        change = self._stamped(view, current)
        if change:
            return change
        # Either somebody else touched it, or one of our writers is between its write and its stamp. Under the lock
        # there is no such writer. Where no lock can be had (a folder that may only be read), read without.
        try:
            with self.lock.held(_READER_LOCK_S):
                current = self._fingerprint()
                return (current and self._stamped(view, current)) or self._reread(view, current, adopt=True)
        except (LockTimeout, WriteFailed):
            return self._reread(view, current)

    def _stamped(self, view: View, current: Fingerprint) -> Change | None:
        """What happened since `view`, if the file is just as one of our writers left it."""
        stamp = self._read_stamp()
        if stamp is None or stamp.fingerprint != current:
            return None
        known = View(current, stamp.generation, stamp.line_feeds)
        before = view.fingerprint
        if before and view.settled and stamp.generation == view.generation and current.inode == before.inode:
            return Change(self, known, False, before.size, view.line_feeds + 1)
        return Change(self, known, True, 0, 1)

    def _reread(self, view: View, current: Fingerprint | None, *, adopt: bool = False) -> Change:
        while current is not None:
            now = time.monotonic()
            first_seen = view.seen_at if current == view.fingerprint else now
            settled = now - first_seen >= QUIET_S or time.time_ns() - current.mtime_ns > QUIET_S * 1e9
            stamp = self._read_stamp()
            tail = self._read_tail(current, 0 if stamp is None else stamp.generation + 1)
            if tail is None:
                current = self._fingerprint()
                continue
            # An unended last line is not stamped: the next writer must look and put a line feed in front of its own.
            generation = UNSTAMPED
            if adopt and settled and not tail.torn:
                generation = tail.generation
                self._write_stamp(Stamp(current, generation, tail.line_feeds, tail.newest_us))
            return Change(self, View(current, generation, tail.line_feeds, settled, first_seen), True, 0, 1)
        return Change(self, View(), True, 0, 1)

    def read_spans(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """The bytes at (offset, length) pairs, in the order given; neighbours are read together.

        Raises:
            FileNotFoundError: There is no such file now.
        """
        found: list[bytes] = []
        with self.path.open("rb", buffering=0) as file:
            handle = file.fileno()
            first = 0
            while first < len(spans):
                last = first
                while last + 1 < len(spans) and 0 <= spans[last + 1][0] - sum(spans[last]) <= 4096:
                    last += 1
                start = spans[first][0]
                data = _read_at(handle, start, sum(spans[last]) - start)
                found += [data[offset - start : offset - start + length] for offset, length in spans[first : last + 1]]
                first = last + 1
        return found

    # --- both -----------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> Fingerprint | None:
        try:
            return Fingerprint.of(self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _read_stamp(self) -> Stamp | None:
        try:
            return Stamp.decode(self._stamp_path.read_bytes())
        except OSError:
            return None

    def _write_stamp(self, stamp: Stamp) -> None:
        # A stamp that could not be written disagrees with the file, which costs a re-read and loses nothing.
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
            try:
                handle = os.open(self._stamp_path, flags, 0o666)
            except FileNotFoundError:
                self._stamp_path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(self._stamp_path, flags, 0o666)
            try:
                os.write(handle, stamp.encode())
            finally:
                os.close(handle)


def _blocks(handle: int, start: int, stop: int, first_line: int) -> Iterator[Block]:
    """The bytes from `start` to `stop` in blocks that end with a line, but for the last."""
    offset, rest = start, b""
    while offset + len(rest) < stop:
        data = rest + _read_at(handle, offset + len(rest), min(_BLOCK_BYTES, stop - offset - len(rest)))
        if len(data) == len(rest):
            break  # cut shorter meanwhile; the next look at the file sees that
        end = data.rfind(b"\n") + 1
        if end == 0 and offset + len(data) < stop:
            rest = data
            continue
        block = data if offset + len(data) >= stop else data[:end]
        yield Block(offset, first_line, block)
        first_line += block.count(b"\n")
        offset, rest = offset + len(block), data[len(block) :]


def _read_at(handle: int, offset: int, length: int) -> bytes:
    os.lseek(handle, offset, os.SEEK_SET)  # os.pread does not exist on Windows
    data = os.read(handle, length) if length > 0 else b""
    while 0 < len(data) < length:
        more = os.read(handle, length - len(data))
        if not more:
            break
        data += more
    return data


def _newest_us(end: bytes) -> int:
    """The timestamp of the last readable line, in microseconds since 1970; 0 when there is none."""
    for line in reversed(end.split(b"\n")):
        try:
            return parse_time(parse_fields(line.strip())["timestamp"])
        except Unreadable:
            continue
    return 0


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable. Windows has no such call; NTFS journals names itself."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

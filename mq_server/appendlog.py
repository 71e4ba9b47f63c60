r"""One append-only file of JSON lines: how it is written, and what tells its changes. `logfile` reads it.

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
import os
import time
from typing import NamedTuple

from mq_server.blocks import count_line_feeds, patiently, read_at, sync_folder
from mq_server.errors import FileVanished, WriteFailed
from mq_server.logfile import LogFile, Own, Tail, is_quiet
from mq_server.stamp import Fingerprint, Stamp, new_generation, set_mtime

GONE_S = 1.0
_PAUSE_S = 0.005
_SETTLE_LIMIT_S = 5.0
_REPLACED_ATTEMPTS = 20
_OWN_BYTES = 64 * 1024
_APPEND = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_fdatasync = getattr(os, "fdatasync", os.fsync)  # Windows and macOS have fsync only


class Written(NamedTuple):
    """An append that stands in the file but is not yet synced: an open handle, and the first new line's number."""

    handle: int
    first_line: int
    created: bool


class AppendLog(LogFile):
    """One JSONL file with its lock and stamp: what `LogFile` reads, and appending. Who appends holds the lock."""

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
        return Tail(*stamp, handle=handle)

    def append(self, tail: Tail, lines: bytes, newest_us: int, *, plain: bool = False) -> Written:
        """Append whole lines. The lock must be held; the caller syncs and closes the handle it gets.

        Args:
            tail: What `tail()` or `known_tail()` found.
            lines: One or more lines, each with its line end.
            newest_us: The timestamp of the last of them.
            plain: Whether each is a new message that neither corrects another nor expires.

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
                    written = self._landed(handle, tail, lines, newest_us, plain=plain)
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
                return Tail(*stamp)
            now = time.monotonic()
            if current != seen:
                seen, changed_at = current, now
            if now - started > _SETTLE_LIMIT_S:
                raise FileVanished(self.path)
            if current is None:
                if stamp is None or now - changed_at >= GONE_S or self._long_gone():
                    return Tail(None, new_generation(stamp), 0, 0)
            elif is_quiet(current, changed_at):
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

    def _landed(self, handle: int, tail: Tail, lines: bytes, newest_us: int, *, plain: bool) -> Written | None:
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
            self.own = None if tail.torn or len(lines) > _OWN_BYTES else Own(current, tail.size, lines, plain)
            return written
        # Somebody else wrote at the same moment. Without a stamp, whoever comes next reads the file anew.
        start = max(0, tail.size - 1)
        end = (b"" if tail.size else b"\n") + read_at(handle, start, current.size - start)
        found = end.find(b"\n" + lines)
        return None if found < 0 else written._replace(first_line=count_line_feeds(handle, tail.size + found) + 1)

    def _long_gone(self) -> bool:
        try:
            return time.time() - self.path.parent.stat().st_mtime > GONE_S
        except FileNotFoundError:
            return False

"""Stamps: how a file looked when the last of our writers left it, kept beside the lock.

A stamp tells "only we have written to it" from "somebody else touched it". Its text has a constant length and a
checksum, and is overwritten in place: a reader that meets it half written sees a wrong checksum, as after a crash, and
reads the file instead.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import sys
import time
import zlib
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from mq_server.kept import KeptFile

_NUMBERS_LENGTH = 200  # seven numbers; an inode has up to 128 bits on Windows
_STAMP_LENGTH = _NUMBERS_LENGTH + len(" 01234567\n")


class Fingerprint(NamedTuple):
    """What `stat` says of a file: enough to see that it is not the one seen before."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Fingerprint:
        """The fingerprint in a stat result."""
        # Past the names of its arguments, which take as long again.
        return tuple.__new__(cls, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))

    @classmethod
    def at(cls, path: Path | str) -> Fingerprint | None:
        """The fingerprint of the file of this name; None if there is none.

        Raises:
            OSError: It is a folder or a device, or may not be looked at.
        """
        try:
            stat = os.stat(path)  # noqa: PTH116 - every post comes here
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat_module.S_ISREG(stat.st_mode):
            folder = stat_module.S_ISDIR(stat.st_mode)
            raise OSError(errno.EISDIR if folder else errno.EINVAL, "this is not a file", str(path))
        return cls.of(stat)


def looks_like(path: str, seen: Fingerprint | None) -> bool:
    """Whether the file of this name has that fingerprint; None is that of no file.

    Raises:
        OSError: It may not be looked at.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116 - every answer looks at every file
    except (FileNotFoundError, NotADirectoryError):
        return seen is None
    # Without making one: most files look as they did.
    return seen == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


_fingerprint = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")


def fingerprints(paths: Iterable[str]) -> list[tuple[int, ...]]:
    """What the fingerprints of many files hold, by their names; all of them are there.

    Raises:
        OSError: One of them is not, or may not be looked at.
    """
    return [*map(_fingerprint, map(os.stat, paths))]  # hundreds, before every answer: no loop of Python's


class Stamp(NamedTuple):
    """What the last of our writers left behind.

    Two stamps of one file have the same generation as long as only our appends lie between them.
    """

    fingerprint: Fingerprint
    generation: int
    line_feeds: int
    newest_us: int

    def encode(self) -> bytes:
        """The stamp file's content: seven numbers and their CRC, of constant length."""
        numbers = (b"%d %d %d %d %d %d %d" % (self.fingerprint + self[1:])).ljust(_NUMBERS_LENGTH)
        return numbers + b" %08x\n" % zlib.crc32(numbers)

    @classmethod
    def decode(cls, data: bytes) -> Stamp | None:
        """The stamp, or None if these bytes are torn, foreign or old."""
        numbers, checksum = data[:_NUMBERS_LENGTH], data[_NUMBERS_LENGTH:_STAMP_LENGTH]
        if checksum != b" %08x\n" % zlib.crc32(numbers):
            return None
        try:
            values = [int(number) for number in numbers.split()]
            return cls(Fingerprint(*values[:4]), *values[4:])
        except (ValueError, TypeError):
            return None


class StampFile:
    """The stamp of one log, on disk.

    Args:
        path: The stamp file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = KeptFile(path, appends=False)
        self.written: Stamp | None = None
        """What this process has written to it last."""

    def read(self, current: Fingerprint | None) -> Stamp | None:
        """The stamp as it stands, or None.

        Args:
            current: How the file looks now. If it looks as we left it, nobody has stamped it since: nothing is read.
        """
        written = self.written
        if written is not None and written.fingerprint == current:
            return written
        try:
            handle = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            return None
        try:
            return Stamp.decode(os.read(handle, _STAMP_LENGTH))
        except OSError:
            return None
        finally:
            os.close(handle)

    def write(self, stamp: Stamp) -> None:
        """Replace the stamp. One that cannot be written disagrees with the file, which costs a re-read, no more."""
        try:
            self._file.write(stamp.encode())
        except OSError:
            return
        self.written = stamp

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        self._file.close()


def new_generation(stamp: Stamp | None) -> int:
    """A generation that no reader has seen, even if the stamps were deleted or an old copy of them was put back."""
    return max(time.time_ns(), 0 if stamp is None else stamp.generation + 1)


if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _kernel32 = ctypes.WinDLL("kernel32")
    _TICKS_TO_1970 = 116_444_736_000_000_000

    def set_mtime(handle: int, time_ns: int) -> None:
        """Set an open file's time of last change."""
        # Only a time set through the writing handle itself stays: otherwise NTFS sets its own when that is closed.
        ticks = time_ns // 100 + _TICKS_TO_1970
        moment = wintypes.FILETIME(ticks & 0xFFFFFFFF, ticks >> 32)
        _kernel32.SetFileTime(wintypes.HANDLE(msvcrt.get_osfhandle(handle)), None, None, ctypes.byref(moment))

else:

    def set_mtime(handle: int, time_ns: int) -> None:
        """Set an open file's time of last change."""
        try:
            os.utime(handle, ns=(time_ns, time_ns))
        except PermissionError:  # somebody else's file; who may write to it may set it to the kernel's now, though
            os.utime(handle)

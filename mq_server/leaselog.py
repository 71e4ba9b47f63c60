"""The file of a channel's deliveries: lines that are appended, now and then written anew. What they say is `leases`'.

Its first line names the generation and says how many bytes of it were kept from the one before. Who writes holds the
channel's lease lock. A line without its end is of a writer that died before it answered: the next one closes it off. A
file that is written anew is exchanged by rename; whoever knew the old one finds another generation. A file without a
header says nothing, and the next line starts it anew.

The handle is kept, which also keeps the inode from being given to another file: what has the same name and inode is the
same file. Windows refuses to exchange a file that anybody has open, so there it is closed each time.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from mq_server.blocks import read_at

_HEADER = b'{"generation":"%s","kept_bytes":"%012d"}\n'
_HEADER_BYTES = len(_HEADER % (b"0123456789abcdef", 0))
_IS_HEADER = re.compile(rb'\{"generation":"[0-9a-f]{16}","kept_bytes":"([0-9]{12})"\}\n')
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_READ = os.O_RDONLY | _BINARY
_APPEND = os.O_RDWR | os.O_APPEND | _BINARY
_ANEW = _APPEND | os.O_CREAT | os.O_TRUNC
_KEEPS_HANDLE = os.name != "nt"


class News(NamedTuple):
    """Whole lines without their ends: those since the last look, or all of them, if it is another file (`anew`)."""

    anew: bool
    lines: list[bytes]


class Wrote(Enum):
    """What became of a line."""

    NEXT = auto()
    """It stands behind what was read, and counts as read."""
    AMONG_OTHERS = auto()
    """It stands, and there is more that was not read."""
    NOWHERE = auto()
    """The file was removed or exchanged meanwhile, as when somebody deletes the folder: look, and write again."""


class LeaseLog:
    """The file.

    Args:
        path: Its place; the folder is made when it is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = os.fspath(path)
        self.kept_bytes = 0
        """How many bytes were kept when it was written anew."""
        self.read_bytes = 0
        """How far it was read."""
        self._header = b""
        self._torn = False
        self._seen: tuple[int, int, int] | None = None
        self._handle: int | None = None
        self._inode = self._owner_pid = 0

    def news(self) -> News | None:
        """What was written since the last look; None if nothing was.

        Raises:
            OSError: It cannot be read.
        """
        try:
            status = os.stat(self._name)  # noqa: PTH116 - every claim comes here
            if _looks(status) == self._seen:
                return None
            try:
                return self._read(status)
            finally:
                self._let_go()
        except FileNotFoundError:
            was_known = self._header != b""
            self._forget()
            return News(True, []) if was_known else None

    def _read(self, status: os.stat_result) -> News:
        handle = self._kept()
        if handle is None or self._inode != status.st_ino:
            handle = self._open(_APPEND)
            status = os.fstat(handle)
        header = read_at(handle, 0, _HEADER_BYTES)
        anew = header != self._header or not header or status.st_size < self.read_bytes
        if anew:
            self._begin(header)
        data = read_at(handle, self.read_bytes, status.st_size - self.read_bytes) if self._header else b""
        whole, feed, rest = data.rpartition(b"\n")
        self.read_bytes += len(whole) + len(feed)
        self._torn = bool(rest)
        self._seen = _looks(status)
        return News(anew, whole.split(b"\n") if whole else [])

    def write(self, line: bytes) -> Wrote:
        """Append a line. The lock must be held, and what stands there should have been read.

        Raises:
            OSError: The system refused; a part of it may stand, which the next one closes off.
        """
        header = b"" if self._header else _new_header(0)
        data = header + b"\n" * self._torn + line
        try:
            handle = None if header else self._kept()
            if handle is None:
                handle = self._open(_ANEW if header else _APPEND)
            rest = data
            while rest:  # a full disk takes a part; the next write says so
                rest = rest[os.write(handle, rest) :]
            status = os.fstat(handle)
            if os.stat(self._name).st_ino != status.st_ino:  # noqa: PTH116 - and here
                return Wrote.NOWHERE
            if self._torn or status.st_size != (0 if header else self.read_bytes) + len(data):
                return Wrote.AMONG_OTHERS
            if header:
                self._begin(header)
            self.read_bytes = status.st_size
            self._seen = _looks(status)
            return Wrote.NEXT
        except FileNotFoundError:
            # Somebody who deletes the folder right now may come between any two steps.
            with suppress(FileNotFoundError, FileExistsError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            return Wrote.NOWHERE
        finally:
            self._let_go()

    def rewrite(self, lines: list[bytes]) -> bool:
        """Write the file anew, with these lines; whether that was done. The lock must be held."""
        data = b"".join(line + b"\n" for line in lines)
        new = self.path.with_suffix(".new")
        # Windows refuses to replace a file that somebody reads just now, a disk may be full, the folder deleted: the
        # next write tries again.
        with suppress(OSError):
            new.write_bytes(_new_header(len(data)) + data)
            new.replace(self.path)
            return True
        return False

    def close(self) -> None:
        """Give the kept handle back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _begin(self, header: bytes) -> None:
        """Know only the header, if it is one."""
        self._forget()
        is_header = _IS_HEADER.fullmatch(header)
        if is_header:
            self._header, self.read_bytes, self.kept_bytes = header, len(header), int(is_header[1])

    def _forget(self) -> None:
        self._header, self.read_bytes, self.kept_bytes = b"", 0, 0
        self._seen, self._torn = None, False

    def _kept(self) -> int | None:
        """The kept handle; not in a forked child, which would share the place in the file with its parent."""
        return self._handle if self._owner_pid == os.getpid() else None

    def _open(self, flags: int) -> int:
        """Open the file that has the name now."""
        self.close()
        try:
            self._handle = os.open(self.path, flags, 0o666)
        except PermissionError:
            if flags != _APPEND:
                raise
            self._handle = os.open(self.path, _READ)  # who may not write here may read all the same
        self._inode, self._owner_pid = os.fstat(self._handle).st_ino, os.getpid()
        return self._handle

    def _let_go(self) -> None:
        if not _KEEPS_HANDLE:
            self.close()


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _new_header(kept_bytes: int) -> bytes:
    return _HEADER % (os.urandom(8).hex().encode(), kept_bytes)

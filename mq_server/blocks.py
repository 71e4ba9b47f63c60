"""Reading and writing a file of lines, a step above the operating system: blocks of whole lines, bytes at a place."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from itertools import accumulate, count
from pathlib import Path
from typing import TypeVar

from mq_server.stamp import Fingerprint

T = TypeVar("T")
BOM = b"\xef\xbb\xbf"
_PAUSE_S = 0.005
_BLOCK_BYTES = 256 * 1024  # what passes over it more than once finds it in the processor's cache
IN_USE_S = 1.0 if os.name == "nt" else 0.0
READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)


class Block:
    """Some whole lines.

    Args:
        offset: Where they start.
        first_line: The first one's number.
        data: Their bytes.
    """

    __slots__ = ("_line_feeds", "data", "first_line", "offset")

    def __init__(self, offset: int, first_line: int, data: bytes) -> None:
        self.offset = offset
        self.first_line = first_line
        self.data = data
        self._line_feeds = -1

    @property
    def line_feeds(self) -> int:
        """How many there are; not counted again once the lines were asked for."""
        if self._line_feeds < 0:
            self._line_feeds = self.data.count(b"\n")
        return self._line_feeds

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """(offset, line number, bytes without line end) of each line that is not blank."""
        offset = len(BOM) if self.offset == 0 and self.data.startswith(BOM) else self.offset
        ended = self.data[offset - self.offset :].split(b"\n")
        self._line_feeds = len(ended) - 1
        if not ended[-1]:
            ended.pop()
        offsets = accumulate(map((1).__add__, map(len, ended)), initial=offset)
        lines = zip(offsets, count(self.first_line), ended, strict=False)
        # Most blocks have none of these, and a million lines come by at a start.
        if b"\r" in self.data or b"" in ended or any(map(bytes.isspace, ended)):
            return ((at, number, line.removesuffix(b"\r")) for at, number, line in lines if line and not line.isspace())
        return lines


def patiently(action: Callable[[], T]) -> T:
    """Do something with a file that somebody else may just be using.

    On Windows that is refused while an editor saves the file, a virus scanner looks at it, or git has deleted it under
    an open handle.

    Raises:
        OSError: It is refused still, after a second, or for another reason.
    """
    deadline = time.monotonic() + IN_USE_S
    while True:
        try:
            return action()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_S)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A handle for reading that is closed at the end of the context."""
    handle = os.open(path, READ)
    try:
        yield handle
    finally:
        os.close(handle)


def count_line_feeds(handle: int, stop: int) -> int:
    """How many lines end before the place `stop`."""
    return sum(block.line_feeds for block in read_blocks(handle, 0, stop, 1))


def read_blocks(handle: int, start: int, stop: int, first_line: int) -> Iterator[Block]:
    """The bytes from `start` to `stop` in blocks that end with a line, but for the last."""
    offset, size = start, _BLOCK_BYTES
    while offset < stop:
        wanted = min(size, stop - offset)
        data = read_at(handle, offset, wanted)
        end = len(data) if offset + len(data) == stop else data.rfind(b"\n") + 1
        if end:
            block = Block(offset, first_line, data[:end])
            yield block
            offset, size, first_line = offset + end, _BLOCK_BYTES, first_line + block.line_feeds
        elif len(data) == wanted:
            size *= 2  # a line that is longer
        else:
            break  # cut shorter meanwhile; the next look at the file sees that


def read_line(handle: int, stop: int, number: int, line_feeds: int | None) -> bytes:
    """The bytes of a line, without its end; empty if there is none, or it is blank.

    Args:
        handle: The file, open.
        stop: Its size.
        number: The line's, from 1.
        line_feeds: How many the file has, if that is known: then the latter half of the lines is looked for from the
            end.
    """
    start, first_line = 0, 1
    if line_feeds is not None and number > line_feeds // 2:
        start, first_line = _line_start(handle, stop, line_feeds + 2 - number), number
    for block in read_blocks(handle, start, stop, first_line):
        if block.first_line > number:
            break
        if number <= block.first_line + block.line_feeds:  # or in the next, if this one ends with a line feed
            for _, found, line in block.lines():
                if found == number:
                    return line
    return b""


def _line_start(handle: int, stop: int, line_feeds: int) -> int:
    """Where a line begins; `stop` if it is not there.

    Args:
        handle: The file, open.
        stop: Its size.
        line_feeds: How many there are from the one before the line on.
    """
    if line_feeds < 1:
        return stop
    while stop > 0:
        start = max(0, stop - _BLOCK_BYTES)
        data = read_at(handle, start, stop - start)
        found = data.count(b"\n")
        if found >= line_feeds:
            return start + len(data.rsplit(b"\n", line_feeds)[0]) + 1
        stop, line_feeds = start, line_feeds - found
    return 0


def _read_seeking(handle: int, length: int, offset: int) -> bytes:
    os.lseek(handle, offset, os.SEEK_SET)
    return os.read(handle, length)


_read_from = os.pread if hasattr(os, "pread") else _read_seeking  # Windows has no pread


def read_at(handle: int, offset: int, length: int) -> bytes:
    """The bytes at a place; fewer where the file ends."""
    data = _read_from(handle, length, offset) if length > 0 else b""
    while 0 < len(data) < length:
        more = _read_from(handle, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def exchange(path: Path, seen: Fingerprint | None, data: bytes) -> bool:
    """Give a file other content in one step, durably: after a crash it has either the old or the new.

    Whoever has the file open keeps the old one.

    Args:
        path: The file; made, with its folder, if there is none.
        seen: How it looked when the content was made from what it held.
        data: The content; empty removes the file.

    Returns:
        Whether that was done; False, and nothing was, if the file does not look so any more.

    Raises:
        OSError: The system refused; nothing was done.
    """
    from shutil import copymode

    target = path.resolve()  # a symbolic link stays one
    new = target.with_name(f".{target.name}.new")
    try:
        if data:
            _make_folder(target.parent)
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                copymode(target, new)
        if Fingerprint.at(path) != seen:
            return False
        patiently(lambda: new.replace(target) if data else target.unlink(missing_ok=True))
    finally:
        new.unlink(missing_ok=True)
    sync_folder(target.parent)
    return True


def _make_folder(folder: Path) -> None:
    """Make a folder durably, with those it lies in."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable. Windows has no such call; NTFS journals names itself."""
    if os.name == "posix":
        try:
            handle = os.open(folder, os.O_RDONLY)
        except PermissionError:
            return  # one may use a folder without being allowed to list it
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

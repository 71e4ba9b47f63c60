"""The index of a long mailbox, kept for the next process: `.mq/index/<channel>.bin`, of this machine only.

Indexing a million messages takes seconds, reading what came of it some tenths of one. The file is a cache: the
mailbox remains the only truth, whoever doubts the file ignores it, and it may be deleted at any time.

The file
    A line that says the version, the byte order and the size of numbers. The length and the CRC-32 of the head; the
    head, one JSON object: the channel, the views of the mailbox and its archived parts, what the columns hold, names
    by their numbers; then the columns as they stand in memory, and the CRC-32 of them all. A file that begins with
    another line, has another length or another checksum is as good as none. So is one made by another version of this
    package.

Whether it still holds
    is not decided here. It comes with the views that its maker had of the files (see `logfile`); by them whoever
    loads it sees what has changed since, as its maker would.

Writing
    Off the event loop, while the index goes on growing: what is only added to is copied in small parts up to where it
    ended when the snapshot was taken, all else is copied at once. The new file takes the old one's place by its name,
    under a lock that a second writer does not wait for. Nothing is synced, and no error matters.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import orjson

from mq_server import __version__
from mq_server.blocks import patiently
from mq_server.chains import Parts
from mq_server.columns import ChannelIndex, Facts, Names
from mq_server.errors import MailError, Problem
from mq_server.locks import FileLock
from mq_server.logfile import ABSENT, UNSTAMPED, View
from mq_server.stamp import Fingerprint

VERSION = 1
"""Another one whenever an index holds something else, or something else is made of a line."""
_SIZES = "".join(f"{code}{array(code).itemsize}" for code in "IQq")
_FIRST_LINE = f"mq-index {VERSION} {__version__} {sys.byteorder} {_SIZES}\n".encode()
_HEAD = struct.Struct("<II")
_END = struct.Struct("<I")
_SLICE = 1 << 15
"""So many numbers are handled at a time: that holds up the event loop for less than a millisecond."""
_FRESH = 16
"""What lacks less than one part in so many is not written anew."""
Read = Callable[[int, int], bytes]


class Snapshot(NamedTuple):
    """An index at one moment, with the views its files had."""

    reading: ChannelIndex
    parts: Parts
    lengths: tuple[int, ...]
    """How much of each growing part belongs to it."""
    facts: Facts
    view: View
    archive: Mapping[str, View]

    @classmethod
    def of(cls, index: ChannelIndex, view: View, archive: Mapping[str, View]) -> Self:
        """Take one, on the event loop; some milliseconds for a million rows."""
        growing, changing, maps, sets = index.parts()
        copied = Parts(
            growing, tuple(each[:] for each in changing), tuple(map(dict, maps)), tuple(set(each) for each in sets)
        )
        return cls(index, copied, tuple(map(len, growing)), index.facts(), view, dict(archive))

    def is_intact(self) -> bool:
        """Whether no row of it was changed meanwhile."""
        return self.reading.rewritten == self.facts.rewritten

    def names(self) -> set[int]:
        """The numbers of the names that it uses."""
        rows = self.lengths[0]
        return {number for column in self.reading.named() for some in _slices(column, rows) for number in set(some)}

    def columns(self) -> Iterator[tuple[array[int], int]]:
        """All that is numbers, and how many of them."""
        yield from zip(self.parts.growing, self.lengths, strict=True)
        yield from ((column, len(column)) for column in self.parts.changing)


class IndexFile:
    """The kept index of one channel.

    Args:
        path: The file.
        lock: Held while it is written.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path = path
        self._lock = lock

    def exists(self) -> bool:
        """Whether there is one."""
        return self._path.exists()

    def has_folder(self) -> bool:
        """Whether there is runtime state of this machine, without which nothing is kept."""
        return self._path.parent.parent.is_dir()

    def save(self, snapshot: Snapshot, names: Names, *, anew: bool) -> None:
        """Write it, if that can be done and nobody else is just doing so. No folder of runtime state is made.

        Args:
            snapshot: The index.
            names: Those of its numbers.
            anew: Whether the files were read anew, so that what is kept now is not to be trusted. Otherwise, if another
                process has lately kept as much, that does.
        """
        new = self._path.with_suffix(".new")
        with suppress(OSError, MailError):
            if not self.has_folder():
                return
            self._path.parent.mkdir(exist_ok=True)
            with self._lock.held(0.0):
                if not anew and self._is_as_good_as(snapshot):
                    return
                try:
                    with new.open("wb") as file:
                        _write(file, snapshot, names)
                    if snapshot.is_intact():
                        patiently(lambda: new.replace(self._path))
                finally:
                    new.unlink(missing_ok=True)

    def _is_as_good_as(self, snapshot: Snapshot) -> bool:
        """Whether nearly as much of the same files is kept already: all processes of a machine keep it at once."""
        try:
            with self._path.open("rb") as file:
                head = _read_head(file)
        except OSError:
            return False
        if head is None or head["archive"] != {month: _text(view) for month, view in snapshot.archive.items()}:
            return False
        rows: int = head["lengths"][0]
        return _follow(_view(head["view"]), snapshot.view) and rows >= snapshot.lengths[0] * (1 - 1 / _FRESH)

    def load(
        self, index: ChannelIndex, names: Names, may_hold: Callable[[View], bool], reader: Callable[[str], Read]
    ) -> tuple[View, dict[str, View]] | None:
        """Fill an empty index with what was kept.

        Args:
            index: Of no use any more if this fails.
            names: Its names.
            may_hold: Whether it is worth it, by the view of the mailbox.
            reader: Gives `read_line` of a file by its path.

        Returns:
            The views that the mailbox and the archive's months had; None if there is nothing of use.
        """
        try:
            with self._path.open("rb") as file:
                head = _read_head(file)
                if head is None or head["channel"] != index.channel or not may_hold(_view(head["view"])):
                    return None
                parts = index.parts()
                if not _read_columns(file, head["lengths"], (*parts.growing, *parts.changing)):
                    return None
        except OSError:
            return None
        _renumber(index, names, *head["names"])
        for numbers, kept in zip(parts.maps, head["maps"], strict=True):
            both = [int(number) for number in kept.split()]
            numbers.update(zip(both[::2], both[1::2], strict=True))
        for several, kept in zip(parts.sets, head["sets"], strict=True):
            several.update(map(int, kept.split()))
        files, archived, rewritten, is_in_time_order, problems = head["facts"]
        named = tuple((first_row, path) for first_row, path in files)
        found = tuple(Problem(*problem) for problem in problems)
        index.was_filled(Facts(named, archived, rewritten, is_in_time_order, found), reader)
        return _view(head["view"]), {month: _view(view) for month, view in head["archive"].items()}


def _write(file: BinaryIO, snapshot: Snapshot, names: Names) -> None:
    used = sorted(snapshot.names())
    head = orjson.dumps(
        {
            "channel": snapshot.reading.channel,
            "view": _text(snapshot.view),
            "archive": {month: _text(view) for month, view in snapshot.archive.items()},
            "lengths": [length for _, length in snapshot.columns()],
            "names": (used, list(map(names.text, used))),
            # As text: some of these numbers have 128 bits, which JSON leaves to its readers.
            "maps": [" ".join(map(str, chain.from_iterable(each.items()))) for each in snapshot.parts.maps],
            "sets": [" ".join(map(str, each)) for each in snapshot.parts.sets],
            "facts": snapshot.facts,
        },
        default=tuple,
    )
    file.write(_FIRST_LINE + _HEAD.pack(len(head), zlib.crc32(head)) + head)
    checksum = 0
    for column, length in snapshot.columns():
        for some in _slices(column, length):
            checksum = zlib.crc32(some, checksum)
            file.write(some)
    file.write(_END.pack(checksum))


def _read_head(file: BinaryIO) -> dict[str, Any] | None:
    """What the head says; None if this is no file of ours, or a part of one."""
    first = file.read(len(_FIRST_LINE) + _HEAD.size)
    if not first.startswith(_FIRST_LINE) or len(first) < len(_FIRST_LINE) + _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(first[len(_FIRST_LINE) :])
    data = file.read(min(length, os.fstat(file.fileno()).st_size))
    return orjson.loads(data) if len(data) == length and zlib.crc32(data) == checksum else None


def _read_columns(file: BinaryIO, lengths: list[int], columns: tuple[array[int], ...]) -> bool:
    """Fill the columns; whether they are what was written."""
    sizes = [column.itemsize * length for column, length in zip(columns, lengths, strict=True)]
    if file.tell() + sum(sizes) + _END.size != os.fstat(file.fileno()).st_size:
        return False
    checksum = 0
    for column, size in zip(columns, sizes, strict=True):
        data = file.read(size)
        checksum = zlib.crc32(data, checksum)
        del column[:]
        column.frombytes(data[: len(data) - len(data) % column.itemsize])
    return file.read() == _END.pack(checksum)


def _renumber(index: ChannelIndex, names: Names, numbers: list[int], texts: list[str | None]) -> None:
    """Put the numbers that this process gives to names in the place of those of the process that wrote."""
    given = [names.numbers[text] for text in texts]
    if given == numbers:
        return
    new = dict(zip(numbers, given, strict=True))
    for column in index.named():
        for start in range(0, len(column), _SLICE):
            part = slice(start, start + _SLICE)
            column[part] = array("I", map(new.__getitem__, column[part]))


def _slices(column: array[int], length: int) -> Iterator[array[int]]:
    return (column[start : min(start + _SLICE, length)] for start in range(0, length, _SLICE))


def _follow(one: View, other: View) -> bool:
    """Whether nothing but our own appends lies between two views."""
    if one.fingerprint is None or other.fingerprint is None or UNSTAMPED in (one.generation, other.generation):
        return one == other
    return one.generation == other.generation and one.fingerprint.inode == other.fingerprint.inode


def _text(view: View) -> str:
    """A settled view: some of its numbers have 128 bits on Windows."""
    return "" if view.fingerprint is None else " ".join(map(str, (*view.fingerprint, view.generation, view.line_feeds)))


def _view(text: str) -> View:
    if not text:
        return ABSENT
    *fingerprint, generation, line_feeds = map(int, text.split())
    return View(Fingerprint(*fingerprint), generation, line_feeds, settled=True)

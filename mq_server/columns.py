"""One mailbox in memory, as columns: a message is a row number, not an object. No I/O, no clock.

A `ChannelIndex` only grows; a file that was changed by somebody else gets a new one.

The archive
    The rows of a channel's archived parts come first, then those of the mailbox itself. So a message that stands in
    both is an archived one, and moving the oldest lines changes no row.

Duplicates
    Byte-identical lines of one id are one message at the first line's place. Lines of one id with other bytes are each
    a Problem; the bytewise greatest is shown.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from mq_server.errors import Problem
from mq_server.message import Unreadable, parse_fields
from mq_server.names import id_number, id_text, is_id, parse_time

_LOW = (1 << 64) - 1
_ID_BITS_PER_CHARACTER = 5
_SORT_ROWS = 64  # from so many on, sorting all rows anew is quicker than putting each into its place


class Place(NamedTuple):
    """Where a message stands: a channel and a row of its index."""

    channel: str
    row: int


class Names:
    """Text that recurs in many rows (senders, types, scenes) as small numbers; 0 is 'none'."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: 0}
        self._texts: list[str | None] = [None]
        self._adding = threading.Lock()  # a long file is indexed in a thread, beside a short one on the event loop

    def number(self, text: str | None) -> int:
        """The number of a text, given out anew if need be."""
        number = self._numbers.get(text)
        if number is None:
            with self._adding:
                number = self._numbers.get(text)
                if number is None:
                    number = len(self._texts)
                    self._texts.append(text)
                    self._numbers[text] = number
        return number

    def known(self, text: str) -> int:
        """The number of a text, or -1 if no row has it."""
        return self._numbers.get(text, -1)

    def text(self, number: int) -> str | None:
        """The text of a number."""
        return self._texts[number]


class ChannelIndex:
    """One mailbox as columns, in file order.

    Args:
        channel: Its name.
        path: What Problems call its file.
        names: Shared with the other channels.
        read_line: Gives the bytes at (offset, length); asked only when two lines bear the same id.
    """

    def __init__(self, channel: str, path: str, names: Names, read_line: Callable[[int, int], bytes]) -> None:
        self.channel = channel
        self._path = path
        self._names = names
        self.offsets = array("Q")
        self.lengths = array("I")
        self.lines = array("I")
        self.times_us = array("q")
        self.ids_high = array("Q")
        self.ids_low = array("Q")
        self.senders = array("I")
        self.types = array("I")
        self.scenes = array("I")
        self._columns = (
            self.offsets,
            self.lengths,
            self.lines,
            self.times_us,
            self.ids_high,
            self.ids_low,
            self.senders,
            self.types,
            self.scenes,
        )
        self.id_sums = array("Q", [0])
        """Per row, the sum of the random halves of all ids before it, modulo 2**64: says whether two readings of a
        mailbox hold the same set of messages up to a place."""
        self.rows: dict[int, int] = {}
        self.replies: dict[int, list[int]] = {}
        self.parents: dict[int, int] = {}
        self.replaces: dict[int, int] = {}
        self.expires_us: dict[int, int] = {}
        self.urgent: set[int] = set()
        self.keyed: dict[tuple[int, str], int] = {}
        """The newest row that a sender (by number) posted under a `dedup_key`."""
        self.problems: list[Problem] = []
        self.archived = 0
        """How many rows, the first ones, stand in archived parts."""
        self.rewritten = 0
        """How often a row was changed in place, because a greater line of the same id came."""
        self._in_time_order = True
        self._by_time = array("I")
        self._time_sums = array("Q", [0])
        self._conflicts: set[int] = set()
        self._other_lines: dict[int, int] = {}
        self._files = [_File(0, path, read_line)]
        self._files_of: dict[int, int] = {}
        """By row, the number of its file, where a greater line of a later file is shown."""

    def __len__(self) -> int:
        return len(self.offsets)

    def turn_to(self, path: str, read_line: Callable[[int, int], bytes]) -> None:
        """Go on with the channel's next file: what was taken in so far stands in archived parts.

        Args:
            path: What Problems call it.
            read_line: As above.
        """
        self._path = path
        self.archived = len(self)
        self._files.append(_File(len(self), path, read_line))
        self._other_lines = {}

    def path(self, row: int) -> str:
        """The file that a row's line stands in."""
        return self._file(row).path

    def _file(self, row: int) -> _File:
        number = self._files_of.get(row)
        return self._files[bisect_right(self._files, row, key=_first_row) - 1 if number is None else number]

    def add(self, offset: int, number: int, line: bytes) -> None:
        """Take in one line, in file order.

        Args:
            offset: Where its bytes start in the file.
            number: Its line number, from 1.
            line: Its bytes without the line end.
        """
        try:
            fields = parse_fields(line)
        except Unreadable as fault:
            self.problems.append(Problem(self._path, number, str(fault)))
            return
        identity, time_us, name = id_number(fields["id"]), parse_time(fields["timestamp"]), self._names.number
        sender, msg_type, scene = name(fields["sender"]), name(fields["msg_type"]), name(fields.get("scene"))
        values = (offset, len(line), number, time_us, identity >> 64, identity & _LOW, sender, msg_type, scene)
        row = self.rows.get(identity)
        if row is None:
            row = self.rows[identity] = len(self)
            if row and time_us <= self.times_us[-1] and (time_us, identity) < self.key(row - 1):
                self._in_time_order = False
            self.id_sums.append((self.id_sums[-1] + identity) & _LOW)
            for column, value in zip(self._columns, values, strict=True):
                column.append(value)
        else:
            outranks = self._outranks(row, identity, number, line)
            shown_elsewhere = self._file(row) is not self._files[-1]
            self._other_lines[self.lines[row] if outranks and not shown_elsewhere else number] = row
            if not outranks:
                return
            self._unlink(row)
            if shown_elsewhere:
                self._files_of[row] = len(self._files) - 1
            self.rewritten += 1
            self._in_time_order = False
            self._by_time, self._time_sums = array("I"), array("Q", [0])
            for column, value in zip(self._columns, values, strict=True):
                column[row] = value
        if len(fields) > 6:
            self._link(row, fields)

    def _outranks(self, row: int, identity: int, number: int, line: bytes) -> bool:
        """Whether another line of a known id is to be shown instead; reports both when they differ."""
        file = self._file(row)
        shown = file.read_line(self.offsets[row], self.lengths[row])
        if shown == line:
            return False
        text = id_text(identity)
        if identity not in self._conflicts:
            self._conflicts.add(identity)
            self._report_conflict(file.path, self.lines[row], text)
        self._report_conflict(self._path, number, text)
        return line > shown

    def _report_conflict(self, path: str, number: int, text: str) -> None:
        message = f"id {text} stands on another line with different content: keep one of them"
        self.problems.append(Problem(path, number, message))

    def _unlink(self, row: int) -> None:
        parent = self.parents.pop(row, None)
        if parent is not None:
            self.replies[parent].remove(row)
        self.replaces.pop(row, None)
        self.expires_us.pop(row, None)
        self.urgent.discard(row)
        self.keyed = {key: keyed for key, keyed in self.keyed.items() if keyed != row}

    def _link(self, row: int, fields: dict[str, object]) -> None:
        parent = self._linked(row, "reply_to", fields.get("reply_to"))
        if parent is not None:
            self.parents[row] = parent
            self.replies.setdefault(parent, []).append(row)
        original = self._linked(row, "replaces", fields.get("replaces"))
        if original is not None:
            self.replaces[row] = original
        expires_at = fields.get("expires_at")
        if isinstance(expires_at, str):
            try:
                self.expires_us[row] = parse_time(expires_at)
            except ValueError:
                message = f"'expires_at' {expires_at!r} is not an RFC 3339 time; it is ignored"
                self.problems.append(Problem(self._path, self.lines[row], message))
        if fields.get("urgent"):
            self.urgent.add(row)
        key = fields.get("dedup_key")
        if isinstance(key, str):
            before = self.keyed.get((self.senders[row], key))
            if before is None or self.times_us[row] >= self.times_us[before]:
                self.keyed[self.senders[row], key] = row

    def _linked(self, row: int, key: str, text: object) -> int | None:
        if not isinstance(text, str):
            return None
        if not is_id(text):
            self.problems.append(Problem(self._path, self.lines[row], f"{key!r} {text!r} is not an id; it is ignored"))
            return None
        return id_number(text)

    def identity(self, row: int) -> int:
        """The id of a row as a number."""
        return self.ids_high[row] << 64 | self.ids_low[row]

    def key(self, row: int) -> tuple[int, int]:
        """(timestamp, id): the order across channels."""
        return self.times_us[row], self.identity(row)

    def sender(self, row: int) -> str:
        """Who wrote the row's message."""
        return self._names.text(self.senders[row]) or ""

    def scene(self, row: int) -> str | None:
        """The scene of the row's message."""
        return self._names.text(self.scenes[row])

    def msg_type(self, row: int) -> str:
        """The type of the row's message."""
        return self._names.text(self.types[row]) or ""

    def rows_above(self, message_id: str) -> int:
        """How many messages stand above a known one in the file."""
        return self.rows[id_number(message_id)]

    def by_time(self) -> range | array[int]:
        """The rows in (timestamp, id) order. After a merge that is not the file's order."""
        if self._in_time_order:
            return range(len(self))
        order, sums = self._by_time, self._time_sums
        late = range(len(order), len(self))
        if len(late) > _SORT_ROWS:
            self._by_time = order = array("I", sorted(range(len(self)), key=self.key))
            del sums[1:]
        else:
            for row in late:
                position = bisect_left(order, self.key(row), key=self.key)
                order.insert(position, row)
                del sums[position + 1 :]
        for position in range(len(sums) - 1, len(order)):
            sums.append((sums[position] + self.ids_low[order[position]]) & _LOW)
        return order

    def newest_us(self) -> int:
        """The newest timestamp; 0 when there is none."""
        order = self.by_time()
        return self.times_us[order[-1]] if order else 0

    def rows_from(self, time_us: int) -> Iterable[int]:
        """The rows from that timestamp on, in file order."""
        if self._in_time_order:
            return range(bisect_left(self.times_us, time_us), len(self))
        return (row for row in range(len(self)) if self.times_us[row] >= time_us)

    def ends_with(self, suffix: str) -> Iterator[int]:
        """The rows whose id ends with `suffix` (base 32 text)."""
        if len(suffix) == 26:
            row = self.rows.get(id_number(suffix)) if suffix[0] <= "7" else None
            if row is not None:
                yield row
            return
        bits = _ID_BITS_PER_CHARACTER * len(suffix)
        mask, wanted = (1 << bits) - 1, id_number(suffix)
        low_mask, low = mask & _LOW, wanted & _LOW
        for row, value in enumerate(self.ids_low):
            if value & low_mask == low and self.identity(row) & mask == wanted:
                yield row

    def sum_before(self, key: tuple[int, int]) -> int:
        """The sum of ids (as in `id_sums`) of the rows that come before `key` in (timestamp, id) order."""
        # By time first, which takes no tuple for each probe; few messages share a microsecond.
        if self._in_time_order:
            stop = bisect_left(self.times_us, key[0])
            while stop < len(self.times_us) and self.key(stop) < key:
                stop += 1
            return self.id_sums[stop]
        order = self.by_time()
        first = bisect_left(order, key[0], key=self.times_us.__getitem__)
        last = bisect_right(order, key[0], first, key=self.times_us.__getitem__)
        return self._time_sums[bisect_left(order, key, first, last, key=self.key)]

    def at_line(self, number: int) -> int | None:
        """The row whose message, or a duplicate of it, stands on this line of the mailbox."""
        row = self._other_lines.get(number)
        return self._at_line(number, self.archived, len(self)) if row is None else row

    def archived_at_line(self, number: int) -> Iterator[int]:
        """The rows on this line of the archived parts."""
        for file, following in pairwise(self._files):
            row = self._at_line(number, file.first_row, following.first_row)
            if row is not None:
                yield row

    def _at_line(self, number: int, start: int, stop: int) -> int | None:
        lines = self.lines
        if not self._conflicts:
            row = bisect_left(lines, number, start, stop)
            return row if row < stop and lines[row] == number else None
        return next((row for row in range(start, stop) if lines[row] == number), None)


class _File(NamedTuple):
    """One of a channel's files: the first row that stands in it, what Problems call it, how to read its lines."""

    first_row: int
    path: str
    read_line: Callable[[int, int], bytes]


_first_row = attrgetter("first_row")

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice, pairwise
from operator import attrgetter
from typing import Any, NamedTuple

from mq_server.chains import NumberOf, Parts, RowOf, RowsOf
from mq_server.errors import Problem
from mq_server.intake import Batch, Line, taken_in
from mq_server.names import ID_LENGTH, id_number, id_text, is_id, parse_ids, parse_time
from mq_server.orders import Sums, are_in_order, sorted_rows

ID_BITS_PER_CHARACTER = 5
_BATCH_LINES = 256
_SORT_ROWS, _SORT_PART = 64, 2048  # more late rows, and more than one of so many, are sorted in with all others


class Place(NamedTuple):
    """Where a message stands: a channel and a row of its index."""

    channel: str
    row: int


class _Numbers(dict[str | None, int]):
    """A number for each text, given out when it is first asked for."""

    def __init__(self) -> None:
        super().__init__({None: 0})
        self.texts: list[str | None] = [None]
        self._adding = threading.Lock()  # a long file is indexed in a thread, beside a short one on the event loop

    def __missing__(self, text: str | None) -> int:
        with self._adding:
            if text in self:
                return self[text]
            number = len(self.texts)
            self.texts.append(text)
            self[text] = number
            return number


class Names:
    """Text that recurs in many rows (senders, types, scenes) as small numbers; 0 is 'none'."""

    def __init__(self) -> None:
        self.numbers = _Numbers()
        """The number of each text, given out anew if need be."""
        self.change = 0
        """Another one whenever a row comes to any of the indexes that share these names, or changes in it."""
        self._changes = count(1)

    def changed(self) -> None:
        """Say that one of the indexes is not as it was."""
        self.change = next(self._changes)

    def number(self, text: str | None) -> int:
        """The number of a text, given out anew if need be."""
        return self.numbers[text]

    def known(self, text: str) -> int:
        """The number of a text, or -1 if no row has it."""
        return self.numbers.get(text, -1)

    def text(self, number: int) -> str | None:
        """The text of a number."""
        return self.numbers.texts[number]


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
        self.senders = array("I")
        self.types = array("I")
        self.scenes = array("I")
        self.rows = RowOf()
        self.ids_high = self.rows.highs
        self.ids_low = self.rows.lows
        self.id_sums = Sums(self.ids_low)
        """Per row, the sum of the random halves of all ids before it, modulo 2**64: says whether two readings of a
        mailbox hold the same set of messages up to a place."""
        self.replies = RowsOf()
        """The rows that answer a message, by its id."""
        self.parents = NumberOf(self.replies)
        """What a row answers."""
        self.replaces: dict[int, int] = {}
        self.expires_us: dict[int, int] = {}
        self.urgent: set[int] = set()
        self._keyed = RowsOf()
        self.problems: list[Problem] = []
        self.archived = 0
        """How many rows, the first ones, stand in archived parts."""
        self.rewritten = 0
        """How often a row was changed in place, because a greater line of the same id came."""
        self._in_time_order = True
        self._by_time = array("I")
        self._time_sums = Sums(self.ids_low, self._by_time)
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

    def parts(self) -> Parts:
        """Its columns and links; `facts` says the rest. While `rewritten` stays the same, no row of them changes."""
        columns = (self.offsets, self.lengths, self.lines, self.times_us)
        maps = (self.replaces, self.expires_us, self._other_lines, self._files_of)
        own = Parts((*self.named(), *columns), (self._by_time,), maps, (self.urgent, self._conflicts))
        return own.and_those_of(self.rows.parts(), self.replies.parts(), self._keyed.parts())

    def named(self) -> tuple[array[int], ...]:
        """Those of the columns that hold numbers of names."""
        return self.senders, self.types, self.scenes

    def facts(self) -> Facts:
        """What its parts leave open."""
        files = tuple((file.first_row, file.path) for file in self._files)
        return Facts(files, self.archived, self.rewritten, self._in_time_order, tuple(self.problems))

    def was_filled(self, facts: Facts, reader: Callable[[str], Callable[[int, int], bytes]]) -> None:
        """Say that its parts were filled with a copy of another one's.

        Args:
            facts: The other one's.
            reader: Gives `read_line` of a file.
        """
        self._files = [_File(first_row, path, reader(path)) for first_row, path in facts.files]
        self._path = self._files[-1].path
        self.archived, self.rewritten, self._in_time_order = facts.archived, facts.rewritten, facts.is_in_time_order
        self.problems += facts.problems
        for links in (self.rows, self.replies, self._keyed):
            links.was_filled()

    def path(self, row: int) -> str:
        """The file that a row's line stands in."""
        return self._file(row).path

    def _file(self, row: int) -> _File:
        number = self._files_of.get(row)
        return self._files[bisect_right(self._files, row, key=_first_row) - 1 if number is None else number]

    def add(self, offset: int, number: int, line: bytes) -> None:
        """Take in one line, in file order; arguments as in `extend`."""
        self.extend([(offset, number, line)])

    def extend(self, lines: Iterable[Line]) -> None:
        """Take in the next lines, in file order."""
        coming = iter(lines)
        while some := list(islice(coming, _BATCH_LINES)):
            self._names.changed()
            batch, faults = taken_in(some)
            self.problems += (Problem(self._path, number, fault) for number, fault in faults)
            new = self.rows.unknown(batch.highs, batch.lows)
            if len(new) == len(batch):
                self._append(batch)
            else:
                self._append(batch.only(new))
                for place in sorted({*range(len(batch))} - {*new}):
                    self._take_again(batch.only([place]))

    def prepare(self) -> None:
        """Do what the first answer would have to, as far as it takes long."""
        order = self.by_time()
        self.sum_before((0, 0) if not order else self.key(order[-1]))

    def _append(self, batch: Batch) -> None:
        """Take in lines whose ids are all new, and all different."""
        if not batch.lines:
            return
        first, number_of = len(self), self._names.numbers.__getitem__
        if self._in_time_order:
            keys = ((self.times_us, batch.times_us), (self.ids_high, batch.highs), (self.ids_low, batch.lows))
            self._in_time_order = are_in_order(*([*column[-1:], *values] for column, values in keys))
        offsets, line_numbers, texts = zip(*batch.lines, strict=True)
        self.offsets.fromlist([*offsets])
        self.lengths.fromlist([*map(len, texts)])
        self.lines.fromlist([*line_numbers])
        self.times_us.fromlist(batch.times_us)
        self.senders.fromlist([*map(number_of, batch.senders)])
        self.types.fromlist([*map(number_of, batch.types)])
        self.scenes.fromlist([*map(number_of, batch.scenes)])
        self.rows.extend(batch.highs, batch.lows)
        parents = {row: parent for row, parent in enumerate(batch.replies_to, first) if parent is not None}
        try:
            highs, lows = parse_ids([*parents.values()])
        except ValueError:
            wrong = {row for row, parent in parents.items() if self._linked(row, "reply_to", parent) is None}
            parents = {row: parent for row, parent in parents.items() if row not in wrong}
            highs, lows = parse_ids([*parents.values()])
        self.replies.extend(highs, lows, [*parents])
        for place in batch.rare:
            self._link(first + place, batch.fields[place])

    def _take_again(self, batch: Batch) -> None:
        """Take in a line whose id is known."""
        (offset, number, line), fields = batch.lines[0], batch.fields[0]
        row = self.rows.newest(batch.highs[0], batch.lows[0])
        outranks = self._outranks(row, self.identity(row), number, line)
        shown_elsewhere = self._file(row) is not self._files[-1]
        self._other_lines[self.lines[row] if outranks and not shown_elsewhere else number] = row
        if not outranks:
            return
        self._unlink(row)
        if shown_elsewhere:
            self._files_of[row] = len(self._files) - 1
        self.rewritten += 1
        if batch.times_us[0] != self.times_us[row]:
            self._in_time_order = False
            self._forget_order()
        number_of = self._names.numbers
        self.offsets[row], self.lengths[row], self.lines[row] = offset, len(line), number
        self.times_us[row] = batch.times_us[0]
        self.senders[row], self.types[row] = number_of[batch.senders[0]], number_of[batch.types[0]]
        self.scenes[row] = number_of[batch.scenes[0]]
        parent = self._linked(row, "reply_to", batch.replies_to[0])
        if parent is not None:
            self.replies.add(parent, row)
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
        self.replies.discard(row)
        self._keyed.discard(row)
        self.replaces.pop(row, None)
        self.expires_us.pop(row, None)
        self.urgent.discard(row)

    def _link(self, row: int, fields: dict[str, Any]) -> None:
        original = self._linked(row, "replaces", fields.get("replaces"))
        if original is not None:
            self.replaces[row] = original
        expires_at = fields.get("expires_at")
        if expires_at is not None:
            try:
                self.expires_us[row] = parse_time(expires_at)
            except ValueError:
                message = f"'expires_at' {expires_at!r} is not an RFC 3339 time; it is ignored"
                self.problems.append(Problem(self._path, self.lines[row], message))
        if fields.get("urgent"):
            self.urgent.add(row)
        key = fields.get("dedup_key")
        if key is not None:
            self._keyed.add(_digest(self.sender(row), key), row)

    def keyed(self, sender: int, key: str) -> int | None:
        """The newest row that a sender (by number) posted under a `dedup_key`."""
        if sender < 0:
            return None
        digest = _digest(self._names.text(sender) or "", key)
        return max(self._keyed.get(digest, ()), key=lambda row: (self.times_us[row], row), default=None)

    def _linked(self, row: int, key: str, text: str | None) -> int | None:
        """The number of an id that a row names under a key; None if it names none."""
        if text is not None and not is_id(text):
            self.problems.append(Problem(self._path, self.lines[row], f"{key!r} {text!r} is not an id; it is ignored"))
            return None
        return None if text is None else id_number(text)

    def identity(self, row: int) -> int:
        """The id of a row as a number."""
        return self.rows.number(row)

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
        order = self._by_time
        late = range(len(order), len(self))
        if len(late) > max(_SORT_ROWS, len(order) // _SORT_PART):
            self._forget_order()
            for part in sorted_rows(self.times_us, self.identity):
                self._by_time.extend(part)
        else:
            for row in late:
                position = bisect_left(order, self.key(row), key=self.key)
                order.insert(position, row)
                self._time_sums.forget(position)
        return self._by_time

    def _forget_order(self) -> None:
        self._by_time = array("I")
        self._time_sums = Sums(self.ids_low, self._by_time)

    def newest_us(self) -> int:
        """The newest timestamp; 0 when there is none."""
        order = self.by_time()
        return self.times_us[order[-1]] if order else 0

    def rows_from(self, time_us: int) -> Sequence[int]:
        """The rows from that timestamp on, in file order."""
        if self._in_time_order:
            return range(bisect_left(self.times_us, time_us), len(self))
        order = self.by_time()
        return sorted(order[bisect_left(order, time_us, key=self.times_us.__getitem__) :])

    def ends_with(self, suffix: str) -> Iterator[int]:
        """The rows whose id ends with `suffix` (base 32 text)."""
        if len(suffix) == ID_LENGTH:
            row = self.rows.get(id_number(suffix)) if suffix[0] <= "7" else None
            if row is not None:
                yield row
            return
        yield from self.rows.ending(id_number(suffix), ID_BITS_PER_CHARACTER * len(suffix))

    def rows_before(self, key: tuple[int, int]) -> int:
        """How many rows come before `key` in (timestamp, id) order."""
        order, times_us, time_us = self.by_time(), self.times_us, key[0]
        # By time first, which takes no tuple for each probe; few messages share a microsecond.
        if isinstance(order, range):
            first = bisect_left(times_us, time_us)
            last = bisect_right(times_us, time_us, first)
        else:
            first = bisect_left(order, time_us, key=times_us.__getitem__)
            last = bisect_right(order, time_us, first, key=times_us.__getitem__)
        return bisect_left(order, key, first, last, key=self.key)

    def sum_before(self, key: tuple[int, int]) -> int:
        """The sum of ids (as in `id_sums`) of the rows that come before `key` in (timestamp, id) order."""
        rows = self.rows_before(key)  # which puts the order right that one of the sums goes along
        return self.id_sums[rows] if self._in_time_order else self._time_sums[rows]

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
        row = bisect_left(self.lines, number, start, stop)
        if row < stop and self.lines[row] == number:
            return row
        if self.rewritten:  # a greater line of a known id stands further down than its row, and leads the search astray
            with suppress(ValueError):
                return self.lines.index(number, start, stop)
        return None


def _digest(sender: str, key: str) -> int:
    from hashlib import blake2b

    # By name, not by number: other processes give out other numbers, and an index may come from one of them.
    return int.from_bytes(blake2b(f"{len(sender)} {sender} {key}".encode(), digest_size=16).digest(), "big")


class Facts(NamedTuple):
    """What an index holds besides its parts."""

    files: tuple[tuple[int, str], ...]
    """For each, the first row that stands in it, and what Problems call it."""
    archived: int
    rewritten: int
    is_in_time_order: bool
    problems: tuple[Problem, ...]


class _File(NamedTuple):
    """One of a channel's files: the first row that stands in it, what Problems call it, how to read its lines."""

    first_row: int
    path: str
    read_line: Callable[[int, int], bytes]


_first_row = attrgetter("first_row")

"""Who has read what: receipts, and what is unread. No I/O.

A reader is a named, durable consumer of a channel. What it has settled stands in `receipts/<channel>.jsonl`, one line a
call:

    {"id","timestamp","channel","reader","consumer","op","ids":[…],"reason"?,"after"?}

`op` is `ack`, `reject`, `reopen` or `seek`. A reader's state is the fold of its lines in (timestamp, id) order, so that
every merge order of two branches gives the same state:

    ack, reject   settle ids; the first wins, until a later reopen or seek
    reopen        makes ids unread again
    seek          forgets all of that; what is stamped before `after` counts as read, also when a merge brings it later

"Unread" is a set of ids, not a line number: a merge may bring older messages at any time. What stands in the archive is
not unread, whoever reads, unless it was reopened.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress, filterfalse, islice
from sys import intern
from typing import Any, NamedTuple, overload

import orjson

from mq_server.columns import ChannelIndex
from mq_server.errors import Problem
from mq_server.names import id_number, is_id, parse_time

_STRETCH = 1 << 12  # rows that are looked at together
_COMPARED_ROWS = 1 << 14
_ALWAYS_CARRIED = 1000  # so many changed rows are soon looked up
_TEXT = frozenset({str})
OPERATIONS = ("ack", "reject", "reopen", "seek")


class Receipt(NamedTuple):
    """One line of a receipts file; ordered by (timestamp, id)."""

    time_us: int
    id: str
    reader: str
    consumer: str
    op: str
    ids: tuple[int, ...]
    after_us: int
    reason: str = ""


class ReaderState:
    """What one reader has settled: the fold of its receipts."""

    def __init__(self) -> None:
        self.settled: dict[int, Receipt] = {}
        self.reopened: set[int] = set()
        self.seek_us = 0
        self.resets = 0
        """How often something became unread again; a cached list of unread rows is good for one value of it."""
        self.log: list[int] = []
        """The ids settled since the last reset, in order."""

    def apply(self, receipt: Receipt) -> None:
        """Fold the next receipt in."""
        if receipt.op == "seek":
            self.settled.clear()
            self.reopened.clear()
            self.log.clear()
            self.seek_us = receipt.after_us
            self.resets += 1
        elif receipt.op == "reopen":
            for identity in receipt.ids:
                self.settled.pop(identity, None)
                self.reopened.add(identity)
            self.resets += 1
        else:
            fresh = [*filterfalse(self.settled.__contains__, receipt.ids)]
            self.settled.update(dict.fromkeys(fresh, receipt))
            self.log += dict.fromkeys(fresh)

    def is_settled(self, identity: int, time_us: int) -> bool:
        """Whether the reader is done with a message of that id and timestamp."""
        return identity in self.settled or self.is_passed(identity, time_us)

    def is_passed(self, identity: int, time_us: int) -> bool:
        """Whether a seek has passed over it."""
        return time_us < self.seek_us and identity not in self.reopened


class ReceiptIndex:
    """The receipts of one channel, folded per reader.

    Args:
        path: What Problems call the file.
        read_line: Gives the bytes at (offset, length); asked only when two lines bear the same id.
    """

    def __init__(self, path: str, read_line: Callable[[int, int], bytes]) -> None:
        self._path = path
        self._read_line = read_line
        self.problems: list[Problem] = []
        self._states: dict[str, ReaderState] = {}
        self._receipts: dict[str, list[Receipt]] = {}
        # By id, its row in what follows: the receipts, and where they stand in the file.
        self._rows: dict[str, int] = {}
        self._taken: list[Receipt] = []
        self._numbers, self._offsets, self._lengths = array("I"), array("Q"), array("I")
        self._conflicts: set[str] = set()
        self._unfolded: set[str] = set()

    def extend(self, lines: Iterable[tuple[int, int, bytes]]) -> None:
        """Take in the next lines: the offset, number and bytes of each."""
        for offset, number, line in lines:
            self.add(offset, number, line)

    def __len__(self) -> int:
        return len(self._taken)

    def prepare(self) -> None:
        """Fold in late receipts, which is put off while they come."""
        for reader in list(self._unfolded):
            self.state(reader)

    def add(self, offset: int, number: int, line: bytes) -> None:
        """Take in one line of the file."""
        try:
            receipt = parse_receipt(line)
        except ValueError as fault:
            self.problems.append(Problem(self._path, number, str(fault)))
            return
        row = self._rows.get(receipt.id)
        if row is None:
            self._rows[receipt.id] = len(self._taken)
            self._taken.append(receipt)
            self._numbers.append(number)
            self._offsets.append(offset)
            self._lengths.append(len(line))
        else:
            if not self._outranks(row, number, line):
                return
            known = self._taken[row]
            self._receipts[known.reader].remove(known)
            self._unfolded.add(known.reader)
            self._taken[row], self._numbers[row] = receipt, number
            self._offsets[row], self._lengths[row] = offset, len(line)
        receipts = self._receipts.setdefault(receipt.reader, [])
        if receipts and receipt < receipts[-1]:
            self._unfolded.add(receipt.reader)
        if receipt.reader in self._unfolded:
            insort(receipts, receipt)
        else:
            receipts.append(receipt)
            self._states.setdefault(receipt.reader, ReaderState()).apply(receipt)

    def state(self, reader: str) -> ReaderState:
        """The state of a reader; one that has settled nothing has everything unread."""
        if reader in self._unfolded:
            # Late receipts are folded in once, here: a merged file brings them by the thousand.
            self._unfolded.discard(reader)
            state = self._states[reader] = ReaderState()
            for receipt in self._receipts[reader]:
                state.apply(receipt)
        return self._states.setdefault(reader, ReaderState())

    def has(self, receipt_id: str) -> bool:
        """Whether a receipt of that id stands in the file."""
        return receipt_id in self._rows

    def readers(self) -> Iterable[str]:
        """Who has settled anything."""
        return self._receipts

    def newest_us(self, reader: str) -> int:
        """When a reader last settled something; 0 if it never did."""
        receipts = self._receipts.get(reader)
        return receipts[-1].time_us if receipts else 0

    def _outranks(self, row: int, number: int, line: bytes) -> bool:
        """Whether another line of a known id is to be taken instead; reports both when they differ."""
        taken = self._read_line(self._offsets[row], self._lengths[row])
        if taken == line:
            return False
        receipt_id = self._taken[row].id
        if receipt_id not in self._conflicts:
            self._conflicts.add(receipt_id)
            self._report_conflict(self._numbers[row], receipt_id)
        self._report_conflict(number, receipt_id)
        return line > taken

    def _report_conflict(self, number: int, receipt_id: str) -> None:
        message = f"receipt {receipt_id} stands on another line with different content: keep one"
        self.problems.append(Problem(self._path, number, message))


def parse_receipt(line: bytes) -> Receipt:
    """The receipt of a line.

    Raises:
        ValueError: With what is wrong, in the words of a Problem.
    """
    try:
        fields: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not a readable receipt: {error.msg}") from None
    if type(fields) is not dict:
        raise ValueError("not a JSON object")
    for key in ("id", "timestamp", "reader", "op"):
        if type(fields.get(key)) is not str:
            raise ValueError(f"{key!r} must be a string")
    ids = fields.get("ids", [])
    if type(ids) is not list or not (_TEXT.issuperset(map(type, ids)) and all(map(is_id, ids))):
        raise ValueError("'ids' must be a list of message ids")
    if fields["op"] not in OPERATIONS:
        raise ValueError(f"'op' {fields['op']!r} is none of {', '.join(OPERATIONS)}")
    after_us = 0
    if fields["op"] == "seek":
        after_us = _time_us(fields, "after")
    return Receipt(
        _time_us(fields, "timestamp"),
        fields["id"],
        # The same few words in every line are kept once.
        intern(fields["reader"]),
        intern(str(fields.get("consumer") or fields["reader"])),
        intern(fields["op"]),
        tuple(map(id_number, ids)),
        after_us,
        str(fields.get("reason") or ""),
    )


def _time_us(fields: dict[str, Any], key: str) -> int:
    try:
        return parse_time(str(fields.get(key)))
    except ValueError:
        raise ValueError(f"{key!r} {fields.get(key)!r} is not an RFC 3339 time with a zone, from 1970 on") from None


def receipt_fields(
    receipt_id: str,
    timestamp: str,
    channel: str,
    reader: str,
    consumer: str,
    op: str,
    ids: Sequence[str],
    *,
    reason: str = "",
    after: str = "",
) -> dict[str, Any]:
    """The keys of a receipt's line, in order."""
    fields: dict[str, Any] = {
        "id": receipt_id,
        "timestamp": timestamp,
        "channel": channel,
        "reader": reader,
        "consumer": consumer,
        "op": op,
        "ids": list(ids),
    }
    if reason:
        fields["reason"] = reason
    if after:
        fields["after"] = after
    return fields


class Rows(Sequence[int]):
    """Some rows of a channel in file order. To find the first few takes no longer where there are many.

    Args:
        flags: A byte for each row there is: one if it is among them.
    """

    def __init__(self, flags: bytearray) -> None:
        self.flags = flags
        self._left_out: frozenset[int] = frozenset()
        """Rows that are not among them all the same."""
        self._length = flags.count(1)

    def __len__(self) -> int:
        return self._length

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and self._is_flagged(row) and row not in self._left_out

    def __iter__(self) -> Iterator[int]:
        first = max(0, self.flags.find(1))
        rows = chain.from_iterable(map(self._flagged, range(first, len(self.flags), _STRETCH)))
        return filterfalse(self._left_out.__contains__, rows) if self._left_out else rows

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return list(islice(self, *place.indices(self._length)))
        return next(islice(self, range(self._length)[place], None))

    def put(self, row: int, flag: int) -> None:
        """Take a row in (1) or out (0)."""
        self._length += flag - self.flags[row]
        self.flags[row] = flag

    def without(self, rows: Iterable[int]) -> Rows:
        """These rows but for some; good as long as no row is put in or out of these."""
        left = Rows.__new__(Rows)  # which does not count anew
        left.flags, left._left_out = self.flags, self._left_out.union(filter(self._is_flagged, rows))
        left._length = self._length + len(self._left_out) - len(left._left_out)
        return left

    def _is_flagged(self, row: int) -> bool:
        return 0 <= row < len(self.flags) and self.flags[row] == 1

    def _flagged(self, start: int) -> Iterator[int]:
        """Those of one stretch that have a byte."""
        return compress(range(start, start + _STRETCH), self.flags[start : start + _STRETCH])


class Unread:
    """The rows of one channel that one reader has not settled, kept up to date step by step."""

    def __init__(self) -> None:
        self._channel: ChannelIndex | None = None
        self._state: ReaderState | None = None
        self._basis = (-1, -1)
        self._log_seen = 0
        self._rows = Rows(bytearray())

    def rows(self, channel: ChannelIndex, state: ReaderState) -> Rows:
        """The unread rows in file order, superseded and expired ones included. Not to be changed by the caller."""
        basis = (state.resets, channel.rewritten)
        if channel is not self._channel or state is not self._state or basis != self._basis:
            flags = self._carried_over(channel, state) or _flags(channel, state)
            self._rows, self._log_seen = Rows(flags), len(state.log)
            self._channel, self._state, self._basis = channel, state, basis
        rows = self._rows
        for identity in state.log[self._log_seen :]:
            row = channel.rows.get(identity, -1)
            if 0 <= row < len(rows.flags):
                rows.put(row, 0)
        self._log_seen = len(state.log)
        for row in range(len(rows.flags), len(channel)):
            rows.flags.append(0)
            rows.put(row, not state.is_settled(channel.identity(row), channel.times_us[row]))
        return rows

    def _carried_over(self, channel: ChannelIndex, state: ReaderState) -> bytearray | None:
        """The flags of a channel whose file was changed by somebody else, from what is known of it.

        An editor changes a few lines of many: above and below them nothing has to be looked up. None if that does not
        hold, or does not pay.
        """
        known = self._channel
        if known is None or known is channel or known.archived != channel.archived:
            return None
        if state is not self._state or self._basis != (state.resets, known.rewritten):
            return None
        flags = self.rows(known, state).flags
        pairs = list(zip(_keys(known), _keys(channel), strict=True))
        shorter = min(len(known), len(channel))
        above = _same_rows(pairs, shorter, from_end=False)
        below = _same_rows(pairs, shorter - above, from_end=True)
        changed = range(above, len(channel) - below)
        if above < channel.archived or len(changed) > len(state.settled) + _ALWAYS_CARRIED:
            return None
        between = [not state.is_settled(channel.identity(row), channel.times_us[row]) for row in changed]
        return flags[:above] + bytes(between) + flags[len(flags) - below :]


def _keys(channel: ChannelIndex) -> tuple[array[int], ...]:
    return channel.ids_low, channel.ids_high, channel.times_us


def _same_rows(pairs: Sequence[tuple[array[int], array[int]]], limit: int, *, from_end: bool) -> int:
    """How many rows at the start, or at the end, are the same in both columns of each pair; at most `limit`."""

    def bytes_of(column: array[int]) -> bytes:  # which are compared much faster than numbers
        start = len(column) - count - step if from_end else count
        return memoryview(column)[start : start + step].tobytes()

    count, step = 0, _COMPARED_ROWS
    while step:
        if count + step <= limit and all(bytes_of(one) == bytes_of(other) for one, other in pairs):
            count += step
        else:
            step //= 2
    return count


def _flags(channel: ChannelIndex, state: ReaderState) -> bytearray:
    """For each row whether it is unread."""
    flags = bytearray(b"\1") * len(channel)
    if state.seek_us:
        flags = bytearray(map(state.seek_us.__le__, channel.times_us))
    flags[: channel.archived] = bytes(channel.archived)
    for identities, flag in ((state.reopened, 1), (state.settled, 0)):
        for row in map(channel.rows.get, identities):
            if row is not None:
                flags[row] = flag
    return flags

"""Rows by id, for a million rows: hash tables over arrays, a few bytes a row. No I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import lt
from typing import NamedTuple, Self, TypeVar, overload

LOW = (1 << 64) - 1
NONE = 0xFFFF_FFFF
"""What stands for no entry."""
_FIRST_BUCKETS = 8
_REHASHED_ENTRIES = 1 << 16  # that takes some milliseconds
_SLICE = 1 << 14  # gone through in a fraction of a millisecond, in which no other thread runs
_GROWTH = 4  # so that on the way up an entry is rehashed once in three times, not once
T = TypeVar("T")


class Parts(NamedTuple):
    """What something in memory consists of: to be copied elsewhere, or to be filled with a copy while it is empty."""

    growing: tuple[array[int], ...] = ()
    """What is in them stays as it is; more may come behind it."""
    changing: tuple[array[int], ...] = ()
    maps: tuple[dict[int, int], ...] = ()
    sets: tuple[set[int], ...] = ()

    def and_those_of(self, *others: Parts) -> Self:
        """These and others, in one."""
        return type(self)(*(sum(each, ()) for each in zip(self, *others, strict=True)))


class Probe(NamedTuple):
    """A table as it is asked, for who asks hundreds; good until it grows.

    `heads[low & mask]` is the newest entry that may be meant, `before[entry]` the next; NONE says that there is none.
    """

    heads: array[int]
    mask: int
    lows: array[int]
    highs: array[int]
    before: array[int]


class Chains:
    """Numbers of 128 bits, each an entry; entries count from 0 as they come, and none ever leaves.

    The last bits of a number are its hash: ids and digests end in random ones, and so the ids that share their last
    characters are found together. A bucket's head is its newest entry, and each entry knows the one before it.

    A large table grows without touching its entries: the new half of the heads is a copy of the old one, so that two
    buckets go on to share what was in one. That makes their chains a little longer; what is not meant is passed over.
    """

    def __init__(self) -> None:
        self.highs = array("Q")
        self.lows = array("Q")
        self._before = array("I")
        self._heads = array("I", [NONE]) * _FIRST_BUCKETS
        self._mask = _FIRST_BUCKETS - 1

    def __len__(self) -> int:
        return len(self.lows)

    def extend(self, highs: Sequence[int], lows: Sequence[int]) -> None:
        """Add entries.

        Args:
            highs: The first 64 bits of each number.
            lows: The last 64 bits of each.
        """
        first = len(self)
        self.highs.fromlist([*highs])
        self.lows.fromlist([*lows])
        while len(self) > len(self._heads):
            self._grow(first)
        self._chain(lows, first)

    def _chain(self, lows: Iterable[int], first: int) -> None:
        heads, before, mask = self._heads, self._before, self._mask
        for entry, bucket in enumerate([low & mask for low in lows], first):
            before.append(heads[bucket])
            heads[bucket] = entry

    def _grow(self, count: int) -> None:
        """Have more heads; so many entries are in chains by now."""
        if count > _REHASHED_ENTRIES:
            self._mask = 2 * len(self._heads) - 1
            self._heads.extend(self._heads)
        else:
            self._mask = _GROWTH * len(self._heads) - 1
            self._heads = array("I", [NONE]) * (self._mask + 1)
            self._before = array("I")
            self._chain(self.lows[:count], 0)

    def parts(self) -> Parts:
        """The entries, which only grow, and the heads."""
        return Parts((self.highs, self.lows, self._before), (self._heads,))

    def was_filled(self) -> None:
        """Say that its parts were filled with a copy."""
        self._mask = len(self._heads) - 1

    def probe(self) -> Probe:
        """The table as it is asked now."""
        return Probe(self._heads, self._mask, self.lows, self.highs, self._before)

    def newest(self, high: int, low: int) -> int:
        """The newest entry of a number, given as its first and its last 64 bits; -1 if there is none."""
        entry = self._heads[low & self._mask]
        while entry != NONE:
            if self.lows[entry] == low and self.highs[entry] == high:
                return entry
            entry = self._before[entry]
        return -1

    def entries(self, high: int, low: int) -> list[int]:
        """All entries of a number, in the order they came."""
        entry = self.newest(high, low)
        if entry < 0:
            return []
        found = [entry]
        while (entry := self._before[entry]) != NONE:
            if self.lows[entry] == low and self.highs[entry] == high:
                found.append(entry)
        found.reverse()
        return found

    def ending(self, number: int, bits: int) -> list[int]:
        """All entries whose number ends like another one, in the order they came.

        Args:
            number: The other one.
            bits: So many of its last bits count.
        """
        mask, buckets = (1 << bits) - 1, len(self._heads)
        step = min(1 << bits, buckets)
        found = set()
        for bucket in range(number % step, buckets, step):
            entry = self._heads[bucket]
            while entry != NONE:
                if not ((self.highs[entry] << 64 | self.lows[entry]) ^ number) & mask:
                    found.add(entry)
                entry = self._before[entry]
        return sorted(found)

    def number(self, entry: int) -> int:
        """The number of an entry."""
        return self.highs[entry] << 64 | self.lows[entry]


class RowOf(Chains, Mapping[int, int]):
    """The row of each number; rows count from 0 as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._greatest = -1

    def unknown(self, highs: Sequence[int], lows: Sequence[int]) -> Sequence[int]:
        """Which of these have no row, by their places; of several of one number the first.

        Args:
            highs: The first 64 bits of each number.
            lows: The last 64 bits of each.
        """
        if highs and highs[0] > self._greatest and all(map(lt, highs, highs[1:])):
            self._greatest = highs[-1]
            return range(len(highs))
        greatest, places = self._greatest, []
        seen: set[tuple[int, int]] = set()
        for place, number in enumerate(zip(highs, lows, strict=True)):
            high = number[0]
            if high > greatest:  # the ids of a file grow, but for what a merge or the same millisecond brings
                greatest = high
            elif number in seen or self.newest(*number) >= 0:
                continue
            places.append(place)
            seen.add(number)
        self._greatest = greatest
        return places

    def was_filled(self) -> None:
        super().was_filled()
        slices = (self.highs[start : start + _SLICE] for start in range(0, len(self), _SLICE))
        self._greatest = max(map(max, slices), default=-1)

    def __getitem__(self, number: int) -> int:
        row = self.newest(number >> 64, number & LOW)
        if row < 0:
            raise KeyError(number)
        return row

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.newest(number >> 64, number & LOW) >= 0

    def __iter__(self) -> Iterator[int]:
        return map(self.number, range(len(self)))

    @overload
    def get(self, number: int, /) -> int | None: ...
    @overload
    def get(self, number: int, /, default: int | T) -> int | T: ...
    def get(self, number: int, /, default: object = None) -> object:
        """The row of a number."""
        row = self.newest(number >> 64, number & LOW)
        return default if row < 0 else row


class RowsOf(Mapping[int, list[int]]):
    """The rows of each number, in the order they came; a row has one number or none."""

    def __init__(self) -> None:
        self._chains = Chains()
        self._rows = array("I")  # of each entry; ascending, for the sake of `number_of`
        self._late: dict[int, int] = {}  # by entry, a row that came out of order, and the other way round
        self._late_entries: dict[int, int] = {}
        self._discarded: set[int] = set()

    @property
    def numbers(self) -> Chains:
        """The numbers, some of which may have no row any more."""
        return self._chains

    def parts(self) -> Parts:
        """All it consists of."""
        own = Parts((self._rows,), (), (self._late, self._late_entries), (self._discarded,))
        return own.and_those_of(self._chains.parts())

    def was_filled(self) -> None:
        """Say that its parts were filled with a copy."""
        self._chains.was_filled()

    def extend(self, highs: Sequence[int], lows: Sequence[int], rows: list[int]) -> None:
        """Say that rows have these numbers.

        Args:
            highs: The first 64 bits of each number.
            lows: The last 64 bits of each.
            rows: One for each number, in order, and beyond all that came before.
        """
        self._rows.fromlist(rows)
        self._chains.extend(highs, lows)

    def add(self, number: int, row: int) -> None:
        """Say that a row has a number; it may be an earlier row that had none, or another one."""
        if self._rows and row <= self._rows[-1]:
            entry = len(self._rows)
            self._late[entry], self._late_entries[row], row = row, entry, self._rows[-1]
        self.extend([number >> 64], [number & LOW], [row])

    def discard(self, row: int) -> None:
        """Say that a row has no number any more."""
        entry = self._entry(row)
        if entry is not None:
            self._discarded.add(entry)
            self._late_entries.pop(row, None)

    def number_of(self, row: int) -> int | None:
        """The number of a row; None if it has none."""
        entry = self._entry(row)
        return None if entry is None else self._chains.number(entry)

    def _entry(self, row: int) -> int | None:
        entry = self._late_entries.get(row)
        if entry is None:
            entry = bisect_left(self._rows, row)
            if entry == len(self._rows) or self._rows[entry] != row or entry in self._discarded:
                return None
        return entry

    @overload
    def get(self, number: int, /) -> list[int] | None: ...
    @overload
    def get(self, number: int, /, default: list[int] | T) -> list[int] | T: ...
    def get(self, number: int, /, default: object = None) -> object:
        """The rows of a number."""
        return self.of(number >> 64, number & LOW) or default

    def of(self, high: int, low: int) -> list[int]:
        """The rows of a number, given as its first and its last 64 bits."""
        return self.rows_of(self._chains.entries(high, low))

    def rows_of(self, entries: list[int]) -> list[int]:
        """The rows of some entries of `numbers`."""
        if not (self._late or self._discarded):
            return [self._rows[entry] for entry in entries]
        return [self._late.get(entry, self._rows[entry]) for entry in entries if entry not in self._discarded]

    def __getitem__(self, number: int) -> list[int]:
        rows = self.get(number)
        if not rows:
            raise KeyError(number)
        return list(rows)

    def __iter__(self) -> Iterator[int]:
        kept = (entry for entry in range(len(self._rows)) if entry not in self._discarded)
        return iter(dict.fromkeys(map(self._chains.number, kept)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class NumberOf(Mapping[int, int]):
    """The number of each row that has one.

    Args:
        rows_of: The same, seen from the other side.
    """

    def __init__(self, rows_of: RowsOf) -> None:
        self._rows_of = rows_of

    @overload
    def get(self, row: int, /) -> int | None: ...
    @overload
    def get(self, row: int, /, default: int | T) -> int | T: ...
    def get(self, row: int, /, default: object = None) -> object:
        """The number of a row."""
        number = self._rows_of.number_of(row)
        return default if number is None else number

    def __getitem__(self, row: int) -> int:
        number = self._rows_of.number_of(row)
        if number is None:
            raise KeyError(row)
        return number

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(row for rows in self._rows_of.values() for row in rows))

    def __len__(self) -> int:
        return sum(map(len, self._rows_of.values()))

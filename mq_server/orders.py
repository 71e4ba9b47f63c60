"""Rows in an order that is not the file's, and sums along it. No I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import compress, count, islice, pairwise
from operator import eq, lt

_LOW = (1 << 64) - 1
_SUMMED_ROWS = 32
"""Sums of ids are beyond a machine word, which makes each addition take longer than a look-up."""
_SORTED_ROWS = 1 << 15
"""Sorting so many takes some milliseconds, in which no other thread runs."""
_SAMPLED = 64


def are_in_order(times_us: Sequence[int], highs: Sequence[int], lows: Sequence[int]) -> bool:
    """Whether they are in (timestamp, id) order; the ids are given as their first and their last 64 bits."""
    return all(map(lt, times_us, times_us[1:])) or all(
        one <= other for one, other in pairwise(zip(times_us, highs, lows, strict=True))
    )


def sorted_rows(times_us: array[int], identity: Callable[[int], int]) -> Iterator[list[int]]:
    """All rows by (timestamp, id), in parts.

    By the timestamp alone at first, which needs no Python for each row; and in many small sorts, since one of a million
    rows would hold up the event loop from within its thread.

    Args:
        times_us: The timestamp of each row.
        identity: Gives the id of a row, asked where timestamps are the same.
    """
    time_of = times_us.__getitem__
    size = len(times_us)
    runs = [
        sorted(range(start, min(start + _SORTED_ROWS, size)), key=time_of) for start in range(0, size, _SORTED_ROWS)
    ]
    sample = sorted(times_us[:: max(1, _SORTED_ROWS // _SAMPLED)])
    starts = [0] * len(runs)
    for bound in (*sample[_SAMPLED::_SAMPLED], None):
        part: list[int] = []
        for number, run in enumerate(runs):
            stop = len(run) if bound is None else bisect_left(run, bound, starts[number], key=time_of)
            part += run[starts[number] : stop]
            starts[number] = stop
        part.sort(key=time_of)
        _sort_ties(part, [times_us[row] for row in part], identity)
        yield part


def _sort_ties(rows: list[int], times_us: list[int], identity: Callable[[int], int]) -> None:
    stop = 0
    for start in compress(count(), map(eq, times_us, islice(times_us, 1, None))):
        if start >= stop:
            stop = bisect_right(times_us, times_us[start], start)
            rows[start:stop] = sorted(rows[start:stop], key=identity)


class Sums:
    """Sums of the first values of a column, modulo 2**64: `sums[n]` is that of the first n.

    Args:
        column: The values.
        order: Row numbers that say in which order they come; by default that of the column. Both may grow.
    """

    def __init__(self, column: array[int], order: Sequence[int] | None = None) -> None:
        self._column = column
        self._order = order
        self._kept = array("Q", [0])  # every so many values

    def __getitem__(self, count: int) -> int:
        kept = self._kept
        for start in range((len(kept) - 1) * _SUMMED_ROWS, count - _SUMMED_ROWS + 1, _SUMMED_ROWS):
            kept.append(kept[-1] + self._sum(start, start + _SUMMED_ROWS) & _LOW)
        start = count // _SUMMED_ROWS
        return kept[start] + self._sum(start * _SUMMED_ROWS, count) & _LOW

    def _sum(self, start: int, stop: int) -> int:
        if self._order is None:
            return sum(self._column[start:stop])
        return sum(map(self._column.__getitem__, self._order[start:stop]))

    def forget(self, position: int) -> None:
        """Say that the order changed from a position on."""
        del self._kept[position // _SUMMED_ROWS + 1 :]

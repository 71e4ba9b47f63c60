"""The order across channels, (timestamp, id), a window of time at a time. No I/O, no clock.

A window holds all rows of all channels within a time, and about as many rows as are wanted: it is cut from the columns
and sorted by built-ins, which takes a fraction of what a merge row by row does. The next one is twice as long.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat

from mq_server.columns import ChannelIndex

_FIRST_ROWS = 104  # a usual page, and the next row
_MOST_ROWS = 8192
Keyed = tuple[int, int, int, str, int]
"""A row in the common order: its timestamp, the two halves of its id, its place."""
Wants = Callable[[ChannelIndex, Sequence[int]], Sequence[int]]
"""Picks those of a channel's rows that are wanted."""
Taken = tuple[ChannelIndex, Sequence[int]]
"""A channel and some of its rows."""


class Stretch:
    """What is left of one channel's rows, in order of time.

    Args:
        index: The channel.
        since_us: Only from this timestamp on.
        until_us: Only before this timestamp.
    """

    def __init__(self, index: ChannelIndex, since_us: int | None, until_us: int | None) -> None:
        self.index = index
        self._order = index.by_time()
        self._times_us = index.times_us
        self._in_file_order = isinstance(self._order, range)
        self.start, self.stop = 0, len(self._times_us)
        if since_us is not None:
            self.start = self._bisect(bisect_left, since_us)
        if until_us is not None:
            self.stop = self._bisect(bisect_left, until_us)

    def time_us(self, position: int) -> int:
        """The timestamp at a position, or of the last row in that direction."""
        if position < self.start:
            position = self.start
        elif position >= self.stop:
            position = self.stop - 1
        return self._times_us[position if self._in_file_order else self._order[position]]

    def take_from(self, time_us: int) -> Sequence[int]:
        """The rows from that timestamp on, which are then no longer left."""
        stop, self.stop = self.stop, self._bisect(bisect_left, time_us)
        return self._order[self.stop : stop]

    def take_until(self, time_us: int) -> Sequence[int]:
        """The rows up to that timestamp, which are then no longer left."""
        start, self.start = self.start, self._bisect(bisect_right, time_us)
        return self._order[start : self.start]

    def _bisect(self, bisect: Callable[..., int], time_us: int) -> int:
        if self._in_file_order:
            return bisect(self._times_us, time_us, self.start, self.stop)
        return bisect(self._order, time_us, self.start, self.stop, key=self._times_us.__getitem__)


def windows(
    channels: Sequence[tuple[int, ChannelIndex]],
    wants: Wants,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    newest_first: bool,
) -> Iterator[list[Keyed]]:
    """All rows in order, window by window; copies of one id by channel.

    Args:
        channels: Each with a timestamp that none of its rows is later than, the latest first. When the newest rows come
            first, a channel is not looked into before its timestamp is reached: mostly few of hundreds are.
        wants: Which rows.
        since_us: Only from this timestamp on.
        until_us: Only before this timestamp.
        newest_first: The other way round.
    """
    coming = [(newest_us, index) for newest_us, index in channels if since_us is None or newest_us >= since_us]
    coming.reverse()
    stretches: list[Stretch] = []

    def look_into_next() -> None:
        stretch = Stretch(coming.pop()[1], since_us, until_us)
        if stretch.start < stretch.stop:
            stretches.append(stretch)

    size = _FIRST_ROWS
    while True:
        while coming and (len(stretches) < size or not newest_first):
            look_into_next()
        if not stretches:
            return
        edge_us = _edge_us(stretches, size, newest_first)
        while coming and coming[-1][0] >= edge_us:
            look_into_next()
        found: list[Keyed] = []
        for index, taken in _taken(stretches, edge_us, newest_first):
            rows = wants(index, taken)
            if rows:
                found += _keyed(index, rows)
        found.sort(reverse=newest_first)
        yield found
        size = min(2 * size, _MOST_ROWS)
        stretches = [stretch for stretch in stretches if stretch.start < stretch.stop]


def cut(stretches: list[Stretch], size: int, *, newest_first: bool) -> tuple[list[Taken], int]:
    """Take a window off some channels; and the timestamp that it reaches to, all of whose rows are in it.

    Args:
        stretches: The channels; none may be at its end.
        size: About how many rows.
        newest_first: From their ends.
    """
    edge_us = _edge_us(stretches, size, newest_first)
    return _taken(stretches, edge_us, newest_first), edge_us


def _taken(stretches: list[Stretch], edge_us: int, newest_first: bool) -> list[Taken]:
    """Take all rows up to a timestamp off some channels."""
    taken = []
    for stretch in stretches:
        if newest_first:
            if stretch.time_us(stretch.stop) >= edge_us:
                taken.append((stretch.index, stretch.take_from(edge_us)))
        elif stretch.time_us(stretch.start) <= edge_us:
            taken.append((stretch.index, stretch.take_until(edge_us)))
    return taken


def _edge_us(stretches: list[Stretch], size: int, newest_first: bool) -> int:
    """Where a window ends that has about `size` rows, and no more than that from any one channel."""
    each = -(-size // len(stretches))
    enough = -(-size // each) - 1
    if newest_first:
        edges = sorted((stretch.time_us(stretch.stop - each) for stretch in stretches), reverse=True)
        longest = (stretch.time_us(stretch.stop - size) for stretch in stretches if stretch.stop - stretch.start > size)
        return max([edges[enough], *longest])
    edges = sorted(stretch.time_us(stretch.start + each - 1) for stretch in stretches)
    longest = (
        stretch.time_us(stretch.start + size - 1) for stretch in stretches if stretch.stop - stretch.start > size
    )
    return min([edges[enough], *longest])


def _keyed(index: ChannelIndex, rows: Sequence[int]) -> Iterator[Keyed]:
    times_us, highs, lows = index.times_us, index.ids_high, index.ids_low
    return zip(picked(times_us, rows), picked(highs, rows), picked(lows, rows), repeat(index.channel), rows)


def picked(column: array[int], rows: Sequence[int]) -> Sequence[int]:
    """A column's values in some rows."""
    return column[rows.start : rows.stop] if isinstance(rows, range) else [column[row] for row in rows]

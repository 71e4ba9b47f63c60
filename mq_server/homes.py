"""Which mailboxes may have a message or an answer to it, however many mailboxes there are. No I/O.

To ask a mailbox takes a fraction of a microsecond, but hundreds would be asked for each message of a thread. So there
is one table over them: by the last bits of an id, the numbers of the mailboxes that may know it. Only these are asked.
Long mailboxes, of which there can't be many, are always asked, and have no rows in the table.

The table
    Open addressing. From the slot that an id's last bits give up to the first empty one stand the numbers of all
    mailboxes that know the id, and of some that don't. Nothing ever leaves it, so that this goes on to hold; what a
    mailbox no longer has costs a needless question. A full table stays as it is and is followed by one of twice its
    size: nothing has to be put in again.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from operator import attrgetter, itemgetter

from mq_server.chains import Probe
from mq_server.columns import ChannelIndex

_LONG_ROWS = 1 << 14  # to take in so many takes some milliseconds
_MOST_NUMBERS = (1 << 16) - 1
_FIRST_SLOTS = 1 << 10
_rewritten = attrgetter("rewritten")


class Home:
    """A mailbox as it is asked.

    Args:
        name: The channel.
        index: What is in it.
        number: What stands for it in the table; 0 if it is always asked.
    """

    def __init__(self, name: str, index: ChannelIndex, number: int) -> None:
        self.name = name
        self.index = index
        self.number = number
        self.taken = 0, 0
        """How many of its rows and of its answers are in the table."""
        self.look()

    def look(self) -> None:
        """Say that it is not as it was."""
        self.rows: Probe = self.index.rows.probe()
        self.answered: Probe = self.index.replies.numbers.probe()
        self.newest_us = self.index.newest_us()


class Homes:
    """All mailboxes of a production, by the ids that they know."""

    def __init__(self) -> None:
        self.version = 0
        """Another one whenever something has come."""
        self.has_corrections = False
        """Whether any message says that it corrects another one."""
        self._indexes: list[ChannelIndex] = []
        self._change = 0
        self._homes: list[Home] = []
        self._columns: list[array[int]] = []
        self._states: list[int] = []
        """How long these are, and how often each mailbox was rewritten."""
        self._by_newest: list[tuple[int, ChannelIndex]] | None = None
        self._numbers: dict[str, int] = {}
        self._numbered: list[Home | None] = [None]
        self._always: list[Home] = []
        self._tables: list[array[int]] = []
        self._room = 0

    def keep_up(self, channels: Mapping[str, ChannelIndex], change: int) -> None:
        """Take in what has come since the last time.

        Args:
            channels: The mailboxes.
            change: Another number if any of them has changed.
        """
        indexes = [*channels.values()]
        if indexes != self._indexes:
            self._exchange(channels)
            self._indexes = indexes
        elif change == self._change:
            return
        self._change = change
        self.version += 1
        states = [*map(len, self._columns), *map(_rewritten, indexes)]
        count, both = len(indexes), enumerate(zip(states, self._states, strict=True))
        changed = dict.fromkeys(self._homes[place % count] for place, (now, before) in both if now != before)
        self._states = states
        self._by_newest = None
        for home in changed:
            home.look()
        self._take_in([home for home in changed if home.number])
        self.has_corrections = any(index.replaces for index in indexes)

    def by_newest(self) -> list[tuple[int, ChannelIndex]]:
        """All mailboxes, each with the newest timestamp in it, the latest first."""
        if self._by_newest is None:
            newest = [(home.newest_us, home.index) for home in self._homes]
            self._by_newest = sorted(newest, key=itemgetter(0), reverse=True)
        return self._by_newest

    def of(self, low: int, bits: int = 64) -> list[Home]:
        """The mailboxes that may know an id, or the end of one.

        Args:
            low: Its last bits.
            bits: How many of them, up to 64, are known.
        """
        numbers = set()
        for table in self._tables:
            mask = len(table) - 1
            for slot in range(low & mask & (1 << bits) - 1, len(table), 1 << bits):
                while number := table[slot]:
                    numbers.add(number)
                    slot = slot + 1 & mask
        found = self._always.copy()
        for number in numbers:
            home = self._numbered[number]
            if home is not None:
                found.append(home)
        return found

    def _exchange(self, channels: Mapping[str, ChannelIndex]) -> None:
        """Have other mailboxes than before, or others of their indexes."""
        known = {home.name: home for home in self._homes}
        self._homes = []
        for name, index in channels.items():
            home = known.get(name)
            self._homes.append(home if home is not None and home.index is index else self._home(name, index))
        self._columns = [home.rows.lows for home in self._homes] + [home.answered.lows for home in self._homes]
        self._states = [-1] * (len(self._columns) + len(self._homes))
        self._always = [home for home in self._homes if not home.number]
        self._numbered = [None] * (len(self._numbers) + 1)
        for home in self._homes:
            if home.number:
                self._numbered[home.number] = home

    def _home(self, name: str, index: ChannelIndex) -> Home:
        if len(index) > _LONG_ROWS or len(self._numbers) == _MOST_NUMBERS:
            return Home(name, index, 0)
        return Home(name, index, self._numbers.setdefault(name, len(self._numbers) + 1))

    def _take_in(self, homes: list[Home]) -> None:
        if not self._tables:
            self._open(2 * sum(len(home.rows.lows) + len(home.answered.lows) for home in homes))
        for home in homes:
            taken = home.taken
            for column, first in zip((home.rows.lows, home.answered.lows), taken, strict=True):
                self._put_in(column[first:], home.number)
            home.taken = len(home.rows.lows), len(home.answered.lows)

    def _put_in(self, lows: array[int], number: int) -> None:
        table, mask, room = self._tables[-1], len(self._tables[-1]) - 1, self._room
        for low in lows:
            if not room:
                self._open(2 * len(table))
                table, mask, room = self._tables[-1], len(self._tables[-1]) - 1, self._room
            slot = low & mask
            while (found := table[slot]) and found != number:
                slot = slot + 1 & mask
            if not found:
                table[slot] = number
                room -= 1
        self._room = room

    def _open(self, slots: int) -> None:
        """Begin a table of at least so many slots."""
        size = max(_FIRST_SLOTS, 1 << (slots - 1).bit_length())
        self._tables.append(array("H", [0]) * size)
        self._room = size - size // 4

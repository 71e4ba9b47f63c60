"""The mailboxes and receipts as last read: index, receipts and problems, brought up to date before every answer.

All changes, our own posts included, enter by the same road: `refresh` compares each file with what was read of it and
takes in the difference. Short additions are read at once; a long file that has to be read anew is read and indexed in a
thread, then exchanged for the old index on the event loop, where alone the index changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import accumulate
from typing import Generic, NamedTuple, Protocol, TypeVar

from mq_server.appendlog import AppendLog, Change, Look, View
from mq_server.blocks import IN_USE_S
from mq_server.columns import ChannelIndex, Place
from mq_server.delivery import ReaderState, ReceiptIndex, Unread
from mq_server.errors import Problem, Stale, Unsteady
from mq_server.index import Index
from mq_server.message import Message, Unreadable, parse_line
from mq_server.names import format_time, id_number, id_text
from mq_server.store import MAX_AHEAD_US, RECEIPTS, SUFFIX, Store
from mq_server.watch import Feed, Subscription, Watcher

_INLINE_BYTES = 256 * 1024
_ATTEMPTS = 20
_AHEAD_SHOWN = 20
log = logging.getLogger(__name__)


class Reading(Protocol):
    """What is made of a file's lines."""

    def add(self, offset: int, number: int, line: bytes) -> None:
        """Take in the next line."""


R = TypeVar("R", bound=Reading)
T = TypeVar("T")


class Tracked(Generic[R]):
    """One log and what was read of it.

    Args:
        source: The file.
        new: Makes an empty reading, for a file that has to be read anew.
    """

    def __init__(self, source: AppendLog, new: Callable[[], R]) -> None:
        self.source = source
        self.view = View()
        self.reading = new()
        self.fault = ""
        """Why the file cannot be read; empty when it can."""
        self._new = new

    @property
    def exists(self) -> bool:
        """Whether there was a file when it was last read."""
        return self.view.fingerprint is not None

    async def refresh(self) -> bool:
        """Take in what changed; whether anything did."""
        patient_until = time.monotonic() + (0 if self.fault else IN_USE_S)
        for _ in range(_ATTEMPTS):
            try:
                look = self.source.glance(self.view)
                if look is Look.SAME:
                    return False
                # What may wait or read the whole file is done off the event loop.
                change = look if isinstance(look, Change) else await asyncio.to_thread(self.source.examine, self.view)
                reading = self._new() if change.replaced else self.reading
                if change.replaced and change.size_bytes > _INLINE_BYTES:
                    await asyncio.to_thread(_take, reading, change)
                else:
                    _take(reading, change)
            except FileNotFoundError:
                self.distrust()  # replaced between the look and the read, of which a part may have been taken in
                continue
            except PermissionError as error:
                if time.monotonic() >= patient_until:
                    return self._unreadable(f"cannot be read: {error.strerror or error}")
                self.distrust()
                await asyncio.sleep(IN_USE_S / _ATTEMPTS)
                continue
            except OSError as error:
                return self._unreadable(f"cannot be read: {error.strerror or error}")
            self.reading, self.view, self.fault = reading, change.view, ""
            return change.replaced or change.size_bytes > 0
        return False

    def distrust(self) -> None:
        """Read the file anew next time, whatever it looks like."""
        self.view = View()

    def _unreadable(self, fault: str) -> bool:
        changed = fault != self.fault
        self.reading, self.view, self.fault = self._new(), View(), fault
        return changed


class Line(NamedTuple):
    """The bytes of a line as read now, and what the index says of it."""

    data: bytes
    channel: str
    number: int
    identity: int
    amended: bool

    def check(self) -> None:
        """Make sure that it is the line that the index means.

        Raises:
            Stale: The file no longer holds what its index says; refresh and ask again.
        """
        if id_text(self.identity).encode() not in self.data and b"\\u" not in self.data:
            raise Stale(self.channel)

    def message(self) -> Message:
        """Its message.

        Raises:
            Stale: The file no longer holds what its index says; refresh and ask again.
        """
        try:
            message = parse_line(self.data, self.channel, self.number, amended=self.amended)
        except Unreadable as error:
            raise Stale(self.channel) from error
        if id_number(message.id) != self.identity:
            raise Stale(self.channel)
        return message


class Shelf:
    """What is known of a production's files.

    Args:
        store: The files.
    """

    def __init__(self, store: Store) -> None:
        self.index = Index()
        self.feed = Feed()
        self._store = store
        self._mailboxes: dict[str, Tracked[ChannelIndex]] = {}
        self._receipts: dict[str, Tracked[ReceiptIndex]] = {}
        self._unread: dict[tuple[str, str], Unread] = {}
        self._stray: list[Problem] = []
        self._logged: set[Problem] = set()
        self._refreshing = asyncio.Lock()
        self._watcher = Watcher(store.root, self._look)

    async def close(self) -> None:
        """End all waits and stop watching."""
        self.feed.close()
        await self._watcher.close()

    # --- keeping up -----------------------------------------------------------------------------------------------

    async def refresh(self, channels: Iterable[str] | None = None) -> None:
        """Take in what changed.

        Args:
            channels: Only these; by default every mailbox and receipts file there is.
        """
        async with self._refreshing:
            if channels is None:
                mailboxes, stray = self._store.channels()
                settled, stray_receipts = self._store.receipt_channels()
                self._stray = stray + stray_receipts
                channels = {*mailboxes, *settled, *self._mailboxes}
            for name in channels:
                await self._refresh_channel(name)

    async def posted(self, channels: Iterable[str]) -> None:
        """Take in a post of this process where the channel has been read before, and wake who waits for the others."""
        names = set(channels)
        loaded = names & self._mailboxes.keys()
        if loaded:
            await self.refresh(loaded)
        self.feed.publish(names - loaded)

    async def reread(self) -> None:
        """Take in every file anew, whatever its stamp says."""
        async with self._refreshing:
            for name in self._mailboxes:
                self._mailboxes[name].distrust()
                self._receipts[name].distrust()
        await self.refresh()

    def distrust(self, channel: str) -> None:
        """Read a mailbox anew next time: it does not hold what its index says, though its file looks the same."""
        self._mailboxes[channel].distrust()

    async def consistent(self, channels: Iterable[str] | None, answer: Callable[[], T]) -> T:
        """The answer to a question, from files as they are.

        Args:
            channels: What it is read from; None for all.
            answer: Computes it from the index without awaiting; does so again if a file changed meanwhile.
        """
        wanted = None if channels is None else set(channels)
        for attempts_left in range(_ATTEMPTS, -1, -1):
            await self.refresh(wanted)
            try:
                return answer()
            except Stale as stale:
                self.distrust(stale.channel)
            except OSError:
                if not attempts_left:
                    raise
            await asyncio.sleep(max(0.001, IN_USE_S / _ATTEMPTS))
        raise Unsteady(self._store.root)

    async def _look(self, channels: set[str] | None) -> None:
        """The watcher's cue."""
        if channels is not None and not channels <= self._mailboxes.keys():
            channels = None  # a new file, whose name may be none
        await self.refresh(channels)
        fresh = [problem for problem in self.problems() if problem not in self._logged]
        for problem in fresh:
            log.warning("%s", problem)
        self._logged.update(fresh)

    async def _refresh_channel(self, name: str) -> None:
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            source, receipts = self._store.mailbox(name), self._store.receipts(name)
            mailbox = self._mailboxes[name] = Tracked(source, partial(self._new_index, name, source))
            self._receipts[name] = Tracked(receipts, partial(_new_receipts, name, receipts))
        # Published one by one: a caller that is cancelled between two files must not take a wake-up with it.
        if await mailbox.refresh():
            if mailbox.exists:
                self.index.channels[name] = mailbox.reading
            else:
                self.index.channels.pop(name, None)
            self.feed.publish({name})
        if await self._receipts[name].refresh():
            self.feed.publish({name})

    def _new_index(self, name: str, source: AppendLog) -> ChannelIndex:
        return ChannelIndex(name, f"{name}{SUFFIX}", self.index.names, source.read_span)

    # --- what is read ---------------------------------------------------------------------------------------------

    def is_loaded(self, channel: str) -> bool:
        """Whether the channel has been read by this process."""
        return channel in self.index.channels

    def reader_state(self, channel: str, reader: str) -> ReaderState:
        """What a reader has settled in a channel."""
        return self._receipts[channel].reading.state(reader)

    def unread(self, channel: str, reader: str) -> dict[int, None]:
        """The rows a reader has not settled, in file order."""
        unread = self._unread.setdefault((channel, reader), Unread())
        return unread.rows(self.index.channels[channel], self.reader_state(channel, reader))

    def load(self, places: Sequence[Place], limit_bytes: int | None = None) -> list[Message]:
        """The messages at these places, read from the files.

        Args:
            places: Where they stand.
            limit_bytes: Leave out the last ones, whose lines are beyond so many bytes, but give at least one.

        Raises:
            Stale: A file no longer holds what its index says; refresh and ask again.
        """
        if limit_bytes is not None:
            lengths = (self.index.channels[channel].lengths[row] for channel, row in places)
            within = bisect_right(list(accumulate(lengths)), limit_bytes)
            places = places[: max(1, within)]
        return [line.message() for line in self.lines(places)]

    def lines(self, places: Sequence[Place]) -> list[Line]:
        """The lines at these places, read from the files but not decoded."""
        lines: dict[int, Line] = {}
        by_channel: dict[str, list[int]] = {}
        for number, place in enumerate(places):
            by_channel.setdefault(place.channel, []).append(number)
        for channel, numbers in by_channel.items():
            index = self.index.channels[channel]
            numbers.sort(key=lambda number: places[number].row)
            rows = [places[number].row for number in numbers]
            spans = [(index.offsets[row], index.lengths[row]) for row in rows]
            for number, row, data in zip(numbers, rows, self._store.mailbox(channel).read_spans(spans), strict=True):
                identity = index.identity(row)
                lines[number] = Line(data, channel, index.lines[row], identity, row in index.replaces)
        return [lines[number] for number in range(len(places))]

    def problems(self, channels: Iterable[str] | None = None) -> tuple[Problem, ...]:
        """What is wrong in the files of these channels, or in all, in order of path and line."""
        names = set(self._mailboxes) if channels is None else set(channels) & set(self._mailboxes)
        found = [] if channels is not None else list(self._stray)
        ahead_us = time.time_ns() // 1000 + MAX_AHEAD_US
        for name in names:
            mailbox, receipts = self._mailboxes[name], self._receipts[name]
            found += mailbox.reading.problems + receipts.reading.problems
            if mailbox.fault:
                found.append(Problem(f"{name}{SUFFIX}", 0, mailbox.fault))
            if receipts.fault:
                found.append(Problem(f"{RECEIPTS}/{name}{SUFFIX}", 0, receipts.fault))
            found += _ahead_of_clock(mailbox.reading, ahead_us)
        return tuple(sorted(found))

    # --- waiting --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watched(
        self, wants: Callable[[str], bool], *, reader_of: Iterable[str] = ()
    ) -> AsyncIterator[Subscription]:
        """A subscription to changes; events are subscribed to before this returns, so read after it.

        Args:
            wants: Which channels.
            reader_of: The channels whose messages the subscriber waits for as a reader.
        """
        await self._watcher.start()
        with self.feed.subscribe(wants, reader_of=reader_of) as subscription:
            yield subscription


def _new_receipts(name: str, source: AppendLog) -> ReceiptIndex:
    return ReceiptIndex(f"{RECEIPTS}/{name}{SUFFIX}", source.read_span)


def _take(reading: Reading, change: Change) -> None:
    for block in change.blocks():
        for offset, number, line in block.lines():
            reading.add(offset, number, line)


def _ahead_of_clock(index: ChannelIndex, ahead_us: int) -> Iterator[Problem]:
    order = index.by_time()
    for position in range(len(order) - 1, max(-1, len(order) - 1 - _AHEAD_SHOWN), -1):
        row = order[position]
        if index.times_us[row] <= ahead_us:
            return
        when = format_time(index.times_us[row])
        text = f"stamped {when}, ahead of this machine's clock: later posts do not follow it; set the clock right"
        yield Problem(f"{index.channel}{SUFFIX}", index.lines[row], text)

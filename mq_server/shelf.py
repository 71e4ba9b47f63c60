"""The mailboxes and receipts as last read: index, receipts and problems, brought up to date before every answer.

All changes, our own posts included, enter by the same road: `refresh` compares each file with what was read of it and
takes in the difference. Short additions are read at once; a long file that has to be read anew is read and indexed in a
thread, then exchanged for the old index on the event loop, where alone the index changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic, Protocol, TypeVar

from mq_server.appendlog import AppendLog, Change, View
from mq_server.delivery import ReaderState, ReceiptIndex, Unread
from mq_server.errors import Problem, Stale
from mq_server.index import ChannelIndex, Index, Place
from mq_server.message import Message, Unreadable, format_time, id_text, parse_line
from mq_server.store import MAX_AHEAD_US, RECEIPTS, SUFFIX, Store
from mq_server.watch import Feed, Subscription, Watcher

_INLINE_BYTES = 256 * 1024
_ATTEMPTS = 20
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
        self._new = new

    @property
    def exists(self) -> bool:
        """Whether there was a file when it was last read."""
        return self.view.fingerprint is not None

    async def refresh(self) -> bool:
        """Take in what changed; whether anything did."""
        for _ in range(_ATTEMPTS):
            change = self.source.changes(self.view)
            if change is None:
                return False
            reading = self._new() if change.replaced else self.reading
            try:
                if change.replaced and change.size_bytes > _INLINE_BYTES:
                    await asyncio.to_thread(_take, reading, change)
                else:
                    _take(reading, change)
            except FileNotFoundError:
                continue  # replaced between the look and the read
            self.reading, self.view = reading, change.view
            return True
        return False


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
            changed = {name for name in channels if await self._refresh_channel(name)}
        if changed:
            self.feed.publish(changed)

    async def refresh_loaded(self, channels: Iterable[str]) -> None:
        """Take in what changed in those of the channels that have been read before."""
        await self.refresh({name for name in channels if name in self._mailboxes})

    async def forget(self) -> None:
        """Forget what was read, so that the next refresh reads every file anew."""
        async with self._refreshing:
            self._mailboxes.clear()
            self._receipts.clear()
            self.index.channels.clear()

    async def consistent(self, channels: Iterable[str] | None, answer: Callable[[], T]) -> T:
        """The answer to a question, from files as they are.

        Args:
            channels: What it is read from; None for all.
            answer: Computes it from the index without awaiting; does so again if a file changed meanwhile.
        """
        wanted = None if channels is None else set(channels)
        for _ in range(_ATTEMPTS):
            await self.refresh(wanted)
            try:
                return answer()
            except (Stale, FileNotFoundError):
                await asyncio.sleep(0.001)
        await self.refresh(wanted)
        return answer()

    async def _look(self, channels: set[str] | None) -> None:
        """The watcher's cue."""
        await self.refresh(channels)
        fresh = [problem for problem in self.problems() if problem not in self._logged]
        for problem in fresh:
            log.warning("%s", problem)
        self._logged.update(fresh)

    async def _refresh_channel(self, name: str) -> bool:
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            source = self._store.mailbox(name)
            mailbox = self._mailboxes[name] = Tracked(source, partial(self._new_index, name, source))
            receipts = self._store.receipts(name)
            self._receipts[name] = Tracked(receipts, partial(ReceiptIndex, f"{RECEIPTS}/{name}{SUFFIX}"))
        changed = await mailbox.refresh()
        if mailbox.exists:
            self.index.channels[name] = mailbox.reading
        else:
            self.index.channels.pop(name, None)
        return await self._receipts[name].refresh() or changed

    def _new_index(self, name: str, source: AppendLog) -> ChannelIndex:
        def read_line(offset: int, length: int) -> bytes:
            return source.read_spans([(offset, length)])[0]

        return ChannelIndex(name, f"{name}{SUFFIX}", self.index.names, read_line)

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

    def load(self, places: Sequence[Place]) -> list[Message]:
        """The messages at these places, read from the files.

        Raises:
            Stale: A file no longer holds what its index says; refresh and ask again.
        """
        messages: list[Message | None] = [None] * len(places)
        by_channel: dict[str, list[int]] = {}
        for number, place in enumerate(places):
            by_channel.setdefault(place.channel, []).append(number)
        amendments = self.index.amendments()
        for channel, numbers in by_channel.items():
            index = self.index.channels[channel]
            numbers.sort(key=lambda number: places[number].row)
            rows = [places[number].row for number in numbers]
            spans = [(index.offsets[row], index.lengths[row]) for row in rows]
            for number, row, line in zip(numbers, rows, self._store.mailbox(channel).read_spans(spans), strict=True):
                identity = index.identity(row)
                amended = identity in amendments.corrects
                try:
                    message = parse_line(line, channel, index.lines[row], amended=amended)
                except Unreadable as error:
                    raise Stale from error
                if message.id != id_text(identity):
                    raise Stale
                messages[number] = message
        return [message for message in messages if message is not None]

    def problems(self, channels: Iterable[str] | None = None) -> tuple[Problem, ...]:
        """What is wrong in the files of these channels, or in all, in order of path and line."""
        names = set(self._mailboxes) if channels is None else set(channels) & set(self._mailboxes)
        found = [] if channels is not None else list(self._stray)
        now_us = time.time_ns() // 1000
        for name in names:
            index = self._mailboxes[name].reading
            found += index.problems + self._receipts[name].reading.problems
            if len(index) and index.times_us[len(index) - 1] > now_us + MAX_AHEAD_US:
                when = format_time(index.times_us[len(index) - 1])
                text = (
                    f"stamped {when}, ahead of this machine's clock: later posts do not follow it; set the clock right"
                )
                found.append(Problem(f"{name}{SUFFIX}", index.lines[len(index) - 1], text))
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


def _take(reading: Reading, change: Change) -> None:
    for block in change.blocks():
        for offset, number, line in block.lines():
            reading.add(offset, number, line)

"""Files as last read, kept up to date: a log, and a mailbox together with the archived parts of its channel.

A short addition is read at once; a long file that has to be read anew is read and indexed in a thread, into a reading
of its own that then takes the old one's place.

Mailbox and archive
    Whoever moves lines writes them where they go before taking them from where they were, and gives the mailbox another
    inode. So a reader misses none that looks at the mailbox, reads the archive, and then reads just that mailbox.

What this process posts
    is known without a look, as long as nothing else has happened to the file. What nobody asks for yet is collected:
    a hundred lines are taken in for what ten of them take one by one.

The index of a long mailbox
    is kept for the next process (`indexfile`), together with the views of the files it was made of. That process goes
    on as if it had slept meanwhile: the same looks tell it what has changed since. Only settled views are kept: in
    those every later change shows.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from mq_server.blocks import IN_USE_S, Block
from mq_server.columns import ChannelIndex, Names
from mq_server.errors import Problem
from mq_server.indexfile import Snapshot
from mq_server.logfile import ABSENT, Change, LogFile, Look, View
from mq_server.names import id_text
from mq_server.stamp import Fingerprint
from mq_server.store import ARCHIVE, SUFFIX, Store

_INLINE_BYTES = 256 * 1024
_INLINE_ROWS = 1000
_FEW_LINES = 100
_COLLECTED_BYTES = 64 * 1024
_ATTEMPTS = 20
_RETRY_S = 1.0
_KEPT_ROWS = 2000  # fewer are indexed in some milliseconds
_KEPT_AGAIN = 8  # kept again once one part in so many has come


class Reading(Protocol):
    """What is made of a file's lines."""

    def extend(self, lines: Iterable[tuple[int, int, bytes]]) -> None:
        """Take in the next lines: the offset, number and bytes of each."""

    def __len__(self) -> int: ...

    def prepare(self) -> None:
        """Do what the first answer would have to, as far as it takes long."""


R = TypeVar("R", bound=Reading)


class Tracked(Generic[R]):
    """One log and what was read of it.

    Args:
        source: The file.
        new: Makes an empty reading, for a file that has to be read anew.
    """

    def __init__(self, source: LogFile, new: Callable[[], R]) -> None:
        self.source = source
        self.path = str(source.path)
        self.view = View()
        self.reading = new()
        self.fault = ""
        """Why the file cannot be read; empty when it can."""
        self.was_replaced = False
        """Whether it was read anew since somebody last set this back."""
        self._new = new

    @property
    def exists(self) -> bool:
        """Whether there was a file when it was last read."""
        return self.view.fingerprint is not None

    def is_current(self) -> bool:
        """Whether there is nothing to take in."""
        try:
            return self.source.is_as_seen(self.view)
        except OSError:
            return False

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
                reading = await self._begin() if change.replaced else self.reading
                if change.replaced:
                    await _take_anew(reading, change)
                    if len(reading) > _INLINE_ROWS:
                        await asyncio.to_thread(reading.prepare)
                else:
                    await self._take_more(change)
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
            self.was_replaced = self.was_replaced or change.replaced
            return change.replaced or change.size_bytes > 0
        return False

    async def _take_more(self, change: Change) -> None:
        """Take in what was appended: on the event loop, where answers are made of it, but with a break now and then."""
        self.distrust()  # who is cancelled within a break leaves a part taken in
        for number, block in enumerate(change.blocks()):
            if number:
                await asyncio.sleep(0)
            self._extend(block)

    def _extend(self, block: Block) -> None:
        self.reading.extend(block.lines())

    def distrust(self) -> None:
        """Read the file anew next time, whatever it looks like."""
        self.view = View()

    async def _begin(self) -> R:
        """The reading to begin with, for a file that is read anew."""
        return self._new()

    def _unreadable(self, fault: str) -> bool:
        changed = fault != self.fault
        self.reading, self.view, self.fault = self._new(), View(), fault
        return changed


class Mailbox(Tracked[ChannelIndex]):
    """A mailbox and the archived parts of its channel, in one index.

    Args:
        store: The files.
        channel: Its name.
        names: Shared with the other channels.
        appended: Told of lines that were appended, if they are few: the index, the first row, the bytes of each.
    """

    def __init__(
        self,
        store: Store,
        channel: str,
        names: Names,
        appended: Callable[[ChannelIndex, int, Sequence[bytes]], None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._channel = channel
        self._names = names
        self._appended = appended
        self._archive: dict[str, View] = {}
        self._retry_at: dict[str, float] = {}
        self.archive_problems: list[Problem] = []
        """Archived parts that cannot be read."""
        self._file = store.kept_index(channel)
        self._may_restore = True
        self._is_news = False  # what was restored, until somebody has been told: who asks may be cancelled before
        self._kept_rows = 0
        self._keeping: asyncio.Task[None] | None = None
        self._collected: list[Block] = []
        self.collected_lines = 0
        """So many of the lines that the view knows are not in the reading yet: plain posts of this process."""
        source = store.mailbox(channel)
        super().__init__(source, lambda: ChannelIndex(channel, f"{channel}{SUFFIX}", names, source.read_span))

    @property
    def exists(self) -> bool:
        """Whether there was any file of the channel when it was last read."""
        return super().exists or bool(self._archive)

    def has_kept_up(self, months: Sequence[str]) -> bool:
        """Whether there is nothing to take in, neither from the mailbox nor from the archive.

        Args:
            months: As in `keep_up`.
        """
        if self._retry_at or self._is_news or not self.is_current():
            return False
        if not (months or self._archive):
            return True
        try:
            return all(
                self._store.archive(month, self._channel).is_as_seen(self._archive.get(month, ABSENT))
                for month in {*months, *self._archive}
            )
        except OSError:
            return False

    async def keep_up(self, months: Iterable[str]) -> bool:
        """Take in what changed; whether anything did.

        Args:
            months: Those that the archive has folders for now.
        """
        self.catch_up()
        if self._may_restore:
            await self._take_up()
        if await self._archive_changed(months):
            self.distrust()
        changed = await self.refresh() or self._is_news
        self._is_news = False
        self._keep()
        return changed

    def distrust(self) -> None:
        super().distrust()
        self._may_restore = False

    def has_own(self) -> bool:
        """Whether the file is known as it was when this process had last written to it."""
        own = self.source.own
        return own is not None and own.fingerprint == self.view.fingerprint

    def take_own(self) -> bool:
        """Take in the posts that this process has just written; whether that was done.

        It is not if anything else has happened to the file since the last look, or if they are not plain. Not to be
        called while the file is looked at.
        """
        own = self.source.own  # which a thread may exchange
        view = self.source.with_own(self.view, own) if own is not None and own.plain else None
        if own is None or view is None:
            return False
        self._collected.append(Block(own.start, self.view.line_feeds + 1, own.data))
        self.collected_lines += view.line_feeds - self.view.line_feeds
        self.view = view
        if own.start + len(own.data) - self._collected[0].offset > _COLLECTED_BYTES:
            self.catch_up()
        return True

    def catch_up(self) -> None:
        """Put what was collected into the reading."""
        if self._collected:
            first, data = self._collected[0], b"".join([block.data for block in self._collected])
            self._collected, self.collected_lines = [], 0
            self._extend(Block(first.offset, first.first_line, data))
            self._keep()

    async def _take_up(self) -> None:
        """Go on from what an earlier process knew, if it left anything that may still hold."""
        index = self._new()
        found = await asyncio.to_thread(self._restore, index) if self._file.exists() else None
        self._may_restore = False
        if found is not None:
            self.view, self._archive = found
            self.reading, self._kept_rows, self.was_replaced, self._is_news = index, len(index), True, True

    def _restore(self, index: ChannelIndex) -> tuple[View, dict[str, View]] | None:
        kept = self._file.load(index, self._names, self._is_still, lambda path: self._store.at(path).read_span)
        if kept is None or not self._has_newest(index):
            return None
        index.prepare()
        return kept

    def _has_newest(self, index: ChannelIndex) -> bool:
        """Whether the last message stands where the index says: a power cut may have taken what was never synced."""
        row = len(index) - 1
        try:
            line = self._store.at(index.path(row)).read_span(index.offsets[row], index.lengths[row])
        except OSError:
            return False
        return id_text(index.identity(row)).encode() in line

    def _is_still(self, view: View) -> bool:
        """Whether the mailbox is the file of that view, for all that its inode tells."""
        current = Fingerprint.at(self.source.path)
        return (current and current.inode) == (view.fingerprint and view.fingerprint.inode)

    def _keep(self) -> None:
        """Keep the index for the next process, if it has grown enough since that was done."""
        rows = len(self.reading)
        if rows < _KEPT_ROWS or (rows - self._kept_rows) * _KEPT_AGAIN <= rows:
            return
        settled = all(view.settled for view in (self.view, *self._archive.values())) and not self._retry_at
        if settled and (self._keeping is None or self._keeping.done()):
            snapshot = Snapshot.of(self.reading, self.view, self._archive)
            save = asyncio.to_thread(self._file.save, snapshot, self._names, anew=not self._kept_rows)
            # As a task it begins after the answer for which the file was read, and does not fight over the interpreter.
            self._keeping = asyncio.create_task(save)
            self._kept_rows = rows

    async def kept(self) -> None:
        """Wait until what is being kept is written."""
        if self._keeping is not None:
            await self._keeping

    async def _archive_changed(self, months: Iterable[str]) -> bool:
        """Whether the archive is no longer what was taken in."""
        for month in {*months, *self._archive}:
            log, seen = self._store.archive(month, self._channel), self._archive.get(month, ABSENT)
            if month in self._retry_at:
                if time.monotonic() >= self._retry_at[month]:
                    return True
                continue
            try:
                look = log.glance(seen)
                if look is Look.SAME:
                    continue
                change = look if isinstance(look, Change) else await asyncio.to_thread(log.examine, seen)
            except OSError:
                return True
            if change.replaced or change.size_bytes:
                return True
            self._archive[month] = change.view
        return False

    def _extend(self, block: Block) -> None:
        index, first = self.reading, len(self.reading)
        lines = [*block.lines()]
        index.extend(lines)
        # Where one is no message, or known already, the rows are not the lines.
        if len(index) - first == len(lines) <= _FEW_LINES:
            self._appended(index, first, [line for _, _, line in lines])

    async def _begin(self) -> ChannelIndex:
        self._archive, self._retry_at, self.archive_problems = {}, {}, []
        self._kept_rows = 0
        reading: ChannelIndex | None = None
        for month in self._store.months():
            log, path = self._store.archive(month, self._channel), f"{ARCHIVE}/{month}/{self._channel}{SUFFIX}"
            try:
                look = log.glance(View())
                change = look if isinstance(look, Change) else await asyncio.to_thread(log.examine, View())
                if change.view.fingerprint is None:
                    continue
                if reading is None:
                    reading = ChannelIndex(self._channel, path, self._names, log.read_span)
                else:
                    reading.turn_to(path, log.read_span)
                await _take_anew(reading, change)
                self._archive[month] = change.view
            except FileNotFoundError:
                raise  # moved meanwhile: begin again
            except OSError as error:
                self.archive_problems.append(Problem(path, 0, f"cannot be read: {error.strerror or error}"))
                self._retry_at[month] = time.monotonic() + _RETRY_S
        if reading is None:
            return self._new()
        reading.turn_to(f"{self._channel}{SUFFIX}", self.source.read_span)
        return reading


async def _take_anew(reading: Reading, change: Change) -> None:
    if change.size_bytes > _INLINE_BYTES:
        await asyncio.to_thread(_take, reading, change)
    else:
        _take(reading, change)


def _take(reading: Reading, change: Change) -> None:
    for block in change.blocks():
        with _uncollected():
            reading.extend(block.lines())


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, for some milliseconds.

    The thousands of objects that a block of lines is decoded to are in no cycles, and gone soon. To look through them
    would take a tenth of the time; and since they seem to pile up, all others of the process would be looked through
    as well, in which time no thread runs.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

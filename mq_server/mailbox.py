"""A mailbox as last read, together with the archived parts of its channel, in one index.

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
import time
from collections.abc import Callable, Iterable, Sequence

from mq_server.aside import aside
from mq_server.blocks import Block
from mq_server.columns import ChannelIndex, Names
from mq_server.errors import Problem
from mq_server.indexfile import Snapshot
from mq_server.keeping import Tracked, take_anew
from mq_server.logfile import ABSENT, Change, Look, View
from mq_server.names import id_text
from mq_server.stamp import Fingerprint
from mq_server.store import ARCHIVE, SUFFIX, Store

_FEW_LINES = 100
_COLLECTED_BYTES = 64 * 1024  # they are taken in within half a millisecond
_RETRY_S = 1.0
_KEPT_ROWS = 2000  # fewer are indexed in some milliseconds
_KEPT_AGAIN = 8  # kept again once one part in so many has come


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
        """Whether there is nothing to take in but what was collected, neither from the mailbox nor from the archive.

        Args:
            months: As in `keep_up`.
        """
        self.catch_up()
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
        found = await aside(self._restore, index) if self._file.exists() else None
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
        if settled and (self._keeping is None or self._keeping.done()) and self._file.has_folder():
            snapshot = Snapshot.of(self.reading, self.view, self._archive)
            save = aside(self._file.save, snapshot, self._names, anew=not self._kept_rows)
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
                change = look if isinstance(look, Change) else await aside(log.examine, seen)
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
                change = look if isinstance(look, Change) else await aside(log.examine, View())
                if change.view.fingerprint is None:
                    continue
                if reading is None:
                    reading = ChannelIndex(self._channel, path, self._names, log.read_span)
                else:
                    reading.turn_to(path, log.read_span)
                await take_anew(reading, change)
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

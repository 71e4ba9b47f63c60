"""The mailboxes and receipts as last read: index, receipts and problems, brought up to date before every answer.

All changes enter by the same road: `refresh` compares each file with what was read of it and takes in the difference.
For our own posts the append has compared; they are collected, and taken in by whoever asks next. What has to be read
anew is exchanged for the old index on the event loop, where alone the index changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from mq_server.bells import EVERYTHING
from mq_server.blocks import IN_USE_S
from mq_server.columns import ChannelIndex
from mq_server.delivery import ReaderState, ReceiptIndex, Rows, Unread
from mq_server.errors import Problem, Stale, Unsteady
from mq_server.keeping import Tracked, Unchanged
from mq_server.loading import Loading
from mq_server.logfile import ABSENT, Change, LogFile, Look, View
from mq_server.mailbox import Mailbox
from mq_server.names import format_time, id_number
from mq_server.store import RECEIPTS, SUFFIX, Listed, Store, channel_of
from mq_server.watch import Feed, Subscription, Watcher
from mq_server.writer import MAX_AHEAD_US

_ATTEMPTS = 20
_AHEAD_SHOWN = 20
T = TypeVar("T")
log = logging.getLogger(__name__)


class _Standing(NamedTuple):
    """What is wrong in some files whatever the clock says, as of a version; and the newest timestamp in them."""

    version: object
    problems: list[Problem]
    newest_us: int


class Shelf(Loading):
    """What is known of a production's files.

    Args:
        store: The files.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.feed = Feed()
        self._receipts: dict[str, Tracked[ReceiptIndex]] = {}
        self._unread: dict[tuple[str, str], Unread] = {}
        self._listed: Listed | None = None
        self._names: set[str] = set()
        """The channels that there are, or have been."""
        self._unchanged = Unchanged()
        """Of these, those that have kept up as long as no name of a file comes or goes."""
        self._taken_in = 0
        """Another number whenever something was taken in, or is to be."""
        self._all_standing: _Standing | None = None
        self._logged: set[Problem] = set()
        self.vanished: dict[str, tuple[Problem, ...]] = {}
        """What is missing from a log, by its name."""
        self.after_look: Callable[[], None] = lambda: None
        """Called when the watcher's cue has been followed."""
        self.looked_s: float | None = None
        """When the watcher's last cue had been followed, by the monotonic clock; None while nobody watches."""
        self._rung_for: set[str] = set()
        self._answering: asyncio.Task[None] | None = None
        self._refreshing = asyncio.Lock()
        self._taking_in = ""
        """The channel that is looked at by whoever holds this lock."""
        self._in_step: dict[str, View] = {}
        """By channel, how its mailbox was known when the receipts were looked at after a post."""
        self._rereads = False
        self._watcher = Watcher(store.root, self._look)

    async def close(self) -> None:
        """End all waits and stop watching; wait until what is being kept for the next process is written."""
        self.feed.close()
        self._store.bells.take_down()
        if self._answering is not None:
            self._answering.cancel()
            with suppress(asyncio.CancelledError):
                await self._answering
        await self._watcher.close()
        for mailbox in self._mailboxes.values():
            await mailbox.kept()

    # --- keeping up -----------------------------------------------------------------------------------------------

    async def refresh(self, channels: Iterable[str] | None = None) -> None:
        """Take in what changed.

        Args:
            channels: Only these; by default every mailbox and receipts file there is.
        """
        changed = self._changed(channels)
        if changed:
            async with self._refreshing:
                months = self._store.months()
                for name in changed:
                    self._taking_in = name
                    try:
                        await self._refresh_channel(name, months)
                    finally:
                        self._taking_in = ""
            if channels is None:
                for _ in self.index.catch_up():
                    await asyncio.sleep(0)

    def _changed(self, channels: Iterable[str] | None) -> list[str]:
        """Those of the channels of which something has to be taken in; mostly none, which is seen without waiting."""
        if channels is not None:
            months = self._store.months()
            return [name for name in channels if not self._has_kept_up(name, months)]
        listed = self._store.listed()
        if listed is not self._listed:
            self._listed = listed
            self._names = {*listed.channels, *self._mailboxes}
            self._unchanged.doubt_all()
            self._taken_in += 1
        self._unchanged.look()
        behind = []
        for name in self._unchanged.others(self._names):
            has_receipts = name in listed.receipts
            if not self._has_kept_up(name, listed.months, has_receipts=has_receipts):
                behind.append(name)
            elif not listed.months and self._mailboxes[name].view is not ABSENT:
                self._unchanged.add(name, (self._mailboxes[name], self._receipts[name])[: 1 + has_receipts])
        return behind

    def _has_kept_up(self, name: str, months: Sequence[str], *, has_receipts: bool = True) -> bool:
        mailbox = self._mailboxes.get(name)
        if mailbox is None or not mailbox.has_kept_up(months):
            return False
        receipts = self._receipts[name]
        return (not has_receipts and receipts.view is ABSENT) or receipts.is_current()

    async def posted(self, channels: Iterable[str]) -> None:
        """Take in a post of this process where the channel has been read before, and wake who waits for the others."""
        names = set(channels)
        loaded = names & self._mailboxes.keys()
        behind = [name for name in loaded if not self._has_own(name)]
        if behind:
            await self.refresh(behind)
        if loaded != names:
            self.feed.publish(names - loaded)

    def _has_own(self, name: str) -> bool:
        """Whether what this process has posted to a channel is known; takes it in if nothing else has happened there.

        The append has looked at the mailbox. Those whose posts were written together come one after the other: the
        first looks at the receipts for all.
        """
        mailbox = self._mailboxes[name]
        if mailbox.has_own():
            if self._in_step.get(name) is mailbox.view:
                return True
        elif name == self._taking_in or not mailbox.take_own():
            return False
        else:
            self._taken_in += 1
            self.feed.publish({name})
        if name == self._taking_in or not self._receipts[name].is_current():
            return False
        self._in_step[name] = mailbox.view
        return True

    async def reread(self) -> None:
        """Take in every file anew, whatever its stamp says."""
        self._rereads = True
        async with self._refreshing:
            for name in self._mailboxes:
                self._unchanged.doubt(name)
                self._mailboxes[name].distrust()
                self._receipts[name].distrust()
        await self.refresh()

    def distrust(self, channel: str) -> None:
        """Read a mailbox anew next time: it does not hold what its index says, though its file looks the same."""
        self._unchanged.doubt(channel)
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

    def _rung(self, channels: set[str]) -> None:
        """Another process says that it has written."""
        # Who waits has the message sooner if it looks itself, at once. The rest is told after that; and what else a
        # change means is seen to by the watcher.
        known = channels & self._mailboxes.keys()
        if self.feed.hint(known) and known == channels:
            return
        if not self._rung_for:
            asyncio.get_running_loop().call_soon(self._answer_soon)
        self._rung_for |= channels

    def _answer_soon(self) -> None:
        if not self.feed.closed and (self._answering is None or self._answering.done()):
            self._answering = asyncio.create_task(self._answer_rings())

    async def _answer_rings(self) -> None:
        while self._rung_for:
            channels, self._rung_for = self._rung_for, set()
            with suppress(OSError):  # the rescan says so
                await self._look(channels)

    async def _look(self, channels: set[str] | None) -> None:
        """The watcher's cue."""
        if channels is not None and not channels <= self._mailboxes.keys():
            channels = None  # a new file, whose name may be none
        await self.refresh(channels)
        fresh = [problem for problem in self.problems() if problem not in self._logged]
        for problem in fresh:
            log.warning("%s", problem)
        self._logged.update(fresh)
        self.looked_s = time.monotonic()
        self.after_look()

    def replaced(self) -> set[str]:
        """The names of the logs that were read anew since the last call."""
        found = set()
        for prefix, tracked in (("", self._mailboxes), (f"{RECEIPTS}/", self._receipts)):
            for name, one in tracked.items():
                if one.was_replaced:
                    one.was_replaced = False
                    found.add(f"{prefix}{name}")
        return found

    def fault(self, name: str) -> str:
        """Why a log cannot be read; empty when it can."""
        channel = channel_of(name)
        tracked: Tracked[Any] | None = (self._mailboxes if channel == name else self._receipts).get(channel)
        return tracked.fault if tracked else ""

    def stands(self, name: str, line_id: str) -> bool:
        """Whether a log, as last read, has a line of that id."""
        channel = channel_of(name)
        if channel != name:
            return channel in self._receipts and self._receipts[channel].reading.has(line_id)
        index = self.index.channels.get(channel)
        if channel in self._mailboxes and self._mailboxes[channel].archive_problems:
            return True  # for all we know
        return index is not None and id_number(line_id) in index.rows

    async def _refresh_channel(self, name: str, months: Iterable[str]) -> None:
        self._names.add(name)
        self._unchanged.doubt(name)  # until it is seen again that it has: who is cancelled here leaves it half done
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            receipts = self._store.receipts(name)
            mailbox = self._mailboxes[name] = Mailbox(self._store, name, self.index.names, self._recent.appended)
            if self._rereads:
                mailbox.distrust()
            self._receipts[name] = Tracked(receipts, partial(_new_receipts, name, receipts))
        # Published one by one: a caller that is cancelled between two files must not take a wake-up with it.
        if await mailbox.keep_up(months):
            self._taken_in += 1
            if mailbox.exists:
                self.index.channels[name] = mailbox.reading
            else:
                self.index.channels.pop(name, None)
            self.feed.publish({name})
        tracked = self._receipts[name]
        if not tracked.is_current() and await tracked.refresh():  # mostly nobody has settled anything meanwhile
            self._taken_in += 1
            self.feed.publish({name})

    # --- what is read ---------------------------------------------------------------------------------------------

    @property
    def version(self) -> object:
        """Another one whenever something was taken in; what was collected is when it enters the index."""
        return self._taken_in, self.index.names.change

    def is_loaded(self, channel: str) -> bool:
        """Whether the channel has been read by this process."""
        return channel in self.index.channels

    def mailbox(self, channel: str) -> Mailbox:
        """The mailbox of a channel that has been read."""
        return self._mailboxes[channel]

    def basis(self, channel: str) -> object:
        """What is told of a channel rests on this: equal as long as nothing enters its index or its receipts."""
        index = self.index.channels[channel]
        return index, len(index), index.rewritten, self._receipts[channel].view

    def reader_state(self, channel: str, reader: str) -> ReaderState:
        """What a reader has settled in a channel."""
        return self._receipts[channel].reading.state(reader)

    def readers(self, channel: str) -> Iterable[str]:
        """Who has settled anything in a channel."""
        return self._receipts[channel].reading.readers()

    def has_only_our_receipts(self, channel: str) -> bool:
        """Whether nobody but our writers has touched a channel's receipts since they were taken in."""
        receipts = self._receipts[channel]
        try:
            look = receipts.source.glance(receipts.view)
        except OSError:
            return False
        return look is Look.SAME or (isinstance(look, Change) and not look.replaced)

    def last_settled_us(self, channel: str, reader: str) -> int:
        """When a reader last settled something in a channel; 0 if it never did."""
        return self._receipts[channel].reading.newest_us(reader)

    def unread(self, channel: str, reader: str) -> Rows:
        """The rows a reader has not settled, in file order."""
        unread = self._unread.get((channel, reader))
        if unread is None:
            unread = self._unread[channel, reader] = Unread()
        return unread.rows(self.index.channels[channel], self.reader_state(channel, reader))

    def problems(self, channels: Iterable[str] | None = None) -> tuple[Problem, ...]:
        """What is wrong in the files of these channels, or in all, in order of path and line."""
        names = self._mailboxes.keys() if channels is None else self._mailboxes.keys() & set(channels)
        if channels is not None:
            standing = self._standing(names)
        else:
            if self._all_standing is None or self._all_standing.version != self.version:
                self._all_standing = self._standing(names)
            standing = self._all_standing
        found = list(standing.problems)
        if channels is None and self._listed is not None:
            found += self._listed.stray
        ahead_us = time.time_ns() // 1000 + MAX_AHEAD_US
        if standing.newest_us > ahead_us:
            found += [each for name in names for each in _ahead_of_clock(self._mailboxes[name].reading, ahead_us)]
        for log_name, lost in self.vanished.items():
            if channel_of(log_name) in names:
                found += lost
        return tuple(sorted(found))

    def _standing(self, names: Iterable[str]) -> _Standing:
        found: list[Problem] = []
        newest_us = 0
        for name in names:
            mailbox, receipts = self._mailboxes[name], self._receipts[name]
            found += mailbox.reading.problems + mailbox.archive_problems + receipts.reading.problems
            if mailbox.fault:
                found.append(Problem(f"{name}{SUFFIX}", 0, mailbox.fault))
            if receipts.fault:
                found.append(Problem(f"{RECEIPTS}/{name}{SUFFIX}", 0, receipts.fault))
            newest_us = max(newest_us, mailbox.reading.newest_us())
        return _Standing(self.version, found, newest_us)

    # --- waiting --------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look for changes from now on, also for those that nobody waits for: so it is seen what vanishes."""
        await self._watcher.start()

    @asynccontextmanager
    async def watched(
        self, wants: Callable[[str], bool], *, names: Iterable[str] | None = None, looks: bool = False
    ) -> AsyncIterator[Subscription]:
        """A subscription to changes; events are subscribed to before this returns, so read after it.

        Args:
            wants: Which channels.
            names: The same channels by name, where they are known: other processes ring for these only.
            looks: Whether the subscriber refreshes whenever it is woken, so that it may be woken before anybody has.
        """
        await self.listen(names)
        with self.feed.subscribe(wants, looks=looks) as subscription:
            yield subscription

    async def listen(self, names: Iterable[str] | None) -> None:
        """Have changes of these channels, or of all, noticed at once; subscribe when this returns, and then read."""
        self._store.bells.want([EVERYTHING] if names is None else names)
        self._store.bells.hang(self._rung)
        await self.watch()


def _new_receipts(name: str, source: LogFile) -> ReceiptIndex:
    return ReceiptIndex(f"{RECEIPTS}/{name}{SUFFIX}", source.read_span)


def _ahead_of_clock(index: ChannelIndex, ahead_us: int) -> Iterator[Problem]:
    order = index.by_time()
    for position in range(len(order) - 1, max(-1, len(order) - 1 - _AHEAD_SHOWN), -1):
        row = order[position]
        if index.times_us[row] <= ahead_us:
            return
        when = format_time(index.times_us[row])
        text = f"stamped {when}, ahead of this machine's clock: later posts do not follow it; set the clock right"
        yield Problem(index.path(row), index.lines[row], text)

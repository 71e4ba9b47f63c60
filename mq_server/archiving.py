"""Archiving: old lines of mailboxes go to `archive/YYYY-MM/`, and come back.

Lines are written where they go, durably, before they are taken from where they were; each file is exchanged as a
whole. So a crash at any step leaves every line in at least one place. What stands in both counts as archived, and the
same call made again finishes the work.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from mq_server.aside import aside
from mq_server.blocks import exchange, patiently
from mq_server.errors import InvalidRequest, UnknownChannel, Unsteady, WriteFailed
from mq_server.moving import KEPT_LINES, Entry, Moved, Wanted, entries, joined, plan
from mq_server.room import Room, channel_matcher, is_glob
from mq_server.stamp import Fingerprint
from mq_server.store import Store

_ATTEMPTS = 20
_NEW = "posted meanwhile"
_NOTHING_LOST = "Nothing is lost: what stands in the mailbox and in the archive counts as archived"
T = TypeVar("T")
_Change = tuple[Path, Fingerprint | None, bytes]


class Archiving(Room):
    """The part of the façade that archives."""

    async def archive(
        self,
        *,
        before: str | None = None,
        keep: int | None = None,
        channels: str | Sequence[str] = (),
        dry_run: bool = False,
    ) -> list[Moved]:
        """Move old lines to the archive, where every query still finds them.

        What a reader has not read yet stays: the channel's own reader, or anyone who has ever settled or fetched
        anything there. So do the newest 100 lines of a mailbox, and lines that cannot be read.

        Args:
            before: What is older than this time or message.
            keep: All but the newest so many lines of each mailbox; at least 100.
            channels: Only these mailboxes: names, globs; by default all.
            dry_run: Only say what would be moved.

        Returns:
            What was done, by mailbox.

        Raises:
            InvalidRequest: Neither or both of `before` and `keep`, or a wrong one.
            UnknownChannel, UnknownReference, AmbiguousReference: A name fits none, or several.
            LockTimeout, WriteFailed, Unsteady: It could not be done. Nothing is lost.
        """
        if (before is None) == (keep is None):
            raise InvalidRequest(["give either before (a time or a message) or keep (a number of lines)"])
        if keep is not None and (isinstance(keep, bool) or keep < KEPT_LINES):
            raise InvalidRequest([f"keep is {keep!r}; at least the newest {KEPT_LINES} lines stay in a mailbox"])
        await self._shelf.refresh()
        wanted = Wanted(None if before is None else self._moment(before), keep or KEPT_LINES)
        return [await self._archive(name, wanted, dry_run) for name in self._meant(channels)]

    async def restore_archive(self, channels: str | Sequence[str] = (), *, dry_run: bool = False) -> list[Moved]:
        """Move archived lines back to their mailboxes, to where they stood.

        Args:
            channels: Only of these: names, globs; by default all.
            dry_run: Only say what would be moved.

        Returns:
            What was done, by mailbox.

        Raises:
            UnknownChannel: There is no such mailbox.
            LockTimeout, WriteFailed, Unsteady: It could not be done. Nothing is lost.
        """
        await self._shelf.refresh()
        return [await self._restore(name, dry_run) for name in self._meant(channels)]

    def _meant(self, channels: str | Sequence[str]) -> list[str]:
        given = [channels] if isinstance(channels, str) else list(channels)
        wants = channel_matcher(given or None)
        for name in given:
            if not is_glob(name) and name not in self._index.channels:
                raise UnknownChannel(name, self._index.channels)
        return sorted(filter(wants, self._index.channels))

    async def _archive(self, channel: str, wanted: Wanted, dry_run: bool) -> Moved:
        for _ in range(_ATTEMPTS):
            await self._shelf.refresh([channel])
            index = self._index.channels.get(channel)
            if index is None:
                break
            known, archived, rows = len(index), index.archived, index.rows
            unread = self._unread_by(channel)

            def why_not(identity: int) -> str:
                row = rows.get(identity, known)  # noqa: B023 - called before the next attempt
                return unread.get(identity, "") if row < known else _NEW  # noqa: B023

            def is_archived(identity: int) -> bool:
                return rows.get(identity, known) < archived  # noqa: B023

            move = await aside(self._move, channel, wanted, why_not, is_archived)
            if dry_run or await self._make_move(channel, move):
                return move.told
        else:
            raise Unsteady(self.root)
        return Moved(channel=channel, months={})

    async def _restore(self, channel: str, dry_run: bool) -> Moved:
        for _ in range(_ATTEMPTS):
            move = await aside(self._move_back, channel)
            if dry_run or await self._make_move(channel, move):
                return move.told
        raise Unsteady(self.root)

    async def _make_move(self, channel: str, move: _Move) -> bool:
        """Do what was made ready, if what it was made of still holds; whether that was so."""
        async with self._delivering([channel]):  # nobody claims, settles or reopens meanwhile
            await self._shelf.refresh([channel])
            if channel in self._index.channels and not move.going.isdisjoint(self._unread_by(channel)):
                return False
            done = await _to_its_end(partial(self._exchange_files, channel, move))
        await self._shelf.refresh([channel])
        return done

    def _unread_by(self, channel: str) -> dict[int, str]:
        """What somebody still has to read, by id, and who."""
        index, leases = self._index.channels[channel], self._leases(channel)
        others = {*self._shelf.readers(channel), *leases.readers()} - {channel}
        found: dict[int, str] = {}
        for reader in [channel, *sorted(others)]:
            held, known = leases.withheld(reader), leases.of(reader)
            for row in self._deliverable(channel, reader):
                identity = index.identity(row)
                holder = known[identity].consumer if identity in held else ""
                found.setdefault(identity, f"held by {holder}" if holder else f"unread by {reader}")
        return found

    # --- in a thread --------------------------------------------------------------------------------------------------

    def _move(
        self, channel: str, wanted: Wanted, why_not: Callable[[int], str], is_archived: Callable[[int], bool]
    ) -> _Move:
        """What is to be done to archive what is old. Nobody is held up while that is found out."""
        archive = _Archive(self._store, channel)
        data = _whole_lines(_read(self._store.mailbox(channel).path)[1])
        planned = plan(channel, data, wanted, why_not, is_archived, archive.texts)
        return _Move(
            told=planned.moved,
            data=data,
            rest=planned.rest,
            before=[archive.joined_with(month, planned.going[month]) for month in planned.moved.months],
            going=frozenset(line.id for lines in planned.going.values() for line in lines),
        )

    def _move_back(self, channel: str) -> _Move:
        """What is to be done to restore a mailbox."""
        archive = _Archive(self._store, channel)
        data = _whole_lines(_read(self._store.mailbox(channel).path)[1])
        standing = entries(data)
        texts = {line.text for line in standing}
        back = {month: [line for line in archive.entries(month) if line.id] for month in self._store.months()}
        fresh = {month: [line for line in lines if line.text not in texts] for month, lines in back.items()}
        lines = [line for month in back for line in fresh[month]]
        return _Move(
            told=Moved(
                channel=channel,
                months={month: len(fresh[month]) for month in back if fresh[month]},
                tidied=sum(map(len, back.values())) - len(lines),
            ),
            data=data,
            rest=joined(lines, standing) if lines else data,
            # The newest first: what is left in the archive must be the oldest.
            after=[archive.emptied(month) for month in sorted(back, reverse=True) if back[month]],
        )

    def _exchange_files(self, channel: str, move: _Move) -> bool:
        log, timeout_s = self._store.mailbox(channel), self.config.lock_timeout_s
        if move.going and self._is_durable:
            # What is archived is never delivered again, so what says that it was read must not be lost after that.
            _sync(self._store.receipts(channel).path)
        # The first lock keeps those away who look for what has vanished, the second whoever posts.
        with self._store.rescue_lock(channel).held(timeout_s), log.lock.held(timeout_s):
            log.tail()  # waits until git or an editor is done with it
            seen, now = _read(log.path)
            if not now.startswith(move.data):
                return False
            if not all(_exchange(*change) for change in move.before):
                return False
            if move.rest != move.data and not _exchange(log.path, seen, move.rest + now[len(move.data) :]):
                return False
            return all(_exchange(*change) for change in move.after)


class _Move(NamedTuple):
    """A move that is ready to be carried out: what the mailbox holds and will hold, and the archive's files.

    Each file to be exchanged `before` or `after` the mailbox is given with how it looks, and its content. What is
    appended to the mailbox meanwhile stays at its end. `going` are the ids that must not be unread.
    """

    told: Moved
    data: bytes
    rest: bytes
    before: Sequence[_Change] = ()
    after: Sequence[_Change] = ()
    going: frozenset[int] = frozenset()


class _Archive:
    """The archived parts of one channel, as they stand in their files.

    Args:
        store: The files.
        channel: Its name.
    """

    def __init__(self, store: Store, channel: str) -> None:
        self._store, self._channel = store, channel
        self._read: dict[str, tuple[Fingerprint | None, list[Entry]]] = {}
        self._texts: dict[str, set[bytes]] = {}

    def entries(self, month: str) -> list[Entry]:
        """The lines of a month."""
        if month not in self._read:
            seen, data = _read(self._path(month))
            self._read[month] = (seen, entries(data))
        return self._read[month][1]

    def texts(self, month: str) -> set[bytes]:
        """The same, without their ends."""
        if month not in self._texts:
            self._texts[month] = {line.text for line in self.entries(month)}
        return self._texts[month]

    def joined_with(self, month: str, lines: list[Entry]) -> _Change:
        """The file of a month with lines put where they belong."""
        data = joined(self.entries(month), lines)
        return self._path(month), self._read[month][0], data

    def emptied(self, month: str) -> _Change:
        """The file of a month without its messages; what cannot be read stays."""
        rest = [line.data for line in self.entries(month) if not line.id and line.text.strip()]
        return self._path(month), self._read[month][0], b"".join(rest)

    def _path(self, month: str) -> Path:
        return self._store.archive(month, self._channel).path


def _whole_lines(data: bytes) -> bytes:
    """Without a last line that somebody is still writing, or never ended."""
    return data[: data.rfind(b"\n") + 1]


def _sync(path: Path) -> None:
    with suppress(FileNotFoundError), path.open("r+b") as file:  # Windows syncs only what can be written to
        os.fsync(file.fileno())


def _read(path: Path) -> tuple[Fingerprint | None, bytes]:
    """What a file holds, and how it looked before that was read."""
    try:
        seen = patiently(lambda: Fingerprint.at(path))
        return seen, b"" if seen is None else patiently(path.read_bytes)
    except FileNotFoundError:
        return None, b""


def _exchange(path: Path, seen: Fingerprint | None, data: bytes) -> bool:
    try:
        done = exchange(path, seen, data)
    except OSError as error:
        raise WriteFailed(path, error, _NOTHING_LOST) from error
    if not data:
        with suppress(OSError):  # there are others in them
            path.parent.rmdir()
            path.parent.parent.rmdir()
    return done


async def _to_its_end(work: Callable[[], T]) -> T:
    """Do something in a thread, and let go of what is held meanwhile only when it is done."""
    doing = asyncio.ensure_future(aside(work))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise

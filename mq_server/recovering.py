"""Recovering: what a program that is none of ours has overwritten is noticed, and put back or reported.

A message that vanished before anybody got it is appended again, as is a receipt: git or an editor has replaced the file
under a post. One that a reader has had is reported, since its removal may be meant. What git still has, in a commit on
any branch, staged, stashed or in a reflog, has not vanished: a checkout, a reset or a rebase has moved it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mq_server.delivery import parse_receipt
from mq_server.errors import MailError, Problem, UnknownReference
from mq_server.message import parse_fields
from mq_server.names import id_number
from mq_server.outcomes import Vanished
from mq_server.repository import GitError, Repository
from mq_server.room import Room
from mq_server.store import RECEIPTS, SUFFIX, channel_of
from mq_server.writer import Append, Stored

_SETTLE_S = 1.0
"""Git and editors go in steps: what is missing for a moment only has not vanished."""
_TRIM_BYTES = 1024 * 1024
log = logging.getLogger(__name__)


class Recovering(Room):
    """The part of the façade that finds and restores what has vanished."""

    def __init__(self, root: str | Path, **others: Any) -> None:
        super().__init__(root, **others)
        self._replaced: set[str] = set()
        self._rescuing: asyncio.Task[None] | None = None
        self._trimming: dict[str, asyncio.Task[None]] = {}
        self._trimmed_bytes: dict[str, int] = {}
        self._shelf.after_look = self._rescue_soon

    async def vanished(self) -> list[Vanished]:
        """What has vanished from the mailboxes and receipts, as far as this machine wrote it."""
        found = []
        for name in self._store.journals():
            lost = await self._lost(name)
            found += [self._vanished(name, each, line) for each, line in lost.items()]
            self._report(name, lost)
        return found

    async def restore(self, ids: Sequence[str] = ()) -> list[Vanished]:
        """Append what has vanished again.

        Args:
            ids: Only these: ids, or ends of ids; by default everything.

        Returns:
            What was appended.

        Raises:
            UnknownReference: One of them names nothing that has vanished.
        """
        return await self._decide(ids, put_back=True)

    async def accept(self, ids: Sequence[str] = ()) -> list[Vanished]:
        """Take it as meant that something has vanished, and forget it.

        Args:
            ids: Only these: ids, or ends of ids; by default everything.

        Returns:
            What was forgotten.

        Raises:
            UnknownReference: One of them names nothing that has vanished.
        """
        return await self._decide(ids, put_back=False)

    async def _decide(self, ids: Sequence[str], *, put_back: bool) -> list[Vanished]:
        found = await self.vanished()
        chosen = found if not ids else [_named(each, found) for each in ids]
        for name in dict.fromkeys(each.file.removesuffix(SUFFIX) for each in chosen):
            wanted = {each.id for each in chosen if each.file == f"{name}{SUFFIX}"}
            async with self._store.rescue_lock(name).held_by_task(self.config.lock_timeout_s):
                lost = await self._lost(name)
                if put_back:
                    await self._put_back(name, {each: line for each, line in lost.items() if each in wanted})
                else:
                    async with self._store.log(name).lock.held_by_task(self.config.lock_timeout_s):
                        self._store.journal(name).keep(lambda each: each not in wanted)  # noqa: B023 - called at once
        await self.vanished()
        return chosen

    # --- looking ----------------------------------------------------------------------------------------------------

    async def _lost(self, name: str) -> dict[str, bytes]:
        """The lines that stand in a log's journal, and neither in the log nor anywhere in git."""
        # In this order: what the journal has stood in the log before, so that it must be there now.
        lines = await asyncio.to_thread(self._store.journal(name).lines)
        await self._shelf.refresh([channel_of(name)])
        missing = {each: line for each, line in lines.items() if not self._shelf.stands(name, each)}
        if not missing or self._shelf.fault(name):
            return {}
        remembered = await asyncio.to_thread(_remembered, self.root, name, missing)
        return {each: line for each, line in missing.items() if each not in remembered}

    def _was_delivered(self, name: str, message_id: str) -> bool:
        """Whether any reader has had a message."""
        channel = channel_of(name)
        if channel != name or channel not in self._index.channels:
            return False
        identity = id_number(message_id)
        leases = self._leases(channel)
        return any(identity in leases.of(reader) for reader in leases.readers()) or any(
            identity in self._shelf.reader_state(channel, reader).settled for reader in self._shelf.readers(channel)
        )

    def _vanished(self, name: str, line_id: str, line: bytes) -> Vanished:
        return Vanished(
            file=f"{name}{SUFFIX}",
            id=line_id,
            what=_described(name, line),
            delivered=self._was_delivered(name, line_id),
        )

    def _report(self, name: str, lost: Mapping[str, bytes]) -> None:
        self._shelf.vanished.pop(name, None)
        if lost:
            self._shelf.vanished[name] = tuple(
                Problem(
                    f"{name}{SUFFIX}",
                    0,
                    f"{each} has vanished from here ({_described(name, line)}): `mq recover` restores or forgets it",
                )
                for each, line in lost.items()
            )

    # --- rescuing ---------------------------------------------------------------------------------------------------

    def _rescue_soon(self) -> None:
        journals = self._shelf.replaced() | self._shelf.vanished.keys()
        self._replaced |= {name for name in journals if self._store.journal(name).path.exists()}
        if self._replaced and (self._rescuing is None or self._rescuing.done()):
            self._rescuing = asyncio.get_running_loop().create_task(self._rescue_replaced())

    async def _rescue_replaced(self) -> None:
        while self._replaced:
            await asyncio.sleep(_SETTLE_S)
            names, self._replaced = self._replaced, set()
            for name in sorted(names):
                try:
                    await self._rescue(name)
                except (MailError, OSError) as error:
                    log.warning("%s%s: cannot look for what has vanished: %s", name, SUFFIX, error)

    async def _rescue(self, name: str) -> None:
        """Put back what nobody has had, and report the rest."""
        lost = await self._lost(name)
        unseen = [each for each in lost if not self._was_delivered(name, each)]
        if unseen:
            async with self._store.rescue_lock(name).held_by_task(self.config.lock_timeout_s):
                lost = await self._lost(name)  # another process may have been quicker
                unseen = [each for each in lost if not self._was_delivered(name, each)]
                await self._put_back(name, {each: lost[each] for each in unseen})
            for each in unseen:
                log.warning(
                    "%s%s: %s had vanished (%s) and is appended again: something replaced the file",
                    *(name, SUFFIX, each, _described(name, lost[each])),
                )
        self._report(name, {each: line for each, line in lost.items() if each not in unseen})

    async def _put_back(self, name: str, lines: Mapping[str, bytes]) -> None:
        logs = {name: self._store.log(name)}
        for line_id, line in lines.items():

            def encode(_: str, __: int, ___: str, line: bytes = line) -> bytes:
                return line

            known = (line_id, _time_us(line_id))
            await self._append(Append(logs, encode, self.config.lock_timeout_s, durable=True, known=known))
        if lines:
            await self._shelf.refresh()

    # --- keeping the journals short -----------------------------------------------------------------------------------

    def _append(self, append: Append) -> Awaitable[Stored]:
        stored = super()._append(append)
        for name in append.logs:
            size = self._store.journal(name).size_bytes
            if size > _TRIM_BYTES and size > 2 * self._trimmed_bytes.get(name, 0) and name not in self._trimming:
                self._trimming[name] = asyncio.get_running_loop().create_task(self._trim(name))
        return stored

    async def _trim(self, name: str) -> None:
        """Take out of a journal what the present commit holds."""
        journal = self._store.journal(name)
        try:
            committed = await asyncio.to_thread(_committed, self.root, name)
            async with self._store.log(name).lock.held_by_task(self.config.lock_timeout_s):
                journal.keep(lambda line_id: line_id.encode() not in committed)
        except (MailError, OSError) as error:
            log.warning("%s: cannot be shortened: %s", journal.path, error)
        self._trimmed_bytes[name] = journal.size_bytes
        del self._trimming[name]

    async def _end_rescues(self) -> None:
        """Stop looking and shortening; for whoever closes."""
        self._shelf.after_look = lambda: None
        tasks = [task for task in (self._rescuing, *self._trimming.values()) if task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _remembered(root: Path, name: str, missing: Mapping[str, bytes]) -> set[str]:
    """Which of the missing lines git still has; none where there is no git."""
    try:
        return Repository.around(root).remembers(f"{name}{SUFFIX}", missing, min(map(_time_us, missing)))
    except GitError:
        return set()


def _time_us(line_id: str) -> int:
    """When a line was written, to the millisecond."""
    return (id_number(line_id) >> 80) * 1000


def _committed(root: Path, name: str) -> set[bytes]:
    """The ids of the lines that the present commit has."""
    try:
        data = Repository.around(root).committed(f"{name}{SUFFIX}")
    except GitError:
        return set()
    return {line[7:33] for line in data.split(b"\n") if line.startswith(b'{"id":"')}


def _described(name: str, line: bytes) -> str:
    if name.startswith(f"{RECEIPTS}/"):
        receipt = parse_receipt(line)
        return f"{receipt.op} of {len(receipt.ids)} by {receipt.reader}"
    fields = parse_fields(line)
    return f"{fields['msg_type']} from {fields['sender']}, {fields['timestamp']}"


def _named(reference: str, found: Sequence[Vanished]) -> Vanished:
    fitting = [each for each in found if each.id.endswith(reference.upper()) and len(reference) >= 4]
    if len({each.id for each in fitting}) != 1:
        raise UnknownReference(reference, "`mq recover` lists what has vanished")
    return fitting[0]

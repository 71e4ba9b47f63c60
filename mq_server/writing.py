"""Writing a post: a new one, or once more one that was posted under the same key."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from mq_server.columns import Place
from mq_server.errors import InvalidRequest, KeyTaken, MessageTooLong, UnknownReference
from mq_server.guarding import Guarding
from mq_server.logfile import View
from mq_server.message import Draft, Encode, Message, encode_line
from mq_server.names import check_name, id_text
from mq_server.outcomes import Posted, Recipient
from mq_server.writer import Append, Stored

_KEY_US = 24 * 3600 * 1_000_000


class _Told(NamedTuple):
    """What was told of a recipient after a post, how its mailbox looked then, and what that rests on."""

    look: View
    basis: object
    since_us: int
    until_us: float
    counted: int
    """How many of those that stand in the index are unread; that holds from `since_us` to `until_us`."""
    unread: int
    last_read: str | None


class Writing(Guarding):
    """The part of the façade that writes posts."""

    def __init__(self, root: str | Path, **others: Any) -> None:
        super().__init__(root, **others)
        self._told: dict[str, _Told] = {}

    async def _post_new(self, draft: Draft, channels: Sequence[str]) -> Posted:
        encode, size = draft.encoder()
        size += max(map(len, channels))
        if size > self.config.max_message_bytes:
            raise MessageTooLong(size, self.config.max_message_bytes)
        await self._check_guards(channels, draft.reply_to, draft.replaces)
        # Counted now, since those who wait are gone with the message before the caller hears of it.
        waiting = {name: self._store.presence.count(name) for name in channels}
        stored = await self._write(encode, channels, plain=draft.replaces is None and draft.expires_in_us is None)
        message = draft.message(stored.id, stored.time_us, channels[0], stored.lines[channels[0]])
        recipients = [
            Recipient(name, name in stored.created, waiting[name], *self._state_after_post(name)) for name in channels
        ]
        return Posted(message=message, recipients=tuple(recipients))

    async def _write(
        self,
        encode: Encode,
        channels: Iterable[str],
        known: tuple[str, int] | None = None,
        *,
        plain: bool = False,
    ) -> Stored:
        logs = {channel: self._store.mailbox(channel) for channel in sorted(channels)}
        stored = await self._append(Append(logs, encode, self.config.lock_timeout_s, self._is_durable, known, plain))
        await self._shelf.posted(logs)
        return stored

    def _state(self, name: str) -> tuple[int | None, str | None]:
        """How many messages a channel's own reader has to read, and when it last took or settled anything."""
        if not self._shelf.is_loaded(name):
            return None, None
        return self._count_deliverable(name, name), self._last_read(name, name)

    def _state_after_post(self, name: str) -> tuple[int | None, str | None]:
        """The same, once a post has been taken in.

        It is found out once for all whose posts were written together, and counted only if more has happened than that
        plain posts of this process came on top.
        """
        if not self._shelf.is_loaded(name):
            return None, None
        told, mailbox = self._told.get(name), self._shelf.mailbox(name)
        if told is None or told.look is not mailbox.view:
            basis, since_us = self._shelf.basis(name), time.time_ns() // 1000
            if told is None or told.basis != basis or not told.since_us <= since_us < told.until_us:
                mailbox.catch_up()
                basis = self._shelf.basis(name)
                counted, until_us = self._count_deliverable(name, name), self._counts_until_us(name, since_us)
            else:
                since_us, until_us, counted = told.since_us, told.until_us, told.counted
            unread, last_read = counted + mailbox.collected_lines, self._last_read(name, name)
            told = self._told[name] = _Told(mailbox.view, basis, since_us, until_us, counted, unread, last_read)
        return told.unread, told.last_read

    def _counts_until_us(self, name: str, now_us: int) -> float:
        """Until when a count of what is unread holds, and what is posted adds to it, if nothing else happens."""
        if self._shelf.reader_state(name, name).seek_us > now_us:
            return 0  # what comes before that counts as read
        return min(filter(now_us.__lt__, self._index.channels[name].expires_us.values()), default=inf)

    # --- posting under a key ----------------------------------------------------------------------------------------

    async def _post_once(self, draft: Draft, channels: Sequence[str], *, everybody: bool) -> Posted:
        """Post under a key, or complete what was posted under it."""
        if not self._store.has_runtime():
            self._store.prepare()  # before a lock file makes the folder
        async with self._store.sender_lock(draft.sender).held_by_task(self.config.lock_timeout_s):
            await self._shelf.refresh(channels)
            earlier = self._posted_before(draft.sender, str(draft.dedup_key), channels)
            if earlier is None:
                return await self._post_new(draft, channels)
            return await self._complete(earlier, draft, channels, everybody=everybody)

    def _posted_before(self, sender: str, key: str, channels: Iterable[str]) -> Place | None:
        """What a sender posted under a key to one of these channels, if that was within the last 24 hours."""
        number = self._index.names.known(sender)
        since_us = time.time_ns() // 1000 - _KEY_US
        for name in channels:
            index = self._index.channels.get(name)
            row = index.keyed(number, key) if index else None
            if index and row is not None and index.times_us[row] > since_us:
                return Place(name, row)
        return None

    async def _complete(
        self, earlier: Place, draft: Draft, channels: Sequence[str], *, everybody: bool = False
    ) -> Posted:
        """The answer for a message that was posted before; copies it to those of its mailboxes that do not have it."""
        identity = self._index.channels[earlier.channel].identity(earlier.row)
        messages = await self._shelf.consistent(
            [earlier.channel], lambda: self._shelf.load([Place(earlier.channel, self._row_of(earlier, identity))])
        )
        message = messages[0]
        # A line edited by hand may name anything.
        reached = tuple(filter(_is_name, dict.fromkeys((*(message.to or ()), message.channel))))
        others = [name for name in channels if name not in reached]
        differs = _content(message) != _content(draft)
        if others and (differs or not everybody):  # there may be more than there were when it went to everybody
            raise KeyTaken(str(draft.dedup_key), message.ref, reached, others)
        await self._shelf.refresh(reached)
        indexes = self._index.channels
        missing = [name for name in reached if name not in indexes or identity not in indexes[name].rows]
        created: Container[str] = ()
        waiting = {name: self._store.presence.count(name) for name in reached}
        if missing:

            def encode(_: str, __: int, channel: str) -> bytes:
                return encode_line(message.stored() | {"channel": channel})

            created = (await self._write(encode, missing, known=(message.id, message.time_us))).created
        recipients = tuple(Recipient(name, name in created, waiting[name], *self._state(name)) for name in reached)
        return Posted(message=message, recipients=recipients, duplicate=True, differs=differs)

    def _row_of(self, place: Place, identity: int) -> int:
        row = self._index.channels[place.channel].rows.get(identity)
        if row is None:  # gone since it was found
            raise UnknownReference(id_text(identity))
        return row


def _content(message: Message | Draft) -> tuple[Any, ...]:
    """What is said, and to what."""
    return message.msg_type, message.payload, message.scene, message.reply_to, message.replaces, bool(message.urgent)


def _is_name(name: str) -> bool:
    try:
        check_name("channel", name)
    except InvalidRequest:
        return False
    return True

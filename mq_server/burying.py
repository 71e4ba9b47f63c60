"""Receipts and dead letters: what a settlement writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from mq_server.columns import Place
from mq_server.delivery import receipt_fields
from mq_server.errors import InvalidRequest, WriteFailed
from mq_server.leases import Named
from mq_server.message import Draft, Message, encode_line, plain_payload
from mq_server.names import DEAD_LETTER, DEAD_LETTERS, format_time, id_number, id_text
from mq_server.room import HeldStill, Room
from mq_server.writer import Append


class Burying(Room):
    """The part of the façade that writes receipts, and copies of what is rejected."""

    async def _write_receipts(
        self,
        held: HeldStill,
        channel: str,
        reader: str,
        consumer: str,
        done: Mapping[str, Named],
        reason: str = "",
        *,
        let_go: bool = False,
    ) -> None:
        """Write down what was done with messages.

        Args:
            held: Holds the channel's deliveries still.
            channel: The mailbox.
            reader: Whose messages.
            consumer: Who did it.
            done: What it was.
            reason: Why some were rejected.
            let_go: Whether nothing else is to be done to the channel: then it is let go of as soon as the receipts
                stand, before they are synced. Whoever claims meanwhile finds the messages settled. Should the power
                fail, they are for nobody, and are delivered again: the caller has had no answer yet.
        """
        over = {**done.get("ack", {}), **done.get("reject", {})}
        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        def end_leases() -> None:
            if channel not in held:
                return  # the caller has gone away: they end by themselves
            with suppress(WriteFailed):  # the receipts stand
                self._store.leases(channel).settle(reader, over)
            if let_go:
                held.let_go(channel)

        def stands() -> None:
            if threading.get_ident() == thread:
                end_leases()
            else:
                loop.call_soon_threadsafe(end_leases)

        ops = [op for op in ("ack", "reject", "reopen") if op in done]
        for op in ops:
            why = reason if op == "reject" else ""
            then = stands if op == ops[-1] else None
            await self._write_receipt(channel, reader, consumer, op, [*done[op].values()], reason=why, stands=then)
        if ops:
            self._shelf.feed.publish({channel})  # whoever waits takes them in

    async def _write_receipt(
        self,
        channel: str,
        reader: str,
        consumer: str,
        op: str,
        ids: Sequence[str],
        *,
        reason: str = "",
        after: str = "",
        stands: Callable[[], None] | None = None,
    ) -> None:
        def encode(receipt_id: str, time_us: int, _: str) -> bytes:
            stamp = format_time(time_us)
            fields = receipt_fields(receipt_id, stamp, channel, reader, consumer, op, ids, reason=reason, after=after)
            return encode_line(fields)

        logs = {f"receipts/{channel}": self._store.receipts(channel)}
        # What was said later must come later in the fold, also when the clock was set back in between, or when a merge
        # brought the receipts of a machine whose clock is ahead, wherever they stand in the file.
        newest_us = self._shelf.last_settled_us(channel, reader)
        limit_s, durable = self.config.lock_timeout_s, self._is_durable
        await self._append(Append(logs, encode, limit_s, durable, follows_any=True, after_us=newest_us, stands=stands))

    async def _bury(self, channel: str, reader: str, ids: Sequence[int], reason: str) -> list[str]:
        """Copy messages to `dead_letters`; the copies' ids. A copy that is there already becomes unread again."""
        if not ids or channel == DEAD_LETTERS:
            return []
        await self._shelf.refresh([DEAD_LETTERS])
        logs = {DEAD_LETTERS: self._store.mailbox(DEAD_LETTERS)}
        letters = []
        read: dict[str, list[str]] = {}
        for message in await self._shelf.consistent([channel], partial(self._messages, channel, ids)):
            payload = {"channel": channel, "reader": reader, "reason": reason, "message": message.stored()}
            try:
                plain_payload(payload)
            except InvalidRequest:  # it would be nested too deep
                payload["message"] = encode_line(message.stored()).decode().rstrip("\n")
            draft = Draft(
                sender=reader, msg_type=DEAD_LETTER, payload=payload, scene=message.scene, reply_to=message.id
            )
            time_us = message.time_us + 1
            letter_id = _letter_id(time_us, message.id, channel, reader, reason)
            letters.append(letter_id)
            known = self._index.channels.get(DEAD_LETTERS)
            if known is not None and id_number(letter_id) in known.rows:
                for name in self._shelf.readers(DEAD_LETTERS):
                    if self._is_done(DEAD_LETTERS, name, id_number(letter_id)):
                        read.setdefault(name, []).append(letter_id)
                continue

            def encode(message_id: str, time_us: int, name: str, draft: Draft = draft) -> bytes:
                return encode_line(draft.message(message_id, time_us, name, 0).stored())

            await self._append(
                Append(logs, encode, self.config.lock_timeout_s, self._is_durable, known=(letter_id, time_us))
            )
        for name, again in read.items():  # rejected before, for the same reason, and reopened
            await self._write_receipt(DEAD_LETTERS, name, reader, "reopen", again)
        await self._shelf.posted([DEAD_LETTERS])
        return letters

    def _messages(self, channel: str, ids: Sequence[int]) -> list[Message]:
        index = self._index.channels.get(channel)
        rows = index.rows if index else {}
        return self._shelf.load([Place(channel, rows[identity]) for identity in ids if identity in rows])

    async def _reject_exhausted(self, held: HeldStill, channel: str, reader: str) -> None:
        """Reject what was delivered as often as may be and is held by nobody."""
        entry = self.config.channels.get(channel)
        own_limit = entry.max_deliveries if entry else None
        limit = self.config.max_deliveries if own_limit is None else own_limit
        exhausted = [
            identity
            for identity, delivery in self._store.leases(channel).claimed(reader).items()
            if delivery.deliveries >= limit > 0 and not delivery.deadline.left_s()
        ]
        if not exhausted:
            return
        await self._shelf.refresh([channel])
        index = self._index.channels.get(channel)
        standing = [each for each in exhausted if index and each in index.rows]
        ids = {each: id_text(each) for each in standing if not self._is_done(channel, reader, each)}
        if ids:
            reason = f"delivered {limit} times without being settled"
            await self._bury(channel, reader, list(ids), reason)
            await self._write_receipts(held, channel, reader, "mq-server", {"reject": ids}, reason)


def _letter_id(time_us: int, message_id: str, channel: str, reader: str, reason: str) -> str:
    """The id of a dead letter: the same wherever the same message is rejected for the same reason."""
    from hashlib import blake2b

    about = "\n".join((message_id, channel, reader, reason))
    random = blake2b(about.encode(), digest_size=10).digest()
    return id_text((time_us // 1000) << 80 | int.from_bytes(random, "big"))

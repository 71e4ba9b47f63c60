"""Claiming in Python: work that is acknowledged when it is done, and given back when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from mq_server.answers import Page
from mq_server.errors import MailError, NotSettled
from mq_server.message import Message
from mq_server.outcomes import Lease
from mq_server.reading import Reader


class Claim:
    """Messages that one consumer holds. Empty, and false, when there were none in time.

    Args:
        room: Where they stand.
        page: What was claimed.
        reader: The reader that was asked for, if any.
        lease_s: For how long.
    """

    def __init__(self, room: Reader, page: Page, reader: str | None, lease_s: float) -> None:
        self.messages = page.messages
        self._room = room
        self._reader = reader
        self._lease_s = lease_s
        keys = map(_key, page.messages)
        self._open: dict[tuple[str, str], Lease] = dict(zip(keys, page.leases, strict=True))

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def deliveries(self, message: Message) -> int:
        """How often a message that is still held has been delivered, this time included."""
        return self._open[_key(message)].deliveries

    async def ack(self, *messages: Message) -> None:
        """Acknowledge messages now, or all that are still held. Leaving the context does so too.

        Raises:
            NotSettled: A lease has expired: somebody else may be at it.
        """
        await self._settle("ack", messages)

    async def release(self, *messages: Message, delay_s: float = 0.0) -> None:
        """Give messages back, or all that are still held.

        Args:
            messages: Which.
            delay_s: How long nobody gets them, in seconds.

        Raises:
            NotSettled: A lease has expired.
        """
        await self._settle("release", messages, delay_s=delay_s)

    async def reject(self, *messages: Message, reason: str) -> None:
        """Refuse messages for good; they are copied to `dead_letters` with the reason.

        Raises:
            NotSettled: A lease has expired.
        """
        await self._settle("reject", messages, reason=reason)

    async def extend(self, lease_s: float | None = None) -> None:
        """Hold what is still held for longer.

        Args:
            lease_s: For how long from now, in seconds; by default as long as at first.

        Raises:
            NotSettled: A lease has expired.
        """
        await self._settle("extend", (), lease_s=lease_s or self._lease_s)

    async def _settle(self, op: str, messages: Sequence[Message], **options: Any) -> None:
        by_channel: dict[str, list[str]] = {}
        faults = []
        for key in map(_key, messages) if messages else self._open:
            if key in self._open:
                by_channel.setdefault(key[0], []).append(self._open[key].name)
            else:
                faults.append(f"{key[1]}: this claim does not hold it any more")
        for channel, names in by_channel.items():
            try:
                settled = await self._room.settle(channel, reader=self._reader or channel, **(options | {op: names}))
            except NotSettled as error:
                faults.append(str(error))
                continue
            if op != "extend":
                for message_id in settled.done[op]:
                    del self._open[channel, message_id]
            faults += [f"{refusal.id}: {refusal.why}" for refusal in settled.refused]
        if faults:
            raise NotSettled(faults)


def _key(message: Message) -> tuple[str, str]:
    return message.channel, message.id


class Claiming(Reader):
    """The part of the façade that claims."""

    @asynccontextmanager
    async def claim(
        self,
        channel: str | Sequence[str],
        *,
        lease_s: float = 60.0,
        limit: int = 1,
        timeout_s: float = 25.0,
        msg_type: str | None = None,
        sender: str | None = None,
        reader: str | None = None,
        consumer: str | None = None,
        delay_s: float = 0.0,
        caller: str | None = None,
    ) -> AsyncIterator[Claim]:
        """Claim messages for the time of a context: acknowledged at its end, given back if it ends with an exception.

            async with room.claim("narrator", lease_s=60) as claim:
                for message in claim:
                    ...

        Args:
            channel: A mailbox, a glob, or a list of both.
            lease_s: For how long nobody else gets them, in seconds; `Claim.extend` prolongs it.
            limit: At most so many messages.
            timeout_s: How long to wait for something to claim, in seconds. The claim is empty if nothing came.
            msg_type: Only this type.
            sender: Only from this sender.
            reader: Whose unread; by default the channel's own reader.
            consumer: Which of several that share the reader.
            delay_s: How long nobody gets what is given back after an exception, in seconds.
            caller: Who asks, if known.

        Raises:
            NotSettled: At the end, if a lease has expired before the work was done: somebody else may be at it.
        """
        page = await self.wait(
            channel,
            msg_type=msg_type,
            sender=sender,
            reader=reader,
            limit=limit,
            lease_s=lease_s,
            consumer=consumer,
            timeout_s=timeout_s,
            caller=caller,
        )
        claim = Claim(self, page, reader, lease_s)
        try:
            yield claim
        except BaseException:
            with suppress(MailError, OSError):  # what cannot be given back comes again when its lease expires
                await claim.release(delay_s=delay_s)
            raise
        await claim.ack()

"""Reading a mailbox: what is unread, what stands from a place on; waiting for more; claiming; acknowledging."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mq_server.answers import Page
from mq_server.errors import AmbiguousReference, InvalidRequest, MailError, NotSettled, UnknownReference
from mq_server.leases import Named
from mq_server.message import Message
from mq_server.names import check_name, id_number, is_id
from mq_server.outcomes import Lease
from mq_server.room import channel_matcher, is_glob
from mq_server.selecting import Question, Selecting
from mq_server.settling import Ids
from mq_server.watch import RESCAN_S
from mq_server.weighing import Order

_MOST_NOTES = 1000


class Reader(Selecting):
    """The part of the façade that reads."""

    def __init__(self, root: str | Path, **others: Any) -> None:
        super().__init__(root, **others)
        self._notes: deque[tuple[str, Callable[[], None]]] = deque()
        """What is to be noted of the deliveries of channels: called while they are held still."""
        self._noting: asyncio.Task[None] | None = None

    async def read(
        self,
        channel: str,
        *,
        since: str | None = None,
        msg_type: str | None = None,
        sender: str | None = None,
        reader: str | None = None,
        ack: bool | Ids = False,
        limit: int = 50,
        lease_s: float | None = None,
        consumer: str | None = None,
        caller: str | None = None,
        limit_bytes: int | None = None,
    ) -> Page:
        """Messages of a channel: what is unread, urgent ones first, or what stands from a place on, in file order.

        Args:
            channel: The mailbox.
            since: A message or a `next` token (what comes after it), or a time (from then on). Whoever has read it;
                changes nothing.
            msg_type: Only this type.
            sender: Only from this sender.
            reader: Whose unread; by default the channel's own reader.
            ack: Messages to settle first, or True to settle what is returned.
            limit: At most so many messages.
            lease_s: Claim what is returned: for so many seconds no other consumer of the reader gets it, and it comes
                again if it is not settled by then.
            consumer: Which of several that share the reader; by default the caller, else the reader.
            caller: Who asks, if known. Somebody else's mailbox without `reader` is only peeked into.
            limit_bytes: At most so many bytes of JSON, but always one message.

        Raises:
            UnknownChannel: The name looks like a slip for an existing one.
            UnknownReference: `since` names nothing.
            UnknownReader: `reader` is almost the name of a known one.
            NotSettled: Something in `ack` is another consumer's, or its lease has expired.
            InvalidRequest: Other faults.
        """
        question = Question(
            channel, since, msg_type, sender, reader, ack, limit, caller, limit_bytes, consumer, lease_s
        )
        await self._begin(question)
        return await self._answer(question)

    async def wait(
        self,
        channel: str | Sequence[str],
        *,
        since: str | None = None,
        msg_type: str | None = None,
        sender: str | None = None,
        reader: str | None = None,
        ack: bool | Ids = False,
        limit: int = 50,
        reply_to: str | None = None,
        lease_s: float | None = None,
        consumer: str | None = None,
        timeout_s: float = 25.0,
        caller: str | None = None,
        limit_bytes: int | None = None,
    ) -> Page:
        """As `read`, but if there is nothing yet, wait until there is.

        Args:
            channel: A mailbox, a glob such as `scene_*`, or a list of both.
            since: As in `read`.
            msg_type: As in `read`.
            sender: As in `read`.
            reader: As in `read`.
            ack: As in `read`.
            limit: As in `read`.
            reply_to: Only answers to this message.
            lease_s: As in `read`.
            consumer: As in `read`.
            timeout_s: How long to wait, in seconds; 0 returns at once.
            caller: As in `read`.
            limit_bytes: As in `read`.

        Returns:
            The page. `timed_out` is true when it is empty, because time ran out or the server is shutting down.
        """
        if not timeout_s >= 0:
            raise InvalidRequest([f"timeout_s is {timeout_s}; give seconds, 0 or more"])
        question = Question(
            channel, since, msg_type, sender, reader, ack, limit, caller, limit_bytes, consumer, lease_s, reply_to, True
        )
        deadline = time.monotonic() + timeout_s
        await self._begin(question)
        if timeout_s > 0:
            await self._shelf.watch()
        # Mostly there is something. Only who has to wait is woken by changes, and looks again once it will be.
        page = await self._answer(question)
        if not page.messages and timeout_s > 0:
            page = await self._awaited(question, deadline)
        return page

    async def _awaited(self, question: Question, deadline: float) -> Page:
        """The answer as soon as it holds messages, or an empty one at the deadline."""
        # What stands between a ring and the answer runs cold, and each step of it shows: what can be done before is.
        channel = question.channel
        await self._shelf.listen(_plain(channel))
        reads = [name for name in self._named(channel) if question.since is None and not question.peeks(name)]
        with (
            self._shelf.feed.subscribe(channel_matcher(channel), looks=True) as subscription,
            self._store.presence.waiting_for(reads),
        ):
            while True:
                page = await self._answer(question)
                left = deadline - time.monotonic()
                if page.messages or left <= 0 or self._shelf.feed.closed:
                    return page
                if question.free_in_s is not None:
                    # What others hold may be given back by a process that we do not hear of: look once a second.
                    left = min(left, question.free_in_s + 0.001, RESCAN_S)
                await subscription.changed(left)

    async def acknowledge(
        self,
        channel: str | Sequence[str],
        messages: Ids,
        *,
        reader: str | None = None,
        consumer: str | None = None,
        caller: str | None = None,
    ) -> None:
        """Settle messages for a reader. When this returns, the receipt is on disk. Repeating it changes nothing.

        Args:
            channel: The mailbox they stand in, or several, or a glob.
            messages: Ids, refs, or the names of leases.
            reader: For whom; by default the channel's own reader.
            consumer: Which of several that share the reader; by default the caller, else the reader.
            caller: Who asks, if known.

        Raises:
            InvalidRequest: One of them names nothing or stands in another channel, or the mailbox is somebody else's.
            NotSettled: One of them is another consumer's, or its lease has expired.
        """
        for what, name in (("reader", reader), ("consumer", consumer), ("caller", caller)):
            if name is not None:
                check_name(what, name)
        texts = [messages] if isinstance(messages, str) else messages
        names = _plain(channel)
        # Mostly every message is named by its id or lease, and stands where it is said to.
        exact = names is not None and all(is_id(text.partition("@")[0]) for text in texts)
        await self._shelf.refresh(names if exact else None)
        per_channel, faults = self._homes(channel, texts, reader)
        if faults and exact:
            await self._shelf.refresh()  # which tells a message of another mailbox from none
            per_channel, faults = self._homes(channel, texts, reader)
        if reader is None and caller is not None:
            faults += [
                f"{name!r} is not your mailbox: to acknowledge as yourself, give reader={caller!r}"
                for name in per_channel
                if name != caller
            ]
        if faults:
            raise InvalidRequest(faults)
        for name, orders in per_channel.items():
            reads_as = reader or name
            await self._acknowledge(name, reads_as, consumer or caller or reads_as, orders)

    def _homes(
        self, channel: str | Sequence[str], texts: Iterable[str], reader: str | None
    ) -> tuple[dict[str, dict[int, Order]], list[str]]:
        """What is to be acknowledged, per channel; and what is wrong with the names."""
        channels = self._named(channel)
        per_channel: dict[str, dict[int, Order]] = {}
        faults = []
        for text in texts:
            name, _, token = text.partition("@")
            try:
                message_id = name if is_id(name) else self._id_of(self._resolve(name))
                identity = id_number(message_id)
                homes = [name for name in channels if name in self._index.channels]
                homes = [name for name in homes if identity in self._index.channels[name].rows]
                if not homes and self._index.find(identity) is None:
                    raise UnknownReference(name)
            except (UnknownReference, AmbiguousReference) as error:
                faults.append(f"ack: {error}")
                continue
            if not homes:
                faults.append(f"ack: {text} does not stand in {' or '.join(channels)}")
            if token and len(homes) > 1:  # each copy has a lease of its own
                homes = [name for name in homes if self._is_token(name, reader or name, identity, token)] or homes
            for name in homes:
                per_channel.setdefault(name, {})[identity] = Order("ack", identity, message_id, token)
        return per_channel, faults

    def _is_token(self, channel: str, reader: str, identity: int, token: str) -> bool:
        """Whether a token is that of the last lease of a message in a channel."""
        delivery = self._leases(channel).of(reader).get(identity)
        return delivery is not None and delivery.token == token

    async def _acknowledge(self, channel: str, reader: str, consumer: str, orders: Mapping[int, Order]) -> None:
        if all(identity in self._shelf.reader_state(channel, reader).settled for identity in orders):
            return
        async with self._delivering([channel]) as held:
            if not self._holds(channel, reader, consumer, orders.values()):
                await self._shelf.refresh([channel])
            settled = self._shelf.reader_state(channel, reader).settled
            fresh = [order for identity, order in orders.items() if identity not in settled]
            whys = [(order, why) for order, why in self._weighed(channel, reader, consumer, fresh) if why]
            if whys:
                raise NotSettled([f"{order.id}: {why}" for order, why in whys])
            if fresh:
                ids = {order.identity: order.id for order in fresh}
                await self._write_receipts(held, channel, reader, consumer, {"ack": ids}, let_go=True)

    # --- answering a question -------------------------------------------------------------------------------------

    async def _begin(self, question: Question) -> None:
        """Settle what the caller acknowledges; refuse names that look like a slip."""
        faults = self._lease_faults(question.lease_s)
        if faults:
            raise InvalidRequest(faults)
        scope = question.scope = self._scope(question)
        if scope is None or not all(map(self._shelf.is_loaded, scope)):
            await self._shelf.refresh(scope)
        for name in self._named(question.channel):
            self._existing(name, question.caller, question.reader)
            self._check_reader(name, question.reader, question.caller)
        if not isinstance(question.ack, bool) and question.ack:
            reads_as = {"reader": question.reader, "consumer": question.consumer, "caller": question.caller}
            await self.acknowledge(question.channel, question.ack, **reads_as)
        if question.takes and any(question.peeks(name) for name in self._named(question.channel)):
            what = "ack=true" if question.ack is True else "lease_s"
            text = f"{what} on somebody else's mailbox: give reader={question.caller!r} to read it as yourself"
            raise InvalidRequest([text])

    async def _answer(self, question: Question) -> Page:
        # Who takes reads the messages while nobody else can take them, and first only looks whether there is anything.
        if question.takes and self._finds(question):
            return await self._take(question)
        limit = 0 if question.takes else question.limit
        page = await self._shelf.consistent(question.scope, lambda: self._page(question, limit=limit))
        if question.takes:
            return await self._take(question) if page.remaining else page
        if not page.messages or question.since is not None:
            return page
        for name, ids in _ids_by_channel(page.messages).items():
            if not question.peeks(name):
                self._note_fetched(name, *question.reads_as(name), ids)
        return page

    def _finds(self, question: Question) -> bool:
        """Whether there is anything to take in the files as last read."""
        indexes = self._index.channels
        return any(
            self._rows(question, name, indexes[name])[0] for name in self._named(question.channel) if name in indexes
        )

    async def _take(self, question: Question) -> Page:
        """The answer, claimed or settled while nobody else can."""
        names = [name for name in self._named(question.channel) if self._shelf.is_loaded(name)]
        lease_s = question.lease_s
        leases: dict[tuple[str, str], Lease] = {}
        async with self._delivering(names) as held:
            if lease_s is not None:
                for name in names:
                    await self._reject_exhausted(held, name, question.reads_as(name)[0])
            # Not from a mailbox that a pattern fits only since: its deliveries are not held still.
            page = await self._shelf.consistent(question.scope, lambda: self._page(question, names))
            for name, ids in _ids_by_channel(page.messages).items():
                reader, consumer = question.reads_as(name)
                if lease_s is None:
                    await self._write_receipts(held, name, reader, consumer, {"ack": ids}, let_go=True)
                    continue
                noted = self._store.leases(name)
                token, deliveries = noted.claim(reader, consumer, ids, lease_s)
                for text, count in zip(ids.values(), deliveries, strict=True):
                    leases[name, text] = Lease(f"{text}@{token}", lease_s, count)
        if lease_s is None:
            return page
        return page._replace(leases=tuple([leases[message.channel, message.id] for message in page.messages]))

    def _note_fetched(self, channel: str, reader: str, consumer: str, ids: Named) -> None:
        """Note that messages are given to a reader: here at once, for others when they have been."""
        note = self._store.leases(channel).fetch(reader, consumer, ids)
        if note is not None:
            self._notes.append((channel, note))
        if self._notes and (self._noting is None or self._noting.done()):
            self._noting = asyncio.get_running_loop().create_task(self._write_notes())

    async def _write_notes(self) -> None:
        """Write what is to be noted; what cannot be written now, with the next read."""
        while self._notes:
            channel, note = self._notes[0]
            try:
                async with self._delivering([channel]):
                    note()
            except (MailError, OSError):  # who may not write here may read all the same
                while len(self._notes) > _MOST_NOTES:
                    self._notes.popleft()
                return
            self._notes.popleft()

    async def _end_notes(self) -> None:
        """Wait until everything is noted, or cannot be."""
        if self._noting is not None:
            await self._noting


def _plain(channel: str | Sequence[str]) -> list[str] | None:
    """The channels, if they are all named and none is a pattern."""
    names = [channel] if isinstance(channel, str) else list(channel)
    return None if any(map(is_glob, names)) else names


def _ids_by_channel(messages: Iterable[Message]) -> dict[str, dict[int, str]]:
    by_channel: dict[str, dict[int, str]] = {}
    for message in messages:
        by_channel.setdefault(message.channel, {})[id_number(message.id)] = message.id
    return by_channel

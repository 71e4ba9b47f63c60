"""Settling: what a reader is done with, gives back, refuses, wants again; and where a reader starts.

Receipts say it durably. Leases, which are this machine's, decide who may: what one consumer holds nobody else settles,
and nobody settles with a lease that is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import NamedTuple

from mq_server.burying import Burying
from mq_server.columns import ChannelIndex
from mq_server.delivery import Receipt
from mq_server.errors import InvalidRequest, MailError, NotSettled, UnknownReference
from mq_server.leases import Delivery
from mq_server.names import DEAD_LETTER, DEAD_LETTERS, check_name, format_time, id_number, id_text, is_id
from mq_server.outcomes import DONE, Refusal, Settled
from mq_server.room import HeldStill
from mq_server.writer import MAX_AHEAD_US

_MAX_DELAY_S = 7 * 86400
_REASON_CHARACTERS = 2000
_BY_LEASE = ("release", "extend")
Ids = str | Sequence[str]


class Order(NamedTuple):
    """What is to be done with one message, whose id is given as number and text. `token` is that of a lease, empty if
    the message was named by its id alone.
    """

    op: str
    identity: int
    id: str
    token: str = ""


class Settling(Burying):
    """The part of the façade that settles."""

    async def settle(
        self,
        channel: str,
        *,
        ack: Ids = (),
        release: Ids = (),
        reject: Ids = (),
        reopen: Ids = (),
        extend: Ids = (),
        seek: str | None = None,
        reader: str | None = None,
        consumer: str | None = None,
        reason: str | None = None,
        delay_s: float = 0.0,
        lease_s: float | None = None,
        caller: str | None = None,
    ) -> Settled:
        """Settle messages for a reader. When this returns, the receipts are on disk.

        A message is named as everywhere, or by the `lease` that a claim gave with it, which is exact: a lease that is
        over settles nothing.

        Args:
            channel: The mailbox they stand in. To reopen a dead letter means to reopen what it is about.
            ack: Done with.
            release: Held, and given back: unread again for every consumer, after `delay_s`.
            reject: Refused for good, and copied to `dead_letters` with the reason.
            reopen: Acked or rejected, and wanted again.
            extend: Held, and held for another `lease_s` from now.
            seek: Where the reader starts anew: `"beginning"`, `"now"`, a message (it and what is stamped later is
                unread) or a time. What was settled before is forgotten.
            reader: For whom; by default the channel's own reader.
            consumer: Which of several that share the reader; by default the caller, else the reader.
            reason: Why something is rejected.
            delay_s: How long what is released is withheld, in seconds.
            lease_s: How long what is extended is held, in seconds.
            caller: Who asks, if known.

        Raises:
            InvalidRequest: Wrong arguments, every fault at once; or the mailbox is somebody else's.
            UnknownReference, AmbiguousReference, UnknownReader: A name fits none, or several.
            NotSettled: Nothing could be settled; every reason.
        """
        given = {"ack": ack, "release": release, "reject": reject, "reopen": reopen, "extend": extend}
        named = {op: [ids] if isinstance(ids, str) else list(ids) for op, ids in given.items()}
        self._check_order(channel, named, seek, reader, consumer, reason, delay_s, lease_s, caller)
        if _needs_all(channel, named, seek):
            await self._shelf.refresh()
        elif not self._shelf.is_loaded(channel):
            await self._shelf.refresh([channel])
        self._existing(channel)
        self._check_reader(channel, reader, caller)
        if channel == DEAD_LETTERS and named["reopen"]:
            if any(ids for op, ids in named.items() if op != "reopen") or seek:
                raise InvalidRequest(["reopen sends dead letters back to where they came from: give it alone"])
            return await self._replay(named["reopen"], reader or channel, consumer or caller)
        orders = await self._orders(channel, named)
        reader = reader or channel
        if seek is not None:
            self._sought_us(channel, seek)  # which may refuse, before anything is made
            if not self._store.has_runtime():
                self._store.prepare()  # before a lock file makes the folder
        by = consumer or caller or reader
        async with self._delivering([channel]) as held:
            if seek is not None:
                return await self._seek(held, channel, reader, by, seek)
            await self._shelf.refresh([channel])
            settled = await self._carry_out(
                held, channel, reader, by, orders, reason or "rejected", delay_s, lease_s or 0.0, let_go=True
            )
        if not settled.done:
            settled.require_all()
        return settled

    def _check_order(
        self,
        channel: str,
        named: Mapping[str, Sequence[str]],
        seek: str | None,
        reader: str | None,
        consumer: str | None,
        reason: str | None,
        delay_s: float,
        lease_s: float | None,
        caller: str | None,
    ) -> None:
        faults: list[str] = []
        for what, name in (("channel", channel), ("reader", reader), ("consumer", consumer), ("caller", caller)):
            if name is not None:
                try:
                    check_name(what, name)
                except InvalidRequest as error:
                    faults += error.faults
        for op, texts in named.items():
            faults += [f"{op}: {text!r} is no name of a message" for text in texts if not isinstance(text, str)]
        replays = channel == DEAD_LETTERS and named["reopen"]  # which anybody may
        if reader is None and caller not in (None, channel) and not replays:
            faults.append(f"{channel!r} is not your mailbox: to settle as yourself, give reader={caller!r}")
        if not any(named.values()) and seek is None:
            faults.append("nothing to settle: give ids in ack, release, reject, reopen or extend, or a seek")
        if any(named.values()) and seek is not None:
            faults.append("seek forgets what was settled: give it alone")
        if reason and not named["reject"]:
            faults.append("reason says why something is rejected: give it together with reject")
        if reason and (len(reason) > _REASON_CHARACTERS or reason != reason.encode(errors="ignore").decode()):
            faults.append(f"reason must be a text of at most {_REASON_CHARACTERS} characters, none of them half")
        if delay_s and not named["release"]:
            faults.append("delay_s is for what is released: give it together with release")
        if not 0 <= delay_s <= _MAX_DELAY_S:
            faults.append(f"delay_s is {delay_s:g}; give seconds from 0 to {_MAX_DELAY_S}")
        if named["extend"] and lease_s is None:
            faults.append("extend needs lease_s: for how many more seconds from now")
        if lease_s is not None and not named["extend"]:
            faults.append("lease_s is for what is extended: give it together with extend")
        faults += self._lease_faults(lease_s)
        if faults:
            raise InvalidRequest(faults)

    def _lease_faults(self, lease_s: float | None) -> list[str]:
        """What is wrong with the length of a lease."""
        limit_s = self.config.max_lease_s
        if lease_s is None or 0 < lease_s <= limit_s:
            return []
        return [f"lease_s is {lease_s:g}; give seconds up to {limit_s:g} (max_lease_s in mq.toml)"]

    async def _orders(self, channel: str, named: Mapping[str, Sequence[str]]) -> list[Order]:
        """What is meant by the names and leases in the arguments.

        Raises:
            InvalidRequest: A message is named twice, or is one of another channel.
            UnknownReference, AmbiguousReference: A name fits none, or several.
        """
        texts = [(op, text) for op, texts in named.items() for text in texts]
        index = self._index.channels.get(channel)
        try:
            orders = [self._order(channel, index, op, text) for op, text in texts]
        except (UnknownReference, InvalidRequest):
            await self._shelf.refresh()  # it may be new; and this tells a message of another mailbox from none
            index = self._index.channels.get(channel)
            orders = [self._order(channel, index, op, text) for op, text in texts]
        if len({order.identity for order in orders}) < len(orders):
            raise InvalidRequest(["a message is named twice: each can be settled in one way only"])
        return orders

    def _order(self, channel: str, index: ChannelIndex | None, op: str, text: str) -> Order:
        """What is meant by a name or a lease in an argument.

        Raises:
            InvalidRequest: It names a message of another channel.
            UnknownReference, AmbiguousReference: It names none, or several.
        """
        name, _, token = text.partition("@")
        message_id = name if is_id(name) else self._id_of(self._resolve(name))
        identity = id_number(message_id)
        if index is None or identity not in index.rows:
            if self._index.find(identity) is None:
                raise UnknownReference(text)
            raise InvalidRequest([f"{op}: {text} does not stand in {channel}"])
        return Order(op, identity, message_id, token)

    # --- carrying out; the channel's deliveries are held still and its files are taken in --------------------------

    async def _carry_out(
        self,
        held: HeldStill,
        channel: str,
        reader: str,
        consumer: str,
        orders: Iterable[Order],
        reason: str,
        delay_s: float = 0.0,
        lease_s: float = 0.0,
        *,
        let_go: bool = False,
    ) -> Settled:
        done: dict[str, dict[int, str]] = {}
        refused = []
        for order, why_not in self._weighed(channel, reader, consumer, orders):
            if why_not:
                refused.append(Refusal(id=order.id, why=why_not))
            else:
                done.setdefault(order.op, {})[order.identity] = order.id
        leases = self._store.leases(channel)
        if "extend" in done:
            leases.extend(reader, done["extend"], lease_s)
        if "release" in done:
            leases.release(reader, done["release"], delay_s)
        letters = await self._bury(channel, reader, list(done.get("reject", ())), reason)
        await self._write_receipts(
            held, channel, reader, consumer, done, reason, let_go=let_go and "reopen" not in done
        )
        if "reopen" in done:
            leases.forget(reader, done["reopen"])
        if done.keys() & {"reopen", "release"}:
            self._wake(channel)
        return Settled(
            channel=channel,
            reader=reader,
            done={op: tuple(ids.values()) for op, ids in done.items()},
            dead_letters=tuple(letters),
            refused=tuple(refused),
        )

    def _wake(self, channel: str) -> None:
        """Wake who waits: something is unread again that was not."""
        self._shelf.feed.publish({channel})
        self._store.bells.ring([channel])

    def _weighed(
        self, channel: str, reader: str, consumer: str, orders: Iterable[Order]
    ) -> Iterator[tuple[Order, str]]:
        """Each order, and why it can't be carried out; empty when it can."""
        index = self._index.channels.get(channel)
        state, deliveries = self._shelf.reader_state(channel, reader), self._store.leases(channel).of(reader)
        before: Delivery | None = None
        holder = ""
        for order in orders:
            identity = order.identity
            row = None if index is None else index.rows.get(identity)
            if index is None or row is None:
                yield order, f"does not stand in {channel} any more"
            else:
                passed = state.seek_us > 0 and state.is_passed(identity, index.times_us[row])
                receipt, delivery = state.settled.get(identity), deliveries.get(identity)
                if delivery is not before:  # what was claimed together shares one
                    before, holder = delivery, delivery.holder() if delivery else ""
                yield order, _why_not(order, reader, consumer, receipt, passed, delivery, holder)

    def _sought_us(self, channel: str, seek: str) -> int:
        """The time that a seek leads to.

        Raises:
            InvalidRequest: It may not lead there.
            UnknownReference, AmbiguousReference: It leads nowhere.
        """
        if seek == "beginning":
            after_us = 0
        elif seek == "now":
            # Posts follow what is a little ahead of the clock. To pass over what is further ahead would pass over
            # everything that is posted until then.
            now_us = time.time_ns() // 1000
            index = self._index.channels.get(channel)
            times_us = index.times_us if index else ()
            after_us = max(now_us, max((each for each in times_us if each <= now_us + MAX_AHEAD_US), default=0) + 1)
        else:
            after_us = self._moment(seek)[0]
        if channel == DEAD_LETTERS and after_us:
            text = "dead letters bear the time of what they are about, so a seek would pass over later ones: ack them"
            raise InvalidRequest([text])
        return after_us

    async def _seek(self, held: HeldStill, channel: str, reader: str, consumer: str, seek: str) -> Settled:
        await self._shelf.refresh([channel])
        after_us = self._sought_us(channel, seek)
        index = self._index.channels.get(channel)
        ahead: dict[int, str] = {}
        if index and seek == "now":
            rows = [row for row, each in enumerate(index.times_us) if each >= after_us]
            ahead = {index.identity(row): id_text(index.identity(row)) for row in rows}
        after = format_time(after_us)
        await self._write_receipt(channel, reader, consumer, "seek", (), after=after)
        if ahead:
            await self._shelf.refresh([channel])
            await self._write_receipts(held, channel, reader, consumer, {"ack": ahead})
        leases = self._store.leases(channel)
        free = [identity for identity, delivery in leases.of(reader).items() if not delivery.holder()]
        leases.forget(reader, {identity: id_text(identity) for identity in free})
        await self._shelf.refresh([channel])
        self._wake(channel)
        return Settled(channel=channel, reader=reader, seek=after)

    # --- dead letters ---------------------------------------------------------------------------------------------

    async def _replay(self, names: Sequence[str], asker: str, consumer: str | None) -> Settled:
        """Reopen what dead letters are about, and acknowledge them: for their own reader, and for who asks."""
        parted = [name.partition("@") for name in names]
        places = [self._resolve(name) for name, _, _ in parted]
        tokens = {self._id_of(place): token for place, (_, _, token) in zip(places, parted, strict=True)}
        if len(tokens) < len(names):
            raise InvalidRequest(["a message is named twice: each can be settled in one way only"])
        letters = await self._shelf.consistent(None, lambda: self._shelf.load(places))
        origins: dict[tuple[str, str], list[str]] = {}
        for letter in letters:
            channel, reader = letter.payload.get("channel"), letter.payload.get("reader")
            if letter.msg_type != DEAD_LETTER or letter.reply_to is None or not (channel and reader):
                raise InvalidRequest([f"reopen: {letter.ref} is no dead letter"])
            origins.setdefault((str(channel), str(reader)), []).append(letter.reply_to)
        done: dict[tuple[str, str, str], None] = {}
        refused: list[Refusal] = []
        for (channel, reader), ids in origins.items():
            try:
                settled = await self.settle(channel, reopen=list(dict.fromkeys(ids)), reader=reader, consumer=consumer)
            except MailError as error:
                refused += [Refusal(id=each, why=str(error).removeprefix(f"{each}: ")) for each in ids]
                continue
            done.update(dict.fromkeys((channel, reader, each) for each in settled.done["reopen"]))
            refused += settled.refused
        if not done:
            raise NotSettled([f"{refusal.id}: {refusal.why}" for refusal in refused])
        async with self._delivering([DEAD_LETTERS]) as held:
            await self._shelf.refresh([DEAD_LETTERS])
            for name in dict.fromkeys([DEAD_LETTERS, asker]):
                read = [
                    Order("ack", id_number(letter.id), letter.id, tokens[letter.id] if name == asker else "")
                    for letter in letters
                    if (letter.payload["channel"], letter.payload["reader"], letter.reply_to) in done
                ]
                await self._carry_out(held, DEAD_LETTERS, name, consumer or name, read, "")
        reopened = tuple(dict.fromkeys(message_id for _, _, message_id in done))
        return Settled(channel=DEAD_LETTERS, reader=asker, done={"reopen": reopened}, refused=tuple(refused))


def _needs_all(channel: str, named: Mapping[str, Sequence[str]], seek: str | None) -> bool:
    """Whether names have to be looked up in all mailboxes: the ends of ids, and what a seek names."""
    texts = [text.partition("@")[0] for texts in named.values() for text in texts]
    return seek is not None or channel == DEAD_LETTERS or not all(map(is_id, texts))


def _why_not(
    order: Order,
    reader: str,
    consumer: str,
    receipt: Receipt | None,
    passed: bool,
    delivery: Delivery | None,
    holder: str,
) -> str:
    """Why an order can't be carried out; empty when it can.

    Args:
        order: What is to be done.
        reader: Whose message it is.
        consumer: Who wants it done.
        receipt: What says that it was settled.
        passed: Whether the reader has sought past it.
        delivery: How far it had come on its way.
        holder: Who holds it now, if anybody does.
    """
    if order.op == "reopen":
        return "" if receipt or passed else "is unread already"
    if receipt:
        when = format_time(receipt.time_us)
        return f"{DONE[receipt.op]} already by {receipt.consumer} at {when}; reopen makes it unread again"
    if passed and order.op != "ack":
        return f"counts as read since {reader} sought past it; reopen makes it unread again"
    if delivery and delivery.settled:
        delivery = None  # of the time before it was reopened on another branch
    if delivery and order.token and order.token != delivery.token:
        return f"this lease is over: {f'{holder} holds it now' if holder else 'claim it again to go on'}"
    if delivery and holder:
        if order.token or holder == consumer:
            return ""
        return f"held by {holder} for another {ceil(delivery.deadline.left_s())} s"
    if order.token or (delivery and delivery.consumer == consumer) or order.op in _BY_LEASE:
        if delivery and delivery.consumer:
            return f"the lease of {delivery.consumer} has expired: claim it again to go on"
        return "nobody holds it: claim it first, with lease_s"
    return ""

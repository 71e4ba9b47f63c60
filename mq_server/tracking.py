"""The sender's view: how far a message has come, who holds what, how far the readers of a channel are."""

from __future__ import annotations

from collections.abc import Iterator

from mq_server.columns import Place
from mq_server.errors import UnknownChannel
from mq_server.leases import Delivery
from mq_server.names import format_time, id_number, ref_text
from mq_server.outcomes import DONE, ChannelStatus, Holding, Progress, ReaderStatus, Status, Step
from mq_server.room import Room


class Tracking(Room):
    """The part of the façade that tells senders what became of their messages."""

    async def status(self, reference: str) -> Status:
        """How far a message has come: stored, fetched, claimed, acked or rejected, by whom and when.

        Args:
            reference: The message, by any of its names.

        Raises:
            UnknownReference, AmbiguousReference: The name fits none, or several.
        """

        def answer() -> Status:
            place = self._resolve(reference)
            message = self._shelf.load([place])[0]
            identity = id_number(message.id)
            homes = [name for name in sorted(self._index.channels) if identity in self._index.channels[name].rows]
            progress = [
                self._progress(Place(name, self._index.channels[name].rows[identity]), identity, reader)
                for name in homes
                for reader in self._readers_of(name, identity)
            ]
            return Status(message=message, progress=tuple(progress))

        return await self._shelf.consistent(None, answer)

    async def channel_status(self, channel: str) -> ChannelStatus:
        """How far the readers of a channel are, and what is held by whom.

        Args:
            channel: The mailbox.

        Raises:
            UnknownChannel: There is none of that name.
        """

        def answer() -> ChannelStatus:
            index = self._existing(channel)
            if index is None:
                raise UnknownChannel(channel, [*self.config.channels, *self._store.channels()[0]])
            readers = {channel, *self._shelf.readers(channel), *self._leases(channel).readers()}
            return ChannelStatus(
                channel=channel,
                messages=len(index),
                waiting=self._store.presence.count(channel),
                readers=tuple(
                    ReaderStatus(
                        reader=reader,
                        unread=self._count_deliverable(channel, reader),
                        last_read=self._last_read(channel, reader),
                    )
                    for reader in sorted(readers, key=lambda reader: (reader != channel, reader))
                ),
                held=tuple(self._holdings(channel)),
            )

        return await self._shelf.consistent([channel], answer)

    def _holdings(self, channel: str) -> Iterator[Holding]:
        """What of a channel is held or withheld now."""
        index = self._index.channels[channel]
        leases = self._leases(channel)
        for reader in sorted(leases.readers()):
            for identity, left_s in leases.withheld(reader).items():
                if identity in index.rows and not self._is_done(channel, reader, identity):
                    delivery = leases.of(reader)[identity]
                    yield Holding(
                        message=self._shelf.load([Place(channel, index.rows[identity])])[0],
                        reader=reader,
                        consumer=delivery.consumer,
                        left_s=left_s,
                        deliveries=delivery.deliveries,
                    )

    def _readers_of(self, channel: str, identity: int) -> list[str]:
        """The channel's own reader, and all others that have had to do with a message."""
        leases = self._leases(channel)
        row = self._index.channels[channel].rows[identity]
        time_us = self._index.channels[channel].times_us[row]
        settled = [
            reader
            for reader in self._shelf.readers(channel)
            if self._shelf.reader_state(channel, reader).is_settled(identity, time_us)
        ]
        others = {*settled, *(reader for reader in leases.readers() if identity in leases.of(reader))} - {channel}
        return [channel, *sorted(others)]

    def _progress(self, place: Place, identity: int, reader: str) -> Progress:
        channel = place.channel
        index = self._index.channels[channel]
        state = self._shelf.reader_state(channel, reader)
        delivery = self._leases(channel).of(reader).get(identity) or Delivery()
        left_s = delivery.deadline.left_s()
        receipt = state.settled.get(identity)
        steps = []
        if delivery.fetched_us:
            steps.append(_step("fetched", delivery.fetched_us, delivery.fetched_by))
        if delivery.claimed_us and delivery.consumer:
            steps.append(_step("claimed", delivery.claimed_us, delivery.consumer))
        if receipt is not None:
            steps.append(_step(DONE[receipt.op], receipt.time_us, receipt.consumer, receipt.reason))
            standing = DONE[receipt.op]
        elif state.is_passed(identity, index.times_us[place.row]):
            standing = "passed"
        elif place.row in self._expired(channel):
            standing = "expired"
        elif left_s:
            standing = "claimed" if delivery.consumer else "withheld"
        else:
            standing = "fetched" if delivery.fetched_us else "stored"
        return Progress(
            channel=channel,
            ref=ref_text(channel, index.lines[place.row], self._id_of(place)),
            reader=reader,
            state=standing,
            waiting=self._store.presence.count(channel),
            steps=tuple(steps),
            deliveries=delivery.deliveries,
            left_s=left_s if standing in ("claimed", "withheld") else 0.0,
        )


def _step(did: str, time_us: int, consumer: str, reason: str = "") -> Step:
    return Step(did=did, timestamp=format_time(time_us), consumer=consumer, reason=reason)

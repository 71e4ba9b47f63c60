"""The part of the façade that counts: who wrote to whom and when, and how many messages stand before a place.

Everything is counted from columns: no message is read for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mq_server.answers import Sent, Traffic
from mq_server.columns import ChannelIndex
from mq_server.names import id_text
from mq_server.room import Room, channel_matcher


class Tallying(Room):
    """The part of the façade that counts."""

    async def traffic(self, *, since: str | None = None, until: str | None = None) -> Traffic:
        """Who wrote when, and to whom how often.

        Args:
            since: A message or a time: not before it.
            until: A message or a time: only before it.

        Returns:
            Each message once in `sent`, in no order; in `pairs` each copy, by sender and mailbox.

        Raises:
            UnknownReference: One of them is neither.
        """

        def answer() -> Traffic:
            start = self._moment(since) if since is not None else (0, 0)
            stop = self._moment(until) if until is not None else None
            superseded = self._index.amendments().superseded
            seen: set[int] = set()
            sent: list[Sent] = []
            pairs: Counter[tuple[str, str]] = Counter()
            for name, channel in self._index.channels.items():
                key_of, sender_of = channel.key, channel.sender
                senders: Counter[str] = Counter()
                for row in channel.rows_from(start[0]):
                    key = key_of(row)
                    time_us, identity = key
                    if key < start or (stop is not None and key >= stop) or identity in superseded:
                        continue
                    sender = sender_of(row)
                    senders[sender] += 1
                    if identity not in seen:
                        seen.add(identity)
                        sent.append(Sent(time_us, sender))
                pairs.update({(sender, name): count for sender, count in senders.items()})
            return Traffic(sent=tuple(sent), pairs=dict(pairs))

        return await self._shelf.consistent(None, answer)

    async def rows_before(
        self, references: Sequence[str], *, channel: str | Sequence[str] | None = None
    ) -> tuple[list[int], int]:
        """How far down the timeline messages stand, counted in rows: every copy and every version is one.

        Args:
            references: Messages or times.
            channel: A name, a glob, or several; None for all.

        Returns:
            For each how many rows come before it, and how many rows there are.

        Raises:
            UnknownReference, AmbiguousReference: A name fits none, or several.
        """
        wants = channel_matcher(channel)

        def answer() -> tuple[list[int], int]:
            indexes = [index for name, index in self._index.channels.items() if wants(name)]
            keys = map(self._moment, references)
            return [sum(index.rows_before(key) for index in indexes) for key in keys], sum(map(len, indexes))

        return await self._shelf.consistent(None, answer)

    async def id_at(self, row: int, *, channel: str | Sequence[str] | None = None) -> str | None:
        """The id of the message at a row of the timeline, counted as `rows_before` counts.

        Args:
            row: How many rows stand before it; the last row's message is given for more.
            channel: A name, a glob, or several; None for all.

        Returns:
            The id; None if there is no message.
        """
        wants = channel_matcher(channel)

        def answer() -> str | None:
            indexes = [index for name, index in self._index.channels.items() if wants(name) and len(index)]
            if not indexes:
                return None
            wanted = max(0, min(row, sum(map(len, indexes)) - 1))
            ends = [
                (index.times_us[order[0]], index.times_us[order[-1]]) for index in indexes if (order := index.by_time())
            ]
            low, high = min(first for first, _ in ends), max(last for _, last in ends)
            while low < high:  # the first moment with more than `wanted` rows up to it
                middle = (low + high) // 2
                if sum(index.rows_before((middle + 1, 0)) for index in indexes) > wanted:
                    high = middle
                else:
                    low = middle + 1
            before = sum(index.rows_before((low, 0)) for index in indexes)
            same_moment = sorted(identity for index in indexes for identity in _ids_at(index, low))
            return id_text(same_moment[wanted - before])

        return await self._shelf.consistent(None, answer)


def _ids_at(index: ChannelIndex, time_us: int) -> list[int]:
    order = index.by_time()
    positions = range(index.rows_before((time_us, 0)), index.rows_before((time_us + 1, 0)))
    return [index.identity(order[position]) for position in positions]

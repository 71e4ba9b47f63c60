"""The part of the façade that counts who wrote to whom and when, from columns: no message is read for it."""

from __future__ import annotations

from collections import Counter

from mq_server.answers import Sent, Traffic
from mq_server.room import Room


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

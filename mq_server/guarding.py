"""Guards: posts that the limits of mq.toml forbid, against loops and floods."""

from __future__ import annotations

from collections.abc import Sequence

from mq_server.errors import MailboxFull, ReplyTooDeep
from mq_server.names import DEAD_LETTERS, id_number, id_text
from mq_server.room import Room

ALWAYS_ALLOWED = ("notes", DEAD_LETTERS)
"""Channels that may be posted to though they are on no roster, and however full they are."""


class Guarding(Room):
    """The part of the façade that refuses what is too much."""

    async def _check_guards(self, channels: Sequence[str], parent: str | None, corrected: str | None) -> None:
        """Refuse what the limits of mq.toml forbid.

        Args:
            channels: Where the post goes.
            parent: The id of the message that it answers.
            corrected: The id of the message that it corrects.
        """
        limit = self.config.max_reply_depth
        if limit and parent is not None:
            await self._shelf.refresh()
            root, depth = self._depth(id_number(parent))
            if depth > limit:
                raise ReplyTooDeep(depth, limit, id_text(root))
        limits = {}
        for name in channels:
            entry = self.config.channels.get(name)
            most = self.config.max_unread if entry is None or entry.max_unread is None else entry.max_unread
            if most and name not in ALWAYS_ALLOWED:
                limits[name] = most
        if limits:
            await self._shelf.refresh(limits)
            known = [name for name in limits if self._shelf.is_loaded(name)]
            unread = {name: self._count_deliverable(name, name) for name in known}
            full = {name: count for name, count in unread.items() if count >= limits[name]}
            if corrected is not None:  # which takes the place of what is still unread
                full = {name: count for name, count in full.items() if not self._is_unread(name, id_number(corrected))}
            if full:
                raise MailboxFull(full, limits)

    def _is_unread(self, channel: str, identity: int) -> bool:
        """Whether a message, in whichever version, is unread for a channel's own reader."""
        index, amendments = self._index.channels[channel], self._index.amendments()
        original = amendments.original(identity)
        rows = self._deliverable(channel, channel)
        return any(amendments.original(index.identity(row)) == original for row in rows)

    def _depth(self, parent: int) -> tuple[int, int]:
        """The root of a reply to `parent`, and how many messages stand above the reply."""
        amendments = self._index.amendments()
        identity: int | None = amendments.original(parent)
        above: dict[int, None] = {}
        while identity is not None and identity not in above:
            above[identity] = None
            identity = self._index.parent(identity, amendments)
        return list(above)[-1], len(above)

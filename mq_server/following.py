"""Following: messages as they come, without end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from mq_server.columns import ChannelIndex, Place
from mq_server.errors import InvalidRequest
from mq_server.index import Index
from mq_server.message import Message
from mq_server.reading import Reader
from mq_server.room import MAX_LIMIT, channel_matcher
from mq_server.selecting import Question
from mq_server.watch import RESCAN_S


class Seen:
    """What a follower has been given.

    By sets of ids and not by places: a merge may put older messages above what was seen.
    """

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._progress: dict[str, tuple[ChannelIndex, int]] = {}

    def appeared(
        self, index: Index, wants: Callable[[str], bool]
    ) -> tuple[dict[int, Place], dict[str, tuple[ChannelIndex, int]]]:
        """The messages not given yet, each at its first place by channel name; and how far each index was looked at."""
        places: dict[int, Place] = {}
        progress: dict[str, tuple[ChannelIndex, int]] = {}
        for name in sorted(filter(wants, index.channels)):
            channel = index.channels[name]
            before, count = self._progress.get(name, (None, 0))
            for row in range(count if before is channel else 0, len(channel)):
                identity = channel.identity(row)
                if identity not in self._ids:
                    places.setdefault(identity, Place(name, row))
            progress[name] = (channel, len(channel))
        return places, progress

    def note(self, places: Iterable[int], progress: dict[str, tuple[ChannelIndex, int]]) -> None:
        """Take what appeared for given."""
        self._ids.update(places)
        self._progress.update(progress)


class Following(Reader):
    """The part of the façade that follows."""

    async def follow(
        self,
        channel: str | Sequence[str] | None = None,
        *,
        msg_type: str | type[Any] | None = None,
        sender: str | None = None,
        reader: str | None = None,
        ack: bool = False,
        caller: str | None = None,
    ) -> AsyncGenerator[Message, None]:
        """Messages as they come, whoever brings them, until the iteration is closed.

        Without `reader`: every message that appears from now on. With it: everything that is unread for the reader,
        first what stands there already, urgent ones first; each is given once.

        Args:
            channel: A mailbox, a list, a glob; None for all.
            msg_type: Only this type: its name, or its payload model.
            sender: Only from this sender.
            reader: Whose unread.
            ack: Acknowledge each message for the reader when the next is asked for: when the work on it is done.
            caller: Who asks, if known.

        Raises:
            InvalidRequest: `ack` without `reader`, and faults as in `wait`.
        """
        wanted_type = msg_type if isinstance(msg_type, str | None) else getattr(msg_type, "msg_type", None)
        if msg_type is not None and not (isinstance(wanted_type, str) and wanted_type):
            raise InvalidRequest([f"msg_type is {msg_type!r}; give a type's name, or a payload model that has one"])
        if ack and reader is None:
            raise InvalidRequest(["ack needs a reader: say for whom"])
        if reader is not None:
            async for message in self._unread_ones(channel or "*", wanted_type, sender, reader, ack, caller):
                yield message
            return
        wants = channel_matcher(channel)
        async with self._shelf.watched(wants, looks=True) as subscription:
            await self._shelf.refresh()
            for name in self._named(channel or "*"):
                self._existing(name, caller)
            seen = Seen()
            seen.note(*seen.appeared(self._index, wants))
            while not self._shelf.feed.closed:
                changed = await subscription.changed(None)
                for message in await self._shelf.consistent(changed, lambda: self._fresh(seen, wants)):
                    if wanted_type in (None, message.msg_type) and sender in (None, message.sender):
                        yield message

    async def _unread_ones(
        self,
        channel: str | Sequence[str],
        msg_type: str | None,
        sender: str | None,
        reader: str,
        ack: bool,
        caller: str | None,
    ) -> AsyncGenerator[Message, None]:
        given: set[tuple[str, str]] = set()
        question = Question(channel, None, msg_type, sender, reader, False, MAX_LIMIT, caller, None)
        await self._begin(question)
        async with self._shelf.watched(channel_matcher(channel), looks=True) as subscription:
            while not self._shelf.feed.closed:
                page = await self._answer(question)
                fresh = [message for message in page.messages if (message.channel, message.id) not in given]
                for message in fresh:
                    given.add((message.channel, message.id))
                    yield message
                    if ack:
                        with suppress(InvalidRequest):  # it has vanished, as a checkout may do: nothing to acknowledge
                            await self.acknowledge(message.channel, [message.id], reader=reader, caller=caller)
                question.limit = len(given) + MAX_LIMIT  # what was given and is not settled heads the next page
                if not fresh:
                    with self._store.presence.waiting_for(self._named(channel)):
                        await subscription.changed(None if question.free_in_s is None else RESCAN_S)

    def _fresh(self, seen: Seen, wants: Callable[[str], bool]) -> list[Message]:
        places, progress = seen.appeared(self._index, wants)
        messages = self._shelf.load(sorted(places.values(), key=self._key_of))
        seen.note(places, progress)
        return messages

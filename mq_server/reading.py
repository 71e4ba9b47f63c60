"""Reading a mailbox: what is unread, what stands from a place on, waiting for more, acknowledging."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from mq_server.answers import Page, fitting
from mq_server.columns import ChannelIndex, Place
from mq_server.delivery import receipt_fields
from mq_server.errors import AmbiguousReference, InvalidRequest, UnknownReference
from mq_server.index import Index
from mq_server.message import Message, encode_line
from mq_server.names import check_name, format_time, id_number, id_text
from mq_server.paging import make_token, open_token, resume
from mq_server.room import Room, channel_matcher, checked_limit, is_glob
from mq_server.store import Append


@dataclass(slots=True)
class Question:
    """What a read or a wait asks for."""

    channel: str | Sequence[str]
    since: str | None
    msg_type: str | None
    sender: str | None
    reader: str | None
    ack: bool | Sequence[str]
    limit: int
    caller: str | None
    limit_bytes: int | None
    reply_to: str | None = None

    def __post_init__(self) -> None:
        checked_limit(self.limit)
        if not self.channel:
            raise InvalidRequest(["channel is empty: name at least one mailbox"])
        channel_matcher(self.channel)
        if isinstance(self.ack, str):
            self.ack = [self.ack]
        self.since = self.since or None
        for what, name in (("reader", self.reader), ("caller", self.caller)):
            if name is not None:
                check_name(what, name)
        if self.ack is True and self.since is not None:
            raise InvalidRequest(["ack=true settles what is unread; together with since, give the ids to settle"])

    def peeks(self, channel: str) -> bool:
        """Whether the caller looks into somebody else's mailbox without saying as whom."""
        return self.since is None and self.reader is None and self.caller not in (None, channel)


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


class Reader(Room):
    """The part of the façade that reads."""

    async def read(
        self,
        channel: str,
        *,
        since: str | None = None,
        msg_type: str | None = None,
        sender: str | None = None,
        reader: str | None = None,
        ack: bool | Sequence[str] = False,
        limit: int = 50,
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
            caller: Who asks, if known. Somebody else's mailbox without `reader` is only peeked into.
            limit_bytes: At most so many bytes of JSON, but always one message.

        Raises:
            UnknownChannel: The name looks like a slip for an existing one.
            UnknownReference: `since` names nothing.
            InvalidRequest: Other faults.
        """
        question = Question(channel, since, msg_type, sender, reader, ack, limit, caller, limit_bytes)
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
        ack: bool | Sequence[str] = False,
        limit: int = 50,
        reply_to: str | None = None,
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
            timeout_s: How long to wait, in seconds; 0 returns at once.
            caller: As in `read`.
            limit_bytes: As in `read`.

        Returns:
            The page. `timed_out` is true when it is empty, because time ran out or the server is shutting down.
        """
        if not timeout_s >= 0:
            raise InvalidRequest([f"timeout_s is {timeout_s}; give seconds, 0 or more"])
        question = Question(channel, since, msg_type, sender, reader, ack, limit, caller, limit_bytes, reply_to)
        deadline = time.monotonic() + timeout_s
        await self._begin(question)
        reader_of = self._named(channel)
        async with self._shelf.watched(channel_matcher(channel), reader_of=reader_of) as subscription:
            while True:
                page = await self._answer(question)
                left = deadline - time.monotonic()
                if page.messages or left <= 0 or self._shelf.feed.closed:
                    return replace(page, timed_out=not page.messages)
                await subscription.changed(left)

    async def follow(
        self, channel: str | Sequence[str] | None = None, *, msg_type: str | None = None, sender: str | None = None
    ) -> AsyncGenerator[Message, None]:
        """Every message that appears from now on, whoever brings it; marks nothing as read.

        Args:
            channel: A mailbox, a list, a glob; None for all.
            msg_type: Only this type.
            sender: Only from this sender.
        """
        wants = channel_matcher(channel)
        async with self._shelf.watched(wants) as subscription:
            await self._shelf.refresh()
            seen = Seen()
            seen.note(*seen.appeared(self._index, wants))
            while not self._shelf.feed.closed:
                changed = await subscription.changed(None)
                for message in await self._shelf.consistent(changed, lambda: self._fresh(seen, wants)):
                    if msg_type in (None, message.msg_type) and sender in (None, message.sender):
                        yield message

    def _fresh(self, seen: Seen, wants: Callable[[str], bool]) -> list[Message]:
        places, progress = seen.appeared(self._index, wants)
        messages = self._shelf.load(sorted(places.values(), key=self._key_of))
        seen.note(places, progress)
        return messages

    async def acknowledge(
        self,
        channel: str | Sequence[str],
        messages: Sequence[str],
        *,
        reader: str | None = None,
        caller: str | None = None,
    ) -> None:
        """Settle messages for a reader. When this returns, the receipt is on disk. Repeating it changes nothing.

        Args:
            channel: The mailbox they stand in, or several, or a glob.
            messages: Ids or refs.
            reader: For whom; by default the channel's own reader.
            caller: Who asks, if known.

        Raises:
            InvalidRequest: One of them names nothing or stands in another channel, or the mailbox is somebody else's.
        """
        for what, name in (("reader", reader), ("caller", caller)):
            if name is not None:
                check_name(what, name)
        await self._shelf.refresh()
        channels = self._named(channel)
        per_channel: dict[str, list[str]] = {}
        faults = []
        for text in messages:
            try:
                identity = id_number(self._id_of(self._resolve(text)))
            except (UnknownReference, AmbiguousReference) as error:
                faults.append(f"ack: {error}")
                continue
            homes = [name for name in channels if name in self._index.channels]
            homes = [name for name in homes if identity in self._index.channels[name].rows]
            if not homes:
                faults.append(f"ack: {text} does not stand in {' or '.join(channels)}")
            for name in homes:
                per_channel.setdefault(name, []).append(id_text(identity))
        if reader is None and caller is not None:
            faults += [
                f"{name!r} is not your mailbox: to acknowledge as yourself, give reader={caller!r}"
                for name in per_channel
                if name != caller
            ]
        if faults:
            raise InvalidRequest(faults)
        for name, ids in per_channel.items():
            await self._settle(name, reader or name, ids)

    async def _settle(self, channel: str, reader: str, ids: Sequence[str]) -> None:
        settled = self._shelf.reader_state(channel, reader).settled
        fresh = [text for text in dict.fromkeys(ids) if id_number(text) not in settled]
        if not fresh:
            return

        def encode(receipt_id: str, time_us: int, _: str) -> bytes:
            return encode_line(receipt_fields(receipt_id, format_time(time_us), channel, reader, reader, "ack", fresh))

        logs = {f"receipts/{channel}": self._store.receipts(channel)}
        durable = self.config.durability == "disk"
        await self._append(Append(logs, encode, self.config.lock_timeout_s, durable))
        await self._shelf.refresh([channel])

    # --- answering a question -------------------------------------------------------------------------------------

    def _named(self, channel: str | Sequence[str]) -> list[str]:
        """The channels that are meant, as things stand."""
        known = dict.fromkeys([*self.config.channels, *sorted(self._index.channels)])
        named: dict[str, None] = {}
        for part in [channel] if isinstance(channel, str) else channel:
            named.update(dict.fromkeys(filter(channel_matcher(part), known)) if is_glob(part) else {part: None})
        return list(named)

    def _scope(self, question: Question) -> list[str] | None:
        """What must be looked at for an answer; None for every file."""
        if question.reply_to is not None or question.since is not None or not isinstance(question.channel, str):
            return None
        return None if is_glob(question.channel) else [question.channel]

    async def _begin(self, question: Question) -> None:
        """Settle what the caller acknowledges; refuse names that look like a slip."""
        await self._shelf.refresh(self._scope(question))
        for name in self._named(question.channel):
            self._existing(name, question.caller, question.reader)
        if not isinstance(question.ack, bool) and question.ack:
            await self.acknowledge(question.channel, question.ack, reader=question.reader, caller=question.caller)
        if question.ack is True and any(question.peeks(name) for name in self._named(question.channel)):
            text = f"ack=true on somebody else's mailbox: give reader={question.caller!r} to read it as yourself"
            raise InvalidRequest([text])

    async def _answer(self, question: Question) -> Page:
        page = await self._shelf.consistent(self._scope(question), lambda: self._page(question))
        if question.ack is True:
            per_channel: dict[str, list[str]] = {}
            for message in page.messages:
                per_channel.setdefault(message.channel, []).append(message.id)
            for name, ids in per_channel.items():
                await self._settle(name, question.reader or name, ids)
        return page

    def _page(self, question: Question) -> Page:
        names = self._named(question.channel)
        places: list[Place] = []
        merged = False
        for name in names:
            index = self._index.channels.get(name)
            if index is not None:
                rows, moved = self._rows(question, name, index)
                places += [Place(name, row) for row in rows]
                merged = merged or moved
        if len(names) > 1:
            places.sort(key=self._key_of)
        if question.since is None:
            places.sort(key=lambda place: place.row not in self._index.channels[place.channel].urgent)
        messages = self._shelf.load(places[: question.limit], question.limit_bytes)
        count = fitting(messages, Message.as_json, question.limit_bytes)
        return Page(
            messages=tuple(messages[:count]),
            next=self._next(question, names, places[count:]),
            remaining=len(places) - count,
            problems=self._shelf.problems(names),
            merged=merged,
            peek=any(question.peeks(name) for name in names),
        )

    def _next(self, question: Question, names: Sequence[str], rest: Sequence[Place]) -> str | None:
        """A token for the place of the first message that was not given; or for the end, when reading by position."""
        index = self._index.channels.get(names[0]) if len(names) == 1 else None
        if index is None or (question.since is None and not rest):
            return None
        position = min((place.row for place in rest), default=len(index))
        return make_token("file", (position, 0), lambda place: index.id_sums[place[0]])

    def _rows(self, question: Question, name: str, index: ChannelIndex) -> tuple[list[int], bool]:
        """The rows a question asks for, in file order; and whether the place its token names has moved."""
        candidates: Iterable[int]
        moved = False
        token = open_token(question.since) if question.since else None
        if token is not None:
            if token.order != "file" or len(self._named(question.channel)) != 1:
                raise InvalidRequest(["since holds a `next` of another question; use it where it came from"])
            start, moved = resume(token, lambda place: index.id_sums[place[0]] if place[0] <= len(index) else -1)
            candidates = range(start[0], len(index))
        elif question.since:
            candidates = self._rows_since(question.since, index)
        else:
            candidates = self._deliverable(name, question.reader or name)
        sender = None if question.sender is None else self._index.names.known(question.sender)
        msg_type = None if question.msg_type is None else self._index.names.known(question.msg_type)
        amendments = self._index.amendments()
        superseded = self._index.superseded_in(name)
        answered = self._original(question.reply_to) if question.reply_to else None
        rows = [
            row
            for row in candidates
            if (sender is None or index.senders[row] == sender)
            and (msg_type is None or index.types[row] == msg_type)
            and (answered is None or amendments.original(index.parents.get(row, -1)) == answered)
            and not (superseded and index.identity(row) in superseded)
        ]
        return rows, moved

    def _rows_since(self, since: str, index: ChannelIndex) -> Iterable[int]:
        time_us, identity = self._moment(since)
        row = index.rows.get(identity)
        return index.rows_from(time_us) if row is None else range(row + 1, len(index))

    def _original(self, reference: str) -> int:
        """The id of what a message corrects, or its own."""
        return self._index.amendments().original(id_number(self._id_of(self._resolve(reference))))

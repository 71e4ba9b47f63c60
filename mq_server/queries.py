"""Looking things up: history, threads, activity, search, who is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import dropwhile, islice

from mq_server.answers import (
    Activity,
    ChannelState,
    Directory,
    Page,
    ThreadPage,
    abbreviated,
    fitting,
)
from mq_server.columns import Place
from mq_server.errors import InvalidRequest
from mq_server.index import Filter
from mq_server.message import Message
from mq_server.names import check_name, id_number, id_text
from mq_server.outcomes import Holding
from mq_server.paging import make_token, open_token, resume
from mq_server.room import channel_matcher, checked_limit
from mq_server.searching import Searching

_LAST_POSTS = 5
_QUESTION = "query"
_QUESTIONS = 10


class Queries(Searching):
    """The part of the façade that looks things up."""

    _last_token: tuple[object, str] | None = None

    async def message(self, reference: str) -> Message:
        """One message by any of its names, in its newest version.

        Raises:
            UnknownReference, AmbiguousReference: The name fits none, or several.
        """

        def answer() -> Message:
            place = self._resolve(reference)
            newest = self._index.shown(place)
            unchanged = self._id_of(newest) == self._id_of(place)
            return self._shelf.load([place if unchanged else newest])[0]

        return await self._shelf.consistent(None, answer)

    async def history(
        self, channel: str, *, limit: int = 50, before: str | None = None, limit_bytes: int | None = None
    ) -> Page:
        """The newest messages of a channel in file order, oldest first.

        Args:
            channel: The mailbox.
            limit: At most so many.
            before: A message, or the `next` of the page before: only what stands above it.
            limit_bytes: At most so many bytes of JSON, but always one message.

        Raises:
            UnknownChannel, UnknownReference, InvalidRequest: Wrong arguments.
        """
        checked_limit(limit)
        check_name("channel", channel)
        scope = self._scope_of(before, channel) if before else [channel]

        def answer() -> Page:
            index = self._existing(channel)
            if index is None:
                return Page()
            stop = len(index)
            if before is not None:
                place = self._resolve(before)
                row = index.rows.get(self._index.channels[place.channel].identity(place.row))
                if row is None:
                    raise InvalidRequest([f"before names a message of {place.channel!r}; give one of {channel!r}"])
                stop = row
            superseded = self._index.superseded_in(channel)
            rows: Iterable[int] = range(stop - 1, -1, -1)
            if superseded:
                rows = (row for row in rows if index.identity(row) not in superseded)
            messages = self._shelf.load([Place(channel, row) for row in islice(rows, limit)], limit_bytes)
            count = fitting(messages, Message.as_json, limit_bytes)
            shown = messages[:count]
            shown.reverse()
            above = index.rows_above(shown[0].id) if shown else 0
            above -= sum(index.rows.get(identity, above) < above for identity in superseded)
            return Page(
                messages=tuple(shown),
                next=shown[0].id if above else None,
                remaining=above,
                problems=self._shelf.problems([channel]),
            )

        return await self._shelf.consistent(scope, answer)

    async def thread(
        self,
        message_id: str,
        *,
        limit: int = 50,
        before: str | None = None,
        start: str | None = None,
        limit_bytes: int | None = None,
    ) -> ThreadPage:
        """The whole conversation a message belongs to, across channels: parents before children.

        Args:
            message_id: Any message of it, by any of its names.
            limit: At most so many: the last ones of that order.
            before: The `next` of the page before: what comes above it.
            start: A message of it: it and what comes below, instead of the last ones.
            limit_bytes: At most so many bytes of JSON, but always one message.

        Raises:
            UnknownReference, AmbiguousReference, InvalidRequest: Wrong arguments.
        """
        checked_limit(limit)

        def answer() -> ThreadPage:
            index = self._index
            nodes = index.thread(self._resolve(message_id))
            at = len(nodes)
            for what, named in (("before", before), ("start", start)):
                if named is not None:
                    there = index.shown(self._resolve(named))
                    at = next((number for number, node in enumerate(nodes) if node.place == there), -1)
                    if at < 0:
                        raise InvalidRequest([f"{what} names {named!r}, which does not stand in this thread"])
            if start is None:
                at, stop = max(0, at - limit), at
            else:
                stop = at + limit
            window = nodes[at:stop]
            messages = self._shelf.load([node.place for node in window])
            # What there is no room for is left out at the end one comes from.
            count = fitting(messages if start else messages[::-1], Message.as_json, limit_bytes)
            first = 0 if start else len(messages) - count
            shown, above = messages[first : first + count], at + first
            root = nodes[0].place
            parent = index.channels[root.channel].parents.get(root.row)
            return ThreadPage(
                root=self._id_of(root),
                messages=tuple(shown),
                depths=tuple(node.depth for node in window[first : first + count]),
                total=len(nodes),
                participants=tuple(sorted({index.channels[at.channel].sender(at.row) for at, _ in nodes})),
                channels=tuple(sorted({at.channel for at, _ in nodes})),
                missing_parent=id_text(parent) if parent is not None and index.find(parent) is None else None,
                next=shown[0].id if above and shown else None,
                remaining=above,
                problems=self._shelf.problems(),
            )

        return await self._shelf.consistent(None, answer)

    async def activity(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        limit: int = 100,
        channel: str | Sequence[str] | None = None,
        sender: str | None = None,
        msg_type: str | None = None,
        scene: str | None = None,
        limit_bytes: int | None = None,
    ) -> Activity:
        """One timeline over all channels, by (timestamp, id), oldest first.

        Args:
            since: A message, a time or a `next` token: what comes after it. Without it the newest are given.
            until: A message or a time: only what comes before it.
            limit: At most so many.
            channel: A name, a glob, or several.
            sender: Only from this sender.
            msg_type: Only this type.
            scene: Only of this scene.
            limit_bytes: At most so many bytes of JSON, but always one message.

        Raises:
            UnknownReference, InvalidRequest: Wrong arguments.
        """
        checked_limit(limit)
        wants = channel_matcher(channel)

        def sum_before(place: tuple[int, int]) -> int:
            return sum(index.sum_before(place) for name, index in self._index.channels.items() if wants(name))

        def answer() -> Activity:
            after, merged = (0, 0), False
            token = open_token(since) if since else None
            if token is not None:
                if token.order != "time":
                    raise InvalidRequest(["since holds a `next` of another question; use it where it came from"])
                after, merged = resume(token, sum_before)
            elif since is not None:
                after = self._moment(since)
                after = (after[0], after[1] and after[1] + 1)  # a time is included, a message is not
            stop = self._moment(until) if until is not None else None
            until_us = None if stop is None else stop[0] + 1
            wanted = Filter(
                None if channel is None else wants,
                sender,
                msg_type,
                scene,
                since_us=after[0] or None,
                until_us=until_us,
            )
            timeline = self._index.timeline(wanted, newest_first=since is None)
            if stop is not None:
                timeline = (place for place in timeline if self._key_of(place) < stop)
            if since is not None:
                timeline = dropwhile(lambda place: self._key_of(place) < after, timeline)
            places = list(islice(timeline, limit + 1))
            messages = self._shelf.load(places[:limit])
            count = fitting(messages, abbreviated, limit_bytes)
            shown = messages[:count]
            if since is None:
                shown.reverse()
            place = (shown[-1].time_us, id_number(shown[-1].id) + 1) if shown else after
            return Activity(
                messages=tuple(shown),
                next=self._token(place, channel, sum_before),
                more=len(places) > count,
                problems=self._shelf.problems(),
                merged=merged,
            )

        return await self._shelf.consistent(None, answer)

    def _token(
        self,
        place: tuple[int, int],
        channel: str | Sequence[str] | None,
        sum_before: Callable[[tuple[int, int]], int],
    ) -> str:
        """The token for a place in the order across some channels; kept, since most ask for what is newest."""
        asked = self._shelf.version, place, channel if isinstance(channel, str) else channel and tuple(channel)
        if self._last_token is None or self._last_token[0] != asked:
            self._last_token = asked, make_token("time", place, sum_before)
        return self._last_token[1]

    async def directory(self, reader: str | None = None) -> Directory:
        """The channels with what is in them, and what concerns the asker.

        Args:
            reader: Who asks.
        """
        if reader is not None:
            check_name("reader", reader)

        def answer() -> Directory:
            index = self._index
            names = list(
                dict.fromkeys([*self.config.channels, *sorted({*index.channels, *self._store.presence.channels()})])
            )
            posts: list[Message] = []
            unanswered: list[Message] = []
            holds: list[Holding] = []
            if reader is not None:
                own = index.timeline(Filter(sender=reader), newest_first=True)
                posts = self._shelf.load(list(islice(own, _LAST_POSTS)))
                asked = index.timeline(Filter(sender=reader, msg_type=_QUESTION), newest_first=True)
                open_ones = (
                    place for place in asked if not index.is_answered(index.channels[place.channel].identity(place.row))
                )
                unanswered = self._shelf.load(list(islice(open_ones, _QUESTIONS)))
                held = (holding for name in sorted(index.channels) for holding in self._holdings(name))
                holds = [each for each in held if each.consumer and reader in (each.consumer, each.reader)]
            return Directory(
                you=reader,
                channels=tuple(self._state_of(name) for name in names),
                types=tuple(self._schemas.names()),
                holds=tuple(holds),
                unanswered=tuple(reversed(unanswered)),
                last_posts=tuple(reversed(posts)),
                problems=self._shelf.problems(),
            )

        return await self._shelf.consistent(None, answer)

    def _state_of(self, name: str) -> ChannelState:
        entry = self.config.channels.get(name)
        index = self._index.channels.get(name)
        filled = index is not None and len(index) > 0
        return ChannelState(
            channel=name,
            description=entry.description if entry else "",
            group=entry.group if entry else "",
            messages=len(index) if index is not None else 0,
            unread=self._count_deliverable(name, name) if filled else 0,
            waiting=self._store.presence.count(name),
            last=self._shelf.load([Place(name, len(index) - 1)])[0] if index is not None and filled else None,
        )

"""What a read or a wait asks for, and which messages that selects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from mq_server.answers import Page, fitting
from mq_server.columns import ChannelIndex, Place
from mq_server.errors import InvalidRequest
from mq_server.message import Message
from mq_server.names import check_name, id_number
from mq_server.paging import make_token, open_token, resume
from mq_server.room import channel_matcher, checked_limit, is_glob
from mq_server.settling import Settling
from mq_server.watch import RESCAN_S


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
    consumer: str | None = None
    lease_s: float | None = None
    reply_to: str | None = None
    waits: bool = False
    """Whether an empty page says that time ran out."""
    scope: Sequence[str] | None = None
    """What must be looked at for an answer, once it has begun; None for every file."""
    free_in_s: float | None = None
    """When the first message that was withheld from the last answer becomes free; None if none was."""

    def __post_init__(self) -> None:
        checked_limit(self.limit)
        if not self.channel:
            raise InvalidRequest(["channel is empty: name at least one mailbox"])
        channel_matcher(self.channel)
        if isinstance(self.ack, str):
            self.ack = [self.ack]
        self.since = self.since or None
        for what, name in (("reader", self.reader), ("consumer", self.consumer), ("caller", self.caller)):
            if name is not None:
                check_name(what, name)
        if self.ack is True and self.since is not None:
            raise InvalidRequest(["ack=true settles what is unread; together with since, give the ids to settle"])
        if self.lease_s is not None and (self.ack is True or self.since is not None):
            text = "lease_s claims what is unread: leave out since, and acknowledge with ids once the work is done"
            raise InvalidRequest([text])

    @property
    def takes(self) -> bool:
        """Whether what is returned changes hands: claimed, or settled at once."""
        return self.lease_s is not None or self.ack is True

    def reads_as(self, channel: str) -> tuple[str, str]:
        """The reader and the consumer in a channel."""
        reader = self.reader or channel
        return reader, self.consumer or self.caller or reader

    def peeks(self, channel: str) -> bool:
        """Whether the caller looks into somebody else's mailbox without saying as whom."""
        return self.since is None and self.reader is None and self.caller not in (None, channel)


class Selecting(Settling):
    """The part of the façade that finds what a question selects."""

    def _named(self, channel: str | Sequence[str]) -> list[str]:
        """The channels that are meant, as things stand."""
        parts = [channel] if isinstance(channel, str) else channel
        if any(map(is_glob, parts)):
            known = dict.fromkeys([*self.config.channels, *sorted(self._index.channels)])
            fitting = (filter(channel_matcher(part), known) if is_glob(part) else [part] for part in parts)
            parts = [*chain.from_iterable(fitting)]
        return [*dict.fromkeys(parts)]

    def _scope(self, question: Question) -> list[str] | None:
        """What must be looked at for an answer; None for every file."""
        channel = question.channel
        if question.reply_to is not None or not isinstance(channel, str) or is_glob(channel):
            return None
        return self._scope_of(question.since, channel) if question.since else [channel]

    def _page(self, question: Question, among: Collection[str] | None = None, limit: int | None = None) -> Page:
        names = [name for name in self._named(question.channel) if among is None or name in among]
        question.free_in_s = None
        found: dict[str, Sequence[int]] = {}
        merged = False
        for name in names:
            index = self._index.channels.get(name)
            if index is not None:
                found[name], moved = self._rows(question, name, index, held_still=among is not None)
                merged = merged or moved
        places = self._first(question, names, found, question.limit if limit is None else limit)
        messages = self._shelf.load(places, question.limit_bytes)
        count = fitting(messages, Message.as_json, question.limit_bytes)
        return Page(
            messages=tuple(messages[:count]),
            # Who takes asks again for what comes next: by position nothing is taken.
            next=None if question.takes else self._next(question, names, found, places[:count]),
            remaining=sum(map(len, found.values())) - count,
            problems=self._shelf.problems(names),
            merged=merged,
            timed_out=not messages if question.waits else None,
            peek=any(question.peeks(name) for name in names),
        )

    def _first(
        self, question: Question, names: Sequence[str], found: Mapping[str, Sequence[int]], limit: int
    ) -> list[Place]:
        """The first of what was found; of several channels in order of time, and urgent ones before all others."""
        if not limit:
            return []
        if len(names) == 1:  # a long backlog: only the places that are asked for are made
            rows = found.get(names[0], [])
            urgent = self._index.channels[names[0]].urgent if rows and question.since is None else set()
            if urgent and not urgent.isdisjoint(rows):
                rows = sorted(rows, key=lambda row: row not in urgent)
            return [Place(names[0], row) for row in rows[:limit]]
        places = [
            Place(name, row) for name, rows in found.items() for row in self._leading(question, name, rows, limit)
        ]
        places.sort(key=self._key_of)
        if question.since is None:
            places.sort(key=lambda place: place.row not in self._index.channels[place.channel].urgent)
        return places[:limit]

    def _leading(self, question: Question, name: str, rows: Sequence[int], limit: int) -> Sequence[int]:
        """Those of a channel's rows that may be among the first of several channels'."""
        index = self._index.channels[name]
        if not isinstance(index.by_time(), range):
            return rows
        urgent = index.urgent.intersection(rows) if index.urgent and question.since is None else ()
        return [*{*rows[:limit], *urgent}]

    def _next(
        self, question: Question, names: Sequence[str], found: Mapping[str, Sequence[int]], given: Sequence[Place]
    ) -> str | None:
        """A token for the place of the first message that was not given; or for the end, when reading by position."""
        index = self._index.channels.get(names[0]) if len(names) == 1 else None
        if index is None:
            return None
        shown = {place.row for place in given}
        position = next((row for row in found[names[0]] if row not in shown), None)
        if position is None and question.since is None:
            return None
        end = len(index) if position is None else position
        return make_token("file", (end, 0), lambda place: index.id_sums[place[0]])

    def _rows(
        self, question: Question, name: str, index: ChannelIndex, *, held_still: bool = False
    ) -> tuple[Sequence[int], bool]:
        """The rows a question asks for, in file order; and whether the place its token names has moved."""
        candidates: Sequence[int]
        moved = False
        superseded: set[int] = set()
        token = open_token(question.since) if question.since else None
        if token is not None:
            if token.order != "file" or len(self._named(question.channel)) != 1:
                raise InvalidRequest(["since holds a `next` of another question; use it where it came from"])
            start, moved = resume(token, lambda place: index.id_sums[place[0]] if place[0] <= len(index) else -1)
            candidates, superseded = range(start[0], len(index)), self._index.superseded_in(name)
        elif question.since:
            candidates, superseded = self._rows_since(question.since, index), self._index.superseded_in(name)
        else:
            withheld = self._withheld(question, name, held_still)
            held = {index.rows[identity] for identity in withheld if identity in index.rows}
            candidates = self._deliverable(name, question.reader or name).without(held)
        sender = None if question.sender is None else self._index.names.known(question.sender)
        msg_type = None if question.msg_type is None else self._index.names.known(question.msg_type)
        answered = self._original(question.reply_to) if question.reply_to else None
        if sender is None and msg_type is None and answered is None and not superseded:
            return candidates, moved
        rows = [
            row
            for row in candidates
            if (sender is None or index.senders[row] == sender)
            and (msg_type is None or index.types[row] == msg_type)
            and (answered is None or self._answered_by(index, row) == answered)
            and not (superseded and index.identity(row) in superseded)
        ]
        return rows, moved

    def _answered_by(self, index: ChannelIndex, row: int) -> int | None:
        """What a row answers, in whichever version of the two; a correction answers what the original did."""
        amendments = self._index.amendments()
        parent = index.parents.get(row)
        if parent is None:
            parent = self._index.parent(amendments.original(index.identity(row)), amendments)
        return None if parent is None else amendments.original(parent)

    def _withheld(self, question: Question, name: str, held_still: bool) -> Collection[int]:
        """The messages that other consumers hold, or that are not to be delivered yet."""
        if question.peeks(name):
            return ()
        reader, consumer = question.reads_as(name)
        leases = self._store.leases(name) if held_still else self._leases(name)
        left_s = leases.withheld(reader)
        if question.lease_s is None:  # who reads on sees what it holds itself; who claims wants more
            known = leases.of(reader)
            left_s = {identity: left for identity, left in left_s.items() if known[identity].consumer != consumer}
        if left_s:
            question.free_in_s = min(question.free_in_s or RESCAN_S, *left_s.values())
        return left_s

    def _rows_since(self, since: str, index: ChannelIndex) -> Sequence[int]:
        time_us, identity = self._moment(since)
        row = index.rows.get(identity)
        return index.rows_from(time_us) if row is None else range(row + 1, len(index))

    def _original(self, reference: str) -> int:
        """The id of what a message corrects, or its own."""
        return self._index.amendments().original(id_number(self._id_of(self._resolve(reference))))

"""What the mailboxes say, in memory: ids, orders, the reply tree. No I/O, no clock.

A `ChannelIndex` holds one mailbox as columns: a message is a row number, not an object. It only grows; a file that was
changed by somebody else gets a new one. `Index` joins the channels without keeping anything of its own, so that
exchanging one channel repairs nothing elsewhere and no answer depends on the order in which files were read or merged.

Definitions
    Copies: a message posted to several channels has a row in each; joined queries show the first by channel name.
    Duplicates: byte-identical lines of one id are one message at the first line's place. Lines of one id with other
        bytes are each a Problem; the bytewise greatest is shown.
    Amendments: a message whose `replaces` names a known one. The newest by (timestamp, id) of all that lead to the same
        original is shown; the others are superseded and left out. In a thread it stands where the original stood.
    Orphans: a message whose `reply_to` is unknown heads a thread of its own.
    Cycles: replies that lead back to themselves (only a hand edit makes them) hang on their earliest member.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from mq_server.errors import AmbiguousReference, Problem, UnknownReference
from mq_server.message import Reference, Unreadable, id_number, id_text, is_id, parse_fields, parse_time

_LOW = (1 << 64) - 1
_ID_BITS_PER_CHARACTER = 5


class Place(NamedTuple):
    """Where a message stands: a channel and a row of its index."""

    channel: str
    row: int


class Names:
    """Text that recurs in many rows (senders, types, scenes) as small numbers; 0 is 'none'."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: 0}
        self._texts: list[str | None] = [None]

    def number(self, text: str | None) -> int:
        """The number of a text, given out anew if need be."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self._texts)
            self._texts.append(text)
        return number

    def known(self, text: str) -> int:
        """The number of a text, or -1 if no row has it."""
        return self._numbers.get(text, -1)

    def text(self, number: int) -> str | None:
        """The text of a number."""
        return self._texts[number]


class ChannelIndex:
    """One mailbox as columns, in file order.

    Args:
        channel: Its name.
        path: What Problems call its file.
        names: Shared with the other channels.
        read_line: Gives the bytes at (offset, length); asked only when two lines bear the same id.
    """

    def __init__(self, channel: str, path: str, names: Names, read_line: Callable[[int, int], bytes]) -> None:
        self.channel = channel
        self._path = path
        self._names = names
        self._read_line = read_line
        self.offsets = array("Q")
        self.lengths = array("I")
        self.lines = array("I")
        self.times_us = array("q")
        self.ids_high = array("Q")
        self.ids_low = array("Q")
        self.senders = array("I")
        self.types = array("I")
        self.scenes = array("I")
        self.id_sums = array("Q", [0])
        """Per row, the sum of the random halves of all ids before it, modulo 2**64: says whether two readings of a
        mailbox hold the same set of messages up to a place."""
        self.rows: dict[int, int] = {}
        self.replies: dict[int, list[int]] = {}
        self.parents: dict[int, int] = {}
        self.replaces: dict[int, int] = {}
        self.expires_us: dict[int, int] = {}
        self.urgent: set[int] = set()
        self.problems: list[Problem] = []
        self._in_time_order = True
        self._by_time: array[int] | None = None
        self._conflicts: set[int] = set()

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, offset: int, number: int, line: bytes) -> None:
        """Take in one line, in file order.

        Args:
            offset: Where its bytes start in the file.
            number: Its line number, from 1.
            line: Its bytes without the line end.
        """
        try:
            fields = parse_fields(line)
        except Unreadable as fault:
            self.problems.append(Problem(self._path, number, str(fault)))
            return
        identity = id_number(fields["id"])
        row = self.rows.get(identity)
        if row is not None:
            if not self._outranks(row, identity, number, line):
                return
            self._set_links(row, None)
        else:
            row = self.rows[identity] = len(self)
            for column in (self.offsets, self.lengths, self.lines, self.senders, self.types, self.scenes):
                column.append(0)
            self.times_us.append(0)
            self.ids_high.append(identity >> 64)
            self.ids_low.append(identity & _LOW)
            self.id_sums.append((self.id_sums[-1] + identity) & _LOW)
        self.offsets[row], self.lengths[row], self.lines[row] = offset, len(line), number
        self.senders[row] = self._names.number(fields["sender"])
        self.types[row] = self._names.number(fields["msg_type"])
        self.scenes[row] = self._names.number(fields.get("scene"))
        self.times_us[row] = parse_time(fields["timestamp"])
        self._by_time = None
        if row and self.key(row) < self.key(row - 1):
            self._in_time_order = False
        if len(fields) > 6:
            self._set_links(row, fields)

    def _outranks(self, row: int, identity: int, number: int, line: bytes) -> bool:
        """Whether another line of a known id is to be shown instead; reports both when they differ."""
        shown = self._read_line(self.offsets[row], self.lengths[row])
        if shown == line:
            return False
        text = id_text(identity)
        if identity not in self._conflicts:
            self._conflicts.add(identity)
            self._report_conflict(self.lines[row], text)
        self._report_conflict(number, text)
        return line > shown

    def _report_conflict(self, number: int, text: str) -> None:
        message = f"id {text} stands on another line with different content: keep one, give the other a new id"
        self.problems.append(Problem(self._path, number, message))

    def _set_links(self, row: int, fields: dict[str, object] | None) -> None:
        parent = self.parents.pop(row, None)
        if parent is not None:
            self.replies[parent].remove(row)
        self.replaces.pop(row, None)
        self.expires_us.pop(row, None)
        self.urgent.discard(row)
        if fields is None:
            return
        parent = _id_or_none(fields.get("reply_to"))
        if parent is not None:
            self.parents[row] = parent
            self.replies.setdefault(parent, []).append(row)
        original = _id_or_none(fields.get("replaces"))
        if original is not None:
            self.replaces[row] = original
        expires_at = fields.get("expires_at")
        if isinstance(expires_at, str):
            try:
                self.expires_us[row] = parse_time(expires_at)
            except ValueError:
                message = f"'expires_at' {expires_at!r} is not an RFC 3339 time; it is ignored"
                self.problems.append(Problem(self._path, self.lines[row], message))
        if fields.get("urgent"):
            self.urgent.add(row)

    def identity(self, row: int) -> int:
        """The id of a row as a number."""
        return self.ids_high[row] << 64 | self.ids_low[row]

    def key(self, row: int) -> tuple[int, int]:
        """(timestamp, id): the order across channels."""
        return self.times_us[row], self.identity(row)

    def sender(self, row: int) -> str:
        """Who wrote the row's message."""
        return self._names.text(self.senders[row]) or ""

    def scene(self, row: int) -> str | None:
        """The scene of the row's message."""
        return self._names.text(self.scenes[row])

    def msg_type(self, row: int) -> str:
        """The type of the row's message."""
        return self._names.text(self.types[row]) or ""

    def rows_above(self, message_id: str) -> int:
        """How many messages stand above a known one in the file."""
        return self.rows[id_number(message_id)]

    def by_time(self) -> range | array[int]:
        """The rows in (timestamp, id) order. After a merge that is not the file's order."""
        if self._in_time_order:
            return range(len(self))
        if self._by_time is None:
            self._by_time = array("I", sorted(range(len(self)), key=self.key))
        return self._by_time

    def ends_with(self, suffix: str) -> Iterator[int]:
        """The rows whose id ends with `suffix` (base 32 text)."""
        if len(suffix) == 26:
            row = self.rows.get(id_number(suffix)) if suffix[0] <= "7" else None
            if row is not None:
                yield row
            return
        bits = _ID_BITS_PER_CHARACTER * len(suffix)
        mask, wanted = (1 << bits) - 1, id_number(suffix)
        low_mask, low = mask & _LOW, wanted & _LOW
        for row, value in enumerate(self.ids_low):
            if value & low_mask == low and self.identity(row) & mask == wanted:
                yield row

    def sum_before(self, key: tuple[int, int]) -> int:
        """The sum of ids (as in `id_sums`) of the rows that come before `key` in (timestamp, id) order."""
        order = self.by_time()
        stop = bisect_left(order, key, key=self.key)
        if isinstance(order, range):
            return self.id_sums[stop]
        return sum(self.ids_low[row] for row in order[:stop]) & _LOW

    def at_line(self, number: int) -> int | None:
        """The row whose shown line has this number."""
        lines = self.lines
        if not self._conflicts:
            row = bisect_left(lines, number)
            return row if row < len(lines) and lines[row] == number else None
        return next((row for row, line in enumerate(lines) if line == number), None)


class Filter(NamedTuple):
    """Which rows a query wants; None means any."""

    channels: Callable[[str], bool] | None = None
    sender: str | None = None
    msg_type: str | None = None
    scene: str | None = None
    since_us: int | None = None
    until_us: int | None = None


class ThreadNode(NamedTuple):
    """One message of a thread: where it stands, and how many replies lie between it and the root."""

    place: Place
    depth: int


class Index:
    """All channels of a production, joined."""

    def __init__(self) -> None:
        self.names = Names()
        self.channels: dict[str, ChannelIndex] = {}

    def __len__(self) -> int:
        return sum(map(len, self.channels.values()))

    def find(self, identity: int) -> Place | None:
        """The place of a message, the first by channel name if it has copies."""
        found = None
        for name, channel in self.channels.items():
            row = channel.rows.get(identity)
            if row is not None and (found is None or name < found.channel):
                found = Place(name, row)
        return found

    def resolve(self, reference: Reference | None, text: str) -> Place:
        """The message a reference names.

        Args:
            reference: What `parse_reference` made of `text`.
            text: What the caller wrote, for the error.

        Raises:
            UnknownReference: Nothing is named so.
            AmbiguousReference: An end of an id fits several messages.
        """
        if reference is None:
            raise UnknownReference(text)
        suffix, channel, line = reference
        if channel and channel not in self.channels:
            raise UnknownReference(text, f"There is no channel {channel!r}")
        if channel:
            at_line = self.channels[channel].at_line(line)
            if at_line is not None and (not suffix or _id_ends(self.channels[channel], at_line, suffix)):
                return Place(channel, at_line)
            if not suffix:
                raise UnknownReference(text, f"{channel} has no readable message on line {line}")
        names = [channel] if channel else self.channels
        matches: dict[int, Place] = {}
        for name in names:
            index = self.channels[name]
            for row in index.ends_with(suffix):
                matches.setdefault(index.identity(row), Place(name, row))
        if not matches:
            raise UnknownReference(text)
        if len(matches) > 1:
            raise AmbiguousReference(text, [id_text(identity) for identity in sorted(matches)])
        identity = next(iter(matches))
        return Place(channel, matches[identity].row) if channel else self.find(identity) or matches[identity]

    # --- amendments -----------------------------------------------------------------------------------------------

    def amendments(self) -> Amendments:
        """Which messages correct which, as things stand."""
        corrections: dict[int, set[int]] = {}
        for channel in self.channels.values():
            for row, original in channel.replaces.items():
                if self.find(original) is not None:
                    corrections.setdefault(channel.identity(row), set()).add(original)
        return Amendments(self, {new: min(old) for new, old in corrections.items()})

    # --- orders ---------------------------------------------------------------------------------------------------

    def timeline(self, wanted: Filter, *, newest_first: bool = False) -> Iterator[Place]:
        """The rows of all channels that a filter wants, by (timestamp, id), each message once, superseded ones out."""
        superseded = self.amendments().superseded
        streams = [
            _keyed_rows(self.channels[name], wanted, newest_first)
            for name in sorted(self.channels)
            if wanted.channels is None or wanted.channels(name)
        ]
        merged = heapq.merge(*streams, key=lambda item: item[0], reverse=newest_first)
        last: int | None = None
        group: list[Place] = []
        for (_, identity), place in merged:
            if identity != last and group:
                yield min(group)
                group = []
            last = identity
            if identity not in superseded and self._fits(place, wanted):
                group.append(place)
        if group:
            yield min(group)

    def _fits(self, place: Place, wanted: Filter) -> bool:
        channel, row, names = self.channels[place.channel], place.row, self.names
        return (
            (wanted.sender is None or channel.senders[row] == names.known(wanted.sender))
            and (wanted.msg_type is None or channel.types[row] == names.known(wanted.msg_type))
            and (wanted.scene is None or channel.scenes[row] == names.known(wanted.scene))
        )

    # --- threads --------------------------------------------------------------------------------------------------

    def thread(self, place: Place) -> list[ThreadNode]:
        """The whole thread a message belongs to: parents before children, siblings by (timestamp, id)."""
        amendments = self.amendments()
        start = amendments.original(self.channels[place.channel].identity(place.row))
        nodes: list[ThreadNode] = []
        seen: set[int] = set()
        waiting = [(self.root(start, amendments), 0)]
        while waiting:
            identity, depth = waiting.pop()
            if identity in seen:
                continue
            seen.add(identity)
            shown = self.find(amendments.newest(identity))
            if shown is not None:
                nodes.append(ThreadNode(shown, depth))
            replies = self._replies(identity, amendments)
            waiting += [(reply, depth + 1) for reply in sorted(replies, key=self._key, reverse=True)]
        return nodes

    def root(self, identity: int, amendments: Amendments) -> int:
        """The id of the message that heads the thread of `identity` (an original)."""
        path: list[int] = []
        known = set()
        while identity not in known:
            known.add(identity)
            path.append(identity)
            parent = self.parent(identity, amendments)
            if parent is None:
                return identity
            identity = parent
        return min(path[path.index(identity) :], key=self._key)

    def parent(self, identity: int, amendments: Amendments) -> int | None:
        """The original that `identity` answers; None for a root and for an orphan."""
        place = self.find(identity)
        parent = None if place is None else self.channels[place.channel].parents.get(place.row)
        if parent is None or self.find(parent) is None:
            return None
        return amendments.original(parent)

    def _replies(self, identity: int, amendments: Amendments) -> set[int]:
        replies = set()
        for version in amendments.versions(identity):
            for channel in self.channels.values():
                for row in channel.replies.get(version, ()):
                    reply = channel.identity(row)
                    # A correction that answers what it corrects is the message itself, not a reply to it.
                    if reply not in amendments.corrects:
                        replies.add(reply)
        return replies

    def _key(self, identity: int) -> tuple[int, int]:
        place = self.find(identity)
        return (0, identity) if place is None else self.channels[place.channel].key(place.row)


class Amendments:
    """Which message corrects which. Chains and forks lead to one original; the newest of all its versions is shown."""

    def __init__(self, index: Index, corrects: dict[int, int]) -> None:
        self.corrects = corrects
        self._versions: dict[int, list[int]] = {}
        for identity in corrects:
            self._versions.setdefault(self.original(identity), []).append(identity)
        self._newest = {
            original: max([*versions, original], key=index._key) for original, versions in self._versions.items()
        }
        self.superseded: set[int] = {
            version
            for original, versions in self._versions.items()
            for version in [*versions, original]
            if version != self._newest[original]
        }

    def original(self, identity: int) -> int:
        """What a version goes back to; a message that corrects nothing is its own original."""
        seen: list[int] = []
        while identity in self.corrects:
            if identity in seen:  # hand edits made a circle: its smallest id serves as the original
                return min(seen[seen.index(identity) :])
            seen.append(identity)
            identity = self.corrects[identity]
        return identity

    def newest(self, original: int) -> int:
        """The version of an original that is shown."""
        return self._newest.get(original, original)

    def versions(self, original: int) -> Iterable[int]:
        """An original and all its corrections."""
        return {original, *self._versions.get(original, ())}


def _keyed_rows(channel: ChannelIndex, wanted: Filter, newest_first: bool) -> Iterator[tuple[tuple[int, int], Place]]:
    order = channel.by_time()
    times = channel.times_us
    start = 0 if wanted.since_us is None else bisect_left(order, wanted.since_us, key=times.__getitem__)
    stop = len(order) if wanted.until_us is None else bisect_left(order, wanted.until_us, key=times.__getitem__)
    rows = range(stop - 1, start - 1, -1) if newest_first else range(start, stop)
    for position in rows:
        row = order[position]
        yield channel.key(row), Place(channel.channel, row)


def _id_ends(channel: ChannelIndex, row: int, suffix: str) -> bool:
    return id_text(channel.identity(row)).endswith(suffix)


def _id_or_none(text: object) -> int | None:
    return id_number(text) if isinstance(text, str) and is_id(text) else None

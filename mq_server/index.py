"""What the mailboxes say, joined: ids, the order across channels, the reply tree. No I/O, no clock.

`Index` joins the channels without keeping anything of its own but what it can compute anew, so that exchanging one
channel repairs nothing elsewhere and no answer depends on the order in which files were read or merged.

Definitions
    Copies: a message posted to several channels has a row in each; joined queries show the first by channel name.
    Amendments: a message whose `replaces` names a known one. The newest by (timestamp, id) of all that lead to the same
        original is shown; the others are superseded and left out. In a thread it stands where the original stood. In
        the view of one mailbox only the amendments that stand in it count.
    Orphans: a message whose `reply_to` is unknown heads a thread of its own.
    Cycles: replies that lead back to themselves (only a hand edit makes them) hang on their earliest member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from mq_server.chains import LOW, NONE
from mq_server.columns import ID_BITS_PER_CHARACTER, ChannelIndex, Names, Place
from mq_server.errors import AmbiguousReference, UnknownReference
from mq_server.homes import Homes
from mq_server.names import ID_LENGTH, Reference, id_number, id_text
from mq_server.timeline import Wants, windows


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
        self._homes = Homes()
        self._amendments = _NO_AMENDMENTS
        self._amendments_of = 0
        self._superseded_in: dict[str, tuple[tuple[ChannelIndex, int, int], set[int]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.channels.values()))

    def find(self, identity: int) -> Place | None:
        """The place of a message, the first by channel name if it has copies."""
        self._homes.keep_up(self.channels, self.names.change)
        return self._find(identity)

    def _find(self, identity: int) -> Place | None:
        """The same where nothing can have come since the last time."""
        name, found, high, low = "", -1, identity >> 64, identity & LOW
        for home in self._homes.of(low):
            heads, mask, lows, highs, before = home.rows
            row = heads[low & mask]
            # The same as `Chains.newest`, written out: many mailboxes may be asked, and most don't have it.
            while row != NONE:
                if lows[row] == low and highs[row] == high:
                    if found < 0 or home.name < name:
                        name, found = home.name, row
                    break
                row = before[row]
        return None if found < 0 else Place(name, found)

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
        if len(suffix) == ID_LENGTH and not channel:
            place = self.find(id_number(suffix))
            if place is None:
                raise UnknownReference(text)
            return place
        if channel and channel not in self.channels:
            raise UnknownReference(text, f"There is no channel {channel!r}")
        if channel:
            index = self.channels[channel]
            at_line = index.at_line(line)
            candidates = [*([] if at_line is None else [at_line]), *(index.archived_at_line(line) if suffix else ())]
            row = next((row for row in candidates if _id_ends(index, row, suffix)), None)
            if row is not None:
                return Place(channel, row)
            if not suffix:
                raise UnknownReference(text, f"{channel} has no readable message on line {line}")
        self._homes.keep_up(self.channels, self.names.change)
        end, bits = id_number(suffix), ID_BITS_PER_CHARACTER * len(suffix)
        names = [channel] if channel else [home.name for home in self._homes.of(end & LOW, min(bits, 64))]
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
        self._homes.keep_up(self.channels, self.names.change)
        if not self._homes.has_corrections:
            return _NO_AMENDMENTS
        if self._homes.version != self._amendments_of:
            corrections: dict[int, set[int]] = {}
            for channel in self.channels.values():
                for row, original in channel.replaces.items():
                    if self.find(original) is not None:
                        corrections.setdefault(channel.identity(row), set()).add(original)
            self._amendments = Amendments({new: min(old) for new, old in corrections.items()}, self._key)
            self._amendments_of = self._homes.version
        return self._amendments

    def superseded_in(self, channel: str) -> set[int]:
        """What is corrected within one mailbox. Other mailboxes, which may not have been read, do not count."""
        index = self.channels[channel]
        if not index.replaces:
            return set()
        state = (index, len(index), index.rewritten)
        kept = self._superseded_in.get(channel)
        if kept is None or kept[0] != state:
            corrects = {index.identity(row): old for row, old in index.replaces.items() if old in index.rows}
            superseded = Amendments(corrects, lambda identity: index.key(index.rows[identity])).superseded
            kept = self._superseded_in[channel] = (state, superseded)
        return kept[1]

    def shown(self, place: Place) -> Place:
        """Where the newest version of a message stands."""
        amendments = self.amendments()
        identity = self.channels[place.channel].identity(place.row)
        return self.find(amendments.newest(amendments.original(identity))) or place

    # --- orders ---------------------------------------------------------------------------------------------------

    def timeline(self, wanted: Filter, *, newest_first: bool = False) -> Iterator[Place]:
        """The rows of all channels that a filter wants, by (timestamp, id), each message once, superseded ones out."""
        superseded = self.amendments().superseded
        channels: Sequence[tuple[int, ChannelIndex]] = self._homes.by_newest()
        if wanted.channels is not None:
            channels = [(newest_us, channel) for newest_us, channel in channels if wanted.channels(channel.channel)]
        last_high = last_low = -1
        shown: Place | None = None
        fits, since_us, until_us = self.fitting(wanted), wanted.since_us, wanted.until_us
        for window in windows(channels, fits, since_us=since_us, until_us=until_us, newest_first=newest_first):
            for _, high, low, name, row in window:
                if low == last_low and high == last_high:
                    shown = shown and min(shown, Place(name, row))
                    continue
                if shown is not None:
                    yield shown
                last_high, last_low = high, low
                shown = None if superseded and (high << 64 | low) in superseded else Place(name, row)
        if shown is not None:
            yield shown

    def fitting(self, wanted: Filter) -> Wants:
        """Picks the rows that have the sender, type and scene that a filter wants."""
        known = self.names.known
        sender, msg_type, scene = (text and known(text) for text in (wanted.sender, wanted.msg_type, wanted.scene))

        def fits(channel: ChannelIndex, rows: Sequence[int]) -> Sequence[int]:
            if sender is msg_type is scene is None:
                return rows
            for column, number in ((channel.senders, sender), (channel.types, msg_type), (channel.scenes, scene)):
                if number is not None:
                    rows = [row for row in rows if column[row] == number]
            return rows

        return fits

    # --- threads --------------------------------------------------------------------------------------------------

    def thread(self, place: Place) -> list[ThreadNode]:
        """The whole thread a message belongs to: parents before children, siblings by (timestamp, id)."""
        amendments = self.amendments()
        nodes: list[ThreadNode] = []
        seen: set[int] = set()
        root, there = self._root(amendments.original(self.channels[place.channel].identity(place.row)), amendments)
        waiting: list[tuple[int, int, Place | None, int]] = [(0, root, there, 0)]
        while waiting:
            _, identity, found, depth = waiting.pop()
            if identity in seen:
                continue
            seen.add(identity)
            newest = amendments.newest(identity)
            shown = found if newest == identity else self._find(newest)
            if shown is not None:
                nodes.append(ThreadNode(shown, depth))
            replies = self._replies(identity, amendments)
            if replies:
                depth += 1
                waiting += sorted([(at_us, reply, at, depth) for reply, (at_us, at) in replies.items()], reverse=True)
        return nodes

    def _replies(self, identity: int, amendments: Amendments) -> dict[int, tuple[int, Place]]:
        """Who answers a message, in whichever version; by their ids, when and where they stand."""
        replies: dict[int, tuple[int, Place]] = {}
        corrects = amendments.corrects
        for version in amendments.versions(identity):
            high, low = version >> 64, version & LOW
            for home in self._homes.of(low):
                heads, mask, lows, highs, before = home.answered
                entry, entries = heads[low & mask], []
                while entry != NONE:  # as in `_find`
                    if lows[entry] == low and highs[entry] == high:
                        entries.append(entry)
                    entry = before[entry]
                if not entries:
                    continue
                index, name = home.index, home.name
                for row in index.replies.rows_of(entries):
                    reply = index.ids_high[row] << 64 | index.ids_low[row]
                    # A correction that answers what it corrects is the message itself, not a reply to it.
                    if reply in corrects and amendments.original(reply) != reply:
                        continue
                    if reply not in replies or name < replies[reply][1].channel:
                        replies[reply] = index.times_us[row], Place(name, row)
        return replies

    def _root(self, identity: int, amendments: Amendments) -> tuple[int, Place | None]:
        """The message that heads the thread of `identity` (an original), and where it stands."""
        path: dict[int, Place | None] = {}
        place = self._find(identity)
        while identity not in path:
            path[identity] = place
            above = None if place is None else self._above(place, amendments)
            if above is None:
                return identity, place
            identity, place = above
        members = list(path)
        earliest = min(members[members.index(identity) :], key=self._key)
        return earliest, path[earliest]

    def parent(self, identity: int, amendments: Amendments) -> int | None:
        """The original that `identity` answers; None for a root and for an orphan."""
        place = self.find(identity)
        above = None if place is None else self._above(place, amendments)
        return None if above is None else above[0]

    def _above(self, place: Place, amendments: Amendments) -> tuple[int, Place | None] | None:
        """The original that a message answers, and where that stands; None for a root and for an orphan."""
        parent = self.channels[place.channel].parents.get(place.row)
        there = None if parent is None else self._find(parent)
        if parent is None or there is None:
            return None
        original = amendments.original(parent)
        return original, there if original == parent else self._find(original)

    def is_answered(self, identity: int) -> bool:
        """Whether anybody but its sender has answered a message, in whichever version."""
        amendments = self.amendments()
        original = amendments.original(identity)
        own = self._sender(original)
        replies = self._replies(original, amendments)
        return any(self.channels[at.channel].sender(at.row) != own for _, at in replies.values())

    def _sender(self, identity: int) -> str:
        place = self.find(identity)
        return "" if place is None else self.channels[place.channel].sender(place.row)

    def _key(self, identity: int) -> tuple[int, int]:
        place = self._find(identity)
        return (0, identity) if place is None else self.channels[place.channel].key(place.row)


class Amendments:
    """Which message corrects which. Chains and forks lead to one original; the newest of all its versions is shown."""

    def __init__(self, corrects: dict[int, int], key: Callable[[int], tuple[int, int]]) -> None:
        self.corrects = corrects
        self._originals: dict[int, int] = {}
        self._versions: dict[int, list[int]] = {}
        for identity in corrects:
            self._versions.setdefault(self.original(identity), []).append(identity)
        self._newest = {original: max([*versions, original], key=key) for original, versions in self._versions.items()}
        self.superseded: set[int] = {
            version
            for original, versions in self._versions.items()
            for version in [*versions, original]
            if version != self._newest[original]
        }

    def original(self, identity: int) -> int:
        """What a version goes back to; a message that corrects nothing is its own original."""
        if identity not in self.corrects:
            return identity
        path: dict[int, None] = {}
        start = identity
        while identity in self.corrects and identity not in self._originals:
            if identity in path:  # hand edits made a circle: its smallest id serves as the original
                circle = list(path)
                self._originals[identity] = min(circle[circle.index(identity) :])
                break
            path[identity] = None
            identity = self.corrects[identity]
        original = self._originals.get(identity, identity)
        self._originals.update(dict.fromkeys(path, original))
        return self._originals.get(start, original)

    def newest(self, original: int) -> int:
        """The version of an original that is shown."""
        return self._newest.get(original, original)

    def versions(self, original: int) -> Iterable[int]:
        """An original and all its corrections."""
        versions = self._versions.get(original)
        return (original,) if versions is None else {original, *versions}


_NO_AMENDMENTS = Amendments({}, lambda _: (0, 0))


def _id_ends(channel: ChannelIndex, row: int, suffix: str) -> bool:
    return id_text(channel.identity(row)).endswith(suffix)

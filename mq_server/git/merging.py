"""Merging two versions of a mailbox or of its receipts that come from a common one. No I/O.

What is merged are messages, by their ids, not neighbouring lines of text:

    a line on one side only         stays, if it is new there; goes, if the other side took it away
    a line that one side edited     stands as edited, if the other side left it alone
    edited on both sides, or edited on one and taken away on the other
                                    a conflict: both versions between git's markers; all else is merged
    a line that cannot be read      stays near the line it follows; nobody knows what it would have been
    byte-identical lines            become one

Up to the fork, where the first new line stands, the lines keep their order; from there on they are in the order of
(timestamp, id). So the outcome does not depend on which side is whose, merging it again with one of its sides changes
nothing, and a mailbox whose oldest lines one side moved to the archive merges with one that grew.

What is the same on all sides is never decoded, only what differs and what has to be put in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple, TypeAlias

from mq_server.blocks import BOM
from mq_server.delivery import parse_receipt
from mq_server.message import Unreadable, parse_fields
from mq_server.names import ID_LENGTH, parse_time

MARKER_SIZE = 7
_CHUNK_BYTES = 1 << 20
_START, _ID = b'{"id":"', slice(7, 7 + ID_LENGTH)  # of a line as we write it
_ID_LIKE = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}")

Key: TypeAlias = "bytes | tuple[bytes, int] | str"
"""What a line is known by on all sides: its bytes, with a count if it repeats and cannot be read; or, if it is not the
same everywhere, its id."""
_When: TypeAlias = "tuple[int, str]"
_Order: TypeAlias = "tuple[int, str, int, bytes | tuple[bytes, ...], int]"


class Merged(NamedTuple):
    """The merged file, and how many messages in it are in conflict."""

    data: bytes
    conflicts: int = 0


class _Outcome(NamedTuple):
    """What becomes of one message: the lines that stand, none if it goes; in a conflict, what either side has."""

    ours: list[bytes]
    theirs: list[bytes] | None = None

    @property
    def lines(self) -> list[bytes]:
        """All that is kept of it."""
        return self.ours + (self.theirs or [])

    def marked(self, marker_size: int) -> list[bytes]:
        """The lines to write, a conflict's between markers."""
        if self.theirs is None:
            return self.ours
        begin, between, end = (sign * marker_size for sign in (b"<", b"=", b">"))
        return [begin + b" ours", *self.ours, between, *self.theirs, end + b" theirs"]


def merge(base: bytes, ours: bytes, theirs: bytes, *, marker_size: int = MARKER_SIZE) -> Merged:
    """Merge two versions of a file.

    Args:
        base: What both come from; empty if each side made the file.
        ours: One of them.
        theirs: The other.
        marker_size: The length of conflict markers.
    """
    if ours == theirs or theirs == base:
        return Merged(ours)
    if ours == base:
        return Merged(theirs)
    bom = BOM if ours.startswith(BOM) and theirs.startswith(BOM) else b""
    line_end = b"\r\n" if _ends_in_crlf(ours) and _ends_in_crlf(theirs) else b"\n"
    versions = [data.removeprefix(BOM) for data in (base, ours, theirs)]
    start = _common_lines(versions)
    prefix = versions[0][:start]
    merging = _Merging(prefix, [_lines(data[start:]) for data in versions])
    lines: list[bytes] = []
    conflicts = 0
    for outcome in merging.outcomes():
        lines += outcome.marked(marker_size)
        conflicts += outcome.theirs is not None
    return Merged(b"".join((bom, prefix, line_end.join((*lines, b"")))), conflicts)


class _Merging:
    """The lines behind those that are the same on all sides.

    Args:
        prefix: The bytes of those.
        sides: The lines of the base, of ours and of theirs.
    """

    def __init__(self, prefix: bytes, sides: list[list[bytes]]) -> None:
        self._prefix = prefix
        self._when_of: dict[bytes, _When | None] = {}
        standing = _standing(prefix, set().union(*sides))
        self._tokens = [self._once_each(lines, standing) for lines in sides]
        base, ours, theirs = map(set, self._tokens)
        written = (ours | theirs) - base
        missed = base - (ours & theirs)
        self._ids = {token: when[1] for token in written if (when := self._when(_line(token)))}
        self._ids |= self._sharing(missed, {message_id.encode() for message_id in self._ids.values()})
        self._changed = self._three_ways(base, ours, theirs)
        self._gone = (missed - self._ids.keys()) | {key for key, kept in self._changed.items() if not kept.lines}

    def outcomes(self) -> Iterator[_Outcome]:
        """What becomes of the messages, in order."""
        base, ours, theirs = map(self._kept, self._tokens)
        before = list(_until_fork(base, ours, theirs))
        rest = (ours | theirs).keys() - set(before)
        order = self._order(rest, self._last(before))
        for key in (*before, *sorted(rest, key=order.__getitem__)):
            yield self._outcome(key)

    # --- which lines ----------------------------------------------------------------------------------------------

    def _once_each(self, lines: list[bytes], standing: set[bytes]) -> list[Key]:
        """Lines without repeats, and without what stands in the prefix; one that can't be read may stand again."""
        if not standing and len(set(lines)) == len(lines):
            return list(lines)
        seen: dict[bytes, int] = {}
        tokens: list[Key] = []
        for line in lines:
            count = seen[line] = seen.get(line, 0) + 1
            if count == 1 and line not in standing:
                tokens.append(line)
            elif self._when(line) is None:
                tokens.append((line, count))
        return tokens

    def _sharing(self, tokens: set[Key], ids: set[bytes]) -> Iterator[tuple[Key, str]]:
        """Those of some lines that bear one of these ids. The others are not decoded: an archive takes many away."""
        for token in tokens if ids else ():
            line = _line(token)
            may_share = line[_ID] in ids if line.startswith(_START) else not ids.isdisjoint(_ID_LIKE.findall(line))
            if may_share and (when := self._when(line)) and when[1].encode() in ids:
                yield token, when[1]

    def _three_ways(self, *sides: set[Key]) -> dict[Key, _Outcome]:
        """What becomes of each message that somebody wrote or edited."""
        found: dict[Key, tuple[list[bytes], list[bytes], list[bytes]]] = {}
        for token, message_id in self._ids.items():
            versions = found.setdefault(message_id, ([], [], []))
            for version, side in zip(versions, sides, strict=True):
                if token in side:
                    version.append(_line(token))
        return {key: _three_way(*map(sorted, versions)) for key, versions in found.items()}

    def _kept(self, tokens: list[Key]) -> dict[Key, None]:
        """The messages of a side that stay, in its order."""
        ids, gone = self._ids, self._gone
        return {key: None for key in [ids.get(token, token) for token in tokens] if key not in gone}

    def _outcome(self, key: Key) -> _Outcome:
        return self._changed.get(key) or _Outcome([_line(key)])

    # --- in which order -------------------------------------------------------------------------------------------

    def _order(self, keys: set[Key], fork: _When) -> dict[Key, _Order]:
        """By what to sort messages. A line that can't be read follows the one before it, but stays behind the fork."""
        order: dict[Key, _Order] = {}
        unreadable: set[Key] = set()
        for key in keys:
            dated = [(*when, 0, line, 0) for line in self._outcome(key).lines if (when := self._when(line))]
            if dated:
                order[key] = min(dated)
            else:
                unreadable.add(key)
        if unreadable:
            for side in self._tokens[1:]:
                for key, place in self._places(side, unreadable, fork):
                    order[key] = min(place, order.get(key, place))
        return order

    def _places(self, side: list[Key], wanted: set[Key], fork: _When) -> Iterator[tuple[Key, _Order]]:
        """Where lines that can't be read stand on one side: behind which message, and where in a run of such lines.

        Those with the same bytes are alike: the first in the order of places is the first of them on every side.
        """
        lines = [_line(token) for token in side]
        alike: dict[bytes, tuple[list[Key], list[_Order]]] = {}
        stop = 0
        for index, token in enumerate(side):
            if token not in wanted:
                continue
            if index >= stop:
                start = stop = index
                while start > 0 and self._when(lines[start - 1]) is None:
                    start -= 1
                while stop < len(lines) and self._when(lines[stop]) is None:
                    stop += 1
                time_us, message_id = max(fork, (self._when(lines[start - 1]) if start else None) or fork)
                run = tuple(_line(each) for each in side[index:stop] if each in wanted)
                number = 0
            tokens, places = alike.setdefault(lines[index], ([], []))
            tokens.append(token)
            places.append((time_us, message_id, 1, run, number))
            number += 1
        for tokens, places in alike.values():
            yield from zip(tokens, sorted(places), strict=True)

    def _last(self, before: list[Key]) -> _When:
        """The last message up to the fork."""
        lines = (line for key in reversed(before) for line in reversed(self._outcome(key).lines))
        dated = (self._when(line) for line in chain(lines, _backwards(self._prefix)))
        return next(filter(None, dated), (0, ""))

    def _when(self, line: bytes) -> _When | None:
        if line not in self._when_of:
            self._when_of[line] = when_of(line)
        return self._when_of[line]


def when_of(line: bytes) -> tuple[int, str] | None:
    """The time in microseconds and the id of a message or a receipt; None if the line is neither."""
    try:
        fields = parse_fields(line)
        return parse_time(fields["timestamp"]), fields["id"]
    except Unreadable:
        pass
    try:
        receipt = parse_receipt(line)
    except ValueError:
        return None
    return receipt.time_us, receipt.id


def _three_way(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> _Outcome:
    if ours == theirs or theirs == base:
        return _Outcome(ours)
    if ours == base:
        return _Outcome(theirs)
    return _Outcome(ours, theirs)


def _until_fork(base: Iterable[Key], ours: dict[Key, None], theirs: dict[Key, None]) -> Iterator[Key]:
    """The messages of the base that both sides have in its order, up to the first that stands elsewhere.

    One that a side took away, and the other edited, does not stand elsewhere.
    """
    sides = [(side, iter(side)) for side in (ours, theirs)]
    for key in base:
        if any(key in side and next(following) != key for side, following in sides):
            return
        yield key


# --- bytes and lines --------------------------------------------------------------------------------------------------


def _line(key: Key) -> bytes:
    return key if isinstance(key, bytes) else key[0] if isinstance(key, tuple) else key.encode()


def _ends_in_crlf(data: bytes) -> bool:
    end = data.find(b"\n")
    return end > 0 and data[end - 1 : end] == b"\r"


def _lines(data: bytes) -> list[bytes]:
    """The lines without their ends."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines] if b"\r" in data else lines


def _backwards(data: bytes) -> Iterator[bytes]:
    stop = len(data)
    while stop > 0:
        start = data.rfind(b"\n", 0, stop - 1) + 1
        yield data[start:stop].rstrip(b"\r\n")
        stop = start


def _common_lines(versions: list[bytes]) -> int:
    """How many bytes of whole lines all versions begin with."""
    first, *others = versions
    common = min(_common_bytes(first, other) for other in others)
    return first.rfind(b"\n", 0, common) + 1


def _common_bytes(one: bytes, other: bytes) -> int:
    start, stop = 0, min(len(one), len(other))
    while start < stop and one[start : start + _CHUNK_BYTES] == other[start : start + _CHUNK_BYTES]:
        start += _CHUNK_BYTES
    start, stop = min(start, stop), min(start + _CHUNK_BYTES, stop)
    while start < stop:
        middle = (start + stop + 1) // 2
        if one[start:middle] == other[start:middle]:
            start = middle
        else:
            stop = middle - 1
    return start


def _standing(prefix: bytes, wanted: set[bytes]) -> set[bytes]:
    """Those of some lines that stand in the prefix."""
    found: set[bytes] = set()
    start = 0
    while wanted and start < len(prefix):
        stop = prefix.rfind(b"\n", start, start + _CHUNK_BYTES) + 1 or prefix.index(b"\n", start) + 1
        found.update(wanted.intersection(_lines(prefix[start:stop])))
        start = stop
    return found

"""Which lines of a mailbox go to the archive, and what the files hold then. No I/O.

Whole lines are moved, byte by byte. A line that stands in the archive already, as a merge of two branches or a crash
may leave it, is only taken out of the mailbox. These stay where they are: the newest lines, lines that cannot be read,
what somebody has not read yet, and a line whose message stands otherwise in the archive.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from mq_server.blocks import BOM
from mq_server.message import Unreadable, parse_fields
from mq_server.names import format_time, id_number, parse_time

KEPT_LINES = 100
"""So many lines stay in a mailbox: else git takes the move for a renamed file, and merges bring it all back."""
CONFLICT = "in a file with git's conflict markers: resolve the conflict first"
UNREADABLE = "not readable"
OTHERWISE = "in the archive with different content: keep one"
NEWEST = f"among the newest {KEPT_LINES}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What was moved from a mailbox to the archive, or back.

    `months` says how many lines by the archive's folder; `tidied` counts lines that stood there already. `stayed` says
    how many were old enough and stayed all the same, by the reason.
    """

    channel: str
    months: Mapping[str, int]
    tidied: int = 0
    stayed: Mapping[str, int] = field(default_factory=dict)

    @property
    def moved(self) -> int:
        """How many lines were moved."""
        return sum(self.months.values())

    def as_json(self) -> dict[str, Any]:
        """The shape within the answer; what there is none of is left out."""
        shown: dict[str, Any] = {"channel": self.channel, "moved": self.moved, "months": dict(self.months)}
        if self.tidied:
            shown["tidied"] = self.tidied
        if self.stayed:
            shown["stayed"] = [{"lines": count, "why": why} for why, count in self.stayed.items()]
        return shown


class Wanted(NamedTuple):
    """What is to be archived: what comes before a (timestamp, id), and all but the newest lines."""

    before: tuple[int, int] | None
    keep: int


class Entry(NamedTuple):
    """A line: its bytes with and without its end, and its message's id and time; 0 and what is wrong if it has none."""

    data: bytes
    text: bytes
    id: int = 0
    time_us: int = 0
    fault: str = ""

    @property
    def month(self) -> str:
        """The folder of the archive that it belongs to."""
        return format_time(self.time_us)[:7]


def entries(data: bytes) -> list[Entry]:
    """The lines of a file, blank ones too."""
    *ended, last = data.removeprefix(BOM).split(b"\n")
    return [_entry(line + b"\n") for line in ended] + ([_entry(last)] if last else [])


def _entry(data: bytes) -> Entry:
    text = data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        fields = parse_fields(text)
        return Entry(data, text, id_number(fields["id"]), parse_time(fields["timestamp"]))
    except Unreadable as fault:
        return Entry(data, text, fault=str(fault))


class Plan(NamedTuple):
    """What goes where: the lines by month, what is left of the mailbox, and what is told of it."""

    going: dict[str, list[Entry]]
    rest: bytes
    moved: Moved


def plan(
    channel: str,
    data: bytes,
    wanted: Wanted,
    why_not: Callable[[int], str],
    is_archived: Callable[[int], bool],
    standing: Callable[[str], set[bytes]],
) -> Plan:
    """Which lines go.

    Args:
        channel: The mailbox.
        data: What it holds.
        wanted: What is old enough.
        why_not: Why a message must stay; empty if it need not.
        is_archived: Whether a message is known to stand in the archive.
        standing: The lines that the archive has of a month.
    """
    lines = entries(data)
    counted = [number for number, line in enumerate(lines) if line.text.strip()]
    newest = set(counted[-KEPT_LINES:])
    only_here = [number for number in counted if not is_archived(lines[number].id)]
    newest_here = newest.union(only_here[-wanted.keep :])
    conflict = any(line.fault.startswith("git conflict marker") for line in lines)
    going: dict[str, list[Entry]] = {}
    stayed: Counter[str] = Counter()
    gone: set[int] = set()
    tidied = 0
    for number in counted:
        line = lines[number]
        archived = is_archived(line.id)
        old = wanted.before is None or (line.time_us, line.id) < wanted.before
        if line.id and not archived and not old:
            continue
        if number in (newest if archived else newest_here):
            stayed[NEWEST] += bool(line.id and not archived and wanted.before is not None)
            continue
        why = CONFLICT if conflict else UNREADABLE if not line.id else ""
        if archived and not why:
            why = "" if line.text in standing(line.month) else OTHERWISE
        elif not why:
            why = why_not(line.id)
        if why:
            stayed[why] += 1
            continue
        gone.add(number)
        if archived or line.text in standing(line.month):
            tidied += 1
        else:
            going.setdefault(line.month, []).append(line)
    rest = b"".join(line.data for number, line in enumerate(lines) if number not in gone)
    months = {month: len(going[month]) for month in sorted(going)}
    moved = Moved(channel=channel, months=months, tidied=tidied, stayed=dict(+stayed))
    return Plan(going, (BOM if data.startswith(BOM) else b"") + rest, moved)


def joined(first: Iterable[Entry], second: Iterable[Entry]) -> bytes:
    """The lines of two files as one: each in its own order, between them by (timestamp, id); equal lines once."""
    seen: set[bytes] = set()
    lines: list[bytes] = []
    for _, line in heapq.merge(_keyed(first), _keyed(second), key=itemgetter(0)):
        if line.text not in seen or not line.id:
            lines.append(line.data if line.data.endswith(b"\n") else line.data + b"\n")
            seen.add(line.text)
    return b"".join(lines)


def _keyed(lines: Iterable[Entry]) -> list[tuple[tuple[int, int], Entry]]:
    """Each line with its (timestamp, id); one that has none follows the one before it."""
    key = (0, 0)
    found = []
    for line in lines:
        key = (line.time_us, line.id) if line.id else key
        found.append((key, line))
    return found

"""Lines on their way into the index: decoded and checked, some hundred at a time. No I/O.

At a start a million lines come by. So the loops over them are in C as far as possible (`map`, `zip`, one conversion for
many ids), and what few lines need is done for those few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import orjson

from mq_server.message import fault_in, why_not_json
from mq_server.names import parse_ids, parse_time

Line = tuple[int, int, bytes]
"""Where its bytes start in the file; its line number, from 1; its bytes without the line end."""
_needed = itemgetter("id", "timestamp", "sender", "msg_type", "payload")
_FLAT = frozenset({str, int, float, bool, type(None)})
_NO_TEXTS = frozenset({"to", "urgent", "drafts"})


@dataclass(slots=True)
class Batch:
    """Readable lines, each value in a list of its own; the lists are of one length."""

    lines: list[Line]
    fields: list[dict[str, Any]]
    ids: list[tuple[int, int]]
    """The first and the last 64 bits of each."""
    times_us: list[int]
    senders: Sequence[str]
    types: Sequence[str]

    def only(self, places: Iterable[int]) -> Batch:
        """Those at some places."""
        chosen = [
            [values[place] for place in places]
            for values in (self.lines, self.fields, self.ids, self.times_us, self.senders, self.types)
        ]
        return Batch(*chosen)


def taken_in(lines: Iterable[Line]) -> tuple[Batch, list[tuple[int, str]]]:
    """What can be read of some lines; and for each of the others its number and what is wrong."""
    faults: list[tuple[int, str]] = []
    readable: list[Line] = []
    decoded: list[Any] = []
    for line in lines:
        try:
            decoded.append(orjson.loads(line[2]))
            readable.append(line)
        except orjson.JSONDecodeError as error:
            faults.append((line[1], why_not_json(line[2], error)))
    try:
        batch = _checked(readable, decoded)
        suspects: Iterable[int] = _unusual(decoded)
    except (AttributeError, KeyError, TypeError, ValueError):
        batch, suspects = None, range(len(decoded))
    wrong = {}
    for place in suspects:
        fault = fault_in(decoded[place], readable[place][2])
        if fault:
            wrong[place] = fault
    if wrong or batch is None:
        faults = sorted([*faults, *((readable[place][1], fault) for place, fault in wrong.items())])
        right = [place for place in range(len(decoded)) if place not in wrong]
        batch = _checked([readable[place] for place in right], [decoded[place] for place in right])
    return batch, faults


def _checked(lines: list[Line], decoded: list[Any]) -> Batch:
    if not decoded:
        return Batch([], [], [], [], (), ())
    ids, timestamps, senders, types, _ = zip(*map(_needed, decoded), strict=True)
    if "" in senders or "" in types:
        raise ValueError("a sender or a type is empty")
    return Batch(lines, decoded, parse_ids(ids), list(map(parse_time, timestamps)), senders, types)


def _unusual(decoded: Iterable[dict[str, Any]]) -> list[int]:
    """Which of them hold more than text and a payload that is not nested; no other can have any further fault."""
    return [
        place
        for place, fields in enumerate(decoded)
        if [*map(type, fields.values())].count(str) != len(fields) - 1
        or not _NO_TEXTS.isdisjoint(fields)
        or not _FLAT.issuperset(map(type, fields["payload"].values()))
    ]

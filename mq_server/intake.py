"""Lines on their way into the index: decoded and checked, some hundred at a time. No I/O.

At a start a million lines come by. So the loops over them are in C as far as possible (`map`, `zip`, one conversion for
many ids), and what few lines need is done for those few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from mq_server.message import FLAT, fault_in, needed_of, why_not_json
from mq_server.names import parse_ids, parse_times

Line = tuple[int, int, bytes]
"""Where its bytes start in the file; its line number, from 1; its bytes without the line end."""
_RARE = frozenset({"to", "urgent", "expires_at", "dedup_key", "replaces", "drafts"})


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
    rare: list[int]
    """Which of them have optional keys other than `scene` and `reply_to`, by their places."""

    def only(self, places: Iterable[int]) -> Batch:
        """Those at some places."""
        return _checked([self.lines[place] for place in places], [self.fields[place] for place in places])


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
        suspects: Iterable[int] = {*batch.rare, *_unusual(decoded)}
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
        return Batch([], [], [], [], (), (), [])
    ids, timestamps, senders, types, _ = zip(*map(needed_of, decoded), strict=True)
    if "" in senders or "" in types:
        raise ValueError("a sender or a type is empty")
    rare = [place for place, is_usual in enumerate(map(_RARE.isdisjoint, decoded)) if not is_usual]
    return Batch(lines, decoded, parse_ids(ids), parse_times(timestamps), senders, types, rare)


def _unusual(decoded: Sequence[dict[str, Any]]) -> list[int]:
    """Which of them hold more than text and a payload that is not nested; others without rare keys have no fault."""
    if _are_usual(decoded):
        return []
    return [place for place, fields in enumerate(decoded) if not _are_usual([fields])]


def _are_usual(decoded: Sequence[dict[str, Any]]) -> bool:
    payloads = [fields["payload"] for fields in decoded]
    types = [*map(type, chain.from_iterable(map(dict.values, decoded)))]
    return types.count(str) == len(types) - len(decoded) and FLAT.issuperset(
        map(type, chain.from_iterable(map(dict.values, payloads)))
    )

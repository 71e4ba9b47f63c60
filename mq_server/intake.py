"""Lines on their way into the index: decoded and checked, some hundred at a time. No I/O.

At a start a million lines come by. So the loops over them are in C as far as possible, a column at a time, and what few
lines need is done for those few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

import orjson

from mq_server.message import FLAT, fault_in, why_not_json
from mq_server.names import parse_ids, parse_times

Line = tuple[int, int, bytes]
"""Where its bytes start in the file; its line number, from 1; its bytes without the line end."""
_text_of = itemgetter(2)
_NEEDED = tuple(map(itemgetter, ("id", "timestamp", "sender", "msg_type", "payload")))
_USUAL = frozenset({"id", "timestamp", "channel", "sender", "msg_type", "scene", "reply_to", "payload"})
_TEXT, _TEXT_OR_NONE, _OBJECT = {str}, {str, type(None)}, {dict}


@dataclass(slots=True)
class Batch:
    """Readable lines, each value in a list of its own; the lists are of one length."""

    lines: Sequence[Line]
    fields: Sequence[dict[str, Any]]
    highs: Sequence[int]
    """The first 64 bits of each id."""
    lows: Sequence[int]
    """The last 64 bits."""
    times_us: list[int]
    senders: list[str]
    types: list[str]
    scenes: list[str | None]
    replies_to: list[str | None]
    rare: list[int]
    """Which of them have keys that most have not, by their places."""
    nested: list[int]
    """Which of them have a payload that holds lists or objects."""

    def __len__(self) -> int:
        return len(self.lines)

    def only(self, places: Sequence[int]) -> Batch:
        """Those at some places."""
        return _checked([self.lines[place] for place in places], [self.fields[place] for place in places])


def taken_in(lines: Sequence[Line]) -> tuple[Batch, list[tuple[int, str]]]:
    """What can be read of some lines; and for each of the others its number and what is wrong."""
    decoded: list[Any] = []
    wrong: dict[int, str] = {}
    coming = map(orjson.loads, map(_text_of, lines))
    while len(decoded) < len(lines):
        try:
            decoded.extend(coming)  # up to one that is no JSON, if there is any
        except orjson.JSONDecodeError as error:
            wrong[len(decoded)] = why_not_json(lines[len(decoded)][2], error)
            decoded.append(None)
    batch: Batch | None = None
    suspects: Iterable[int] = range(len(decoded))
    if not wrong:
        try:
            batch = _checked(lines, decoded)
            suspects = {*batch.rare, *batch.nested}
        except (KeyError, TypeError, ValueError):
            pass  # which of them it was is seen below
    for place in suspects:
        fault = wrong.get(place) or fault_in(decoded[place], lines[place][2])
        if fault:
            wrong[place] = fault
    if wrong or batch is None:
        right = [place for place in range(len(lines)) if place not in wrong]
        batch = _checked([lines[place] for place in right], [decoded[place] for place in right])
    return batch, [(lines[place][1], wrong[place]) for place in sorted(wrong)]


def _checked(lines: Sequence[Line], decoded: Sequence[dict[str, Any]]) -> Batch:
    """The columns of decoded lines.

    Raises:
        KeyError, TypeError, ValueError: One of them has a fault. Without it, only the rare and the nested may have one.
    """
    ids, timestamps, senders, types, payloads = ([*map(value_of, decoded)] for value_of in _NEEDED)
    channels, scenes, replies_to = ([*map(dict.get, decoded, repeat(key))] for key in ("channel", "scene", "reply_to"))
    names = {*senders, *types}
    if not (
        _TEXT.issuperset(map(type, names))
        and "" not in names
        and _TEXT_OR_NONE.issuperset(map(type, chain(channels, scenes, replies_to)))
        and _OBJECT.issuperset(map(type, payloads))
    ):
        raise ValueError("one of these values is of another kind")
    usual = (len(_NEEDED) + 3) * len(decoded) - channels.count(None) - scenes.count(None) - replies_to.count(None)
    rare = []
    if sum(map(len, decoded)) != usual:
        rare = [place for place, is_usual in enumerate(map(_USUAL.issuperset, decoded)) if not is_usual]
    nested = []
    if not FLAT.issuperset(map(type, chain.from_iterable(map(dict.values, payloads)))):
        nested = [place for place, each in enumerate(payloads) if not FLAT.issuperset(map(type, each.values()))]
    highs, lows = parse_ids(ids)
    times_us = parse_times(timestamps)
    return Batch(lines, decoded, highs, lows, times_us, senders, types, scenes, replies_to, rare, nested)

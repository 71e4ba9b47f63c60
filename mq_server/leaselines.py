"""What a line of a lease log must have to say anything. No I/O.

It may be torn, garbage or of another version: then it is passed over as a whole, which costs a redelivery at most.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from mq_server.names import id_number, is_id

_NUMBER_END = 1 << 57  # as microseconds that is the year 6536, which a time can still be written for
_TEXT, _FLAG, _COUNT, _SECONDS = (str,), (bool,), (int,), (int, float)
_DEADLINE = {"boot": _TEXT, "until_s": _SECONDS, "span_s": _SECONDS}


class Event(NamedTuple):
    """A line that says something: its keys, and the ids in it as numbers."""

    fields: dict[str, Any]
    ids: list[int]


class _Kind:
    """What an event of one kind has beside its ids, in the order of `values`."""

    def __init__(self, **needs: tuple[type, ...]) -> None:
        needs = {"op": _TEXT, "reader": _TEXT, **needs}
        self.values = itemgetter(*needs)
        self.types = [*needs.values()]


_KINDS = {
    "fetch": _Kind(consumer=_TEXT, time_us=_COUNT),
    "claim": _Kind(consumer=_TEXT, time_us=_COUNT, token=_TEXT, **_DEADLINE),
    "extend": _Kind(**_DEADLINE),
    "release": _Kind(**_DEADLINE),
    "settle": _Kind(),
    "forget": _Kind(),
    "kept": _Kind(
        fetched_us=_COUNT,
        fetched_by=_TEXT,
        claimed_us=_COUNT,
        consumer=_TEXT,
        token=_TEXT,
        count=_COUNT,
        settled=_FLAG,
        **_DEADLINE,
    ),
    "last": _Kind(time_us=_COUNT),
}


def event_of(line: bytes) -> Event | None:
    """What a line says; None if it is no event."""
    try:
        fields = orjson.loads(line)
        kind, ids = _KINDS[fields["op"]], fields["ids"]
        values = kind.values(fields)
        if type(ids) is not list or not all(map(is_id, ids)):
            return None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    for value, types in zip(values, kind.types, strict=True):
        if type(value) not in types or (types is _COUNT and not 0 <= value < _NUMBER_END):
            return None
    return Event(fields, [*map(id_number, ids)])

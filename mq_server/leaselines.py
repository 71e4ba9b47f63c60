"""What a line of a lease log must have to say anything. No I/O.

It may be torn, garbage or of another version: then it is passed over as a whole, which costs a redelivery at most.
"""

from __future__ import annotations

from itertools import product
from operator import itemgetter
from typing import Any

import orjson

from mq_server.names import id_number, is_id

_NUMBER_END = 1 << 57  # as microseconds that is the year 6536, which a time can still be written for
_TEXT, _FLAG, _COUNT, _SECONDS = (str,), (bool,), (int,), (int, float)
_DEADLINE = {"boot": _TEXT, "until_s": _SECONDS, "span_s": _SECONDS}


class _Kind:
    """What an event of one kind needs besides its ids: keys, and the types that each may have."""

    def __init__(self, **needs: tuple[type, ...]) -> None:
        needs = {"op": _TEXT, "reader": _TEXT, **needs}
        self.values = itemgetter(*needs)
        self.types = {*product(*needs.values())}
        self.counts = [key for key, types in needs.items() if types is _COUNT]


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


def event_of(line: bytes) -> tuple[list[int], dict[str, Any]] | None:
    """What a line says: the ids in it as numbers, and all its keys; None if it is no event."""
    try:
        event = orjson.loads(line)
        kind, ids = _KINDS[event["op"]], event["ids"]
        if (*map(type, kind.values(event)),) not in kind.types or type(ids) is not list or not all(map(is_id, ids)):
            return None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    for key in kind.counts:
        if not 0 <= event[key] < _NUMBER_END:
            return None
    return [*map(id_number, ids)], event

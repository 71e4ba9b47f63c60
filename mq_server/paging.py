"""Tokens for the next page: a place in an order, and enough to see whether that place has moved.

A token carries checkpoints: the place itself, then places ever further back (1, 4, 16, … steps), each with a sum over
the ids before it. If the messages before the place are the same set as when the token was made, reading goes on there.
Otherwise a merge or a rebase has put something in front, and reading restarts at the newest checkpoint that still
holds: messages may come again, none is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from mq_server.errors import InvalidRequest

Place = tuple[int, int]
"""A place in an order: (rows before it, 0) in a file, (microseconds, id) in time."""

_SUM_MASK = (1 << 32) - 1
_PREFIX = "n."
_ROW_STEP, _TIME_STEP_US = 1, 1_000_000


class Token(NamedTuple):
    """A token, opened: the order it belongs to ("file" or "time") and its checkpoints, newest first."""

    order: str
    checkpoints: list[tuple[Place, int]]


def make_token(order: str, place: Place, sum_before: Callable[[Place], int]) -> str:
    """A token for a place.

    Args:
        order: Which question it belongs to, so that it can't be used for another: "file" or "time".
        place: Where to go on.
        sum_before: The sum of the ids before a place.
    """
    checkpoints = []
    for at in _places(order, place):
        total = sum_before(at) & _SUM_MASK
        checkpoints.append(f"{at[0]:x}.{at[1]:x}.{total:x}")
        if total == 0:
            break  # nothing stands before: going on there is starting anew
    return f"{_PREFIX}{order}.{'_'.join(checkpoints)}"


def open_token(text: str) -> Token | None:
    """Open a token; None if the text does not look like one.

    Raises:
        InvalidRequest: It looks like one but is damaged.
    """
    if not text.startswith(_PREFIX):
        return None
    order, _, body = text.removeprefix(_PREFIX).partition(".")
    try:
        checkpoints = []
        for checkpoint in body.split("_"):
            first, second, total = (int(number, 16) for number in checkpoint.split("."))
            if order == "file" and first < 0:
                raise ValueError("there is no such line")
            checkpoints.append(((first, second), total))
    except ValueError as error:
        raise InvalidRequest([f"{text[:40]!r} is not a whole `next` token: pass it on just as it was given"]) from error
    return Token(order, checkpoints)


def resume(token: Token, sum_before: Callable[[Place], int]) -> tuple[Place, bool]:
    """Where reading goes on, and whether the place had moved.

    Args:
        token: The opened token.
        sum_before: The sum of the ids before a place, as things stand now; negative if there is no such place.
    """
    for number, (place, total) in enumerate(token.checkpoints):
        if sum_before(place) & _SUM_MASK == total:
            return place, number > 0
    return (0, 0), True


def _places(order: str, place: Place) -> Iterator[Place]:
    yield place
    step = _ROW_STEP if order == "file" else _TIME_STEP_US
    for _ in range(12):
        if step >= place[0]:
            return
        yield place[0] - step, 0
        step *= 4

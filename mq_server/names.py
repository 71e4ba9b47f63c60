"""What things are called: names of channels and people, ids, times, references to messages. No I/O."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from struct import unpack
from typing import NamedTuple

from mq_server.errors import InvalidName

DEAD_LETTERS, DEAD_LETTER = "dead_letters", "dead_letter"
"""The channel that rejected messages are copied to, and the type of the copies."""
ID_LENGTH = 26
REF_SUFFIX_LENGTH = 4
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID = re.compile(rf"[0-7][{_CROCKFORD}]{{25}}")
_NAME_CHARACTERS = 64
_CHANNEL = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{_NAME_CHARACTERS - 1}}}")
# Windows opens a device, not a file, for these names whatever the extension
# (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_DEVICES = frozenset(["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))])
_NAME_RULE = "is not a valid name: use 1 to 64 of a-z, 0-9, _ and -, starting with a letter or digit"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000_US = 253_402_300_800_000_000


def check_name(what: str, name: object) -> str:
    """Return `name` if it is a valid name of a channel, reader or sender.

    Args:
        what: The noun for the error: "channel", "reader", "sender".

    Raises:
        InvalidName: It is outside the grammar, or a Windows device name.
    """
    fault = _NAME_RULE
    if isinstance(name, str) and len(name) <= _NAME_CHARACTERS:
        fault = _fault_of(name)
        if not fault:
            return name
    raise InvalidName(what, name, fault)


@lru_cache(maxsize=1024)  # the same few names come with every post
def _fault_of(name: str) -> str:
    """What is wrong with a name; empty when nothing is."""
    if not _CHANNEL.fullmatch(name):
        return _NAME_RULE
    return "is a device on Windows; choose another name" if name in _DEVICES else ""


# --- ids and times -------------------------------------------------------------------------------------------------


def mint_id(time_us: int) -> str:
    """A new ULID (github.com/ulid/spec) whose 48 bits of milliseconds are those of `time_us` (microseconds)."""
    time_ms = time_us // 1000
    chance = _chance.getrandbits(128).to_bytes(16, "little").translate(_LETTERS).decode()
    return f"{_before(time_ms >> 10)}{_PAIRS[time_ms & 1023]}{chance}"


@lru_cache(maxsize=64)  # it changes about once a second
def _before(number: int) -> str:
    """The first eight letters of an id, for all of its milliseconds but the last ten bits."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in (30, 20, 10, 0)])


def id_number(message_id: str) -> int:
    """The 128-bit number a ULID, or the last characters of one, stands for.

    Raises:
        ValueError: It has other characters.
    """
    return int(message_id.encode().translate(_TO_BASE32HEX), 32)


def parse_ids(texts: Sequence[str]) -> tuple[Sequence[int], Sequence[int]]:
    """The numbers of whole ids: the first 64 bits of each, and the last 64 bits of each.

    Raises:
        TypeError, ValueError: One of them is none.
    """
    if not texts:
        return (), ()
    if set(map(len, texts)) != {ID_LENGTH}:
        raise ValueError("one of these is not a ULID")
    # As one long number with 160 bits for each, so that the loop over them is not one in Python.
    data = id_number(_ID_GAP.join(texts)).to_bytes(_ID_BYTES * len(texts), "big")
    if data[_BEYOND_ID::_ID_BYTES].strip(b"\0"):  # of the 130 bits of 26 characters an id leaves the first two out
        raise ValueError("one of these is not a ULID")
    halves = unpack(f">{'4xQQ' * len(texts)}", data)
    return halves[::2], halves[1::2]


_ID_BYTES, _BEYOND_ID = 20, 3
_ID_GAP = "0" * (_ID_BYTES * 8 // 5 - ID_LENGTH)
# Bytes, since `int` reads them as well, and they are translated in a tenth of the time. What is no digit becomes '!',
# so that `int` accepts nothing else: no blanks, no underscores, no lower case.
_TO_BASE32HEX = bytes(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUV"[_CROCKFORD.index(chr(code))] if chr(code) in _CROCKFORD else ord("!")
    for code in range(256)
)
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]
_LETTERS = (_CROCKFORD * 8).encode()
"""A letter for each byte: five bits of chance from eight."""
# Not `os.urandom`: a call of the system for each id takes longer than all the rest. Not the module's own generator
# either, which anybody may seed. Its seed is the system's chance, and a forked process takes one of its own.
_chance = Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_chance.seed)


def id_text(number: int) -> str:
    """The ULID of a 128-bit number; the inverse of `id_number`."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def is_id(text: str) -> bool:
    """Whether `text` is a whole message id."""
    return _ID.fullmatch(text) is not None


def format_time(time_us: int) -> str:
    """RFC 3339 in UTC with microseconds and `Z`, from microseconds since 1970."""
    seconds, microseconds = divmod(time_us, 1_000_000)
    return f"{_whole_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=64)  # posts come many a second
def _whole_second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]


def parse_time(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time.

    Raises:
        ValueError: It is no time, has no time zone, or lies before 1970, where ids have no milliseconds, or after 9999,
            where RFC 3339 ends.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it as 2026-11-22T13:12:52Z")
    since = moment - _EPOCH
    time_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not 0 <= time_us < _YEAR_10000_US:
        raise ValueError(f"{text!r} lies before 1970 or after 9999")
    return time_us


def is_usual_time(text: str) -> bool:
    """Whether `text` is a time that `parse_time` takes, in UTC; found out in a third of the time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    return moment.tzinfo is UTC and moment.year >= _EPOCH.year


def parse_times(texts: Sequence[str]) -> list[int]:
    """The same for many, in less than half the time.

    Raises:
        TypeError, ValueError: One of them is no such time.
    """
    since = [moment - _EPOCH for moment in map(datetime.fromisoformat, texts)]  # a TypeError without a zone
    times_us = [(each.days * 86_400 + each.seconds) * 1_000_000 + each.microseconds for each in since]
    if times_us and not 0 <= min(times_us) <= max(times_us) < _YEAR_10000_US:
        raise ValueError("one of these lies before 1970 or after 9999")
    return times_us


# --- ways to name a message ------------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """A way to name a message, taken apart: a whole id or the end of one, a place, or both (`narrator:42~K3QF`)."""

    suffix: str = ""
    channel: str = ""
    line: int = 0


_PLACE = re.compile(r"([a-z0-9][a-z0-9_-]{0,63}):([1-9][0-9]{0,11})(?:~([0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{1,26}))?")
_SUFFIX = re.compile(rf"[{_CROCKFORD}]{{4,26}}")


def ref_text(channel: str, line: int, message_id: str) -> str:
    """The ref of a message: `narrator:42~K3QF`, channel, line and end of the id."""
    return f"{channel}:{line}~{message_id[-REF_SUFFIX_LENGTH:]}"


def parse_reference(text: object) -> Reference | None:
    """Take a reference apart; None if it has none of the four forms. Letter case of an id does not matter."""
    if not isinstance(text, str):
        return None
    text = text.strip()
    place = _PLACE.fullmatch(text)
    if place:
        return Reference((place[3] or "").upper(), place[1], int(place[2]))
    upper = text.upper()
    return Reference(upper) if _SUFFIX.fullmatch(upper) else None


def as_names(what: str, names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several, checked, without repeats, in the order given."""
    if isinstance(names, str):
        return (check_name(what, names),)
    return tuple(dict.fromkeys([check_name(what, name) for name in names]))

"""A message and its line: bytes to message and back. No I/O.

A line is one JSON object in UTF-8 with real characters, its keys in this order:

    {"id","timestamp","channel","sender","msg_type","scene"?,"reply_to"?,
     "to"?,"urgent"?,"expires_at"?,"dedup_key"?,"replaces"?,"drafts"?, …unknown keys…, "payload"}

Unset keys are left out, unknown keys are kept. This module is the only codec: whatever reads or writes a line uses it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import orjson

from mq_server.errors import InvalidRequest
from mq_server.names import ID_LENGTH, format_time, is_id, is_usual_time, parse_time, ref_text

MAX_DEPTH = 100
"""How deep the objects and lists of a line may be nested: JSON encoders give up somewhere, and answers add levels."""


class _Model(Protocol):
    @classmethod
    def model_validate(cls, obj: Any) -> Self: ...


M = TypeVar("M", bound=_Model)


_NO_EXTRA: Mapping[str, Any] = MappingProxyType({})


# --- the message ---------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """One message as a reader gets it.

    `line`, `amended` and the rest of the last group are not stored: they say where the message stands and are filled
    in by whoever read it. `extra` holds keys this version does not know.
    """

    id: str
    timestamp: str
    channel: str
    sender: str
    msg_type: str
    payload: dict[str, Any]
    scene: str | None = None
    reply_to: str | None = None
    to: tuple[str, ...] | None = None
    urgent: bool | None = None
    expires_at: str | None = None
    dedup_key: str | None = None
    replaces: str | None = None
    drafts: tuple[str, ...] | None = None
    extra: Mapping[str, Any] = _NO_EXTRA

    line: int = 0
    amended: bool = False

    @property
    def ref(self) -> str:
        """How people name it: `narrator:42~K3QF`, channel, line and end of the id."""
        return ref_text(self.channel, self.line, self.id)

    @property
    def time_us(self) -> int:
        """The timestamp in microseconds since 1970."""
        return parse_time(self.timestamp)

    def stored(self) -> dict[str, Any]:
        """The keys and values of its line, in order."""
        fields: dict[str, Any] = {}
        for key in STORED_KEYS:
            value = getattr(self, key)
            if value is not None:
                fields[key] = value
        fields.update(self.extra)
        fields["payload"] = self.payload
        return fields

    def as_json(self) -> dict[str, Any]:
        """What an answer shows: the line's keys, `ref`, and `amended` where it corrects an earlier message."""
        shown = {"id": self.id, "ref": self.ref} | self.stored()
        if self.amended:
            shown["amended"] = True
        shown["payload"] = shown.pop("payload")
        return shown

    def heading(self) -> dict[str, Any]:
        """For lists: where it stands, when, by whom and of what type, without its payload."""
        return {
            "ref": self.ref,
            "timestamp": self.timestamp,
            "sender": self.sender,
            "msg_type": self.msg_type,
        }

    def parsed(self, model: type[M]) -> M:
        """The payload as a model, such as `message.parsed(Dialogue)`.

        Args:
            model: A pydantic model.

        Raises:
            pydantic.ValidationError: The payload does not fit it.
        """
        return model.model_validate(self.payload)


_OPTIONAL_STRINGS = ("scene", "reply_to", "expires_at", "dedup_key", "replaces")
STORED_KEYS = (
    "id",
    "timestamp",
    "channel",
    "sender",
    "msg_type",
    "scene",
    "reply_to",
    "to",
    "urgent",
    "expires_at",
    "dedup_key",
    "replaces",
    "drafts",
)
"""The known keys of a line in their order; `payload` follows after any unknown ones."""
_OPTIONAL_KEYS = STORED_KEYS[STORED_KEYS.index("scene") :]
_KNOWN_KEYS = frozenset((*STORED_KEYS, "payload"))
needed_of = itemgetter("id", "timestamp", "sender", "msg_type", "payload")
"""The values that every line has, of its decoded keys."""
_NO_TEXT = frozenset({"to", "drafts", "urgent"})
FLAT = frozenset({str, int, float, bool, type(None)})
"""The types of JSON values that hold no others."""
_SURE = FLAT - {type(None)}
"""The same, but for what NaN is stored as."""


class Unreadable(Exception):
    """A line that is no message; the text says why. It never leaves the reading code but as a `Problem`."""


def parse_fields(line: bytes) -> dict[str, Any]:
    """The checked keys of one line, without its line end.

    Raises:
        Unreadable: With what is wrong, in the words of a Problem.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Unreadable(why_not_json(line, error)) from None
    fault = fault_in(fields, line)
    if fault:
        raise Unreadable(fault)
    checked: dict[str, Any] = fields
    return checked


def parse_line(line: bytes, channel: str, number: int, *, amended: bool = False) -> Message:
    """The message of a line.

    Args:
        line: The bytes, without the line end.
        channel: The mailbox it stands in, which outranks the line's own `channel`.
        number: Its line number, counted from 1.
        amended: Whether it corrects another message.

    Raises:
        Unreadable: It is no message.
    """
    return message_of(parse_fields(line), channel, number, amended)


def message_of(fields: dict[str, Any], channel: str, number: int, amended: bool) -> Message:
    """The message of a line's checked keys; the other arguments as in `parse_line`."""
    message_id, timestamp, sender, msg_type, payload = needed_of(fields)
    scene, reply_to = fields.get("scene"), fields.get("reply_to")
    # Most lines have no other keys than these and `channel`, which is seen by their number.
    is_usual = len(fields) == 6 + (scene is not None) + (reply_to is not None) and "channel" in fields
    rest = _NO_REST if is_usual else _rest_of(fields)
    # Past the names of its arguments, which take longer to match than the line takes to decode.
    return tuple.__new__(
        Message,
        (message_id, timestamp, channel, sender, msg_type, payload, scene, reply_to, *rest, number, amended),
    )


def _rest_of(fields: dict[str, Any]) -> tuple[Any, ...]:
    """The values of a message from `to` to `extra`."""
    get, to, drafts = fields.get, fields.get("to"), fields.get("drafts")
    return (
        to if to is None else tuple(to),
        get("urgent"),
        get("expires_at"),
        get("dedup_key"),
        get("replaces"),
        drafts if drafts is None else tuple(drafts),
        _NO_EXTRA if _KNOWN_KEYS.issuperset(fields) else {key: fields[key] for key in fields if key not in _KNOWN_KEYS},
    )


_NO_REST = _rest_of({})


def fault_in(fields: object, line: bytes) -> str:
    """What keeps a decoded line from being a message; empty when nothing does."""
    if type(fields) is dict and _is_plain(fields, line):
        return ""
    fault = fault_of(fields)
    if not fault and _too_deep(fields, line, MAX_DEPTH):
        fault = f"nested more than {MAX_DEPTH} levels deep"
    return fault


def _is_plain(fields: dict[str, Any], line: bytes) -> bool:
    """Whether it is seen at a glance that a decoded line is a message: most are nothing but text and a payload."""
    try:
        message_id, timestamp, sender, msg_type, payload = needed_of(fields)
    except KeyError:
        return False
    return (
        type(payload) is dict
        and [*map(type, fields.values())].count(str) == len(fields) - 1
        and _NO_TEXT.isdisjoint(fields)
        and sender != ""
        and msg_type != ""
        and is_id(message_id)
        and is_usual_time(timestamp)
        and (FLAT.issuperset(map(type, payload.values())) or not _too_deep(fields, line, MAX_DEPTH))
    )


def fault_of(fields: object) -> str:
    """The same, but for how deep it is nested."""
    if type(fields) is not dict:
        return "not a JSON object"
    for key in ("id", "timestamp", "sender", "msg_type"):
        value = fields.get(key)
        if type(value) is not str or not value:
            return f"{key!r} is missing" if key not in fields else f"{key!r} must be a non-empty string"
    if not is_id(fields["id"]):
        return f"'id' {fields['id']!r} is not a ULID"
    try:
        parse_time(fields["timestamp"])
    except ValueError:
        return f"'timestamp' {fields['timestamp']!r} is not an RFC 3339 time with a zone, from 1970 on"
    if type(fields.get("payload")) is not dict:
        return "'payload' must be a JSON object" if "payload" in fields else "'payload' is missing"
    for key in ("channel", *_OPTIONAL_STRINGS):
        if fields.get(key) is not None and type(fields[key]) is not str:
            return f"{key!r} must be a string"
    for key in ("to", "drafts"):
        value = fields.get(key)
        if value is not None and not (type(value) is list and all(type(item) is str for item in value)):
            return f"{key!r} must be a list of strings"
    if fields.get("urgent") is not None and type(fields["urgent"]) is not bool:
        return "'urgent' must be true or false"
    return ""


_CONFLICT_MARKER = re.compile(rb"(?:<{7}|\|{7}|>{7})(?: .*)?|={7}")


def why_not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    """What is wrong with a line that cannot be decoded."""
    # A marker is a whole line of its own; '<<<<<<<' inside a JSON string is text like any other.
    if _CONFLICT_MARKER.fullmatch(line):
        return "git conflict marker: keep one line for each message, and take the markers out"
    if not line.rstrip().endswith(b"}"):
        return "torn line: it breaks off before its end"
    return f"not valid JSON: {error.msg}"


# --- what a post gives, before its id and time are minted ------------------------------------------------------------

Encode = Callable[[str, int, str], bytes]
"""Makes a line from an id, a time in microseconds and the name of a log."""
_HEAD_BYTES = len('{"id":"","timestamp":"","channel":"",') + ID_LENGTH + len(format_time(0))


class Draft(NamedTuple):
    """A message that has everything but its id, its time and its channel, which are minted under the locks."""

    sender: str
    msg_type: str
    payload: dict[str, Any]
    scene: str | None = None
    reply_to: str | None = None
    to: tuple[str, ...] | None = None
    urgent: bool | None = None
    expires_in_us: int | None = None
    dedup_key: str | None = None
    replaces: str | None = None
    drafts: tuple[str, ...] | None = None

    def encoder(self) -> tuple[Encode, int]:
        """What makes its line from an id, a time in microseconds and a channel; and the line's length in bytes without
        the channel's name.

        Raises:
            InvalidRequest: A value has no JSON form.
        """
        rest = self._rest(0)

        def encode(message_id: str, time_us: int, channel: str) -> bytes:
            head = f'{{"id":"{message_id}","timestamp":"{format_time(time_us)}","channel":"{channel}",'
            return head.encode() + (rest if self.expires_in_us is None else self._rest(time_us))

        return encode, _HEAD_BYTES + len(rest)

    def _rest(self, time_us: int) -> bytes:
        """What follows the channel in its line: the same in all mailboxes, and at all times unless it expires."""
        fields: dict[str, Any] = {"sender": self.sender, "msg_type": self.msg_type}
        for key, value in zip(_OPTIONAL_KEYS, self._optional(time_us), strict=True):
            if value is not None:
                fields[key] = value  # noqa: PERF403 - a comprehension is one more call in every post
        fields["payload"] = self.payload
        return encode_line(fields)[1:]

    def _optional(self, time_us: int) -> tuple[Any, ...]:
        """The values of the optional keys, in their order."""
        scene, reply_to, to, urgent, expires_in_us, dedup_key, replaces, drafts = self[3:]
        expires_at = None if expires_in_us is None else format_time(time_us + expires_in_us)
        return scene, reply_to, to, urgent or None, expires_at, dedup_key, replaces, drafts

    def message(self, message_id: str, time_us: int, channel: str, line: int) -> Message:
        """The message this draft becomes."""
        head = (message_id, format_time(time_us), channel, self.sender, self.msg_type, self.payload)
        return tuple.__new__(Message, (*head, *self._optional(time_us), _NO_EXTRA, line, False))


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """One line with its line end.

    Raises:
        InvalidRequest: A value has no JSON form: a number beyond 64 bits, half a surrogate pair, a foreign type.
    """
    try:
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        raise InvalidRequest([f"The payload cannot be stored as JSON: {error}"]) from None


def plain_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload as it will be read back: tuples as lists, keys as text.

    Raises:
        InvalidRequest: It is nested too deep or holds something JSON cannot carry. NaN and infinity are refused, since
            they would be stored as null.
    """
    encoded = encode_line(payload)
    plain: dict[str, Any] = orjson.loads(encoded)
    if _SURE.issuperset(map(type, plain.values())):
        return plain
    if b"null" in encoded:
        check_finite(payload)
    if _too_deep(plain, encoded, MAX_DEPTH - 1):
        raise InvalidRequest([f"payload is nested more than {MAX_DEPTH - 1} levels deep; flatten it"])
    return plain


def check_finite(payload: Mapping[str, Any]) -> None:
    """Refuse NaN and infinity, wherever they stand.

    Raises:
        InvalidRequest: There is one.
    """
    for path, value in _leaves(payload, "payload"):
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest([f"{path} is {value}, which JSON cannot carry; use null or a number"])


def _too_deep(value: Any, encoded: bytes, limit: int) -> bool:
    if encoded.count(b"{") + encoded.count(b"[") <= limit:
        return False
    level = [value]
    for _ in range(limit):
        children = (child for item in level for child in (item.values() if isinstance(item, dict) else item))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[{number}]")
    else:
        yield path, value

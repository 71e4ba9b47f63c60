"""Lines as they are read, and what was read last: messages that were shown, lines that were appended. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import orjson

from mq_server.columns import ChannelIndex
from mq_server.errors import Stale
from mq_server.intake import taken_in
from mq_server.message import FLAT, Message, Unreadable, message_of, parse_line
from mq_server.names import id_number, id_text

_LIMIT_BYTES = 4 * 1024 * 1024
_LINE_LIMIT_BYTES = 64 * 1024
_MESSAGE_BYTES = 1000  # about what is kept of a message beside its line
_PAYLOAD = Message._fields.index("payload")


class Line(NamedTuple):
    """The bytes of a line as read now, and what the index says of it."""

    data: bytes
    channel: str
    path: str
    number: int
    identity: int
    amended: bool

    def check(self) -> None:
        """Make sure that it is the line that the index means.

        Raises:
            Stale: The file no longer holds what its index says; refresh and ask again.
        """
        if id_text(self.identity).encode() not in self.data and b"\\u" not in self.data:
            raise Stale(self.channel)

    def message(self) -> Message:
        """Its message.

        Raises:
            Stale: The file no longer holds what its index says; refresh and ask again.
        """
        try:
            message = parse_line(self.data, self.channel, self.number, amended=self.amended)
        except Unreadable as error:
            raise Stale(self.channel) from error
        if id_number(message.id) != self.identity:
            raise Stale(self.channel)
        return message


def messages_of(lines: Sequence[bytes], places: Sequence[tuple[ChannelIndex, int]]) -> list[Message]:
    """The messages of lines as read now, checked as any line is.

    Args:
        lines: Their bytes.
        places: For each, where the index says that it stands: a mailbox and a row.

    Raises:
        Stale: A file no longer holds what its index says; refresh and ask again.
    """
    batch, _ = taken_in([(place, 0, line) for place, line in enumerate(lines)])
    highs = [index.ids_high[row] for index, row in places]
    lows = [index.ids_low[row] for index, row in places]
    if [*batch.highs] != highs or [*batch.lows] != lows:
        read = {line[0]: number for line, *number in zip(batch.lines, batch.highs, batch.lows, strict=True)}
        raise Stale(
            next(
                index.channel
                for place, (index, _) in enumerate(places)
                if read.get(place) != [highs[place], lows[place]]
            )
        )
    return [
        message_of(fields, index.channel, index.lines[row], row in index.replaces)
        for fields, (index, row) in zip(batch.fields, places, strict=True)
    ]


class Shown(NamedTuple):
    """A message that is shown again and again: its values before and after the payload; the payload, and as JSON if
    there is more in it than text and numbers.
    """

    before: tuple[Any, ...]
    after: tuple[Any, ...]
    payload: dict[str, Any]
    encoded: bytes | None

    @classmethod
    def of(cls, message: Message) -> Self:
        """What is to be kept of a message."""
        payload = message.payload
        if FLAT.issuperset(map(type, payload.values())):
            kept, encoded = payload.copy(), None
        else:
            kept, encoded = {}, orjson.dumps(payload)
        return cls(message[:_PAYLOAD], message[_PAYLOAD + 1 :], kept, encoded)

    def message(self) -> Message:
        """The message, with a payload that nobody else has."""
        payload = self.payload.copy() if self.encoded is None else orjson.loads(self.encoded)
        return tuple.__new__(Message, (*self.before, payload, *self.after))


class Known(NamedTuple):
    """What is kept of a mailbox, by row."""

    rewritten: int
    shown: dict[int, Shown]
    lines: dict[int, bytes]
    """Of rows that were appended, or read once."""


class Recent:
    """Messages and lines by index and row.

    A row of an index always means the same bytes, but for rows that are rewritten: whoever asks has just seen that the
    file looks as it did when it was indexed.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[ChannelIndex, Known] = WeakKeyDictionary()
        self._size_bytes = 0

    def of(self, index: ChannelIndex) -> Known:
        """What is known of a mailbox."""
        known = self._known.get(index)
        if known is None or known.rewritten != index.rewritten:
            known = self._known[index] = Known(index.rewritten, {}, {})
        return known

    def appended(self, index: ChannelIndex, first: int, lines: Sequence[bytes]) -> None:
        """Keep lines that were appended just now: whoever waited for them asks for them next.

        Args:
            index: Their mailbox.
            first: The row of the first one.
            lines: Their bytes; those of as many rows.
        """
        known = self.of(index)
        for row, line in enumerate(lines, first):
            self._keep_line(known, row, line)

    def keep(self, known: Known, row: int, line: bytes, message: Message) -> None:
        """Keep what is shown just now: its line, and instead of a line that was known already the message.

        Args:
            known: What is known of its mailbox.
            row: Where it stands.
            line: Its bytes.
            message: The message.
        """
        if known.lines.pop(row, None) is None:
            self._keep_line(known, row, line)
        elif not message.extra:  # unknown values can't be shared: they may be changed
            self._make_room(len(line))
            known.shown[row] = Shown.of(message)

    def _keep_line(self, known: Known, row: int, line: bytes) -> None:
        if len(line) <= _LINE_LIMIT_BYTES:
            self._make_room(len(line))
            known.lines[row] = line

    def _make_room(self, length: int) -> None:
        if self._size_bytes > _LIMIT_BYTES:
            # To fill it again takes one read; to know what was used last would take more, each time.
            for known in self._known.values():
                known.shown.clear()
                known.lines.clear()
            self._size_bytes = 0
        self._size_bytes += length + _MESSAGE_BYTES

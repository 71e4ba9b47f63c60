"""Lines as they are read, and what was read last: messages that were shown, lines that were appended. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from mq_server.columns import ChannelIndex
from mq_server.errors import Stale
from mq_server.message import Message, Unreadable, parse_line
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


class Shown(NamedTuple):
    """A message that was read once: its values before and after the payload, and the payload as JSON."""

    before: tuple[Any, ...]
    after: tuple[Any, ...]
    payload: bytes

    def message(self) -> Message:
        """The message, with a payload that nobody else has."""
        return tuple.__new__(Message, (*self.before, orjson.loads(self.payload), *self.after))


class Known(NamedTuple):
    """What is kept of a mailbox, by row."""

    rewritten: int
    shown: dict[int, Shown]
    lines: dict[int, bytes]
    """Of rows that were appended and not shown yet."""


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
            if len(line) <= _LINE_LIMIT_BYTES:
                self._make_room(len(line))
                known.lines[row] = line

    def keep(self, known: Known, row: int, message: Message) -> None:
        """Keep a message that was read just now.

        Args:
            known: What is known of its mailbox.
            row: Where it stands.
            message: The message.
        """
        known.lines.pop(row, None)
        if message.extra:  # unknown values can't be shared: they may be changed
            return
        payload = orjson.dumps(message.payload)
        if len(payload) > _LINE_LIMIT_BYTES:
            return
        self._make_room(len(payload))
        known.shown[row] = Shown(message[:_PAYLOAD], message[_PAYLOAD + 1 :], payload)

    def _make_room(self, length: int) -> None:
        if self._size_bytes > _LIMIT_BYTES:
            # To fill it again takes one read; to know what was used last would take more, each time.
            for known in self._known.values():
                known.shown.clear()
                known.lines.clear()
            self._size_bytes = 0
        self._size_bytes += length + _MESSAGE_BYTES

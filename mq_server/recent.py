"""Lines as they are read, and the messages that were shown last: what is asked for again is read once. No I/O."""

from __future__ import annotations

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
    """A message that was read once: its values before and after the payload, and its line."""

    before: tuple[Any, ...]
    after: tuple[Any, ...]
    line: bytes

    def message(self) -> Message:
        """The message, with a payload that nobody else has."""
        return tuple.__new__(Message, (*self.before, orjson.loads(self.line)["payload"], *self.after))


class _Rows(NamedTuple):
    rewritten: int
    shown: dict[int, Shown]


class Recent:
    """Messages by index and row.

    A row of an index always means the same bytes, but for rows that are rewritten: whoever asks has just seen that the
    file looks as it did when it was indexed.
    """

    def __init__(self) -> None:
        self._rows: WeakKeyDictionary[ChannelIndex, _Rows] = WeakKeyDictionary()
        self._size_bytes = 0

    def of(self, index: ChannelIndex) -> dict[int, Shown]:
        """By row, what is known of a mailbox."""
        rows = self._rows.get(index)
        if rows is None or rows.rewritten != index.rewritten:
            rows = self._rows[index] = _Rows(index.rewritten, {})
        return rows.shown

    def keep(self, shown: dict[int, Shown], row: int, message: Message, line: bytes) -> None:
        """Keep a message that was read just now.

        Args:
            shown: What is known of its mailbox.
            row: Where it stands.
            message: The message.
            line: What it was parsed from.
        """
        if len(line) > _LINE_LIMIT_BYTES or message.extra:  # unknown values can't be shared: they may be changed
            return
        if self._size_bytes > _LIMIT_BYTES:
            # To fill it again takes one read; to know what was used last would take more, each time.
            for rows in self._rows.values():
                rows.shown.clear()
            self._size_bytes = 0
        self._size_bytes += len(line) + _MESSAGE_BYTES
        shown[row] = Shown(message[:_PAYLOAD], message[_PAYLOAD + 1 :], line)

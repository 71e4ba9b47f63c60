"""Messages and lines at known places, read from their files, or from what was read of them a moment ago."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from mq_server.columns import ChannelIndex, Place
from mq_server.index import Index
from mq_server.logfile import LogFile
from mq_server.mailbox import Mailbox
from mq_server.message import Message
from mq_server.recent import Known, Line, Recent, messages_of
from mq_server.store import Store


class Loading:
    """The part of the shelf that fetches what the index names.

    Args:
        store: The files.
    """

    def __init__(self, store: Store) -> None:
        self.index = Index()
        self._store = store
        self._mailboxes: dict[str, Mailbox] = {}
        self._recent = Recent()

    def load(self, places: Sequence[Place], limit_bytes: int | None = None) -> list[Message]:
        """The messages at these places, read from the files.

        Args:
            places: Where they stand.
            limit_bytes: Leave out the last ones, whose lines are beyond so many bytes, but give at least one.

        Raises:
            Stale: A file no longer holds what its index says; refresh and ask again.
        """
        if limit_bytes is not None:
            lengths = (self.index.channels[channel].lengths[row] for channel, row in places)
            within = bisect_right(list(accumulate(lengths)), limit_bytes)
            places = places[: max(1, within)]
        by_channel: dict[str, list[tuple[int, int]]] = {}
        for number, (channel, row) in enumerate(places):
            by_channel.setdefault(channel, []).append((row, number))
        messages: dict[int, Message] = {}
        unread: list[int] = []
        stands: list[tuple[ChannelIndex, int]] = []
        lines: list[bytes] = []
        known: list[Known] = []
        for channel, asked in by_channel.items():
            index = self.index.channels[channel]
            recent = self._recent.of(index)
            shown = recent.shown
            coming = []
            for row, number in asked:
                if row in shown:
                    messages[number] = shown[row].message()
                else:
                    coming.append(row)
                    unread.append(number)
                    stands.append((index, row))
                    known.append(recent)
            if coming:
                lines += self._lines(channel, coming, recent.lines)
        if unread:
            read = messages_of(lines, stands)
            messages.update(zip(unread, read, strict=True))
            self._recent.keep(known, stands, lines, read)
        return [messages[number] for number in range(len(places))]

    def lines(self, places: Sequence[Place]) -> list[Line]:
        """The lines at these places, read from the files but not decoded."""
        by_channel: dict[str, list[int]] = {}
        for channel, row in places:
            by_channel.setdefault(channel, []).append(row)
        found = {}
        for channel, rows in by_channel.items():
            index = self.index.channels[channel]
            for row, data in zip(rows, self._lines(channel, rows, {}), strict=True):
                path, number, amended = index.path(row), index.lines[row], row in index.replaces
                found[channel, row] = Line(data, channel, path, number, index.identity(row), amended)
        return [found[place] for place in places]

    def _lines(self, channel: str, rows: list[int], known: Mapping[int, bytes]) -> list[bytes]:
        """Lines of a channel.

        Args:
            channel: The channel.
            rows: Which, in any order.
            known: By row, what need not be read from a file.
        """
        index, source = self.index.channels[channel], self._mailboxes[channel].source
        missing = [row for row in rows if row not in known]
        missing.sort()
        by_log: dict[LogFile, list[int]] = {source: missing}
        if index.archived:
            by_log = {}
            for row in missing:
                by_log.setdefault(self._store.at(index.path(row)), []).append(row)
        data: dict[int, bytes] = {}
        offsets, lengths = index.offsets, index.lengths
        for log, some in by_log.items():
            if some:
                data.update(zip(some, log.read_spans([(offsets[row], lengths[row]) for row in some]), strict=True))
        return [data[row] if row in data else known[row] for row in rows]

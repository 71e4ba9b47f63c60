"""Text search over the mailboxes' bytes.

Windows of time are searched newest first, each longer than the one before, so that a common word is found at once and a
rare one in few turns. A window is read and sifted in a thread; its finds count if, after that, its rows still stand.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from mq_server.answers import Hit, Hits, fitting
from mq_server.aside import aside
from mq_server.blocks import IN_USE_S
from mq_server.columns import ChannelIndex, Place
from mq_server.errors import Stale, Unsteady
from mq_server.index import Filter
from mq_server.message import Message
from mq_server.recent import Line
from mq_server.room import channel_matcher, checked_limit
from mq_server.search import Query, Sieve
from mq_server.timeline import Stretch, Wants, cut, picked
from mq_server.tracking import Tracking

_FIRST_ROWS, _MOST_ROWS = 256, 65_536
_ATTEMPTS = 20
_BLOCK_BYTES = 256 * 1024
_GAP_BYTES = 16 * 1024  # to read over less than that takes less time than to read twice


class _Part(NamedTuple):
    """Rows of a channel that are to be searched."""

    mailbox: ChannelIndex
    rewritten: int
    rows: Sequence[int]


class _Window(NamedTuple):
    """What is searched at once: rows of all channels from a time on."""

    parts: list[_Part]
    wants: Wants
    since_us: int
    superseded: set[int]


class Searching(Tracking):
    """The part of the façade that searches."""

    async def search(
        self,
        query: str,
        *,
        channel: str | None = None,
        sender: str | None = None,
        msg_type: str | None = None,
        scene: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int = 20,
        limit_bytes: int | None = None,
    ) -> Hits:
        """Messages whose payload contains every word of the query, whatever its case; newest first.

        Args:
            query: Words, or phrases in double quotes.
            channel: A name or a glob.
            sender: Only from this sender.
            msg_type: Only this type.
            scene: Only of this scene.
            since: A message or a time: not before it.
            until: A message or a time: only before it. A page's `next` goes here.
            limit: At most so many.
            limit_bytes: At most so many bytes of JSON, but always one hit.

        Raises:
            UnknownReference, InvalidRequest: Wrong arguments.
        """
        checked_limit(limit)
        wanted_text = Query.parse(query)
        wants = channel_matcher(channel)
        size, until_us = _FIRST_ROWS, None

        def next_window() -> _Window | None:
            """The newest rows that were not searched yet."""
            index = self._index
            start = self._moment(since)[0] if since else None
            stop = until_us if until_us is not None or not until else self._moment(until)[0] + 1
            stretches = [Stretch(each, start, stop) for name, each in index.channels.items() if wants(name)]
            stretches = [stretch for stretch in stretches if stretch.start < stretch.stop]
            if not stretches:
                return None
            taken, edge_us = cut(stretches, size, newest_first=True)
            parts = [_Part(each, each.rewritten, rows) for each, rows in taken]
            wanted = index.fitting(Filter(sender=sender, msg_type=msg_type, scene=scene))
            return _Window(parts, wanted, edge_us, index.amendments().superseded)

        found: list[Hit] = []
        attempts = 0
        while len(found) <= limit:
            window = await self._shelf.consistent(None, next_window)
            if window is None:
                break
            try:
                messages = await aside(self._matching, window, wanted_text)
                await self._shelf.refresh()
            except Stale as stale:
                self._shelf.distrust(stale.channel)
                messages = None
            except OSError:
                messages = None
            if messages is None or not all(map(self._still_stands, window.parts)):
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise Unsteady(self.root)
                await asyncio.sleep(max(0.001, IN_USE_S / _ATTEMPTS))
                continue
            start = self._moment(since) if since else (0, 0)
            stop = self._moment(until) if until else None
            within = (key for key in sorted(messages, reverse=True) if key >= start and (stop is None or key < stop))
            newest = islice(within, limit + 1 - len(found))
            found += [Hit(message=messages[key], snippet=wanted_text.snippet(messages[key])) for key in newest]
            size, until_us = min(4 * size, _MOST_ROWS), window.since_us
        count = min(limit, fitting(found, Hit.as_json, limit_bytes))
        older = found[count - 1].message.id if len(found) > count else None
        return Hits(hits=tuple(found[:count]), next=older, problems=self._shelf.problems())

    def _still_stands(self, part: _Part) -> bool:
        """Whether the rows of a channel are what they were when it was searched."""
        mailbox = part.mailbox
        return self._index.channels.get(mailbox.channel) is mailbox and mailbox.rewritten == part.rewritten

    def _matching(self, window: _Window, query: Query) -> dict[tuple[int, int], Message]:
        """By (timestamp, id), the messages of a window that match; of copies the first by channel.

        Raises:
            Stale: A file does not hold what its index says.
        """
        sieve = Sieve(query)
        found: dict[tuple[int, int], Message] = {}
        for index, _, all_rows in sorted(window.parts, key=lambda part: part.mailbox.channel):
            for path, rows in _by_file(index, window.wants(index, all_rows)):
                for place, data in self._sifted(index, path, rows, sieve):
                    key = index.key(place.row)
                    if key in found or (window.superseded and key[1] in window.superseded):
                        continue
                    amended = place.row in index.replaces
                    line = Line(data, place.channel, path, index.lines[place.row], key[1], amended)
                    message = line.message()
                    if query.matches(message):
                        found[key] = message
        return found

    def _sifted(
        self, index: ChannelIndex, path: str, rows: Sequence[int], sieve: Sieve
    ) -> Iterator[tuple[Place, bytes]]:
        """The lines of a file that may match, read from it block by block."""
        log = self._store.at(path)
        starts, lengths = picked(index.offsets, rows), picked(index.lengths, rows)
        first = 0
        while first < len(rows):
            base = starts[first]
            last = bisect_right(starts, base + _BLOCK_BYTES, first + 1)
            if not isinstance(rows, range):
                last = next((row for row in range(first + 1, last) if starts[row] - starts[row - 1] > _GAP_BYTES), last)
            block = log.read_span(base, starts[last - 1] + lengths[last - 1] - base)
            for number in sieve.lines(block, base, starts[first:last]):
                start = starts[first + number] - base
                yield Place(index.channel, rows[first + number]), block[start : start + lengths[first + number]]
            first = last


def _by_file(index: ChannelIndex, rows: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
    """Rows by the file that they stand in, each in the order of the file."""
    if rows and isinstance(rows, range) and rows.start >= index.archived:
        yield index.path(rows.start), rows
        return
    by_path: dict[str, list[int]] = {}
    for row in rows:
        by_path.setdefault(index.path(row), []).append(row)
    for path, some in by_path.items():
        yield path, sorted(some, key=index.offsets.__getitem__)

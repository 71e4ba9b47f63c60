"""What the parts of the façade share: the files, the names people use for messages, the arguments' checks."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mq_server import config as config_module
from mq_server.errors import InvalidRequest, UnknownChannel, near_miss
from mq_server.index import ChannelIndex, Index, Place
from mq_server.message import as_names, check_name, id_text, parse_reference, parse_time
from mq_server.shelf import Shelf
from mq_server.store import Append, Store, Stored

MAX_LIMIT = 1000


class Room:
    """A production's files and what is known of them.

    Args:
        root: The production's folder. The first post makes it.

    Raises:
        ConfigError: Its mq.toml cannot be used.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.config = config_module.load(self.root)
        self._store = Store(self.root)
        self._shelf = Shelf(self._store)

    @property
    def _index(self) -> Index:
        return self._shelf.index

    async def _append(self, append: Append) -> Stored:
        # Shielded: once it is queued, a cancelled caller must not leave its line half known.
        return await asyncio.shield(asyncio.wrap_future(self._store.submit(append)))

    def _deliverable(self, channel: str, reader: str) -> list[int]:
        """The unread rows of a channel in file order, without what has expired or been superseded."""
        index = self._index.channels[channel]
        now_us = time.time_ns() // 1000
        expires_us = index.expires_us
        superseded = self._index.amendments().superseded
        return [
            row
            for row in self._shelf.unread(channel, reader)
            if (row not in expires_us or expires_us[row] > now_us)
            and not (superseded and index.identity(row) in superseded)
        ]

    # --- names ----------------------------------------------------------------------------------------------------

    def _resolve(self, reference: str) -> Place:
        """The place of a message by any of its names, as the index stands."""
        return self._index.resolve(parse_reference(reference), str(reference))

    def _id_of(self, place: Place) -> str:
        return id_text(self._index.channels[place.channel].identity(place.row))

    def _key_of(self, place: Place) -> tuple[int, int]:
        return self._index.channels[place.channel].key(place.row)

    def _moment(self, text: str) -> tuple[int, int]:
        """The (timestamp, id) that a time or a message stands for."""
        try:
            return parse_time(text), 0
        except ValueError:
            return self._key_of(self._resolve(text))

    def _existing(self, channel: str, *readers: str | None) -> ChannelIndex | None:
        """The index of a channel, or None if nobody has posted to it yet; refuses a name that looks like a slip."""
        check_name("channel", channel)
        index = self._index.channels.get(channel)
        if index is None and channel not in self.config.channels and channel not in readers:
            known = [*self.config.channels, *self._store.channels()[0]]
            if near_miss(channel, known):
                raise UnknownChannel(channel, known)
        return index


def is_glob(channel: str) -> bool:
    """Whether a channel argument names several by a pattern."""
    return any(character in channel for character in "*?[")


def channel_matcher(channel: str | Sequence[str] | None) -> Callable[[str], bool]:
    """Tells whether a channel is meant by a name, a list of names, a glob or None for all."""
    if channel is None or channel == "*":
        return lambda _: True
    if not isinstance(channel, str):
        names = frozenset(as_names("channel", channel))
        return names.__contains__
    if is_glob(channel):
        return lambda name: fnmatch.fnmatchcase(name, channel)
    return check_name("channel", channel).__eq__


def checked_limit(limit: Any) -> int:
    """A page length between 1 and `MAX_LIMIT`.

    Raises:
        InvalidRequest: It is something else.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest([f"limit is {limit!r}; give a number from 1 to {MAX_LIMIT}"])
    return limit

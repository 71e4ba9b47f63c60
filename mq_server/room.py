"""What the parts of the façade share: the files, the names people use for messages, the arguments' checks."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from mq_server import config as config_module
from mq_server.columns import ChannelIndex, Place
from mq_server.config import Config
from mq_server.delivery import Rows
from mq_server.errors import InvalidRequest, UnknownChannel, UnknownReader, UnknownReference, near_miss
from mq_server.index import Index
from mq_server.leases import Leases
from mq_server.names import as_names, check_name, format_time, id_text, parse_reference, parse_time
from mq_server.schemas import Schemas
from mq_server.shelf import Shelf
from mq_server.store import Store
from mq_server.writer import Append, Stored

MAX_LIMIT = 1000
_TIME_HINT = "Use an id, a ref, or a time with its zone, such as 2026-11-22T13:12:52Z"


class HeldStill:
    """Channels whose deliveries nobody else changes within a context, or until they are let go.

    Args:
        leases: Their deliveries, in the order in which all take their locks.
        timeout_s: How long to try for each lock, in seconds.
        refresh: Takes in what was written to the files of a channel. That is done while somebody else holds its lock,
            too: so there is less to do once it is held here, which is what others wait for.
        is_done: Whether a reader of a channel is known to have settled a message.
    """

    def __init__(
        self,
        leases: Mapping[str, Leases],
        timeout_s: float,
        refresh: Callable[[str], Awaitable[None]],
        is_done: Callable[[str, str, int], bool],
    ) -> None:
        self._wanted = leases
        self._timeout_s = timeout_s
        self._refresh = refresh
        self._is_done = is_done
        self._leases: dict[str, Leases] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._leases

    async def __aenter__(self) -> Self:
        try:
            for name, leases in self._wanted.items():
                await leases.lock.acquire_by_task(self._timeout_s, partial(self._refresh, name))
                self._leases[name] = leases
                leases.refresh()
        except BaseException:
            self.abandon()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.let_go()
        finally:
            self.abandon()

    def let_go(self, *channels: str) -> None:
        """Let go of these channels, or of all, once all is done."""
        for name in channels or list(self._leases):
            self._leases[name].compact(partial(self._is_done, name))
            self._leases.pop(name).lock.release_by_task()

    def abandon(self) -> None:
        """Let go of what is still held, because something failed."""
        while self._leases:
            self._leases.popitem()[1].lock.release_by_task()


class Room:
    """A production's files and what is known of them.

    Args:
        root: The production's folder. The first post makes it.
        store: The files, if they are not those that stand in the folder now.
        config: The settings, if they are not those of the folder's mq.toml.
        schemas: The message types' schemas, if they are not those of the folder.

    Raises:
        ConfigError: Its mq.toml cannot be used.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        store: Store | None = None,
        config: Config | None = None,
        schemas: Schemas | None = None,
    ) -> None:
        self.root = Path(root)
        self.config = config_module.load(self.root) if config is None else config
        self._schemas = schemas or Schemas(self.root)
        self._store = store or Store(self.root)
        self._shelf = Shelf(self._store)

    @property
    def _index(self) -> Index:
        return self._shelf.index

    @property
    def _is_durable(self) -> bool:
        """Whether what was written survives a power cut once it is answered."""
        return self.config.durability == "disk"

    def _append(self, append: Append) -> Awaitable[Stored]:
        return self._store.submit(append)

    def _deliverable(self, channel: str, reader: str) -> Rows:
        """The unread rows of a channel in file order, without what has expired or been superseded."""
        return self._shelf.unread(channel, reader).without(self._undeliverable(channel))

    def _count_deliverable(self, channel: str, reader: str) -> int:
        """How many those are, counted without looking at each."""
        unread = self._shelf.unread(channel, reader)
        return len(unread) - sum(map(unread.__contains__, self._undeliverable(channel)))

    def _undeliverable(self, channel: str) -> set[int]:
        index = self._index.channels[channel]
        superseded = self._index.superseded_in(channel)
        return self._expired(channel).union(index.rows[identity] for identity in superseded if identity in index.rows)

    def _expired(self, channel: str) -> set[int]:
        """The rows that are not delivered any more."""
        now_us = time.time_ns() // 1000
        return {row for row, expires_us in self._index.channels[channel].expires_us.items() if expires_us <= now_us}

    # --- deliveries on this machine ------------------------------------------------------------------------------

    def _delivering(self, channels: Iterable[str]) -> HeldStill:
        """Hold these channels' deliveries still: nobody else claims or settles there meanwhile.

        Raises:
            LockTimeout, WriteFailed: Nothing was begun.
        """
        self._store.has_runtime()
        leases = {name: self._store.leases(name) for name in sorted(set(channels))}
        return HeldStill(leases, self.config.lock_timeout_s, self._take_in, self._is_done)

    async def _take_in(self, channel: str) -> None:
        self._store.leases(channel).refresh()
        await self._shelf.refresh([channel])

    def _leases(self, channel: str) -> Leases:
        """The deliveries of a channel as they stand."""
        leases = self._store.leases(channel)
        leases.refresh()
        return leases

    def _is_done(self, channel: str, reader: str, identity: int) -> bool:
        """Whether a reader is known to have settled a message."""
        index = self._index.channels.get(channel)
        if index is None:
            return False
        state = self._shelf.reader_state(channel, reader)
        if not state.seek_us:
            return identity in state.settled
        row = index.rows.get(identity)
        return row is not None and state.is_settled(identity, index.times_us[row])

    def _last_read(self, channel: str, reader: str) -> str | None:
        """When a reader last took or settled anything, as far as this machine knows."""
        fetched_us = self._leases(channel).last_fetched_us.get(reader, 0)
        last_us = max(fetched_us, self._shelf.last_settled_us(channel, reader))
        return format_time(last_us) if last_us else None

    def _check_reader(self, channel: str, reader: str | None, caller: str | None) -> None:
        """Refuse a reader's name that looks like a slip: as a new reader it would have everything unread.

        Raises:
            UnknownReader: It is almost a known one.
        """
        if reader is None or reader in (channel, caller):
            return
        if channel in self._index.channels and reader in self._shelf.readers(channel):
            return
        known = {channel, *self.config.channels, *self._index.channels, *self._leases(channel).readers()}
        if channel in self._index.channels:
            known.update(self._shelf.readers(channel))
        if reader not in known and near_miss(reader, known):
            raise UnknownReader(reader, channel, known)

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
            reference = parse_reference(text)
            try:
                return self._key_of(self._index.resolve(reference, text))
            except UnknownReference:
                if reference and reference.channel:
                    raise
                raise UnknownReference(text, _TIME_HINT) from None

    def _scope_of(self, reference: str, channel: str) -> list[str] | None:
        """What must be looked at to find a place in a channel's order: the channel alone, or None for every file.

        Every file is where an id may stand, or the end of one. A time, a `next` and nonsense stand in none.
        """
        known = parse_reference(reference)
        return [channel] if known is None or known.channel == channel else None

    def _existing(self, channel: str, *readers: str | None) -> ChannelIndex | None:
        """The index of a channel, or None if nobody has posted to it yet; refuses a name that looks like a slip."""
        check_name("channel", channel)
        index = self._index.channels.get(channel)
        if index is None and channel not in self.config.channels and channel not in readers:
            known = [*self.config.channels, *self._store.channels()[0]]
            if near_miss(channel, known):
                raise UnknownChannel(channel, known)
        return index


def is_glob(channel: object) -> bool:
    """Whether a channel argument names several by a pattern."""
    return isinstance(channel, str) and ("*" in channel or "?" in channel or "[" in channel)


def channel_matcher(channel: str | Sequence[str] | None) -> Callable[[str], bool]:
    """Tells whether a channel is meant by a name, a glob, a list of both, or None for all."""
    if channel is None or channel == "*":
        return lambda _: True
    given = [channel] if isinstance(channel, str) else list(channel)
    names = frozenset(as_names("channel", [name for name in given if not is_glob(name)]))
    globs = [name for name in given if is_glob(name)]
    return lambda name: name in names or any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def checked_limit(limit: Any) -> int:
    """A page length between 1 and `MAX_LIMIT`.

    Raises:
        InvalidRequest: It is something else.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest([f"limit is {limit!r}; give a number from 1 to {MAX_LIMIT}"])
    return limit

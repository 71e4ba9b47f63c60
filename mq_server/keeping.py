"""A file of lines as last read, kept up to date.

A short addition is read at once; a long file that has to be read anew is read and indexed in a thread, into a reading
of its own that then takes the old one's place.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Generic, Protocol, TypeVar

from mq_server.aside import aside
from mq_server.blocks import IN_USE_S, Block
from mq_server.logfile import Change, LogFile, Look, View
from mq_server.stamp import Fingerprint, fingerprints

_INLINE_BYTES = 256 * 1024
_INLINE_ROWS = 1000
_BLOCKS_AT_ONCE = 32
_ATTEMPTS = 20


class Reading(Protocol):
    """What is made of a file's lines."""

    def extend(self, lines: Iterable[tuple[int, int, bytes]]) -> None:
        """Take in the next lines: the offset, number and bytes of each."""

    def __len__(self) -> int: ...

    def prepare(self) -> None:
        """Do what the first answer would have to, as far as it takes long."""


R = TypeVar("R", bound=Reading)


class Tracked(Generic[R]):
    """One log and what was read of it.

    Args:
        source: The file.
        new: Makes an empty reading, for a file that has to be read anew.
    """

    def __init__(self, source: LogFile, new: Callable[[], R]) -> None:
        self.source = source
        self.path = str(source.path)
        self.view = View()
        self.reading = new()
        self.fault = ""
        """Why the file cannot be read; empty when it can."""
        self.was_replaced = False
        """Whether it was read anew since somebody last set this back."""
        self._new = new

    @property
    def exists(self) -> bool:
        """Whether there was a file when it was last read."""
        return self.view.fingerprint is not None

    def is_current(self) -> bool:
        """Whether there is nothing to take in."""
        try:
            return self.source.is_as_seen(self.view)
        except OSError:
            return False

    async def refresh(self) -> bool:
        """Take in what changed; whether anything did."""
        patient_until = time.monotonic() + (0 if self.fault else IN_USE_S)
        for _ in range(_ATTEMPTS):
            try:
                look = self.source.glance(self.view)
                if look is Look.SAME:
                    return False
                # What may wait or read the whole file is done off the event loop.
                change = look if isinstance(look, Change) else await aside(self.source.examine, self.view)
                reading = await self._begin() if change.replaced else self.reading
                if change.replaced:
                    await take_anew(reading, change)
                    if len(reading) > _INLINE_ROWS:
                        await aside(reading.prepare)
                else:
                    await self._take_more(change)
            except FileNotFoundError:
                self.distrust()  # replaced between the look and the read, of which a part may have been taken in
                continue
            except PermissionError as error:
                if time.monotonic() >= patient_until:
                    return self._unreadable(f"cannot be read: {error.strerror or error}")
                self.distrust()
                await asyncio.sleep(IN_USE_S / _ATTEMPTS)
                continue
            except OSError as error:
                return self._unreadable(f"cannot be read: {error.strerror or error}")
            self.reading, self.view, self.fault = reading, change.view, ""
            self.was_replaced = self.was_replaced or change.replaced
            return change.replaced or change.size_bytes > 0
        return False

    async def _take_more(self, change: Change) -> None:
        """Take in what was appended: on the event loop, where answers are made of it, but with a break now and then."""
        self.distrust()  # who is cancelled within a break leaves a part taken in
        for number, block in enumerate(change.blocks()):
            if number:
                await asyncio.sleep(0)
            self._extend(block)

    def _extend(self, block: Block) -> None:
        self.reading.extend(block.lines())

    def distrust(self) -> None:
        """Read the file anew next time, whatever it looks like."""
        self.view = View()

    async def _begin(self) -> R:
        """The reading to begin with, for a file that is read anew."""
        return self._new()

    def _unreadable(self, fault: str) -> bool:
        changed = fault != self.fault
        self.reading, self.view, self.fault = self._new(), View(), fault
        return changed


class Unchanged:
    """Channels that have nothing to take in while their files look as they did: all are looked at in one go."""

    def __init__(self) -> None:
        self._paths: dict[str, list[str]] = {}
        self._expected: dict[str, Fingerprint | None] = {}

    def add(self, channel: str, files: Iterable[Tracked[Any]]) -> None:
        """Add a channel.

        Args:
            channel: Its name.
            files: Its files, which are there, and have nothing to take in.
        """
        looks = {file.path: file.view.fingerprint for file in files}
        self._paths[channel] = [*looks]
        self._expected |= looks

    def others(self, channels: set[str]) -> set[str]:
        """Those of some channels, these among them, which may have something to take in."""
        return channels - self._paths.keys() if len(channels) > len(self._paths) else set()

    def doubt(self, channel: str) -> None:
        """Leave out a channel."""
        for path in self._paths.pop(channel, ()):
            del self._expected[path]

    def doubt_all(self) -> None:
        """Leave out all of them."""
        self._paths.clear()
        self._expected.clear()

    def look(self) -> None:
        """Leave out those whose files look otherwise now."""
        try:
            found = fingerprints(self._expected)
        except OSError:
            self.doubt_all()
            return
        expected = [*self._expected.values()]
        if found != expected:
            looks = zip(self._expected, found, expected, strict=True)
            changed = {path for path, now, before in looks if now != before}
            for channel in [channel for channel, paths in self._paths.items() if not changed.isdisjoint(paths)]:
                self.doubt(channel)


async def take_anew(reading: Reading, change: Change) -> None:
    """Read a whole file into an empty reading, or behind what is in it; a long one in a thread."""
    if change.size_bytes > _INLINE_BYTES:
        await aside(_take, reading, change)
    else:
        _take(reading, change)


def _take(reading: Reading, change: Change) -> None:
    blocks = change.blocks()
    while block := next(blocks, None):
        some = chain([block], islice(blocks, _BLOCKS_AT_ONCE - 1))
        with _uncollected():
            reading.extend(chain.from_iterable(map(Block.lines, some)))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, for some tenths of a second.

    The thousands of objects that a block of lines is decoded to are in no cycles, and gone soon. To look through them
    would take a tenth of the time; and since they seem to pile up, all others of the process would be looked through
    as well, in which time no thread runs.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

"""Noticing changes: one watchfiles loop per process, a slow rescan behind it, and the wake-up of those who wait.

An event is a cue to look at a file, never data. File systems that raise no events (some network and container mounts)
are covered by the rescan alone. Wakes are coalesced: however many changes happened, a subscriber wakes once and reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mq_server.store import RECEIPTS, SUFFIX

if TYPE_CHECKING:
    from watchfiles import Change

RESCAN_S = 1.0
_STEP_MS = 100
"""How often the thread that waits for events looks for them: most of what waiting costs (0.09% of a core at 50 ms)."""
_DEBOUNCE_MS = 100
log = logging.getLogger(__name__)


class Subscription:
    """Somebody who waits for changes of some channels. Use it as a context manager."""

    def __init__(self, feed: Feed, wants: Callable[[str], bool], *, looks: bool) -> None:
        self._feed = feed
        self.wants = wants
        self.looks = looks
        self._channels: set[str] = set()
        self.is_woken = False
        """Whether something happened since the last answer."""
        self._waiting: set[asyncio.Future[None]] = set()

    def __enter__(self) -> Self:
        self._feed.subscriptions.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.subscriptions.discard(self)

    def wake(self, channels: set[str]) -> None:
        """Note a change of these channels."""
        self._channels |= channels
        self.is_woken = True
        for waiting in self._waiting:
            _end(waiting)

    async def changed(self, timeout_s: float | None) -> set[str]:
        """Wait for the next change.

        Returns:
            The channels that changed since the last call; empty on time-out and when the feed closed.
        """
        if not (self.is_woken or self._feed.closed):
            # A bare future: what stands between a ring and the answer runs cold, and each call of it shows.
            loop = asyncio.get_running_loop()
            waiting: asyncio.Future[None] = loop.create_future()
            timer = None if timeout_s is None else loop.call_later(timeout_s, _end, waiting)
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)
                if timer is not None:
                    timer.cancel()
        self.is_woken = False
        channels, self._channels = self._channels, set()
        return channels


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Feed:
    """Tells subscribers which channels changed."""

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self.closed = False

    def subscribe(self, wants: Callable[[str], bool], *, looks: bool = False) -> Subscription:
        """A subscription to changes.

        Args:
            wants: Whether a channel of that name is meant.
            looks: Whether the subscriber looks at the files whenever it is woken, so that a hint will do.
        """
        return Subscription(self, wants, looks=looks)

    def publish(self, channels: set[str]) -> None:
        """Wake everybody who wants one of these channels."""
        for subscription in self.subscriptions:
            concerned = {channel for channel in channels if subscription.wants(channel)}
            if concerned:
                subscription.wake(concerned)

    def hint(self, channels: set[str]) -> bool:
        """Wake those who look themselves: these channels may have changed. If so, `publish` follows for all.

        Returns:
            Whether that is everybody who wants one of them.
        """
        all_look = True
        for subscription in self.subscriptions:
            concerned = set(filter(subscription.wants, channels))
            if concerned and subscription.looks:
                subscription.wake(concerned)
            elif concerned:
                all_look = False
        return all_look

    def close(self) -> None:
        """End every wait."""
        self.closed = True
        for subscription in self.subscriptions:
            subscription.wake(set())


class Watcher:
    """Looks for changes of a folder while it is running, and calls `look` for them.

    Args:
        root: The production's folder. It may be missing, come and go.
        look: Called with the channels to look at, or None for all.
    """

    def __init__(self, root: Path, look: Callable[[set[str] | None], Awaitable[None]]) -> None:
        self._root = root
        self._look = look
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._watched: dict[Path, int] = {}
        self._unwatch = asyncio.Event()
        self._subscribed = asyncio.Event()

    async def start(self) -> None:
        """Start, and return once events are subscribed to; a read after that misses nothing."""
        if not self._tasks and not self._stop.is_set():
            self._tasks = [asyncio.create_task(self._events()), asyncio.create_task(self._rescan())]
        await self._subscribed.wait()

    async def close(self) -> None:
        """Stop and wait for the end."""
        self._stop.set()
        self._subscribed.set()  # who starts to wait just now finds the feed closed
        self._unwatch.set()  # the thread that waits for events looks at this; cancelling alone would not end it
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def _rescan(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(RESCAN_S)
            if self._watched and self._folders() != self._watched:
                self._unwatch.set()
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        await self._seen(None)

    async def _events(self) -> None:
        while not self._stop.is_set():
            self._watched = self._folders()
            if not (self._watched and await self._watch()):
                self._watched = {}
                self._subscribed.set()
                await asyncio.sleep(RESCAN_S)  # nothing to watch: the rescan covers meanwhile

    async def _watch(self) -> bool:
        """Watch the folders until there are others; False if that is not possible."""
        from watchfiles import awatch  # here, so that a post, which never watches, starts without it

        self._unwatch = asyncio.Event()
        events = awatch(
            *self._watched,
            watch_filter=_concerns_us,
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            stop_event=self._unwatch,
            recursive=False,
            ignore_permission_denied=True,
        )
        first = asyncio.ensure_future(anext(events))
        try:
            await asyncio.sleep(0)  # the subscription is made before the generator first suspends
            if self._subscribed.is_set():
                await self._seen(None)  # what happened since the last subscription ended
            self._subscribed.set()
            changes = await first
            while True:
                channels = {Path(path).name.removesuffix(SUFFIX) for _, path in changes if path.endswith(SUFFIX)}
                if channels:
                    await self._seen(channels)
                if self._folders() != self._watched:
                    return True
                changes = await anext(events)
        except StopAsyncIteration:
            return self._unwatch.is_set()
        except FileNotFoundError:
            return False
        except Exception as error:  # noqa: BLE001 - whatever the system's event service says, the rescan goes on
            log.warning("%s: no file events (%s); changes are noticed every %g s", self._root, error, RESCAN_S)
            self._subscribed.set()
            await self._stop.wait()
            return False
        finally:
            self._unwatch.set()
            if not first.done():
                first.cancel()
                await asyncio.wait([first])
            await events.aclose()

    async def _seen(self, channels: set[str] | None) -> None:
        try:
            await self._look(channels)
        except OSError as error:
            # The folder itself cannot be listed just now; who asks gets this error, and the next look may succeed.
            log.warning("%s: %s", self._root, error)

    def _folders(self) -> dict[Path, int]:
        """The folders to watch, and which they are: one that was replaced has another inode."""
        inodes = {folder: _inode(folder) for folder in (self._root, self._root / RECEIPTS)}
        return {folder: inode for folder, inode in inodes.items() if inode}


def _concerns_us(_: Change, path: str) -> bool:
    return path.endswith(SUFFIX) or os.path.basename(path) == RECEIPTS  # noqa: PTH119 - called for every event


def _inode(folder: Path) -> int:
    try:
        status = folder.stat()
    except OSError:
        return 0
    return status.st_ino if stat.S_ISDIR(status.st_mode) else 0

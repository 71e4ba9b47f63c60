"""`mq show`: the conversation for people, as a transcript that can go on as messages come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mq_server.cli.options import asks, at_option, scene_option
from mq_server.cli.output import Screen, flush, print_json, remark
from mq_server.cli.session import looking, note_missing, problems, until_reader_leaves, with_room
from mq_server.errors import MailError, UnknownReference, did_you_mean

if TYPE_CHECKING:
    from mq_server.git.past import Snapshot
    from mq_server.mailroom import Mailroom
    from mq_server.message import Message
    from mq_server.watch import Subscription

    Watch = Callable[[str | None], AbstractAsyncContextManager[Subscription]]

_PAGE = 1000
_BEGINNING = "1970-01-01T00:00:00Z"


class NothingNamed(MailError):
    """What is to be shown is neither a channel nor a message."""

    def __init__(self, name: str, channels: list[str]) -> None:
        listing = f"Channels: {', '.join(channels)}" if channels else "There are no channels yet"
        super().__init__(f"No channel and no message is named {name!r}.{did_you_mean(name, channels)} {listing}")


class Shown(NamedTuple):
    """A message, and how deep in its thread it stands."""

    message: Message
    depth: int = 0


@click.command()
@click.argument("what", required=False, metavar="[CHANNEL|M]")
@asks(
    scene_option,
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest so many; by default all."),
    click.option("--follow", is_flag=True, help="Go on with messages as they come. Ctrl+C ends it."),
    at_option,
)
@click.pass_obj
def show(
    root: Path, what: str | None, scene: str | None, limit: int | None, follow: bool, at: str | None, as_json: bool
) -> None:
    """Show the conversation as a transcript.

    All of it or that of a CHANNEL in the order of time, or the thread of message M. --scene gathers a scene from all
    mailboxes. With --json, one document holds all messages; with --follow too, one
    document per line holds each.
    """
    if follow and at is not None:
        raise click.UsageError("--follow and --at exclude each other: what is committed does not go on.")
    screen = Screen()
    documents: list[dict[str, Any]] = []

    async def present(room: Mailroom | Snapshot, watch: Watch | None = None) -> None:
        async with aclosing(_conversation(room, what, scene, limit, watch)) as shown:
            async for message, depth in shown:
                if as_json and follow:
                    print_json(message.as_json(), one_line=True)
                elif as_json:
                    documents.append(message.as_json())
                else:
                    screen.entry(message, depth)
                if follow:
                    flush()

    if follow:
        note_missing(root)
        with_room(root, lambda room: until_reader_leaves(present(room, room.changes)))
    else:
        looking(root, at, lambda room: until_reader_leaves(present(room)))
    if as_json and not follow:
        print_json({"messages": documents})
    elif not screen.used:
        remark("nothing to show yet")


async def _conversation(
    room: Mailroom | Snapshot, what: str | None, scene: str | None, limit: int | None, watch: Watch | None
) -> AsyncGenerator[Shown, None]:
    """What there is; then, with something to watch, what comes."""
    source: Timeline | Thread
    if what is None or await is_channel(room, what):
        source = Timeline(room, what, scene, limit)
    else:
        source, what = Thread(room, what, scene, limit), None
    async with AsyncExitStack() as held:
        changes = await held.enter_async_context(watch(what)) if watch else None
        while True:
            fresh = await source.more()
            for shown in fresh:
                yield shown
            if not fresh and not (changes and await changes.changed(None)):
                return


async def is_channel(room: Mailroom | Snapshot, what: str) -> bool:
    """Whether a channel is meant, and not a message.

    Raises:
        NothingNamed: Neither is there.
        AmbiguousReference: It is the end of several ids.
    """
    from mq_server.names import parse_reference
    from mq_server.room import is_glob

    channels = [state.channel for state in (await room.directory()).channels]
    if what in channels or is_glob(what):
        return True
    try:
        if parse_reference(what) is not None:
            await room.message(what)
            return False
    except UnknownReference as error:
        raise NothingNamed(what, channels) from error
    raise NothingNamed(what, channels)


class Timeline:
    """Messages of a channel or of all in the order of time.

    Args:
        room: The production.
        channel: A name, a pattern, or None for all.
        scene: Only of this scene.
        limit: Only the newest so many of those that are there at first.
    """

    def __init__(self, room: Mailroom | Snapshot, channel: str | None, scene: str | None, limit: int | None) -> None:
        self._room = room
        self._channel = channel
        self._scene = scene
        self._limit = limit
        self._since = None if limit else _BEGINNING
        self._start = (0, "")
        self._given: set[str] = set()

    async def more(self) -> list[Shown]:
        """What has not been given yet, or the next part of it; empty when there is nothing more now."""
        while True:
            page = await self._room.activity(
                since=self._since, limit=self._limit or _PAGE, channel=self._channel, scene=self._scene
            )
            problems.tell(page.problems)
            if self._limit and page.messages:
                self._start = _key(page.messages[0])
            self._since, self._limit = page.next, None
            # After a merge a page may start further back: with what was given, and with what the limit left out.
            fresh = [each for each in page.messages if each.id not in self._given and _key(each) >= self._start]
            self._given.update(each.id for each in fresh)
            if fresh or not page.messages:
                return [Shown(each) for each in fresh]


class Thread:
    """Messages of a thread, parents before children; later ones as they come.

    Args:
        room: The production.
        message: Any message of the thread.
        scene: Only of this scene.
        limit: Only the last so many of those that are there at first.
    """

    def __init__(self, room: Mailroom | Snapshot, message: str, scene: str | None, limit: int | None) -> None:
        self._room = room
        self._message = message
        self._scene = scene
        self._limit = limit
        self._given: set[str] = set()

    async def more(self) -> list[Shown]:
        """What has not been given yet; empty when there is nothing more now."""
        before = None
        found: list[Shown] = []
        while True:
            page = await self._room.thread(self._message, limit=_PAGE, before=before)
            found[:0] = map(Shown, page.messages, page.depths)
            before = page.next
            if before is None:
                break
        problems.tell(page.problems)
        fresh = [
            shown
            for shown in found
            if shown.message.id not in self._given and self._scene in (None, shown.message.scene)
        ]
        self._given.update(shown.message.id for shown in found)
        limit, self._limit = self._limit, None
        return fresh[-limit:] if limit else fresh


def _key(message: Message) -> tuple[int, str]:
    return message.time_us, message.id

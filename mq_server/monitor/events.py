"""What is new, as server-sent events.

Events
    hello: The stream stands; what the page loads from now on misses nothing. Its id is the place it goes on from.
    messages: New messages, oldest first; the id is the place after them. With `again` set, messages have come into an
        earlier place (git has merged), and some may have been sent before: the page knows messages by their ids.
    merged: So many messages may have been sent before that they are not sent again: the page looks again at what it
        shows. The id is the end of the timeline.
    changed: Something else about these channels: receipts, an edited line, a file replaced.
    beat: Nothing new for a while; and how long ago the watcher looked at the files (`looked_s`).
    lost: The place the page wanted to go on from means nothing here: it loads anew.

A browser that was cut off comes back with the last id it saw (`Last-Event-ID`), which is the `next` of an activity, and
gets what was posted meanwhile: nothing twice and nothing left out, also from another server on the same folder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mq_server.errors import MailError
from mq_server.mailroom import Mailroom
from mq_server.monitor.fragments import shown

BEAT_S = 10.0
"""So often a stream without news says so, by which a dead connection is noticed."""
_BATCH = 100
_RETRY_MS = 1000
log = logging.getLogger(__name__)


class Events:
    """The streams of every open page.

    Args:
        room: The production.
    """

    def __init__(self, room: Mailroom) -> None:
        self._room = room
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End every stream; the browsers come back when there is a server again."""
        self._closed.set()

    async def answer(self, request: Request) -> Response:
        """The answer to `GET /events`, which goes on until one side leaves."""
        since = request.headers.get("last-event-id") or request.query_params.get("since")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(since), headers=headers, media_type="text/event-stream")

    async def _stream(self, since: str | None) -> AsyncIterator[bytes]:
        try:
            async for event in self._news(since):
                yield event
        except (MailError, OSError) as error:  # the browser comes back, and by then the files may answer
            log.warning("%s", error)

    async def _news(self, since: str | None) -> AsyncIterator[bytes]:
        async with self._room.changes() as changes:
            yield f"retry: {_RETRY_MS}\n\n".encode()
            if since is not None:
                try:
                    await self._room.activity(since=since, limit=1)
                except MailError:
                    yield _event("lost", {})
                    since = None
            if since is None:
                since = (await self._room.activity(limit=1)).next
            yield _event("hello", {}, since)
            names: set[str] = set()
            while not self._closed.is_set():
                page = await self._room.activity(since=since, limit=_BATCH)
                if page.merged and page.more:
                    since = (await self._room.activity(limit=1)).next
                    yield _event("merged", {}, since)
                    continue
                since = page.next
                if page.messages:
                    content = {"messages": await shown(self._room, page.messages), "again": page.merged}
                    yield _event("messages", content, since)
                if page.more:
                    continue
                if names:
                    yield _event("changed", {"channels": sorted(names)})
                while not (names := await changes.changed(BEAT_S)) and not self._closed.is_set():
                    yield _event("beat", {"looked_s": self._room.last_look_s()})


def _event(name: str, content: dict[str, Any], place: str = "") -> bytes:
    lines = [f"event: {name}", *([f"id: {place}"] if place else [])]
    return "\n".join(lines).encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"

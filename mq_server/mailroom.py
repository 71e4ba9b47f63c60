"""`Mailroom`: the one façade over a production. The MCP server, the command line and library users share it.

    async with Mailroom("mailboxes") as room:
        posted = await room.post("narrator", sender="scene_director", msg_type="note", payload={"text": "Curtain."})
        page = await room.wait("narrator", timeout_s=25)

Every answer reflects the files as they are: before it answers, a query looks whether they changed. Messages are read
from the files when they are shown; in memory stand only columns. One Mailroom belongs to one event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self

from mq_server.posting import Posting
from mq_server.queries import Queries
from mq_server.reading import Reader
from mq_server.room import channel_matcher
from mq_server.watch import Subscription

DEFAULT_ROOT = "mailboxes"


class Mailroom(Posting, Reader, Queries):
    """A production's mailroom: posting, reading and waiting, looking things up.

    Args:
        root: The production's folder. The first post makes it.

    Raises:
        ConfigError: Its mq.toml cannot be used.
    """

    def __init__(self, root: str | Path = DEFAULT_ROOT) -> None:
        super().__init__(root)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def changes(self, channel: str | Sequence[str] | None = None) -> AbstractAsyncContextManager[Subscription]:
        """Notice changes: `async with room.changes() as changes: names = await changes.changed(timeout_s)`.

        Args:
            channel: A mailbox, a list, a glob; None for all.
        """
        return self._shelf.watched(channel_matcher(channel))

    def end_waits(self) -> None:
        """Make every open wait return what it has; for a server that shuts down."""
        self._shelf.feed.close()

    async def close(self) -> None:
        """End every wait, finish what is queued, let go of everything."""
        await self._shelf.close()
        await self._store.close()

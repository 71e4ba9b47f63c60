"""`Mailroom`: the one façade over a production. The MCP server, the command line and library users share it.

    async with Mailroom("mailboxes") as room:
        posted = await room.post("narrator", sender="scene_director", msg_type="note", payload={"text": "Curtain."})
        page = await room.wait("narrator", timeout_s=25)

Every answer reflects the files as they are: before it answers, a query looks whether they changed. Messages are read
from the files when they are shown; in memory stand only columns, and what was shown last. One Mailroom belongs to one
event loop.

Every `mq` command imports all of its parts. So what only some calls need, or takes long to import, is imported within
these; a test says what may not be among the modules of the usual commands.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self

from mq_server.archiving import Archiving
from mq_server.asking import Asking
from mq_server.checking import Checking
from mq_server.claiming import Claiming
from mq_server.following import Following
from mq_server.queries import Queries
from mq_server.room import channel_matcher
from mq_server.tallying import Tallying
from mq_server.watch import Subscription

DEFAULT_ROOT = "mailboxes"


class Mailroom(Asking, Claiming, Following, Queries, Checking, Tallying, Archiving):
    """A production's mailroom: posting and asking, reading, claiming and following, settling, looking things up.

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

    def last_look_s(self) -> float | None:
        """How long ago the watcher last looked at the files, in seconds; None while nobody waits for changes.

        It looks about once a second: much more means that changes by others go unnoticed.
        """
        looked_s = self._shelf.looked_s
        return None if looked_s is None else time.monotonic() - looked_s

    def end_waits(self) -> None:
        """Make every open wait return what it has; for a server that shuts down."""
        self._shelf.feed.close()

    async def close(self) -> None:
        """End every wait, finish what is queued, let go of everything."""
        await self._end_rescues()
        await self._shelf.close()
        await self._end_notes()
        await self._store.close()

"""How a command uses the mailroom: one event loop, one `Mailroom`, and an eye on whoever reads the output."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mq_server.cli.output import Problems, remark

if TYPE_CHECKING:
    from mq_server.git.past import Snapshot
    from mq_server.mailroom import Mailroom

T = TypeVar("T")

problems = Problems()
"""Where problems in the files go during this process."""


def with_room(root: Path, use: Callable[[Mailroom], Awaitable[T]]) -> T:
    """Run a command's work on a production.

    Args:
        root: Its folder.
        use: Gets the mailroom.

    Returns:
        What `use` returns.
    """
    import asyncio

    from mq_server.mailroom import Mailroom

    async def session() -> T:
        async with Mailroom(root) as room:
            return await use(room)

    problems.told.clear()
    logging.getLogger("mq_server").addHandler(problems)
    return asyncio.run(session())


def looking(root: Path, at: str | None, use: Callable[[Mailroom | Snapshot], Awaitable[T]]) -> T:
    """Look something up in a production: as it is, or as it stood at a revision.

    Args:
        root: Its folder.
        at: The revision, or None.
        use: Gets what to ask.

    Returns:
        What `use` returns.

    Raises:
        GitError: There is no repository, or no such revision.
    """
    if at is None:
        note_missing(root)
        return with_room(root, use)
    import asyncio

    from mq_server.git.past import Snapshot

    problems.told.clear()
    past = Snapshot.at(root, at)
    if past.is_empty:
        remark(f"there is nothing in {root} at {at}")

    async def session() -> T:
        async with past:
            return await use(past)

    return asyncio.run(session())


def note_missing(root: Path) -> None:
    """Say that there is nothing at `root`, which a question would otherwise answer with silence."""
    if not root.exists():
        remark(f"there is no folder {root} yet; --root or MQ_ROOT names another, `mq init` makes one")


async def until_reader_leaves(work: Coroutine[Any, Any, None]) -> None:
    """Do work that prints as it comes, and stop when whoever reads the output goes away.

    Raises:
        BrokenPipeError: They did.
    """
    import asyncio

    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_reader_left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and not working.done():
            raise BrokenPipeError
        await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _reader_left() -> None:
    """Return when stdout is a pipe whose other end is closed.

    A write would say so, but nothing may be written for hours. Elsewhere than on POSIX only a write tells.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    left = asyncio.Event()
    try:
        descriptor = sys.stdout.fileno()
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        if is_pipe:
            loop.add_reader(descriptor, left.set)
    except (OSError, ValueError, NotImplementedError):
        is_pipe = False
    try:
        await left.wait()
    finally:
        if is_pipe:
            loop.remove_reader(descriptor)

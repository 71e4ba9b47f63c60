"""What the tests of the core share: lines, files, git, other processes. The server's tests have `serving`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hypothesis import settings

from mq_server.appendlog import AppendLog
from mq_server.blocks import Block
from mq_server.columns import ChannelIndex, Names
from mq_server.locks import FileLock
from mq_server.logfile import Change, Look, View
from mq_server.mailroom import Mailroom
from mq_server.message import encode_line
from mq_server.names import format_time, id_text, mint_id

DEADLINE_S = 30.0
START_US = 1_790_000_000_000_000
"""A moment in the past, so that no timestamp of a test is ahead of the clock."""
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine with a deadline."""

    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE_S):
            return await work

    return asyncio.run(bounded())


def ask(root: Path, work: Callable[[Mailroom], Awaitable[Any]]) -> Any:
    """What `work` returns of a mailroom on `root`, with a deadline."""

    async def session() -> Any:
        async with Mailroom(root) as room:
            return await work(room)

    return run(session())


def eventually(fact: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + deadline_s
    while True:
        found = fact()
        if found:
            return found
        assert time.monotonic() < deadline, f"{fact} did not come true"
        time.sleep(0.002)


def loaded() -> float:
    """How many times as long as on an idle machine something may take here and now: tests run beside others."""
    return max(1.0, os.getloadavg()[0]) if hasattr(os, "getloadavg") else 4.0


def examples(count: int) -> settings:
    """Settings for so many examples in an ordinary run, and more in a soak."""
    return settings(max_examples=count * settings.default.max_examples // 100)


# --- lines -----------------------------------------------------------------------------------------------------------


def known_id(number: int) -> str:
    """An id that is the same in every run, of a message at that time; its end looks as random as any."""
    return id_text((START_US // 1000 + number) << 80 | pow(7, number + 50, 2**80))


def fields(number: int = 0, *, text: str = "", **keys: Any) -> dict[str, Any]:
    """The keys of a message; `number` sets its time, a millisecond apart from the next."""
    time_us = START_US + number * 1000
    usual: dict[str, Any] = {
        "id": mint_id(time_us),
        "timestamp": format_time(time_us),
        "channel": "narrator",
        "sender": "scene_director",
        "msg_type": "note",
    }
    return usual | keys | {"payload": keys.get("payload", {"text": text or f"message {number}"})}


def line(number: int = 0, **keys: Any) -> bytes:
    """The line of such a message."""
    return encode_line(fields(number, **keys))


def write(path: Path, *lines: bytes) -> Path:
    """A file of these lines, as somebody else would write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def indexed(lines: Iterable[bytes], channel: str = "narrator", names: Names | None = None) -> ChannelIndex:
    """A mailbox of these lines, indexed."""
    data = b"".join(lines)
    index = ChannelIndex(channel, f"{channel}.jsonl", names or Names(), lambda at, length: data[at : at + length])
    index.extend(Block(0, 1, data).lines())
    return index


# --- one log ---------------------------------------------------------------------------------------------------------


class Closing(Protocol):
    """What keeps a handle."""

    def close(self) -> None: ...


_locks: list[Closing] = []


def closed_in_the_end(kept: Closing) -> None:
    """Have something closed when the test ends."""
    _locks.append(kept)


def new_lock(path: Path) -> FileLock:
    """A lock that is closed when the test ends."""
    lock = FileLock(path)
    _locks.append(lock)
    return lock


def new_log(root: Path, name: str = "narrator") -> AppendLog:
    """A log as another process would have it: nothing shared but the files. It is closed when the test ends."""
    log = AppendLog(
        root / f"{name}.jsonl", root / ".mq" / "locks" / f"{name}.lock", root / ".mq" / "stamps" / f"{name}.stamp"
    )
    _locks.append(log)
    return log


def close_locks() -> None:
    """Close what `new_lock` and `new_log` opened, and what was to be closed in the end."""
    while _locks:
        _locks.pop().close()


def append(log: AppendLog, lines: bytes, newest_us: int = 0) -> int:
    """Append as the store does; the first new line's number."""
    with log.lock.held(DEADLINE_S):
        written = log.append(log.tail(), lines, newest_us)
    log.sync(written, durable=False)
    return written.first_line


class LogReader:
    """Follows a log by its changes, as an index does."""

    def __init__(self, log: AppendLog) -> None:
        self._log = log
        self.view = View()
        self.lines: list[tuple[int, int, bytes]] = []
        self.rereads = 0

    def take(self) -> list[tuple[int, int, bytes]]:
        """(offset, number, line) of every line, kept up to date."""
        while True:
            look = self._log.glance(self.view)
            if look is Look.SAME:
                return self.lines
            change = look if isinstance(look, Change) else self._log.examine(self.view)
            if change.replaced:
                self.lines = []
                self.rereads += 1
            try:
                for block in change.blocks():
                    self.lines += block.lines()
            except FileNotFoundError:
                self.view = View()
                continue
            self.view = change.view
            return self.lines


# --- other processes -------------------------------------------------------------------------------------------------


@contextmanager
def python(script: str, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `script`; killed at the end if it is still there."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line a process prints."""
    assert process.stdout is not None
    text = process.stdout.readline()
    assert text, f"the process ended with {process.wait()}"
    return text.rstrip("\n")


def tell(process: subprocess.Popen[str], text: str = "") -> None:
    """A line for the process to read."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def output(script: str, *arguments: object, **options: Any) -> str:
    """What a Python process prints that runs `script` to its end."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- git -------------------------------------------------------------------------------------------------------------

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run git with an identity and settings of its own; what it prints."""
    command = ["git", "-c", "init.defaultBranch=main", "-c", "gc.auto=0", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | _IDENTITY, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path, message: str = "go on") -> None:
    """Commit everything."""
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


def merged_both_ways(
    folder: Path, changes: Sequence[Callable[[Path], object]], base: Callable[[Path], object]
) -> list[Path]:
    """Clones of one repository in which branches, each with one of the changes, were merged in either order.

    Args:
        folder: Where to make them.
        changes: Each makes one branch's change in a production's folder.
        base: Makes what the branches start from.
    """
    origin = folder / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    (origin / ".gitattributes").write_text("*.jsonl text eol=lf merge=union\n")
    (origin / ".gitignore").write_text(".mq/\n")
    base(origin)
    commit(origin)
    for number, change in enumerate(changes):
        git(origin, "checkout", "-q", "-b", f"branch{number}", "main")
        change(origin)
        commit(origin)
    clones = []
    for name, order in (("forth", range(len(changes))), ("back", range(len(changes) - 1, -1, -1))):
        clone = folder / name
        git(folder, "clone", "-q", str(origin), str(clone))
        branches = [f"origin/branch{number}" for number in order]
        git(clone, "checkout", "-q", "-b", "merged", branches[0])
        for branch in branches[1:]:
            git(clone, "merge", "-q", "-m", "merge", branch)
        clones.append(clone)
    return clones

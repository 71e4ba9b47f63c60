"""A production's folder: its logs, and the one writer that appends to them.

All appends of a process go through one thread. Those that are asked for in one round of the event loop, or while the
thread syncs, are taken together: what goes to the same mailboxes is written at once and synced once (group commit), and
the callers, woken together, tend to come together again. Ids and timestamps are minted there, under the locks of all
mailboxes concerned, taken in name order.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mq_server.appendlog import AppendLog, Tail, Written
from mq_server.errors import InvalidName, MailError, PartlyPosted, Problem, WriteFailed
from mq_server.names import check_name, mint_id

SUFFIX = ".jsonl"
RUNTIME = ".mq"
RECEIPTS = "receipts"
MAX_AHEAD_US = 5_000_000
"""A predecessor's timestamp is followed when it is at most this far ahead of the clock, and reported when further."""

_GITATTRIBUTES = """\
# Mailboxes only grow: git merges two branches by keeping the lines of both.
*.jsonl text eol=lf merge=union diff=mailbox
receipts/*.jsonl text eol=lf merge=union -diff linguist-generated
"""
_GITIGNORE = f"{RUNTIME}/\n"


class Stored(NamedTuple):
    """A message as it was written: minted id and time, and its line number in each mailbox."""

    id: str
    time_us: int
    lines: dict[str, int]


@dataclass(slots=True)
class Append:
    """One line to be appended to one or more logs under one id.

    `encode` is called under the locks, with the id, the time in microseconds and the log's name.
    """

    logs: dict[str, AppendLog]
    encode: Callable[[str, int, str], bytes]
    lock_timeout_s: float
    durable: bool


class _Asked(NamedTuple):
    """An append that somebody on an event loop waits for."""

    append: Append
    done: asyncio.Future[Stored]


class Store:
    """The files of one production.

    Args:
        root: The folder; made by the first write if it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._logs: dict[str, AppendLog] = {}
        self._asked: list[_Asked] = []
        self._queue: queue.SimpleQueue[list[_Asked] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    # --- files ----------------------------------------------------------------------------------------------------

    def mailbox(self, channel: str) -> AppendLog:
        """The log of a channel.

        Raises:
            InvalidName: It is no channel's name.
        """
        return self._log("", channel)

    def receipts(self, channel: str) -> AppendLog:
        """The log of a channel's receipts.

        Raises:
            InvalidName: It is no channel's name.
        """
        return self._log(f"{RECEIPTS}/", channel)

    def channels(self) -> tuple[list[str], list[Problem]]:
        """The names of the mailboxes on disk, sorted; and a Problem for each file whose name is none."""
        return _named_files(self.root, "")

    def receipt_channels(self) -> tuple[list[str], list[Problem]]:
        """The same for the receipts."""
        return _named_files(self.root / RECEIPTS, f"{RECEIPTS}/")

    def prepare(self) -> None:
        """Make the folder, with what git must know of it. Existing files are left alone.

        Raises:
            WriteFailed: The system refused.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name, content in ((".gitattributes", _GITATTRIBUTES), (".gitignore", _GITIGNORE)):
                with suppress(FileExistsError), (self.root / name).open("x", encoding="utf-8", newline="\n") as file:
                    file.write(content)
        except OSError as error:
            raise WriteFailed(self.root, error) from error

    def _log(self, folder: str, channel: str) -> AppendLog:
        name = f"{folder}{channel}"
        log = self._logs.get(name)
        if log is None:
            check_name("channel", channel)
            runtime = self.root / RUNTIME
            log = AppendLog(
                self.root / f"{name}{SUFFIX}",
                runtime / "locks" / f"{name}.lock",
                runtime / "stamps" / f"{name}.stamp",
            )
            self._logs[name] = log
        return log

    # --- appending ------------------------------------------------------------------------------------------------

    def submit(self, append: Append) -> asyncio.Future[Stored]:
        """Queue an append for the writer thread; the future ends when it is durable, or with what went wrong.

        An append whose future is cancelled in the same round of the event loop is left out; later it can't be any more.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Stored] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._hand_over)
        self._asked.append(_Asked(append, done))
        return done

    def _hand_over(self) -> None:
        asked, self._asked = [one for one in self._asked if not one.done.done()], []
        if asked:
            self._queue.put(asked)
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_queued, name="mq-writer", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Finish what is queued and give the lock handles back."""
        self._hand_over()
        while self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            if not self._queue.empty():  # asked for after the thread's last look
                self._start()
        for log in self._logs.values():
            log.lock.close()

    def _write_queued(self) -> None:
        while True:
            batches = [self._queue.get()]
            while not self._queue.empty():
                batches.append(self._queue.get())
            for group in _same_targets([one for batch in batches for one in batch or ()]):
                outcomes: list[Stored | BaseException]
                try:
                    outcomes = self._commit([one.append for one in group])
                except BaseException as error:  # noqa: BLE001 - the thread's edge: each caller gets what happened
                    outcomes = [error] * len(group)
                with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                    group[0].done.get_loop().call_soon_threadsafe(_answer, group, outcomes)
            if None in batches:
                return

    def _commit(self, group: list[Append]) -> list[Stored | BaseException]:
        """Write a group that goes to the same mailboxes; what became of each of them."""
        if not (self.root / RUNTIME).exists():  # the first write into this folder
            self.prepare()
        logs = group[0].logs
        minted: list[Stored] = []
        written: dict[str, Written] = {}
        stopped: tuple[str, MailError] | None = None
        try:
            with ExitStack() as locks:
                for name in sorted(logs):
                    locks.enter_context(logs[name].lock.held(group[0].lock_timeout_s))
                tails = {name: log.tail() for name, log in logs.items()}
                lines: dict[str, list[bytes]] = {name: [] for name in logs}
                time_us = 0
                for append in group:
                    time_us = max(time_us + 1, next_time_us(tails))
                    message_id = mint_id(time_us)
                    for name in logs:
                        lines[name].append(append.encode(message_id, time_us, name))
                    minted.append(Stored(message_id, time_us, {}))
                for name, log in logs.items():
                    try:
                        written[name] = log.append(tails[name], b"".join(lines[name]), time_us)
                    except MailError as error:
                        if not written:
                            raise
                        stopped = (name, error)
                        break
        finally:
            unconfirmed = _sync(logs, written, durable=any(append.durable for append in group))
        if stopped:
            return [PartlyPosted(stored.id, list(written), *stopped) for stored in minted]
        if unconfirmed:
            return [unconfirmed] * len(minted)
        for number, stored in enumerate(minted):
            stored.lines.update({name: written[name].first_line + number for name in logs})
        return list(minted)


def _answer(group: list[_Asked], outcomes: list[Stored | BaseException]) -> None:
    for one, outcome in zip(group, outcomes, strict=True):
        if one.done.done():
            continue  # cancelled after it was handed over: the message stands all the same
        if isinstance(outcome, BaseException):
            one.done.set_exception(outcome)
        else:
            one.done.set_result(outcome)


def _sync(logs: dict[str, AppendLog], written: dict[str, Written], *, durable: bool) -> WriteFailed | None:
    """Sync and close everything that was written; what went wrong, if anything did."""
    failure = None
    for name, append in written.items():
        try:
            logs[name].sync(append, durable=durable)
        except WriteFailed as error:
            failure = failure or error
    return failure


def next_time_us(tails: dict[str, Tail]) -> int:
    """The timestamp for a message that follows these ends: the clock's, or just after a predecessor slightly ahead."""
    now = time.time_ns() // 1000
    followed = [tail.newest_us for tail in tails.values() if tail.newest_us - now <= MAX_AHEAD_US]
    return max(now, max(followed, default=0) + 1)


def _same_targets(asked: list[_Asked]) -> Iterator[list[_Asked]]:
    groups: dict[tuple[str, ...], list[_Asked]] = {}
    for one in asked:
        groups.setdefault(tuple(one.append.logs), []).append(one)
    yield from groups.values()


def _named_files(folder: Path, prefix: str) -> tuple[list[str], list[Problem]]:
    names: list[str] = []
    problems: list[Problem] = []
    try:
        # A name that starts with a dot is an editor's own: a lock, a copy to fall back to.
        found = sorted(entry.name for entry in folder.iterdir() if entry.suffix == SUFFIX and entry.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return names, problems
    for file_name in found:
        try:
            names.append(check_name("channel", file_name.removesuffix(SUFFIX)))
        except InvalidName as fault:
            problems.append(Problem(f"{prefix}{file_name}", 0, f"{fault}; the file is not read"))
    return names, problems

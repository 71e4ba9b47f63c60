"""A production's folder: its logs, and the one writer that appends to them.

All appends of a process go through one thread. While it syncs, further posts queue up; it then takes all of them,
writes those for the same mailboxes at once and syncs once for all (group commit). Ids and timestamps are minted there,
under the locks of all mailboxes concerned, taken in name order.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mq_server.appendlog import AppendLog, Tail, Written
from mq_server.errors import InvalidName, MailError, PartlyPosted, Problem
from mq_server.message import check_name, mint_id

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
    done: Future[Stored] = field(default_factory=Future)


class Store:
    """The files of one production.

    Args:
        root: The folder; made by the first write if it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._logs: dict[str, AppendLog] = {}
        self._queue: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    # --- files ----------------------------------------------------------------------------------------------------

    def mailbox(self, channel: str) -> AppendLog:
        """The log of a channel."""
        return self._log(channel)

    def receipts(self, channel: str) -> AppendLog:
        """The log of a channel's receipts."""
        return self._log(f"{RECEIPTS}/{channel}")

    def channels(self) -> tuple[list[str], list[Problem]]:
        """The names of the mailboxes on disk, sorted; and a Problem for each file whose name is none."""
        return _named_files(self.root, "")

    def receipt_channels(self) -> tuple[list[str], list[Problem]]:
        """The same for the receipts."""
        return _named_files(self.root / RECEIPTS, f"{RECEIPTS}/")

    def prepare(self) -> None:
        """Make the folder, with what git must know of it, unless it is there. Existing files are left alone."""
        self.root.mkdir(parents=True, exist_ok=True)
        for name, content in ((".gitattributes", _GITATTRIBUTES), (".gitignore", _GITIGNORE)):
            try:
                with (self.root / name).open("x", encoding="utf-8", newline="\n") as file:
                    file.write(content)
            except FileExistsError:
                continue

    def _log(self, name: str) -> AppendLog:
        log = self._logs.get(name)
        if log is None:
            runtime = self.root / RUNTIME
            log = AppendLog(
                self.root / f"{name}{SUFFIX}", runtime / "locks" / f"{name}.lock", runtime / "stamps" / name
            )
            self._logs[name] = log
        return log

    # --- appending ------------------------------------------------------------------------------------------------

    def submit(self, append: Append) -> Future[Stored]:
        """Queue an append for the writer thread; the future ends when it is durable, or with what went wrong."""
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_queued, name="mq-writer", daemon=True)
                self._thread.start()
            self._queue.put(append)
        return append.done

    def close(self) -> None:
        """Finish what is queued and give the lock handles back."""
        with self._guard:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join()
        for log in self._logs.values():
            log.lock.close()

    def _write_queued(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            # A post that was cancelled while it queued is left out; once it is running it can't be any more.
            wanted = [append for append in batch if append and append.done.set_running_or_notify_cancel()]
            for group in _same_targets(wanted):
                try:
                    self._commit(group)
                except BaseException as error:  # noqa: BLE001 - the thread's edge: each caller gets what happened
                    for append in group:
                        append.done.set_exception(error)
            if None in batch:
                return

    def _commit(self, group: list[Append]) -> None:
        if not self.root.exists():
            self.prepare()
        logs = group[0].logs
        results: list[Stored] = []
        written: dict[str, Written] = {}
        durable = any(append.durable for append in group)
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
                    results.append(Stored(message_id, time_us, {}))
                for name, log in logs.items():
                    try:
                        written[name] = log.append(tails[name], b"".join(lines[name]), time_us)
                    except MailError as error:
                        if written:
                            raise PartlyPosted(results[0].id, list(written), name, error) from error
                        raise
        finally:
            for name, append_result in written.items():
                logs[name].sync(append_result, durable=durable)
        for number, (append, result) in enumerate(zip(group, results, strict=True)):
            result.lines.update({name: written[name].first_line + number for name in logs})
            append.done.set_result(result)


def next_time_us(tails: dict[str, Tail]) -> int:
    """The timestamp for a message that follows these ends: the clock's, or just after a predecessor slightly ahead."""
    now = time.time_ns() // 1000
    followed = [tail.newest_us for tail in tails.values() if tail.newest_us - now <= MAX_AHEAD_US]
    return max(now, max(followed, default=0) + 1)


def _same_targets(batch: list[Append]) -> Iterator[list[Append]]:
    groups: dict[tuple[str, ...], list[Append]] = {}
    for append in batch:
        groups.setdefault(tuple(append.logs), []).append(append)
    yield from groups.values()


def _named_files(folder: Path, prefix: str) -> tuple[list[str], list[Problem]]:
    names: list[str] = []
    problems: list[Problem] = []
    try:
        found = sorted(entry.name for entry in folder.iterdir() if entry.suffix == SUFFIX)
    except (FileNotFoundError, NotADirectoryError):
        return names, problems
    for file_name in found:
        try:
            names.append(check_name("channel", file_name.removesuffix(SUFFIX)))
        except InvalidName as fault:
            problems.append(Problem(f"{prefix}{file_name}", 0, f"{fault}; the file is not read"))
    return names, problems

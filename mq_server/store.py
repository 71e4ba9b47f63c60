"""A production's folder: its logs, their locks, and what this machine notes beside them."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mq_server.appendlog import AppendLog
from mq_server.bells import Bells
from mq_server.errors import InvalidName, Problem, WriteFailed
from mq_server.indexfile import IndexFile
from mq_server.journal import Journal
from mq_server.leases import Leases
from mq_server.listing import Listing
from mq_server.locks import FileLock
from mq_server.names import check_name
from mq_server.presence import Presence
from mq_server.writer import Append, Stored, Writer

SUFFIX = ".jsonl"
RUNTIME = ".mq"
RECEIPTS = "receipts"
ARCHIVE = "archive"
LEASES = "leases"
JOURNAL = "journal"

_GITATTRIBUTES = """\
# Mailboxes only grow: git merges two branches by keeping the lines of both.
*.jsonl text eol=lf merge=union diff=mailbox
receipts/*.jsonl text eol=lf merge=union -diff linguist-generated
"""
_GITIGNORE = f"{RUNTIME}/\n"
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


class Listed(NamedTuple):
    """What files a production has: the channels that have any, those that have receipts, the months of the archive, and
    what is not read.
    """

    channels: frozenset[str]
    receipts: frozenset[str]
    months: list[str]
    stray: tuple[Problem, ...]


class Store:
    """The files of one production.

    Args:
        root: The folder; made by the first write if it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runtime = root / RUNTIME
        process = f"{os.getpid()}-{os.urandom(4).hex()}"
        self.presence = Presence(root / RUNTIME / "waiting", process, self.has_runtime)
        self.bells = Bells(root / RUNTIME / "bells", process, self.has_runtime)
        self._logs: dict[str, AppendLog] = {}
        self._leases: dict[str, Leases] = {}
        self._locks: dict[str, FileLock] = {}
        self._journals: dict[str, Journal] = {}
        self._listings: dict[str, Listing] = {}
        self._listed_from: list[frozenset[str]] = []
        self._listed = Listed(frozenset(), frozenset(), [], ())
        self._writer = Writer(self._creating_lock(), self.journal, self._ring)

    # --- files ----------------------------------------------------------------------------------------------------

    def mailbox(self, channel: str) -> AppendLog:
        """The log of a channel.

        Raises:
            InvalidName: It is no channel's name.
        """
        return self._logs.get(channel) or self._log("", channel)  # every post comes here

    def kept_index(self, channel: str) -> IndexFile:
        """Where this machine keeps the index of a mailbox."""
        path = self.root / RUNTIME / "index" / f"{check_name('channel', channel)}.bin"
        return IndexFile(path, self._lock(f"index/{channel}"))

    def is_new(self, channel: str) -> bool:
        """Whether there is no mailbox of this name, and this process never wrote to one."""
        log = self.mailbox(channel)
        return not (log.was_written or log.path.exists())

    def receipts(self, channel: str) -> AppendLog:
        """The log of a channel's receipts.

        Raises:
            InvalidName: It is no channel's name.
        """
        return self._log(f"{RECEIPTS}/", channel)

    def leases(self, channel: str) -> Leases:
        """The deliveries of a channel on this machine.

        Raises:
            InvalidName: It is no channel's name.
        """
        leases = self._leases.get(channel)
        if leases is None:
            check_name("channel", channel)
            runtime = self.root / RUNTIME
            lock_path = runtime / "locks" / LEASES / f"{channel}.lock"
            leases = self._leases[channel] = Leases(runtime / LEASES / f"{channel}.log", lock_path)
        return leases

    def journal(self, name: str) -> Journal:
        """The journal of a log: `narrator` for the mailbox, `receipts/narrator` for its receipts."""
        journal = self._journals.get(name)
        if journal is None:
            journal = self._journals[name] = Journal(self.root / RUNTIME / JOURNAL / f"{name}{SUFFIX}")
        return journal

    def journals(self) -> list[str]:
        """The names of the logs that have a journal."""
        folder = self.root / RUNTIME / JOURNAL
        names = [
            *check_file_names(Listing(folder).names(), "")[0],
            *(f"{RECEIPTS}/{name}" for name in check_file_names(Listing(folder / RECEIPTS).names(), "")[0]),
        ]
        return sorted(names)

    def log(self, name: str) -> AppendLog:
        """A log by its name: `narrator`, or `receipts/narrator`.

        Raises:
            InvalidName: It is no log's name.
        """
        channel = channel_of(name)
        return self.mailbox(channel) if channel == name else self.receipts(channel)

    @contextmanager
    def held_still(self, timeout_s: float) -> Iterator[list[str]]:
        """Hold every mailbox and receipts file: none of our processes writes meanwhile. Gives their names.

        Raises:
            LockTimeout, WriteFailed: Somebody else held one all that time; nothing is held.
        """
        self.has_runtime()
        deadline = time.monotonic() + timeout_s
        while True:
            with ExitStack() as locks:
                names = self._names()
                for name in names:
                    locks.enter_context(self.log(name).lock.held(max(0.0, deadline - time.monotonic())))
                # Last, as whoever makes a log does; what was made until now is held with the rest.
                locks.enter_context(self._creating_lock().held(max(0.0, deadline - time.monotonic())))
                if self._names() == names:
                    yield names
                    return

    def _names(self) -> list[str]:
        return sorted([*self.channels()[0], *(f"{RECEIPTS}/{name}" for name in self.receipt_channels()[0])])

    def _creating_lock(self) -> FileLock:
        """Held by whoever makes a log: before it is there, nobody knows that it has a lock to be held."""
        return self._lock(".creating")

    def rescue_lock(self, name: str) -> FileLock:
        """Held while a process looks for what has vanished from a log and puts it back."""
        return self._lock(f"{JOURNAL}/{name}")

    def sender_lock(self, sender: str) -> FileLock:
        """Held while somebody posts under a key of theirs, so that two of them do not find it unused at once."""
        return self._lock(f"senders/{check_name('sender', sender)}")

    def _lock(self, name: str) -> FileLock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = FileLock(self.root / RUNTIME / "locks" / f"{name}.lock")
        return lock

    def channels(self) -> tuple[list[str], list[Problem]]:
        """The names of the mailboxes on disk, sorted; and a Problem for each file whose name is none."""
        return check_file_names(self._names_in(""), "")

    def receipt_channels(self) -> tuple[list[str], list[Problem]]:
        """The same for the receipts."""
        return check_file_names(self._names_in(RECEIPTS), f"{RECEIPTS}/")

    def months(self) -> list[str]:
        """The months that the archive has folders for, oldest first."""
        return sorted(filter(is_month, self._names_in(ARCHIVE)))

    def archive(self, month: str, channel: str) -> AppendLog:
        """The archived lines of a channel, of one month. Whoever changes them holds the mailbox's lock."""
        return self._log(f"{ARCHIVE}/{month}/", channel, locked_as=channel)

    def at(self, path: str) -> AppendLog:
        """The log of a mailbox or an archived part, by its file relative to the folder.

        Raises:
            InvalidName: It is no log's name.
        """
        folder, _, name = path.removesuffix(SUFFIX).rpartition("/")
        return self.archive(folder.removeprefix(f"{ARCHIVE}/"), name) if folder else self.mailbox(name)

    def archived_channels(self) -> tuple[list[str], list[Problem]]:
        """The names of the channels that have archived lines, sorted; and a Problem for each file that is not read."""
        return named_archives({folder: self._names_in(f"{ARCHIVE}/{folder}") for folder in self._names_in(ARCHIVE)})

    def listed(self) -> Listed:
        """What files there are: the same object as long as none came or went."""
        archive = self._names_in(ARCHIVE)
        archived = [self._names_in(f"{ARCHIVE}/{folder}") for folder in archive]
        listed_from = [self._names_in(""), self._names_in(RECEIPTS), archive, *archived]
        if listed_from != self._listed_from:
            found = [self.channels(), self.receipt_channels(), self.archived_channels()]
            channels = frozenset(name for names, _ in found for name in names)
            stray = tuple(problem for _, problems in found for problem in problems)
            self._listed = Listed(channels, frozenset(found[1][0]), self.months(), stray)
            self._listed_from = listed_from
        return self._listed

    def _names_in(self, folder: str) -> frozenset[str]:
        """The names in a folder of the production, which is named relative to it."""
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = Listing(self.root / folder)
        return listing.names()

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

    def has_runtime(self) -> bool:
        """Make a place for this machine's state, if there is a production; whether there is one.

        Raises:
            WriteFailed: The system refused.
        """
        if os.path.exists(self._runtime):  # noqa: PTH110 - every claim comes here
            return True
        if not self.root.is_dir():
            return False
        self.prepare()
        return True

    def _log(self, folder: str, channel: str, locked_as: str = "") -> AppendLog:
        name = f"{folder}{channel}"
        log = self._logs.get(name)
        if log is None:
            check_name("channel", channel)
            runtime = self.root / RUNTIME
            log = AppendLog(
                self.root / f"{name}{SUFFIX}",
                runtime / "locks" / f"{locked_as or name}.lock",
                runtime / "stamps" / f"{name}.stamp",
                partial(self._begin_writing, name),
            )
            self._logs[name] = log
        return log

    def submit(self, append: Append) -> asyncio.Future[Stored]:
        """Append; the future ends when it is durable, or with what went wrong.

        An append whose future is cancelled in the same round of the event loop is left out, if it is not written yet;
        later it can't be any more.
        """
        return self._writer.submit(append)

    async def close(self) -> None:
        """Finish what is queued and give the kept handles back."""
        await self._writer.close()
        self.presence.close()
        for log in self._logs.values():
            log.close()
        for journal in self._journals.values():
            journal.close()
        for leases in self._leases.values():
            leases.close()
        for lock in self._locks.values():
            lock.close()

    def _begin_writing(self, name: str) -> None:
        if name in self._journals:
            self._journals[name].close()  # its folder may be another one now
        if not self._runtime.exists():
            self.prepare()

    def _ring(self, names: Iterable[str]) -> None:
        self.bells.ring([name for name in names if not name.startswith(RECEIPTS)])


def channel_of(log_name: str) -> str:
    """The channel of a log: of `narrator` as of `receipts/narrator`."""
    return log_name.removeprefix(f"{RECEIPTS}/")


def is_month(name: str) -> bool:
    """Whether a folder of the archive is named as it must be."""
    return _MONTH.fullmatch(name) is not None


def named_archives(folders: Mapping[str, Iterable[str]]) -> tuple[list[str], list[Problem]]:
    """The channels that have archived lines, sorted; and a Problem for each `.jsonl` file that is not read.

    Args:
        folders: By the name of each entry in the archive, the names of its files.
    """
    found: set[str] = set()
    problems: list[Problem] = []
    for folder, files in folders.items():
        names, stray = check_file_names(files, f"{ARCHIVE}/{folder}/")
        if is_month(folder):
            found.update(names)
            problems += stray
        elif names or stray or folder.endswith(SUFFIX):
            text = "not in a folder named after a month, such as 2026-10; not read"
            problems.append(Problem(f"{ARCHIVE}/{folder}", 0, text))
    return sorted(found), problems


def check_file_names(found: Iterable[str], prefix: str) -> tuple[list[str], list[Problem]]:
    """The channels that files are named after, sorted; and a Problem for each `.jsonl` file whose name is none.

    Args:
        found: The names of a folder's files.
        prefix: What Problems put in front of them.
    """
    names: list[str] = []
    problems: list[Problem] = []
    # A name that starts with a dot is an editor's own: a lock, a copy to fall back to.
    for file_name in sorted(name for name in found if name.endswith(SUFFIX) and name[0] != "."):
        try:
            names.append(check_name("channel", file_name.removesuffix(SUFFIX)))
        except InvalidName as fault:
            problems.append(Problem(f"{prefix}{file_name}", 0, f"{fault}; the file is not read"))
    return names, problems

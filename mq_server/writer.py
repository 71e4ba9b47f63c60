"""The one writer of a process: what is appended together, how, and by whom.

Appends that are asked for in one round of the event loop are taken together: what goes to the same logs is written at
once and synced once (group commit), and the callers, woken together, tend to come together again. A task that asks
again and again, and nobody else, waits for no such round. Ids and timestamps are minted under the locks of all logs
concerned, taken in name order.

As long as nobody else holds a lock and the disk syncs in a moment, all this is done on the event loop itself: handing
it to a thread and back takes longer than the work. What may take its time goes to a thread: a lock that is held, a file
that somebody else has touched, a disk that is slow; and everything behind that, so that the order stays.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from mq_server.appendlog import AppendLog, Written
from mq_server.errors import LockTimeout, MailError, PartlyPosted, WriteFailed
from mq_server.journal import Journal
from mq_server.locks import FileLock
from mq_server.logfile import Tail
from mq_server.names import mint_id

MAX_AHEAD_US = 5_000_000
"""A predecessor's timestamp is followed when it is at most this far ahead of the clock, and reported when further."""
_QUICK_S = 0.005
"""A sync that takes longer would hold the event loop up; measured as a moving average. One that is shorter costs less
there than the way to a thread and back, and more so where many processes wait for a turn on the processor."""
_WEIGHT = 0.2
_TURN_S = 0.001
"""As long as that the appends of one task are written one after the other, then others on the loop have their turn."""


class Stored(NamedTuple):
    """A message as it was written: minted id and time, its line number in each mailbox, the mailboxes made for it."""

    id: str
    time_us: int
    lines: dict[str, int]
    created: Sequence[str] = ()


@dataclass(slots=True)
class Append:
    """One line to be appended to one or more logs under one id.

    `encode` is called under the locks, with the id, the time in microseconds and the log's name. `known` is the id and
    time of a line that has them already: another copy of a stored message. `plain` says that the line is a new message
    that neither corrects another nor expires. `follows_any` is for lines whose order must
    be that of their timestamps, wherever the clock stands; `after_us` is a time that they must come after. `stands` is
    called on the event loop or the writer's thread once the line stands, before it is synced. `done` is made by the
    writer, for whoever waits.
    """

    logs: dict[str, AppendLog]
    encode: Callable[[str, int, str], bytes]
    lock_timeout_s: float
    durable: bool
    known: tuple[str, int] | None = None
    plain: bool = False
    follows_any: bool = False
    after_us: int = 0
    stands: Callable[[], None] | None = None
    done: asyncio.Future[Stored] = field(init=False)


class _Later(Exception):
    """A commit that would have to wait."""


class Writer:
    """Writes what a process appends.

    Args:
        creating: The lock of whoever makes a log: before it is there, nobody knows that it has a lock to be held.
        journal: The journal of a log, by its name.
        written: Told the names of logs that were written to, before they are synced.
    """

    def __init__(
        self,
        creating: FileLock,
        journal: Callable[[str], Journal],
        written: Callable[[Iterable[str]], None],
    ) -> None:
        self._creating = creating
        self._journal = journal
        self._written = written
        self._asked: list[Append] = []
        self._queue: queue.SimpleQueue[list[Append] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._handed_over = 0
        """How many appends the thread has not answered yet."""
        self._sync_s = 0.0
        self._asker = 0
        """The `id` of the task that asked last. It is compared, no more: that of another one may be the same."""
        self._turn_ends = 0.0

    def submit(self, append: Append) -> asyncio.Future[Stored]:
        """Have an append written; the future ends when it is durable, or with what went wrong.

        An append whose future is cancelled in the same round of the event loop is left out, if it is not written yet;
        later it can't be any more.
        """
        loop = asyncio.get_running_loop()
        append.done = loop.create_future()
        if self._goes_on(loop) and not self._asked:
            self._hand_over([[append]])
        else:
            self._asked.append(append)
            if len(self._asked) == 1:
                loop.call_soon(self._end_round)
        return append.done

    def _goes_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a task asks once more within its turn: had it company, somebody else would have asked in between."""
        asker, now = id(asyncio.current_task(loop)), time.monotonic()  # uvloop's own time stands still within a round
        if asker == self._asker and now < self._turn_ends:
            return True
        self._asker, self._turn_ends = asker, now + _TURN_S
        return False

    def _end_round(self) -> None:
        asked, self._asked = [append for append in self._asked if not append.done.done()], []
        self._hand_over(_same_targets(asked))

    def _hand_over(self, groups: Iterable[list[Append]]) -> None:
        later: list[Append] = []
        for group in groups:
            if not self._committed_here(group):
                later += group
        if later:
            self._handed_over += len(later)
            self._queue.put(later)
            self._start()

    def _committed_here(self, group: list[Append]) -> bool:
        """Commit a group at once, if that is a matter of microseconds; whether it was."""
        if self._handed_over or (self._sync_s > _QUICK_S and any(append.durable for append in group)):
            return False
        outcomes: list[Stored | BaseException]
        try:
            outcomes = self._commit(group, at_once=True)
        except _Later:
            return False
        except BaseException as error:  # noqa: BLE001 - each caller gets what happened
            outcomes = [error] * len(group)
        _answer(group, outcomes)
        return True

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_queued, name="mq-writer", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Finish what is queued."""
        self._end_round()
        while self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            if not self._queue.empty():  # asked for after the thread's last look
                self._start()

    def _write_queued(self) -> None:
        while True:
            batches = [self._queue.get()]
            while not self._queue.empty():
                batches.append(self._queue.get())
            for group in _same_targets([append for batch in batches for append in batch or ()]):
                outcomes: list[Stored | BaseException]
                try:
                    outcomes = self._commit(group, at_once=False)
                except BaseException as error:  # noqa: BLE001 - the thread's edge: each caller gets what happened
                    outcomes = [error] * len(group)
                with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                    group[0].done.get_loop().call_soon_threadsafe(self._answer_handed_over, group, outcomes)
            if None in batches:
                return

    def _answer_handed_over(self, group: list[Append], outcomes: list[Stored | BaseException]) -> None:
        self._handed_over -= len(group)
        _answer(group, outcomes)

    def _commit(self, group: list[Append], *, at_once: bool) -> list[Stored | BaseException]:
        """Write a group that goes to the same logs; what became of each of them.

        Args:
            group: What is to be written.
            at_once: Whether waiting for anything is out of the question.

        Raises:
            _Later: It cannot be done at once; nothing was written.
        """
        logs = group[0].logs
        locks: list[FileLock] = []
        tails: dict[str, Tail] = {}
        minted: list[Stored] = []
        created: list[str] = []
        written: dict[str, Written] = {}
        durable, plain = False, True
        stopped: tuple[str, MailError] | None = None
        try:
            self._hold(logs, locks, tails, 0.0 if at_once else group[0].lock_timeout_s, at_once=at_once)
            time_us = 0
            # All or none follow any time: the logs are of one kind.
            next_us = next_time_us(tails, None if group[0].follows_any else MAX_AHEAD_US)
            for append in group:
                if append.known is None:
                    time_us = next_us = max(next_us, append.after_us + 1)
                    next_us += 1
                    minted.append(Stored(mint_id(time_us), time_us, {}, created))
                else:
                    minted.append(Stored(*append.known, {}, created))
                durable = durable or append.durable
                plain = plain and append.plain
            lines: dict[str, bytes] = {}
            for name in logs:
                pairs = zip(group, minted, strict=True)
                lines[name] = b"".join([append.encode(stored.id, stored.time_us, name) for append, stored in pairs])
            for name, log in logs.items():
                tail = tails.pop(name)
                try:
                    written[name] = log.append(tail, lines[name], time_us or tail.newest_us, plain=plain)
                    self._journal(name).append(lines[name])
                except MailError as error:
                    if not written:
                        raise
                    stopped = (name, error)
                    break
        finally:
            for tail in tails.values():
                tail.close()
            for lock in reversed(locks):
                lock.release()
            if written:
                self._written(written)
                for append in group:
                    if append.stands is not None:
                        append.stands()
            unconfirmed = self._sync(logs, written, durable=durable)
        if stopped:
            return [PartlyPosted(stored.id, list(written), *stopped) for stored in minted]
        if unconfirmed:
            return [unconfirmed] * len(minted)
        for name, appended in written.items():
            if appended.created:
                created.append(name)
            for line, stored in enumerate(minted, appended.first_line):
                stored.lines[name] = line
        return [*minted]

    def _hold(
        self,
        logs: dict[str, AppendLog],
        locks: list[FileLock],
        tails: dict[str, Tail],
        timeout_s: float,
        *,
        at_once: bool,
    ) -> None:
        """Take the locks of the logs and look at their ends.

        Args:
            logs: The logs by name.
            locks: Gets the locks as they are taken; whoever calls releases them.
            tails: Gets the ends by name; whoever calls closes them.
            timeout_s: How long to try for each lock, in seconds.
            at_once: Whether waiting for anything is out of the question.

        Raises:
            _Later: `at_once`, and somebody else holds one, or has touched a file.
        """
        try:
            for name in sorted(logs):
                logs[name].lock.acquire(timeout_s)
                locks.append(logs[name].lock)
        except LockTimeout:
            if at_once:
                raise _Later from None
            raise
        if at_once:
            for name, log in logs.items():
                tail = log.known_tail()
                if tail is None:
                    raise _Later
                tails[name] = tail
            return
        tails.update({name: log.tail() for name, log in logs.items()})
        if any(tail.fingerprint is None for tail in tails.values()):
            self._creating.acquire(timeout_s)
            locks.append(self._creating)
            tails.update({name: log.tail() for name, log in logs.items()})  # git may have made it meanwhile

    def _sync(self, logs: dict[str, AppendLog], written: dict[str, Written], *, durable: bool) -> WriteFailed | None:
        """Sync and close everything that was written; what went wrong, if anything did."""
        failure = None
        began = time.perf_counter()
        for name, append in written.items():
            try:
                logs[name].sync(append, durable=durable)
            except WriteFailed as error:
                failure = failure or error
        if durable and written:
            self._sync_s += _WEIGHT * (time.perf_counter() - began - self._sync_s)
        return failure


def _answer(group: list[Append], outcomes: list[Stored | BaseException]) -> None:
    for append, outcome in zip(group, outcomes, strict=True):
        if append.done.done():
            continue  # cancelled after it was handed over: the message stands all the same
        if isinstance(outcome, BaseException):
            append.done.set_exception(outcome)
        else:
            append.done.set_result(outcome)


def next_time_us(tails: dict[str, Tail], max_ahead_us: int | None = MAX_AHEAD_US) -> int:
    """The timestamp for a line that follows these ends: the clock's, or just after a predecessor ahead of it.

    Args:
        tails: The ends.
        max_ahead_us: A predecessor further ahead of the clock is not followed; None follows any.
    """
    next_us = now = time.time_ns() // 1000
    for tail in tails.values():
        if tail.newest_us >= next_us and (max_ahead_us is None or tail.newest_us - now <= max_ahead_us):
            next_us = tail.newest_us + 1
    return next_us


def _same_targets(asked: list[Append]) -> Iterable[list[Append]]:
    groups: dict[tuple[str, ...], list[Append]] = {}
    for append in asked:
        groups.setdefault(tuple(append.logs), []).append(append)
    return groups.values()

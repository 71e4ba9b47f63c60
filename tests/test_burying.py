"""Receipts as they are written: when others see them, when the caller does, what a failure leaves behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mq_server import appendlog, archiving
from mq_server import writer as writer_module
from mq_server.errors import LockTimeout, WriteFailed
from mq_server.locks import FileLock
from mq_server.mailroom import Mailroom
from mq_server.store import Store
from tests.support import DEADLINE_S, closed_in_the_end, known_id, line, new_lock, run, write

Sync = Callable[[int], None]


@pytest.fixture(params=["on the event loop", "in the writer's thread"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a durable receipt is written: that depends on how quick the disk is."""
    slow = request.param == "in the writer's thread"
    monkeypatch.setattr(writer_module, "_QUICK_S", -1.0 if slow else DEADLINE_S)
    return str(request.param)


def production(root: Path, count: int = 2) -> Path:
    write(root / "narrator.jsonl", *(line(number, id=known_id(number)) for number in range(count)))
    return root


def on_sync_of_receipts(root: Path, monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Have something done when the receipts are about to be synced."""
    sync: Sync = appendlog._fdatasync

    receipts = root / "receipts" / "narrator.jsonl"

    def acting(handle: int) -> None:
        if receipts.exists() and os.fstat(handle).st_ino == receipts.stat().st_ino:
            action()
        sync(handle)

    monkeypatch.setattr(appendlog, "_fdatasync", acting)


def lease_lock(root: Path) -> FileLock:
    """The lock of the channel's deliveries, as another process has it."""
    return new_lock(root / ".mq" / "locks" / "leases" / "narrator.lock")


def seen_by_another_process(root: Path) -> tuple[list[str], set[int]]:
    """The messages that are unread, and those that are held, to somebody who comes now."""

    async def look() -> tuple[list[str], set[int]]:
        async with Mailroom(root) as room:
            page = await room.read("narrator", consumer="another")
            held = room._leases("narrator").withheld("narrator")
            return [message.id for message in page.messages], set(held)

    return asyncio.run(look())


def claimed_and_settled(root: Path, op: str = "ack", **options: Any) -> None:
    """One message claimed, and settled by its lease."""

    async def work() -> None:
        async with Mailroom(root) as room:
            page = await room.read("narrator", lease_s=60, consumer="one", limit=1)
            await room.settle("narrator", **{op: page.leases[0].name}, consumer="one", **options)

    run(work())


@pytest.mark.usefixtures("where")
@pytest.mark.parametrize(("op", "options"), [("ack", {}), ("reject", {"reason": "no"})])
def test_others_claim_on_while_a_receipt_is_synced_and_find_its_message_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str, options: dict[str, Any]
) -> None:
    root = production(tmp_path)
    found: list[tuple[bytes, bool]] = []

    def look() -> None:
        store = Store(root)
        leases = store.leases("narrator")
        closed_in_the_end(leases)
        with leases.lock.held(DEADLINE_S):
            leases.refresh()
            receipts = store.receipts("narrator").path.read_bytes()
            found.append((receipts, not leases.claimed("narrator")))

    on_sync_of_receipts(root, monkeypatch, look)
    claimed_and_settled(root, op, **options)
    ((receipts, is_over),) = found
    assert known_id(0).encode() in receipts and receipts.endswith(b"}\n")
    assert is_over, "its lease ended before anybody else could claim"


@pytest.mark.usefixtures("where")
def test_the_caller_hears_of_it_only_when_the_receipt_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = production(tmp_path)
    answered = False
    early: list[bool] = []
    on_sync_of_receipts(root, monkeypatch, lambda: early.append(answered))
    claimed_and_settled(root)
    answered = True
    assert early == [False]


@pytest.mark.usefixtures("where")
def test_a_sync_that_fails_is_reported_and_should_the_power_fail_too_the_message_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = production(tmp_path)

    def fail() -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched, pytest.raises(WriteFailed, match="did not confirm"):
        on_sync_of_receipts(root, patched, fail)
        claimed_and_settled(root)
    with lease_lock(root).held(0.0):
        pass  # nobody is held up
    assert seen_by_another_process(root) == ([known_id(1)], set())
    (root / "receipts" / "narrator.jsonl").unlink()  # what the disk did not have
    assert seen_by_another_process(root) == ([known_id(0), known_id(1)], set())


@pytest.mark.usefixtures("where")
def test_a_receipt_that_cannot_be_written_leaves_the_message_with_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = production(tmp_path)

    def full(self: appendlog.AppendLog, *_: object, **__: object) -> appendlog.Written:
        raise WriteFailed(self.path, OSError(28, "No space left on device"), "Nothing was posted")

    with monkeypatch.context() as patched, pytest.raises(WriteFailed, match="No space left"):
        patched.setattr(appendlog.AppendLog, "append", full)
        claimed_and_settled(root)
    with lease_lock(root).held(0.0):
        pass
    unread, held = seen_by_another_process(root)
    assert unread == [known_id(1)] and len(held) == 1


def test_a_caller_that_goes_away_while_the_receipt_is_written_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = production(tmp_path)
    monkeypatch.setattr(writer_module, "_QUICK_S", -1.0)
    append = appendlog.AppendLog.append

    async def work() -> None:
        loop = asyncio.get_running_loop()
        async with Mailroom(root) as room:
            page = await room.read("narrator", lease_s=60, consumer="one", limit=1)
            settling = loop.create_task(room.settle("narrator", ack=page.leases[0].name, consumer="one"))
            gone = asyncio.Event()

            def in_the_thread(self: appendlog.AppendLog, *arguments: Any, **named: Any) -> appendlog.Written:
                asyncio.run_coroutine_threadsafe(_leave(settling, gone), loop).result(DEADLINE_S)
                return append(self, *arguments, **named)

            monkeypatch.setattr(appendlog.AppendLog, "append", in_the_thread)
            with pytest.raises(asyncio.CancelledError):
                await settling
            with lease_lock(root).held(0.0):
                gone.set()

    run(work())
    assert seen_by_another_process(root)[0] == [known_id(1)], "the receipt was written to its end"


async def _leave(task: asyncio.Task[Any], gone: asyncio.Event) -> None:
    task.cancel()
    await gone.wait()


def test_while_several_receipts_are_written_in_one_call_nobody_else_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = production(tmp_path, 3)
    monkeypatch.setattr(writer_module, "_QUICK_S", DEADLINE_S)
    free: list[bool] = []

    def look() -> None:
        try:
            with lease_lock(root).held(0.0):
                free.append(True)
        except LockTimeout:
            free.append(False)

    async def work() -> None:
        async with Mailroom(root) as room:
            page = await room.read("narrator", lease_s=60, consumer="one")
            on_sync_of_receipts(root, monkeypatch, look)
            one, two, _ = (lease.name for lease in page.leases)
            settled = await room.settle("narrator", ack=one, reject=two, reason="no", consumer="one")
            assert settled.done.keys() == {"ack", "reject"}
            await room.settle("narrator", reopen=known_id(0))

    run(work())
    assert free == [False, True, False], "ack, reject; and what is reopened is forgotten under the lock"


def test_the_archive_takes_nothing_whose_receipt_might_still_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = production(tmp_path, archiving.KEPT_LINES + 1)
    claimed_and_settled(root)
    synced: list[str] = []
    sync, exchange = os.fsync, archiving.exchange
    receipts = (root / "receipts" / "narrator.jsonl").stat().st_ino

    def noting(handle: int) -> None:
        if os.fstat(handle).st_ino == receipts:
            synced.append("receipts")
        sync(handle)

    def exchanging(path: Path, *arguments: Any) -> bool:
        synced.append(path.parent.name if path.parent != root else "mailbox")
        return exchange(path, *arguments)

    monkeypatch.setattr(archiving.os, "fsync", noting)
    monkeypatch.setattr(archiving, "exchange", exchanging)

    async def work() -> None:
        async with Mailroom(root) as room:
            await room.archive(channels="narrator", keep=archiving.KEPT_LINES)

    run(work())
    assert synced[0] == "receipts" and synced[-1] == "mailbox"

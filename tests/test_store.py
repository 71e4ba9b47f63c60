"""A production's folder and the one writer that appends to it."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mq_server import appendlog
from mq_server.appendlog import AppendLog
from mq_server.errors import InvalidName, LockTimeout, PartlyPosted, WriteFailed
from mq_server.logfile import Tail
from mq_server.message import encode_line, parse_line
from mq_server.names import format_time, id_number
from mq_server.store import Store
from mq_server.writer import Append, Stored, next_time_us
from tests.support import fields, line, run, write


def message(store: Store, *channels: str, text: str = "x", timeout_s: float = 10.0, durable: bool = True) -> Append:
    """An append of one message to some mailboxes."""

    def encode(message_id: str, time_us: int, channel: str) -> bytes:
        stamped = {"id": message_id, "timestamp": format_time(time_us), "channel": channel}
        return encode_line(fields(text=text) | stamped)

    return Append({name: store.mailbox(name) for name in channels}, encode, timeout_s, durable)


def stored(root: Path, channel: str = "a") -> list[Any]:
    lines = (root / f"{channel}.jsonl").read_bytes().splitlines()
    return [parse_line(text, channel, number) for number, text in enumerate(lines, start=1)]


def append_all(root: Path, *build: Callable[[Store], Append]) -> list[Stored | BaseException]:
    async def work() -> list[Stored | BaseException]:
        store = Store(root)
        try:
            return await asyncio.gather(*(store.submit(one(store)) for one in build), return_exceptions=True)
        finally:
            await store.close()

    return run(work())


def append_one(root: Path, *channels: str, **options: Any) -> Stored:
    outcome = append_all(root, lambda store: message(store, *channels, **options))[0]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


# --- one append ------------------------------------------------------------------------------------------------------


def test_an_append_makes_the_folder_with_what_git_must_know(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "production"
    append_one(root, "a")
    assert (root / ".gitattributes").read_text() == (
        "# Mailboxes only grow: git merges two branches by keeping the lines of both.\n"
        "*.jsonl text eol=lf merge=union diff=mailbox\n"
        "receipts/*.jsonl text eol=lf merge=union -diff linguist-generated\n"
    )
    assert (root / ".gitignore").read_text() == ".mq/\n"


def test_preparing_leaves_what_is_there_alone(tmp_path: Path) -> None:
    (tmp_path / ".gitattributes").write_text("mine")
    Store(tmp_path).prepare()
    assert (tmp_path / ".gitattributes").read_text() == "mine"
    assert (tmp_path / ".gitignore").exists()


def test_a_file_where_the_folder_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WriteFailed, match="a file stands where a folder is needed; move it away"):
            append_one(root, "a")


def test_id_and_time_are_minted_together_from_the_clock(tmp_path: Path) -> None:
    before = time.time_ns() // 1000
    answer = append_one(tmp_path, "a", "b")
    assert before <= answer.time_us <= time.time_ns() // 1000
    assert id_number(answer.id) >> 80 == answer.time_us // 1000
    for channel in ("a", "b"):
        (found,) = stored(tmp_path, channel)
        assert (found.id, found.timestamp, found.channel) == (answer.id, format_time(answer.time_us), channel)
    assert answer.lines == {"a": 1, "b": 1}


def tail(newest_us: int) -> Tail:
    return Tail(None, 0, 0, newest_us)


def test_a_time_follows_a_predecessor_slightly_ahead_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = 1_800_000_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now_us * 1000 + 999)
    assert next_time_us({}) == now_us
    assert next_time_us({"a": tail(now_us - 7), "b": tail(0)}) == now_us
    assert next_time_us({"a": tail(now_us)}) == now_us + 1
    assert next_time_us({"a": tail(now_us + 5_000_000)}) == now_us + 5_000_001
    assert next_time_us({"a": tail(now_us + 5_000_001)}) == now_us
    assert next_time_us({"a": tail(now_us + 3_000_000), "b": tail(now_us + 9_000_000)}) == now_us + 3_000_001


def test_timestamps_go_on_rising_after_one_far_ahead_that_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_us = time.time_ns() // 1000 + 3_600_000_000
    write(tmp_path / "a.jsonl", line(0, timestamp=format_time(ahead_us)))
    real_time_ns = time.time_ns
    append_one(tmp_path, "a")
    monkeypatch.setattr(time, "time_ns", lambda: real_time_ns() - 2_000_000_000)  # the clock is set back a little
    append_one(tmp_path, "a")
    append_one(tmp_path, "a")
    times = [found.time_us for found in stored(tmp_path)]
    assert times[1] < times[2] < times[3] < ahead_us


# --- several appends -------------------------------------------------------------------------------------------------


def test_appends_asked_for_together_are_written_and_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_one(tmp_path, "a")
    syncs: list[int] = []
    monkeypatch.setattr(appendlog, "_fdatasync", syncs.append)
    answers = append_all(tmp_path, *[lambda store: message(store, "a")] * 20)
    assert len(syncs) == 1
    assert [answer.lines["a"] for answer in answers if isinstance(answer, Stored)] == list(range(2, 22))
    found = stored(tmp_path)
    assert [one.id for one in found[1:]] == [answer.id for answer in answers if isinstance(answer, Stored)]
    assert all(one.time_us < other.time_us for one, other in pairwise(found))


def test_appends_that_are_not_durable_are_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(appendlog, "_fdatasync", syncs.append)
    append_one(tmp_path, "a", durable=False)
    assert syncs == []


def test_two_writers_of_the_same_mailboxes_in_other_orders_do_not_block_each_other(tmp_path: Path) -> None:
    orders = [("a", "b", "c"), ("c", "b", "a"), ("b", "c")] * 10
    answers = append_all(tmp_path, *[lambda store, names=names: message(store, *names) for names in orders])  # type: ignore[misc]
    assert all(isinstance(answer, Stored) for answer in answers)
    assert len(stored(tmp_path, "a")) == 20
    assert len(stored(tmp_path, "b")) == 30


def refusing(store: Store, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every append to a channel fail."""
    error = WriteFailed(store.root / f"{channel}.jsonl", OSError(errno.ENOSPC, "No space left on device"))

    def append(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store.mailbox(channel), "append", append)


def test_a_message_that_reached_only_some_mailboxes_says_which_under_its_own_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> list[Any]:
        store = Store(tmp_path)
        refusing(store, "b", monkeypatch)
        both = [store.submit(message(store, "a", "b", "c")) for _ in range(3)]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(await store.submit(message(store, "a")), Stored), "the writer goes on"
        await store.close()
        return outcomes

    outcomes = run(work())
    written = [found.id for found in stored(tmp_path)][:3]
    for outcome, message_id in zip(outcomes, written, strict=True):
        assert isinstance(outcome, PartlyPosted)
        assert str(outcome).startswith(f"Posted to a as {message_id}, but not to b and what comes after it: ")
    assert not (tmp_path / "c.jsonl").exists()


def test_a_message_that_reached_no_mailbox_is_just_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        store = Store(tmp_path)
        refusing(store, "a", monkeypatch)
        with pytest.raises(WriteFailed, match="No space left on device"):
            await store.submit(message(store, "a", "b"))
        await store.close()

    run(work())
    assert not (tmp_path / "b.jsonl").exists()


def test_one_failed_sync_does_not_keep_the_other_mailboxes_from_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_one(tmp_path, "a", "b", "c")
    handles: list[int] = []

    def sync(handle: int) -> None:
        handles.append(handle)
        if len(handles) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(appendlog, "_fdatasync", sync)
    with pytest.raises(WriteFailed, match=r"a\.jsonl: Input/output error\. The message is in the file, but the disk"):
        append_one(tmp_path, "a", "b", "c")
    assert len(handles) == 3
    for handle in handles:
        with pytest.raises(OSError):
            os.fstat(handle)


def test_an_error_in_one_group_does_not_end_the_writer(tmp_path: Path) -> None:
    def broken(store: Store) -> Append:
        def encode(*_: object) -> bytes:
            raise ZeroDivisionError

        return Append({"b": store.mailbox("b")}, encode, 1.0, True)

    outcomes = append_all(tmp_path, lambda store: message(store, "a"), broken, lambda store: message(store, "c"))
    assert [type(outcome) for outcome in outcomes] == [Stored, ZeroDivisionError, Stored]
    assert not (tmp_path / "b.jsonl").exists()


def test_an_append_that_is_not_written_leaves_nothing_open(tmp_path: Path) -> None:
    def broken(store: Store) -> Append:
        def encode(_: str, __: int, channel: str) -> bytes:
            raise ZeroDivisionError(channel)

        return Append({name: store.mailbox(name) for name in ("a", "b")}, encode, 1.0, True)

    async def work() -> None:
        store = Store(tmp_path)
        await store.submit(message(store, "a", "b"))
        await store.submit(message(store, "a", "b"))
        opened: dict[int, int] = {}
        real_open, real_close = os.open, os.close

        def opening(path: str, flags: int, *rest: int) -> int:
            handle = real_open(path, flags, *rest)
            opened[handle] = flags
            return handle

        def closing(handle: int) -> None:
            opened.pop(handle, None)
            real_close(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", opening)
            patch.setattr(os, "close", closing)
            with pytest.raises(ZeroDivisionError):
                await store.submit(broken(store))
            with (tmp_path / "b.jsonl").open("ab") as file:
                file.write(b"\n")
            await store.submit(message(store, "a", "b"))  # the one is known, the other has to be looked at
        assert not opened
        await store.close()

    run(work())


def test_a_lock_held_too_long_writes_nothing(tmp_path: Path) -> None:
    append_one(tmp_path, "a", "b")
    other = Store(tmp_path)
    words = r"b\.lock: another process has held this lock for 0\.1 s\. Nothing was written; try again"
    with other.mailbox("b").lock.held(1), pytest.raises(LockTimeout, match=words):
        append_one(tmp_path, "a", "b", timeout_s=0.1)
    run(other.close())
    assert len(stored(tmp_path, "a")) == len(stored(tmp_path, "b")) == 1
    append_one(tmp_path, "a", "b")


# --- cancelling and closing ------------------------------------------------------------------------------------------


def test_a_post_cancelled_before_it_is_handed_over_is_left_out(tmp_path: Path) -> None:
    async def work() -> None:
        store = Store(tmp_path)
        dropped, kept = store.submit(message(store, "a", text="no")), store.submit(message(store, "a", text="yes"))
        dropped.cancel()
        await kept
        await store.close()

    run(work())
    assert [found.payload for found in stored(tmp_path)] == [{"text": "yes"}]


def test_a_post_cancelled_while_it_is_written_stands_and_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_sync, go_on = threading.Event(), threading.Event()

    def sync(_: int) -> None:
        in_sync.set()
        assert go_on.wait(10)

    monkeypatch.setattr(appendlog, "_fdatasync", sync)

    async def work() -> None:
        store = Store(tmp_path)
        first, second = store.submit(message(store, "a")), store.submit(message(store, "a"))
        await asyncio.to_thread(in_sync.wait, 10)
        first.cancel()
        go_on.set()
        assert (await second).lines == {"a": 2}
        await store.close()

    run(work())
    assert len(stored(tmp_path)) == 2


def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    async def work() -> None:
        store = Store(tmp_path)
        posts = [store.submit(message(store, "a")) for _ in range(5)]
        await store.close()
        assert len(await asyncio.gather(*posts)) == 5
        assert store._writer._thread is None

    run(work())
    assert len(stored(tmp_path)) == 5


def test_posts_that_come_while_it_closes_are_finished_too(tmp_path: Path) -> None:
    async def work() -> int:
        store = Store(tmp_path)
        await store.submit(message(store, "a"))
        closing = asyncio.ensure_future(store.close())
        posts = []
        while not closing.done() and len(posts) < 200:
            posts.append(store.submit(message(store, "a", durable=False)))
            await asyncio.sleep(0)
        await closing
        await store.close()
        return len(await asyncio.gather(*posts))

    assert run(work()) == len(stored(tmp_path)) - 1


def test_an_event_loop_that_ends_in_the_middle_leaves_the_message_and_no_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_sync, go_on = threading.Event(), threading.Event()

    def sync(_: int) -> None:
        in_sync.set()
        assert go_on.wait(10)

    monkeypatch.setattr(appendlog, "_fdatasync", sync)
    store = Store(tmp_path)

    async def ask_and_leave() -> None:
        store.submit(message(store, "a"))
        await asyncio.to_thread(in_sync.wait, 10)

    asyncio.run(ask_and_leave())
    go_on.set()
    run(store.close())
    assert len(stored(tmp_path)) == 1


# --- files -----------------------------------------------------------------------------------------------------------


def test_mailboxes_are_the_files_whose_names_are_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "A.jsonl", "a b.jsonl", "con.jsonl", "a.txt", "a.jsonl.bak", ".#a.jsonl"):
        write(tmp_path / name, b"")
    write(tmp_path / "receipts" / "a.jsonl", b"")
    write(tmp_path / "receipts" / "Ü.jsonl", b"")
    store = Store(tmp_path)
    names, problems = store.channels()
    assert names == ["a", "b"]
    assert [problem.path for problem in problems] == ["A.jsonl", "a b.jsonl", "con.jsonl"]
    assert "'A' is not a valid name: use 1 to 64 of a-z, 0-9, _ and -" in problems[0].message
    assert problems[0].message.endswith("; the file is not read")
    names, problems = store.receipt_channels()
    assert names == ["a"]
    assert [problem.path for problem in problems] == ["receipts/Ü.jsonl"]


def test_a_missing_folder_has_no_mailboxes(tmp_path: Path) -> None:
    assert Store(tmp_path / "nowhere").channels() == ([], [])


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "receipts/a", "receipts/receipts/a", "", "a/../b", "NUL"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidName):
        Store(tmp_path).receipts(name)
    with pytest.raises(InvalidName):
        Store(tmp_path).mailbox(name)


def test_a_channel_called_receipts_does_not_stand_in_the_way(tmp_path: Path) -> None:
    def receipt_of(store: Store) -> Append:
        log: AppendLog = store.receipts("a")
        return Append({"receipts/a": log}, lambda *_: b"{}\n", 10, False)

    for _ in range(2):
        append_one(tmp_path, "receipts")
        append_all(tmp_path, receipt_of)
    stamps = tmp_path / ".mq" / "stamps"
    assert sorted(str(path.relative_to(stamps)) for path in stamps.rglob("*.stamp")) == [
        str(Path("receipts.stamp")),
        str(Path("receipts/a.stamp")),
    ]

"""The writer: what is done on the event loop, what goes to the thread, and that the order stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mq_server import appendlog, writer
from mq_server.mailroom import Mailroom
from mq_server.message import parse_fields
from tests.support import new_log, run


def ask(root: Path, work: Callable[[Mailroom], Awaitable[Any]]) -> Any:
    """What `work` returns of a mailroom on `root` whose mailbox is there already."""

    async def session() -> Any:
        async with Mailroom(root) as first:
            await post(first, "first")
        async with Mailroom(root) as room:
            return await work(room)

    return run(session())


async def post(room: Mailroom, text: str) -> str:
    """Post a note; its id."""
    return (await room.post("narrator", sender="a", msg_type="note", payload={"text": text})).id


def texts(root: Path) -> list[str]:
    """What stands in the mailbox, in file order."""
    lines = (root / "narrator.jsonl").read_bytes().splitlines()
    return [parse_fields(line)["payload"]["text"] for line in lines]


def thread_of(room: Mailroom) -> object:
    """The writer's thread, if it was needed."""
    return room._store._writer._thread


def test_what_takes_no_waiting_takes_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appendlog, "_fdatasync", lambda _: None)  # a quick disk, however busy this one is

    async def work(room: Mailroom) -> None:
        for number in range(5):
            await post(room, str(number))
        assert thread_of(room) is None

    ask(tmp_path, work)
    assert texts(tmp_path) == ["first", *map(str, range(5))]


def test_several_callers_share_a_write_and_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(appendlog, "_fdatasync", syncs.append)

    async def work(room: Mailroom) -> None:
        syncs.clear()
        await asyncio.gather(*(post(room, str(number)) for number in range(5)))
        assert len(syncs) == 1 and thread_of(room) is None

    ask(tmp_path, work)
    assert sorted(texts(tmp_path)) == [*map(str, range(5)), "first"]


def test_a_task_that_posts_alone_goes_on_at_once_and_lets_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appendlog, "_fdatasync", lambda _: None)  # a quick disk, however busy this one is

    async def work(room: Mailroom) -> None:
        rounds = 0

        async def count_rounds() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_rounds())
        monkeypatch.setattr(writer, "_TURN_S", 3600.0)
        for number in range(10):
            await post(room, str(number))
        assert rounds <= 2
        monkeypatch.setattr(writer, "_TURN_S", 0.0)
        room._store._writer._turn_ends = 0.0
        for number in range(10):
            await post(room, str(number))
        assert rounds >= 10
        counting.cancel()

    ask(tmp_path, work)


def test_tasks_that_post_in_turn_share_their_writes_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(appendlog, "_fdatasync", syncs.append)

    async def work(room: Mailroom) -> None:
        async def post_some() -> None:
            for number in range(10):
                await post(room, str(number))

        await post(room, "alone")
        syncs.clear()
        await asyncio.gather(*(post_some() for _ in range(5)))
        assert len(syncs) == 10

    ask(tmp_path, work)


def test_a_folder_of_locks_that_was_moved_away_takes_no_later_stamp_or_journal_with_it(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        (tmp_path / ".mq").rename(tmp_path / "away")
        await post(room, "second")
        await post(room, "third")

    ask(tmp_path, work)
    journal = (tmp_path / ".mq" / "journal" / "narrator.jsonl").read_bytes()
    assert [parse_fields(line)["payload"]["text"] for line in journal.splitlines()] == ["second", "third"]
    log = new_log(tmp_path)
    with log.lock.held(1):
        tail = log.known_tail()
        assert tail is not None, "the stamp stands where others look"
        tail.close()


def test_a_lock_that_is_held_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with new_log(tmp_path).lock.held(1):
            posting = asyncio.create_task(post(room, "late"))
            began = time.monotonic()
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert time.monotonic() - began < 0.5
            assert not posting.done() and thread_of(room) is not None
        await posting

    ask(tmp_path, work)
    assert texts(tmp_path) == ["first", "late"]


def test_a_file_that_somebody_has_touched_is_looked_at_in_the_thread(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with (tmp_path / "narrator.jsonl").open("ab") as mailbox:
            mailbox.write(b"\n")
        await post(room, "second")
        assert thread_of(room) is not None

    ask(tmp_path, work)


def test_a_slow_disk_is_waited_for_in_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = appendlog._fdatasync

    def slow(handle: int) -> None:
        time.sleep(0.02)
        sync(handle)

    monkeypatch.setattr(appendlog, "_fdatasync", slow)

    async def work(room: Mailroom) -> None:
        for number in range(3):
            await post(room, str(number))
        assert thread_of(room) is not None
        monkeypatch.setattr(appendlog, "_fdatasync", lambda _: None)
        while room._store._writer._sync_s > 0.0005:
            await post(room, "faster")
        waiting = thread_of(room)
        room._store._writer._queue.put(None)
        waiting.join()  # type: ignore[attr-defined]
        room._store._writer._thread = None
        await post(room, "quick again")
        assert thread_of(room) is None

    ask(tmp_path, work)


def test_what_comes_behind_something_that_waits_waits_too(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with new_log(tmp_path).lock.held(1):
            first = asyncio.create_task(post(room, "one"))
            await asyncio.sleep(0.01)
            second = asyncio.create_task(post(room, "two"))
            await asyncio.sleep(0.01)
        third = asyncio.create_task(post(room, "three"))
        await asyncio.gather(first, second, third)
        await post(room, "four")

    ask(tmp_path, work)
    assert texts(tmp_path) == ["first", "one", "two", "three", "four"]

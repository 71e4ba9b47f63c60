"""Noticing what anybody does to the files: events, the rescan behind them, waking who waits."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from mq_server.answers import Page
from mq_server.mailroom import Mailroom
from mq_server.watch import Feed, Watcher
from tests.support import append, ask, commit, git, line, new_log, output, python, run, said, tell, write


@pytest.fixture
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rescan."""

    async def look_at_nothing(_: Watcher) -> None:
        """What it would do once a second."""

    monkeypatch.setattr(Watcher, "_look_at_all", look_at_nothing)


async def waiting(room: Mailroom, channel: Any = "narrator", **question: Any) -> asyncio.Task[Page]:
    """A wait that has read, found nothing and waits."""
    before = len(room._shelf.feed.subscriptions)
    wait = asyncio.ensure_future(room.wait(channel, **({"timeout_s": 20} | question)))
    while len(room._shelf.feed.subscriptions) == before:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert not wait.done()
    return wait


async def woken(wait: asyncio.Task[Page]) -> float:
    """How long it takes until a wait returns messages, in seconds."""
    began = time.monotonic()
    page = await wait
    assert page.messages
    return time.monotonic() - began


# --- the feed --------------------------------------------------------------------------------------------------------


def test_a_subscription_hears_of_its_channels_once_however_much_happened() -> None:
    async def work() -> None:
        feed = Feed()
        with feed.subscribe(lambda name: name < "c") as subscription, feed.subscribe("x".__eq__) as other:
            for name in "abcab":
                feed.publish({name, "z"})
            assert await subscription.changed(5) == {"a", "b"}
            assert await subscription.changed(0) == set()
            assert await other.changed(0) == set()
        assert not feed.subscriptions

    run(work())


def test_a_change_between_reading_and_waiting_is_not_missed() -> None:
    async def work() -> None:
        feed = Feed()
        with feed.subscribe(lambda _: True) as subscription:
            feed.publish({"a"})
            assert await subscription.changed(5) == {"a"}
            waiter = asyncio.ensure_future(subscription.changed(5))
            await asyncio.sleep(0)
            feed.publish({"b"})
            feed.publish({"c"})
            assert await waiter == {"b", "c"}

    run(work())


def test_several_may_wait_for_one_subscription_and_one_may_give_up() -> None:
    async def work() -> None:
        feed = Feed()
        with feed.subscribe(lambda _: True) as subscription:
            gives_up = asyncio.ensure_future(subscription.changed(None))
            await asyncio.sleep(0)
            gives_up.cancel()
            assert await subscription.changed(0.01) == set()  # begun before the other one has ended
            both = [asyncio.ensure_future(subscription.changed(None)) for _ in range(2)]
            await asyncio.sleep(0)
            feed.publish({"a"})
            assert sorted(await asyncio.wait_for(asyncio.gather(*both), 5)) == [set(), {"a"}]

    run(work())


def test_closing_ends_a_wait_for_changes_now_and_later() -> None:
    async def work() -> None:
        feed = Feed()
        with feed.subscribe(lambda _: True) as subscription:
            waiter = asyncio.ensure_future(subscription.changed(None))
            await asyncio.sleep(0)
            feed.close()
            assert await waiter == set()
            assert await subscription.changed(None) == set()

    run(work())


# --- who is woken, and how soon --------------------------------------------------------------------------------------


def test_a_post_of_the_same_process_wakes_directly(tmp_path: Path, no_events: None) -> None:
    async def work(room: Mailroom) -> None:
        for channel, question in (("narrator", "narrator"), ("scene_7", "scene_*"), ("b", ["a", "b"]), ("c", "*")):
            wait = await waiting(room, question, reader="editor")
            await room.post(channel, sender="a", msg_type="note", payload={"text": "x"})
            assert await woken(wait) < 0.5, "long before the rescan"
            await room.wait("*", reader="editor", ack=True, timeout_s=0)

    ask(tmp_path, work)


def foreign_append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(line(1))


def save_in_place(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data + line(1))


def save_by_rename(path: Path) -> None:
    write(path.with_name(".narrator.jsonl.tmp"), path.read_bytes(), line(1)).replace(path)


def save_by_backup(path: Path) -> None:
    data = path.read_bytes()
    path.rename(path.with_name("narrator.jsonl~"))
    write(path, data, line(1))


def post_from_another_log(path: Path) -> None:
    append(new_log(path.parent), line(1))


SAVES = [foreign_append, save_in_place, save_by_rename, save_by_backup, post_from_another_log]


@pytest.mark.parametrize("save", SAVES)
def test_whoever_writes_a_file_wakes_by_an_event(
    tmp_path: Path, only_events: None, save: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", ack=True)
        wait = await waiting(room)
        save(path)
        assert await woken(wait) < 1

    ask(tmp_path, work)


@pytest.mark.parametrize("save", [foreign_append, save_by_rename])
def test_without_events_a_rescan_wakes_within_about_a_second(
    tmp_path: Path, no_events: None, save: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", ack=True)
        wait = await waiting(room)
        save(path)
        assert 0.1 < await woken(wait) < 2

    ask(tmp_path, work)


def test_without_an_event_service_there_is_a_warning_and_the_rescan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def awatch(*_: Any, **__: Any) -> AsyncIterator[set[Any]]:
        raise RuntimeError("inotify watch limit reached")
        yield set()

    monkeypatch.setattr(watchfiles, "awatch", awatch)
    path = write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", ack=True)
        wait = await waiting(room)
        foreign_append(path)
        assert await woken(wait) < 2

    with caplog.at_level(logging.WARNING):
        ask(tmp_path, work)
    assert "no file events (inotify watch limit reached); changes are noticed every 1 s" in caplog.text


def test_a_folder_that_cannot_be_listed_for_a_moment_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_events: None
) -> None:
    path = write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", ack=True)
        real_channels, failed = room._store.channels, asyncio.Event()

        def failing() -> Any:
            if failed.is_set():
                return real_channels()
            failed.set()
            raise PermissionError(13, "Permission denied", str(tmp_path))

        wait = await waiting(room)
        monkeypatch.setattr(room._store, "channels", failing)
        await failed.wait()
        foreign_append(path)
        assert await woken(wait) < 2

    ask(tmp_path, work)


def test_git_wakes_who_waits(tmp_path: Path, only_events: None) -> None:
    path = tmp_path / "narrator.jsonl"
    git(tmp_path, "init", "-q")
    write(tmp_path / ".gitattributes", b"*.jsonl text eol=lf merge=union\n")
    write(tmp_path / ".gitignore", b".mq/\nreceipts/\n")
    write(path, line(0))
    commit(tmp_path)
    git(tmp_path, "checkout", "-q", "-b", "other")
    foreign_append(path)
    commit(tmp_path)
    git(tmp_path, "checkout", "-q", "main")
    write(path, path.read_bytes(), line(2))
    commit(tmp_path)

    async def work(room: Mailroom) -> None:
        async def by(*command: str) -> None:
            await room.wait("narrator", ack=True, timeout_s=0)
            wait = await waiting(room)
            await asyncio.to_thread(git, tmp_path, *command)
            assert await woken(wait) < 1

        await by("checkout", "-q", "other")
        git(tmp_path, "checkout", "-q", "main")
        foreign_append(path)
        git(tmp_path, "stash", "-q")
        await by("stash", "pop", "-q")
        git(tmp_path, "checkout", "-q", ".")
        git(tmp_path, "checkout", "-q", "other")
        foreign_append(path)
        commit(tmp_path)
        git(tmp_path, "checkout", "-q", "main")
        await by("merge", "-q", "other", "-m", "merge")

    ask(tmp_path, work)


def test_many_changes_at_once_are_few_looks(tmp_path: Path, only_events: None) -> None:
    path = write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", ack=True)
        looks = 0
        real_look = room._shelf._watcher._look

        async def look(channels: Any) -> None:
            nonlocal looks
            looks += 1
            await real_look(channels)

        room._shelf._watcher._look = look
        wait = await waiting(room, reader="editor", since=line_id(path))
        await asyncio.to_thread(lambda: [foreign_append(path) for _ in range(300)])
        assert (await wait).messages
        async with asyncio.timeout(10):
            while len((await room.history("narrator", limit=1000)).messages) < 301:
                await asyncio.sleep(0.01)
        assert looks < 60

    ask(tmp_path, work)


def line_id(path: Path) -> str:
    return path.read_text()[7:33]


# --- folders that come and go ----------------------------------------------------------------------------------------


def test_a_folder_that_is_made_later_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "production"

    async def work(room: Mailroom) -> None:
        wait = await waiting(room)
        assert not root.exists()
        write(root / "narrator.jsonl", line(0))
        assert await woken(wait) < 2.5
        await room.read("narrator", ack=True)
        wait = await waiting(room)
        foreign_append(root / "narrator.jsonl")
        assert await woken(wait) < 2

    ask(root, work)


def test_a_folder_that_is_replaced_is_watched_on(tmp_path: Path, only_events: None) -> None:
    root = tmp_path / "production"
    write(root / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", ack=True)
        wait = await waiting(room)
        root.rename(tmp_path / "old")
        shutil.copytree(tmp_path / "old", root, ignore=shutil.ignore_patterns(".mq"))
        foreign_append(root / "narrator.jsonl")
        assert await woken(wait) < 2.5
        await room.read("narrator", ack=True)
        wait = await waiting(room)
        foreign_append(root / "narrator.jsonl")
        assert await woken(wait) < 1

    ask(root, work)


def test_the_first_receipt_does_not_make_the_watcher_deaf(tmp_path: Path, only_events: None) -> None:
    path = write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        wait = await waiting(room, since="narrator:1")
        await room.acknowledge("narrator", ["narrator:1"])
        foreign_append(path)
        assert await woken(wait) < 1
        with room._shelf.feed.subscribe(lambda _: True) as subscription:
            while await subscription.changed(0.3):
                pass  # what the acknowledgement itself stirred up
            with (tmp_path / "receipts" / "narrator.jsonl").open("ab") as file:
                file.write(b"\n")
            assert await subscription.changed(5) == {"narrator"}, "the new folder is watched as well"

    ask(tmp_path, work)


def test_starting_and_closing_are_quick_and_may_be_repeated(tmp_path: Path) -> None:
    async def work() -> None:
        looks: list[Any] = []

        async def look(channels: Any) -> None:
            looks.append(channels)

        for _ in range(3):
            watcher = Watcher(tmp_path, look)
            await watcher.start()
            await watcher.start()
            began = time.monotonic()
            await watcher.close()
            await watcher.close()
            assert time.monotonic() - began < 0.5

    run(work())


# --- other processes -------------------------------------------------------------------------------------------------

WAITER = """
import asyncio, sys, time
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        await room.wait("narrator", timeout_s=0)
        print("ready", flush=True)
        for _ in range(int(sys.argv[2])):
            page = await room.wait("narrator", ack=True, timeout_s=20)
            print(time.time_ns(), *(message.payload["text"] for message in page.messages), flush=True)
asyncio.run(main())
"""


def test_a_post_wakes_a_reader_in_another_process_at_once(tmp_path: Path) -> None:
    count = 6

    async def work(room: Mailroom, waiter: Any) -> list[float]:
        latencies = []
        for number in range(count):
            await asyncio.sleep(0.05)
            posted_ns = time.time_ns()
            await room.post("narrator", sender="a", msg_type="note", payload={"text": f"{number}"})
            woken_ns, text = (await asyncio.to_thread(said, waiter)).split()
            assert text == f"{number}"
            latencies.append((int(woken_ns) - posted_ns) / 1e9)
        return latencies

    with python(WAITER, tmp_path, count) as waiter:
        assert said(waiter) == "ready"
        latencies = ask(tmp_path, lambda room: work(room, waiter))
    assert sorted(latencies)[count // 2] < 0.5, latencies
    assert max(latencies) < 2, latencies


CANCELLED = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    room = Mailroom(sys.argv[1])
    waits = [asyncio.ensure_future(room.wait("narrator", timeout_s=60)) for _ in range(3)]
    await asyncio.sleep(0.2)
    print("waiting", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
print("ended", flush=True)
"""


def test_a_process_that_ends_without_closing_ends_all_the_same(tmp_path: Path) -> None:
    with python(CANCELLED, tmp_path) as process:
        assert said(process) == "waiting"
        tell(process)
        began = time.monotonic()
        assert said(process) == "ended"
        assert process.wait(10) == 0
        assert time.monotonic() - began < 3


IDLE = """
import asyncio, sys, time
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        await room.activity()
        waits = [asyncio.ensure_future(room.wait(f"agent{number}", timeout_s=60)) for number in range(9)]
        await asyncio.sleep(1)
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(3)
        print((time.process_time() - used) / (time.monotonic() - began))
        room.end_waits()
        await asyncio.gather(*waits)
asyncio.run(main())
"""


def test_waiting_costs_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / f"box{number}.jsonl", *(line(other) for other in range(100)))
        write(tmp_path / "receipts" / f"box{number}.jsonl", b"")
        os.utime(tmp_path / f"box{number}.jsonl", (0, 0))
    share = float(output(IDLE, tmp_path))
    assert share < 0.01, f"{share:.2%} of a core"

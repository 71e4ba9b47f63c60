"""Doorbells between processes: who is rung for what, and what a ring may be."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mq_server import bells as bells_module
from mq_server import listing
from mq_server.bells import EVERYTHING, Bells, Datagram, Fifo
from mq_server.mailroom import Mailroom
from mq_server.watch import RESCAN_S
from tests.support import python, run, said

LINES = [Datagram, *([Fifo] if hasattr(os, "mkfifo") else [])]


@pytest.fixture(autouse=True, params=LINES, ids=lambda line: line.__name__.lower())
def either_line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test with the bells of either system."""
    monkeypatch.setattr(bells_module, "LINE", request.param)


def bells(root: Path, process: str = "one") -> Bells:
    """The bells as a process has them."""
    return Bells(root / "bells", process, lambda: True)


async def until(fact: Callable[[], object]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0.002)


def test_a_bell_is_rung_for_what_it_was_hung_up_for(tmp_path: Path) -> None:
    async def work() -> None:
        heard: list[set[str]] = []
        listener, everything, writer = bells(tmp_path), bells(tmp_path, "all"), bells(tmp_path, "writer")
        listener.want(["narrator", "dialogist"])
        listener.hang(heard.append)
        all_heard: list[set[str]] = []
        everything.hang(all_heard.append)
        everything.want([EVERYTHING])
        writer.ring(["shot_composer"])
        await until(lambda: all_heard)
        writer.ring(["narrator", "shot_composer"])
        await until(lambda: heard)
        assert heard == [{"narrator"}]
        assert set().union(*all_heard) == {"shot_composer"} or len(all_heard) > 1
        listener.take_down()
        everything.take_down()
        assert list((tmp_path / "bells").iterdir()) == []
        writer.ring(["narrator"])

    run(work())


def test_a_bell_learns_of_further_channels(tmp_path: Path) -> None:
    async def work() -> None:
        heard: list[set[str]] = []
        listener, writer = bells(tmp_path), bells(tmp_path, "writer")
        listener.want(["narrator"])
        listener.hang(heard.append)
        writer.ring(["narrator"])
        await until(lambda: heard)
        listener.want(["dialogist"])
        writer.ring(["dialogist"])
        await until(lambda: {"dialogist"} in heard)
        listener.take_down()

    run(work())


def test_rings_may_be_forged_or_flood_and_nothing_waits_for_them(tmp_path: Path) -> None:
    async def work() -> None:
        heard: list[set[str]] = []
        listener, writer = bells(tmp_path), bells(tmp_path, "writer")
        listener.want(["narrator"])
        listener.hang(heard.append)
        bell = tmp_path / "bells" / "one"
        began = time.monotonic()
        for _ in range(20_000):
            writer.ring(["narrator"])  # nobody reads meanwhile
        assert time.monotonic() - began < 8
        assert bells_module.LINE.ring(str(bell), b"\xff\xfe ../../etc/passwd nobody\n")
        await until(lambda: heard)
        assert set().union(*heard) <= {"narrator"}
        listener.take_down()

    run(work())


def test_a_folder_that_cannot_be_made_is_no_reason_not_to_wait(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "bells").write_text("a file")
        listener = bells(tmp_path)
        listener.hang(lambda _: None)
        listener.want(["narrator"])
        bells(tmp_path, "writer").ring(["narrator"])
        listener.take_down()

    run(work())


def test_lists_of_wants_are_read_once_and_may_hold_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_DOUBT_NS", 0)

    async def work() -> None:
        heard: list[set[str]] = []
        listener, writer = bells(tmp_path), bells(tmp_path, "writer")
        listener.want(["narrator"])
        listener.hang(heard.append)
        (tmp_path / "bells" / "forged.1.wants").write_bytes(b"\xff\xfe\0 narrator " + b"x" * 100_000)
        (tmp_path / "bells" / "folder.1.wants").mkdir()
        (tmp_path / "bells" / ".wants").write_bytes(b"narrator")
        writer.ring(["narrator"])
        await until(lambda: heard)
        read, read_text = [], Path.read_text

        def reading(path: Path, *arguments: Any, **keys: Any) -> str:
            read.append(path.name)
            return read_text(path, *arguments, **keys)

        monkeypatch.setattr(Path, "read_text", reading)
        heard.clear()
        writer.ring(["narrator"])
        await until(lambda: heard)
        assert "one.1.wants" not in read
        listener.want(["dialogist"])
        writer.ring(["dialogist"])
        await until(lambda: {"dialogist"} in heard)
        assert "one.2.wants" in read
        listener.take_down()

    run(work())


def test_each_of_many_processes_is_rung_for_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        writer = bells(tmp_path, "writer")
        listeners = [bells(tmp_path, f"process{number}") for number in range(64)]
        heard: list[list[set[str]]] = [[] for _ in listeners]
        for number, listener in enumerate(listeners):
            listener.want([f"agent{number}", "everybody"])
            listener.hang(heard[number].append)
        writer.ring(["agent7"])
        await until(lambda: heard[7])
        assert [number for number, rings in enumerate(heard) if rings] == [7]
        writer.ring(["everybody"])
        await until(lambda: all({"everybody"} in rings for rings in heard))
        for listener in listeners:
            listener.take_down()
        assert list((tmp_path / "bells").iterdir()) == []

    run(work())


# --- rooms -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def only_bells(monkeypatch: pytest.MonkeyPatch, no_events: None) -> None:
    """Without file events and rescans."""
    monkeypatch.setattr("mq_server.watch.RESCAN_S", 3600.0)


async def post(room: Mailroom, text: str = "x", channel: str = "narrator") -> None:
    await room.post(channel, sender="a", msg_type="note", payload={"text": text})


async def waiting(reader: Mailroom, channel: str = "narrator", **question: Any) -> asyncio.Task[list[str]]:
    """A wait that has found nothing, by its texts."""

    async def texts() -> list[str]:
        page = await reader.wait(channel, **({"timeout_s": 20, "ack": True} | question))
        return [message.payload["text"] for message in page.messages]

    wait = asyncio.create_task(texts())
    await until(lambda: reader._store.presence.count(channel))
    return wait


def own_bell(room: Mailroom) -> str:
    return str(room._store.bells._folder / room._store.bells._process)


def test_a_ring_that_is_lost_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bells_module.LINE, "ring", staticmethod(lambda *_: True))

    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            await post(writer, channel="dialogist")
            for text in ("one", "two"):
                wait = await waiting(reader)
                await post(writer, text)
                assert await wait == [text]

    run(work())


def test_forged_rings_disturb_no_wait(tmp_path: Path, only_bells: None) -> None:
    async def work() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as everything, Mailroom(tmp_path) as writer:
            await post(writer, channel="dialogist")
            wait = await waiting(reader)
            async with everything.changes() as changes:
                for data in (b"../../etc/passwd nobody\n", b"\xff\xfe\0", b"x" * 60_000, b"narrator\n" * 2_000, b"*\n"):
                    for room in (reader, everything):
                        assert bells_module.LINE.ring(own_bell(room), data)
                    await asyncio.sleep(0)
                await until(lambda: everything._shelf._answering and everything._shelf._answering.done())
                assert await changes.changed(0) <= {"dialogist", "narrator"}, "it is told of files only"
                assert not wait.done()
                await post(writer, "real")
                assert await wait == ["real"]
        assert faults == []

    run(work())


def test_a_flood_of_rings_is_few_looks_and_who_waits_is_answered(tmp_path: Path, only_bells: None) -> None:
    # What a pipe holds is read at once; datagrams come one by one, so that there may be a look for each.
    rings, looks = (10_000, 10_001) if bells_module.LINE is Datagram else (100_000, 50_000)

    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            await post(writer, channel="dialogist")
            wait = await waiting(reader)
            refresh, refreshed = reader._shelf.refresh, []

            async def counting(channels: Any = None) -> None:
                refreshed.append(channels)
                await refresh(channels)

            reader._shelf.refresh = counting  # type: ignore[method-assign]
            bell = own_bell(reader)
            flood = asyncio.to_thread(lambda: [bells_module.LINE.ring(bell, b"narrator\n") for _ in range(rings)])
            flooding = asyncio.create_task(flood)
            await until(lambda: refreshed)
            await post(writer, "real")
            assert await wait == ["real"]
            await flooding
            assert len(refreshed) <= looks
            wait = await waiting(reader)
            await post(writer, "last")
            assert await wait == ["last"]

    run(work())


def test_the_folder_may_be_deleted_while_somebody_waits(tmp_path: Path) -> None:
    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            await post(writer, channel="dialogist")
            wait = await waiting(reader)
            shutil.rmtree(tmp_path / ".mq")
            await post(writer, "by an event")
            assert await wait == ["by an event"]
            wait = await waiting(reader)
            assert Path(own_bell(reader)).exists(), "it hangs again"
            await post(writer, "by a ring")
            assert await wait == ["by a ring"]

    run(work())


def test_who_is_rung_for_looks_at_that_channel_alone(tmp_path: Path, only_bells: None) -> None:
    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            for number in range(10):
                await post(writer, channel=f"agent{number}")
            await reader.activity()
            wait = await waiting(reader, ack=False)
            refresh, refreshed = reader._shelf.refresh, []

            async def noting(channels: Any = None) -> None:
                if not wait.done():
                    refreshed.append(channels)
                await refresh(channels)

            reader._shelf.refresh = noting  # type: ignore[method-assign]
            looks = 0

            async def look(_: Any) -> None:
                nonlocal looks
                looks += not wait.done()

            reader._shelf._look = look  # type: ignore[method-assign]
            await post(writer, "real")
            assert await wait == ["real"]
            assert None not in refreshed
            assert looks == 0, "what nobody waits for is looked at afterwards"

    run(work())


def test_those_who_look_themselves_are_all_that_is_done_for_a_ring(tmp_path: Path, only_bells: None) -> None:
    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            await post(writer)
            await reader.read("narrator", ack=True)
            wait = await waiting(reader)
            await post(writer)
            assert await wait and reader._shelf._answering is None
            async with reader.changes() as changes:
                await post(writer)
                assert await changes.changed(10) == {"narrator"}
            assert reader._shelf._answering is not None

    run(work())


def test_a_follower_is_rung_too(tmp_path: Path, only_bells: None) -> None:
    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            await post(writer, "old")
            following = reader.follow()
            for text in ("one", "two"):
                coming = asyncio.ensure_future(anext(following))
                await until(lambda: reader._shelf.feed.subscriptions)
                await asyncio.sleep(0.05)
                await post(writer, text)
                assert (await asyncio.wait_for(coming, 10)).payload["text"] == text
            await following.aclose()

    run(work())


LISTENER = """
import asyncio, sys
from mq_server.mailroom import Mailroom

async def main():
    async with Mailroom(sys.argv[1]) as room:
        waiting = asyncio.create_task(room.wait("narrator", timeout_s=60))
        while not room._store.bells._take_down:
            await asyncio.sleep(0.01)
        print("waiting", flush=True)
        print((await waiting).messages[0].payload["text"], flush=True)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX does")
def test_the_bell_of_a_process_that_was_killed_is_taken_down(tmp_path: Path) -> None:
    if bells_module.LINE is Datagram:
        pytest.skip("nobody tells whether a port is listened to")

    async def work() -> None:
        async with Mailroom(tmp_path) as room:
            await room.post("dialogist", sender="a", msg_type="note", payload={"text": "x"})
            with python(LISTENER, tmp_path) as process:
                assert said(process) == "waiting"
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert len(list((tmp_path / ".mq" / "bells").iterdir())) == 2
                await room.post("narrator", sender="a", msg_type="note", payload={"text": "x"})
            assert list((tmp_path / ".mq" / "bells").iterdir()) == []

    run(work())


def test_a_reader_in_another_process_is_woken_without_file_events(tmp_path: Path, only_bells: None) -> None:
    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            await writer.post("dialogist", sender="a", msg_type="note", payload={"text": "x"})
            for text in ("one", "two"):
                waiting = asyncio.create_task(reader.wait("narrator", timeout_s=8, ack=True))
                await until(lambda: writer._store.presence.count("narrator"))
                await writer.post("narrator", sender="a", msg_type="note", payload={"text": text})
                assert [message.payload["text"] for message in (await waiting).messages] == [text]

    run(work())


def test_what_is_given_back_rings_too(tmp_path: Path, no_events: None) -> None:
    async def work() -> None:
        async with Mailroom(tmp_path) as one, Mailroom(tmp_path) as two:
            posted = await one.post("narrator", sender="a", msg_type="note", payload={"text": "x"})
            await one.settle("narrator", ack=posted.id)
            waiting = asyncio.create_task(two.wait("narrator", timeout_s=8))
            await until(lambda: one._store.presence.count("narrator"))
            began = time.monotonic()
            await one.settle("narrator", reopen=posted.id)
            assert (await waiting).messages
            assert time.monotonic() - began < RESCAN_S

    run(work())


def test_what_is_released_rings_for_those_who_wait_for_it(
    tmp_path: Path, only_bells: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mq_server.reading.RESCAN_S", 3600.0)
    monkeypatch.setattr("mq_server.selecting.RESCAN_S", 3600.0)

    async def work() -> None:
        async with Mailroom(tmp_path) as one, Mailroom(tmp_path) as two:
            await post(one, "work")
            page = await one.wait("narrator", lease_s=600, consumer="one")
            wait = await waiting(two, lease_s=5, consumer="two", ack=False, timeout_s=50)
            await one.settle("narrator", release=[page.leases[0].name], consumer="one")
            assert await asyncio.wait_for(wait, 20) == ["work"], "it does not wait for its end to look once more"

    run(work())

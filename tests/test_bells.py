"""Doorbells between processes: who is rung for what, and what a ring may be."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mq_server import bells as bells_module
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
        assert bells_module.LINE.ring(bell, b"\xff\xfe ../../etc/passwd nobody\n")
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


def test_a_reader_in_another_process_is_woken_without_file_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mq_server.watch.RESCAN_S", 3600.0)
    monkeypatch.setattr("mq_server.watch._STEP_MS", 3_600_000)

    async def work() -> None:
        async with Mailroom(tmp_path) as reader, Mailroom(tmp_path) as writer:
            await writer.post("dialogist", sender="a", msg_type="note", payload={"text": "x"})
            for text in ("one", "two"):
                waiting = asyncio.create_task(reader.wait("narrator", timeout_s=8, ack=True))
                await until(lambda: writer._store.presence.count("narrator"))
                await writer.post("narrator", sender="a", msg_type="note", payload={"text": text})
                assert [message.payload["text"] for message in (await waiting).messages] == [text]

    run(work())
    assert RESCAN_S < 10


def test_what_is_given_back_rings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq_server.watch._STEP_MS", 3_600_000)

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

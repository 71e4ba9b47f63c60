"""Files as last read, while others want an answer too."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from mq_server import blocks, keeping
from mq_server.columns import ChannelIndex, Names
from mq_server.keeping import Tracked
from tests.support import append, line, new_log, run


def tracked(folder: Path) -> Tracked[ChannelIndex]:
    log = new_log(folder)
    return Tracked(log, lambda: ChannelIndex("narrator", "narrator.jsonl", Names(), log.read_span))


def test_others_have_their_turn_while_a_long_addition_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1000)
    mailbox = tracked(tmp_path)
    append(new_log(tmp_path), line(0))
    seen = []

    async def work() -> None:
        await mailbox.refresh()
        append(new_log(tmp_path), b"".join(line(number) for number in range(1, 100)))
        refreshing = asyncio.create_task(mailbox.refresh())
        while not refreshing.done():
            seen.append(len(mailbox.reading))
            await asyncio.sleep(0)

    run(work())
    assert len(mailbox.reading) == 100
    assert len(set(seen)) > 5


def test_an_addition_of_which_a_part_was_taken_in_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1000)
    mailbox = tracked(tmp_path)
    append(new_log(tmp_path), line(0))

    async def work() -> None:
        await mailbox.refresh()
        append(new_log(tmp_path), b"".join(line(number) for number in range(1, 100)))
        refreshing = asyncio.create_task(mailbox.refresh())
        while len(mailbox.reading) < 10:
            await asyncio.sleep(0)
        refreshing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await refreshing
        assert await mailbox.refresh()

    run(work())
    assert mailbox.was_replaced
    assert list(mailbox.reading.lines) == list(range(1, 101))


def test_a_long_reading_is_put_in_order_in_the_thread_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_INLINE_ROWS", 10)
    mailbox = tracked(tmp_path)
    append(new_log(tmp_path), b"".join(line(number) for number in (*range(50, 100), *range(50))))
    threads = []
    real = ChannelIndex.prepare
    monkeypatch.setattr(
        ChannelIndex, "prepare", lambda self: (threads.append(threading.current_thread()), real(self))[1]
    )
    run(mailbox.refresh())
    assert threads != [threading.main_thread()]
    assert len(threads) == 1
    assert list(mailbox.reading.by_time()) == [*range(50, 100), *range(50)]


def test_no_garbage_is_looked_for_while_a_long_file_is_taken_in(tmp_path: Path) -> None:
    mailbox = tracked(tmp_path)
    payload = {"lines": [{"who": "Vreni", "text": "x"}] * 20}
    append(new_log(tmp_path), b"".join(line(number, payload=payload) for number in range(1000)))
    runs: list[str] = []

    def counting(phase: str, _: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            runs.append(phase)

    gc.callbacks.append(counting)
    try:
        run(mailbox.refresh())
    finally:
        gc.callbacks.remove(counting)
    assert len(mailbox.reading) == 1000
    assert runs.count("start") < 5, "each goes through all that is young, and some through all there is"
    assert gc.isenabled()


def test_a_collector_that_was_off_is_left_off(tmp_path: Path) -> None:
    mailbox = tracked(tmp_path)
    append(new_log(tmp_path), b"".join(line(number, text="x" * 900) for number in range(1000)))
    gc.disable()
    try:
        run(mailbox.refresh())
        assert not gc.isenabled()
    finally:
        gc.enable()

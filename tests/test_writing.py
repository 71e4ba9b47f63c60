"""What a post costs, and what it tells, where its process has read the mailbox before."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import appendlog
from mq_server.columns import ChannelIndex
from mq_server.errors import NotSettled
from mq_server.logfile import LogFile
from mq_server.mailbox import Mailbox
from mq_server.mailroom import Mailroom
from mq_server.names import parse_time
from mq_server.outcomes import Posted
from tests.support import ask, examples, line, run, write

LONG_AGO = "2020-01-01T00:00:00Z"


async def post(room: Mailroom, text: str = "x", **keys: Any) -> Posted:
    usual: dict[str, Any] = {"sender": "director", "msg_type": "note", "payload": {"text": text}}
    return await room.post("narrator", **(usual | keys))


async def post_together(room: Mailroom, count: int) -> list[Posted]:
    return await asyncio.gather(*(post(room) for _ in range(count)))


async def have_read(room: Mailroom) -> None:
    await post(room)
    await room.read("narrator", since=LONG_AGO)
    await post(room)


def unread(posted: Posted) -> int | None:
    return posted.recipients[0].unread


def counted(monkeypatch: pytest.MonkeyPatch, of: type, name: str, what: Callable[..., Any]) -> list[Any]:
    """What is called from now on."""
    seen: list[Any] = []
    real = getattr(of, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        seen.append(what(*arguments))
        return real(*arguments, **named)

    monkeypatch.setattr(of, name, noted)
    return seen


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_posts_are_indexed_together_once_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go(room: Mailroom) -> None:
        await have_read(room)
        batches = counted(monkeypatch, ChannelIndex, "extend", lambda _, lines: len(lines))
        for number in range(3):
            posted = await post_together(room, 8)
            assert [unread(each) for each in posted] == [2 + 8 * (number + 1)] * 8
        last = await post(room)
        assert not batches
        page = await room.read("narrator", since=LONG_AGO)
        assert batches == [25]
        assert len(page.messages) == 27
        assert page.messages[-1].id == last.id

    ask(tmp_path, go)


def test_what_is_put_into_the_index_later_is_news_then(tmp_path: Path) -> None:
    async def go(room: Mailroom) -> None:
        await have_read(room)
        await post(room)
        collected = room._shelf.version
        await room._shelf.refresh()
        indexed = room._shelf.version
        assert collected != indexed
        await room._shelf.refresh()
        assert room._shelf.version == indexed

    ask(tmp_path, go)


def test_posts_that_nobody_asks_for_are_indexed_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq_server.mailbox._COLLECTED_BYTES", 2000)

    async def go(room: Mailroom) -> None:
        await have_read(room)
        batches = counted(monkeypatch, ChannelIndex, "extend", lambda _, lines: len(lines))
        posted = [await post(room, "x" * 100) for _ in range(50)]
        assert 5 <= len(batches) <= 10
        assert [unread(each) for each in posted] == [*range(3, 53)]

    ask(tmp_path, go)


def test_after_posts_written_together_the_files_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go(room: Mailroom) -> None:
        await have_read(room)
        looks = counted(monkeypatch, LogFile, "is_as_seen", lambda log, _: log.path.parent.name)
        glances = counted(monkeypatch, LogFile, "glance", lambda log, _: log.path.parent.name)
        leases = counted(monkeypatch, type(room._store.leases("narrator")), "refresh", lambda _: None)
        await post_together(room, 8)
        assert (looks, glances, len(leases)) == (["receipts"], [], 1)

    ask(tmp_path, go)


@pytest.mark.parametrize("name", ["dialogist", "narrator"])
def test_a_post_waits_only_while_its_own_mailbox_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def go(room: Mailroom) -> None:
        await have_read(room)
        begun, go_on = asyncio.Event(), asyncio.Event()
        keep_up = Mailbox.keep_up

        async def slow(mailbox: Mailbox, months: list[str]) -> bool:
            if mailbox.source.path.stem == name:
                begun.set()
                await go_on.wait()
            return await keep_up(mailbox, months)

        monkeypatch.setattr(Mailbox, "keep_up", slow)
        monkeypatch.setattr(Mailbox, "has_kept_up", lambda *_: False)
        looking = asyncio.ensure_future(room._shelf.refresh([name]))
        await begun.wait()
        posting = asyncio.ensure_future(post(room))
        if name == "narrator":
            own = room._store.mailbox("narrator").own
            while room._store.mailbox("narrator").own is own:
                await asyncio.sleep(0)
            for _ in range(50):
                await asyncio.sleep(0)
            assert not posting.done()
        else:
            await posting
        go_on.set()
        await looking
        assert unread(await posting) == 3

    write(tmp_path / "mq.toml", b'durability = "os"\n')
    ask(tmp_path, go)


# --- what it tells ---------------------------------------------------------------------------------------------------


def test_a_line_of_somebody_else_in_between_is_counted(tmp_path: Path) -> None:
    async def go() -> None:
        async with Mailroom(tmp_path) as room, Mailroom(tmp_path) as other:
            await have_read(room)
            await post_together(other, 3)
            assert unread(await post(room)) == 6
            await post(other)
            assert {unread(each) for each in await post_together(room, 2)} == {9}

    run(go())


def test_a_line_of_somebody_else_at_the_same_moment_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_mtime = appendlog.set_mtime

    def beside_another(handle: int, time_ns: int) -> None:
        monkeypatch.setattr(appendlog, "set_mtime", set_mtime)
        with (tmp_path / "narrator.jsonl").open("ab") as file:
            file.write(line(7) + b"\n")
        set_mtime(handle, time_ns)

    async def go(room: Mailroom) -> None:
        await have_read(room)
        monkeypatch.setattr(appendlog, "set_mtime", beside_another)
        assert unread(await post(room)) == 4
        assert unread(await post(room)) == 5

    ask(tmp_path, go)


def test_what_was_settled_before_it_was_indexed_is_not_counted(tmp_path: Path) -> None:
    async def go() -> None:
        async with Mailroom(tmp_path) as room, Mailroom(tmp_path) as other:
            await have_read(room)
            first, second = await post(room), await post(room)
            await other.settle("narrator", ack=[first.id, second.id])
            assert unread(await post(room)) == 3
            await other.settle("narrator", seek="now")
            assert unread(await post(room)) == 1

    run(go())


def test_a_reader_who_has_sought_a_time_to_come_has_nothing_to_read(tmp_path: Path) -> None:
    async def go(room: Mailroom) -> None:
        await have_read(room)
        await room.settle("narrator", seek="2100-01-01T00:00:00Z")
        assert [unread(await post(room)) for _ in range(3)] == [0, 0, 0]

    ask(tmp_path, go)


def test_what_expires_is_counted_until_then(tmp_path: Path) -> None:
    async def go(room: Mailroom) -> None:
        await have_read(room)
        expiring = await post(room, expires_in_s=0.05)
        told = [unread(expiring)]
        expires_us = parse_time(str(expiring.message.expires_at))
        while time.time_ns() // 1000 <= expires_us:
            told.append(unread(await post(room)))
        assert told[0] == 3
        assert unread(await post(room)) == len(told) + 2

    ask(tmp_path, go)


def test_a_correction_among_posts_written_together_takes_the_place_of_what_it_corrects(tmp_path: Path) -> None:
    async def go(room: Mailroom) -> None:
        await have_read(room)
        wrong = await post(room)
        posted = await asyncio.gather(post(room), post(room, replaces=wrong.id), post(room))
        assert unread(posted[-1]) == 5
        assert unread(await post(room)) == 6

    ask(tmp_path, go)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "urgent": {"urgent": True},
    "expiring": {"expires_in_s": 0.02},
    "keyed": {"dedup_key": "once"},
}
STEPS = st.one_of(
    st.tuples(st.just("post"), st.lists(st.sampled_from([*KINDS, "reply", "correction"]), min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["ack", "seek", "reopen", "foreign", "read", "own_ack"]), st.just(())),
    st.tuples(st.just("edit"), st.just(())),
)


@examples(25)
@given(steps=st.lists(STEPS, min_size=1, max_size=12))
def test_a_post_tells_what_a_new_process_would_find(steps: list[tuple[str, list[str]]]) -> None:
    async def go(root: Path) -> None:
        async with Mailroom(root) as room, Mailroom(root) as other:
            await have_read(room)
            for step, kinds in steps:
                newest = (await other.history("narrator", limit=1)).messages[0].id
                if step == "post":
                    keys = [
                        {"reply_to": newest}
                        if kind == "reply"
                        else {"replaces": newest}
                        if kind == "correction"
                        else {}
                        for kind in kinds
                    ]
                    pairs = zip(kinds, keys, strict=True)
                    await asyncio.gather(*(post(room, **(KINDS.get(kind, {}) | own)) for kind, own in pairs))
                elif step == "foreign":
                    await post_together(other, 2)
                elif step == "read":
                    await room.read("narrator")
                    await room._end_notes()  # others are told of it a moment after the answer
                elif step == "edit":
                    path = root / "narrator.jsonl"
                    lines = path.read_bytes().splitlines(keepends=True)
                    path.write_bytes(b"".join(lines[:1] + lines[2:]))
                elif step == "seek":
                    await other.settle("narrator", seek="now")
                else:
                    with suppress(NotSettled):  # it is settled already
                        settling = room if step == "own_ack" else other
                        await settling.settle("narrator", **{step.removeprefix("own_"): [newest]})
                told = (await post(room)).recipients[0]
                async with Mailroom(root) as fresh:
                    await fresh._shelf.refresh()
                    found = fresh._count_deliverable("narrator", "narrator"), fresh._last_read("narrator", "narrator")
                    ids = [fresh._shelf.index.channels["narrator"].identity(row) for row in range(fresh_rows(fresh))]
                # What has expired since was not told.
                assert told.unread is not None
                assert 0 <= told.unread - found[0] <= sum(kind == "expiring" for _, each in steps for kind in each)
                assert told.last_read == found[1]
            await room._shelf.refresh()
            mine = room._shelf.index.channels["narrator"]
            assert [mine.identity(row) for row in range(len(mine))] == ids

    with tempfile.TemporaryDirectory() as folder:
        run(go(Path(folder)))


def fresh_rows(room: Mailroom) -> int:
    return len(room._shelf.index.channels["narrator"])

"""Archiving: what moves, what stays, that every query still finds it, and that no crash or merge loses any of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import archiving, moving
from mq_server.blocks import exchange
from mq_server.errors import InvalidRequest, LockTimeout, UnknownChannel, WriteFailed
from mq_server.git.past import Snapshot
from mq_server.git.setup import set_up
from mq_server.locks import FileLock
from mq_server.mailroom import Mailroom
from mq_server.message import encode_line
from mq_server.moving import Moved
from mq_server.names import format_time, parse_time
from mq_server.repository import Repository
from tests import repositories
from tests.repositories import answer, mq
from tests.support import (
    DEADLINE_S,
    append,
    examples,
    known_id,
    line,
    merged_both_ways,
    new_log,
    python,
    run,
    said,
    write,
)

DAY = 86_400_000
"""In the milliseconds that a line's number counts."""
FIRST_OF_OCTOBER = (parse_time("2026-10-01T00:00:00Z") // 1000) - 1_790_000_000_000


def numbered(*numbers: int, channel: str = "narrator", **keys: Any) -> list[bytes]:
    """Lines whose ids and times are the same in every run; October begins at 0."""
    shifted = {number: FIRST_OF_OCTOBER + number for number in numbers}
    return [
        line(at, id=known_id(at), text=f"message {number}", channel=channel, **keys) for number, at in shifted.items()
    ]


def texts(path: Path) -> list[str]:
    """What the messages of a file say, in its order."""
    return [json.loads(text)["payload"]["text"].removeprefix("message ") for text in path.read_bytes().splitlines()]


def said_by(numbers: range) -> list[str]:
    return list(map(str, numbers))


async def acked(room: Mailroom, channel: str = "narrator", reader: str | None = None) -> None:
    """Everything in a channel is read."""
    while (await room.read(channel, reader=reader, ack=True, limit=1000)).remaining:
        pass


async def state(room: Mailroom) -> dict[str, Any]:
    """What the queries answer, without the places where the lines stand."""
    activity = (await room.activity(limit=1000)).messages
    directory = await room.directory()
    found: dict[str, Any] = {"activity": [message.stored() for message in activity]}
    for message in activity[:: max(1, len(activity) // 10)]:
        thread = await room.thread(message.id, limit=1000)
        found[f"thread {message.id}"] = [
            (one.id, depth) for one, depth in zip(thread.messages, thread.depths, strict=True)
        ]
        found[f"message {message.id}"] = (await room.message(message.id)).stored()
        found[f"status {message.id}"] = [
            (step.channel, step.reader, step.state) for step in (await room.status(message.id)).progress
        ]
    for channel in directory.channels:
        unread = await room.read(channel.channel, limit=1000, caller="somebody")
        found[channel.channel] = (channel.messages, channel.unread, [message.id for message in unread.messages])
        history: list[str] = []
        page = await room.history(channel.channel, limit=7)
        history[:0] = [message.id for message in page.messages]
        while page.next:
            page = await room.history(channel.channel, limit=7, before=page.next)
            history[:0] = [message.id for message in page.messages]
        found[f"history of {channel.channel}"] = history
    hits = await room.search("message", limit=1000)
    found["search"] = [hit.message.id for hit in hits.hits]
    found["problems"] = (await room.check()).problems
    return found


def asked(root: Path, work: Callable[[Mailroom], Any]) -> Any:
    async def session() -> Any:
        async with Mailroom(root) as room:
            return await work(room)

    return run(session())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lines are enough to keep."""
    keep_only(monkeypatch, 3)


def keep_only(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(moving, "KEPT_LINES", count)
    monkeypatch.setattr(archiving, "KEPT_LINES", count)


# --- what moves, what stays ------------------------------------------------------------------------------------------


def test_old_lines_move_to_the_month_of_their_timestamp_and_every_query_still_sees_them(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(-50, 150)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        before = await state(room)
        (moved,) = await room.archive(keep=100)
        assert moved == Moved(channel="narrator", months={"2026-09": 50, "2026-10": 50})
        assert await state(room) == before

    asked(tmp_path, work)
    assert texts(tmp_path / "archive/2026-09/narrator.jsonl") == said_by(range(-50, 0))
    assert texts(tmp_path / "archive/2026-10/narrator.jsonl") == said_by(range(50))
    assert texts(tmp_path / "narrator.jsonl") == said_by(range(50, 150))


def test_what_is_older_than_a_day_moves_but_for_the_newest_hundred_lines(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(-10, 150)))
    write(tmp_path / "dialogist.jsonl", *numbered(*range(-10, 30), channel="dialogist"))

    async def work(room: Mailroom) -> None:
        await acked(room)
        await acked(room, "dialogist")
        found = {each.channel: each for each in await room.archive(before="2026-10-01T00:00:00Z")}
        assert found["narrator"] == Moved(channel="narrator", months={"2026-09": 10})
        assert found["dialogist"] == Moved(channel="dialogist", months={}, stayed={moving.NEWEST: 10})
        assert not await _moved(room, before="2026-10-01T00:00:00Z")

    asked(tmp_path, work)


async def _moved(room: Mailroom, **arguments: Any) -> list[Moved]:
    return [each for each in await room.archive(**arguments) if each.moved or each.tidied]


def test_what_a_reader_has_not_read_stays_and_it_is_said_why(tmp_path: Path, few: None) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(20)))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", ack=True, limit=15)
        await room.acknowledge("narrator", [(await room.message("narrator:1")).id], reader="writer")
        (moved,) = await room.archive(keep=3)
        assert moved.months == {"2026-10": 1}
        assert moved.stayed == {"unread by narrator": 2, "unread by writer": 14}
        await acked(room, reader="writer")
        (moved,) = await room.archive(keep=3)
        assert (moved.months, moved.stayed) == ({"2026-10": 14}, {"unread by narrator": 2})
        assert len((await room.read("narrator")).messages) == 5

    asked(tmp_path, work)
    assert texts(tmp_path / "archive/2026-10/narrator.jsonl") == said_by(range(15))
    assert texts(tmp_path / "narrator.jsonl") == said_by(range(15, 20))


def test_what_a_consumer_holds_stays(tmp_path: Path, few: None) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(8)))

    async def work(room: Mailroom) -> None:
        await room.read("narrator", lease_s=60, consumer="worker-1", limit=2)
        await room.acknowledge("narrator", [f"narrator:{number}" for number in range(3, 9)])
        (moved,) = await room.archive(keep=3)
        assert (moved.moved, moved.stayed) == (3, {"held by worker-1": 2})

    asked(tmp_path, work)
    assert texts(tmp_path / "narrator.jsonl") == ["0", "1", "5", "6", "7"]


def test_what_was_read_out_of_order_moves_into_its_place_in_the_archive(tmp_path: Path, few: None) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(8)))

    async def work(room: Mailroom) -> None:
        await room.acknowledge("narrator", [f"narrator:{number}" for number in (1, 2, 4, 5, 6, 7, 8)])
        await room.archive(keep=3)
        await acked(room)
        await room.archive(keep=3)

    asked(tmp_path, work)
    assert texts(tmp_path / "archive/2026-10/narrator.jsonl") == ["0", "1", "2", "3", "4"]


def test_lines_that_cannot_be_read_stay_and_the_bytes_of_all_others_are_kept(tmp_path: Path, few: None) -> None:
    lines = numbered(*range(9))
    odd = encode_line({**json.loads(lines[1]), "mood": "low"}).replace(b'":"', b'" : "')
    data = [lines[0], b"not json\n", odd, b"\n", *lines[2:8], lines[8].removesuffix(b"\n")]
    write(tmp_path / "narrator.jsonl", *data)

    async def work(room: Mailroom) -> None:
        await acked(room)
        (moved,) = await room.archive(keep=3)
        assert moved.stayed == {moving.UNREADABLE: 1}
        assert (tmp_path / "narrator.jsonl").read_bytes() == b"".join([b"not json\n", b"\n", *data[-4:]])
        assert (tmp_path / "archive/2026-10/narrator.jsonl").read_bytes() == b"".join([lines[0], odd, *lines[2:5]])
        assert [str(problem).partition(": ")[0] for problem in (await room.check()).problems] == ["narrator.jsonl:1"]

    asked(tmp_path, work)


def test_a_mailbox_with_conflict_markers_is_left_alone(tmp_path: Path, few: None) -> None:
    lines = numbered(*range(9))
    write(tmp_path / "narrator.jsonl", b"<<<<<<< ours\n", lines[0], b"=======\n", b">>>>>>> theirs\n", *lines[1:])
    before = (tmp_path / "narrator.jsonl").read_bytes()

    async def work(room: Mailroom) -> None:
        await acked(room)
        (moved,) = await room.archive(keep=3)
        assert (moved.moved, list(moved.stayed)) == (0, [moving.CONFLICT])

    asked(tmp_path, work)
    assert (tmp_path / "narrator.jsonl").read_bytes() == before


def test_a_message_that_stands_otherwise_in_the_archive_is_a_problem_of_both_lines_and_neither_goes(
    tmp_path: Path, few: None
) -> None:
    lines = numbered(*range(6))
    other = lines[0].replace(b"message 0", b"message A")
    write(tmp_path / "archive/2026-10/narrator.jsonl", lines[0])
    write(tmp_path / "narrator.jsonl", other, *lines[1:])

    async def work(room: Mailroom) -> None:
        await acked(room)
        problems = [str(problem).partition(": id")[0] for problem in (await room.check()).problems]
        assert problems == ["archive/2026-10/narrator.jsonl:1", "narrator.jsonl:1"]
        assert (await room.message(known_id(FIRST_OF_OCTOBER))).payload["text"] == "message A"
        assert (await room.message("narrator:1")).payload["text"] == "message A"
        (moved,) = await room.archive(keep=3)
        assert moved.stayed == {moving.OTHERWISE: 1}

    asked(tmp_path, work)
    assert (tmp_path / "narrator.jsonl").read_bytes().startswith(other)


def test_a_dry_run_tells_the_same_and_changes_nothing(tmp_path: Path, few: None) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(-2, 8)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        told = await room.archive(keep=3, dry_run=True)
        assert not (tmp_path / "archive").exists()
        assert await room.archive(keep=3) == told
        back = await room.restore_archive(dry_run=True)
        assert (tmp_path / "archive").exists()
        assert await room.restore_archive() == back

    asked(tmp_path, work)


def test_only_the_named_mailboxes_are_archived(tmp_path: Path, few: None) -> None:
    for name in ("scene_one", "scene_two", "narrator"):
        write(tmp_path / f"{name}.jsonl", *numbered(*range(8), channel=name))

    async def work(room: Mailroom) -> None:
        for name in ("scene_one", "scene_two", "narrator"):
            await acked(room, name)
        assert [each.channel for each in await room.archive(keep=3, channels="scene_*")] == ["scene_one", "scene_two"]
        assert [each.channel for each in await room.restore_archive(["scene_one"])] == ["scene_one"]
        with pytest.raises(UnknownChannel):
            await room.archive(keep=3, channels=["narator"])

    asked(tmp_path, work)
    assert sorted(path.name for path in (tmp_path / "archive/2026-10").iterdir()) == ["scene_two.jsonl"]


@pytest.mark.parametrize(
    "arguments", [{}, {"before": "2026-10-01T00:00:00Z", "keep": 100}, {"keep": 99}, {"keep": True}]
)
def test_what_to_archive_must_be_said_once_and_a_hundred_lines_stay(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        asked(tmp_path, lambda room: room.archive(**arguments))


# --- looking things up -----------------------------------------------------------------------------------------------


def test_an_archived_message_is_named_as_before_and_a_line_number_alone_means_the_mailbox(
    tmp_path: Path, few: None
) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(8)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        old = await room.message("narrator:2")
        await room.archive(keep=3)
        assert (await room.message(old.ref)).id == old.id
        assert (await room.message(old.id[-6:])).id == old.id
        again = await room.message(old.id)
        assert again.ref == old.ref  # by chance: the second line of the archive
        assert (await room.message(again.ref)).id == old.id
        assert (await room.message("narrator:2")).payload["text"] == "message 6"
        assert (await room.status(old.id)).progress[0].state == "acked"

    asked(tmp_path, work)


def test_a_next_token_outlives_archiving(tmp_path: Path, few: None) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(20)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        page = await room.read("narrator", since="2026-09-01T00:00:00Z", limit=5)
        await room.archive(keep=3)
        rest = await room.read("narrator", since=page.next, limit=100)
        assert [each.payload["text"] for each in rest.messages] == [f"message {number}" for number in range(5, 20)]
        assert not rest.merged

    asked(tmp_path, work)


def test_what_is_reopened_in_the_archive_is_unread_again_and_a_new_reader_begins_with_the_mailbox(
    tmp_path: Path, few: None
) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(8)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        old = await room.message("narrator:1")
        await room.archive(keep=3)
        assert len((await room.read("narrator", reader="late")).messages) == 3
        await room.settle("narrator", reopen=old.id)
        assert [each.id for each in (await room.read("narrator")).messages] == [old.id]
        assert (await room.directory()).channels[0].unread == 1
        await acked(room)
        assert not (await room.read("narrator")).messages

    asked(tmp_path, work)


def test_a_running_room_notices_what_another_process_archives(tmp_path: Path, few: None) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(8)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        before = await state(room)
        async with Mailroom(tmp_path) as other, room.changes() as changes:
            await other.archive(keep=3)
            assert await changes.changed(DEADLINE_S) == {"narrator"}
            assert await state(room) == before
            shutil.rmtree(tmp_path / "archive")
            assert len((await room.history("narrator")).messages) == 3
            await other.archive(keep=3)

    asked(tmp_path, work)


def test_a_reader_between_the_two_steps_of_a_move_misses_nothing(tmp_path: Path) -> None:
    lines = numbered(*range(9))
    mailbox = write(tmp_path / "narrator.jsonl", *lines)

    async def work(room: Mailroom, back: bool) -> None:
        tracked = room._shelf._mailboxes["narrator"]
        real = tracked.refresh
        moves = iter([True])

        async def moving_first() -> bool:  # when the archive has been looked at, and the mailbox has not
            for _ in moves:
                if back:
                    write(mailbox, *lines)
                    (tmp_path / "archive/2026-10/narrator.jsonl").unlink()
                else:
                    write(tmp_path / "archive/2026-10/narrator.jsonl", *lines[:5])
                    write(mailbox, *lines[5:])
            return await real()

        tracked.refresh = moving_first  # type: ignore[method-assign]
        assert len((await room.history("narrator")).messages) == 9
        tracked.refresh = real  # type: ignore[method-assign]

    async def forth_and_back(room: Mailroom) -> None:
        await room.history("narrator")
        await work(room, back=False)
        await work(room, back=True)

    asked(tmp_path, forth_and_back)


def test_files_of_the_archive_that_are_not_read_are_problems(tmp_path: Path) -> None:
    write(tmp_path / "archive/narrator.jsonl", *numbered(0))
    write(tmp_path / "archive/old/narrator.jsonl", *numbered(0))
    write(tmp_path / "archive/2026-10/Not a name.jsonl", *numbered(0))
    write(tmp_path / "archive/2026-10/dialogist.jsonl", b"nothing\n", *numbered(1, channel="dialogist"))
    write(tmp_path / "archive/2026-10/.narrator.jsonl.new", *numbered(2))
    report = asked(tmp_path, lambda room: room.check())
    assert [str(problem).partition(": ")[0] for problem in report.problems] == [
        "archive/2026-10/Not a name.jsonl",
        "archive/2026-10/dialogist.jsonl:1",
        "archive/narrator.jsonl",
        "archive/old",
    ]
    assert (report.channels, report.messages) == (1, 1)
    only = asked(tmp_path, lambda room: room.check([tmp_path / "archive/2026-10/dialogist.jsonl"]))
    assert len(only.problems) == 1


def test_a_commit_answers_with_its_archive(tmp_path: Path, few: None) -> None:
    root = repositories.production(tmp_path)
    write(root / "narrator.jsonl", *numbered(*range(8)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        await room.archive(keep=3)
        repositories.commit(root)
        async with Snapshot.at(root, "HEAD") as past:
            assert (await past.history("narrator")).messages == (await room.history("narrator")).messages

    asked(root, work)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["narrator", "dialogist", "both"]),
        st.sampled_from(["plain", "reply", "correct", "urgent"]),
        st.integers(-3 * DAY, 3 * DAY),
        st.integers(0, 30),
    ),
    max_size=25,
)


@given(steps=STEPS, read=st.lists(st.integers(0, 40), max_size=30), cuts=st.lists(st.integers(3, 20), max_size=3))
@examples(25)
def test_every_query_answers_as_before(
    tmp_path_factory: pytest.TempPathFactory, steps: Any, read: list[int], cuts: list[int]
) -> None:
    root = tmp_path_factory.mktemp("production")
    written: list[str] = []
    files: dict[str, list[bytes]] = {"narrator": [], "dialogist": []}
    at = 0
    for number, (where, kind, shift, other) in enumerate(sorted(steps, key=lambda step: step[2])):
        at = max(at + 1, FIRST_OF_OCTOBER + shift)  # in a mailbox times never stand still
        names = list(files) if where == "both" else [where]
        keys: dict[str, Any] = {"id": known_id(at)[:10] + known_id(number)[10:]}
        if kind in ("reply", "correct") and written:
            keys["reply_to" if kind == "reply" else "replaces"] = written[other % len(written)]
        if kind == "urgent":
            keys["urgent"] = True
        written.append(keys["id"])
        for name in names:
            files[name].append(line(at, text=f"message {number}", **{**keys, "channel": name}))
    for name, lines in files.items():
        write(root / f"{name}.jsonl", *lines)

    async def work(room: Mailroom) -> None:
        for name in files:
            there = (await room.history(name, limit=1000)).messages
            ids = [there[number].id for number in read if number < len(there)]
            if ids:
                await room.acknowledge(name, ids)
        before = await state(room)
        with pytest.MonkeyPatch.context() as patch:
            keep_only(patch, 3)
            for keep in cuts:
                await room.archive(keep=keep)
                assert comparable(await state(room)) == comparable(before)
            async with Mailroom(root) as fresh:
                assert comparable(await state(fresh)) == comparable(before)
            await room.restore_archive()
        assert await state(room) == before

    asked(root, work)
    assert {name: (root / f"{name}.jsonl").read_bytes() for name in files} == {
        name: b"".join(lines) for name, lines in files.items()
    }


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What is unread stays behind in the mailbox, so a history may have another order."""
    return {key: sorted(value) if key.startswith("history") else value for key, value in found.items()}


# --- crashes ---------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What stands for the end of the process."""


class Dying:
    """Lets a process do so many steps on the disk, and none after that. What it reads, and `.mq`, are not counted."""

    CALLS = (
        (os, "fsync"),
        (os, "replace"),
        (os, "rename"),
        (os, "unlink"),
        (os, "rmdir"),
        (os, "mkdir"),
        (os, "chmod"),
        (io, "open"),
    )

    def __init__(self, patch: pytest.MonkeyPatch, lives: int) -> None:
        self.left = lives
        for module, name in self.CALLS:
            patch.setattr(module, name, self._dying(getattr(module, name)))

    def _dying(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            writes = real.__name__ != "open" or "w" in str(arguments[1:2])
            self.left -= writes and f"{os.sep}.mq{os.sep}" not in str(arguments[0])
            if self.left < 0:
                raise Killed
            return real(*arguments, **options)

        return call


@pytest.mark.parametrize("back", [False, True], ids=["to the archive", "back"])
def test_killed_at_any_step_every_message_is_found_once_and_the_next_run_finishes(
    tmp_path: Path, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_only(monkeypatch, 2)
    template = tmp_path / "template"
    write(template / "narrator.jsonl", *numbered(-2, -1, 0, 1, 2, 3))
    write(template / "dialogist.jsonl", *numbered(-2, 4, 5, 6, channel="dialogist"))

    async def work(room: Mailroom) -> None:
        await (room.restore_archive() if back else room.archive(keep=2))

    async def begin(room: Mailroom) -> dict[str, Any]:
        await acked(room)
        await acked(room, "dialogist")
        if back:
            await room.archive(keep=2)
        return await state(room)

    before = asked(template, begin)
    whole = shutil.copytree(template, tmp_path / "whole")
    asked(whole, work)
    for lives in range(1000):
        root = shutil.copytree(template, tmp_path / str(lives))
        with pytest.MonkeyPatch.context() as patch:
            dying = Dying(patch, lives)
            with suppress(Killed):
                asked(root, work)
            died = dying.left < 0
        assert asked(root, state) == before
        asked(root, work)
        assert contents(root) == contents(whole)
        shutil.rmtree(root)
        if not died:
            assert lives > 20  # steps of one run
            return
    pytest.fail("it never came to its end")


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".mq" not in path.parts
    }


POSTING = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        while True:
            posted = await room.post("narrator", sender="dialogist", msg_type="note", payload={"text": "message"})
            print(posted.id, flush=True)
            await room.read("narrator", ack=True)
asyncio.run(main())
"""
ARCHIVING = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    print("ready", flush=True)
    async with Mailroom(sys.argv[1]) as room:
        while True:
            await room.archive(keep=100)
            await room.restore_archive()
asyncio.run(main())
"""


def test_an_archiver_killed_at_random_beside_writers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(-100, 100)))
    asked(tmp_path, acked)
    answered: list[str] = []
    dice = random.Random(7)
    with python(POSTING, tmp_path) as one, python(POSTING, tmp_path) as two:
        for _ in range(4):
            with python(ARCHIVING, tmp_path) as archiver:
                said(archiver)
                until = time.monotonic() + dice.uniform(0.1, 0.6)
                while time.monotonic() < until:
                    answered += [said(one), said(two)]
                archiver.kill()
        for process in (one, two):
            process.kill()
            assert process.stdout is not None
            answered += [text.strip() for text in process.stdout if text.endswith("\n")]

    async def work(room: Mailroom) -> None:
        for _ in range(2):
            ids = [message.id for message in await history(room, "narrator")]
            assert len(set(ids)) == len(ids)
            assert set(answered) <= set(ids)
            assert not (await room.check()).problems
            await room.archive(keep=100)

    asked(tmp_path, work)
    assert len((tmp_path / "narrator.jsonl").read_bytes().splitlines()) == 100


async def history(room: Mailroom, channel: str) -> list[Any]:
    page = await room.history(channel, limit=1000)
    found = list(page.messages)
    while page.next:
        page = await room.history(channel, limit=1000, before=page.next)
        found[:0] = page.messages
    return found


def test_a_mailbox_that_changes_while_it_is_moved_is_read_again(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = numbered(*range(9))
    mailbox = write(tmp_path / "narrator.jsonl", *lines[:8])
    real = exchange
    changes = [b"".join(lines)]

    def exchanging(path: Path, *arguments: Any) -> bool:
        if path == mailbox and changes:
            path.write_bytes(changes.pop())
        return real(path, *arguments)

    async def work(room: Mailroom) -> None:
        await acked(room)
        monkeypatch.setattr(archiving, "exchange", exchanging)
        await room.archive(keep=3)
        assert len((await room.history("narrator")).messages) == 9

    asked(tmp_path, work)
    assert texts(tmp_path / "archive/2026-10/narrator.jsonl") == said_by(range(6))
    assert texts(mailbox) == said_by(range(6, 9))


def test_what_is_posted_or_reopened_while_a_move_is_made_ready_is_heeded(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(9)))
    real = moving.plan
    planned = 0

    async def meanwhile(other: Mailroom) -> None:
        await other.post("narrator", sender="writer", msg_type="note", payload={"text": "late"})
        await other.settle("narrator", reopen=known_id(FIRST_OF_OCTOBER + 1))

    def planning(*arguments: Any) -> moving.Plan:
        nonlocal planned
        planned += 1
        if planned == 1:
            asked(tmp_path, meanwhile)
        return real(*arguments)

    async def work(room: Mailroom) -> None:
        await acked(room)
        monkeypatch.setattr(archiving, "plan", planning)
        (moved,) = await room.archive(keep=3)
        assert (moved.moved, moved.stayed) == (6, {"unread by narrator": 1})

    asked(tmp_path, work)
    assert planned == 2
    assert texts(tmp_path / "narrator.jsonl") == ["1", "7", "8", "late"]


def test_what_is_posted_while_a_move_is_made_ready_stays_at_the_end(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(9)))
    real = {name: getattr(archiving, name) for name in ("plan", "joined")}

    def posting(name: str) -> Callable[..., Any]:
        def work(*arguments: Any) -> Any:
            append(new_log(tmp_path), line(FIRST_OF_OCTOBER + 10, text=name))
            return real[name](*arguments)

        return work

    async def work(room: Mailroom) -> None:
        await acked(room)
        with monkeypatch.context() as patch:
            patch.setattr(archiving, "plan", posting("plan"))
            await room.archive(keep=3)
        assert texts(tmp_path / "narrator.jsonl") == ["6", "7", "8", "plan"]
        monkeypatch.setattr(archiving, "joined", posting("joined"))
        await room.restore_archive()

    asked(tmp_path, work)
    assert texts(tmp_path / "narrator.jsonl") == [*said_by(range(9)), "plan", "joined"]


def test_nobody_posts_while_lines_are_moved(tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(9)))
    real = exchange
    refused: list[Path] = []

    def exchanging(path: Path, *arguments: Any) -> bool:
        lock: FileLock = new_log(tmp_path).lock
        with suppress(LockTimeout), lock.held(0.0):
            pytest.fail("the mailbox is not locked")
        refused.append(path)
        return real(path, *arguments)

    async def work(room: Mailroom) -> None:
        await acked(room)
        monkeypatch.setattr(archiving, "exchange", exchanging)
        await room.archive(keep=3)
        await room.restore_archive()

    asked(tmp_path, work)
    assert len(refused) == 4


def test_a_refused_exchange_is_told_with_the_file_and_nothing_is_lost(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(9)))

    async def work(room: Mailroom) -> None:
        await acked(room)
        before = await state(room)
        with monkeypatch.context() as patch:
            real = os.replace

            def refuse(source: Any, target: Any) -> None:
                if os.path.dirname(target) == str(tmp_path):  # noqa: PTH120
                    raise PermissionError(13, "Permission denied", str(target))
                real(source, target)

            patch.setattr(os, "replace", refuse)
            with pytest.raises(WriteFailed, match=r"narrator\.jsonl: Permission denied\. Nothing is lost"):
                await room.archive(keep=3)
        assert await state(room) == before
        (moved,) = await room.archive(keep=3)
        assert (moved.moved, moved.tidied) == (0, 6)

    asked(tmp_path, work)
    assert not list(tmp_path.glob(".narrator*"))


def test_an_archived_part_that_cannot_be_read_is_a_problem_until_it_can(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(9)))
    part = tmp_path / "archive/2026-10/narrator.jsonl"
    real = os.open

    def refusing(path: Any, *arguments: Any) -> int:
        if str(path) == str(part):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments)

    async def work(room: Mailroom) -> None:
        await acked(room)
        await room.archive(keep=3)
        monkeypatch.setattr("mq_server.mailbox._RETRY_S", 0.05)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refusing)
            await room._shelf.reread()
            page = await room.history("narrator")
            assert [str(problem) for problem in page.problems] == [
                "archive/2026-10/narrator.jsonl: cannot be read: Permission denied"
            ]
            assert len(page.messages) == 3
            assert room._shelf.stands("narrator", known_id(FIRST_OF_OCTOBER))  # for all we know
        while len((await room.history("narrator")).messages) < 9:
            await asyncio.sleep(0.01)
        assert not (await room.check()).problems

    asked(tmp_path, work)


# --- merges ----------------------------------------------------------------------------------------------------------


def _archived(root: Path) -> None:
    asked(root, lambda room: room.archive(keep=100))


def _appended(root: Path) -> None:
    with (root / "narrator.jsonl").open("ab") as file:
        file.writelines(numbered(*range(5000, 5005)))


def _appended_and_archived(root: Path) -> None:
    _appended(root)
    _archived(root)


def _base(root: Path) -> None:
    write(root / "narrator.jsonl", *numbered(*range(-300, 0)))
    asked(root, acked)


@pytest.mark.parametrize("driver", [False, True], ids=["union", "driver"])
@pytest.mark.parametrize("other", [_appended, _appended_and_archived])
def test_a_branch_that_archived_merges_with_one_that_appended(
    tmp_path: Path, other: Callable[[Path], None], driver: bool
) -> None:
    if driver:
        repositories.repository(tmp_path / "origin")
        set_up(Repository.around(tmp_path / "origin"))
    for root in _both_ways(tmp_path, other, driver=driver):

        async def work(room: Mailroom) -> None:
            for _ in range(2):
                expected = [f"message {number}" for number in (*range(-300, 0), *range(5000, 5005))]
                assert [each.payload["text"] for each in (await room.activity(limit=1000)).messages] == expected
                assert sorted(each.payload["text"] for each in await history(room, "narrator")) == sorted(expected)
                assert len((await room.search("message", limit=1000)).hits) == 305
                unread = await room.read("narrator", caller="somebody")
                assert [each.payload["text"] for each in unread.messages] == expected[-5:]
                assert not (await room.check()).problems
                await room.archive(keep=100)
            assert 100 <= len((root / "narrator.jsonl").read_bytes().splitlines()) <= 105  # noqa: B023

        asked(root, work)


def _both_ways(folder: Path, other: Callable[[Path], None], *, driver: bool) -> Iterator[Path]:
    """Clones in which both branches are merged, either way."""
    if not driver:
        yield from merged_both_ways(folder, [_archived, other], _base)
        return
    root = folder / "origin"
    (root / ".gitattributes").write_text("*.jsonl text eol=lf merge=union\n")
    (root / ".gitignore").write_text(".mq/\n")
    _base(root)
    repositories.commit(root)
    for name, change in (("one", _archived), ("two", other)):
        repositories.git(root, "checkout", "-q", "-b", name, "main")
        change(root)
        repositories.commit(root)
    for mine, theirs in (("one", "two"), ("two", "one")):
        repositories.git(root, "checkout", "-q", "-b", f"merged-{mine}", mine)
        repositories.git(root, "merge", "-q", "-m", "merge", theirs)
        yield root
        repositories.git(root, "reset", "-q", "--hard")
        repositories.git(root, "clean", "-qfd")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_moved_and_what_stays(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", *numbered(*range(-60, 90)))
    asked(tmp_path, lambda room: room.read("narrator", ack=True, limit=40))
    planned = mq(tmp_path, "archive", "--keep", "100", "--dry-run")
    assert planned.stdout == (
        "narrator: 40 lines would move to archive/2026-09\nnarrator: 10 lines stay, unread by narrator\n"
    )
    assert answer(tmp_path, "archive", "--before", format_time(1_790_000_000_000_000 + FIRST_OF_OCTOBER * 1000)) == {
        "archived": [
            {
                "channel": "narrator",
                "moved": 40,
                "months": {"2026-09": 40},
                "stayed": [{"lines": 10, "why": "unread by narrator"}, {"lines": 10, "why": moving.NEWEST}],
            }
        ]
    }
    assert mq(tmp_path, "archive", "--restore").stdout == "narrator: 40 lines moved back from archive/2026-09\n"
    assert "nothing is to be moved" in mq(tmp_path, "archive", "--restore", "narrator").stderr
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize("arguments", [(), ("--keep", "100", "--before", "90d"), ("--restore", "--keep", "100")])
def test_the_command_refuses_what_makes_no_sense(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    mq(tmp_path, "archive", *arguments, code=2)

"""What is known of the files: kept up to date, whatever happens to them and to those who ask."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import appendlog, keeping, logfile, recent
from mq_server.appendlog import AppendLog
from mq_server.blocks import Block
from mq_server.errors import Stale, Unsteady
from mq_server.logfile import Change
from mq_server.mailroom import Mailroom
from tests.support import append, ask, examples, known_id, line, new_log, run, write


async def texts(room: Mailroom, channel: str = "narrator") -> list[str]:
    return [message.payload["text"] for message in (await room.history(channel, limit=1000)).messages]


# --- keeping up ------------------------------------------------------------------------------------------------------


def test_what_others_append_is_read_and_nothing_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    real_blocks = Change.blocks

    def counting(change: Change) -> Iterator[Block]:
        nonlocal taken
        taken += change.size_bytes
        return real_blocks(change)

    monkeypatch.setattr(Change, "blocks", counting)

    async def work(room: Mailroom) -> None:
        log = new_log(tmp_path)
        for number in range(20):
            append(log, line(number, text=f"{number}"))
            assert await texts(room) == [f"{earlier}" for earlier in range(number + 1)]
        assert taken == log.path.stat().st_size

    ask(tmp_path, work)


def test_after_an_editors_save_that_file_alone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / f"{name}.jsonl", line(1), line(2)) for name in ("narrator", "dialogist", "editor")]
    for path in paths:
        os.utime(path, (1_790_000_000, 1_790_000_000))  # what was written just now is read again until it is quiet
    taken: set[Path] = set()
    real_blocks = Change.blocks

    def noting(change: Change) -> Iterator[Block]:
        taken.add(change.log.path)
        return real_blocks(change)

    async def work(room: Mailroom) -> None:
        await room.directory()
        monkeypatch.setattr(Change, "blocks", noting)
        new = write(tmp_path / "saved.tmp", line(1, text="as an editor saves it"), line(2))
        new.replace(paths[0])
        assert "as an editor saves it" in await texts(room)
        await room.directory()
        await room.activity()
        assert taken == {paths[0]}

    ask(tmp_path, work)


def test_a_long_file_is_read_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_INLINE_BYTES", 1000)
    write(tmp_path / "narrator.jsonl", *(line(number, text="x" * 200) for number in range(100)))
    real_take = keeping._take

    def slow_take(*arguments: Any) -> None:
        time.sleep(0.2)
        real_take(*arguments)

    monkeypatch.setattr(keeping, "_take", slow_take)

    async def work(room: Mailroom) -> None:
        reading = asyncio.ensure_future(texts(room))
        turns = 0
        while not reading.done():
            turns += 1
            await asyncio.sleep(0.005)
        assert len(await reading) == 100
        assert turns > 5

    ask(tmp_path, work)


def test_questions_at_the_same_time_are_all_answered_from_the_files_as_they_are(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        for number in range(5):
            write(tmp_path / "narrator.jsonl", *(line(other, text=f"{number}") for other in range(number + 1)))
            answers = await asyncio.gather(*(texts(room) for _ in range(8)), room.activity(), room.check())
            for answer in answers[:8]:
                assert answer == [f"{number}"] * (number + 1)
            assert len(answers[8].messages) == number + 1
            assert answers[9].messages == number + 1

    ask(tmp_path, work)


def test_a_caller_cancelled_between_two_files_takes_no_wake_up_with_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", line(0))
    write(tmp_path / "b.jsonl", line(1))

    async def work(room: Mailroom) -> None:
        await room.activity()
        stuck = asyncio.Event()

        async def never() -> bool:
            stuck.set()
            await asyncio.Event().wait()
            return False

        with room._shelf.feed.subscribe(lambda _: True) as subscription:
            append(new_log(tmp_path, "a"), line(2))
            append(new_log(tmp_path, "b"), line(3))
            room._shelf._mailboxes["b"].refresh = never  # type: ignore[method-assign]
            asking = asyncio.ensure_future(room._shelf.refresh(["a", "b"]))
            await stuck.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await subscription.changed(0) == {"a"}

    ask(tmp_path, work)


def test_a_caller_cancelled_while_a_long_file_is_read_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_INLINE_BYTES", 0)
    path = write(tmp_path / "narrator.jsonl", *(line(number, sender=f"s{number}") for number in range(300)))

    async def work(room: Mailroom) -> None:
        for delay in range(12):
            asking = asyncio.ensure_future(room.activity())
            for _ in range(delay):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            path.write_bytes(path.read_bytes())
        senders = [message.sender for message in (await room.history("narrator", limit=1000)).messages]
        assert senders == [f"s{number}" for number in range(300)]

    ask(tmp_path, work)


def opened_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mailboxes that are opened from now on."""
    opened: list[str] = []
    real_open = os.open

    def counting(path: Any, *rest: int) -> int:
        if str(path).endswith(".jsonl"):
            opened.append(Path(path).stem)
        return real_open(path, *rest)

    monkeypatch.setattr(os, "open", counting)
    return opened


def test_what_was_shown_is_not_read_again_until_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        append(new_log(tmp_path, name), b"".join(line(number, channel=name) for number in range(30)))

    async def work(room: Mailroom) -> None:
        before = [message.as_json() for message in (await room.activity()).messages]
        opened = opened_files(monkeypatch)
        assert [message.as_json() for message in (await room.activity()).messages] == before
        assert len((await room.history("a", limit=20)).messages) == 20
        assert opened == []
        append(new_log(tmp_path, "b"), line(99, text="more"))
        del opened[:]
        assert (await room.activity()).messages[-1].payload == {"text": "more"}
        assert set(opened) == {"b"}

    ask(tmp_path, work)


def test_nobody_waits_where_nothing_changed(tmp_path: Path) -> None:
    append(new_log(tmp_path), line(0))

    async def work(room: Mailroom) -> None:
        await room.activity()
        async with room._shelf._refreshing:  # somebody takes in another file, which takes long
            assert len((await room.activity()).messages) == 1

    ask(tmp_path, work)


def test_a_payload_belongs_to_whom_it_was_given(tmp_path: Path) -> None:
    extra = {"mood": ["grim"]}
    write(tmp_path / "narrator.jsonl", line(0, payload={"blocks": [{"text": "a"}]}), line(1, **extra))

    async def work(room: Mailroom) -> None:
        for _ in range(3):
            scene, other = (await room.history("narrator")).messages
            assert scene.payload == {"blocks": [{"text": "a"}]}
            assert other.extra == extra
            scene.payload["blocks"][0]["text"] = "changed"
            scene.payload["more"] = True
            other.extra["mood"].append("merry")

    ask(tmp_path, work)


def test_an_edit_that_keeps_the_length_of_a_line_is_shown(tmp_path: Path) -> None:
    ids = [known_id(number) for number in range(3)]
    path = write(tmp_path / "narrator.jsonl", *(line(number, id=ids[number], text="old") for number in range(3)))

    async def work(room: Mailroom) -> None:
        assert await texts(room) == ["old"] * 3
        path.write_bytes(path.read_bytes().replace(b"old", b"new", 2))
        assert await texts(room) == ["new", "new", "old"]
        append(new_log(tmp_path), line(9, id=ids[2], text="zzz"))  # the greater line of an id is shown
        assert await texts(room) == ["new", "new", "zzz"]

    ask(tmp_path, work)


def test_what_is_kept_of_messages_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "_LIMIT_BYTES", 20_000)
    monkeypatch.setattr(recent, "_LINE_LIMIT_BYTES", 3000)
    lengths = [3500 if number % 7 == 0 else 500 for number in range(100)]
    write(tmp_path / "narrator.jsonl", *(line(number, text="x" * length) for number, length in enumerate(lengths)))

    async def work(room: Mailroom) -> None:
        for limit in (100, 10, 50, 100):
            assert [len(text) for text in (await texts(room))[-limit:]] == lengths[-limit:]
            kept = room._shelf._recent.of(room._shelf.index.channels["narrator"])
            sizes = [len(each.payload["text"]) for each in kept.shown.values()] + [*map(len, kept.lines.values())]
            assert sum(size + 1000 for size in sizes) < 20_000 + 3000
            assert max(sizes) < 1000

    ask(tmp_path, work)


def test_what_was_appended_is_shown_without_another_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = 0
    real_spans = AppendLog.read_spans

    def counting(log: AppendLog, wanted: list[tuple[int, int]]) -> list[bytes]:
        nonlocal spans
        spans += len(wanted)
        return real_spans(log, wanted)

    monkeypatch.setattr(AppendLog, "read_spans", counting)
    first = line(0, id=known_id(0), text="0")

    async def work(room: Mailroom) -> None:
        log = new_log(tmp_path)
        append(log, first)
        assert await texts(room) == ["0"]
        spans_before = spans
        for number in range(1, 9, 2):
            append(log, line(number, text=f"{number}") + line(number + 1, text=f"{number + 1}"))
            newest = [message.payload["text"] for message in (await room.activity(limit=2)).messages]
            assert newest == (await texts(room))[-2:] == [f"{number}", f"{number + 1}"]
        assert spans == spans_before
        append(log, b"torn\n" + first + line(9, text="9"))  # rows are not lines here
        assert (await texts(room))[-3:] == ["7", "8", "9"]

    ask(tmp_path, work)


def test_lines_that_were_appended_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "_LIMIT_BYTES", 20_000)
    monkeypatch.setattr(recent, "_LINE_LIMIT_BYTES", 3000)

    async def work(room: Mailroom) -> None:
        log = new_log(tmp_path)
        append(log, line(0, text="0"))
        assert await texts(room) == ["0"]
        for number in range(1, 60):
            append(log, line(number, text="x" * (3500 if number % 7 == 0 else 500)))
            await room.status("narrator:1")
            kept = room._shelf._recent.of(room._shelf.index.channels["narrator"]).lines
            assert number % 7 == 0 or max(kept) == number
            assert sum(len(each) + 1000 for each in kept.values()) < 20_000 + 3000
            assert max(map(len, kept.values())) < 1000
        assert [len(text) for text in await texts(room)][1:8] == [500] * 6 + [3500]

    ask(tmp_path, work)


# --- what is not as it should be -------------------------------------------------------------------------------------


def test_a_file_that_may_not_be_read_is_a_problem_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = write(tmp_path / "narrator.jsonl", line(0, text="locked"))
    write(tmp_path / "receipts" / "dialogist.jsonl", b"")
    write(tmp_path / "dialogist.jsonl", line(1, text="open"))
    real_open = os.open

    def refusing(path: Any, *rest: int) -> int:
        if Path(path) == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, *rest)

    async def work(room: Mailroom) -> None:
        assert await texts(room) == ["locked"]
        write(locked, line(0, text="locked"), line(2, text="more"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refusing)
            answer = await room.activity()
            assert [message.payload["text"] for message in answer.messages] == ["open"]
            assert [str(problem) for problem in answer.problems] == [
                "narrator.jsonl: cannot be read: Permission denied"
            ]
            assert (await room.wait("narrator", timeout_s=0)).problems == answer.problems
        assert await texts(room) == ["locked", "more"]
        assert (await room.check()).problems == ()

    ask(tmp_path, work)


def test_a_file_that_is_in_use_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = write(tmp_path / "narrator.jsonl", line(0, text="busy"))
    real_open, refusals = os.open, 0

    def refusing(path: Any, *rest: int) -> int:
        nonlocal refusals
        if Path(path) == busy and refusals % 4 != 3:
            refusals += 1
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        refusals += 1
        return real_open(path, *rest)

    async def work(room: Mailroom) -> None:
        monkeypatch.setattr(keeping, "IN_USE_S", 2.0)
        monkeypatch.setattr(os, "open", refusing)
        assert await texts(room) == ["busy"]
        assert refusals >= 7, "refused when it was indexed and when it was shown"

    ask(tmp_path, work)


def test_an_index_that_does_not_fit_its_file_is_noticed_and_built_anew(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", line(0, text="a"), line(1, text="b"))

    async def work(room: Mailroom) -> None:
        assert await texts(room) == ["a", "b"]
        room._shelf.index.channels["narrator"].offsets[1] += 7
        assert await texts(room) == ["a", "b"]
        room._shelf.index.channels["narrator"].offsets[0] += 7
        assert len((await room.search("a")).hits) == 1

    ask(tmp_path, work)


def test_files_that_never_stay_the_same_are_given_up_with_an_error(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        await room.activity()

        def stale() -> None:
            raise Stale("narrator")

        with pytest.raises(Unsteady, match=r"the files keep changing while they are read\. Try again when that"):
            await room._shelf.consistent(None, stale)
        assert len((await room.activity()).messages) == 1

    ask(tmp_path, work)


def test_a_file_whose_name_is_none_is_reported_and_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "narrator.jsonl", line(0), b"garbage\n")

    async def work(room: Mailroom) -> None:
        write(tmp_path / "Bad Name.jsonl", line(1))
        write(tmp_path / ".#narrator.jsonl", line(2))
        with caplog.at_level(logging.WARNING):
            await room._shelf._look({"Bad Name", ".#narrator"})
            await room._shelf._look(None)
        assert set(room._shelf.index.channels) == {"narrator"}
        assert [str(problem).partition(":")[0] for problem in room._shelf.problems()] == [
            "Bad Name.jsonl",
            "narrator.jsonl",
        ]
        assert len(caplog.messages) == 2, "each problem is logged once"

    ask(tmp_path, work)


# --- anything --------------------------------------------------------------------------------------------------------

CHANNELS = ("a", "b")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["post", "post", "ack", "foreign", "torn", "edit", "reorder", "delete", "unstamp", "read"]),
        st.sampled_from(CHANNELS),
        st.integers(0, 99),
    ),
    min_size=1,
    max_size=14,
)


async def everything(room: Mailroom) -> dict[str, object]:
    """What a room says of its files."""
    activity = await room.activity(limit=1000)
    answers: dict[str, object] = {
        "activity": [message.as_json() for message in activity.messages],
        "problems": [str(problem) for problem in activity.problems],
        "directory": (await room.directory("a")).as_json(),
    }
    for channel in CHANNELS:
        answers[f"history of {channel}"] = (await room.history(channel, limit=1000)).as_json()
        for reader in (None, "editor"):
            answers[f"{channel} for {reader}"] = (await room.read(channel, reader=reader, limit=1000)).as_json()
    for message in activity.messages[:4]:
        answers[f"thread of {message.id}"] = (await room.thread(message.id)).as_json()
    return answers


@given(STEPS)
@examples(60)
def test_a_room_that_was_there_says_what_a_new_one_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    root = tmp_path_factory.mktemp("room")

    async def work() -> None:
        async with Mailroom(root) as room, Mailroom(root) as other:
            for number, (step, channel, chance) in enumerate(steps):
                path = root / f"{channel}.jsonl"
                lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
                known = [message.id for message in (await other.activity()).messages]
                if step == "post":
                    reply_to = known[chance % len(known)] if known and chance % 2 else None
                    replaces = known[chance % len(known)] if known and chance % 5 == 0 else None
                    channels = CHANNELS if chance % 3 == 0 else (channel,)
                    await (room if chance % 7 else other).post(
                        *(channels,), sender="a", msg_type="x", payload={}, reply_to=reply_to, replaces=replaces
                    )
                elif step == "ack":
                    page = await (room if chance % 2 else other).read(channel, reader=None if chance % 3 else "editor")
                    ids = [message.id for message in page.messages[: chance % 4]]
                    await other.acknowledge(channel, ids, reader=None if chance % 3 else "editor")
                elif step == "foreign":
                    with path.open("ab") as file:
                        file.write(line(number, id=known_id(chance % 9), urgent=chance % 2 == 0))
                elif step == "torn":
                    with path.open("ab") as file:
                        file.write(line(number)[: 20 + chance % 40])
                elif step == "edit" and lines:
                    lines[chance % len(lines)] = line(number, id=known_id(chance % 9), scene=f"s{chance}")
                    path.write_bytes(b"".join(lines))
                elif step == "reorder" and lines:
                    path.with_suffix(".tmp").write_bytes(b"".join(lines[chance % len(lines) :] + lines))
                    path.with_suffix(".tmp").replace(path)
                elif step == "delete":
                    path.unlink(missing_ok=True)
                elif step == "unstamp":
                    (root / ".mq" / "stamps" / f"{channel}.stamp").unlink(missing_ok=True)
                elif step == "read":
                    await room.read(channel)
                if chance % 3 == 0:
                    async with Mailroom(root) as fresh:
                        assert await everything(room) == await everything(fresh)
            async with Mailroom(root) as fresh:
                assert await everything(room) == await everything(other) == await everything(fresh)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "QUIET_S", 0.015)
        patch.setattr(appendlog, "GONE_S", 0.03)
        run(work())

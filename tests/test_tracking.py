"""The sender's view: what became of a message, who holds what."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from mq_server.errors import UnknownChannel, UnknownReference
from mq_server.mailroom import Mailroom
from mq_server.outcomes import Progress
from tests.support import ask, known_id, line, write


async def progress(room: Mailroom, reference: str = "narrator:1") -> Progress:
    """How far a message has come on its way to the only reader that has to do with it."""
    found = await room.status(reference)
    assert len(found.progress) == 1
    return found.progress[0]


def test_every_rung_of_the_ladder_is_told_with_who_and_when(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        assert (await progress(room)).state == "stored"
        await room.read("narrator", consumer="one")
        fetched = await progress(room)
        assert (fetched.state, [step.consumer for step in fetched.steps]) == ("fetched", ["one"])
        await room.read("narrator", lease_s=60, consumer="two")
        claimed = await progress(room)
        assert (claimed.state, claimed.deliveries) == ("claimed", 1)
        assert 0 < claimed.left_s <= 60
        assert [(step.did, step.consumer) for step in claimed.steps] == [("fetched", "one"), ("claimed", "two")]
        await room.settle("narrator", release="narrator:1", consumer="two", delay_s=60)
        assert (await progress(room)).state == "withheld"
        await room.settle("narrator", reject="narrator:1", consumer="two", reason="no rain")
        rejected = await progress(room)
        assert (rejected.state, rejected.steps[-1].did, rejected.steps[-1].reason) == (
            "rejected",
            "rejected",
            "no rain",
        )
        assert rejected.steps[-1].timestamp > rejected.steps[0].timestamp
        await room.settle("narrator", reopen="narrator:1")
        await room.settle("narrator", ack="narrator:1", consumer="three")
        acked = await progress(room)
        assert (acked.state, acked.steps[-1].consumer) == ("acked", "three")

    ask(tmp_path, work)


@pytest.mark.parametrize("closes", [False, True], ids=["goes on", "closes"])
def test_others_are_told_of_a_fetch_once_it_is_answered(tmp_path: Path, closes: bool) -> None:
    write(tmp_path / "narrator.jsonl", line(0))
    noted = tmp_path / ".mq" / "leases" / "narrator.log"

    async def work(room: Mailroom) -> None:
        assert (await room.read("narrator")).messages
        assert not noted.exists(), "nobody waits for what others are told"
        assert (await progress(room)).state == "fetched"
        async with asyncio.timeout(10):
            while not (closes or noted.exists()):
                await asyncio.sleep(0.001)
        await room.close()
        async with Mailroom(tmp_path) as other:
            assert (await progress(other)).state == "fetched"

    ask(tmp_path, work)


def test_a_seek_and_an_expiry_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", line(0), line(1, expires_at="2026-09-21T15:00:00Z"))

    async def work(room: Mailroom) -> None:
        assert [(await progress(room, f"narrator:{number}")).state for number in (1, 2)] == ["stored", "expired"]
        await room.settle("narrator", seek="now")
        assert (await progress(room)).state == "passed"

    ask(tmp_path, work)


def test_copies_and_other_readers_are_told_each(tmp_path: Path) -> None:
    for channel in ("dialogist", "narrator"):
        write(tmp_path / f"{channel}.jsonl", line(0, id=known_id(0), to=["narrator", "dialogist"], channel=channel))

    async def work(room: Mailroom) -> None:
        await room.settle("narrator", ack=known_id(0), reader="writer")
        found = await room.status(known_id(0))
        assert [(each.channel, each.reader, each.state) for each in found.progress] == [
            ("dialogist", "dialogist", "stored"),
            ("narrator", "narrator", "stored"),
            ("narrator", "writer", "acked"),
        ]

    ask(tmp_path, work)


def test_a_receipt_tells_on_any_machine_and_a_lease_on_its_own(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", line(0), line(1))

    async def settle(room: Mailroom) -> None:
        await room.read("narrator", lease_s=60)
        await room.settle("narrator", ack="narrator:1")

    async def look(room: Mailroom) -> None:
        assert [(await progress(room, f"narrator:{number}")).state for number in (1, 2)] == ["acked", "stored"]

    ask(tmp_path, settle)
    shutil.rmtree(tmp_path / ".mq")
    ask(tmp_path, look)


def test_a_channel_tells_how_far_its_readers_are_and_what_is_held(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", *map(line, range(4)))

    async def work(room: Mailroom) -> None:
        await room.settle("narrator", ack="narrator:1", reader="writer")
        await room.read("narrator", lease_s=60, limit=2, consumer="one")
        await room.settle("narrator", release="narrator:2", consumer="one", delay_s=30)
        found = await room.channel_status("narrator")
        assert (found.messages, found.waiting) == (4, 0)
        assert [(reader.reader, reader.unread) for reader in found.readers] == [("narrator", 4), ("writer", 3)]
        assert [(held.message.line, held.consumer, held.deliveries) for held in found.held] == [
            (1, "one", 1),
            (2, "", 1),
        ]
        assert found.readers[0].last_read is not None

    ask(tmp_path, work)


def test_what_is_not_there_has_no_status(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", line(0))

    async def work(room: Mailroom) -> None:
        with pytest.raises(UnknownReference):
            await room.status("narrator:2")
        with pytest.raises(UnknownChannel, match="Did you mean 'narrator'"):
            await room.channel_status("narator")
        with pytest.raises(UnknownChannel):
            await room.channel_status("dialogist")

    ask(tmp_path, work)


def test_a_question_is_answered_by_anybody_but_its_sender(tmp_path: Path) -> None:
    question = {"sender": "narrator", "msg_type": "query"}
    write(
        tmp_path / "dialogist.jsonl",
        line(0, id=known_id(0), **question),
        line(1, id=known_id(1), **question),
        line(2, reply_to=known_id(1), sender="narrator"),
        line(3, id=known_id(3), **question),
        line(4, id=known_id(4), replaces=known_id(3), **question),
    )
    write(tmp_path / "narrator.jsonl", line(5, reply_to=known_id(0), sender="dialogist"))

    async def unanswered(room: Mailroom) -> list[str]:
        return [message.id for message in (await room.directory("narrator")).unanswered]

    assert ask(tmp_path, unanswered) == [known_id(1), known_id(4)]
    write(tmp_path / "writer.jsonl", line(6, reply_to=known_id(3), sender="writer"))
    assert ask(tmp_path, unanswered) == [known_id(1)], "an answer to the first version is one"

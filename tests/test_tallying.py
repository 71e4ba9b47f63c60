"""Who wrote when, and to whom how often."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mq_server.mailroom import Mailroom
from mq_server.message import encode_line
from tests.rendering import said
from tests.serving import run

CHANNELS = ("dialogist", "narrator", "writer")


def test_traffic_counts_each_message_once_and_each_copy_by_its_mailbox(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path) as room:
            note = {"msg_type": "note", "payload": {"text": "x"}}
            first = await room.post("narrator", sender="writer", **note)
            both = await room.post(["narrator", "dialogist"], sender="writer", **note)
            await room.post("writer", sender="narrator", **note)
            corrected = await room.post(sender="writer", replaces=first.id, **note)
            traffic = await room.traffic()
            assert sorted(sent.sender for sent in traffic.sent) == ["narrator", "writer", "writer"]
            assert {both.message.time_us, corrected.message.time_us} <= {sent.time_us for sent in traffic.sent}
            assert traffic.pairs == {
                ("writer", "narrator"): 2,
                ("writer", "dialogist"): 1,
                ("narrator", "writer"): 1,
            }
            assert len((await room.traffic(since=both.id)).sent) == 3
            assert len((await room.traffic(until=both.id)).sent) == 0
            assert len((await room.traffic(since=corrected.id)).sent) == 1

    run(scenario())


@given(
    lines=st.lists(st.tuples(st.sampled_from(CHANNELS), st.integers(0, 9)), min_size=1, max_size=30),
    asked=st.sets(st.sampled_from(CHANNELS)),
    row=st.integers(-2, 40),
)
def test_rows_are_counted_as_the_timeline_is_ordered(lines: list[tuple[str, int]], asked: set[str], row: int) -> None:
    """Several messages of one moment, files out of order, copies: rows before a message, and the message at a row."""
    messages = [
        said(number, "note", {"text": "x"}, channel=channel, timestamp=said(second, "note", {}).timestamp)
        for number, (channel, second) in enumerate(lines, 1)
    ]
    counted = sorted((each.time_us, each.id) for each in messages if not asked or each.channel in asked)

    async def scenario(root: Path) -> None:
        async with Mailroom(root) as room:
            channel = sorted(asked) or None
            places, total = await room.rows_before([each.id for each in messages], channel=channel)
            assert total == len(counted)
            assert places == [sum(key < (each.time_us, each.id) for key in counted) for each in messages]
            found = await room.id_at(row, channel=channel)
            assert found == (counted[min(max(row, 0), len(counted) - 1)][1] if counted else None)

    with tempfile.TemporaryDirectory() as folder:
        for name in CHANNELS:
            stored = [encode_line(each.stored()) for each in messages if each.channel == name]
            (Path(folder) / f"{name}.jsonl").write_bytes(b"".join(stored))
        asyncio.run(scenario(Path(folder)))


def test_every_copy_is_a_row(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path) as room:
            assert await room.id_at(0) is None
            assert await room.rows_before([]) == ([], 0)
            first = await room.post(["narrator", "dialogist"], sender="writer", msg_type="note", payload={"text": "x"})
            second = await room.post("narrator", sender="writer", msg_type="note", payload={"text": "y"})
            assert await room.rows_before([first.id, second.id]) == ([0, 2], 3)
            assert await room.rows_before([second.id], channel="narrator") == ([1], 2)
            assert [await room.id_at(row) for row in range(3)] == [first.id, first.id, second.id]

    run(scenario())

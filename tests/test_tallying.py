"""Who wrote when, and to whom how often."""

from __future__ import annotations

from pathlib import Path

from mq_server.mailroom import Mailroom
from tests.serving import run


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

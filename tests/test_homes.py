"""Which mailboxes are asked for an id: all that know it, and few that don't."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import homes
from mq_server.chains import LOW
from mq_server.columns import ChannelIndex
from mq_server.homes import Homes
from mq_server.index import Index
from mq_server.names import id_number
from tests.support import indexed, known_id, line

IDS = [known_id(number)[:-3] + end for number in range(30) for end in ("AAA", "0AA", "XYZ")[: 1 + number % 3]]
LINES = st.lists(st.tuples(st.integers(0, len(IDS) - 1), st.none() | st.integers(0, len(IDS) - 1)), max_size=12)
STEPS = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["append", "replace", "remove"]), LINES))


def stored(lines: list[tuple[int, int | None]]) -> list[bytes]:
    """The lines of messages, some of which answer others."""
    return [
        line(0, id=IDS[number], **({} if parent is None else {"reply_to": IDS[parent]})) for number, parent in lines
    ]


def knows(index: ChannelIndex, identity: int) -> bool:
    """Whether a mailbox has a message, or an answer to it."""
    return identity in index.rows or bool(index.replies.get(identity))


@given(STEPS, st.integers(0, 20), st.sampled_from([4, 1 << 10]))
def test_every_mailbox_that_knows_an_id_is_asked_whatever_came_before(
    steps: list[tuple[str, str, Any]], long_rows: int, slots: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(homes, "_LONG_ROWS", long_rows)
        patch.setattr(homes, "_FIRST_SLOTS", slots)
        index, asked, boxes = Index(), Homes(), dict[str, list[bytes]]()
        for name, step, lines in steps:
            if step == "append" and name in index.channels:
                boxes[name] += stored(lines)
                data = b"".join(boxes[name])
                channel = index.channels[name]
                channel._files[0] = channel._files[0]._replace(
                    read_line=lambda at, length, data=data: data[at : at + length]
                )
                offset = sum(map(len, boxes[name][: len(boxes[name]) - len(lines)]))
                for number, text in enumerate(stored(lines), len(boxes[name]) - len(lines) + 1):
                    channel.add(offset, number, text[:-1])
                    offset += len(text)
            elif step == "remove":
                index.channels.pop(name, None)
            else:
                boxes[name] = stored(lines)
                index.channels[name] = indexed(boxes[name], name, index.names)
            asked.keep_up(index.channels, index.names.change)
            for text in IDS:
                identity = id_number(text)
                found = [home.name for home in asked.of(identity & LOW)]
                assert len(found) == len({*found}) and {*found} <= index.channels.keys()
                assert {*found} >= {name for name, each in index.channels.items() if knows(each, identity)}
                ending = [home.name for home in asked.of(id_number(text[-4:]), 20)]
                assert {*ending} >= {name for name, each in index.channels.items() if any(each.ends_with(text[-4:]))}


def test_few_of_hundreds_of_mailboxes_are_asked() -> None:
    index, asked = Index(), Homes()
    for channel in range(300):
        lines = [line(number, id=known_id(channel * 20 + number)) for number in range(20)]
        index.channels[f"c{channel}"] = indexed(lines, f"c{channel}", index.names)
    asked.keep_up(index.channels, index.names.change)
    counts = [len(asked.of(id_number(known_id(number)) & LOW)) for number in range(300 * 20)]
    assert sum(counts) < 3 * len(counts)
    assert len(asked.of(id_number(known_id(9999)) & LOW)) < 30

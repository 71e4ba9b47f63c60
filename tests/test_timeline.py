"""The order across channels, window by window."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import timeline
from mq_server.columns import Names, Place
from mq_server.index import Filter, Index
from mq_server.names import format_time
from mq_server.timeline import Stretch, cut, windows
from tests.support import START_US, indexed, known_id, line

MESSAGES = st.lists(
    st.tuples(st.integers(0, 40), st.sets(st.sampled_from("abcd"), min_size=1, max_size=2), st.sampled_from("xy")),
    max_size=60,
)


def joined(messages: list[tuple[int, set[str], str]]) -> Index:
    """Channels that hold messages of these moments; many share one, and files are in any order."""
    index = Index()
    boxes: dict[str, list[bytes]] = {}
    for number, (moment, channels, sender) in enumerate(messages):
        time = format_time(START_US + moment * 1000)
        for name in channels:
            boxes.setdefault(name, []).append(line(0, id=known_id(number * 7 % 61), timestamp=time, sender=sender))
    for name, lines in boxes.items():
        index.channels[name] = indexed(lines, name, index.names)
    return index


def by_hand(index: Index, wanted: Filter) -> list[Place]:
    """The same by sorting everything."""
    rows: dict[tuple[int, int], Place] = {}
    for name, channel in sorted(index.channels.items()):
        for row in range(len(channel)):
            fits = wanted.sender in (None, channel.sender(row)) and (not wanted.channels or wanted.channels(name))
            time_us = channel.times_us[row]
            if fits and (wanted.since_us or 0) <= time_us < (wanted.until_us or 1 << 62):
                rows.setdefault(channel.key(row), Place(name, row))
    return [rows[key] for key in sorted(rows)]


@given(MESSAGES, st.integers(1, 9), st.data())
def test_windows_give_what_sorting_everything_gives(
    messages: list[tuple[int, set[str], str]], size: int, data: st.DataObject
) -> None:
    index = joined(messages)
    moments = st.none() | st.integers(0, 41).map(lambda moment: START_US + moment * 1000)
    wanted = Filter(
        channels=data.draw(st.sampled_from([None, "abc".__contains__])),
        sender=data.draw(st.sampled_from([None, "x", "nobody"])),
        since_us=data.draw(moments),
        until_us=data.draw(moments),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "_FIRST_ROWS", size)
        patch.setattr(timeline, "_MOST_ROWS", 2 * size)
        expected = by_hand(index, wanted)
        assert list(index.timeline(wanted)) == expected
        assert list(index.timeline(wanted, newest_first=True)) == expected[::-1]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.integers(1, 50), st.booleans())
def test_a_window_is_about_as_long_as_it_was_meant_to_be(lengths: list[int], size: int, newest_first: bool) -> None:
    names, number = Names(), 0
    stretches = []
    for channel, length in enumerate(lengths):
        lines = []
        for _ in range(length):
            lines.append(line(number, id=known_id(number)))
            number += 1
        stretches.append(Stretch(indexed(lines, f"c{channel}", names), None, None))
    stretches = [stretch for stretch in stretches if stretch.stop]
    if stretches:
        taken, _ = cut(stretches, size, newest_first=newest_first)
        count = sum(len(rows) for _, rows in taken)
        assert min(size, max(lengths), 1) <= count <= (size + 1) * len(lengths)


def test_one_channel_that_outweighs_the_others_makes_no_long_window() -> None:
    names = Names()
    busy = indexed([line(number + 100) for number in range(2000)], "busy", names)
    idle = [indexed([line(number)], f"idle{number}", names) for number in range(9)]
    channels = [(each.newest_us(), each) for each in [busy, *idle]]
    first: Any = next(windows(channels, lambda _, rows: rows, newest_first=True))
    assert 100 <= len(first) <= 220

"""The mailboxes joined: names for messages, the common order, threads, amendments."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.columns import Place
from mq_server.errors import AmbiguousReference, UnknownReference
from mq_server.index import Filter, Index
from mq_server.names import id_number, id_text, parse_reference
from tests.support import START_US, append, indexed, known_id, line, merged_both_ways, new_log

IDS = [known_id(number) for number in range(20)]
NUMBERS = [id_number(identity) for identity in IDS]
UNKNOWN = known_id(99)


def said(number: int, reply_to: int | None = None, replaces: int | None = None, **keys: Any) -> bytes:
    """Message `number`, answering or correcting another one."""
    if reply_to is not None:
        keys["reply_to"] = IDS[reply_to]
    if replaces is not None:
        keys["replaces"] = IDS[replaces]
    return line(number, id=IDS[number], **keys)


def joined(**channels: list[bytes]) -> Index:
    index = Index()
    for name, lines in channels.items():
        index.channels[name] = indexed(lines, name, index.names)
    return index


def number_of(index: Index, place: Place) -> int:
    """Which of the messages stands there."""
    return NUMBERS.index(index.channels[place.channel].identity(place.row))


def thread(index: Index, number: int) -> list[tuple[int, int]]:
    """(message, depth) of a thread."""
    place = index.find(NUMBERS[number])
    assert place is not None
    return [(number_of(index, node.place), node.depth) for node in index.thread(place)]


def timeline(index: Index, *, newest_first: bool = False, **wanted: Any) -> list[int]:
    return [number_of(index, place) for place in index.timeline(Filter(**wanted), newest_first=newest_first)]


# --- threads ---------------------------------------------------------------------------------------------------------


def test_a_thread_crosses_channels_with_parents_first_and_siblings_by_time() -> None:
    index = joined(
        a=[said(0), said(3, 1), said(6, 0)],
        b=[said(1, 0), said(5, 4), said(2, 0)],
        c=[said(4, 3), said(7)],
    )
    expected = [(0, 0), (1, 1), (3, 2), (4, 3), (5, 4), (2, 1), (6, 1)]
    for member in range(7):
        assert thread(index, member) == expected
    assert thread(index, 7) == [(7, 0)]


def test_an_orphan_heads_a_thread_of_its_own() -> None:
    index = joined(a=[line(0, id=IDS[0], reply_to=UNKNOWN), said(1, 0)], b=[line(2, id=IDS[2], reply_to=UNKNOWN)])
    assert thread(index, 1) == [(0, 0), (1, 1)]
    assert thread(index, 2) == [(2, 0)]


def test_replies_in_a_circle_hang_on_the_earliest() -> None:
    index = joined(a=[said(2, 3), said(1, 2), said(4, 1)], b=[said(3, 1), said(5, 5)])
    for member in (1, 2, 3, 4):
        assert thread(index, member) == [(1, 0), (3, 1), (2, 2), (4, 1)]
    assert thread(index, 5) == [(5, 0)]


def test_a_thread_may_be_very_deep() -> None:
    identities = [known_id(number) for number in range(3000)]
    lines = [
        line(number, id=identity, **({"reply_to": identities[number - 1]} if number else {}))
        for number, identity in enumerate(identities)
    ]
    index = joined(a=lines)
    nodes = index.thread(Place("a", 1500))
    assert [node.depth for node in nodes] == list(range(3000))


def test_copies_of_a_message_are_shown_once() -> None:
    index = joined(b=[said(0), said(1, 0)], a=[said(1, 0), said(2, 1)], c=[said(1, 0)])
    assert thread(index, 2) == [(0, 0), (1, 1), (2, 2)]
    assert timeline(index) == [0, 1, 2]
    assert index.find(NUMBERS[1]) == Place("a", 0)
    assert timeline(index, channels="c".__eq__) == [1]


# --- amendments ------------------------------------------------------------------------------------------------------


def test_a_correction_stands_where_the_original_stood() -> None:
    index = joined(a=[said(0), said(1, 0), said(2, 0)], b=[said(3, replaces=1), said(4, 1), said(5, 3)])
    assert thread(index, 0) == [(0, 0), (3, 1), (4, 2), (5, 2), (2, 1)]
    for version in (1, 3):
        assert thread(index, version) == thread(index, 0)
    assert timeline(index) == [0, 2, 3, 4, 5]


def test_corrections_of_corrections_and_rivals_lead_to_the_newest_of_all() -> None:
    index = joined(a=[said(0), said(1, replaces=0), said(4, replaces=1), said(3, replaces=0), said(2, replaces=0)])
    amendments = index.amendments()
    assert {amendments.original(NUMBERS[number]) for number in range(5)} == {NUMBERS[0]}
    assert amendments.newest(NUMBERS[0]) == NUMBERS[4]
    assert amendments.superseded == {NUMBERS[number] for number in range(4)}
    assert timeline(index) == [4]
    assert thread(index, 2) == [(4, 0)]


def test_a_correction_of_an_unknown_message_is_a_message_until_the_other_comes() -> None:
    index = joined(a=[said(1, replaces=0)])
    assert timeline(index) == [1]
    assert not index.amendments().corrects
    index.channels["b"] = indexed([said(0)], "b", index.names)
    assert timeline(index) == [1]
    assert index.amendments().superseded == {NUMBERS[0]}


def test_corrections_in_a_circle_still_show_one() -> None:
    index = joined(a=[said(0, replaces=2), said(1, replaces=0), said(2, replaces=1), said(3, replaces=2)])
    assert timeline(index) == [3]
    assert index.amendments().superseded == {NUMBERS[0], NUMBERS[1], NUMBERS[2]}
    assert thread(index, 1) == [(3, 0)]


def test_a_circle_of_corrections_stands_where_its_smallest_id_answers() -> None:
    index = joined(a=[said(0), said(1, reply_to=0, replaces=2), said(2, replaces=1)])
    for member in range(3):
        assert thread(index, member) == [(0, 0), (2, 1)]


def test_a_correction_that_answers_what_it_corrects_is_no_reply_to_it() -> None:
    index = joined(a=[said(0), said(1, reply_to=0, replaces=0), said(2, 1)])
    assert thread(index, 0) == [(1, 0), (2, 1)]


def test_a_long_chain_of_corrections_is_followed() -> None:
    identities = [known_id(number) for number in range(2000)]
    lines = [
        line(number, id=identity, **({"replaces": identities[number - 1]} if number else {}))
        for number, identity in enumerate(identities)
    ]
    amendments = joined(a=lines).amendments()
    assert amendments.newest(id_number(identities[0])) == id_number(identities[-1])
    assert amendments.original(id_number(identities[-1])) == id_number(identities[0])


# --- names -----------------------------------------------------------------------------------------------------------


def resolved(index: Index, text: str) -> int:
    return number_of(index, index.resolve(parse_reference(text), text))


def test_a_message_is_found_by_each_of_its_names() -> None:
    index = joined(narrator=[b"\n", said(0), said(1)], dialogist=[said(2)])
    end = IDS[1][-4:]
    for name in (IDS[1], IDS[1].lower(), IDS[1][-9:], "narrator:3", f"narrator:3~{end}", f"narrator:3~{IDS[1]}"):
        assert resolved(index, name) == 1


def test_the_id_decides_when_a_line_has_moved() -> None:
    index = joined(narrator=[said(0), said(1)])
    assert resolved(index, f"narrator:1~{IDS[1][-6:]}") == 1
    assert resolved(index, f"narrator:99~{IDS[0][-6:]}") == 0


def test_a_copy_is_not_ambiguous_and_its_ref_names_the_place() -> None:
    index = joined(narrator=[said(0)], dialogist=[said(1), said(0)])
    assert index.resolve(parse_reference(IDS[0]), "") == Place("dialogist", 1)
    assert index.resolve(parse_reference(IDS[0][-8:]), "") == Place("dialogist", 1)
    assert index.resolve(parse_reference("narrator:1"), "") == Place("narrator", 0)


def test_an_end_that_fits_several_names_the_candidates() -> None:
    twins = [known_id(number)[:-5] + "ABCDE" for number in (0, 5)]
    index = joined(a=[line(0, id=twins[0])], b=[line(5, id=twins[1])])
    with pytest.raises(AmbiguousReference, match="'ABCDE' fits 2 messages; give more of the id") as caught:
        index.resolve(parse_reference("ABCDE"), "ABCDE")
    assert all(twin in str(caught.value) for twin in twins)
    assert index.resolve(parse_reference("b:1~ABCDE"), "") == Place("b", 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (UNKNOWN, "No message is named"),
        ("narrator:9", "narrator has no readable message on line 9"),
        ("narrator:2", "narrator has no readable message on line 2"),
        ("dialogist:1", "There is no channel 'dialogist'"),
        ("narrator:1~ZZZZ", "No message is named"),
        ("gibberish!", "Use an id or a ref from an earlier answer, or channel:line"),
    ],
)
def test_a_name_of_nothing_says_what_would_be_one(text: str, words: str) -> None:
    index = joined(narrator=[said(0), b"garbage\n"])
    with pytest.raises(UnknownReference, match=words):
        index.resolve(parse_reference(text), text)


# --- the common order ------------------------------------------------------------------------------------------------


def test_the_timeline_is_by_time_and_then_by_id_whatever_the_files_say() -> None:
    same = sorted(known_id(0)[:-1] + end for end in "XYZ")
    index = joined(b=[line(0, id=same[1]), said(9), said(5)], a=[said(7), line(0, id=same[2])], c=[line(0, id=same[0])])
    order = [id_text(index.channels[at.channel].identity(at.row)) for at in index.timeline(Filter())]
    assert order == [*same, IDS[5], IDS[7], IDS[9]]
    assert [*index.timeline(Filter(), newest_first=True)] == [*index.timeline(Filter())][::-1]


def test_a_filter_leaves_out_what_does_not_fit() -> None:
    index = joined(
        a=[said(0, sender="x"), said(1, scene="s1", sender="x"), said(2, scene="s1", msg_type="score")],
        b=[said(3, scene="s2"), said(4)],
    )
    assert timeline(index, sender="x") == [0, 1]
    assert timeline(index, scene="s1", msg_type="score") == [2]
    assert timeline(index, scene="nowhere") == []
    assert timeline(index, since_us=START_US + 2000) == [2, 3, 4]
    assert timeline(index, until_us=START_US + 2000, newest_first=True) == [1, 0]
    assert timeline(index, channels=lambda name: name > "a") == [3, 4]


# --- anything --------------------------------------------------------------------------------------------------------

CHANNELS = ("a", "b", "c")
MESSAGES = st.lists(
    st.tuples(
        st.none() | st.integers(0, 11),
        st.none() | st.none() | st.integers(0, 11),
        st.sets(st.sampled_from(CHANNELS), min_size=1),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


def mailboxes(messages: list[tuple[int | None, int | None, set[str], int]]) -> dict[str, list[bytes]]:
    """The lines of messages that answer and correct each other at random, some with one timestamp."""
    boxes: dict[str, list[bytes]] = {name: [] for name in CHANNELS}
    for number, (parent, original, channels, moment) in enumerate(messages):
        keys: dict[str, Any] = {}
        if parent is not None:
            keys["reply_to"] = IDS[parent]
        if original is not None and original != number:
            keys["replaces"] = IDS[original]
        for name in channels:
            boxes[name].append(line(moment, id=IDS[number], **keys))
    return boxes


def answers(index: Index) -> dict[str, object]:
    """What queries say, without the places, which depend on a file's order."""
    amendments = index.amendments()
    known = [number for number in range(len(IDS)) if index.find(NUMBERS[number]) is not None]
    return {
        "threads": {number: thread(index, number) for number in known},
        "activity": timeline(index),
        "newest first": timeline(index, newest_first=True),
        "one channel": [timeline(index, channels=name.__eq__) for name in CHANNELS],
        "superseded": amendments.superseded,
        "corrects": amendments.corrects,
    }


@given(MESSAGES, st.randoms(use_true_random=False))
def test_no_answer_depends_on_the_order_of_lines_or_files(messages: Any, chance: Any) -> None:
    boxes = mailboxes(messages)
    expected = answers(joined(**boxes))
    for _ in range(3):
        names = list(boxes)
        chance.shuffle(names)
        for lines in boxes.values():
            chance.shuffle(lines)
        assert answers(joined(**{name: boxes[name] for name in names})) == expected


@given(MESSAGES)
def test_every_message_is_in_one_thread_once_with_its_parent_above_it(messages: Any) -> None:
    index = joined(**mailboxes(messages))
    amendments = index.amendments()
    known = [number for number in range(len(messages)) if index.find(NUMBERS[number]) is not None]
    threads = {tuple(thread(index, number)) for number in known}
    shown = [number for members in threads for number, _ in members]
    assert sorted(shown) == [number for number in known if NUMBERS[number] not in amendments.superseded]
    for number in known:
        newest = NUMBERS.index(amendments.newest(amendments.original(NUMBERS[number])))
        members = thread(index, number)
        assert newest in dict(members)
        assert [depth for _, depth in members].count(0) == 1
        for (_, above), (_, depth) in pairwise(members):
            assert 1 <= depth <= above + 1


@given(MESSAGES, st.data())
def test_an_index_that_grew_answers_as_one_built_at_once(messages: Any, data: st.DataObject) -> None:
    boxes = mailboxes(messages)
    index = joined(**{name: [] for name in CHANNELS})
    buffers = {name: b"".join(lines) for name, lines in boxes.items()}
    so_far: dict[str, list[bytes]] = {name: [] for name in CHANNELS}
    for name in CHANNELS:
        buffer = buffers[name]
        index.channels[name]._read_line = lambda at, length, buffer=buffer: buffer[at : at + length]  # type: ignore[misc]
    waiting = [(name, text) for name, lines in boxes.items() for text in lines]
    while waiting:
        name, text = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)) if len(waiting) > 1 else 0)
        if text != boxes[name][len(so_far[name])]:
            waiting.append((name, text))
            continue
        offset = sum(map(len, so_far[name]))
        so_far[name].append(text)
        index.channels[name].add(offset, len(so_far[name]), text[:-1])
        if data.draw(st.booleans()):
            assert answers(index) == answers(joined(**so_far))
    assert answers(index) == answers(joined(**boxes))


def test_every_merge_order_gives_the_same_threads_and_the_same_activity(tmp_path: Path) -> None:
    def posts(*numbers: int) -> Any:
        def post(folder: Path) -> None:
            for number in numbers:
                parent = number // 2 if number else None
                for name in CHANNELS[: 1 + number % 3]:
                    append(new_log(folder, name), said(number, parent, 3 if number in (8, 13) else None))

        return post

    branches = [posts(4, 7, 8, 10), posts(5, 6, 9), posts(11, 12, 13)]
    clones = merged_both_ways(tmp_path, branches, posts(0, 1, 2, 3))
    files = [{name: (clone / f"{name}.jsonl").read_bytes() for name in CHANNELS} for clone in clones]
    assert files[0] != files[1], "the order of lines does depend on the direction"
    forth, back = (joined(**{name: data.splitlines(keepends=True) for name, data in boxes.items()}) for boxes in files)
    assert answers(forth) == answers(back)
    assert timeline(forth) == [number for number in range(14) if number not in (3, 8)]
    assert not any(channel.problems for index in (forth, back) for channel in index.channels.values())

"""One mailbox as columns."""

from __future__ import annotations

import threading
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import columns, orders
from mq_server.columns import ChannelIndex, Names
from mq_server.names import format_time, id_number, id_text
from tests.support import START_US, indexed, known_id, line

ID_A, ID_B = known_id(0), known_id(5)


def facts(channel: ChannelIndex) -> dict[str, object]:
    """Everything an index says."""
    rows = range(len(channel))
    return {
        "places": [(channel.offsets[row], channel.lengths[row], channel.lines[row]) for row in rows],
        "keys": [channel.key(row) for row in rows],
        "texts": [(channel.sender(row), channel.msg_type(row), channel.scene(row)) for row in rows],
        "order": list(channel.by_time()),
        "sums": [channel.sum_before(channel.key(row)) for row in rows] + [channel.sum_before((2**62, 0))],
        "rows": channel.rows,
        "replies": {parent: sorted(children) for parent, children in channel.replies.items() if children},
        "links": (channel.parents, channel.replaces, channel.expires_us, channel.urgent),
        "problems": sorted(channel.problems),
        "at_line": [channel.at_line(number) for number in range(30)],
        "from": [list(channel.rows_from(START_US + step * 1000)) for step in range(12)],
    }


def test_a_row_says_what_its_line_says() -> None:
    channel = indexed([line(3, id=ID_A, scene="s1", reply_to=ID_B, urgent=True, expires_at="2026-01-01T00:00:00Z")])
    assert len(channel) == 1
    assert channel.key(0) == (START_US + 3000, id_number(ID_A))
    assert (channel.sender(0), channel.msg_type(0), channel.scene(0)) == ("scene_director", "note", "s1")
    assert channel.parents == {0: id_number(ID_B)}
    assert channel.replies == {id_number(ID_B): [0]}
    assert channel.urgent == {0}
    assert channel.expires_us == {0: 1_767_225_600_000_000}
    assert not channel.problems


def test_identical_lines_are_one_message_and_no_problem() -> None:
    one, two = line(1), line(2)
    channel = indexed([one, two, one, two, one])
    assert len(channel) == 2
    assert not channel.problems
    assert list(channel.lines) == [1, 2]
    assert channel.at_line(5) == 0, "an editor shows the duplicate's line too"


def test_lines_of_one_id_with_other_bytes_are_each_a_problem_and_the_greatest_is_shown() -> None:
    small, great = line(1, id=ID_A, text="a"), line(1, id=ID_A, text="b")
    for lines, shown in (([small, great], 2), ([great, small], 1)):
        channel = indexed(lines)
        assert list(channel.lines) == [shown]
        assert [problem.line for problem in channel.problems] == [1, 2]
        assert f"id {ID_A} stands on another line with different content" in channel.problems[0].message
        assert channel.at_line(1) == channel.at_line(2) == 0


def test_a_greater_line_takes_the_links_of_its_own() -> None:
    small = line(1, id=ID_A, reply_to=ID_B, urgent=True, text="a")
    great = line(9, id=ID_A, sender="zz", text="b")
    channel = indexed([small, great])
    assert (channel.parents, channel.urgent, channel.sender(0)) == ({}, set(), "zz")
    assert channel.replies.get(id_number(ID_B), []) == []
    assert channel.rewritten == 1


def test_a_line_that_names_no_id_is_shown_and_reported() -> None:
    channel = indexed([line(1, reply_to="narrator:42", replaces="01kb", expires_at="soon")])
    assert len(channel) == 1
    assert not (channel.parents or channel.replaces or channel.expires_us)
    assert sorted(str(problem) for problem in channel.problems) == [
        "narrator.jsonl:1: 'expires_at' 'soon' is not an RFC 3339 time; it is ignored",
        "narrator.jsonl:1: 'replaces' '01kb' is not an id; it is ignored",
        "narrator.jsonl:1: 'reply_to' 'narrator:42' is not an id; it is ignored",
    ]


def test_a_bad_line_is_a_problem_with_its_number_and_stops_nothing() -> None:
    lines = [line(1), b"<<<<<<< HEAD\n", line(2), b"=======\n", b"[1]\n", b"\n", b"{}\n", b">>>>>>> x\n", line(3)[:-9]]
    channel = indexed(lines)
    assert list(channel.lines) == [1, 3]
    assert [problem.line for problem in channel.problems] == [2, 4, 5, 7, 8, 9]
    assert str(channel.problems[2]) == "narrator.jsonl:5: not a JSON object"


@pytest.mark.parametrize("length", [4, 5, 10, 13, 16, 20, 25, 26])
def test_a_message_is_found_by_any_end_of_its_id(length: int) -> None:
    identities = [known_id(number) for number in range(300)]
    channel = indexed([line(number, id=identity) for number, identity in enumerate(identities)])
    for row, identity in enumerate(identities):
        expected = [other for other in range(300) if identities[other].endswith(identity[-length:])]
        assert list(channel.ends_with(identity[-length:])) == expected
        assert row in expected


def test_no_message_ends_with_what_is_no_id() -> None:
    channel = indexed([line(1)])
    assert list(channel.ends_with("8" + "Z" * 25)) == []


def test_the_short_end_of_an_id_is_looked_up_and_not_searched_for() -> None:
    channel = indexed([line(number) for number in range(5000)])
    asked = 0

    class Counting(array):  # type: ignore[type-arg]
        def __getitem__(self, place: object) -> object:
            nonlocal asked
            asked += 1
            return super().__getitem__(place)  # type: ignore[call-overload]

    channel.rows.lows = Counting("Q", channel.rows.lows)
    assert 7 in channel.ends_with(id_text(channel.identity(7))[-4:])
    assert asked < 50


def test_the_newest_message_under_a_key_is_found_though_one_of_them_is_rewritten() -> None:
    lines = [
        line(3, sender="a", dedup_key="k"),
        line(9, sender="b", dedup_key="k"),
        line(2, sender="a", dedup_key="k"),
        line(4, id=ID_A, sender="a", dedup_key="k", text="a"),
    ]
    names = Names()
    channel = indexed(lines, names=names)
    assert channel.keyed(names.known("a"), "k") == 3
    assert channel.keyed(names.known("b"), "k") == 1
    assert channel.keyed(names.known("b"), "other") is None
    assert channel.keyed(names.known("nobody"), "k") is None
    names = Names()
    channel = indexed([*lines, line(4, id=ID_A, sender="a", text="b")], names=names)
    assert channel.keyed(names.known("a"), "k") == 0


def test_a_line_is_found_below_one_that_was_rewritten() -> None:
    lines = [line(0), line(1, id=ID_A, text="a"), *(line(number) for number in range(2, 8)), line(1, id=ID_A, text="b")]
    channel = indexed(lines)
    assert [channel.at_line(number) for number in range(11)] == [None, 0, 1, 2, 3, 4, 5, 6, 7, 1, None]


def test_sums_of_many_rows_are_sums_in_either_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "_SUMMED_ROWS", 16)
    for numbers in (range(300), [*range(100, 300), *range(100), *range(50, 60)]):
        channel = indexed([line(number) for number in numbers])
        assert [channel.id_sums[count] for count in range(len(channel) + 1)] == [
            sum(channel.ids_low[:count]) & (1 << 64) - 1 for count in range(len(channel) + 1)
        ]
        order = list(channel.by_time())
        for place, row in enumerate(order):
            expected = sum(channel.ids_low[each] for each in order[:place]) & (1 << 64) - 1
            assert channel.sum_before(channel.key(row)) == expected


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 12), st.integers(1, 4))
def test_rows_sorted_in_parts_are_sorted(times: list[int], sorted_rows: int, sampled: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "_SORTED_ROWS", sorted_rows)
        patch.setattr(orders, "_SAMPLED", sampled)
        parts = orders.sorted_rows(array("q", times), lambda row: row * 7 % 61)
        assert [row for part in parts for row in part] == sorted(
            range(len(times)), key=lambda row: (times[row], row * 7 % 61)
        )


def test_many_messages_of_one_moment_are_in_order_of_their_ids() -> None:
    lines = [line(0, timestamp=format_time(START_US + number % 3)) for number in range(400)]
    channel = indexed(lines)
    assert list(channel.by_time()) == sorted(range(400), key=channel.key)


LINES = st.lists(
    st.builds(
        lambda time, identity, sender, parent, replaces, urgent: line(
            time,
            id=[ID_A, ID_B, *(known_id(9)[:-2] + f"{number:02d}" for number in range(8))][identity],
            sender=sender,
            **({"reply_to": parent} if parent else {}),
            **({"replaces": replaces} if replaces else {}),
            **({"urgent": True} if urgent else {}),
        ),
        st.integers(0, 9),
        st.integers(0, 9),
        st.sampled_from("abc"),
        st.sampled_from(["", ID_A, ID_B]),
        st.sampled_from(["", ID_A]),
        st.booleans(),
    )
    | st.sampled_from([b"\n", b"garbage\n", b"=======\n"]),
    max_size=14,
)


@given(LINES, st.sampled_from([1, 2, 3, 256]))
def test_an_index_is_the_same_however_many_lines_are_taken_in_at_once(lines: list[bytes], count: int) -> None:
    expected = facts(indexed(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_BATCH_LINES", count)
        assert facts(indexed(lines)) == expected


@given(LINES, st.data())
def test_an_index_that_grew_says_what_one_built_at_once_says(lines: list[bytes], data: st.DataObject) -> None:
    buffer = b"".join(lines)
    grown = ChannelIndex("narrator", "narrator.jsonl", Names(), lambda at, length: buffer[at : at + length])
    offset = 0
    for number, text in enumerate(lines, start=1):
        if text.strip():
            grown.add(offset, number, text[:-1])
        offset += len(text)
        if data.draw(st.booleans()):
            assert facts(grown) == facts(indexed(lines[:number]))
    assert facts(grown) == facts(indexed(lines))


@given(LINES)
def test_the_order_by_time_is_that_of_timestamp_and_id(lines: list[bytes]) -> None:
    channel = indexed(lines)
    assert list(channel.by_time()) == sorted(range(len(channel)), key=channel.key)
    for step in range(-1, 11):
        key = (START_US + step * 1000, 0)
        expected = sum(channel.ids_low[row] for row in range(len(channel)) if channel.key(row) < key) & (1 << 64) - 1
        assert channel.sum_before(key) == expected
        assert list(channel.rows_from(key[0])) == [
            row for row in range(len(channel)) if channel.times_us[row] >= key[0]
        ]


@given(LINES, st.randoms(use_true_random=False))
def test_the_order_of_lines_decides_only_the_order_of_rows(lines: list[bytes], chance: object) -> None:
    shuffled = list(lines)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]

    def shown(channel: ChannelIndex) -> dict[int, object]:
        return {
            channel.identity(row): (
                *(channel.key(row), channel.sender(row), channel.parents.get(row), channel.replaces.get(row)),
                row in channel.urgent,
            )
            for row in range(len(channel))
        }

    one, other = indexed(lines), indexed(shuffled)
    assert shown(one) == shown(other)
    assert [one.key(row) for row in one.by_time()] == [other.key(row) for row in other.by_time()]


def test_late_messages_are_put_in_their_place_one_by_one_and_by_the_hundred() -> None:
    lines = [line(number) for number in range(1000, 1400)]
    channel = indexed(lines)
    assert channel.by_time() == range(400)
    for count in (1, 3, 200, 1):
        lines += [line(number) for number in range(count)]
        expected = indexed(lines)
        for number in range(len(lines) - count, len(lines)):
            channel.add(sum(map(len, lines[:number])), number + 1, lines[number][:-1])
        assert list(channel.by_time()) == sorted(range(len(channel)), key=channel.key)
        assert channel.sum_before((START_US + 500_000, 0)) == expected.sum_before((START_US + 500_000, 0))


def test_names_given_out_by_two_threads_at_once_are_different() -> None:
    names = Names()
    numbers: list[dict[str, int]] = []

    def give_out(first: int) -> None:
        numbers.append({str(number): names.number(str(number)) for number in range(first, first + 3000)})

    threads = [threading.Thread(target=give_out, args=(first,)) for first in (0, 1500, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for given_out in numbers:
        assert all(names.text(number) == text for text, number in given_out.items())


def test_the_times_are_those_of_the_lines() -> None:
    channel = indexed([line(1, timestamp=format_time(START_US + 7))])
    assert channel.times_us[0] == START_US + 7

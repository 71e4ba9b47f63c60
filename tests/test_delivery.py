"""Receipts and what is unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import delivery
from mq_server.blocks import Block
from mq_server.columns import ChannelIndex, Names
from mq_server.delivery import ReaderState, ReceiptIndex, Rows, Unread, receipt_fields
from mq_server.message import encode_line
from mq_server.names import format_time, id_number
from tests.support import START_US, append, indexed, known_id, line, merged_both_ways, new_log

IDS = [known_id(number) for number in range(8)]
NUMBERS = [id_number(identity) for identity in IDS]
MAILBOX = [line(number, id=identity) for number, identity in enumerate(IDS)]


def receipt(
    number: int, op: str, *messages: int, reader: str = "narrator", moment: int | None = None, after: int = 0
) -> bytes:
    """Receipt `number`, at a moment, about some messages."""
    time_us = START_US + (number if moment is None else moment) * 1000
    keys = receipt_fields(
        known_id(100 + number),
        format_time(time_us),
        "narrator",
        reader,
        reader,
        op,
        [IDS[message] for message in messages],
    )
    if op == "seek":
        keys["after"] = format_time(START_US + after * 1000)
    return encode_line(keys)


def folded(lines: list[bytes]) -> ReceiptIndex:
    data = b"".join(lines)
    index = ReceiptIndex("receipts/narrator.jsonl", lambda at, length: data[at : at + length])
    for offset, number, text in Block(0, 1, data).lines():
        index.add(offset, number, text)
    return index


def unread(lines: list[bytes], reader: str = "narrator", mailbox: ChannelIndex | None = None) -> list[int]:
    """Which of the messages are unread, built at once."""
    return list(Unread().rows(mailbox or indexed(MAILBOX), folded(lines).state(reader)))


def test_a_new_reader_has_everything_unread() -> None:
    assert unread([]) == list(range(8))
    assert unread([receipt(0, "ack", 1)], reader="dialogist") == list(range(8))


def test_what_is_acknowledged_or_rejected_is_read() -> None:
    assert unread([receipt(0, "ack", 1, 3), receipt(1, "reject", 0)]) == [2, 4, 5, 6, 7]


def test_the_first_to_settle_wins() -> None:
    lines = [receipt(2, "reject", 1), receipt(1, "ack", 1), receipt(3, "ack", 1)]
    for order in (lines, lines[::-1]):
        assert folded(order).state("narrator").settled[NUMBERS[1]].op == "ack"


def test_of_two_at_the_same_moment_the_smaller_id_is_first() -> None:
    lines = [receipt(2, "reject", 1, moment=0), receipt(1, "ack", 1, moment=0)]
    for order in (lines, lines[::-1]):
        assert folded(order).state("narrator").settled[NUMBERS[1]].op == "ack"


def test_reopened_is_unread_again_and_can_be_settled_again() -> None:
    lines = [receipt(0, "ack", 0, 1), receipt(1, "reopen", 1)]
    assert unread(lines) == [1, 2, 3, 4, 5, 6, 7]
    lines.append(receipt(2, "reject", 1))
    assert unread(lines) == [2, 3, 4, 5, 6, 7]
    assert folded(lines).state("narrator").settled[NUMBERS[1]].op == "reject"


def test_a_seek_settles_what_is_stamped_before_and_nothing_else() -> None:
    lines = [receipt(0, "ack", 6), receipt(1, "seek", after=3)]
    assert unread(lines) == [3, 4, 5, 6, 7]
    assert unread([*lines, receipt(2, "ack", 3)]) == [4, 5, 6, 7]
    assert unread([*lines, receipt(2, "reopen", 1)]) == [1, 3, 4, 5, 6, 7]
    assert unread([*lines, receipt(2, "reopen", 1), receipt(3, "seek", after=2)]) == [2, 3, 4, 5, 6, 7]
    assert unread([*lines, receipt(2, "seek", after=0)]) == list(range(8))


def test_a_seek_counts_for_what_a_merge_brings_later() -> None:
    mailbox = indexed([*MAILBOX[4:], *MAILBOX[:2]])
    assert unread([receipt(0, "seek", after=3)], mailbox=mailbox) == [0, 1, 2, 3]


def test_receipts_of_unknown_messages_are_kept_for_when_they_come() -> None:
    state = folded([receipt(0, "ack", 5)]).state("narrator")
    follower = Unread()
    channel = indexed(MAILBOX[:3])
    assert list(follower.rows(channel, state)) == [0, 1, 2]
    assert list(follower.rows(indexed(MAILBOX), state)) == [0, 1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "not a readable receipt"),
        (b"[]", "not a JSON object"),
        (receipt(0, "ack", 1).replace(b'"reader":"narrator",', b""), "'reader' must be a string"),
        (receipt(0, "ack", 1).replace(b'"ack"', b'"nod"'), "'op' 'nod' is none of ack, reject, reopen, seek"),
        (receipt(0, "ack", 1).replace(IDS[1].encode(), b"narrator:1"), "'ids' must be a list of message ids"),
        (receipt(0, "ack", 1).replace(b'Z","channel', b'","channel'), "20.000000' is not an RFC 3339 time"),
        (receipt(0, "seek").replace(b'"after"', b'"before"'), "'after' None is not an RFC 3339 time with a zone"),
    ],
)
def test_a_line_that_is_no_receipt_is_a_problem(text: bytes, words: str) -> None:
    index = folded([receipt(1, "ack", 2), text.rstrip() + b"\n", receipt(2, "ack", 3)])
    assert [problem.line for problem in index.problems] == [2]
    assert words in str(index.problems[0])
    assert index.problems[0].path == "receipts/narrator.jsonl"
    assert list(index.state("narrator").settled) == [NUMBERS[2], NUMBERS[3]]


def test_identical_receipts_are_one_and_no_problem() -> None:
    index = folded([receipt(0, "ack", 1)] * 3)
    assert not index.problems
    assert list(index.state("narrator").settled) == [NUMBERS[1]]


def test_receipts_of_one_id_with_other_bytes_are_problems_and_the_greatest_counts() -> None:
    small, great = receipt(0, "ack", 1), receipt(0, "ack", 2, reader="zz")
    for lines in ([small, great], [great, small]):
        index = folded(lines)
        assert [problem.line for problem in index.problems] == [1, 2]
        assert not index.state("narrator").settled
        assert list(index.state("zz").settled) == [NUMBERS[2]]


def test_late_receipts_by_the_thousand_are_folded_in_once(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = 0
    real_apply = ReaderState.apply

    def counting(self: ReaderState, one: Any) -> None:
        nonlocal applied
        applied += 1
        real_apply(self, one)

    monkeypatch.setattr(ReaderState, "apply", counting)
    lines = [receipt(number, "ack", number % 8) for number in [*range(0, 2000, 2), *range(1, 2000, 2)]]
    index = folded(lines)
    index.state("narrator")
    assert applied <= 2 * len(lines)


RECEIPTS = st.lists(
    st.tuples(
        st.sampled_from(["ack", "ack", "ack", "reject", "reopen", "seek"]),
        st.lists(st.integers(0, 7), max_size=3),
        st.sampled_from(["narrator", "dialogist"]),
        st.integers(0, 5),
        st.integers(0, 8),
    ),
    max_size=10,
)


def written(receipts: Any) -> list[bytes]:
    return [
        receipt(number, op, *messages, reader=reader, moment=moment, after=after)
        for number, (op, messages, reader, moment, after) in enumerate(receipts)
    ]


def state_of(index: ReceiptIndex) -> dict[str, object]:
    return {
        reader: (state.settled, state.reopened, state.seek_us)
        for reader in ("narrator", "dialogist")
        for state in [index.state(reader)]
    }


@given(RECEIPTS, st.randoms(use_true_random=False))
def test_the_state_does_not_depend_on_the_order_of_lines(receipts: Any, chance: Any) -> None:
    lines = written(receipts)
    expected = state_of(folded(lines))
    for _ in range(3):
        chance.shuffle(lines)
        assert state_of(folded(lines)) == expected
        assert state_of(folded(lines + lines)) == expected


@given(RECEIPTS, st.data())
def test_what_is_kept_up_step_by_step_is_what_is_built_at_once(receipts: Any, data: st.DataObject) -> None:
    conflicting = line(0, id=IDS[6], text="zzz")  # outranks, and has another timestamp
    incoming = data.draw(st.permutations([*written(receipts), *MAILBOX, conflicting]))
    mailbox_lines = [text for text in incoming if b"msg_type" in text]
    receipt_lines = [text for text in incoming if b"msg_type" not in text]
    mailbox_data, receipt_data = b"".join(mailbox_lines), b"".join(receipt_lines)
    channel = ChannelIndex("narrator", "narrator.jsonl", Names(), lambda at, length: mailbox_data[at : at + length])
    index = ReceiptIndex("", lambda at, length: receipt_data[at : at + length])
    followers = {reader: Unread() for reader in ("narrator", "dialogist")}
    offsets = [0, 0]
    seen: list[list[bytes]] = [[], []]
    for text in incoming:
        is_receipt = b"msg_type" not in text
        (index if is_receipt else channel).add(offsets[is_receipt], len(seen[is_receipt]) + 1, text[:-1])
        offsets[is_receipt] += len(text)
        seen[is_receipt].append(text)
        if data.draw(st.booleans()):
            for reader, follower in followers.items():
                fresh = Unread().rows(indexed(seen[0]), folded(seen[1]).state(reader))
                assert list(follower.rows(channel, index.state(reader))) == list(fresh)
    assert state_of(index) == state_of(folded(receipt_lines))


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["take out", "put in", "edit", "swap", "append", "archive", "settle"]),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=8,
)


@given(EDITS, st.sampled_from([0, 1000]))
def test_what_an_edited_mailbox_has_unread_is_what_is_built_at_once(edits: Any, always_carried: int) -> None:
    """Whatever an editor or a merge makes of the file, whose reading is then another one."""
    texts = [line(number, id=known_id(number)) for number in range(12)]
    receipts = [receipt(0, "seek", after=3), receipt(1, "ack", 5), receipt(2, "reopen", 1)]
    index, follower = folded(receipts), Unread()
    offset, archived = sum(map(len, receipts)), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_ALWAYS_CARRIED", always_carried)
        patch.setattr(delivery, "_COMPARED_ROWS", 4)
        for number, (what, one, other) in enumerate(edits):
            if what == "settle":
                receipts.append(receipt(10 + number, "reject", one % len(IDS), moment=50 + number))
                index.add(offset, len(receipts), receipts[-1][:-1])
                offset += len(receipts[-1])
            elif what == "archive":
                archived = one % 5
            elif what == "append":
                texts.append(line(40 + number, id=known_id(40 + number)))
            elif texts:
                at, to = one % len(texts), other % len(texts)
                if what == "take out":
                    del texts[at]
                elif what == "put in":
                    texts.insert(at, line(other, id=known_id(60 + number)))
                elif what == "edit":
                    texts[at] = line(other, id=known_id(70 + number), text="edited")
                else:
                    texts[at], texts[to] = texts[to], texts[at]
            mailbox = indexed(texts[:archived])
            mailbox.turn_to("narrator.jsonl", lambda at, length: b"")
            mailbox.extend((0, place, text[:-1]) for place, text in enumerate(texts[archived:], 1))
            state = index.state("narrator")
            rows = follower.rows(mailbox, state)
            fresh = [
                row
                for row in range(len(mailbox))
                if not state.is_settled(mailbox.identity(row), mailbox.times_us[row])
                and (row >= archived or mailbox.identity(row) in state.reopened)
            ]
            assert list(rows) == fresh == rows[:] == list(rows[0:])
            assert len(rows) == len(fresh)
            assert [row in rows for row in range(-1, 50)] == [row in fresh for row in range(-1, 50)]
            left = rows.without(range(-2, 50, 3)).without(fresh[::2])
            rest = [row for row in fresh[1::2] if row % 3 != 1]
            assert list(left) == rest == left[:] and len(left) == len(rest)
            assert [row in left for row in range(-1, 50)] == [row in rest for row in range(-1, 50)]
            assert list(rows) == fresh


def test_to_find_the_first_unread_takes_as_long_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    real = Rows._flagged
    monkeypatch.setattr(Rows, "_flagged", lambda rows, start: looked_at.append(start) or real(rows, start))
    rows = Rows(bytearray(50_000) + bytearray(b"\1") * 50_000)
    left = rows.without(range(50_000, 50_010))
    assert rows[:50] == list(range(50_000, 50_050)) and left[0] == 50_010 and len(left) == 49_990
    assert looked_at == [50_000, 50_000]
    assert list(left) == list(range(50_010, 100_000))


def test_an_edited_line_does_not_have_all_others_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [line(number, id=known_id(number)) for number in range(3000)]
    settled = [
        encode_line(
            receipt_fields(known_id(9000), format_time(START_US), "narrator", "narrator", "narrator", "ack", ids)
        )
        for ids in [[known_id(number) for number in range(2000)]]
    ]
    state, follower = folded(settled).state("narrator"), Unread()
    assert len(follower.rows(indexed(texts), state)) == 1000
    texts[1500] = line(1500, id=known_id(5000))
    edited = indexed(texts)
    looked_up = 0
    real = ChannelIndex.identity

    def counting(self: ChannelIndex, row: int) -> int:
        nonlocal looked_up
        looked_up += 1
        return real(self, row)

    monkeypatch.setattr(ChannelIndex, "identity", counting)
    monkeypatch.setattr(type(edited.rows), "get", lambda *_: pytest.fail("looked up"))
    assert len(follower.rows(edited, state)) == 1001
    assert looked_up == 1


def test_branches_that_each_acknowledge_merge_to_the_same_state_either_way(tmp_path: Path) -> None:
    def acknowledging(*lines: bytes) -> Any:
        return lambda folder: append(new_log(folder / "receipts", "narrator"), b"".join(lines))

    def base(folder: Path) -> None:
        append(new_log(folder), b"".join(MAILBOX))
        append(new_log(folder / "receipts", "narrator"), receipt(0, "ack", 0))

    branches = [
        acknowledging(receipt(1, "ack", 1, 2), receipt(4, "reopen", 5)),
        acknowledging(receipt(2, "reject", 2), receipt(3, "ack", 5, 6), receipt(5, "ack", 7, reader="dialogist")),
    ]
    states = []
    for clone in merged_both_ways(tmp_path, branches, base):
        lines = (clone / "receipts" / "narrator.jsonl").read_bytes().splitlines(keepends=True)
        assert len(lines) == 6
        assert unread(lines) == [3, 4, 5, 7]
        assert unread(lines, reader="dialogist") == [0, 1, 2, 3, 4, 5, 6]
        states.append(state_of(folded(lines)))
    assert states[0] == states[1]

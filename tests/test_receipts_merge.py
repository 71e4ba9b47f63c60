"""Receipts in git: branches that each settle merge to one state, in either direction, and settle on from there."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import store as store_module
from mq_server.blocks import Block
from mq_server.delivery import ReceiptIndex, receipt_fields
from mq_server.errors import NotSettled
from mq_server.mailroom import Mailroom
from mq_server.message import encode_line
from mq_server.names import format_time, id_number
from tests.support import START_US, ask, commit, git, known_id, line, write

READERS = ("narrator", "editor")
Work = Callable[[Mailroom], Awaitable[Any]]


def add(root: Path, *numbers: int, channel: str = "narrator") -> None:
    """Append messages to a mailbox, as somebody else would."""
    path = root / f"{channel}.jsonl"
    with path.open("ab") as file:
        file.write(b"".join(line(number, id=known_id(number)) for number in numbers))


def begin(root: Path, *numbers: int) -> Path:
    """A production in git, with the attributes that it makes for itself."""
    root.mkdir()
    git(root, "init", "-q")
    ask(root, lambda room: room.post("dialogist", sender="a", msg_type="note", payload={"text": "x"}))
    add(root, *numbers)
    commit(root)
    return root


def clone(origin: Path, name: str) -> Path:
    git(origin.parent, "clone", "-q", str(origin), name)
    return origin.parent / name


def merged(one: Path, two: Path) -> list[Path]:
    """Both directions: each clone with the other's branch merged into its own."""
    for root in (one, two):
        commit(root)
    heads = [git(root, "rev-parse", "HEAD").strip() for root in (one, two)]
    for root, other, head in ((one, two, heads[1]), (two, one, heads[0])):
        git(root, "fetch", "-q", str(other), "HEAD")
        git(root, "merge", "-q", "-m", "merge", head)
    return [one, two]


def unread(root: Path, reader: str = "narrator", channel: str = "narrator") -> list[int]:
    """Which messages are unread for a reader, oldest first, wherever in the file they stand."""
    page = ask(root, lambda room: room.read(channel, reader=reader))
    return sorted(next(n for n in range(200) if known_id(n) == message.id) for message in page.messages)


def problems(root: Path) -> list[str]:
    return [str(problem) for problem in ask(root, lambda room: room.check()).problems]


def settle(root: Path, **order: Any) -> Any:
    return ask(root, lambda room: room.settle("narrator", **order))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


# --- real git --------------------------------------------------------------------------------------------------------


def test_branches_that_settle_merge_to_the_same_unread_in_both_directions(tmp_path: Path) -> None:
    origin = begin(tmp_path / "origin", *range(10))
    settle(origin, ack=[known_id(0), known_id(1)])
    commit(origin)
    one, two = clone(origin, "one"), clone(origin, "two")
    settle(one, ack=[known_id(2), known_id(3)])
    settle(two, ack=[known_id(3), known_id(4)])
    settle(one, reject=known_id(5), reason="no verse")
    settle(two, reopen=known_id(0))
    settle(one, reader="editor", seek=known_id(4))
    settle(two, reader="editor", ack=known_id(7))
    settle(one, reader="editor", reopen=known_id(1))
    for root in merged(one, two):
        assert unread(root) == [0, 6, 7, 8, 9]
        assert unread(root, "editor") == [1, 4, 5, 6, 8, 9]
        assert problems(root) == []
        assert not git(root, "status", "--porcelain")
    assert sorted(lines(one / "receipts/narrator.jsonl")) == sorted(lines(two / "receipts/narrator.jsonl"))


def test_identical_rejections_on_both_branches_make_one_dead_letter(tmp_path: Path) -> None:
    origin = begin(tmp_path / "origin", *range(3))
    one, two = clone(origin, "one"), clone(origin, "two")
    letters = [settle(root, reject=known_id(1), reason="no verse").dead_letters for root in (one, two)]
    assert letters[0] == letters[1] and len(letters[0]) == 1
    assert lines(one / "dead_letters.jsonl") == lines(two / "dead_letters.jsonl")
    settle(two, reject=known_id(2), reason="too long")
    for root in merged(one, two):
        assert problems(root) == []
        page = ask(root, lambda room: room.read("dead_letters"))
        assert sorted(message.payload["reason"] for message in page.messages) == ["no verse", "too long"]
        assert unread(root) == [0]
        ask(root, lambda room: room.settle("dead_letters", reopen=letters[0][0]))
        assert unread(root) == [0, 1]
        assert len(ask(root, lambda room: room.read("dead_letters")).messages) == 1


def test_dead_letters_that_stand_twice_after_a_merge_are_one(tmp_path: Path) -> None:
    root = begin(tmp_path / "origin", *range(3))
    settle(root, reject=[known_id(0), known_id(1)], reason="no verse")
    path = root / "dead_letters.jsonl"
    path.write_bytes(path.read_bytes() * 2)
    assert problems(root) == []
    page = ask(root, lambda room: room.read("dead_letters", ack=True))
    assert [message.reply_to for message in page.messages] == [known_id(0), known_id(1)]
    assert not ask(root, lambda room: room.read("dead_letters")).messages


def test_what_was_rejected_too_often_on_both_branches_is_one_dead_letter(tmp_path: Path) -> None:
    origin = begin(tmp_path / "origin", 0)
    (origin / "mq.toml").write_text("max_deliveries = 1\n")
    commit(origin)
    one, two = clone(origin, "one"), clone(origin, "two")

    async def exhaust(room: Mailroom) -> None:
        page = await room.read("narrator", lease_s=60)
        await room.settle("narrator", release=page.leases[0].name)
        assert not (await room.read("narrator", lease_s=60)).messages

    for root in (one, two):
        ask(root, exhaust)
    assert lines(one / "dead_letters.jsonl") == lines(two / "dead_letters.jsonl")
    for root in merged(one, two):
        assert unread(root) == [] and problems(root) == []
        assert len(ask(root, lambda room: room.read("dead_letters")).messages) == 1


def test_older_messages_that_a_merge_brings_are_unread_but_for_what_a_seek_covers(tmp_path: Path) -> None:
    origin = begin(tmp_path / "origin", 0, 10, 20)
    one, two = clone(origin, "one"), clone(origin, "two")
    add(one, 30, 40)
    settle(one, ack=[known_id(number) for number in (0, 10, 20, 30, 40)])
    settle(one, reader="editor", seek=known_id(20))
    settle(one, reader="editor", ack=[known_id(20), known_id(30)])
    add(two, 5, 15, 25, 35)
    for root in merged(one, two):
        assert unread(root) == [5, 15, 25, 35]
        assert unread(root, "editor") == [25, 35, 40]
        assert problems(root) == []


def test_a_mailroom_that_is_open_takes_in_what_a_merge_brings(tmp_path: Path) -> None:
    origin = begin(tmp_path / "origin", *range(4))
    one, two = clone(origin, "one"), clone(origin, "two")
    settle(two, ack=[known_id(0), known_id(2)])
    add(two, 7)
    commit(two)

    async def work(room: Mailroom) -> None:
        await room.settle("narrator", ack=known_id(1))
        held = await room.read("narrator", lease_s=60, limit=1)
        assert held.messages[0].id == known_id(0)
        commit(one)
        git(one, "fetch", "-q", str(two), "HEAD")
        git(one, "merge", "-q", "-m", "merge", "FETCH_HEAD")
        page = await room.read("narrator")
        assert sorted(message.id for message in page.messages) == [known_id(3), known_id(7)]
        with pytest.raises(NotSettled, match="acked already by narrator"):
            await room.settle("narrator", ack=held.leases[0].name)

    ask(one, work)


def test_what_is_settled_after_a_merge_counts_though_the_other_machine_s_clock_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead:
        """A clock that is an hour ahead."""

        def time_ns(self) -> int:
            return time.time_ns() + 3600 * 10**9

    origin = begin(tmp_path / "origin", *range(3))
    settle(origin, ack=[known_id(0), known_id(1)])
    commit(origin)
    one, two = clone(origin, "one"), clone(origin, "two")
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "time", Ahead())
        settle(two, reopen=[known_id(0), known_id(1)])
    settle(one, ack=known_id(2))
    for root in merged(one, two):
        assert unread(root) == [0, 1]
        settle(root, ack=known_id(0))
        assert unread(root) == [1]
        page = ask(root, lambda room: room.read("narrator", lease_s=60))
        settle(root, ack=page.leases[0].name)
        assert unread(root) == []


def test_receipts_conflict_in_no_merge_whatever_the_branches_do(tmp_path: Path) -> None:
    """Many branches, each doing something, merged in different orders, some of them twice."""
    chance = random.Random(5)
    origin = begin(tmp_path / "origin", *range(8))
    branches = [clone(origin, f"branch{number}") for number in range(3)]
    for root in branches:

        async def work(room: Mailroom) -> None:
            for _ in range(6):
                reader = chance.choice(READERS)
                op = chance.choice(["ack", "ack", "reject", "reopen", "seek"])
                target = known_id(chance.randrange(8))
                try:
                    await room.settle("narrator", reader=reader, **{op: target})
                except NotSettled:
                    continue

        ask(root, work)
        commit(root)
    states = []
    for number, order in enumerate(([0, 1, 2], [2, 1, 0], [1, 2, 0, 1])):
        root = clone(origin, f"merge{number}")
        for branch in order:
            git(root, "fetch", "-q", str(branches[branch]), "HEAD")
            git(root, "merge", "-q", "-m", "merge", "FETCH_HEAD")
        assert problems(root) == []
        letters = ask(root, lambda room: room.read("dead_letters")).messages
        states.append(([unread(root, reader) for reader in READERS], sorted(letter.id for letter in letters)))
    assert states[0] == states[1] == states[2]


# --- every order -----------------------------------------------------------------------------------------------------

MESSAGES = [known_id(number) for number in range(5)]

BRANCH = st.lists(
    st.tuples(
        st.sampled_from(["ack", "ack", "reject", "reopen", "seek"]),
        st.sets(st.integers(0, 4), max_size=3),
        st.sampled_from(READERS),
        st.integers(0, 3),
        st.integers(0, 6),
    ),
    max_size=6,
)


def receipts(branch: int, said: list[Any]) -> list[bytes]:
    """The lines of a branch; those of others may bear the same times."""
    made = []
    for number, (op, messages, reader, moment, after) in enumerate(said):
        keys = receipt_fields(
            known_id(100 + 10 * branch + number),
            format_time(START_US + moment * 1000),
            "narrator",
            reader,
            f"consumer{branch}",
            op,
            [] if op == "seek" else [MESSAGES[message] for message in sorted(messages)],
            after=format_time(START_US + after * 1000) if op == "seek" else "",
        )
        made.append(encode_line(keys))
    return made


def folded(texts: list[bytes]) -> ReceiptIndex:
    data = b"".join(texts)
    index = ReceiptIndex("receipts/narrator.jsonl", lambda at, length: data[at : at + length])
    for offset, number, text in Block(0, 1, data).lines():
        index.add(offset, number, text)
    return index


def state(index: ReceiptIndex) -> dict[str, Any]:
    return {
        reader: (
            index.state(reader).settled,
            index.state(reader).reopened,
            index.state(reader).seek_us,
            [index.state(reader).is_settled(id_number(each), START_US + n * 1000) for n, each in enumerate(MESSAGES)],
            index.newest_us(reader),
        )
        for reader in READERS
    }


def by_definition(texts: list[bytes]) -> dict[str, list[bool]]:
    """Which messages each reader has read, straight from what the format promises."""
    said = sorted(
        {text: orjson.loads(text) for text in texts}.values(), key=lambda each: (each["timestamp"], each["id"])
    )
    read = {}
    for reader in READERS:
        settled, reopened, after = set[str](), set[str](), format_time(0)
        for each in said:
            if each["reader"] != reader:
                continue
            if each["op"] == "seek":
                settled, reopened, after = set(), set(), each["after"]
            elif each["op"] == "reopen":
                settled -= set(each["ids"])
                reopened |= set(each["ids"])
            else:
                settled |= set(each["ids"])
        read[reader] = [
            each in settled or (format_time(START_US + number * 1000) < after and each not in reopened)
            for number, each in enumerate(MESSAGES)
        ]
    return read


@given(BRANCH, BRANCH, BRANCH, st.data())
def test_receipts_fold_to_the_same_state_however_branches_are_merged(
    base: list[Any], one: list[Any], two: list[Any], data: st.DataObject
) -> None:
    common, left, right = receipts(0, base), receipts(1, one), receipts(2, two)
    expected = state(folded([*common, *left, *right]))
    read = by_definition([*common, *left, *right])
    assert {reader: found[3] for reader, found in expected.items()} == read
    interleaved = data.draw(st.permutations([*left, *right]))
    shuffled = data.draw(st.permutations([*common, *left, *right]))
    repeated = data.draw(st.permutations([*common, *left, *common, *right, *left]))
    for texts in ([*common, *right, *left], [*common, *interleaved], shuffled, repeated):
        index = folded(texts)
        assert state(index) == expected
        assert not index.problems


@given(BRANCH, BRANCH, st.data())
def test_a_state_asked_for_between_lines_does_not_change_what_they_come_to(
    one: list[Any], two: list[Any], data: st.DataObject
) -> None:
    texts = data.draw(st.permutations([*receipts(1, one), *receipts(2, two)]))
    everything = b"".join(texts)
    index = ReceiptIndex("", lambda at, length: everything[at : at + length])
    offset = 0
    for number, text in enumerate(texts):
        index.add(offset, number + 1, text[:-1])
        offset += len(text)
        if data.draw(st.booleans()):
            assert state(index) == state(folded(texts[: number + 1]))
    assert state(index) == state(folded(texts))


def test_the_mailbox_of_a_receipt_may_come_later(tmp_path: Path) -> None:
    origin = begin(tmp_path / "origin", 0)
    early, late = clone(origin, "early"), clone(origin, "late")
    add(late, 1, 2)
    settle(late, ack=known_id(1))
    (early / "receipts").mkdir()
    write(early / "receipts/narrator.jsonl", (late / "receipts/narrator.jsonl").read_bytes())
    assert unread(early) == [0] and problems(early) == []
    add(early, 1, 2)
    assert unread(early) == [0, 2]

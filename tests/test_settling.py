"""Settling: what a call may do, what it refuses without changing anything, dead letters, starting anew."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from mq_server.answers import Page
from mq_server.errors import (
    AmbiguousReference,
    InvalidRequest,
    MailError,
    NotSettled,
    UnknownChannel,
    UnknownReader,
    UnknownReference,
)
from mq_server.mailroom import Mailroom
from mq_server.names import format_time, id_number
from mq_server.outcomes import Settled
from tests.support import DEADLINE_S, START_US, ask, eventually, known_id, line, python, said, tell, write

PAST = format_time(START_US + 2000)


def numbered(root: Path, *numbers: int, channel: str = "narrator", **keys: Any) -> Path:
    """A mailbox with these messages, as somebody else wrote it."""
    return write(root / f"{channel}.jsonl", *(line(number, id=known_id(number), **keys) for number in numbers))


def numbers(page: Page) -> list[int]:
    """Which messages are on a page."""
    return [next(number for number in range(200) if known_id(number) == message.id) for message in page.messages]


def settle(root: Path, channel: str = "narrator", **order: Any) -> Settled:
    settled: Settled = ask(root, lambda room: room.settle(channel, **order))
    return settled


def unread(root: Path, channel: str = "narrator", **question: Any) -> list[int]:
    return numbers(ask(root, lambda room: room.read(channel, **question)))


def claim(root: Path, *, lease_s: float = 60.0, **question: Any) -> list[str]:
    """The names of the leases on what was claimed."""
    page: Page = ask(root, lambda room: room.read("narrator", lease_s=lease_s, **question))
    return [lease.name for lease in page.leases]


def is_held(root: Path, number: int = 0) -> bool:
    """Whether the narrator's message is held by anybody now."""

    async def left_s(room: Mailroom) -> float:
        return room._leases("narrator").of("narrator")[id_number(known_id(number))].deadline.left_s()

    return bool(ask(root, left_s))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in path.read_bytes().splitlines()] if path.exists() else []


def receipts(root: Path, channel: str = "narrator") -> list[dict[str, Any]]:
    return lines_of(root / "receipts" / f"{channel}.jsonl")


def letters(root: Path) -> list[dict[str, Any]]:
    return lines_of(root / "dead_letters.jsonl")


def contents(root: Path) -> dict[str, bytes]:
    """Every file that says something: not locks, which are empty, nor what git must know of the folder."""
    files = (path for path in root.rglob("*") if path.is_file() and "locks" not in path.parts)
    files = (path for path in files if path.name not in (".gitattributes", ".gitignore"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def refused(root: Path, error: type[MailError] = InvalidRequest, channel: Any = "narrator", **order: Any) -> str:
    """The text of a call that is refused and changes no byte."""
    ask(root, lambda room: room.check())  # which stamps what somebody else wrote
    before = contents(root)
    with pytest.raises(error) as caught:
        settle(root, channel, **order)
    assert contents(root) == before
    return str(caught.value)


# --- what is done ----------------------------------------------------------------------------------------------------


def test_a_copy_that_another_process_posted_meanwhile_can_be_settled(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        await room.read("narrator")
        async with Mailroom(tmp_path) as other:
            posted = await other.post(["dialogist", "narrator"], sender="a", msg_type="x", payload={})
        await room.read("dialogist")  # so that the message is known, but not that it stands in the other mailbox too
        settled = await room.settle("narrator", ack=posted.id)
        assert settled.done == {"ack": (posted.id,)}

    ask(tmp_path, work)


def test_one_call_settles_in_every_way(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2, 3, 4)
    settle(tmp_path, ack=known_id(4))
    leases = claim(tmp_path, limit=2)
    settled = settle(
        tmp_path, release=leases[0], extend=leases[1], lease_s=60, ack="narrator:3", reject=known_id(3)[-6:],
        reopen=[known_id(4)], reason="no such place",
    )  # fmt: skip
    assert settled.done == {
        "ack": (known_id(2),),
        "release": (known_id(0),),
        "reject": (known_id(3),),
        "reopen": (known_id(4),),
        "extend": (known_id(1),),
    }
    assert not settled.refused
    assert settled.as_json()["rejected"] == [known_id(3)]
    assert unread(tmp_path, consumer="other") == [0, 4]


def test_a_receipt_has_its_keys_in_order_and_a_reason_only_where_it_belongs(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)
    settle(tmp_path, ack=[known_id(0), known_id(1)], reject=known_id(2), reason="unclear", consumer="worker_1")
    settle(tmp_path, seek=PAST)
    ack, reject, seek = receipts(tmp_path)
    usual = ["id", "timestamp", "channel", "reader", "consumer", "op", "ids"]
    assert list(ack) == usual
    assert (ack["channel"], ack["reader"], ack["consumer"], ack["op"]) == ("narrator", "narrator", "worker_1", "ack")
    assert ack["ids"] == [known_id(0), known_id(1)]
    assert list(reject) == [*usual, "reason"]
    assert (reject["op"], reject["ids"], reject["reason"]) == ("reject", [known_id(2)], "unclear")
    assert list(seek) == [*usual, "after"]
    assert (seek["op"], seek["ids"], seek["after"]) == ("seek", [], PAST)
    assert ack["timestamp"] < reject["timestamp"] < seek["timestamp"]


def test_a_rejection_without_a_reason_says_so_much(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    settle(tmp_path, reject=known_id(0))
    assert receipts(tmp_path)[0]["reason"] == "rejected"
    assert letters(tmp_path)[0]["payload"]["reason"] == "rejected"


def test_what_is_reopened_is_unread_again_until_it_is_settled_again(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    settle(tmp_path, ack=known_id(0), reject=known_id(1))
    assert unread(tmp_path) == []
    settle(tmp_path, reopen=[known_id(0), known_id(1)])
    assert unread(tmp_path) == [0, 1]
    settle(tmp_path, ack=known_id(1))
    assert unread(tmp_path) == [0]


def test_what_is_released_with_a_delay_is_withheld_from_everybody(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    (lease,) = claim(tmp_path)
    settle(tmp_path, release=lease, delay_s=0.3)
    assert unread(tmp_path) == [] == unread(tmp_path, consumer="other")
    page = ask(tmp_path, lambda room: room.wait("narrator", timeout_s=DEADLINE_S))
    assert numbers(page) == [0]


def test_a_release_wakes_a_reader_that_waits_elsewhere(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    (lease,) = claim(tmp_path, lease_s=3000)
    script = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        assert (await room.wait("narrator", consumer="other", timeout_s=0)).timed_out
        print("ready", flush=True)
        print(len((await room.wait("narrator", consumer="other", timeout_s=25)).messages), flush=True)
asyncio.run(main())
"""
    with python(script, tmp_path) as process:
        assert said(process) == "ready"
        settle(tmp_path, release=lease)
        assert said(process) == "1"


def test_extending_holds_for_longer(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    (lease,) = claim(tmp_path, lease_s=5)
    settle(tmp_path, extend=lease, lease_s=3000)

    async def left_s(room: Mailroom) -> float:
        leases = room._leases("narrator")
        return leases.of("narrator")[id_number(known_id(0))].deadline.left_s()

    assert ask(tmp_path, left_s) > 2900


def test_settling_survives_the_loss_of_the_runtime_folder(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)
    settle(tmp_path, ack=known_id(0), reject=known_id(1))
    shutil.rmtree(tmp_path / ".mq")
    assert unread(tmp_path) == [2]
    assert "rejected already" in refused(tmp_path, NotSettled, ack=known_id(1))


# --- bad input: one error names it, and no byte changes --------------------------------------------------------------


def test_a_call_without_anything_to_settle_is_refused(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    assert "nothing to settle: give ids in ack, release, reject, reopen or extend, or a seek" in refused(tmp_path)
    assert "nothing to settle" in refused(tmp_path, ack=[], reopen=())


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"ack": known_id(0), "seek": "beginning"}, "seek forgets what was settled: give it alone"),
        ({"ack": known_id(0), "reason": "why"}, "reason says why something is rejected: give it together with reject"),
        ({"ack": known_id(0), "delay_s": 5}, "delay_s is for what is released: give it together with release"),
        ({"release": known_id(0), "delay_s": -1}, "delay_s is -1; give seconds from 0 to 604800"),
        ({"release": known_id(0), "delay_s": 1e9}, "delay_s is 1e+09; give seconds from 0 to 604800"),
        ({"release": known_id(0), "delay_s": float("nan")}, "delay_s is nan"),
        ({"extend": known_id(0)}, "extend needs lease_s: for how many more seconds from now"),
        ({"ack": known_id(0), "lease_s": 5}, "lease_s is for what is extended: give it together with extend"),
        ({"extend": known_id(0), "lease_s": 0}, "lease_s is 0; give seconds up to 3600 (max_lease_s in mq.toml)"),
        ({"extend": known_id(0), "lease_s": 3601}, "lease_s is 3601; give seconds up to 3600"),
        ({"extend": known_id(0), "lease_s": float("nan")}, "lease_s is nan"),
        ({"ack": known_id(0), "reject": known_id(0)}, "a message is named twice: each can be settled in one way only"),
        ({"ack": [known_id(0), "narrator:1"]}, "a message is named twice"),
        ({"ack": known_id(0), "reader": "Nar"}, "reader 'Nar' is not a valid name"),
        ({"ack": known_id(0), "consumer": "a/b"}, "consumer 'a/b' is not a valid name"),
        ({"ack": [7]}, "ack: 7 is no name of a message"),
    ],
)
def test_contradictory_arguments_are_refused(tmp_path: Path, order: dict[str, Any], words: str) -> None:
    numbered(tmp_path, 0, 1)
    assert words in refused(tmp_path, **order)


def test_one_error_names_every_fault(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    text = refused(tmp_path, reader="R!", consumer="C!", reason="r", delay_s=-1, extend=known_id(0), seek="now")
    for words in ("reader 'R!'", "consumer 'C!'", "reason says", "delay_s is for", "delay_s is -1", "extend needs"):
        assert words in text
    assert "seek forgets" in text


@pytest.mark.parametrize("channel", ["", "Narrator", "../narrator", "*", "nar*", "nul"])
def test_only_a_name_names_a_channel(tmp_path: Path, channel: str) -> None:
    numbered(tmp_path, 0)
    assert f"channel {channel!r} is" in refused(tmp_path, InvalidRequest, channel, ack=known_id(0))


def test_a_name_that_is_almost_a_channel_is_refused(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    assert "Did you mean 'narrator'?" in refused(tmp_path, UnknownChannel, "narator", ack=known_id(0))
    assert "Did you mean 'narrator'?" in refused(tmp_path, UnknownChannel, "narator", seek="now")


def test_a_name_that_is_almost_a_reader_is_refused(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    settle(tmp_path, ack=known_id(0), reader="editor_in_chief")
    for order in ({"ack": known_id(0)}, {"seek": "now"}, {"reopen": known_id(0)}):
        text = refused(tmp_path, UnknownReader, reader="editor_in_chif", **order)
        assert "narrator has no reader 'editor_in_chif'. Did you mean 'editor_in_chief'? Nothing was changed" in text
    assert "Did you mean 'narrator'?" in refused(tmp_path, UnknownReader, reader="narrater", ack=known_id(1))
    assert settle(tmp_path, ack=known_id(0), reader="somebody_else").reader == "somebody_else"


def test_a_reader_that_has_only_claimed_is_known_too(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    claim(tmp_path, reader="editor_in_chief")
    assert "Did you mean" in refused(tmp_path, UnknownReader, reader="editor_in_chif", ack=known_id(0))


def test_a_caller_settles_its_own_mailbox_or_says_as_whom(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    text = refused(tmp_path, ack=known_id(0), caller="dialogist")
    assert "'narrator' is not your mailbox: to settle as yourself, give reader='dialogist'" in text
    settled = settle(tmp_path, ack=known_id(0), caller="dialogist", reader="dialogist")
    assert (settled.reader, unread(tmp_path)) == ("dialogist", [0])
    settle(tmp_path, ack=known_id(0), caller="narrator")
    assert receipts(tmp_path)[-1]["consumer"] == "narrator"


@pytest.mark.parametrize("op", ["ack", "release", "reject", "reopen", "extend"])
def test_an_unknown_message_is_refused_with_all_the_rest(tmp_path: Path, op: str) -> None:
    numbered(tmp_path, 0, 1)
    more = {"lease_s": 5} if op == "extend" else {}
    for name in (known_id(9), "ZZZZZZ", "narrator:7", "elsewhere:1", "", f"{known_id(9)}@0badc0de", "not an id"):
        order = {"ack": [known_id(0), name]} if op == "ack" else {"ack": known_id(0), op: name}
        assert f"No message is named {name.partition('@')[0]!r}"[:-1] in refused(
            tmp_path, UnknownReference, **order, **more
        )


def test_an_end_that_fits_two_is_refused(tmp_path: Path) -> None:
    twins = [known_id(number)[:-4] + "ABCD" for number in (1, 2)]
    write(tmp_path / "narrator.jsonl", *(line(number, id=twin) for number, twin in enumerate(twins)))
    assert "fits 2 messages" in refused(tmp_path, AmbiguousReference, ack="ABCD")


@pytest.mark.parametrize("name", [known_id(5), known_id(5)[-8:], "dialogist:1", f"{known_id(5)}@0badc0de"])
def test_a_message_of_another_mailbox_is_refused_as_such(tmp_path: Path, name: str) -> None:
    numbered(tmp_path, 0)
    numbered(tmp_path, 5, channel="dialogist")
    assert f"reject: {name} does not stand in narrator" in refused(tmp_path, reject=name, ack=known_id(0))


def test_nothing_is_made_for_a_call_that_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "production"
    for order in ({"ack": known_id(0)}, {"ack": "narrator:1"}, {"seek": "yesterday"}, {}):
        with pytest.raises(MailError):
            settle(root, **order)
        assert not root.exists()


# --- what somebody else holds, and what is settled already -----------------------------------------------------------


@pytest.mark.parametrize("op", ["ack", "release", "reject", "extend"])
def test_nobody_settles_what_another_holds(tmp_path: Path, op: str) -> None:
    numbered(tmp_path, 0)
    claim(tmp_path, consumer="worker_1")
    more = {"lease_s": 5} if op == "extend" else {}
    text = refused(tmp_path, NotSettled, consumer="worker_2", **{op: known_id(0)}, **more)
    assert text.startswith(f"{known_id(0)}: held by worker_1 for another ")


@pytest.mark.parametrize("op", ["ack", "release", "reject", "extend"])
def test_an_expired_lease_settles_nothing(tmp_path: Path, op: str) -> None:
    numbered(tmp_path, 0)
    (lease,) = claim(tmp_path, lease_s=0.001)
    page = ask(tmp_path, lambda room: room.wait("narrator", lease_s=60, consumer="worker_2", timeout_s=DEADLINE_S))
    again = page.leases[0].name
    more = {"lease_s": 5} if op == "extend" else {}
    assert "this lease is over: worker_2 holds it now" in refused(tmp_path, NotSettled, **{op: lease}, **more)
    assert "held by worker_2" in refused(tmp_path, NotSettled, **{op: known_id(0)}, **more)
    assert settle(tmp_path, **{op: again}, **more).done == {op: (known_id(0),)}


@pytest.mark.parametrize("op", ["ack", "release", "reject", "extend"])
def test_an_expired_lease_that_nobody_took_over_settles_nothing_either(tmp_path: Path, op: str) -> None:
    numbered(tmp_path, 0)
    (lease,) = claim(tmp_path, lease_s=0.001)
    eventually(lambda: not is_held(tmp_path))
    more = {"lease_s": 5} if op == "extend" else {}
    for name in (lease, known_id(0)):
        text = refused(tmp_path, NotSettled, **{op: name}, **more)
        assert "the lease of narrator has expired: claim it again to go on" in text


def test_what_is_not_held_cannot_be_given_back_or_extended(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    for order in ({"release": known_id(0)}, {"extend": known_id(0), "lease_s": 5}, {"ack": f"{known_id(0)}@0badc0de"}):
        assert "nobody holds it: claim it first, with lease_s" in refused(tmp_path, NotSettled, **order)


@pytest.mark.parametrize(("first", "words"), [("ack", "acked"), ("reject", "rejected")])
@pytest.mark.parametrize("second", ["ack", "reject", "release", "extend"])
def test_what_is_settled_is_settled(tmp_path: Path, first: str, words: str, second: str) -> None:
    numbered(tmp_path, 0)
    settle(tmp_path, consumer="worker_1", **{first: known_id(0)})
    more = {"lease_s": 5} if second == "extend" else {}
    text = refused(tmp_path, NotSettled, **{second: known_id(0)}, **more)
    when = receipts(tmp_path)[0]["timestamp"]
    assert text == f"{known_id(0)}: {words} already by worker_1 at {when}; reopen makes it unread again"


def test_what_is_unread_cannot_be_reopened(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    assert refused(tmp_path, NotSettled, reopen=known_id(0)) == f"{known_id(0)}: is unread already"


def test_what_is_possible_is_done_and_the_rest_is_listed_with_why(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2, 3)
    settle(tmp_path, ack=known_id(0))
    claim(tmp_path, consumer="worker_1", limit=1)
    settled = settle(tmp_path, ack=[known_id(n) for n in (0, 1, 2)], reopen=known_id(3), consumer="worker_2")
    assert settled.done == {"ack": (known_id(2),)}
    whys = {refusal.id: refusal.why for refusal in settled.refused}
    assert list(whys) == [known_id(0), known_id(1), known_id(3)]
    assert "acked already by narrator" in whys[known_id(0)]
    assert "held by worker_1" in whys[known_id(1)]
    assert "is unread already" in whys[known_id(3)]
    assert [refusal["id"] for refusal in settled.as_json()["refused"]] == list(whys)
    assert [receipt["ids"] for receipt in receipts(tmp_path)] == [[known_id(0)], [known_id(2)]]
    with pytest.raises(NotSettled, match="held by worker_1"):
        settled.require_all()


def test_readers_settle_for_themselves(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    settle(tmp_path, ack=known_id(0), reader="editor")
    settle(tmp_path, reject=known_id(0), reason="no")
    assert "acked already by editor" in refused(tmp_path, NotSettled, reader="editor", reject=known_id(0))
    assert settle(tmp_path, reopen=known_id(0), reader="editor").done
    assert unread(tmp_path) == []


# --- seek ------------------------------------------------------------------------------------------------------------


def test_a_seek_starts_a_reader_anew(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2, 3)
    settle(tmp_path, ack=[known_id(0), known_id(3)])
    for seek, left in (
        ("narrator:3", [2, 3]),
        ("beginning", [0, 1, 2, 3]),
        (known_id(1), [1, 2, 3]),
        (format_time(START_US + 1001), [2, 3]),
        ("now", []),
        ("1970-01-01T00:00:00Z", [0, 1, 2, 3]),
    ):
        settled = settle(tmp_path, seek=seek)
        assert (settled.seek, settled.done) == (receipts(tmp_path)[-1]["after"], {})
        assert unread(tmp_path) == left


def test_a_seek_to_a_message_of_another_mailbox_goes_by_its_time(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 2)
    numbered(tmp_path, 1, channel="dialogist")
    settle(tmp_path, seek="dialogist:1")
    assert unread(tmp_path) == [2]


@pytest.mark.parametrize("seek", ["yesterday", "", "2026-11-22T13:12:52", "narrator:9", known_id(9)])
def test_a_seek_to_nothing_known_is_refused(tmp_path: Path, seek: str) -> None:
    numbered(tmp_path, 0)
    assert f"No message is named {seek!r}" in refused(tmp_path, UnknownReference, seek=seek)


def test_what_a_seek_passed_over_can_be_reopened_and_not_rejected(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    settle(tmp_path, seek="now")
    assert "sought past it; reopen makes it unread again" in refused(tmp_path, NotSettled, reject=known_id(0))
    settle(tmp_path, reopen=known_id(0))
    assert unread(tmp_path) == [0]
    assert settle(tmp_path, reject=known_id(0)).done


def test_seeking_now_leaves_what_comes_later_unread_even_below_a_line_far_ahead_of_the_clock(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    with (tmp_path / "narrator.jsonl").open("ab") as file:
        file.write(line(1, timestamp="2999-01-01T00:00:00.000000Z"))

    async def work(room: Mailroom) -> None:
        await room.settle("narrator", seek="now")
        posted = await room.post("narrator", sender="a", msg_type="note", payload={"text": "after"})
        assert posted.id in [message.id for message in (await room.read("narrator")).messages]

    ask(tmp_path, work)


def test_seeking_now_passes_over_what_was_followed_just_ahead_of_the_clock(tmp_path: Path) -> None:
    ahead_us = time.time_ns() // 1000 + 4_000_000
    write(tmp_path / "narrator.jsonl", line(0, timestamp=format_time(ahead_us)))

    async def work(room: Mailroom) -> None:
        await room.settle("narrator", seek="now")
        assert not (await room.read("narrator")).messages
        posted = await room.post("narrator", sender="a", msg_type="note", payload={"text": "after"})
        assert [message.id for message in (await room.read("narrator")).messages] == [posted.id]

    ask(tmp_path, work)


def test_a_seek_before_anything_was_posted_makes_a_whole_production(tmp_path: Path) -> None:
    root = tmp_path / "production"
    settle(root, seek="now")
    assert (root / ".gitattributes").exists() and (root / ".gitignore").exists()
    assert [receipt["op"] for receipt in receipts(root)] == ["seek"]
    posted = ask(root, lambda room: room.post("narrator", sender="a", msg_type="note", payload={"text": "x"}))
    assert [m.id for m in ask(root, lambda room: room.read("narrator")).messages] == [posted.id]


def test_a_seek_takes_no_lease_from_its_holder(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    (lease,) = claim(tmp_path, consumer="worker_1", limit=1)
    settle(tmp_path, seek="beginning")
    assert unread(tmp_path) == [1]
    assert settle(tmp_path, ack=lease).done


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_a_rejected_message_is_copied_to_dead_letters(tmp_path: Path) -> None:
    numbered(tmp_path, 0, scene="s1")
    (original,) = lines_of(tmp_path / "narrator.jsonl")
    settled = settle(tmp_path, reject=known_id(0), reason="no such place", consumer="worker_1")
    (letter,) = letters(tmp_path)
    assert list(letter) == [
        *("id", "timestamp", "channel", "sender", "msg_type", "scene", "reply_to", "payload")
    ]  # fmt: skip
    assert settled.dead_letters == (letter["id"],)
    assert letter["id"][:10] == known_id(0)[:10] and letter["id"] != known_id(0)
    assert letter["timestamp"] == format_time(START_US + 1)
    assert (letter["channel"], letter["sender"], letter["msg_type"]) == ("dead_letters", "narrator", "dead_letter")
    assert (letter["scene"], letter["reply_to"]) == ("s1", known_id(0))
    assert letter["payload"] == {
        "channel": "narrator",
        "reader": "narrator",
        "reason": "no such place",
        "message": original,
    }
    assert not ask(tmp_path, lambda room: room.check()).problems


def test_the_id_of_a_dead_letter_follows_from_what_it_is_about(tmp_path: Path) -> None:
    def rejected(number: int, reader: str, reason: str, channel: str = "narrator", message: int = 0) -> str:
        root = tmp_path / f"clone{number}"
        numbered(root, message, channel=channel)
        settle(root, channel, reject=known_id(message), reader=reader, reason=reason)
        return str(letters(root)[0]["id"])

    usual = rejected(0, "narrator", "why")
    assert rejected(1, "narrator", "why") == usual
    others = [
        rejected(2, "editor", "why"),
        rejected(3, "narrator", "why not"),
        rejected(4, "narrator", "why", channel="dialogist"),
        rejected(5, "narrator", "why", message=1),
    ]
    assert len({usual, *others}) == 5
    first, second = ((tmp_path / f"clone{number}" / "dead_letters.jsonl").read_bytes() for number in (0, 1))
    assert first == second, "so that two branches that merge have one"


def test_a_dead_letter_wakes_who_waits_for_dead_letters(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    script = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        assert (await room.wait("dead_letters", timeout_s=0)).timed_out
        print("ready", flush=True)
        print((await room.wait("dead_letters", timeout_s=25)).messages[0].payload["reason"], flush=True)
asyncio.run(main())
"""
    with python(script, tmp_path) as process:
        assert said(process) == "ready"
        settle(tmp_path, reject=known_id(0), reason="cannot")
        assert said(process) == "cannot"


class Crash(BaseException):
    """The process ends here."""


def test_a_crash_between_the_copy_and_the_receipt_makes_no_second_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path, 0, 1)

    async def crash(*_: Any, **__: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Mailroom, "_write_receipts", crash)
        with pytest.raises(Crash):
            settle(tmp_path, reject=[known_id(0), known_id(1)], reason="cannot")
    assert (len(letters(tmp_path)), receipts(tmp_path)) == (2, [])
    assert unread(tmp_path) == [0, 1], "it is not rejected yet"
    settled = settle(tmp_path, reject=[known_id(0), known_id(1)], reason="cannot")
    assert settled.dead_letters == tuple(letter["id"] for letter in letters(tmp_path))
    assert len(letters(tmp_path)) == 2
    assert unread(tmp_path) == []
    assert not receipts(tmp_path, "dead_letters"), "and they wait to be read, as they did"


def test_what_is_rejected_again_is_a_dead_letter_again(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    for times in (1, 2, 3):
        settle(tmp_path, reject=known_id(0), reason="cannot")
        page = ask(tmp_path, lambda room: room.read("dead_letters"))
        assert len(page.messages) == 1, f"rejected {times} times"
        settle(tmp_path, "dead_letters", reopen=page.messages[0].id)
        assert not ask(tmp_path, lambda room: room.read("dead_letters")).messages
        assert unread(tmp_path) == [0]
    assert len(letters(tmp_path)) == 1, "the copy is the same"


def test_rejecting_a_dead_letter_makes_no_further_one(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    (letter,) = settle(tmp_path, reject=known_id(0), reason="cannot").dead_letters
    settled = settle(tmp_path, "dead_letters", reject=letter, reason="never mind")
    assert (settled.done, settled.dead_letters) == ({"reject": (letter,)}, ())
    assert len(letters(tmp_path)) == 1
    assert receipts(tmp_path, "dead_letters")[0]["reason"] == "never mind"


def test_reopening_a_dead_letter_reopens_what_it_is_about(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    settle(tmp_path, ack=known_id(0))
    (letter,) = settle(tmp_path, reject=known_id(0), reader="editor", reason="cannot").dead_letters
    settled = settle(tmp_path, "dead_letters", reopen=letter, consumer="human")
    assert settled.done == {"reopen": (known_id(0),)}
    assert unread(tmp_path, reader="editor") == [0, 1]
    assert unread(tmp_path) == [1], "other readers are not concerned"
    (receipt,) = receipts(tmp_path, "dead_letters")
    assert (receipt["op"], receipt["ids"], receipt["consumer"]) == ("ack", [letter], "human")
    assert "is unread already" in refused(tmp_path, NotSettled, "dead_letters", reopen=letter)


def test_reopening_for_another_reader_of_dead_letters_acknowledges_for_both(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    (letter,) = settle(tmp_path, reject=known_id(0), reason="cannot").dead_letters
    settle(tmp_path, "dead_letters", reopen=letter, reader="producer", caller="producer")
    assert unread(tmp_path) == [0]
    for reader in ("dead_letters", "producer"):
        page = ask(tmp_path, lambda room, reader=reader: room.read("dead_letters", reader=reader))
        assert not page.messages


def test_dead_letters_of_one_message_in_two_mailboxes_are_reopened_each_for_itself(tmp_path: Path) -> None:
    for channel in ("narrator", "dialogist"):
        numbered(tmp_path, 0, channel=channel)
        settle(tmp_path, channel, reject=known_id(0), reason=f"not for {channel}")
    about = {letter["payload"]["channel"]: letter["id"] for letter in letters(tmp_path)}
    settle(tmp_path, "narrator", reopen=known_id(0))
    settled = settle(tmp_path, "dead_letters", reopen=list(about.values()))
    assert settled.done == {"reopen": (known_id(0),)}
    assert ["is unread already" in refusal.why for refusal in settled.refused] == [True]
    assert unread(tmp_path, "dialogist") == [0]
    left = ask(tmp_path, lambda room: room.read("dead_letters")).messages
    assert [message.id for message in left] == [about["narrator"]], "what was not reopened is not acknowledged"


def test_a_dead_letter_that_is_held_is_reopened_by_its_lease(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    settle(tmp_path, reject=known_id(0), reason="cannot")
    page = ask(tmp_path, lambda room: room.read("dead_letters", lease_s=60, consumer="human"))
    settle(tmp_path, "dead_letters", reopen=page.leases[0].name, consumer="human")
    assert unread(tmp_path) == [0]
    assert [receipt["op"] for receipt in receipts(tmp_path, "dead_letters")] == ["ack"]


def test_a_dead_letter_is_named_once_and_alone(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    numbered(tmp_path, 3, channel="dialogist")
    (letter,) = settle(tmp_path, reject=known_id(0), reason="cannot").dead_letters
    text = refused(tmp_path, channel="dead_letters", reopen=letter, ack=letter)
    assert "reopen sends dead letters back to where they came from: give it alone" in text
    text = refused(tmp_path, channel="dead_letters", reopen=[letter, "dead_letters:1"])
    assert "a message is named twice" in text
    assert "dialogist:1" in refused(tmp_path, channel="dead_letters", reopen="dialogist:1")


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"channel": "narrator"},
        {"channel": 7, "reader": []},
        {"channel": "../x", "reader": "narrator"},
        {"channel": "nowhere", "reader": "x"},
    ],
)
def test_a_dead_letter_that_says_nothing_sensible_is_refused(tmp_path: Path, payload: dict[str, Any]) -> None:
    numbered(tmp_path, 0)
    letter = line(1, id=known_id(1), channel="dead_letters", msg_type="dead_letter", payload=payload)
    write(
        tmp_path / "dead_letters.jsonl", letter, line(2, msg_type="dead_letter", reply_to=known_id(0), payload=payload)
    )
    for name in ("dead_letters:1", "dead_letters:2"):
        assert refused(tmp_path, MailError, "dead_letters", reopen=name)


def test_a_seek_on_dead_letters_only_leads_to_the_beginning(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    (letter,) = settle(tmp_path, reject=known_id(0), reason="cannot").dead_letters
    settle(tmp_path, "dead_letters", ack=letter)
    for seek in ("now", letter, "narrator:1", PAST):
        assert "a seek would pass over later ones: ack them" in refused(tmp_path, channel="dead_letters", seek=seek)
    settle(tmp_path, "dead_letters", seek="beginning")
    assert [m.id for m in ask(tmp_path, lambda room: room.read("dead_letters")).messages] == [letter]


def test_a_message_nested_to_the_limit_makes_a_readable_dead_letter(tmp_path: Path) -> None:
    payload: dict[str, Any] = {}
    for _ in range(98):
        payload = {"in": payload}
    ask(tmp_path, lambda room: room.post("narrator", sender="a", msg_type="own", payload=payload))
    (settled,) = settle(tmp_path, reject="narrator:1", reason="too deep for me").dead_letters
    assert not ask(tmp_path, lambda room: room.check()).problems
    letter = ask(tmp_path, lambda room: room.read("dead_letters")).messages[0]
    assert letter.id == settled
    assert json.loads(letter.payload["message"])["payload"] == payload
    assert settle(tmp_path, "dead_letters", reopen=settled).done


@pytest.mark.parametrize("reason", ["half \ud800", "x" * 100_000])
def test_a_reason_that_cannot_be_kept_is_refused(tmp_path: Path, reason: str) -> None:
    numbered(tmp_path, 0)
    assert "reason" in refused(tmp_path, reject=known_id(0), reason=reason)


# --- delivered too often ---------------------------------------------------------------------------------------------


def test_what_was_delivered_too_often_is_rejected_once_with_its_reason(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    write(tmp_path / "mq.toml", b"max_deliveries = 2\n")
    for _ in range(2):
        settle(tmp_path, release=claim(tmp_path))
    assert claim(tmp_path) == [] == claim(tmp_path)
    (receipt,) = receipts(tmp_path)
    assert (receipt["op"], receipt["consumer"]) == ("reject", "mq-server")
    assert receipt["reason"] == letters(tmp_path)[0]["payload"]["reason"] == "delivered 2 times without being settled"
    assert len(letters(tmp_path)) == 1


def test_what_is_reopened_is_delivered_as_often_again(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    write(tmp_path / "mq.toml", b"max_deliveries = 2\n")
    for _ in range(2):
        for _ in range(2):
            settle(tmp_path, release=claim(tmp_path))
        assert claim(tmp_path) == []
        (letter,) = ask(tmp_path, lambda room: room.read("dead_letters")).messages
        settle(tmp_path, "dead_letters", reopen=letter.id)
    assert len(claim(tmp_path)) == 1


# --- at once ---------------------------------------------------------------------------------------------------------


def test_of_many_who_settle_one_message_at_once_one_does(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)

    async def work(room: Mailroom) -> None:
        async with Mailroom(tmp_path) as other:
            calls = [
                each.settle("narrator", consumer=f"worker_{number}", **{op: known_id(0)})
                for number, each in enumerate([room, other] * 4)
                for op in ("ack", "reject")
            ]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, Settled) for outcome in outcomes) == 1
        assert all("already by worker_" in str(outcome) for outcome in outcomes if not isinstance(outcome, Settled))

    ask(tmp_path, work)
    assert len(receipts(tmp_path)) == 1
    assert len(letters(tmp_path)) == (receipts(tmp_path)[0]["op"] == "reject")
    assert unread(tmp_path) == [1]


SETTLER = """
import asyncio, sys
from mq_server.errors import NotSettled
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        print("ready", flush=True)
        for name in sys.argv[3:]:
            await asyncio.to_thread(sys.stdin.readline)
            try:
                await room.settle("narrator", reject=name, reason="no", consumer=sys.argv[2])
                print("rejected", flush=True)
            except NotSettled as error:
                print(error, flush=True)
asyncio.run(main())
"""


def test_processes_that_reject_the_same_messages_make_one_dead_letter_of_each(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b'durability = "os"\n')
    names = [known_id(number) for number in range(30)]
    numbered(tmp_path, *range(30))
    with ExitStack() as stack:
        workers = [f"worker_{number}" for number in range(3)]
        processes = [stack.enter_context(python(SETTLER, tmp_path, worker, *names)) for worker in workers]
        assert [said(process) for process in processes] == ["ready"] * 3
        for name in names:
            for process in processes:
                tell(process)
            answers = sorted(said(process) for process in processes)
            assert answers[-1] == "rejected"
            assert all(answer.startswith(f"{name}: rejected already by worker_") for answer in answers[:-1])
    assert [receipt["ids"] for receipt in receipts(tmp_path)] == [[name] for name in names]
    assert [letter["reply_to"] for letter in letters(tmp_path)] == names

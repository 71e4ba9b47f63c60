"""Guards against loops and floods: what the limits of mq.toml refuse, and how to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mq_server.errors import MailboxFull, MailError, ReplyTooDeep
from mq_server.outcomes import Posted
from tests.support import ask, known_id, line, output, write


def settings(root: Path, text: str) -> Path:
    write(root / "mq.toml", text.encode())
    return root


def post(root: Path, channel: Any = "narrator", **keys: Any) -> Posted:
    usual = {"sender": "director", "msg_type": "note", "payload": {"text": "x"}}
    posted: Posted = ask(root, lambda room: room.post(channel, **(usual | keys)))
    return posted


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*.jsonl")}


def refused(root: Path, error: type[MailError], channel: Any = "narrator", **keys: Any) -> str:
    """The text of a post that is refused and changes nothing."""
    before = contents(root)
    with pytest.raises(error) as caught:
        post(root, channel, **keys)
    assert contents(root) == before
    return str(caught.value)


# --- loops -----------------------------------------------------------------------------------------------------------


def test_agents_that_answer_each_other_for_ever_are_stopped(tmp_path: Path) -> None:
    settings(tmp_path, "max_reply_depth = 3\n")
    names = ("narrator", "dialogist")
    root = last = post(tmp_path, "narrator", sender="dialogist")
    for number in range(3):
        last = post(tmp_path, None, sender=names[number % 2], reply_to=last.id)
    text = refused(tmp_path, ReplyTooDeep, None, sender="dialogist", reply_to=last.id)
    assert text.startswith(f"This would be answer number 4 in a row below {root.id}, and max_reply_depth is 3.")
    assert "sum up what is agreed and post it as a new message, without reply_to. Nothing was posted" in text
    assert post(tmp_path, "dialogist").id, "a new message"
    assert post(tmp_path, None, sender="narrator", reply_to=root.id).id, "a reply further up"


def test_without_a_limit_a_thread_grows_as_it_likes(tmp_path: Path) -> None:
    last = post(tmp_path)
    for _ in range(5):
        last = post(tmp_path, reply_to=last.id)


def test_a_long_thread_is_measured_across_mailboxes_and_copies(tmp_path: Path) -> None:
    settings(tmp_path, "max_reply_depth = 2\n")
    root = post(tmp_path, ["narrator", "dialogist"])
    first = post(tmp_path, "composer", reply_to=root.id)
    second = post(tmp_path, ["narrator", "composer"], reply_to=first.ref)
    assert f"below {root.id}" in refused(tmp_path, ReplyTooDeep, "dialogist", reply_to=second.id)


def test_a_correction_is_as_deep_as_what_it_corrects(tmp_path: Path) -> None:
    settings(tmp_path, "max_reply_depth = 1\n")
    root = post(tmp_path)
    reply = post(tmp_path, reply_to=root.id)
    corrected = post(tmp_path, replaces=reply.id)
    again = post(tmp_path, replaces=corrected.id)
    for message in (reply, corrected, again):
        assert "answer number 2 in a row" in refused(tmp_path, ReplyTooDeep, reply_to=message.id)
    new_root = post(tmp_path, replaces=root.id)
    assert post(tmp_path, reply_to=new_root.id).id, "an answer to the corrected root is the first"


def test_an_orphan_heads_a_thread(tmp_path: Path) -> None:
    settings(tmp_path, "max_reply_depth = 1\n")
    write(tmp_path / "narrator.jsonl", line(1, id=known_id(1), reply_to=known_id(99)))
    first = post(tmp_path, reply_to=known_id(1))
    assert f"below {known_id(1)}" in refused(tmp_path, ReplyTooDeep, reply_to=first.id)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_replies_that_lead_back_to_themselves_hang_nothing(tmp_path: Path, length: int) -> None:
    settings(tmp_path, "max_reply_depth = 3\n")
    circle = [line(n, id=known_id(n), reply_to=known_id((n + 1) % length)) for n in range(length)]
    write(tmp_path / "narrator.jsonl", *circle, line(7, id=known_id(7), reply_to=known_id(0)))
    for name in (known_id(0), known_id(7)):
        depth = length if name == known_id(0) else length + 1
        if depth > 3:
            assert f"answer number {depth} in a row" in refused(tmp_path, ReplyTooDeep, reply_to=name)
        else:
            assert post(tmp_path, "dialogist", reply_to=name).id


def test_corrections_that_lead_back_to_themselves_hang_nothing(tmp_path: Path) -> None:
    settings(tmp_path, "max_reply_depth = 2\n")
    write(
        tmp_path / "narrator.jsonl",
        line(0, id=known_id(0), replaces=known_id(1), reply_to=known_id(2)),
        line(1, id=known_id(1), replaces=known_id(0), reply_to=known_id(3)),
        line(2, id=known_id(2), replaces=known_id(2), reply_to=known_id(1)),
        line(3, id=known_id(3), replaces=known_id(0), reply_to=known_id(3)),
    )
    for number in range(4):
        try:
            post(tmp_path, "dialogist", reply_to=known_id(number))
        except ReplyTooDeep as error:
            assert "in a row below" in str(error)


# --- floods ----------------------------------------------------------------------------------------------------------


def test_a_mailbox_with_too_much_unread_gets_no_more_until_something_is_read(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 2\n")
    first, second = post(tmp_path), post(tmp_path)
    text = refused(tmp_path, MailboxFull)
    assert text.startswith("Too much is unread: narrator has 2 of at most 2. Wait until it has caught up")
    assert text.endswith("Nothing was posted")
    ask(tmp_path, lambda room: room.read("narrator"))
    refused(tmp_path, MailboxFull)
    ask(tmp_path, lambda room: room.acknowledge("narrator", [first.id]))
    post(tmp_path)
    refused(tmp_path, MailboxFull)
    ask(tmp_path, lambda room: room.settle("narrator", reject=second.id))
    post(tmp_path)
    ask(tmp_path, lambda room: room.settle("narrator", reopen=first.id))
    assert "narrator has 3 of at most 2" in refused(tmp_path, MailboxFull)


def test_only_the_own_reader_s_unread_counts(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 1\n")
    for _ in range(3):
        post(tmp_path)
        ask(tmp_path, lambda room: room.read("narrator", ack=True))
    ask(tmp_path, lambda room: room.read("narrator", reader="editor"))
    post(tmp_path)
    ask(tmp_path, lambda room: room.read("narrator", reader="editor", ack=True))
    refused(tmp_path, MailboxFull)


def test_a_channel_may_have_a_limit_of_its_own(tmp_path: Path) -> None:
    settings(
        tmp_path,
        "max_unread = 1\n[channels]\nnarrator = { max_unread = 2 }\ncomposer = { max_unread = 0 }\ndialogist = 'd'\n",
    )
    for _ in range(2):
        post(tmp_path, "narrator")
        post(tmp_path, "composer")
    post(tmp_path, "dialogist")
    assert "narrator has 2 of at most 2" in refused(tmp_path, MailboxFull, "narrator")
    assert "dialogist has 1 of at most 1" in refused(tmp_path, MailboxFull, "dialogist")
    post(tmp_path, "composer")


def test_notes_and_dead_letters_are_never_full(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 1\n")
    for _ in range(3):
        for channel in ("notes", "dead_letters", ["notes", "dead_letters"]):
            post(tmp_path, channel)
    post(tmp_path)
    ask(tmp_path, lambda room: room.settle("narrator", reject="narrator:1", reason="no"))
    assert len((tmp_path / "dead_letters.jsonl").read_bytes().splitlines()) == 7


def test_one_full_mailbox_keeps_a_message_from_all_it_was_for(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 1\n")
    for name in ("narrator", "dialogist"):
        post(tmp_path, name)
    post(tmp_path, "composer")
    ask(tmp_path, lambda room: room.read("composer", ack=True))
    for channel in (["composer", "narrator", "dialogist", "new_one"], "*"):
        text = refused(tmp_path, MailboxFull, channel)
        assert "narrator has 1 of at most 1" in text and "dialogist has 1 of at most 1" in text
        assert "composer" not in text
    assert not (tmp_path / "new_one.jsonl").exists()
    for name in ("narrator", "dialogist"):
        ask(tmp_path, lambda room, name=name: room.read(name, ack=True))
    assert len(post(tmp_path, "*").recipients) == 3


def test_what_has_expired_or_was_corrected_does_not_fill_a_mailbox(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 2\n")
    expired = line(0, id=known_id(0), expires_at="2026-01-01T00:00:00Z")
    old, new = line(1, id=known_id(1)), line(2, id=known_id(2), replaces=known_id(1))
    write(tmp_path / "narrator.jsonl", expired, old, new)
    post(tmp_path)
    refused(tmp_path, MailboxFull)


def test_a_correction_of_what_is_unread_takes_its_place_in_a_full_mailbox(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 2\n")
    first, second = post(tmp_path), post(tmp_path)
    assert "or correct an earlier message with replaces" in refused(tmp_path, MailboxFull)
    better = post(tmp_path, None, replaces=first.id)
    best = post(tmp_path, None, replaces=better.id)
    post(tmp_path, None, replaces=first.id)
    unread = [message.id for message in ask(tmp_path, lambda room: room.read("narrator")).messages]
    assert len(unread) == 2 and second.id in unread and best.id not in unread


def test_a_correction_of_what_was_read_finds_a_full_mailbox_full(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 1\n")
    first = post(tmp_path)
    ask(tmp_path, lambda room: room.read("narrator", ack=True))
    post(tmp_path)
    refused(tmp_path, MailboxFull, None, replaces=first.id)


def test_what_was_posted_before_is_answered_again_though_the_mailbox_is_full(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 1\nmax_reply_depth = 1\n")
    first = post(tmp_path, dedup_key="k1")
    again = post(tmp_path, dedup_key="k1")
    assert (again.id, again.duplicate) == (first.id, True)
    refused(tmp_path, MailboxFull, dedup_key="k2")
    ask(tmp_path, lambda room: room.read("narrator", ack=True))
    assert not post(tmp_path, dedup_key="k2").duplicate, "a refused post does not use its key up"


def test_a_limit_holds_for_a_process_that_has_read_nothing_yet(tmp_path: Path) -> None:
    settings(tmp_path, "max_unread = 1\n")
    post(tmp_path)
    script = """
import asyncio, sys
from mq_server.errors import MailboxFull
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        for _ in range(2):
            try:
                posted = await room.post("narrator", sender="a", msg_type="note", payload={"text": "x"})
                print(posted.recipients[0].unread)
            except MailboxFull as error:
                print("full")
                await room.read("narrator", ack=True)
asyncio.run(main())
"""
    assert output(script, tmp_path).split() == ["full", "1"]

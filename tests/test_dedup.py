"""Posting under a `dedup_key`: a call that may be repeated, whatever happened to the first one."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from mq_server.appendlog import AppendLog
from mq_server.errors import InvalidRequest, KeyTaken, MailError, PartlyPosted, UnknownReference, WriteFailed
from mq_server.mailroom import Mailroom
from mq_server.names import format_time, mint_id
from mq_server.outcomes import Posted
from tests.support import DEADLINE_S, ask, line, python, said, tell, write

HOUR_US = 3600 * 1_000_000


def note(text: str = "x", **keys: Any) -> dict[str, Any]:
    return {"sender": "director", "msg_type": "note", "payload": {"text": text}, "dedup_key": "k1"} | keys


def post(root: Path, channel: Any = "narrator", **keys: Any) -> Posted:
    posted: Posted = ask(root, lambda room: room.post(channel, **note(**keys)))
    return posted


def stored(root: Path, channel: str = "narrator") -> list[dict[str, Any]]:
    path = root / f"{channel}.jsonl"
    return [orjson.loads(text) for text in path.read_bytes().splitlines()] if path.is_file() else []


def refused(root: Path, error: type[MailError] = InvalidRequest, channel: Any = "narrator", **keys: Any) -> str:
    """The text of a post that is refused and leaves no trace."""
    before = {path: path.read_bytes() for path in root.rglob("*.jsonl")}
    with pytest.raises(error) as caught:
        post(root, channel, **keys)
    assert {path: path.read_bytes() for path in root.rglob("*.jsonl")} == before
    return str(caught.value)


def keyed_line(age_us: int, **keys: Any) -> bytes:
    """A line that was posted so long ago under the key."""
    time_us = time.time_ns() // 1000 - age_us
    usual = {"id": mint_id(time_us), "timestamp": format_time(time_us), "sender": "director", "dedup_key": "k1"}
    return line(**(usual | {"text": "x"} | keys))


# --- one call, made again --------------------------------------------------------------------------------------------


def test_the_same_call_again_gives_the_first_answer(tmp_path: Path) -> None:
    first = post(tmp_path)
    again = post(tmp_path)
    assert (again.id, again.message) == (first.id, first.message)
    assert (first.duplicate, first.differs) == (False, False)
    assert (again.duplicate, again.differs) == (True, False)
    assert "duplicate" not in first.as_json()
    assert again.as_json()["duplicate"] is True and "differs" not in again.as_json()
    (only,) = stored(tmp_path)
    assert only["dedup_key"] == "k1"
    assert list(only)[-2:] == ["dedup_key", "payload"]


def test_another_content_under_the_key_is_not_posted_and_the_answer_says_so(tmp_path: Path) -> None:
    asked = ask(tmp_path, lambda room: room.post("narrator", sender="a", msg_type="own", payload={}))
    first = post(tmp_path)
    for other in (
        {"text": "y"},
        {"msg_type": "answer"},
        {"scene": "s2"},
        {"reply_to": asked.id},
        {"replaces": asked.id},
        {"urgent": True},
    ):
        again = post(tmp_path, **other)
        assert (again.id, again.duplicate, again.differs) == (first.id, True, True), other
        assert again.message.payload == {"text": "x"}
        assert "use a new key for a new one" in again.as_json()["differs"]
    assert len(stored(tmp_path)) == 2


def test_what_is_read_back_in_another_form_is_no_other_content(tmp_path: Path) -> None:
    payload = {"numbers": (1, 2.0), "text": "äöü €", "deep": {"list": [{"a": None}]}, "big": 2**63}
    for _ in range(2):
        posted = post(tmp_path, msg_type="own", payload=payload, urgent=True, scene="s1", expires_in_s=50)
    assert (posted.duplicate, posted.differs) == (True, False)


def test_a_reply_under_a_key_may_be_repeated(tmp_path: Path) -> None:
    asked = post(tmp_path, "narrator", scene="s1")
    for _ in range(2):
        answered = post(tmp_path, None, sender="narrator", reply_to=asked.ref)
    assert (answered.duplicate, answered.differs) == (True, False)
    assert len(stored(tmp_path, "director")) == 1


def test_keys_and_senders_are_told_apart(tmp_path: Path) -> None:
    posts = [
        post(tmp_path),
        post(tmp_path, dedup_key="k2"),
        post(tmp_path, dedup_key="K1"),
        post(tmp_path, sender="editor"),
        post(tmp_path, dedup_key=None),
        post(tmp_path, dedup_key=None),
    ]
    assert len({posted.id for posted in posts}) == 6
    assert not any(posted.duplicate for posted in posts)
    assert post(tmp_path, sender="editor").id == posts[3].id


@pytest.mark.parametrize("key", ["", "x" * 201, 7, "half \ud800", b"k"])
def test_a_key_is_a_text_of_up_to_200_characters(tmp_path: Path, key: Any) -> None:
    text = refused(tmp_path, dedup_key=key)
    assert text == f"dedup_key is {key!r}; give a text of 1 to 200 characters"


@pytest.mark.parametrize("key", ["x" * 200, "ü" * 200, " ", 'a "quoted"\nkey', "null"])
def test_any_other_text_is_a_key(tmp_path: Path, key: str) -> None:
    first = post(tmp_path, dedup_key=key)
    again = post(tmp_path, dedup_key=key)
    assert (again.id, again.duplicate) == (first.id, True)


def test_a_key_counts_for_24_hours(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", keyed_line(24 * HOUR_US + 1))
    new = post(tmp_path)
    assert not new.duplicate
    assert post(tmp_path).id == new.id
    young = keyed_line(24 * HOUR_US - 60_000_000)
    write(tmp_path / "narrator.jsonl", keyed_line(24 * HOUR_US + 1), young)
    again = post(tmp_path)
    assert (again.duplicate, again.message.line) == (True, 2)


def test_a_key_survives_the_loss_of_the_runtime_folder(tmp_path: Path) -> None:
    first = post(tmp_path)
    shutil.rmtree(tmp_path / ".mq")
    assert post(tmp_path).id == first.id


def test_a_key_counts_though_the_message_was_read_or_rejected_or_corrected(tmp_path: Path) -> None:
    first = post(tmp_path)
    ask(tmp_path, lambda room: room.settle("narrator", reject=first.id, reason="no"))
    assert post(tmp_path).id == first.id
    correction = post(tmp_path, text="better", replaces=first.id, dedup_key=None)
    again = post(tmp_path)
    assert (again.id, again.duplicate) == (first.id, True)
    assert stored(tmp_path)[-1]["id"] == correction.id


def test_a_correction_may_be_repeated_under_a_key_of_its_own(tmp_path: Path) -> None:
    first = post(tmp_path)
    corrections = [post(tmp_path, None, text="better", replaces=first.id, dedup_key="k2") for _ in range(2)]
    assert (corrections[0].id, corrections[1].differs) == (corrections[1].id, False)
    assert len(stored(tmp_path)) == 2


@pytest.mark.parametrize(
    "keys",
    [
        {"to": []},
        {"to": ["narrator", "../outside"]},
        {"to": ["Not A Name"]},
        {"to": ["narrator", "narrator"]},
        {"channel": "elsewhere"},
        {"payload": {"text": 7, "more": [None]}},
        {"msg_type": "no such type"},
        {"unknown": {"key": 1}},
        {"expires_at": "never"},
        {"replaces": "no id"},
    ],
)
def test_a_line_edited_by_hand_is_found_by_its_key_as_it_stands(tmp_path: Path, keys: dict[str, Any]) -> None:
    root = tmp_path / "production"
    before = write(root / "narrator.jsonl", keyed_line(HOUR_US, **keys)).read_bytes()
    again = post(root)
    assert again.duplicate
    assert (root / "narrator.jsonl").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["production"]


@pytest.mark.parametrize("key", [7, None, ["k1"], {}])
def test_a_key_that_is_no_text_is_no_key(tmp_path: Path, key: Any) -> None:
    write(tmp_path / "narrator.jsonl", keyed_line(HOUR_US, dedup_key=key))
    assert not post(tmp_path).duplicate


def test_a_first_post_under_a_key_makes_a_whole_production(tmp_path: Path) -> None:
    root = tmp_path / "production"
    post(root)
    assert (root / ".gitignore").read_text() == ".mq/\n"
    assert "merge=union" in (root / ".gitattributes").read_text()


def test_a_post_under_a_key_that_is_refused_leaves_the_key_free(tmp_path: Path) -> None:
    post(tmp_path, dedup_key=None)
    refused(tmp_path, payload={})
    refused(tmp_path, channel=None, reply_to="ZZZZZZ")
    assert not post(tmp_path).duplicate


# --- several recipients ----------------------------------------------------------------------------------------------


def test_a_key_of_a_message_to_others_is_taken(tmp_path: Path) -> None:
    first = post(tmp_path)
    text = refused(tmp_path, KeyTaken, ["narrator", "dialogist"])
    assert text == (
        f"dedup_key 'k1' is that of {first.ref}, which went to narrator and not to dialogist. Use another key for "
        "another message. Nothing was posted"
    )
    assert not (tmp_path / "dialogist.jsonl").exists()


def test_a_message_to_several_is_given_again_to_whom_it_went(tmp_path: Path) -> None:
    first = post(tmp_path, ["narrator", "dialogist"])
    for channel in (["narrator", "dialogist"], ["dialogist", "narrator"], "dialogist"):
        again = post(tmp_path, channel)
        assert (again.id, again.duplicate) == (first.id, True)
        assert [recipient.channel for recipient in again.recipients] == ["narrator", "dialogist"]
    assert [len(stored(tmp_path, name)) for name in ("narrator", "dialogist")] == [1, 1]


def test_a_message_to_everybody_may_be_repeated_when_there_are_more(tmp_path: Path) -> None:
    for name in ("narrator", "dialogist"):
        post(tmp_path, name, dedup_key=None)
    first = post(tmp_path, "*")
    post(tmp_path, "composer", dedup_key=None)
    again = post(tmp_path, "*")
    assert (again.id, again.duplicate, again.differs) == (first.id, True, False)
    assert len(stored(tmp_path, "composer")) == 1, "it had gone to everybody there was"
    refused(tmp_path, KeyTaken, "*", text="another")


def break_appends(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let nothing be written to one mailbox."""
    whole = AppendLog.append

    def append(self: AppendLog, *arguments: Any, **named: Any) -> Any:
        if self.path.name == f"{name}.jsonl":
            raise WriteFailed(self.path, OSError(5, "Input/output error"))
        return whole(self, *arguments, **named)

    patch.setattr(AppendLog, "append", append)


@pytest.mark.parametrize("channel", [["narrator", "dialogist", "composer"], "*"])
def test_a_message_that_reached_some_is_completed_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channel: Any
) -> None:
    for name in ("composer", "dialogist", "narrator"):
        post(tmp_path, name, dedup_key=None, text="before")
    with monkeypatch.context() as patch:
        break_appends(patch, "dialogist")
        with pytest.raises(PartlyPosted) as caught:
            post(tmp_path, channel)
    assert "dedup_key completes it" in str(caught.value)
    (reached,) = stored(tmp_path, "composer")[1:]
    assert reached["id"] in str(caught.value)
    assert [len(stored(tmp_path, name)) for name in ("dialogist", "narrator")] == [1, 1]
    shutil.rmtree(tmp_path / ".mq")
    post(tmp_path, "dialogist", dedup_key=None, text="between")
    completed = post(tmp_path, channel)
    assert (completed.id, completed.message.timestamp) == (reached["id"], reached["timestamp"])
    assert (completed.duplicate, completed.differs) == (True, False)
    assert {recipient.channel for recipient in completed.recipients} == {"composer", "dialogist", "narrator"}
    for name in ("composer", "dialogist", "narrator"):
        (copy,) = (found for found in stored(tmp_path, name) if found["id"] == reached["id"])
        assert copy == reached | {"channel": name}
    assert post(tmp_path, channel).id == reached["id"]
    assert [len(stored(tmp_path, name)) for name in ("composer", "dialogist", "narrator")] == [2, 3, 2]
    unread = ask(tmp_path, lambda room: room.read("dialogist")).messages
    assert [message.id for message in unread][-1] == reached["id"], "and it is delivered"


def test_a_message_is_completed_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = ["composer", "narrator"]
    with monkeypatch.context() as patch:
        break_appends(patch, "narrator")
        with pytest.raises(PartlyPosted):
            post(tmp_path, channels)
    script = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        keys = {"sender": "director", "msg_type": "note", "payload": {"text": "x"}, "dedup_key": "k1"}
        posted = await room.post(["composer", "narrator"], **keys)
        print(posted.id, posted.duplicate, [recipient.created for recipient in posted.recipients], flush=True)
asyncio.run(main())
"""
    with python(script, tmp_path) as process:
        assert said(process) == f"{stored(tmp_path, 'composer')[0]['id']} True [False, True]"
    assert stored(tmp_path, "narrator")[0]["id"] == stored(tmp_path, "composer")[0]["id"]


def test_while_a_mailbox_stays_broken_the_retry_fails_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = ["composer", "dialogist", "narrator"]
    with monkeypatch.context() as patch:
        break_appends(patch, "dialogist")
        for _ in range(3):
            with pytest.raises(MailError):
                post(tmp_path, channels)
        assert [len(stored(tmp_path, name)) for name in channels] == [1, 0, 0]
    post(tmp_path, channels)
    assert [len(stored(tmp_path, name)) for name in channels] == [1, 1, 1]
    assert len({stored(tmp_path, name)[0]["id"] for name in channels}) == 1


def test_a_folder_in_the_place_of_a_mailbox_keeps_a_message_from_all(tmp_path: Path) -> None:
    (tmp_path / "narrator.jsonl").mkdir()
    text = ""
    with pytest.raises(WriteFailed) as caught:
        post(tmp_path, ["composer", "narrator"])
    text = str(caught.value)
    assert "narrator.jsonl" in text and "Nothing was written" in text
    assert stored(tmp_path, "composer") == []
    (tmp_path / "narrator.jsonl").rmdir()
    posted = post(tmp_path, ["composer", "narrator"])
    assert not posted.duplicate
    assert stored(tmp_path, "narrator")[0]["id"] == stored(tmp_path, "composer")[0]["id"] == posted.id


def test_without_a_key_nothing_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_appends(patch, "narrator")
        with pytest.raises(PartlyPosted):
            post(tmp_path, ["composer", "narrator"], dedup_key=None)
    post(tmp_path, ["composer", "narrator"], dedup_key=None)
    assert [len(stored(tmp_path, name)) for name in ("composer", "narrator")] == [2, 1]


def test_a_copy_that_a_checkout_took_away_is_put_back_by_the_same_call(tmp_path: Path) -> None:
    first = post(tmp_path, ["composer", "narrator"])
    (tmp_path / "narrator.jsonl").unlink()
    assert post(tmp_path, ["composer", "narrator"]).id == first.id
    assert stored(tmp_path, "narrator")[0]["id"] == first.id


# --- at once ---------------------------------------------------------------------------------------------------------


def test_callers_at_once_store_one(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> list[Posted]:
        async with Mailroom(tmp_path) as other:
            rooms = [room, other] * 5
            return await asyncio.gather(*(each.post(["narrator", "dialogist"], **note()) for each in rooms))

    posts = ask(tmp_path, work)
    assert len({posted.id for posted in posts}) == 1
    assert sorted(posted.duplicate for posted in posts) == [False] + [True] * 9
    assert [len(stored(tmp_path, name)) for name in ("narrator", "dialogist")] == [1, 1]


def test_a_caller_that_goes_away_while_a_mailbox_is_locked_leaves_one_message(tmp_path: Path) -> None:
    post(tmp_path, dedup_key=None)

    async def work(room: Mailroom) -> None:
        async with Mailroom(tmp_path) as other:
            with other._store.mailbox("narrator").lock.held(1):
                call = asyncio.ensure_future(room.post("narrator", **note()))
                while not room._store._writer._queue.empty() or room._store._writer._thread is None:
                    await asyncio.sleep(0.001)  # until the writer has it, and waits for the lock
                for _ in range(5):
                    call.cancel()
                    await asyncio.sleep(0)
                again = [asyncio.ensure_future(each.post("narrator", **note())) for each in (room, other)]
                await asyncio.sleep(0.02)
            with pytest.raises(asyncio.CancelledError):
                await call
            assert [posted.duplicate for posted in await asyncio.gather(*again)] == [True, True]

    ask(tmp_path, work)
    assert Counter(found.get("dedup_key") for found in stored(tmp_path)) == {None: 1, "k1": 1}


POSTER = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        print("ready", flush=True)
        for number in range(int(sys.argv[2])):
            await asyncio.to_thread(sys.stdin.readline)
            keys = {"msg_type": "note", "payload": {"text": str(number)}, "dedup_key": f"round {number}"}
            posted = await room.post(["alpha", "beta"], sender="director", **keys)
            print(posted.id, posted.duplicate, posted.differs, flush=True)
asyncio.run(main())
"""


def test_processes_at_once_store_one_in_every_round(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b'durability = "os"\n')
    rounds = 100
    with ExitStack() as stack:
        processes = [stack.enter_context(python(POSTER, tmp_path, rounds)) for _ in range(3)]
        assert [said(process) for process in processes] == ["ready"] * 3
        for number in range(rounds):
            if number % 20 == 19:
                shutil.rmtree(tmp_path / ".mq")
            for process in processes:
                tell(process)
            answers = [said(process).split() for process in processes]
            assert len({message_id for message_id, _, _ in answers}) == 1
            assert sorted(duplicate for _, duplicate, _ in answers) == ["False", "True", "True"]
            assert {differs for _, _, differs in answers} == {"False"}
    for channel in ("alpha", "beta"):
        keys = [found["dedup_key"] for found in stored(tmp_path, channel)]
        assert keys == [f"round {number}" for number in range(rounds)]


def test_a_process_that_is_killed_with_the_key_in_hand_leaves_it_free(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        async with room._store.sender_lock("director").held_by_task(5):
            print("held", flush=True)
            await asyncio.sleep(60)
asyncio.run(main())
"""
    post(tmp_path, dedup_key=None)
    with python(script, tmp_path) as process:
        assert said(process) == "held"
        process.kill()
        process.wait(DEADLINE_S)
        assert not post(tmp_path).duplicate


def test_another_sender_does_not_wait_for_a_key_in_hand(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b"lock_timeout_s = 0.1\n")
    post(tmp_path, dedup_key=None)

    async def work(room: Mailroom) -> None:
        async with Mailroom(tmp_path) as other:
            async with other._store.sender_lock("director").held_by_task(5):
                with pytest.raises(MailError, match="Nothing was written"):
                    await room.post("narrator", **note())
                assert (await room.post("narrator", **note(sender="editor"))).id
                assert (await room.post("narrator", **note(dedup_key=None))).id
            assert not (await room.post("narrator", **note())).duplicate

    ask(tmp_path, work)


def test_a_message_that_vanishes_while_it_is_found_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post(tmp_path)
    found = Mailroom._posted_before

    def vanish(self: Mailroom, *arguments: Any) -> Any:
        place = found(self, *arguments)
        write(tmp_path / "narrator.jsonl", line(0, text="another branch"))
        return place

    monkeypatch.setattr(Mailroom, "_posted_before", vanish)
    with pytest.raises(UnknownReference):
        post(tmp_path)

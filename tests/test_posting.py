"""Posting: who gets a message, what it inherits, what is refused."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from mq_server.errors import (
    AmbiguousReference,
    InvalidRequest,
    LockTimeout,
    MailError,
    MessageTooLong,
    UnknownChannel,
    WriteFailed,
)
from mq_server.mailroom import Mailroom
from mq_server.outcomes import Posted
from mq_server.payloads import Narration, Score
from tests.support import ask, known_id, line, output, write


def post(root: Path, channel: Any = "narrator", **keys: Any) -> Posted:
    usual = {"sender": "scene_director", "msg_type": "note", "payload": {"text": "x"}}
    posted: Posted = ask(root, lambda room: room.post(channel, **(usual | keys)))
    return posted


def stored(root: Path, channel: str = "narrator") -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in (root / f"{channel}.jsonl").read_bytes().splitlines()]


def refused(root: Path, error: type[MailError] = InvalidRequest, channel: Any = "narrator", **keys: Any) -> str:
    """The text of a post that is refused and leaves no trace."""
    before = {path: path.read_bytes() for path in root.rglob("*.jsonl")}
    with pytest.raises(error) as caught:
        post(root, channel, **keys)
    assert {path: path.read_bytes() for path in root.rglob("*.jsonl")} == before
    return str(caught.value)


# --- what is stored --------------------------------------------------------------------------------------------------


def test_a_post_is_one_line_and_the_answer_says_which(tmp_path: Path) -> None:
    posted = post(tmp_path, payload={"text": "Vorhang auf!"}, scene="s1")
    assert stored(tmp_path) == [
        {
            "id": posted.id,
            "timestamp": posted.message.timestamp,
            "channel": "narrator",
            "sender": "scene_director",
            "msg_type": "note",
            "scene": "s1",
            "payload": {"text": "Vorhang auf!"},
        }
    ]
    assert posted.ref == f"narrator:1~{posted.id[-4:]}"
    assert b"Vorhang auf!" in (tmp_path / "narrator.jsonl").read_bytes()
    (recipient,) = posted.recipients
    assert recipient.created
    assert not post(tmp_path).recipients[0].created


@pytest.mark.skipif(os.name == "nt", reason="the calls of POSIX are counted")
def test_a_post_asks_the_system_for_little(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b'durability = "os"\n')  # a slow disk's posts are written in a thread
    asked: Counter[str] = Counter()

    def count(_: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__module__ in ("posix", "fcntl"):
            asked[function.__name__] += 1

    async def third(room: Mailroom) -> None:
        for _ in range(2):
            await room.post("narrator", sender="a", msg_type="plain", payload={"text": "x"})
        sys.setprofile(count)
        try:
            await room.post("narrator", sender="a", msg_type="plain", payload={"text": "x"})
        finally:
            sys.setprofile(None)

    ask(tmp_path, third)
    lock = Counter(flock=2, stat=1)
    append = Counter(open=1, fstat=1, write=1, utime=1, stat=1, close=1)
    stamp, journal = Counter(stat=1, pwrite=1), Counter(stat=1, write=1)
    who_waits, what_schema = Counter(access=2), Counter(access=1)
    assert asked["flock"] == 2
    assert asked <= lock + append + stamp + journal + who_waits + what_schema


def test_a_mailbox_that_was_deleted_is_made_again_and_the_answer_says_so(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> list[bool]:
        async def made() -> bool:
            posted = await room.post("narrator", sender="scene_director", msg_type="note", payload={"text": "x"})
            return posted.recipients[0].created

        found = [await made(), await made()]
        (tmp_path / "narrator.jsonl").unlink()
        return [*found, await made(), await made()]

    assert ask(tmp_path, work) == [True, False, True, False]


def test_a_message_to_several_is_one_with_a_copy_in_each(tmp_path: Path) -> None:
    posted = post(tmp_path, ["narrator", "dialogist", "narrator"])
    copies = [stored(tmp_path, name)[0] for name in ("narrator", "dialogist")]
    assert {copy.pop("channel") for copy in copies} == {"narrator", "dialogist"}
    assert copies[0] == copies[1]
    assert copies[0]["to"] == ["narrator", "dialogist"]
    assert posted.message.channel == "narrator"
    assert [recipient.channel for recipient in posted.recipients] == ["narrator", "dialogist"]


def test_a_star_means_everybody_but_the_sender(tmp_path: Path) -> None:
    assert "channel '*' means everybody but you, and there is nobody else yet" in refused(tmp_path, channel="*")
    for name in ("narrator", "dialogist", "scene_director", "notes", "dead_letters"):
        post(tmp_path, name)
    assert [recipient.channel for recipient in post(tmp_path, "*").recipients] == ["dialogist", "narrator"]


def test_a_reply_goes_to_the_sender_with_the_scene_of_what_it_answers(tmp_path: Path) -> None:
    asked = post(tmp_path, scene="s1")
    answered = post(tmp_path, None, sender="narrator", reply_to=asked.ref)
    (line_of_answer,) = stored(tmp_path, "scene_director")
    assert line_of_answer["reply_to"] == asked.id
    assert line_of_answer["scene"] == "s1"
    elsewhere = post(tmp_path, "dialogist", sender="narrator", reply_to=answered.id, scene="s2")
    assert elsewhere.message.scene == "s2"


def test_a_correction_goes_wherever_the_original_stands(tmp_path: Path) -> None:
    first = post(tmp_path, ["narrator", "dialogist"], scene="s1")
    second = post(tmp_path, None, sender="narrator", replaces=first.id)
    assert [recipient.channel for recipient in second.recipients] == ["dialogist", "narrator"]
    assert post(tmp_path, "narrator", replaces=first.id).message.to is None
    assert "replaces: No message is named" in refused(tmp_path, channel=None, replaces="ZZZZZZ")


def test_every_way_to_name_a_message_is_stored_as_its_id(tmp_path: Path) -> None:
    asked = post(tmp_path)
    for name in (asked.id, asked.id.lower(), asked.id[-8:], "narrator:1", asked.ref):
        assert post(tmp_path, "dialogist", reply_to=name).message.reply_to == asked.id
    corrected = post(tmp_path, replaces="narrator:1")
    assert corrected.message.replaces == asked.id
    scored = post(tmp_path, msg_type="score", payload={"of": asked.ref, "score": 0.5})
    assert scored.message.payload["of"] == asked.id


def test_urgent_and_expiry_are_stored_when_they_are_set(tmp_path: Path) -> None:
    message = post(tmp_path, urgent=True, expires_in_s=1.5).message
    (kept,) = stored(tmp_path)
    assert kept["urgent"] is True
    assert kept["expires_at"] == message.expires_at
    assert list(kept)[-1] == "payload"
    post(tmp_path)
    assert "urgent" not in stored(tmp_path)[1]


def test_a_payload_may_be_a_model(tmp_path: Path) -> None:
    post(tmp_path, msg_type=None, payload=Narration(text="Nebel.", mood="grey"))
    assert stored(tmp_path)[0]["msg_type"] == "narration"
    assert stored(tmp_path)[0]["payload"] == {"text": "Nebel.", "mood": "grey"}

    class Own(BaseModel):
        weight: int
        unset: str = "default"

    post(tmp_path, msg_type="own", payload=Own(weight=3))
    assert stored(tmp_path)[1]["payload"] == {"weight": 3}


def test_an_unknown_type_carries_any_object(tmp_path: Path) -> None:
    post(tmp_path, msg_type="weather report", payload={})
    assert stored(tmp_path)[0]["msg_type"] == "weather report"


def test_nothing_but_the_post_is_needed(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"other{number}.jsonl", b"no line that can be read\n")

    async def work(room: Mailroom) -> None:
        await room.post("narrator", sender="a", msg_type="note", payload={"text": "x"})
        assert not room._shelf.index.channels, "a post reads no mailbox"

    ask(tmp_path, work)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Narrator", "", "../secret", "/etc/passwd", "a/b", "a\\b", "nul", "com1", "x" * 65, "a\n"]
)
def test_a_bad_channel_name_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "production"
    post(root)
    text = refused(root, channel=name)
    assert f"channel {name!r} is" in text
    assert "use 1 to 64 of a-z" in text or "choose another name" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["production"]
    assert f"channel {name!r}" in refused(root, channel=["narrator", name])


@pytest.mark.parametrize("sender", ["", "Me", "a b", "../x", "con"])
def test_a_bad_sender_is_refused(tmp_path: Path, sender: str) -> None:
    assert f"sender {sender!r} is" in refused(tmp_path, sender=sender)


@pytest.mark.parametrize("msg_type", [None, "", "  ", 7])
def test_a_missing_type_is_refused(tmp_path: Path, msg_type: Any) -> None:
    assert "msg_type is missing: name the kind of message, such as 'note'" in refused(tmp_path, msg_type=msg_type)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("text", 'payload must be a JSON object, not text; write {"text": …} for plain text'),
        (["a"], "payload must be a JSON object, not a list"),
        (None, "payload must be a JSON object, not null"),
        (7, "payload must be a JSON object, not a number"),
        (True, "payload must be a JSON object, not true or false"),
        ({"text": float("nan")}, "payload.text is nan, which JSON cannot carry"),
        ({"text": "\ud800"}, "The payload cannot be stored as JSON"),
        ({"text": 2**70}, "The payload cannot be stored as JSON: Integer exceeds 64-bit range"),
        ({}, "payload.text: field required; a 'note' payload is {text}"),
        ({"text": ""}, "payload.text: string should have at least 1 character"),
        ({"text": 7}, "payload.text: input should be a valid string"),
    ],
)
def test_a_bad_payload_is_refused(tmp_path: Path, payload: Any, words: str) -> None:
    assert words in refused(tmp_path, payload=payload)


@pytest.mark.parametrize("text", ["\ud800", "\udfff x"])
def test_half_a_character_is_refused_wherever_it_stands(tmp_path: Path, text: str) -> None:
    assert "cannot be stored as JSON" in refused(tmp_path, msg_type=f"note {text}")
    assert "cannot be stored as JSON" in refused(tmp_path, msg_type="own", payload={text: 1})


def test_one_error_names_every_fault(tmp_path: Path) -> None:
    text = refused(tmp_path, channel="Bad", sender="", scene="A B", expires_in_s=-1, payload={}, replaces="zzzz")
    for words in ("channel 'Bad'", "sender ''", "scene 'A B'", "expires_in_s is -1", "payload.text", "named 'zzzz'"):
        assert words in text


@pytest.mark.parametrize("seconds", [0, -1, 1e10, float("nan"), float("inf")])
def test_an_expiry_must_lie_within_a_year(tmp_path: Path, seconds: float) -> None:
    assert f"expires_in_s is {seconds}; give seconds between 0 and a year" in refused(tmp_path, expires_in_s=seconds)


def test_a_message_without_a_recipient_is_refused(tmp_path: Path) -> None:
    assert "channel is missing: name the recipient, or give reply_to" in refused(tmp_path, channel=None)
    assert "channel is empty: name at least one recipient" in refused(tmp_path, channel=[])


def test_an_unknown_reference_is_refused(tmp_path: Path) -> None:
    post(tmp_path)
    for name in ("ZZZZZZ", "narrator:7", "elsewhere:1", known_id(3)):
        assert f"No message is named {name!r}" in refused(tmp_path, channel=None, reply_to=name)
    assert "payload.of: No message is named" in refused(
        tmp_path, msg_type="score", payload={"of": "ZZZZZZ", "score": 0.5}
    )


def test_an_ambiguous_reference_is_refused(tmp_path: Path) -> None:
    twins = [known_id(number)[:-4] + "ABCD" for number in (1, 2)]
    write(tmp_path / "narrator.jsonl", *(line(number, id=twin) for number, twin in enumerate(twins)))
    text = refused(tmp_path, channel="dialogist", reply_to="abcd")
    assert "fits 2 messages; give more of the id" in text
    assert twins[0] in text

    async def look(room: Mailroom) -> None:
        with pytest.raises(AmbiguousReference):
            await room.message("ABCD")

    ask(tmp_path, look)


def test_a_reply_to_a_sender_whose_name_is_a_path_leads_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "production"
    write(root / "narrator.jsonl", line(1, sender="../outside"))
    assert "channel '../outside' is not a valid name" in refused(root, channel=None, reply_to="narrator:1")
    assert not (tmp_path / "outside.jsonl").exists()


def test_a_message_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b"max_message_bytes = 2000\n")
    size = 2000 - len(line(0, text="x")) + 1
    post(tmp_path, payload={"text": "x" * size})
    assert len((tmp_path / "narrator.jsonl").read_bytes()) == 2000
    text = refused(tmp_path, MessageTooLong, payload={"text": "x" * (size + 1)})
    assert text.startswith("The message is 2,001 bytes as a line; the limit is 2,000. Shorten the payload")
    assert text.endswith("raise max_message_bytes in mq.toml. Nothing was posted")


def test_the_limit_counts_bytes_and_the_longest_copy(tmp_path: Path) -> None:
    text = refused(tmp_path, MessageTooLong, payload={"text": "ä" * 131_072})
    assert "the limit is 262,144" in text
    assert post(tmp_path, payload={"text": "ä" * 130_000}).id


def test_a_lock_held_too_long_is_told(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b"lock_timeout_s = 0.1\n")
    post(tmp_path)

    async def work(room: Mailroom) -> None:
        other = Mailroom(tmp_path)
        with other._store.mailbox("narrator").lock.held(1), pytest.raises(LockTimeout, match="Nothing was written"):
            await room.post("narrator", sender="a", msg_type="note", payload={"text": "x"})
        await other.close()
        await room.post("narrator", sender="a", msg_type="note", payload={"text": "y"})

    ask(tmp_path, work)
    assert [found["payload"]["text"] for found in stored(tmp_path)] == ["x", "y"]


def test_a_full_disk_is_told_and_nothing_half_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post(tmp_path)
    real_write = os.write

    def full(handle: int, data: bytes) -> int:
        if data.startswith(b'{"id"'):
            return real_write(handle, data[:20])
        if data.endswith(b"}\n"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        text = refused(tmp_path, WriteFailed)
    assert "narrator.jsonl: No space left on device. Nothing was posted; free some space and post again" in text
    post(tmp_path)
    assert len(stored(tmp_path)) == 2


# --- what a post reads ----------------------------------------------------------------------------------------------

REFERENCES = ("narrator:2", "narrator:2~{end}", "narrator:1~{end}", "narrator:9~{end}", "{end}", "{id}")


def known(number: int, **keys: Any) -> bytes:
    return line(number, id=known_id(number), **keys)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("stamped", [False, True])
def test_a_reply_means_the_same_message_whether_the_mailbox_has_been_read_or_not(
    tmp_path: Path, reference: str, stamped: bool
) -> None:
    write(tmp_path / "narrator.jsonl", known(1), known(2, scene="q2-s3", sender="dialogist"), known(3))
    if stamped:
        post(tmp_path)
    named = reference.format(id=known_id(2), end=known_id(2)[-5:])

    async def read_first(room: Mailroom) -> Posted:
        await room.history("narrator")
        return await room.post(sender="a", msg_type="note", payload={"text": "x"}, reply_to=named)

    for posted in (post(tmp_path, None, reply_to=named), ask(tmp_path, read_first)):
        assert posted.message.reply_to == known_id(2)
        assert (posted.message.channel, posted.message.scene) == ("dialogist", "q2-s3")


@pytest.mark.parametrize("reference", ["narrator:4", "narrator:5", "narrator:2~ZZZZ", "nobody:1", "narrator:3"])
def test_a_line_that_is_no_message_or_another_one_cannot_be_answered(tmp_path: Path, reference: str) -> None:
    write(tmp_path / "narrator.jsonl", known(1), known(2), b"torn\n", b"\n")
    assert "reply_to: " in refused(tmp_path, reply_to=reference)


def test_who_names_a_line_has_no_mailbox_indexed_for_it(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", known(1), known(2))
    write(tmp_path / "dialogist.jsonl", known(3))

    async def work(room: Mailroom) -> None:
        said = {"sender": "a", "payload": {"text": "x"}}
        await room.post("narrator", msg_type="note", reply_to=f"narrator:2~{known_id(2)[-4:]}", **said)
        await room.post("narrator", msg_type="feedback", sender="a", payload={"text": "x", "of": "dialogist:1"})
        everybody = await room.post("*", msg_type="note", **said)
        assert [to.channel for to in everybody.recipients] == ["dialogist", "narrator"]
        assert not room._index.channels
        await room.post("narrator", msg_type="note", reply_to=f"narrator:1~{known_id(2)[-4:]}", **said)
        assert list(room._index.channels) == ["narrator"], "the line has moved: its own mailbox knows where to"

    ask(tmp_path, work)
    assert [found["reply_to"] for found in stored(tmp_path) if "reply_to" in found] == [known_id(2)] * 2
    assert stored(tmp_path)[3]["payload"]["of"] == known_id(3)


UNWRITABLE = """
import asyncio, concurrent.futures.thread, difflib, os, sys  # what is imported later may not be readable for that user
from pathlib import Path
from mq_server.errors import WriteFailed
from mq_server.mailroom import Mailroom
from mq_server.posting import Posting
from mq_server import payloads
folder = Path(sys.argv[1])
folder.chmod(0o555)
if os.geteuid() == 0:
    os.seteuid(65534)
async def work(root):
    async with Mailroom(root) as room:
        try:
            await room.post("narrator", sender="a", msg_type="note", payload={"text": "x"})
        except WriteFailed as error:
            print(error)
        assert (await room.read("narrator")).messages == ()
asyncio.run(work(folder))
asyncio.run(work(folder / "below"))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_an_unwritable_folder_is_told(public_folder: Path) -> None:
    first, second = output(UNWRITABLE, public_folder).splitlines()
    for text in (first, second):
        assert "Permission denied. Nothing was written; make it writable for this user" in text


# --- rosters and slips -----------------------------------------------------------------------------------------------


def test_without_a_roster_a_slip_is_refused_and_a_new_name_is_not(tmp_path: Path) -> None:
    post(tmp_path, "narrator")
    text = refused(tmp_path, UnknownChannel, channel="narator")
    assert text == "There is no channel 'narator' in this production. Did you mean 'narrator'? Channels: narrator"
    assert refused(tmp_path, UnknownChannel, channel=["dialogist", "narrator_"])
    post(tmp_path, "dialogist")
    post(tmp_path, "agent_1")
    post(tmp_path, "agent_2")


def test_with_a_roster_only_its_names_can_be_posted_to(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b'[channels]\nnarrator = "tells"\nnarrator2 = { description = "too", group = "g" }\n')
    for name in ("narrator", "narrator2", "notes", "dead_letters"):
        post(tmp_path, name)
    text = refused(tmp_path, UnknownChannel, channel="narator")
    assert "There is no channel 'narator' on the roster of mq.toml. Did you mean 'narrator'?" in text
    write(tmp_path / "stranger.jsonl", line(1))
    assert "on the roster" in refused(tmp_path, UnknownChannel, channel="stranger"), "though there is such a file"
    assert [recipient.channel for recipient in post(tmp_path, "*").recipients] == ["narrator", "narrator2"]


def test_nobody_posts_in_the_name_of_another(tmp_path: Path) -> None:
    assert post(tmp_path, sender=None, caller="narrator").message.sender == "narrator"
    assert post(tmp_path, sender="narrator", caller="narrator").message.sender == "narrator"
    assert "you are known to be 'narrator'" in refused(tmp_path, sender="dialogist", caller="narrator")
    assert "sender is missing" in refused(tmp_path, sender=None)


# --- several at once -------------------------------------------------------------------------------------------------


def test_many_callers_at_once_each_get_their_own_line(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> list[Posted]:
        return await asyncio.gather(
            *(
                room.post(channel, sender="a", msg_type="note", payload={"text": f"{number}"})
                for number in range(20)
                for channel in ("narrator", "dialogist", ["narrator", "dialogist"])
            )
        )

    posts = ask(tmp_path, work)
    assert len({posted.id for posted in posts}) == 60
    for posted in posts:
        kept = stored(tmp_path, posted.message.channel)[posted.message.line - 1]
        assert (kept["id"], kept["payload"]) == (posted.id, posted.message.payload)
    assert len(stored(tmp_path, "narrator")) == 40


def test_the_answer_counts_what_the_recipient_has_not_read(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> list[int | None]:
        counts = []
        for _ in range(3):
            posted = await room.post("narrator", sender="a", msg_type="note", payload={"text": "x"})
            counts.append(posted.recipients[0].unread)
            await room.read("narrator", limit=1)
        return counts

    assert ask(tmp_path, work) == [None, 2, 3], "unknown while the mailbox has not been read"


def test_a_score_is_a_number_from_0_to_1(tmp_path: Path) -> None:
    of = post(tmp_path).id
    post(tmp_path, msg_type=None, payload=Score(of=of, score=1))
    post(tmp_path, msg_type="score", payload={"of": of, "score": 0, "rubric": {"voice": 0.5}})
    for score in (1.01, -0.1, "0.5", None, True):
        assert "payload.score" in refused(tmp_path, msg_type="score", payload={"of": of, "score": score})

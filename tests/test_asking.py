"""Request and reply: a post that waits for its answer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from mq_server.errors import InvalidRequest, NoReply
from mq_server.mailroom import Mailroom
from mq_server.message import Message
from mq_server.outcomes import Posted
from tests.support import ask, python, said, write

QUESTION: dict[str, Any] = {"msg_type": "query", "payload": {"text": "Where?"}}
REPLY: dict[str, Any] = {"msg_type": "answer", "payload": {"text": "There."}}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in path.read_bytes().splitlines()] if path.exists() else []


def asking(room: Mailroom, channel: Any = "service", **keys: Any) -> asyncio.Task[Message]:
    return asyncio.ensure_future(room.ask(channel, **({"sender": "asker", "timeout_s": 20} | QUESTION | keys)))


async def question_in(room: Mailroom, channel: str = "service") -> Message:
    """The next question there, which is read then."""
    page = await room.wait(channel, ack=True, limit=1, timeout_s=20)
    return page.messages[0]


async def answer(room: Mailroom, question: Message | str, **keys: Any) -> str:
    """Answer a question; the answer's id."""
    question_id = question if isinstance(question, str) else question.id
    return (await room.post(None, reply_to=question_id, **({"sender": "service"} | REPLY | keys))).id


async def unread(room: Mailroom, channel: str = "asker") -> list[str]:
    return [message.id for message in (await room.read(channel)).messages]


# --- the reply -------------------------------------------------------------------------------------------------------


def test_a_question_is_answered_and_the_reply_counts_as_read(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room, scene="s1")
        question = await question_in(room)
        replied = await answer(room, question)
        reply = await ask
        assert (reply.id, reply.payload, reply.reply_to, reply.scene) == (replied, REPLY["payload"], question.id, "s1")
        assert await unread(room) == []

    ask(tmp_path, work)
    (receipt,) = lines_of(tmp_path / "receipts" / "asker.jsonl")
    assert (receipt["op"], receipt["reader"], receipt["consumer"]) == ("ack", "asker", "asker")


def test_a_post_that_waits_answers_with_the_reply(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        post = asyncio.ensure_future(room.post("service", sender="asker", wait_reply_s=20, **QUESTION))
        question = await question_in(room)
        replied = await answer(room, question)
        posted: Posted = await post
        assert posted.id == question.id
        assert posted.reply is not None and posted.unanswered is None
        assert posted.as_json()["reply"]["id"] == replied

    ask(tmp_path, work)


def test_only_a_reply_to_the_question_will_do(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room)
        question = await question_in(room)
        noise = await room.post("asker", sender="service", **REPLY)
        elsewhere = await room.post("third", sender="service", reply_to=question.id, **REPLY)
        nested = await room.post("asker", sender="service", reply_to=elsewhere.id, **REPLY)
        replied = await answer(room, question)
        assert (await ask).id == replied
        assert await unread(room) == [noise.id, nested.id], "the rest stays unread"

    ask(tmp_path, work)


def test_a_reply_that_came_before_the_wait_began_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_line = Mailroom._write

    async def write_and_answer(room: Mailroom, *arguments: Any, **options: Any) -> Any:
        stored = await write_line(room, *arguments, **options)
        if "service" in arguments[1]:
            await answer(room, stored.id)
        return stored

    monkeypatch.setattr(Mailroom, "_write", write_and_answer)
    for timeout_s in (20, 0):
        reply = ask(
            tmp_path,
            lambda room, timeout_s=timeout_s: room.ask("service", sender="asker", timeout_s=timeout_s, **QUESTION),
        )
        assert reply.payload == REPLY["payload"]


def test_an_answer_to_the_corrected_question_is_an_answer(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room)
        question = await question_in(room)
        better = await room.post(None, sender="asker", replaces=question.id, **QUESTION)
        replied = await answer(room, better.id)
        assert (await ask).id == replied

    ask(tmp_path, work)


def test_the_first_of_several_replies_wins(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room, ["first", "second", "third"])
        question = await question_in(room, "second")
        replied = await answer(room, question, sender="second")
        assert (await ask).id == replied
        later = await answer(room, question, sender="first")
        assert await unread(room) == [later]

    ask(tmp_path, work)


def test_anybody_may_give_the_answer(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room)
        question = await question_in(room)
        replied = await answer(room, question, sender="deputy")
        assert (await ask).id == replied

    ask(tmp_path, work)


def test_one_may_ask_oneself(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room, "asker")
        page = await room.wait("asker", msg_type="query", timeout_s=20)
        replied = await answer(room, page.messages[0], sender="asker")
        assert (await ask).id == replied
        assert await unread(room) == [page.messages[0].id]

    ask(tmp_path, work)


def test_many_questions_at_once_each_get_their_own_reply(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        asks = [asking(room, payload={"text": str(number)}) for number in range(12)]

        async def serve() -> None:
            for _ in asks:
                question = await question_in(room)
                await answer(room, question, payload={"text": f"re {question.payload['text']}"})

        await serve()
        replies = await asyncio.gather(*asks)
        assert [reply.payload["text"] for reply in replies] == [f"re {number}" for number in range(12)]
        assert await unread(room) == []

    ask(tmp_path, work)


SERVICE = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        print("ready", flush=True)
        while True:
            page = await room.wait("service", ack=True, limit=1, timeout_s=60)
            question = page.messages[0]
            payload = {"text": question.payload["text"].upper()}
            await room.post(sender="service", msg_type="answer", payload=payload, reply_to=question.id)
asyncio.run(main())
"""


def test_a_process_elsewhere_answers(tmp_path: Path) -> None:
    with python(SERVICE, tmp_path) as process:
        assert said(process) == "ready"

        async def work(room: Mailroom) -> None:
            for text in ("who", "where", "why"):
                reply = await room.ask("service", sender="asker", msg_type="query", payload={"text": text})
                assert reply.payload["text"] == text.upper()

        ask(tmp_path, work)


# --- no reply --------------------------------------------------------------------------------------------------------


def no_reply(root: Path, **keys: Any) -> NoReply:
    with pytest.raises(NoReply) as caught:
        ask(root, lambda room: room.ask("service", **({"sender": "asker", "timeout_s": 0.01} | QUESTION | keys)))
    return caught.value


def test_a_question_nobody_answers_stands_and_the_error_says_how_to_go_on(tmp_path: Path) -> None:
    error = no_reply(tmp_path, timeout_s=0.05)
    (question,) = lines_of(tmp_path / "service.jsonl")
    assert error.message_id == question["id"]
    assert str(error) == (
        f"No reply to {question['id']} within 0.05 s. "
        f"wait_for_messages(channel='asker', reply_to='{question['id']}', ack=true) goes on waiting"
    )

    async def work(room: Mailroom) -> None:
        replied = await answer(room, question["id"])
        page = await room.wait("asker", reply_to=error.message_id, ack=True, timeout_s=0)
        assert [message.id for message in page.messages] == [replied]

    ask(tmp_path, work)


def test_the_same_in_the_answer_of_a_post(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        other = await room.post("asker", sender="service", **REPLY)
        posted = await room.post("service", sender="asker", wait_reply_s=0, **QUESTION)
        assert posted.reply is None
        shown = posted.as_json()["reply"]
        assert shown["timed_out"] is True and shown["unread"] == 1
        assert [each["ref"] for each in shown["others"]] == [other.ref]
        assert posted.id in shown["go_on"]

    ask(tmp_path, work)


def test_two_that_ask_each_other_see_each_other_s_question(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        both = [
            room.ask(channel, sender=sender, timeout_s=0.1, **QUESTION)
            for sender, channel in (("asker", "service"), ("service", "asker"))
        ]
        errors = await asyncio.gather(*both, return_exceptions=True)
        for error, own, other in ((errors[0], "asker", "service"), (errors[1], "service", "asker")):
            assert isinstance(error, NoReply)
            (question,) = lines_of(tmp_path / f"{own}.jsonl")
            text = f"Unread in {own} meanwhile: 1 ({own}:1~{question['id'][-4:]} query from {other})"
            assert text in str(error)
            assert str(error).endswith("Somebody may be waiting for you")

    ask(tmp_path, work)


def test_of_much_that_is_unread_the_one_who_was_asked_is_named_first(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        for number in range(60):
            await room.post("asker", sender="crowd", msg_type="note", payload={"text": str(number)})
            if number == 30:
                urgent = await room.post("asker", sender="service", **QUESTION)
        with pytest.raises(NoReply) as caught:
            await room.ask("service", sender="asker", timeout_s=0, **QUESTION)
        assert f"Unread in asker meanwhile: 61 ({urgent.ref} query from service; asker:1~" in str(caught.value)
        assert str(caught.value).count(" from ") == 5

    write(tmp_path / "mq.toml", b'durability = "os"\n')
    ask(tmp_path, work)


def test_time_runs_out_once_and_not_twice(tmp_path: Path) -> None:
    began = time.monotonic()
    no_reply(tmp_path, timeout_s=0.3)
    assert 0.3 <= time.monotonic() - began < 3


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_question_with_a_bad_time_out_is_not_posted(tmp_path: Path, seconds: float) -> None:
    root = tmp_path / "production"
    with pytest.raises(InvalidRequest, match=f"wait_reply_s is {seconds}; give seconds, 0 or more"):
        ask(root, lambda room: room.ask("service", sender="asker", timeout_s=seconds, **QUESTION))
    assert not root.exists()


def test_a_reply_that_has_expired_is_none(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with pytest.raises(NoReply) as caught:
            await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        await answer(room, caught.value.message_id, expires_in_s=0.001)
        await expired(room, "asker")
        for _ in range(2):
            with pytest.raises(NoReply) as again:
                await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
            assert again.value.message_id == caught.value.message_id
        replied = await answer(room, caught.value.message_id)
        reply = await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        assert reply.id == replied

    ask(tmp_path, work)


async def expired(room: Mailroom, channel: str) -> None:
    """Until nothing there is unread any more."""
    while await unread(room, channel):
        await asyncio.sleep(0.001)


def test_a_reply_that_another_consumer_holds_is_waited_for(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with pytest.raises(NoReply) as caught:
            await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        replied = await answer(room, caught.value.message_id)
        page = await room.read("asker", lease_s=60, consumer="helper")
        with pytest.raises(NoReply):
            await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        ask = asking(room, dedup_key="k1")
        await room.settle("asker", release=page.leases[0].name)
        assert (await ask).id == replied

    ask(tmp_path, work)


def test_a_reply_that_somebody_else_took_for_the_asker_is_handed_over_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_line = Mailroom._write

    async def write_and_take_the_answer(room: Mailroom, *arguments: Any, **options: Any) -> Any:
        stored = await write_line(room, *arguments, **options)
        if "service" in arguments[1]:
            await answer(room, stored.id)
            assert (await room.read("asker", ack=True, consumer="helper")).messages
        return stored

    monkeypatch.setattr(Mailroom, "_write", write_and_take_the_answer)
    reply = ask(tmp_path, lambda room: room.ask("service", sender="asker", timeout_s=0, **QUESTION))
    assert reply.payload == REPLY["payload"]


def test_an_ask_that_is_cancelled_leaves_the_question_and_its_reply(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room)
        question = await question_in(room)
        ask.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ask
        assert not room._shelf.feed.subscriptions
        assert room._store.presence.count("asker") == 0
        replied = await answer(room, question)
        assert await unread(room) == [replied]

    ask(tmp_path, work)
    assert len(lines_of(tmp_path / "service.jsonl")) == 1


def test_closing_the_room_ends_an_ask(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room)
        await question_in(room)
        room.end_waits()
        with pytest.raises(NoReply):
            await ask

    ask(tmp_path, work)


def test_who_asks_is_seen_to_wait_in_its_own_mailbox(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room)
        question = await question_in(room)
        while not room._store.presence.count("asker"):
            await asyncio.sleep(0.001)
        posted = await room.post(None, sender="service", reply_to=question.id, **REPLY)
        assert [(recipient.channel, recipient.waiting) for recipient in posted.recipients] == [("asker", 1)]
        await ask

    ask(tmp_path, work)


# --- asking again ----------------------------------------------------------------------------------------------------


def test_a_question_with_a_key_is_asked_once_however_often_the_call_is_made(tmp_path: Path) -> None:
    for _ in range(2):
        no_reply(tmp_path, dedup_key="k1")

    async def work(room: Mailroom) -> None:
        ask = asking(room, dedup_key="k1")
        replied = await answer(room, await question_in(room))
        assert (await ask).id == replied

    ask(tmp_path, work)
    assert len(lines_of(tmp_path / "service.jsonl")) == 1


def test_a_reply_that_was_lost_on_its_way_is_given_again(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> str:
        ask = asking(room, dedup_key="k1")
        replied = await answer(room, await question_in(room))
        assert (await ask).id == replied
        return replied

    replied = ask(tmp_path, work)

    async def again(room: Mailroom) -> None:
        for timeout_s in (0, 20):
            reply = await room.ask("service", sender="asker", timeout_s=timeout_s, dedup_key="k1", **QUESTION)
            assert reply.id == replied

    ask(tmp_path, again)
    assert len(lines_of(tmp_path / "receipts" / "asker.jsonl")) == 1


def test_of_several_replies_the_one_that_was_given_is_given_again(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with pytest.raises(NoReply) as caught:
            await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        plain = await answer(room, caught.value.message_id)
        urgent = await answer(room, caught.value.message_id, urgent=True)
        for _ in range(3):
            reply = await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
            assert reply.id == urgent
        assert await unread(room) == [plain]

    ask(tmp_path, work)


def test_a_reply_to_the_corrected_question_is_given_again_too(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        ask = asking(room, dedup_key="k1")
        question = await question_in(room)
        better = await room.post(None, sender="asker", replaces=question.id, **QUESTION)
        replied = await answer(room, better.id)
        assert (await ask).id == replied
        reply = await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        assert reply.id == replied

    ask(tmp_path, work)


def test_a_reply_that_was_corrected_before_it_was_read_is_given_again_as_it_was_read(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with pytest.raises(NoReply) as caught:
            await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        wrong = await answer(room, caught.value.message_id)
        right = await room.post(None, sender="service", replaces=wrong, **REPLY)
        assert [message.id for message in (await room.read("asker", ack=True)).messages] == [right.id]
        reply = await room.ask("service", sender="asker", timeout_s=0, dedup_key="k1", **QUESTION)
        assert reply.id == right.id

    ask(tmp_path, work)


ASKER = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        ask = room.ask("service", sender="asker", msg_type="query", payload={"text": "Where?"}, dedup_key="k1", timeout_s=60)
        print((await ask).id, flush=True)
asyncio.run(main())
"""  # noqa: E501


def test_an_asker_that_is_killed_asks_again_and_gets_the_reply(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        with python(ASKER, tmp_path) as process:
            question = await question_in(room)
            process.kill()
            await asyncio.to_thread(process.wait)
        replied = await answer(room, question)
        with python(ASKER, tmp_path) as process:
            assert await asyncio.to_thread(said, process) == replied
        with python(ASKER, tmp_path) as process:
            assert await asyncio.to_thread(said, process) == replied
        assert await unread(room) == []

    ask(tmp_path, work)
    assert len(lines_of(tmp_path / "service.jsonl")) == 1

"""Following: messages as they come, live or for a reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from mq_server.errors import InvalidRequest, UnknownChannel, UnknownReader
from mq_server.mailroom import Mailroom
from mq_server.message import Message
from mq_server.payloads import Dialogue, Narration, Payload
from mq_server.watch import Subscription
from tests.support import DEADLINE_S, ask, eventually, known_id, line, python, said, tell, write


def numbered(root: Path, *numbers: int, channel: str = "narrator", **keys: Any) -> Path:
    """A mailbox with these messages, as somebody else wrote it."""
    return write(root / f"{channel}.jsonl", *(line(number, id=known_id(number), **keys) for number in numbers))


def ids(*numbers: int) -> list[str]:
    return [known_id(number) for number in numbers]


def receipts(root: Path, channel: str = "narrator") -> list[dict[str, Any]]:
    path = root / "receipts" / f"{channel}.jsonl"
    return [orjson.loads(text) for text in path.read_bytes().splitlines()] if path.exists() else []


def acknowledged(root: Path, channel: str = "narrator") -> list[str]:
    return [message_id for receipt in receipts(root, channel) for message_id in receipt["ids"]]


async def post(room: Mailroom, channel: Any = "narrator", text: str = "x", **keys: Any) -> str:
    return (await room.post(channel, **({"sender": "a", "msg_type": "note", "payload": {"text": text}} | keys))).id


class Follower:
    """Takes what a follow gives, one message at a time."""

    def __init__(self, room: Mailroom, *channel: Any, **filters: Any) -> None:
        self._messages = room.follow(*channel, **filters)
        self.asked: asyncio.Task[Message] | None = None

    def ask(self) -> asyncio.Task[Message]:
        """Ask for the next message."""
        self.asked = asyncio.ensure_future(anext(self._messages))
        return self.asked

    async def next(self) -> str:
        """The id of the next message."""
        message = await (self.asked or self.ask())
        self.asked = None
        return message.id

    async def take(self, count: int) -> list[str]:
        return [await self.next() for _ in range(count)]

    async def has_nothing(self, room: Mailroom) -> None:
        """Until it has been asked and waits."""
        before = self.asked or self.ask()
        while not any(subscription in ASLEEP for subscription in room._shelf.feed.subscriptions):
            assert not before.done(), before.result()
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """As a loop that is left."""
        if self.asked:
            self.asked.cancel()
            await asyncio.wait([self.asked])
        await self._messages.aclose()


ASLEEP: set[Subscription] = set()


@pytest.fixture(autouse=True)
def _who_sleeps_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = Subscription.changed

    async def changed(self: Subscription, timeout_s: float | None) -> set[str]:
        ASLEEP.add(self)
        try:
            return await sleep(self, timeout_s)
        finally:
            ASLEEP.discard(self)

    monkeypatch.setattr(Subscription, "changed", changed)


@contextlib.asynccontextmanager
async def following(room: Mailroom, *channel: Any, **filters: Any) -> AsyncIterator[Follower]:
    follower = Follower(room, *channel, **filters)
    try:
        yield follower
    finally:
        await follower.close()


# --- live ------------------------------------------------------------------------------------------------------------


async def are_asleep(room: Mailroom, count: int = 1) -> None:
    """Until so many followers wait."""
    while len(ASLEEP & room._shelf.feed.subscriptions) < count:
        await asyncio.sleep(0.001)


def test_a_follower_gets_what_appears_in_its_channels_once(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    numbered(tmp_path, 2, channel="dialogist")

    async def follow(room: Mailroom, got: list[Message], *channel: Any, **filters: Any) -> None:
        async with contextlib.aclosing(room.follow(*channel, **filters)) as messages:
            async for message in messages:
                got += [message]

    async def work(room: Mailroom) -> None:
        got: dict[str, list[Message]] = {name: [] for name in ("one", "all", "list", "sender")}
        tasks = [
            asyncio.ensure_future(follow(room, got["one"], "narrator")),
            asyncio.ensure_future(follow(room, got["all"])),
            asyncio.ensure_future(follow(room, got["list"], ["dialogist", "scene_*"])),
            asyncio.ensure_future(follow(room, got["sender"], sender="b")),
        ]
        await are_asleep(room, 4)
        await room.activity()  # which reads every mailbox
        copies = await post(room, ["narrator", "dialogist"])
        async with asyncio.timeout(10):
            while not (got["one"] and got["all"] and got["list"]):
                await asyncio.sleep(0.005)
        write(tmp_path / "scene_1.jsonl", line(7, id=known_id(7), sender="b"))
        numbered(tmp_path, 0, 5, 1)  # a merge put one above what was seen; and what we posted is gone
        last = await post(room)
        async with asyncio.timeout(10):
            while len(got["all"]) < 4 or len(got["one"]) < 3 or len(got["list"]) < 2 or not got["sender"]:
                await asyncio.sleep(0.005)
        await room.close()
        await asyncio.gather(*tasks)
        ids = {name: sorted(message.id for message in found) for name, found in got.items()}
        assert ids["all"] == sorted([copies, known_id(7), known_id(5), last])
        assert ids["one"] == sorted([copies, known_id(5), last])
        assert ids["list"] == sorted([copies, known_id(7)])
        assert ids["sender"] == [known_id(7)]

    ask(tmp_path, work)


def test_what_a_checkout_takes_away_and_brings_back_is_not_followed_again(tmp_path: Path) -> None:
    path = numbered(tmp_path, 0, 1)

    async def work(room: Mailroom) -> None:
        got: list[str] = []

        async def follow() -> None:
            nonlocal got
            async for message in room.follow():
                got += [message.id]

        task = asyncio.ensure_future(follow())
        await are_asleep(room)
        away = path.rename(tmp_path / "away")
        await room.activity()
        await asyncio.sleep(0)
        away.rename(path)
        await room.activity()
        posted = await post(room)
        async with asyncio.timeout(10):
            while not got:
                await asyncio.sleep(0.005)
        await room.close()
        await task
        assert got == [posted]

    ask(tmp_path, work)


# --- filters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("msg_type", ["narration", Narration])
@pytest.mark.parametrize("reader", [None, "editor"])
def test_a_type_is_followed_by_its_name_or_its_model(tmp_path: Path, msg_type: Any, reader: str | None) -> None:
    async def work(room: Mailroom) -> None:
        async with following(room, "narrator", msg_type=msg_type, reader=reader) as follower:
            await follower.has_nothing(room)
            await post(room)
            await post(room, msg_type="dialogue", payload={"lines": [{"who": "a", "text": "b"}]})
            wanted = await post(room, msg_type=None, payload=Narration(text="Fog."))
            assert await follower.next() == wanted

    ask(tmp_path, work)


def test_a_model_of_one_s_own_is_followed_by_its_type(tmp_path: Path, own_models: None) -> None:
    class Weather(Payload):
        msg_type = "weather"
        wind: int

    async def work(room: Mailroom) -> None:
        async with following(room, msg_type=Weather) as follower:
            await follower.has_nothing(room)
            await post(room)
            wanted = await post(room, msg_type=None, payload=Weather(wind=3))
            assert await follower.next() == wanted

    ask(tmp_path, work)


class Nameless(BaseModel):
    text: str


@pytest.mark.parametrize("msg_type", [Nameless, Payload, int, ""])
def test_what_has_no_type_s_name_cannot_be_followed(tmp_path: Path, msg_type: Any) -> None:
    async def work(room: Mailroom) -> None:
        with pytest.raises(InvalidRequest, match="give a type's name, or a payload model that has one"):
            await anext(room.follow("narrator", msg_type=msg_type))

    ask(tmp_path, work)


def test_faults_are_told_before_anything_is_followed(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        await room.settle("narrator", ack=known_id(0), reader="editor_in_chief")
        faults: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"ack": True}, InvalidRequest, "ack needs a reader: say for whom"),
            ({"channel": "narator"}, UnknownChannel, "Did you mean 'narrator'"),
            ({"channel": ["dialogist", "narator"]}, UnknownChannel, "Did you mean 'narrator'"),
            ({"channel": "narator", "reader": "editor"}, UnknownChannel, "Did you mean 'narrator'"),
            ({"channel": "narrator", "reader": "editor_in_chif"}, UnknownReader, "Did you mean 'editor_in_chief'"),
            ({"channel": "Bad Name"}, InvalidRequest, "channel 'Bad Name'"),
            ({"channel": "narrator", "reader": "Bad Name"}, InvalidRequest, "reader 'Bad Name'"),
        ]
        for arguments, error, words in faults:
            with pytest.raises(error, match=words):
                await anext(room.follow(**arguments))
        assert not room._shelf.feed.subscriptions

    ask(tmp_path, work)


# --- for a reader ----------------------------------------------------------------------------------------------------


def test_a_reader_gets_what_is_unread_then_what_comes(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)

    async def work(room: Mailroom) -> None:
        await room.settle("narrator", ack=known_id(1))
        async with following(room, "narrator", reader="narrator") as follower:
            assert await follower.take(2) == ids(0, 2)
            await follower.has_nothing(room)
            for _ in range(3):
                posted = await post(room)
                assert await follower.next() == posted
        assert acknowledged(tmp_path) == ids(1), "and acknowledges nothing"

    ask(tmp_path, work)


def test_urgent_messages_come_before_the_rest(tmp_path: Path) -> None:
    lines = [line(number, id=known_id(number), **({"urgent": True} if number in (1, 3) else {})) for number in range(4)]
    write(tmp_path / "narrator.jsonl", *lines)

    async def work(room: Mailroom) -> None:
        async with following(room, "narrator", reader="narrator", ack=True) as follower:
            assert await follower.take(4) == ids(1, 3, 0, 2)

    ask(tmp_path, work)


def test_a_message_is_acknowledged_when_the_next_is_asked_for(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)

    async def work(room: Mailroom) -> None:
        async with following(room, "narrator", reader="narrator", ack=True) as follower:
            assert await follower.next() == known_id(0)
            assert acknowledged(tmp_path) == []
            assert await follower.next() == known_id(1)
            assert acknowledged(tmp_path) == ids(0)
            await follower.has_nothing(room)
            assert acknowledged(tmp_path) == ids(0, 1)
            posted = await post(room)
            assert await follower.next() == posted
        assert acknowledged(tmp_path) == ids(0, 1)

    ask(tmp_path, work)


def test_a_crash_in_the_body_leaves_its_message_unread(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)

    async def work(room: Mailroom) -> None:
        with pytest.raises(ZeroDivisionError):
            async with contextlib.aclosing(room.follow("narrator", reader="narrator", ack=True)) as messages:
                async for message in messages:
                    if message.id == known_id(1):
                        raise ZeroDivisionError
        assert acknowledged(tmp_path) == ids(0)
        async with following(room, "narrator", reader="narrator", ack=True) as follower:
            assert await follower.take(2) == ids(1, 2)

    ask(tmp_path, work)


FOLLOWER = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        async for message in room.follow("narrator", reader="narrator", ack=True):
            print(message.id, flush=True)
            await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


def test_a_process_that_is_killed_at_work_leaves_its_message_to_the_next(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)
    with python(FOLLOWER, tmp_path) as process:
        assert said(process) == known_id(0)
        tell(process)
        assert said(process) == known_id(1)
        process.kill()
        process.wait(DEADLINE_S)
    with python(FOLLOWER, tmp_path) as process:
        assert said(process) == known_id(1)
        tell(process)
        assert said(process) == known_id(2)
        tell(process)
        eventually(lambda: acknowledged(tmp_path) == ids(0, 1, 2))
        posted = ask(tmp_path, post)
        assert said(process) == posted


def test_without_acknowledging_each_is_given_once_by_each_follower(tmp_path: Path) -> None:
    numbered(tmp_path, *range(6))

    async def work(room: Mailroom) -> None:
        for _ in range(2):
            async with following(room, "narrator", reader="editor") as follower:
                assert await follower.take(6) == ids(*range(6))
                await follower.has_nothing(room)
                await room.read("narrator", ack=True)
                await room.post("dialogist", sender="a", msg_type="note", payload={"text": "x"})
                await follower.has_nothing(room)
                numbered(tmp_path, *range(5))
                await room.activity()
                numbered(tmp_path, *range(6))
                await room.activity()
                await follower.has_nothing(room)

    ask(tmp_path, work)


def test_a_long_backlog_is_given_whole_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq_server.following.MAX_LIMIT", 7)
    numbered(tmp_path, *range(30))

    async def work(room: Mailroom) -> None:
        for ack in (False, True):
            async with following(room, "narrator", reader="editor", ack=ack) as follower:
                assert await follower.take(30) == ids(*range(30))
                await follower.has_nothing(room)
        assert acknowledged(tmp_path) == ids(*range(30))

    ask(tmp_path, work)


def test_what_was_settled_in_the_body_is_settled_once(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)

    async def work(room: Mailroom) -> None:
        async with following(room, "narrator", reader="narrator", ack=True) as follower:
            await follower.next()
            await room.settle("narrator", reject=known_id(0), reason="cannot")
            await follower.next()
            await room.acknowledge("narrator", known_id(1))
            await follower.next()
        assert [receipt["op"] for receipt in receipts(tmp_path)] == ["reject", "ack"]

    ask(tmp_path, work)


def test_a_message_that_vanishes_under_the_work_ends_nothing(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)

    async def work(room: Mailroom) -> None:
        async with following(room, "narrator", reader="narrator", ack=True) as follower:
            assert await follower.next() == known_id(0)
            numbered(tmp_path, 1, 2)
            assert await follower.take(2) == ids(1, 2)
        assert acknowledged(tmp_path) == ids(1)

    ask(tmp_path, work)


def test_what_another_consumer_holds_comes_when_it_is_given_back(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)

    async def work(room: Mailroom) -> None:
        page = await room.read("narrator", lease_s=60, consumer="worker_1", limit=1)
        async with following(room, "narrator", reader="narrator", ack=True) as follower:
            assert await follower.next() == known_id(1)
            await follower.has_nothing(room)
            await room.settle("narrator", release=page.leases[0].name)
            assert await follower.next() == known_id(0)

    ask(tmp_path, work)


def test_a_reader_follows_patterns_and_channels_that_come_later(tmp_path: Path) -> None:
    numbered(tmp_path, 0, channel="scene_1")
    numbered(tmp_path, 1, channel="dialogist")

    async def work(room: Mailroom) -> None:
        async with following(room, "scene_*", reader="editor", ack=True) as follower:
            assert await follower.next() == known_id(0)
            await follower.has_nothing(room)
            await post(room, "dialogist")
            posted = await post(room, "scene_2")
            assert await follower.next() == posted
            await follower.has_nothing(room)
        assert acknowledged(tmp_path, "scene_2") == [posted]

    ask(tmp_path, work)


def test_a_follower_for_a_reader_is_seen_to_wait_and_a_live_one_is_not(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        async with following(room, "narrator", reader="editor", ack=True) as follower:
            await follower.next()
            await follower.has_nothing(room)
            assert room._store.presence.count("narrator") == 1
        assert room._store.presence.count("narrator") == 0
        async with following(room, "narrator") as follower:
            await follower.has_nothing(room)
            assert room._store.presence.count("narrator") == 0

    ask(tmp_path, work)


@pytest.mark.parametrize("reader", [None, "editor"])
def test_closing_the_room_ends_the_iteration(tmp_path: Path, reader: str | None) -> None:
    numbered(tmp_path, 0, channel="dialogist")

    async def work(room: Mailroom) -> None:
        async with following(room, "narrator", reader=reader) as follower:
            await follower.has_nothing(room)
            room.end_waits()
            with pytest.raises(StopAsyncIteration):
                await follower.next()
            follower.asked = None

    ask(tmp_path, work)


def test_leaving_the_loop_leaves_no_subscription(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        for reader in (None, "editor"):
            async with following(room, "narrator", reader=reader, msg_type=None) as follower:
                if reader:
                    await follower.next()
                await follower.has_nothing(room)
            assert not room._shelf.feed.subscriptions
            assert not room._store.presence.channels()

    ask(tmp_path, work)


def test_payloads_are_parsed_by_their_model(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        payload = {"lines": [{"who": "Anna", "text": "No."}]}
        await post(room, msg_type="dialogue", payload=payload)
        async with contextlib.aclosing(room.follow("narrator", msg_type=Dialogue, reader="narrator")) as messages:
            async for message in messages:
                assert message.parsed(Dialogue).lines[0].who == "Anna"
                break

    ask(tmp_path, work)

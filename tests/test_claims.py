"""Claiming through the façade: several consumers share a reader, and each message is held by one of them at a time."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mq_server import leases as leases_module
from mq_server.answers import Page
from mq_server.claiming import Claim
from mq_server.errors import InvalidRequest, NotSettled
from mq_server.mailroom import Mailroom
from mq_server.message import Message, encode_line
from mq_server.names import format_time, id_number, mint_id
from mq_server.shelf import Shelf
from mq_server.watch import RESCAN_S
from tests.support import START_US, commit, git, known_id, line, python, run, said, write

SLACK_S = 10.0
"""How much later than it should something may happen on a busy machine."""


class Clock:
    """Stands in for `time` in the leases: moves on when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return time.time_ns()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases_module, "time", clock)
    return clock


Work = Callable[..., Awaitable[Any]]


def with_rooms(root: Path, work: Work, count: int = 2) -> Any:
    """Work with several mailrooms on one folder, which share nothing but the files, as processes do."""

    async def inside() -> Any:
        async with AsyncExitStack() as stack:
            rooms = [await stack.enter_async_context(Mailroom(root)) for _ in range(count)]
            return await work(*rooms)

    return run(inside())


def numbered(root: Path, *numbers: int, channel: str = "narrator", **keys: Any) -> Path:
    """A mailbox with these messages, as somebody else wrote it."""
    return write(root / f"{channel}.jsonl", *(line(number, id=known_id(number), **keys) for number in numbers))


def numbers(messages: Page | Claim | Iterable[Message]) -> list[int]:
    """Which messages these are."""
    given = messages.messages if isinstance(messages, Page | Claim) else messages
    return [next(number for number in range(200) if known_id(number) == message.id) for message in given]


def names(page: Page) -> list[str]:
    return [lease.name for lease in page.leases]


def deliveries(page: Page) -> list[int]:
    return [lease.deliveries for lease in page.leases]


async def claimed(room: Mailroom, consumer: str = "one", channel: Any = "narrator", **question: Any) -> Page:
    return await room.wait(channel, consumer=consumer, **({"lease_s": 60.0, "limit": 1, "timeout_s": 0.0} | question))


async def unread(room: Mailroom, channel: str = "narrator", **question: Any) -> list[int]:
    return numbers(await room.read(channel, **question))


async def is_waiting(room: Mailroom, count: int = 1) -> None:
    """Until so many waits have read and found nothing."""
    while sum(not subscription.is_woken for subscription in room._shelf.feed.subscriptions) < count:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_a_claim_and_its_acknowledgement_look_at_the_files_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path, *range(6))
    looks: list[str] = []
    refresh = Shelf.refresh

    async def counting(self: Shelf, channels: Iterable[str] | None = None) -> None:
        looks.append("all" if channels is None else "one")
        await refresh(self, channels)

    async def work(room: Mailroom) -> None:
        for _ in range(2):  # the first makes files
            page = await room.read("narrator", lease_s=60, limit=2)
            await room.settle("narrator", ack=[lease.name for lease in page.leases])
        monkeypatch.setattr(Shelf, "refresh", counting)
        page = await room.read("narrator", lease_s=60, limit=2)
        assert looks == ["one"], "under the lock"
        await room.settle("narrator", ack=[lease.name for lease in page.leases])
        assert looks == ["one", "one"], "before it is taken: others wait for it"

    with_rooms(tmp_path, work, 1)


def test_an_ack_whose_lease_ends_while_it_waits_for_its_turn_settles_nothing(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        page = await claimed(one, "one", lease_s=10)
        theirs, ours = two._store.leases("narrator"), one._store.leases("narrator")
        async with theirs.lock.held_by_task(SLACK_S):
            acking = asyncio.create_task(one.settle("narrator", ack=names(page), consumer="one"))
            while not ours.lock._askers:
                await asyncio.sleep(0)
            clock.now_s += 11
            theirs.refresh()
            theirs.claim("narrator", "two", {id_number(known_id(0)): known_id(0)}, 60)
        with pytest.raises(NotSettled, match="two holds it now"):
            await acking
        assert await unread(one, reader="narrator", consumer="one") == []
        assert await unread(two, reader="narrator", consumer="two") == [0]

    with_rooms(tmp_path, work)


@pytest.mark.parametrize("with_others", [True, False])
def test_an_ack_that_waits_for_its_turn_comes_after_what_a_merge_brings_meanwhile(
    tmp_path: Path, with_others: bool
) -> None:
    numbered(tmp_path, 0, 1)
    path = tmp_path / "receipts" / "narrator.jsonl"
    ahead_us = time.time_ns() // 1000 + 3600 * 1_000_000
    fields = {"channel": "narrator", "reader": "narrator", "consumer": "there"}
    reopened = {"id": mint_id(ahead_us), "timestamp": format_time(ahead_us), **fields, "op": "reopen"}

    async def work(one: Mailroom, two: Mailroom) -> None:
        pages = [await claimed(one, "one"), await claimed(one, "one")]
        await one.settle("narrator", ack=names(pages[1]), consumer="one")
        before = path.read_bytes()
        theirs, ours = two._store.leases("narrator"), one._store.leases("narrator")
        async with theirs.lock.held_by_task(SLACK_S):
            acking = asyncio.create_task(one.settle("narrator", ack=names(pages[0]), consumer="one"))
            while not ours.lock._askers:
                await asyncio.sleep(0)
            if with_others:
                write(path, encode_line(reopened | {"ids": [known_id(0)]}) + before)
        await acking
        assert await unread(two) == []

    with_rooms(tmp_path, work)


def test_what_is_taken_has_no_next_page(tmp_path: Path) -> None:
    numbered(tmp_path, *range(4))

    async def work(room: Mailroom) -> None:
        assert (await room.read("narrator", limit=1)).next
        for question in ({"lease_s": 60.0}, {"ack": True}):
            page = await room.read("narrator", limit=1, **question)
            assert page.next is None and page.remaining, "by position nothing can be taken: who wants more asks again"

    with_rooms(tmp_path, work, 1)


def test_consumers_that_share_a_reader_get_different_messages(tmp_path: Path) -> None:
    numbered(tmp_path, *range(5))

    async def work(one: Mailroom, two: Mailroom) -> None:
        assert numbers(await claimed(one, "one", limit=2)) == [0, 1]
        assert numbers(await claimed(two, "two", limit=2)) == [2, 3]
        assert numbers(await claimed(one, "one", limit=2)) == [4], "who claims wants more"
        page = await claimed(two, "two")
        assert page.timed_out and page.leases == ()

    with_rooms(tmp_path, work)


def test_a_claimed_message_says_how_it_is_held(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        page = await room.read("narrator", lease_s=60, consumer="one")
        (lease,) = page.leases
        message_id, _, token = lease.name.partition("@")
        assert message_id == known_id(0) and len(token) == 8
        (shown,) = page.as_json()["messages"]
        assert (shown["lease"], shown["lease_s"], shown["deliveries"]) == (lease.name, 60, 1)

    with_rooms(tmp_path, work, 1)


def test_callers_that_come_at_once_share_what_is_there(tmp_path: Path) -> None:
    numbered(tmp_path, *range(40))

    async def work(*rooms: Mailroom) -> None:
        pages = await asyncio.gather(
            *(claimed(room, f"c{number}", limit=3) for number, room in enumerate(rooms) for _ in range(4))
        )
        got = [number for page in pages for number in numbers(page)]
        assert sorted(got) == list(range(12 * 3))

    with_rooms(tmp_path, work, 3)


def test_readers_do_not_share_leases(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        assert numbers(await claimed(one)) == [0]
        assert numbers(await claimed(two, "two", reader="editor")) == [0]
        assert await unread(two) == [] and await unread(two, reader="editor") == []

    with_rooms(tmp_path, work)


def test_an_expired_lease_redelivers_and_counts(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        first = await claimed(one)
        clock.now_s += 59
        assert numbers(await claimed(two, "two")) == []
        clock.now_s += 1
        second = await claimed(two, "two")
        assert (numbers(second), deliveries(first), deliveries(second)) == ([0], [1], [2])
        for name in (names(first)[0], known_id(0)):
            with pytest.raises(NotSettled):
                await one.settle("narrator", ack=name, consumer="one")
        with pytest.raises(NotSettled, match="this lease is over: two holds it now"):
            await one.wait("narrator", consumer="one", ack=names(first), timeout_s=0)
        await two.settle("narrator", ack=names(second), consumer="two")
        assert await unread(one) == []

    with_rooms(tmp_path, work)


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(tmp_path, 0, 1)
    real_ns = time.time_ns
    jump_s = 0.0
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(jump_s * 1e9))
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)

    async def work(one: Mailroom, two: Mailroom) -> None:
        nonlocal jump_s
        page = await claimed(one)
        for jump_s in (1e6, -1e6):
            assert numbers(await claimed(two, "two", limit=5)) == ([1] if jump_s > 0 else [])
            assert await unread(one, consumer="one") == [0]
        await one.settle("narrator", ack=names(page), consumer="one")
        jump_s = -2e6
        await two.settle("narrator", ack=known_id(1), consumer="two")
        jump_s = 0.0
        await one.settle("narrator", reopen=known_id(1))
        jump_s = -3e6
        assert numbers(await claimed(two, "two", ack=[])) == [1]
        await two.settle("narrator", ack=known_id(1), consumer="two")
        assert await unread(one) == []

    with_rooms(tmp_path, work)
    assert with_rooms(tmp_path, lambda room: unread(room), 1) == []


def test_after_a_restart_of_the_machine_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        page = await claimed(one)
        monkeypatch.setattr(leases_module, "boot_id", lambda: "another boot")
        with pytest.raises(NotSettled, match="expired"):
            await one.settle("narrator", ack=names(page), consumer="one")
        assert deliveries(await claimed(two, "two")) == [2]

    with_rooms(tmp_path, work)


def test_a_lease_outlives_the_process_that_got_it(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    first: Page = with_rooms(tmp_path, claimed, 1)
    assert numbers(with_rooms(tmp_path, lambda room: claimed(room, "two"), 1)) == [1]
    with_rooms(tmp_path, lambda room: room.settle("narrator", ack=names(first)), 1)
    assert with_rooms(tmp_path, lambda room: unread(room, consumer="two"), 1) == [1]


def test_losing_the_runtime_folder_costs_redelivery_at_worst(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)

    async def work(one: Mailroom, two: Mailroom) -> None:
        first = await claimed(one, limit=2)
        await one.settle("narrator", ack=names(first)[0], consumer="one")
        shutil.rmtree(tmp_path / ".mq")
        again = await claimed(two, "two", limit=5)
        assert (numbers(again), deliveries(again)) == ([1, 2], [1, 1])
        with pytest.raises(NotSettled, match="two holds it now"):
            await one.settle("narrator", ack=names(first)[1], consumer="one")
        shutil.rmtree(tmp_path / ".mq")
        with pytest.raises(NotSettled, match="nobody holds it"):
            await two.settle("narrator", ack=names(again), consumer="two")
        await two.settle("narrator", ack=known_id(2), consumer="two")
        assert await unread(one) == [1]

    with_rooms(tmp_path, work)


def test_a_runtime_folder_deleted_again_and_again_under_claims_fails_none(tmp_path: Path) -> None:
    numbered(tmp_path, *range(20))

    async def work(one: Mailroom, two: Mailroom) -> None:
        done = asyncio.Event()

        def delete() -> None:
            while not done.is_set():
                shutil.rmtree(tmp_path / ".mq" / "leases", ignore_errors=True)

        deleting = asyncio.create_task(asyncio.to_thread(delete))
        try:
            for room in (one, two) * 10:
                page = await claimed(room, lease_s=0.5)
                assert len(page.leases) == len(page.messages)
                with contextlib.suppress(NotSettled):
                    await room.settle("narrator", ack=names(page), consumer="one")
        finally:
            done.set()
            await deleting
        left = [message.id for message in (await one.read("narrator")).messages]
        await one.settle("narrator", ack=left) if left else None
        assert await unread(two) == []

    with_rooms(tmp_path, work)


# --- plain reads beside claims ---------------------------------------------------------------------------------------


def test_a_plain_read_leaves_out_what_others_hold_and_sees_what_its_consumer_holds(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)

    async def work(one: Mailroom, two: Mailroom) -> None:
        await claimed(one)
        await claimed(two, "two")
        assert await unread(one, consumer="one") == [0, 2]
        assert await unread(one, consumer="two") == [1, 2]
        assert await unread(two) == [2]
        assert numbers(await one.wait("narrator", consumer="one", timeout_s=0)) == [0, 2]
        assert numbers(await two.read("narrator", since=format_time(START_US))) == [0, 1, 2], (
            "by place all of it stands"
        )
        assert await unread(two, caller="dialogist") == [0, 1, 2], "who only peeks is told all that is unread"

    with_rooms(tmp_path, work)


def test_what_others_hold_is_not_acknowledged_on_being_read(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)

    async def work(one: Mailroom, two: Mailroom) -> None:
        held = await claimed(one)
        assert numbers(await two.read("narrator", ack=True, consumer="two")) == [1, 2]
        assert await unread(one, consumer="one") == [0]
        await one.settle("narrator", ack=names(held), consumer="one")

    with_rooms(tmp_path, work)


def test_what_one_holds_itself_is_acknowledged_on_being_read(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)

    async def work(one: Mailroom, two: Mailroom) -> None:
        held = await claimed(one)
        assert numbers(await one.read("narrator", ack=True, consumer="one")) == [0, 1]
        assert await unread(two) == []
        await one.settle("narrator", reopen=known_id(0))
        with pytest.raises(NotSettled):
            await one.settle("narrator", ack=names(held), consumer="one")
        assert deliveries(await claimed(two, "two")) == [1]

    with_rooms(tmp_path, work)


def test_a_consumer_is_the_caller_or_else_the_reader(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        await one.read("narrator", lease_s=60, caller="narrator")
        assert await unread(two) == [0] and await unread(two, caller="narrator") == [0]
        assert await unread(two, consumer="two") == []
        await two.settle("narrator", ack=known_id(0))

    with_rooms(tmp_path, work)


# --- which ----------------------------------------------------------------------------------------------------------


def test_urgent_messages_are_claimed_first(tmp_path: Path) -> None:
    lines = [line(number, id=known_id(number), **({"urgent": True} if number in (2, 4) else {})) for number in range(5)]
    write(tmp_path / "narrator.jsonl", *lines)

    async def work(one: Mailroom, two: Mailroom) -> None:
        order = [numbers(await claimed(room, f"c{number}"))[0] for number, room in enumerate((one, two, one, two, one))]
        assert order == [2, 4, 0, 1, 3]

    with_rooms(tmp_path, work)


def test_filters_claim_only_what_fits(tmp_path: Path) -> None:
    lines = [
        line(number, id=known_id(number), sender="ab"[number % 2], msg_type=("note", "score")[number // 2])
        for number in range(4)
    ]
    write(tmp_path / "narrator.jsonl", *lines)

    async def work(one: Mailroom, two: Mailroom) -> None:
        assert numbers(await claimed(one, sender="a", limit=9)) == [0, 2]
        assert numbers(await claimed(two, "two", msg_type="score", limit=9)) == [3]
        assert numbers(await claimed(two, "two", sender="nobody", limit=9)) == []
        assert numbers(await claimed(two, "two", limit=9)) == [1]

    with_rooms(tmp_path, work)


def test_only_replies_may_be_claimed(tmp_path: Path) -> None:
    write(
        tmp_path / "narrator.jsonl",
        *(line(n, id=known_id(n), **({"reply_to": known_id(0)} if n == 2 else {})) for n in range(3)),
    )
    page = with_rooms(tmp_path, lambda room: claimed(room, reply_to=known_id(0), limit=9), 1)
    assert numbers(page) == [2] and len(page.leases) == 1


def test_a_claim_may_be_of_a_list_and_of_patterns(tmp_path: Path) -> None:
    for number, channel in enumerate(("scene_1", "scene_2", "dialogist")):
        numbered(tmp_path, number, channel=channel)

    async def work(one: Mailroom, two: Mailroom) -> None:
        first = await claimed(one, channel="scene_*", limit=9)
        assert numbers(first) == [0, 1] and len(set(names(first))) == 2
        assert numbers(await claimed(two, "two", channel=["scene_1", "dialogist"], limit=9)) == [2]
        assert numbers(await claimed(two, "two", channel="*", limit=9)) == []
        assert numbers(await claimed(one, channel="scene_*", ack=names(first), limit=9)) == []
        assert await unread(two, "scene_1") == await unread(two, "scene_2") == []

    with_rooms(tmp_path, work)


def test_copies_of_one_message_are_held_and_settled_each_by_its_own_lease(tmp_path: Path) -> None:
    for channel in ("narrator", "dialogist"):
        numbered(tmp_path, 0, channel=channel)

    async def work(one: Mailroom, two: Mailroom) -> None:
        page = await claimed(one, channel="*", limit=9)
        assert [message.channel for message in page.messages] == ["dialogist", "narrator"]
        dialogist, narrator = names(page)
        await one.wait("*", consumer="one", ack=[narrator], timeout_s=0)
        assert await unread(two) == [] and await unread(two, "dialogist", consumer="one") == [0]
        await one.acknowledge("*", [narrator, dialogist], consumer="one")
        assert await unread(two, "dialogist", consumer="one") == []

    with_rooms(tmp_path, work)


def test_copies_of_one_message_may_be_acknowledged_in_one_call(tmp_path: Path) -> None:
    for channel in ("narrator", "dialogist"):
        numbered(tmp_path, 0, channel=channel)

    async def work(one: Mailroom) -> None:
        page = await claimed(one, channel="*", limit=9)
        again = await claimed(one, channel="*", ack=names(page), limit=9)
        assert numbers(again) == []
        assert await unread(one, consumer="one") == await unread(one, "dialogist", consumer="one") == []

    with_rooms(tmp_path, work, 1)


def test_nothing_is_taken_from_a_mailbox_that_appears_while_others_are_held(tmp_path: Path) -> None:
    numbered(tmp_path, 0, channel="scene_1")

    async def work(one: Mailroom, two: Mailroom) -> None:
        real = one._delivering

        @asynccontextmanager
        async def late(channels: Iterable[str]) -> AsyncIterator[None]:
            held = list(channels)
            async with real(held):
                if not (tmp_path / "scene_2.jsonl").exists():
                    numbered(tmp_path, 1, channel="scene_2")
                yield

        one._delivering = late  # type: ignore[method-assign]
        assert numbers(await claimed(one, channel="scene_*", limit=9)) == [0], "another may be claiming there just now"
        assert numbers(await claimed(two, "two", channel="scene_*", limit=9)) == [1]

    with_rooms(tmp_path, work)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"lease_s": 3601}, "lease_s is 3601; give seconds up to 3600 (max_lease_s in mq.toml)"),
        ({"lease_s": 0}, "lease_s is 0; give seconds up to"),
        ({"lease_s": -1}, "lease_s is -1; give seconds up to"),
        ({"lease_s": float("nan")}, "lease_s is nan; give seconds up to"),
        ({"since": known_id(0)}, "leave out since"),
        ({"ack": True}, "acknowledge with ids once the work is done"),
        ({"caller": "dialogist"}, "lease_s on somebody else's mailbox: give reader='dialogist' to read it as yourself"),
        ({"channel": "*", "caller": "narrator"}, "give reader='narrator'"),
        ({"consumer": "No One"}, "consumer 'No One'"),
    ],
)
def test_what_cannot_be_claimed_says_why_and_nothing_is_held(
    tmp_path: Path, question: dict[str, Any], words: str
) -> None:
    numbered(tmp_path, 0)
    numbered(tmp_path, 1, channel="dialogist")

    async def work(one: Mailroom, two: Mailroom) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await claimed(one, **question)
        assert words in str(caught.value)
        assert await unread(two) == [0]

    with_rooms(tmp_path, work)


def test_the_longest_lease_is_a_setting(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    (tmp_path / "mq.toml").write_text("max_lease_s = 5\n")

    async def work(room: Mailroom) -> None:
        with pytest.raises(InvalidRequest, match="lease_s is 6; give seconds up to 5"):
            await claimed(room, lease_s=6)
        page = await claimed(room, lease_s=5)
        assert numbers(page) == [0]
        with pytest.raises(InvalidRequest, match="lease_s is 6"):
            await room.settle("narrator", extend=names(page), lease_s=6, consumer="one")

    with_rooms(tmp_path, work, 1)


# --- too often -------------------------------------------------------------------------------------------------------


def test_what_was_delivered_too_often_becomes_a_dead_letter_instead(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0, 1)
    (tmp_path / "mq.toml").write_text("max_deliveries = 2\n")

    async def work(one: Mailroom, two: Mailroom) -> None:
        for count in (1, 2):
            assert deliveries(await claimed(one)) == [count]
            assert numbers(await claimed(two, "two", limit=9)) == ([1] if count == 1 else [])
            if count == 1:
                await two.settle("narrator", ack=known_id(1), consumer="two")
            clock.now_s += 61
        assert await unread(two) == [0], "until somebody claims again it is unread"
        assert (await claimed(two, "two")).timed_out
        assert await unread(one) == []
        (letter,) = (await two.read("dead_letters")).messages
        assert (letter.reply_to, letter.payload["reason"]) == (
            known_id(0),
            "delivered 2 times without being settled",
        )
        await two.settle("dead_letters", reopen=letter.id)
        assert deliveries(await claimed(one)) == [1]

    with_rooms(tmp_path, work)


def test_what_was_reopened_on_another_branch_is_delivered_as_often_again(tmp_path: Path, clock: Clock) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    git(here, "init", "-q")
    numbered(here, 0)
    (here / "mq.toml").write_text("max_deliveries = 1\n")

    async def reject(room: Mailroom) -> None:
        await claimed(room)
        clock.now_s += 61
        assert numbers(await claimed(room)) == []

    with_rooms(here, reject, 1)
    commit(here)
    git(tmp_path, "clone", "-q", str(here), str(there))
    with_rooms(there, lambda room: room.settle("narrator", reopen=known_id(0)), 1)
    commit(there)
    git(here, "pull", "-q", str(there), "HEAD")
    page = with_rooms(here, claimed, 1)
    assert (numbers(page), deliveries(page)) == ([0], [1])


def test_what_was_acknowledged_and_is_unread_again_after_a_seek_is_free_at_once(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)

    async def work(one: Mailroom, two: Mailroom) -> None:
        first = await claimed(one, limit=2)
        await one.settle("narrator", ack=names(first)[0], consumer="one")
        await two.settle("narrator", seek="beginning")
        again = await claimed(two, "two", limit=2)
        assert (numbers(again), deliveries(again)) == ([0], [1]), "while the other one is held on"

    with_rooms(tmp_path, work)


def test_a_seek_passes_over_what_is_held_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path, 0)
    monkeypatch.setattr(time, "time_ns", lambda: (START_US - 3600 * 10**6) * 1000)

    async def work(one: Mailroom, two: Mailroom) -> None:
        held = await claimed(one)
        await two.settle("narrator", seek="now")
        assert await unread(one, consumer="one") == []
        with pytest.raises(NotSettled, match="acked already"):
            await one.settle("narrator", release=names(held), consumer="one")
        await two.settle("narrator", seek="beginning")
        assert deliveries(await claimed(two, "two")) == [1], "nobody holds it any more"

    with_rooms(tmp_path, work)


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_wait_is_woken_when_a_lease_expires(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        began = time.monotonic()
        await claimed(one, lease_s=0.3)
        page = await claimed(two, "two", timeout_s=25)
        assert (numbers(page), deliveries(page)) == ([0], [2])
        assert 0.3 <= time.monotonic() - began < 0.3 + SLACK_S

    with_rooms(tmp_path, work)


def test_a_plain_wait_is_woken_when_a_lease_expires(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        began = time.monotonic()
        await claimed(one, lease_s=0.3)
        assert numbers(await two.wait("narrator", consumer="two", timeout_s=25)) == [0]
        assert 0.3 <= time.monotonic() - began < 0.3 + SLACK_S

    with_rooms(tmp_path, work)


def test_a_release_wakes_who_waits_in_the_same_process_at_once_and_elsewhere_soon(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        for waiter in (one, two):
            held = await claimed(one)
            waiting = asyncio.ensure_future(claimed(waiter, "two", timeout_s=25))
            await is_waiting(waiter)
            released = time.monotonic()
            await one.settle("narrator", release=names(held), consumer="one")
            page = await waiting
            assert numbers(page) == [0]
            assert time.monotonic() - released < RESCAN_S + SLACK_S
            await waiter.settle("narrator", release=names(page), consumer="two")

    with_rooms(tmp_path, work)


HOLDER = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        page = await room.read("narrator", lease_s=600, limit=1, consumer="elsewhere")
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await room.settle("narrator", release=page.leases[0].name, consumer="elsewhere")
        print("released", flush=True)
asyncio.run(main())
"""


def test_a_release_by_another_process_wakes_a_wait_soon(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    with python(HOLDER, tmp_path) as holder:
        assert said(holder) == "held"

        async def work(room: Mailroom) -> float:
            waiting = asyncio.ensure_future(claimed(room, timeout_s=25))
            await is_waiting(room)
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
            await asyncio.to_thread(said, holder)
            released = time.monotonic()
            assert numbers(await waiting) == [0]
            return time.monotonic() - released

        assert with_rooms(tmp_path, work, 1) < RESCAN_S + SLACK_S


def test_what_is_released_with_a_delay_is_withheld_from_everybody_until_then(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        held = await claimed(one)
        await one.settle("narrator", release=names(held), delay_s=30, consumer="one")
        for left_s in (30, 1):
            for room, consumer in ((one, "one"), (two, "two")):
                assert (await claimed(room, consumer)).timed_out
                assert await unread(room, consumer=consumer) == []
            clock.now_s += left_s - 1
        clock.now_s += 1
        page = await claimed(two, "two")
        assert (numbers(page), deliveries(page)) == ([0], [2])

    with_rooms(tmp_path, work)


def test_a_wait_is_woken_when_the_delay_of_a_release_is_over(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        held = await claimed(one)
        began = time.monotonic()
        await one.settle("narrator", release=names(held), delay_s=0.4, consumer="one")
        assert numbers(await claimed(two, "two", timeout_s=25)) == [0]
        assert 0.4 <= time.monotonic() - began < 0.4 + SLACK_S

    with_rooms(tmp_path, work)


def test_waiting_consumers_share_what_comes(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(*rooms: Mailroom) -> None:
        await rooms[0].read("narrator", ack=True)
        waits = [asyncio.ensure_future(claimed(room, f"c{n}", timeout_s=25)) for n, room in enumerate(rooms)]
        for room in rooms:
            await is_waiting(room)
        posted = {
            (await rooms[0].post("narrator", sender="a", msg_type="note", payload={"text": str(n)})).id
            for n in range(4)
        }
        assert {message.id for page in await asyncio.gather(*waits) for message in page.messages} == posted

    with_rooms(tmp_path, work, 4)


def test_a_wait_for_something_else_does_not_spin_on_what_is_held(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        await claimed(one, lease_s=600)
        looks = 0
        real = two._answer

        async def counting(question: Any) -> Page:
            nonlocal looks
            looks += 1
            return await real(question)

        two._answer = counting  # type: ignore[method-assign]
        assert (await claimed(two, "two", timeout_s=0.5)).timed_out
        assert looks < 10

    with_rooms(tmp_path, work)


def test_a_cancelled_wait_holds_nothing(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        held = await claimed(one)
        waiting = asyncio.ensure_future(claimed(two, "two", timeout_s=25))
        await is_waiting(two)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await one.settle("narrator", release=names(held), consumer="one")
        assert numbers(await claimed(one)) == [0]

    with_rooms(tmp_path, work)


def test_a_claim_that_is_cancelled_at_any_moment_is_made_or_not(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        await claimed(one)  # so that everything has been read once
        await one.settle("narrator", release=known_id(0), consumer="one")
        outcomes = set()
        for steps in range(60):
            waiting = asyncio.ensure_future(claimed(one))
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            done = await asyncio.gather(waiting, return_exceptions=True)
            is_made = isinstance(done[0], Page)
            outcomes.add(is_made)
            assert await unread(two, consumer="two") == ([] if is_made else [0])
            if is_made:
                await one.settle("narrator", release=known_id(0), consumer="one")
                await one.settle("narrator", ack=known_id(0))
                await one.settle("narrator", reopen=known_id(0))  # lest it be delivered too often
        assert outcomes == {True, False}

    with_rooms(tmp_path, work)


# --- claim() ---------------------------------------------------------------------------------------------------------


def test_work_that_is_done_is_acknowledged_at_the_end(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)

    async def work(one: Mailroom, two: Mailroom) -> None:
        async with one.claim("narrator", limit=2, consumer="one") as claim:
            assert claim and len(claim) == 2 and numbers(claim) == [0, 1]
            assert [claim.deliveries(message) for message in claim] == [1, 1]
            assert await unread(two, consumer="two") == [2]
        assert await unread(two) == [2]

    with_rooms(tmp_path, work)


def test_a_claim_that_times_out_is_empty(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        await claimed(one)
        async with two.claim("narrator", timeout_s=0.05, consumer="two") as claim:
            assert not claim and list(claim) == []
            await claim.ack()
            await claim.extend()
        assert await unread(one, consumer="one") == [0]

    with_rooms(tmp_path, work)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyError, GeneratorExit])
def test_work_that_fails_is_given_back(tmp_path: Path, error: type[BaseException]) -> None:
    numbered(tmp_path, 0, 1)

    async def work(one: Mailroom, two: Mailroom) -> None:
        with pytest.raises(error):
            async with one.claim("narrator", limit=2, consumer="one") as claim:
                await claim.ack(claim.messages[0])
                raise error
        page = await claimed(two, "two", limit=9)
        assert (numbers(page), deliveries(page)) == ([1], [2])

    with_rooms(tmp_path, work)


def test_work_that_is_cancelled_is_given_back(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        begun = asyncio.Event()

        async def endless() -> None:
            async with one.claim("narrator", consumer="one"):
                begun.set()
                await asyncio.Event().wait()

        working = asyncio.ensure_future(endless())
        await begun.wait()
        assert numbers(await claimed(two, "two")) == []
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert numbers(await claimed(two, "two")) == [0]

    with_rooms(tmp_path, work)


def test_work_in_a_generator_that_is_left_is_given_back(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        async def messages() -> AsyncIterator[Message]:
            async with one.claim("narrator", consumer="one") as claim:
                for message in claim:
                    yield message

        given = messages()
        assert numbers([await anext(given)]) == [0]
        await given.aclose()  # type: ignore[attr-defined]
        assert numbers(await claimed(two, "two")) == [0]

    with_rooms(tmp_path, work)


def test_what_failed_may_be_given_back_with_a_delay(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        with pytest.raises(ValueError, match="broken"):
            async with one.claim("narrator", consumer="one", delay_s=30):
                raise ValueError("broken")
        clock.now_s += 29
        assert numbers(await claimed(two, "two")) == []
        clock.now_s += 1
        assert numbers(await claimed(two, "two")) == [0]

    with_rooms(tmp_path, work)


def test_part_of_a_claim_may_be_settled_otherwise(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2, 3)

    async def work(one: Mailroom, two: Mailroom) -> None:
        async with one.claim("narrator", limit=9, consumer="one") as claim:
            await claim.reject(claim.messages[0], reason="no verse")
            await claim.release(claim.messages[1])
            await claim.ack(claim.messages[2])
            for settled in claim.messages[:3]:
                with pytest.raises(NotSettled, match="this claim does not hold it any more"):
                    await claim.ack(settled)
        assert await unread(two) == [1]
        (letter,) = (await two.read("dead_letters")).messages
        assert (letter.reply_to, letter.payload["reason"]) == (known_id(0), "no verse")

    with_rooms(tmp_path, work)


def test_a_claim_is_held_for_longer_when_it_is_extended(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        async with one.claim("narrator", lease_s=10, consumer="one") as claim:
            for _ in range(5):
                clock.now_s += 9
                await claim.extend()
                assert numbers(await claimed(two, "two")) == []
            await claim.extend(100)
            clock.now_s += 99
            assert numbers(await claimed(two, "two")) == []
        assert await unread(two) == []

    with_rooms(tmp_path, work)


def test_a_claim_whose_lease_expired_does_not_pass_for_done(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom, two: Mailroom) -> None:
        with pytest.raises(NotSettled, match="expired: claim it again"):
            async with one.claim("narrator", lease_s=10, consumer="one"):
                clock.now_s += 11
        with pytest.raises(NotSettled, match="this lease is over: two holds it now"):
            async with one.claim("narrator", lease_s=10, consumer="one"):
                clock.now_s += 11
                assert numbers(await claimed(two, "two")) == [0]
        with pytest.raises(NotSettled, match="this lease is over"):
            async with one.claim("narrator", lease_s=10, consumer="one", timeout_s=0) as claim:
                assert not claim
            clock.now_s += 61
            async with one.claim("narrator", lease_s=10, consumer="one") as claim:
                clock.now_s += 11
                assert numbers(await claimed(two, "two")) == [0]
                await claim.extend()
        await two.settle("narrator", ack=known_id(0), consumer="two")

    with_rooms(tmp_path, work)


def test_an_error_is_not_hidden_by_a_lease_that_expired(tmp_path: Path, clock: Clock) -> None:
    numbered(tmp_path, 0)

    async def work(one: Mailroom) -> None:
        with pytest.raises(ValueError, match="broken"):
            async with one.claim("narrator", lease_s=10, consumer="one"):
                clock.now_s += 11
                raise ValueError("broken")

    with_rooms(tmp_path, work, 1)


def test_what_has_expired_in_one_mailbox_does_not_keep_the_others_from_being_settled(
    tmp_path: Path, clock: Clock
) -> None:
    for number, channel in enumerate(("a", "b", "c")):
        numbered(tmp_path, number, channel=channel)

    async def work(one: Mailroom, two: Mailroom) -> None:
        for how in ("ack", "release"):
            for lost in ("a", "c"):
                for channel in ("a", "b", "c"):
                    with contextlib.suppress(NotSettled):
                        await two.settle(channel, reopen=[known_id("abc".index(channel))])
                error = NotSettled if how == "ack" else ValueError
                with pytest.raises(error):
                    async with one.claim(["a", "b", "c"], lease_s=10, limit=9, consumer="one") as claim:
                        assert numbers(claim) == [0, 1, 2]
                        clock.now_s += 9
                        for channel in {"a", "b", "c"} - {lost}:
                            number = "abc".index(channel)
                            await one.settle(channel, extend=known_id(number), lease_s=10, consumer="one")
                        clock.now_s += 2
                        if how == "release":
                            raise ValueError
                for channel in {"a", "b", "c"} - {lost}:
                    left = await unread(two, channel, consumer="two")
                    assert left == ([] if how == "ack" else ["abc".index(channel)])
                assert await unread(two, lost, consumer="two") == ["abc".index(lost)]

    with_rooms(tmp_path, work)


# --- closing ---------------------------------------------------------------------------------------------------------


def test_a_mailroom_closes_while_claims_are_made(tmp_path: Path) -> None:
    numbered(tmp_path, *range(10))

    async def work() -> None:
        for steps in range(0, 40, 3):
            async with Mailroom(tmp_path) as room:
                tasks = [asyncio.ensure_future(claimed(room, f"c{number}", lease_s=0.001)) for number in range(3)]
                tasks += [asyncio.ensure_future(room.settle("narrator", seek="beginning"))]
                for _ in range(steps):
                    await asyncio.sleep(0)
            await asyncio.gather(*tasks, return_exceptions=True)
            await room.close()  # gives back what they opened since

    run(work())


def test_a_mailroom_closes_while_a_task_holds_the_deliveries(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work() -> None:
        holding, go_on = asyncio.Event(), asyncio.Event()

        async def hold(room: Mailroom) -> None:
            async with room._delivering(["narrator"]):
                holding.set()
                await go_on.wait()

        async with Mailroom(tmp_path) as room:
            task = asyncio.ensure_future(hold(room))
            await holding.wait()
        go_on.set()
        await task
        assert room._store.leases("narrator").lock._handle is None
        async with Mailroom(tmp_path) as other:
            assert numbers(await claimed(other)) == [0]

    run(work())


def test_settled_messages_are_counted_as_held_by_nobody(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        page = await claimed(room)
        assert room._leases("narrator").withheld("narrator")
        await room.settle("narrator", ack=names(page), consumer="one")
        assert not room._leases("narrator").withheld("narrator"), "which would keep every wait looking"
        assert room._leases("narrator").of("narrator")[id_number(known_id(0))].consumer == "one"

    with_rooms(tmp_path, work, 1)

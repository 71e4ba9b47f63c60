"""Reading a mailbox: unread, acknowledged, peeked into, from a place on; waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.answers import Page
from mq_server.errors import InvalidRequest, LockTimeout, UnknownChannel, UnknownReference
from mq_server.mailroom import Mailroom
from mq_server.names import format_time
from tests.support import START_US, ask, examples, known_id, line, run, write

Answer = Callable[[Mailroom], Awaitable[Any]]


def numbered(root: Path, *numbers: int, channel: str = "narrator", **keys: Any) -> Path:
    """A mailbox with these messages, as somebody else wrote it."""
    return write(root / f"{channel}.jsonl", *(line(number, id=known_id(number), **keys) for number in numbers))


def numbers(page: Page) -> list[int]:
    """Which messages are on a page."""
    return [next(number for number in range(200) if known_id(number) == message.id) for message in page.messages]


def read(root: Path, channel: Any = "narrator", **question: Any) -> Page:
    page: Page = ask(root, lambda room: room.read(channel, **question))
    return page


def refused(root: Path, error: type[Exception] = InvalidRequest, channel: Any = "narrator", **question: Any) -> str:
    with pytest.raises(error) as caught:
        ask(root, lambda room: room.wait(channel, timeout_s=0, **question))
    return str(caught.value)


def receipts(root: Path, channel: str = "narrator") -> list[dict[str, Any]]:
    path = root / "receipts" / f"{channel}.jsonl"
    return [orjson.loads(text) for text in path.read_bytes().splitlines()] if path.exists() else []


# --- unread and acknowledged -----------------------------------------------------------------------------------------


def test_reading_acknowledges_nothing_unless_asked(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)
    for _ in range(2):
        page = read(tmp_path)
        assert numbers(page) == [0, 1, 2]
        assert page.remaining == 0 and page.next is None and not page.peek
    assert not receipts(tmp_path)


def test_ack_true_settles_what_is_returned_in_one_receipt(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)
    page = read(tmp_path, ack=True, limit=2)
    assert (numbers(page), page.remaining) == ([0, 1], 1)
    (receipt,) = receipts(tmp_path)
    assert list(receipt) == ["id", "timestamp", "channel", "reader", "consumer", "op", "ids"]
    assert receipt["ids"] == [known_id(0), known_id(1)]
    assert (receipt["channel"], receipt["reader"], receipt["consumer"], receipt["op"]) == (
        *("narrator", "narrator", "narrator"),
        "ack",
    )
    assert numbers(read(tmp_path, ack=True)) == [2]
    assert numbers(read(tmp_path, ack=True)) == []
    assert len(receipts(tmp_path)) == 2


def test_ack_ids_settles_earlier_work_first(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2, 3)
    names = [known_id(0), "narrator:2", known_id(2)[-9:]]
    assert numbers(read(tmp_path, ack=names)) == [3]
    (receipt,) = receipts(tmp_path)
    assert receipt["ids"] == [known_id(0), known_id(1), known_id(2)]
    assert numbers(read(tmp_path, ack=known_id(3))) == []


def test_acknowledging_twice_writes_one_receipt(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)

    async def work(room: Mailroom) -> None:
        for _ in range(3):
            await room.acknowledge("narrator", [known_id(0), known_id(0)])
        await room.acknowledge("narrator", [])

    ask(tmp_path, work)
    assert len(receipts(tmp_path)) == 1


def test_what_is_acknowledged_by_id_or_lease_is_found_without_looking_at_other_mailboxes(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2)
    numbered(tmp_path, 3, channel="dialogist")

    async def work(room: Mailroom) -> None:
        page = await room.read("narrator", limit=1, lease_s=60)
        listed = room._store.listed
        room._store.listed = None  # type: ignore[method-assign,assignment]
        page = await room.wait("narrator", limit=1, lease_s=60, ack=[page.leases[0].name], timeout_s=0)
        assert numbers(page) == [1]
        await room.acknowledge("narrator", [known_id(2), page.leases[0].name])
        assert (await room.read("narrator")).remaining == 0
        room._store.listed = listed  # type: ignore[method-assign]
        with pytest.raises(InvalidRequest, match=f"{known_id(3)} does not stand in narrator"):
            await room.acknowledge("narrator", known_id(3))
        with pytest.raises(InvalidRequest, match=f"ack: .*{known_id(9)}"):
            await room.acknowledge("narrator", known_id(9))
        numbered(tmp_path, 0, 1, 2, 9)
        await room.acknowledge("narrator", known_id(9))

    ask(tmp_path, work)


def test_a_copy_is_settled_in_the_mailboxes_that_are_meant(tmp_path: Path) -> None:
    for name in ("narrator", "dialogist"):
        numbered(tmp_path, 0, 1, channel=name)
    ask(tmp_path, lambda room: room.acknowledge("dialogist", [known_id(0)]))
    assert numbers(read(tmp_path, "dialogist")) == [1]
    assert numbers(read(tmp_path, "narrator")) == [0, 1]
    ask(tmp_path, lambda room: room.acknowledge("*", [known_id(1)]))
    assert numbers(read(tmp_path, "dialogist")) == []
    assert numbers(read(tmp_path, "narrator")) == [0]


def test_what_cannot_be_acknowledged_says_why_and_settles_nothing(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    numbered(tmp_path, 5, channel="dialogist")
    text = refused(tmp_path, ack=[known_id(0), "ZZZZ", known_id(5)])
    assert "ack: No message is named 'ZZZZ'" in text
    assert f"ack: {known_id(5)} does not stand in narrator" in text
    assert not receipts(tmp_path)


@pytest.mark.parametrize("name", ["Nar", "../x", ""])
def test_a_reader_must_have_a_name(tmp_path: Path, name: str) -> None:
    numbered(tmp_path, 0)
    assert f"reader {name!r}" in refused(tmp_path, reader=name)
    with pytest.raises(InvalidRequest, match="reader"):
        ask(tmp_path, lambda room: room.acknowledge("narrator", [known_id(0)], reader=name))


def test_every_reader_has_its_own_unread(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    assert numbers(read(tmp_path, reader="editor", ack=True)) == [0, 1]
    assert numbers(read(tmp_path, reader="editor")) == []
    assert numbers(read(tmp_path)) == [0, 1]
    assert receipts(tmp_path)[0]["reader"] == "editor"


# --- somebody else's mailbox -----------------------------------------------------------------------------------------


def test_a_known_caller_only_peeks_into_another_mailbox(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    page = read(tmp_path, caller="dialogist")
    assert numbers(page) == [0, 1] and page.peek
    assert page.as_json()["peek"] is True
    assert "give reader='dialogist' to read it as yourself" in refused(tmp_path, caller="dialogist", ack=True)
    assert "'narrator' is not your mailbox" in refused(tmp_path, caller="dialogist", ack=[known_id(0)])
    assert not receipts(tmp_path)


def test_a_known_caller_reads_its_own_mailbox_and_others_as_itself(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    assert not read(tmp_path, caller="narrator", ack=True).peek
    page = read(tmp_path, caller="dialogist", reader="dialogist", ack=True)
    assert numbers(page) == [0, 1] and not page.peek
    assert [receipt["reader"] for receipt in receipts(tmp_path)] == ["narrator", "dialogist"]


def test_reading_by_place_is_no_peek(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    assert not read(tmp_path, caller="dialogist", since="narrator:1").peek


# --- what is delivered -----------------------------------------------------------------------------------------------


def test_urgent_messages_come_first_and_the_rest_in_file_order(tmp_path: Path) -> None:
    lines = [line(number, id=known_id(number), **({"urgent": True} if number in (2, 3) else {})) for number in range(5)]
    write(tmp_path / "narrator.jsonl", *lines)
    page = read(tmp_path, limit=3)
    assert (numbers(page), page.remaining) == ([2, 3, 0], 2)
    assert numbers(read(tmp_path, since="narrator:1")) == [1, 2, 3, 4], "by place there is no other order"


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans()), max_size=12),
    st.integers(1, 6),
    st.booleans(),
)
def test_of_several_mailboxes_the_first_are_given_in_order_of_time(
    posts: list[tuple[str, int, bool]], limit: int, since: bool
) -> None:
    written = [
        (channel, second, urgent and not since, number) for number, (channel, second, urgent) in enumerate(posts)
    ]
    expected = [number for _, _, _, number in sorted(written, key=lambda post: (not post[2], post[1], post[3]))]
    with TemporaryDirectory() as folder:
        for name in "ab":
            lines = [
                line(second, id=known_id(number), **({"urgent": True} if posts[number][2] else {}))
                for channel, second, _, number in written
                if channel == name
            ]
            write(Path(folder) / f"{name}.jsonl", *lines)
        question = {"since": format_time(0)} if since else {}
        page = read(Path(folder), ["a", "b"], reader="critic", limit=limit, **question)
    assert (numbers(page), page.remaining) == (expected[:limit], max(0, len(posts) - limit))


def test_what_has_expired_is_history_and_not_delivered(tmp_path: Path) -> None:
    soon, past = format_time(time.time_ns() // 1000 + 3_600_000_000), format_time(START_US)
    lines = [line(number, id=known_id(number), expires_at=at) for number, at in enumerate((soon, past))]
    write(tmp_path / "narrator.jsonl", *lines)
    assert numbers(read(tmp_path)) == [0]
    assert numbers(ask(tmp_path, lambda room: room.history("narrator"))) == [0, 1]


def test_a_correction_is_delivered_instead_of_the_original(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    assert numbers(read(tmp_path, ack=True)) == [0, 1]
    with (tmp_path / "narrator.jsonl").open("ab") as file:
        file.write(line(2, id=known_id(2), replaces=known_id(0)))
    page = read(tmp_path)
    assert numbers(page) == [2] and page.messages[0].amended
    assert numbers(read(tmp_path, reader="new")) == [1, 2]
    assert numbers(read(tmp_path, since=format_time(0))) == [1, 2]


def test_filters_leave_the_rest_unread(tmp_path: Path) -> None:
    lines = [
        line(number, id=known_id(number), sender="ab"[number % 2], msg_type=("note", "score")[number // 2])
        for number in range(4)
    ]
    write(tmp_path / "narrator.jsonl", *lines)
    assert numbers(read(tmp_path, sender="a", msg_type="score", ack=True)) == [2]
    assert numbers(read(tmp_path, sender="b")) == [1, 3]
    assert numbers(read(tmp_path)) == [0, 1, 3]
    assert numbers(read(tmp_path, sender="nobody")) == []


def test_a_page_keeps_within_its_bytes_but_gives_one(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", *(line(n, id=known_id(n), text="x" * 1000) for n in range(10)))
    page = read(tmp_path, limit_bytes=4000)
    assert (numbers(page), page.remaining) == ([0, 1, 2], 7)
    assert len(orjson.dumps(page.as_json()["messages"])) <= 4000
    assert numbers(read(tmp_path, limit_bytes=1)) == [0]
    assert page.next
    assert numbers(read(tmp_path, since=page.next)) == list(range(3, 10))


@pytest.mark.parametrize("limit", [0, -1, 1001, "5", 2.0, True, None])
def test_a_limit_is_a_number_from_1_to_1000(tmp_path: Path, limit: Any) -> None:
    assert f"limit is {limit!r}; give a number from 1 to 1000" in refused(tmp_path, limit=limit)


def test_a_name_that_is_almost_a_channel_is_refused_and_a_new_one_is_empty(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    assert "Did you mean 'narrator'?" in refused(tmp_path, UnknownChannel, channel="narator")
    assert read(tmp_path, "dialogist").messages == ()
    assert read(tmp_path, "narrator2", caller="narrator2").messages == (), "an agent may look into its own mailbox"


@pytest.mark.parametrize("channel", ["../secret", "../secret.jsonl", "/secret", "Secret", "", []])
def test_no_channel_name_reads_a_file_outside(tmp_path: Path, channel: Any) -> None:
    write(tmp_path / "secret.jsonl", line(0, text="secret"))
    root = tmp_path / "production"
    numbered(root, 1)

    async def work(room: Mailroom) -> None:
        for call in (room.read, room.history):
            with pytest.raises(InvalidRequest):
                await call(channel)  # type: ignore[operator]
        with pytest.raises(InvalidRequest):
            await room.wait(channel, timeout_s=0)
        assert numbers(Page(messages=(await room.activity()).messages)) == [1]

    ask(root, work)


# --- from a place on -------------------------------------------------------------------------------------------------


def test_since_is_a_message_a_time_or_a_token(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1, 2, 3)
    end = known_id(1)[-5:]
    for since in (known_id(1), known_id(1).lower(), end, "narrator:2", f"narrator:2~{end}", f"narrator:77~{end}"):
        assert numbers(read(tmp_path, since=since)) == [2, 3]
    assert numbers(read(tmp_path, since=format_time(START_US + 2000))) == [2, 3], "a time is included"
    assert numbers(read(tmp_path, since=format_time(START_US + 2001))) == [3]
    assert not receipts(tmp_path)
    token = read(tmp_path, since="narrator:1", limit=1).next
    assert numbers(read(tmp_path, since=token)) == [2, 3]


def test_since_gives_what_was_read_too(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 1)
    read(tmp_path, ack=True)
    assert numbers(read(tmp_path, since=known_id(0))) == [1]
    assert "give the ids to settle" in refused(tmp_path, since=known_id(0), ack=True)


def test_since_a_message_of_another_mailbox_goes_by_its_time(tmp_path: Path) -> None:
    numbered(tmp_path, 0, 2, 4)
    numbered(tmp_path, 1, 2, channel="dialogist")
    assert numbers(read(tmp_path, since="dialogist:1")) == [2, 4]
    assert numbers(read(tmp_path, since="dialogist:2")) == [4], "a copy stands here as well"


def test_since_a_time_in_a_mailbox_that_is_not_in_order(tmp_path: Path) -> None:
    numbered(tmp_path, 5, 1, 3)
    assert numbers(read(tmp_path, since=format_time(START_US + 3000))) == [5, 3]


@pytest.mark.parametrize("since", ["yesterday", "2026-11-22", "2026-11-22T13:12:52", "narrator 1"])
def test_a_since_that_is_neither_says_what_it_may_be(tmp_path: Path, since: str) -> None:
    numbered(tmp_path, 0)
    words = f"No message is named {since!r}. Use an id, a ref, or a time with its zone, such as 2026-11-22T13:12:52Z"
    assert refused(tmp_path, UnknownReference, since=since) == words


def test_a_token_of_another_question_is_refused(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    token = ask(tmp_path, lambda room: room.activity()).next
    assert "`next` of another question" in refused(tmp_path, since=token)
    assert "not a whole `next` token" in refused(tmp_path, since="n.file.12")


def test_paging_by_tokens_gives_each_once_and_goes_on_with_what_comes(tmp_path: Path) -> None:
    path = numbered(tmp_path, *range(7))
    seen, since = [], format_time(0)
    for _ in range(4):
        page = read(tmp_path, since=since, limit=2)
        assert page.next and not page.merged
        seen += numbers(page)
        since = page.next
    assert seen == list(range(7))
    with path.open("ab") as file:
        file.write(line(8, id=known_id(8)))
    page = read(tmp_path, since=since)
    assert (numbers(page), page.merged) == ([8], False)


def test_a_merge_above_the_place_restarts_where_nothing_changed(tmp_path: Path) -> None:
    numbered(tmp_path, *range(0, 40, 2))
    page = read(tmp_path, since=format_time(0), limit=18)
    numbered(tmp_path, *sorted([*range(0, 40, 2), 31]))
    again = read(tmp_path, since=page.next)
    assert again.merged and again.as_json()["merged"] is True
    assert numbers(again) == [28, 30, 31, 32, 34, 36, 38]


FILES = st.lists(st.integers(0, 40), unique=True, max_size=14)


@given(FILES, FILES, st.integers(1, 5), st.sets(st.integers(0, 40)))
@examples(60)
def test_whatever_a_merge_brings_no_reader_by_tokens_skips_it(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], after: list[int], limit: int, gone: set[int]
) -> None:
    root = tmp_path_factory.mktemp("room")
    merged = [number for number in dict.fromkeys([*after, *before]) if number not in gone or number not in before]

    async def work(room: Mailroom) -> None:
        seen: set[int] = set()
        numbered(root, *before)
        page = await room.read("narrator", since=format_time(0), limit=limit)
        seen.update(numbers(page))
        numbered(root, *merged)
        for _ in range(100):
            page = await room.read("narrator", since=page.next or format_time(0), limit=limit)
            seen.update(numbers(page))
            if not page.remaining:
                break
        assert seen >= set(merged)

    ask(root, work)


# --- several mailboxes -----------------------------------------------------------------------------------------------


def test_a_wait_may_be_for_a_list_and_for_patterns(tmp_path: Path) -> None:
    numbered(tmp_path, 3, channel="scene_1")
    numbered(tmp_path, 1, channel="scene_2")
    numbered(tmp_path, 2, channel="dialogist")

    async def work(room: Mailroom) -> list[list[int]]:
        questions: list[Any] = ["scene_*", ["dialogist", "scene_1"], ["dialogist", "scene_?"], "*", ["nobody"]]
        return [numbers(await room.wait(question, timeout_s=0)) for question in questions]

    assert ask(tmp_path, work) == [[1, 3], [2, 3], [1, 2, 3], [1, 2, 3], []]


def test_each_mailbox_of_a_list_is_settled_for_its_own_reader(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    numbered(tmp_path, 1, channel="dialogist")
    page = ask(tmp_path, lambda room: room.wait(["narrator", "dialogist"], ack=True, timeout_s=0))
    assert numbers(page) == [0, 1]
    assert receipts(tmp_path)[0]["reader"] == "narrator"
    assert receipts(tmp_path, "dialogist")[0]["reader"] == "dialogist"


# --- waiting ---------------------------------------------------------------------------------------------------------


async def post(room: Mailroom, channel: str = "narrator", text: str = "x", **keys: Any) -> str:
    return (await room.post(channel, sender="a", msg_type="note", payload={"text": text}, **keys)).id


def test_a_wait_returns_at_once_what_is_there(tmp_path: Path) -> None:
    numbered(tmp_path, 0)
    page = ask(tmp_path, lambda room: room.wait("narrator", timeout_s=20))
    assert numbers(page) == [0] and page.timed_out is False


@pytest.mark.parametrize("lease_s", [None, 60.0])
def test_a_wait_that_need_not_wait_subscribes_to_nothing(tmp_path: Path, lease_s: float | None) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        room._shelf.listen = None  # type: ignore[method-assign,assignment]
        assert numbers(await room.wait("narrator", lease_s=lease_s, timeout_s=20)) == [0]
        assert room._shelf._watcher._subscribed.is_set(), "though it is seen from now on what vanishes"
        assert (await room.wait("dialogist", lease_s=lease_s, timeout_s=0)).timed_out

    ask(tmp_path, work)


def test_who_looks_without_waiting_watches_nothing(tmp_path: Path) -> None:
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        assert numbers(await room.wait("narrator", timeout_s=0)) == [0]
        assert not room._shelf._watcher._subscribed.is_set()

    ask(tmp_path, work)


@pytest.mark.parametrize("lease_s", [None, 60.0])
def test_what_comes_while_a_wait_begins_to_watch_is_found(tmp_path: Path, lease_s: float | None) -> None:
    numbered(tmp_path)

    async def work(room: Mailroom) -> None:
        async def listen(_: object) -> None:
            numbered(tmp_path, 0)

        room._shelf.listen = listen  # type: ignore[method-assign]
        assert numbers(await room.wait("narrator", lease_s=lease_s, timeout_s=20)) == [0]

    ask(tmp_path, work)


def test_a_wait_that_nothing_ends_times_out_empty(tmp_path: Path) -> None:
    began = time.monotonic()
    page = ask(tmp_path, lambda room: room.wait("narrator", timeout_s=0.2))
    assert page.timed_out is True and page.messages == ()
    assert 0.2 <= time.monotonic() - began < 2


@pytest.mark.parametrize("timeout_s", [-1, float("nan")])
def test_a_time_out_is_no_less_than_nothing(tmp_path: Path, timeout_s: float) -> None:
    with pytest.raises(InvalidRequest, match=f"timeout_s is {timeout_s}; give seconds, 0 or more"):
        ask(tmp_path, lambda room: room.wait("narrator", timeout_s=timeout_s))


def waiting(room: Mailroom, channel: Any = "narrator", **question: Any) -> asyncio.Task[Page]:
    return asyncio.ensure_future(room.wait(channel, **({"timeout_s": 20} | question)))


async def is_waiting(room: Mailroom, count: int = 1) -> None:
    """Until so many waits have read and found nothing."""
    while sum(not subscription.is_woken for subscription in room._shelf.feed.subscriptions) < count:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


def test_a_wait_goes_on_while_nothing_that_fits_comes(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        question = await post(room, "dialogist", text="Why?")
        wait = waiting(room, "narrator", sender="b", reply_to=question)
        await is_waiting(room)
        await post(room)
        await room.post("narrator", sender="b", msg_type="note", payload={"text": "unasked"})
        await post(room, reply_to=question)
        assert not wait.done()
        answer = await room.post(
            "narrator", sender="b", msg_type="note", payload={"text": "Because."}, reply_to=question
        )
        page = await wait
        assert [message.id for message in page.messages] == [answer.id]

    ask(tmp_path, work)


def test_answers_to_a_corrected_question_are_answers_to_it(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        first = await post(room, "dialogist", text="Wy?")
        second = await post(room, "dialogist", text="Why?", replaces=first)
        answer = await post(room, "narrator", reply_to=second)
        for question in (first, second):
            page = await room.wait("narrator", reply_to=question, timeout_s=0)
            assert [message.id for message in page.messages] == [answer]

    ask(tmp_path, work)


def test_many_waits_are_all_woken_by_one_message(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        waits = [waiting(room, reader=f"reader{number}") for number in range(20)]
        waits += [waiting(room, "*"), waiting(room, ["dialogist", "narrator"]), waiting(room, "narr*")]
        await is_waiting(room, len(waits))
        posted = await post(room)
        for page in await asyncio.gather(*waits):
            assert [message.id for message in page.messages] == [posted]

    ask(tmp_path, work)


def test_a_cancelled_wait_ends_and_leaves_no_subscription(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        wait = waiting(room)
        await is_waiting(room)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert not room._shelf.feed.subscriptions
        assert (await room.wait("narrator", timeout_s=0)).timed_out

    ask(tmp_path, work)


@pytest.mark.parametrize("end", [Mailroom.close, Mailroom.end_waits])
def test_closing_ends_every_wait_at_once(tmp_path: Path, end: Callable[[Mailroom], Any]) -> None:
    async def work(room: Mailroom) -> None:
        waits = [waiting(room), waiting(room, "*"), waiting(room, "dialogist")]
        await is_waiting(room, 3)
        began = time.monotonic()
        ended = end(room)
        if ended is not None:
            await ended
        for page in await asyncio.gather(*waits):
            assert page.timed_out is True
        assert time.monotonic() - began < 1.5
        assert (await room.wait("narrator", timeout_s=20)).timed_out, "nor does a new one wait"

    ask(tmp_path, work)


def test_the_sender_sees_who_waits(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        wait = waiting(room)
        await is_waiting(room)
        posted = await room.post(["narrator", "dialogist"], sender="a", msg_type="note", payload={"text": "x"})
        assert [recipient.waiting for recipient in posted.recipients] == [1, 0]
        await wait
        assert room._store.presence.count("narrator") == 0

    ask(tmp_path, work)


def test_a_wait_that_acknowledges_loses_nothing_when_the_receipt_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b"lock_timeout_s = 0.1\n")
    numbered(tmp_path, 0)

    async def work(room: Mailroom) -> None:
        other = Mailroom(tmp_path)
        with other._store.receipts("narrator").lock.held(1), pytest.raises(LockTimeout):
            await room.wait("narrator", ack=True, timeout_s=0)
        await other.close()
        assert numbers(await room.wait("narrator", ack=True, timeout_s=0)) == [0]

    ask(tmp_path, work)


@pytest.mark.parametrize("since", ["narrator:1", "narrator:1~{end}", "2026-11-22T00:00:00Z", "{token}"])
def test_a_place_in_a_mailbox_is_found_without_looking_into_others(tmp_path: Path, since: str) -> None:
    write(tmp_path / "narrator.jsonl", line(1, id=known_id(1)), line(2, id=known_id(2)))
    write(tmp_path / "dialogist.jsonl", line(3))
    token = read(tmp_path, since="narrator:1", limit=1).next

    async def work(room: Mailroom) -> None:
        given = since.format(end=known_id(1)[-4:], token=token)
        await room.read("narrator", since=given)
        if given.startswith("narrator"):
            assert (await room.history("narrator", before=given)).messages == ()
        assert list(room._index.channels) == ["narrator"]
        assert (await room.read("narrator", since=known_id(2))).messages == ()
        assert list(room._index.channels) == ["narrator", "dialogist"], "an id may stand anywhere"

    ask(tmp_path, work)


def test_a_fetch_that_cannot_be_noted_is_noted_with_the_next_read(tmp_path: Path) -> None:
    async def go() -> None:
        (tmp_path / "mq.toml").write_text("lock_timeout_s = 0.01\n", encoding="utf-8")
        async with Mailroom(tmp_path) as room, Mailroom(tmp_path) as other:
            posted = await room.post("narrator", sender="writer", msg_type="note", payload={"text": "x"})
            leases = room._store.leases("narrator")
            with other._store.leases("narrator").lock.held(1):
                await room.read("narrator")
                await room._end_notes()
            assert not leases.path.exists()
            await room.read("narrator")
            await room._end_notes()
            assert posted.message.id in leases.path.read_text(encoding="utf-8")

    run(go())

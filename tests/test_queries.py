"""Looking things up: history, threads, activity, search, the directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import searching
from mq_server.answers import Activity, Hits, Page, ThreadPage
from mq_server.errors import InvalidRequest, UnknownChannel, UnknownReference
from mq_server.mailroom import Mailroom
from mq_server.message import Message
from mq_server.names import format_time
from mq_server.search import Query
from tests.support import (
    START_US,
    append,
    ask,
    commit,
    examples,
    git,
    known_id,
    line,
    merged_both_ways,
    new_log,
    write,
)

NUMBER = {known_id(number): number for number in range(1000)}


def said(number: int, **keys: Any) -> bytes:
    """Message `number`; `reply_to` and `replaces` are given as numbers."""
    links = {key: known_id(keys.pop(key)) for key in ("reply_to", "replaces") if key in keys}
    return line(keys.pop("moment", number), id=known_id(number), **links, **keys)


def production(root: Path, **channels: Iterable[bytes]) -> Path:
    for name, lines in channels.items():
        write(root / f"{name}.jsonl", *lines)
    return root


def numbers(messages: Iterable[Message]) -> list[int]:
    return [NUMBER[message.id] for message in messages]


# --- history ---------------------------------------------------------------------------------------------------------


def history(root: Path, channel: str = "narrator", **options: Any) -> Page:
    page: Page = ask(root, lambda room: room.history(channel, **options))
    return page


def test_history_is_the_newest_oldest_first_and_pages_back(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(number) for number in range(10)])
    page = history(tmp_path, limit=4)
    assert (numbers(page.messages), page.remaining) == ([6, 7, 8, 9], 6)
    page = history(tmp_path, limit=4, before=page.next)
    assert (numbers(page.messages), page.remaining) == ([2, 3, 4, 5], 2)
    page = history(tmp_path, limit=4, before=page.next)
    assert (numbers(page.messages), page.remaining, page.next) == ([0, 1], 0, None)


def test_history_is_in_file_order_and_before_any_name(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(5), said(2), said(7)])
    assert numbers(history(tmp_path).messages) == [5, 2, 7]
    for name in (known_id(7), "narrator:3", known_id(7)[-9:], f"narrator:9~{known_id(7)[-6:]}"):
        assert numbers(history(tmp_path, before=name).messages) == [5, 2]


def test_history_pages_over_copies_of_messages_to_several(tmp_path: Path) -> None:
    production(
        tmp_path, dialogist=[said(number) for number in range(4)], narrator=[said(number) for number in range(6)]
    )
    page = history(tmp_path, limit=3)
    assert numbers(page.messages) == [3, 4, 5]
    assert numbers(history(tmp_path, limit=3, before=page.next).messages) == [0, 1, 2]


def test_history_leaves_out_what_was_corrected_in_the_mailbox_and_counts_right(tmp_path: Path) -> None:
    production(tmp_path, narrator=[*map(said, range(4)), said(4, replaces=1)], dialogist=[said(5, replaces=3)])
    page = history(tmp_path, limit=2)
    assert (numbers(page.messages), page.remaining) == ([3, 4], 2)
    assert [message.amended for message in page.messages] == [False, True]
    assert numbers(history(tmp_path, limit=2, before=page.next).messages) == [0, 2]
    assert numbers(activity(tmp_path).messages) == [0, 2, 4, 5], "across mailboxes every correction counts"

    async def work(room: Mailroom) -> None:
        await room.activity()
        assert numbers((await room.history("narrator")).messages) == [0, 2, 3, 4], "whatever else has been read"
        assert numbers((await room.read("narrator")).messages) == [0, 2, 3, 4]

    ask(tmp_path, work)


def test_history_keeps_within_its_bytes(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(number, text="x" * 1000) for number in range(9)])
    page = history(tmp_path, limit_bytes=4000)
    assert (numbers(page.messages), page.remaining) == ([6, 7, 8], 6)
    assert numbers(history(tmp_path, limit_bytes=1).messages) == [8]


def test_history_before_a_message_that_stands_elsewhere_is_refused(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(0)], dialogist=[said(1)])
    with pytest.raises(InvalidRequest, match="before names a message of 'dialogist'; give one of 'narrator'"):
        history(tmp_path, before="dialogist:1")
    with pytest.raises(UnknownReference):
        history(tmp_path, before="ZZZZ")
    with pytest.raises(UnknownChannel, match="Did you mean 'narrator'"):
        history(tmp_path, "narator")
    assert history(tmp_path, "quality_assessor").messages == ()


# --- threads ---------------------------------------------------------------------------------------------------------


def test_a_thread_says_who_and_where_and_how_deep(tmp_path: Path) -> None:
    production(
        tmp_path,
        narrator=[said(0), said(2, reply_to=1)],
        dialogist=[said(1, reply_to=0, sender="narrator"), said(3, reply_to=0)],
    )
    for name in (known_id(3), "narrator:2", "dialogist:1", known_id(0)[-8:]):
        page = ask(tmp_path, lambda room, name=name: room.thread(name))
        assert numbers(page.messages) == [0, 1, 2, 3]
        assert page.depths == (0, 1, 2, 1)
        assert (page.root, page.total, page.remaining, page.next) == (known_id(0), 4, 0, None)
        assert page.participants == ("narrator", "scene_director")
        assert page.channels == ("dialogist", "narrator")
        assert page.missing_parent is None


def test_a_thread_pages_back_by_any_name_of_any_version_or_copy(tmp_path: Path) -> None:
    replies = [said(number, reply_to=0) for number in range(1, 8)]
    production(tmp_path, narrator=[said(0), *replies], dialogist=[said(5, reply_to=0)], z=[said(9, replaces=3)])

    async def work(room: Mailroom) -> None:
        page = await room.thread(known_id(0), limit=3)
        assert (numbers(page.messages), page.remaining) == ([5, 6, 7], 5)
        for name in (page.next, "narrator:6", "dialogist:1"):
            page = await room.thread(known_id(4), limit=3, before=name)
            assert (numbers(page.messages), page.remaining) == ([2, 9, 4], 2)
        for name in (known_id(3), known_id(9)):
            page = await room.thread(known_id(4), limit=3, before=name)
            assert numbers(page.messages) == [0, 1, 2]
        assert page.next is None
        with pytest.raises(InvalidRequest, match="does not stand in this thread"):
            await room.thread(known_id(0), before="other:1")

    production(tmp_path, other=[said(20)])
    ask(tmp_path, work)


def test_a_part_of_a_thread_starts_at_a_message(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(0), *(said(number, reply_to=0) for number in range(1, 6)), said(9)])

    def part(start: int, **options: Any) -> ThreadPage:
        return ask(tmp_path, lambda room: room.thread(known_id(0), start=known_id(start), **options))

    page = part(2, limit=2)
    assert numbers(page.messages) == [2, 3]
    assert page.depths == (1, 1)
    assert (page.remaining, page.next, page.total) == (2, known_id(2), 6)
    assert numbers(part(4, limit=9).messages) == [4, 5]
    assert numbers(part(1, limit_bytes=1).messages) == [1]
    assert (part(0).next, part(0).remaining) == (None, 0)
    with pytest.raises(InvalidRequest, match="start names"):
        part(9)


def test_a_thread_of_an_orphan_names_the_missing_parent(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(1, reply_to=77), said(2, reply_to=1)])
    page = ask(tmp_path, lambda room: room.thread(known_id(2)))
    assert (page.root, page.missing_parent) == (known_id(1), known_id(77))


def test_a_message_is_found_in_its_newest_version(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(0), said(1)], dialogist=[said(1), said(2, replaces=0)])

    async def work(room: Mailroom) -> None:
        corrected = await room.message("narrator:1")
        assert NUMBER[corrected.id] == 2 and corrected.amended
        assert (await room.message("narrator:2")).channel == "narrator", "a ref means the copy it names"
        assert (await room.message(known_id(1))).channel == "dialogist"

    ask(tmp_path, work)


# --- activity --------------------------------------------------------------------------------------------------------


def activity(root: Path, **options: Any) -> Activity:
    answer: Activity = ask(root, lambda room: room.activity(**options))
    return answer


def test_activity_is_the_newest_of_all_channels_oldest_first(tmp_path: Path) -> None:
    production(tmp_path, a=[said(0), said(3), said(4)], b=[said(2), said(1)], c=[said(3)])
    answer = activity(tmp_path, limit=3)
    assert (numbers(answer.messages), answer.more) == ([2, 3, 4], True)
    assert not activity(tmp_path).more
    assert numbers(activity(tmp_path, channel="b").messages) == [1, 2]
    assert numbers(activity(tmp_path, channel="[ab]").messages) == [0, 1, 2, 3, 4]


def test_activity_goes_on_from_a_message_a_time_or_a_token(tmp_path: Path) -> None:
    production(tmp_path, a=[said(0), said(2)], b=[said(1), said(3)])
    assert numbers(activity(tmp_path, since=known_id(1)).messages) == [2, 3]
    assert numbers(activity(tmp_path, since="a:1").messages) == [1, 2, 3]
    assert numbers(activity(tmp_path, since=format_time(START_US + 2000)).messages) == [2, 3]
    last = activity(tmp_path)
    assert activity(tmp_path, since=last.next).messages == ()
    append(new_log(tmp_path, "a"), said(5))
    assert numbers(activity(tmp_path, since=last.next).messages) == [5]
    with pytest.raises(UnknownReference, match="a time with its zone"):
        activity(tmp_path, since="yesterday")


MOMENTS = st.lists(st.tuples(st.integers(0, 3), st.sets(st.sampled_from("abc"), min_size=1)), max_size=16)


@given(MOMENTS, st.integers(1, 4), st.sampled_from([None, "a", "[ab]"]))
@examples(60)
def test_paging_through_activity_gives_each_message_once_though_many_have_one_timestamp(
    tmp_path_factory: pytest.TempPathFactory, messages: Any, limit: int, channel: str | None
) -> None:
    root = tmp_path_factory.mktemp("room")
    boxes: dict[str, list[bytes]] = {name: [] for name in "abc"}
    for number, (moment, channels) in enumerate(messages):
        for name in channels:
            boxes[name].append(said(number, moment=moment))
    production(root, **boxes)

    async def work(room: Mailroom) -> None:
        everything = await room.activity(channel=channel)
        seen: list[int] = []
        answer = await room.activity(channel=channel, since=format_time(0), limit=limit)
        while True:
            seen += numbers(answer.messages)
            assert not answer.merged
            if not answer.more:
                break
            answer = await room.activity(channel=channel, since=answer.next, limit=limit)
        assert seen == numbers(everything.messages)
        assert sorted(seen) == [
            number for number, (_, names) in enumerate(messages) if channel is None or names & set(channel.strip("[]"))
        ]
        assert not (await room.activity(channel=channel, since=answer.next)).messages

    ask(root, work)


@given(MOMENTS, MOMENTS, st.integers(1, 4))
@examples(60)
def test_activity_that_a_merge_brings_later_is_not_skipped(
    tmp_path_factory: pytest.TempPathFactory, before: Any, later: Any, limit: int
) -> None:
    root = tmp_path_factory.mktemp("room")
    boxes: dict[str, list[bytes]] = {name: [] for name in "abc"}

    def bring(messages: Any, first: int) -> None:
        for number, (moment, channels) in enumerate(messages, first):
            for name in channels:
                boxes[name].insert(0, said(number, moment=moment))
        production(root, **boxes)

    async def work(room: Mailroom) -> None:
        bring(before, 0)
        seen: set[int] = set()
        answer = await room.activity(since=format_time(0), limit=limit)
        seen.update(numbers(answer.messages))
        bring(later, 100)
        for _ in range(100):
            answer = await room.activity(since=answer.next, limit=limit)
            seen.update(numbers(answer.messages))
            if not answer.more:
                break
        assert seen == {*range(len(before)), *range(100, 100 + len(later))}

    ask(root, work)


def test_long_payloads_in_activity_are_abbreviated_and_say_how_to_get_all(tmp_path: Path) -> None:
    lines = [said(0, text="x" * 1000), said(1, payload={"lines": list(range(9))}), said(2)]
    production(tmp_path, narrator=lines)
    long, many, short = activity(tmp_path).as_json()["messages"]
    assert long["payload"]["text"].endswith("… [720 more characters]")
    assert many["payload"]["lines"] == [0, 1, 2, "… [6 more]"]
    assert "abbreviated" in long and "abbreviated" in many and "abbreviated" not in short


def test_activity_keeps_within_its_bytes(tmp_path: Path) -> None:
    production(tmp_path, narrator=[said(number, text="x" * 200) for number in range(20)])
    answer = activity(tmp_path, limit_bytes=2000)
    assert answer.more and 1 < len(answer.messages) < 6
    assert numbers(answer.messages)[-1] == 19
    assert len(orjson.dumps(answer.as_json()["messages"])) <= 2000
    assert numbers(activity(tmp_path, since=format_time(0), limit_bytes=1).messages) == [0]


# --- search ----------------------------------------------------------------------------------------------------------


def search(root: Path, query: str, **options: Any) -> Hits:
    hits: Hits = ask(root, lambda room: room.search(query, **options))
    return hits


def test_search_finds_every_word_whatever_its_case_newest_first(tmp_path: Path) -> None:
    production(
        tmp_path,
        narrator=[said(0, text="The SEA wall"), said(1, text="A wall"), said(4, text="wall, sea; Ärger")],
        dialogist=[said(3, payload={"lines": [{"who": "Vreni", "text": "The sea."}, {"text": "The wall."}]})],
        writer=[said(4, text="wall, sea; Ärger")],
    )
    hits = search(tmp_path, "sea WALL")
    assert [NUMBER[hit.message.id] for hit in hits.hits] == [4, 3, 0], "the first copy by channel name counts"
    assert hits.hits[1].snippet == "The sea."
    assert [NUMBER[hit.message.id] for hit in search(tmp_path, '"sea wall"').hits] == [0]
    assert [hit.snippet for hit in search(tmp_path, "ärger").hits] == ["wall, sea; Ärger"]
    assert search(tmp_path, "boat").hits == ()
    with pytest.raises(InvalidRequest, match="query is empty"):
        search(tmp_path, "  ")


def test_search_pages_back_by_until_and_is_narrowed(tmp_path: Path) -> None:
    lines = [said(number, moment=number // 3, sender="ab"[number % 2], scene=f"s{number % 3}") for number in range(9)]
    production(tmp_path, a=lines[::2], b=lines[1::2])
    seen, until = [], None
    while True:
        hits = search(tmp_path, "message", limit=2, until=until)
        seen += [NUMBER[hit.message.id] for hit in hits.hits]
        if hits.next is None:
            break
        until = hits.next
    assert seen == list(range(8, -1, -1))
    assert {hit.message.sender for hit in search(tmp_path, "message", sender="a").hits} == {"a"}
    assert {hit.message.scene for hit in search(tmp_path, "message", scene="s1").hits} == {"s1"}
    assert {hit.message.channel for hit in search(tmp_path, "message", channel="b").hits} == {"b"}
    since, until = known_id(3), format_time(START_US + 2000)
    assert [NUMBER[hit.message.id] for hit in search(tmp_path, "message", since=since, until=until).hits] == [5, 4, 3]
    assert search(tmp_path, "message", msg_type="score").hits == ()


def test_search_goes_through_more_than_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq_server.searching._FIRST_ROWS", 7)
    production(tmp_path, narrator=[said(number, text=f"word{number % 20} all") for number in range(100)])
    assert [NUMBER[hit.message.id] for hit in search(tmp_path, "word3").hits] == [83, 63, 43, 23, 3]
    hits = search(tmp_path, "all", limit=60)
    assert len(hits.hits) == 60 and hits.next == known_id(40)


def test_a_search_during_which_a_file_is_rewritten_finds_what_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mq_server.searching._FIRST_ROWS", 3)
    production(tmp_path, narrator=[said(number, text=f"old {number}") for number in range(12)])

    async def work(room: Mailroom) -> None:
        real_matching, looks = room._matching, 0

        def matching(*arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            if looks == 2:
                production(tmp_path, narrator=[said(number, text=f"new {number}") for number in range(2, 9)])
            return real_matching(*arguments)

        monkeypatch.setattr(room, "_matching", matching)
        hits = await room.search("new")
        assert [NUMBER[hit.message.id] for hit in hits.hits] == list(range(8, 1, -1))
        assert all(hit.snippet == f"new {NUMBER[hit.message.id]}" for hit in hits.hits)

    ask(tmp_path, work)


WORDS = st.sampled_from(
    ["gull", "Gull", "SEA wall", "Straße", "K", "\u212a", "a/b", 'say "so"', "köbi", "x\\\\y", "ssa"]
)
FOUND = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.lists(WORDS, max_size=3)), max_size=40)


@given(FOUND, WORDS, st.integers(1, 9), st.integers(1, 3000), st.integers(1, 7))
@examples(60)
def test_a_search_finds_what_looking_at_every_message_finds(
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[tuple[int, str, list[str]]],
    query: str,
    rows: int,
    block_bytes: int,
    limit: int,
) -> None:
    root = tmp_path_factory.mktemp("room")
    boxes: dict[str, list[bytes]] = {}
    for number, (moment, channel, words) in enumerate(messages):
        time = format_time(START_US + moment * 1000)
        boxes.setdefault(channel, []).append(
            line(0, id=known_id(number), timestamp=time, channel=channel, sender="ab"[number % 2], text=" ".join(words))
        )
    production(root, **boxes)

    async def work(room: Mailroom) -> None:
        wanted = Query.parse(query)
        all_messages = (await room.activity(limit=1000)).messages[::-1]
        for sender in (None, "a"):
            expected = [each.id for each in all_messages if wanted.matches(each) and sender in (None, each.sender)]
            found: list[str] = []
            until = None
            while True:
                hits = await room.search(query, sender=sender, limit=limit, until=until)
                found += [hit.message.id for hit in hits.hits]
                until = hits.next
                if until is None:
                    break
            assert found == expected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "_FIRST_ROWS", rows)
        patch.setattr(searching, "_BLOCK_BYTES", block_bytes)
        patch.setattr(searching, "_GAP_BYTES", block_bytes // 3)
        ask(root, work)


# --- the directory ---------------------------------------------------------------------------------------------------


def test_the_directory_lists_the_roster_first_and_what_waits(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b'[channels]\nwriter = "The human"\nnarrator = { group = "craft" }\n')
    production(tmp_path, narrator=[said(0), said(1, sender="writer")], zebra=[said(2, sender="writer")])

    async def work(room: Mailroom) -> None:
        await room.acknowledge("narrator", ["narrator:1"])
        answer = await room.directory("writer")
        assert [state.channel for state in answer.channels] == ["writer", "narrator", "zebra"]
        writer, narrator, _ = answer.channels
        assert (writer.description, writer.messages, writer.last) == ("The human", 0, None)
        assert (narrator.group, narrator.messages, narrator.unread) == ("craft", 2, 1)
        assert narrator.last and NUMBER[narrator.last.id] == 1
        assert numbers(answer.last_posts) == [1, 2]
        with pytest.raises(InvalidRequest, match="reader 'A B'"):
            await room.directory("A B")

    ask(tmp_path, work)


# --- merges ----------------------------------------------------------------------------------------------------------


def test_two_branches_that_posted_and_acknowledged_answer_alike_whichever_was_merged_first(tmp_path: Path) -> None:
    def working(*posts: tuple[str, int], ack: tuple[str, int]) -> Callable[[Path], None]:
        def work(folder: Path) -> None:
            async def inside(room: Mailroom) -> None:
                for channel, answered in posts:
                    await room.post(
                        channel,
                        sender="a",
                        msg_type="note",
                        payload={"text": f"to {answered}"},
                        reply_to=known_id(answered),
                    )
                await room.acknowledge(ack[0], [known_id(ack[1])])

            ask(folder, inside)

        return work

    def base(folder: Path) -> None:
        production(folder, a=[said(0), said(1)], b=[said(2, reply_to=0), said(3)])

    branches = [
        working(("a", 0), ("b", 2), ("c", 3), ack=("a", 0)),
        working(("b", 0), ("a", 1), ("a", 2), ack=("a", 1)),
        working(("b", 3), ("d", 3), ack=("b", 2)),
    ]
    forth, back = merged_both_ways(tmp_path, branches, base)

    async def answers(room: Mailroom) -> list[Any]:
        threads = [await room.thread(known_id(number)) for number in range(4)]
        everything = await room.activity(limit=1000)
        unread = {
            channel: {message.id for message in (await room.read(channel)).messages} for channel in ("a", "b", "c", "d")
        }
        problems = [str(problem) for problem in (await room.check()).problems]
        ids = [[message.id for message in thread.messages] for thread in threads]
        return [ids, [thread.depths for thread in threads], [m.id for m in everything.messages], unread, problems]

    expected, other = ask(forth, answers), ask(back, answers)
    assert expected == other
    assert len(expected[2]) == 12 and expected[4] == []
    assert known_id(0) not in expected[3]["a"] and known_id(2) not in expected[3]["b"]


def test_a_running_room_reflects_what_git_does(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")

    async def work(room: Mailroom) -> None:
        async def post(text: str) -> None:
            await room.post("narrator", sender="a", msg_type="note", payload={"text": text})

        async def stands() -> list[str]:
            return [message.payload["text"] for message in (await room.history("narrator")).messages]

        await post("one")
        commit(tmp_path)
        git(tmp_path, "checkout", "-q", "-b", "other")
        await post("two")
        commit(tmp_path)
        git(tmp_path, "checkout", "-q", "main")
        assert await stands() == ["one"]
        await post("three")
        commit(tmp_path)
        git(tmp_path, "merge", "-q", "other", "-m", "merge")
        assert sorted(await stands()) == ["one", "three", "two"]
        await post("four")
        git(tmp_path, "stash", "-q")
        assert sorted(await stands()) == ["one", "three", "two"]
        git(tmp_path, "stash", "pop", "-q")
        assert sorted(await stands()) == ["four", "one", "three", "two"]
        git(tmp_path, "checkout", "-q", "HEAD~1", "--", "narrator.jsonl")
        assert sorted(await stands()) == ["one", "three"]
        problems = (await room.check()).problems
        assert len(problems) == 1 and "has vanished" in problems[0].message, "the one that was in no commit"

    ask(tmp_path, work)


def test_a_conflict_is_reported_by_its_lines_and_both_sides_are_read(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path / ".gitattributes", b"*.jsonl text eol=lf\n")
    production(tmp_path, narrator=[said(0)])
    commit(tmp_path)
    git(tmp_path, "checkout", "-q", "-b", "other")
    production(tmp_path, narrator=[said(0), said(1)])
    commit(tmp_path)
    git(tmp_path, "checkout", "-q", "main")
    production(tmp_path, narrator=[said(0), said(2)])
    commit(tmp_path)
    git(tmp_path, "merge", "-q", "other", check=False)
    page = history(tmp_path)
    assert sorted(numbers(page.messages)) == [0, 1, 2]
    assert [problem.line for problem in page.problems] == [2, 4, 6]
    assert all("git conflict marker" in problem.message for problem in page.problems)

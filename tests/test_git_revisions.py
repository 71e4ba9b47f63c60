"""The past: what a production said at a revision, read from git's objects."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.git.past import PastIsFixed, Snapshot, Tree
from mq_server.mailroom import Mailroom
from mq_server.message import encode_line
from mq_server.names import format_time
from mq_server.repository import GitError, Repository
from tests.repositories import FOLDER, answer, commit, git, mq, post, production
from tests.support import START_US, examples, fields, known_id, line, run, write

pytestmark = pytest.mark.usefixtures("plain_git")
CHANNELS = ("dialogist", "narrator", "scene_director", "writer")
ROSTER = '[channels]\nnarrator = "Writes the prose"\n'


def receipt(number: int, *ids: str, channel: str = "narrator", op: str = "ack") -> bytes:
    time_us = START_US + number * 1000
    return encode_line(
        {"id": known_id(number), "timestamp": format_time(time_us), "channel": channel, "reader": channel}
        | {"consumer": channel, "op": op, "ids": list(ids)}
    )


def fill(root: Path) -> None:
    """A production with everything in it that a reader has to cope with."""
    question = line(1, id=known_id(1), msg_type="query", sender="writer", scene="q2-s3", text="Rain or snow?")
    reply = line(2, id=known_id(2), reply_to=known_id(1), sender="narrator", scene="q2-s3", text="Rain, Köbi.")
    amended = line(3, id=known_id(3), replaces=known_id(2), sender="narrator", scene="q2-s3", text="Snow, after all.")
    both = {"id": known_id(4), "to": ["dialogist", "narrator"], "sender": "scene_director"}
    version = fields(5, id=known_id(5), msg_type="scene", scene="q2-s3", payload={"version": 1, "blocks": []})
    score = fields(6, id=known_id(6), msg_type="score", scene="q2-s3", payload={"of": known_id(5), "score": 0.9})
    write(root / "narrator.jsonl", question, line(4, channel="narrator", **both), b"<<<<<<< ours\n", question)
    write(root / "writer.jsonl", b"\xef\xbb\xbf", reply.replace(b"\n", b"\r\n"), b"\r\n", amended.rstrip(b"\n"))
    write(root / "dialogist.jsonl", line(4, channel="dialogist", **both), encode_line(version), encode_line(score))
    write(root / "Not A Name.jsonl", line(7))
    older = line(0, id=known_id(0), sender="writer", scene="q2-s2", text="Long ago it rained.")
    write(root / "archive" / "2026-10" / "narrator.jsonl", older, b"torn {")
    for name in ("dialogist.jsonl", "last year/narrator.jsonl", "2026-10/deeper/narrator.jsonl"):
        write(root / "archive" / name, older)
    write(root / "elsewhere" / "narrator.jsonl", older)
    write(root / "receipts" / "narrator.jsonl", receipt(8, known_id(1)), b"torn {")
    write(root / "mq.toml", ROSTER.encode())
    write(root / "schemas" / "prop_list.json", b'{"type": "object"}')


def checkout(root: Path, revision: str, into: Path) -> Path:
    """The production on a real checkout of a revision."""
    git(root, "worktree", "add", "--quiet", "--detach", str(into), revision)
    return into / FOLDER


async def answers(room: Mailroom | Snapshot) -> list[Any]:
    """Everything that can be asked, as JSON."""
    shown: list[Any] = [(await room.directory()).as_json(), (await room.directory("writer")).as_json()]
    messages = (await room.activity(limit=1000)).messages
    asked: list[Any] = [
        *(room.history(channel) for channel in CHANNELS),
        *(room.thread(message.id) for message in messages),
        *(room.status(message.ref) for message in messages),
        *(room.channel_status(channel) for channel in CHANNELS[:2]),
        room.activity(),
        room.activity(since=messages[0].id, channel="narrator", sender="writer"),
        room.search("rain"),
        room.search('"after all"', scene="q2-s3"),
        room.scenes(),
        room.message("narrator:1"),
    ]
    return shown + [(await each).as_json() for each in asked]


def both(root: Path, revision: str, into: Path) -> tuple[list[Any], list[Any]]:
    """The answers at a revision, and those of the mailroom on a checkout of it."""

    async def compare() -> tuple[list[Any], list[Any]]:
        async with Snapshot.at(root, revision) as past, Mailroom(checkout(root, revision, into)) as room:
            return await answers(past), await answers(room)

    return run(compare())


def test_the_answers_are_those_of_the_mailroom_on_a_checkout(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    fill(root)
    first = commit(root, "first")
    write(root / "narrator.jsonl", line(9, id=known_id(9), text="all anew"))
    (root / "mq.toml").unlink()
    shutil.rmtree(root / "receipts")
    commit(root, "second")
    write(root / "narrator.jsonl", b"nobody has committed this\n")
    for revision in (first, "main"):
        past, real = both(root, revision, tmp_path / revision)
        assert past == real
    assert "Rain or snow?" in json.dumps(both(root, "HEAD~1", tmp_path / "again")[0])


def test_the_past_leaves_nothing_behind(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    fill(root)
    commit(root)
    mq(root, "show", "--at", "HEAD")
    mq(root, "channels", "--at", "HEAD")
    assert not (root / ".mq").exists()
    assert not git(root, "status", "--porcelain")


@examples(15)
@given(st.lists(st.sampled_from([*b"\n\r{}\xef\xbb\xbf x", 0]), max_size=40), st.integers(0, 3))
def test_whatever_bytes_a_file_has_are_read_as_from_a_file(
    tmp_path_factory: pytest.TempPathFactory, noise: list[int], at: int
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    root = production(folder / "r")
    lines = [line(number, id=known_id(number)) for number in range(3)]
    lines.insert(at, bytes(noise))
    write(root / "narrator.jsonl", *lines)
    write(root / ".gitattributes", b"* -text\n")
    commit(root)

    async def histories() -> list[Any]:
        async with Snapshot.at(root, "HEAD") as past, Mailroom(root) as room:
            return [(await each.history("narrator")).as_json() for each in (past, room)]

    past, real = run(histories())
    assert past == real


COMMANDS: list[tuple[str, ...]] = [
    ("thread", "narrator:1"),
    ("activity",),
    ("show",),
    ("show", "narrator"),
    ("show", "narrator:1"),
    ("show", "--scene", "q2-s3"),
    ("search", "rain"),
    ("history", "narrator"),
    ("scenes",),
    ("channels",),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_show_a_revision_as_they_show_a_checkout(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    root = production(tmp_path / "r")
    fill(root)
    commit(root)
    git(root, "tag", "opening")
    real = checkout(root, "opening", tmp_path / "checkout")
    write(root / "narrator.jsonl", b"")
    for more in ((), ("--json",)):
        assert mq(root, *arguments, "--at", "opening", *more).stdout == mq(real, *arguments, *more).stdout


def test_a_place_is_that_of_the_revision(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    write(root / "narrator.jsonl", line(1, text="first"), line(2, text="second"))
    commit(root)
    write(root / "narrator.jsonl", line(3, text="put in front"), line(1, text="first"))
    assert "second" in mq(root, "thread", "narrator:2", "--at", "HEAD").stdout
    assert "second" not in mq(root, "thread", "narrator:2").stdout


def test_the_folder_may_be_gone_and_the_repository_bare(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    fill(root)
    commit(root)
    shown = mq(root, "activity", "--at", "main").stdout
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "r"), "bare.git")
    shutil.rmtree(tmp_path / "r" / "season 1")
    assert mq(root, "activity", "--at", "main").stdout == shown
    assert mq(tmp_path / "bare.git" / FOLDER, "activity", "--at", "main").stdout == shown


def test_a_production_may_be_the_whole_repository(tmp_path: Path) -> None:
    root = production(tmp_path / "r", ".")
    write(root / "narrator.jsonl", line(1, text="first"))
    commit(root)
    assert "first" in mq(root, "show", "--at", "HEAD").stdout


def test_a_folder_that_was_not_there_yet_is_empty_and_it_says_so(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    commit(root, "before")
    post(root, "narrator")
    shown = mq(root, "activity", "--at", "HEAD")
    assert not shown.stdout
    assert "there is nothing in" in shown.stderr


@pytest.mark.parametrize("name", ["nope", "--help", "", "HEAD:season 1", "HEAD~9"])
def test_a_revision_that_is_none_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    root = production(tmp_path / "r")
    post(root, "narrator")
    commit(root)
    shown = mq(root, "show", f"--at={name}", code=3)
    assert f"There is no revision {name!r}" in shown.stderr


def test_without_a_repository_git_says_so(tmp_path: Path) -> None:
    post(tmp_path / "mailboxes", "narrator")
    assert "not a git repository" in mq(tmp_path / "mailboxes", "show", "--at", "HEAD", code=3).stderr


def test_the_settings_of_the_revision_hold(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    post(root, "narrator")
    write(root / "mq.toml", ROSTER.encode())
    commit(root)
    write(root / "mq.toml", b"not toml")
    assert answer(root, "channels", "--at", "HEAD")["channels"][0]["description"] == "Writes the prose"
    commit(root)
    assert "not valid TOML" in mq(root, "channels", "--at", "HEAD", code=3).stderr


def test_what_is_committed_does_not_go_on(tmp_path: Path) -> None:
    assert "exclude each other" in mq(tmp_path, "show", "--at", "HEAD", "--follow", code=2).stderr


def test_the_past_cannot_be_written_to(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    fill(root)
    commit(root)

    async def attempts() -> None:
        async with Snapshot.at(root, "HEAD") as past:
            for writing in ("post", "ask", "read", "wait", "claim", "settle", "acknowledge", "follow", "changes"):
                assert not hasattr(past, writing), writing
            refused: list[Callable[[], object]] = [
                past._store.prepare,
                past._store.mailbox("narrator").tail,
                lambda: past._store.submit(None),  # type: ignore[arg-type]
            ]
            for attempt in refused:
                with pytest.raises(PastIsFixed, match="cannot be changed"):
                    attempt()
            await asyncio.sleep(0)

    run(attempts())


def test_a_lost_object_is_told(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    post(root, "narrator")
    commit(root)
    found = Tree(Repository.around(root), "HEAD").files["narrator.jsonl"].id
    (tmp_path / "r" / ".git" / "objects" / found[:2] / found[2:]).unlink()
    with pytest.raises(GitError, match=f"lost an object: {found}"):
        Snapshot.at(root, "HEAD")

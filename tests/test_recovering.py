"""What git and editors overwrite: noticed, put back or reported; and `mq git`, beside which nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mq_server import recovering
from mq_server.errors import LockTimeout, UnknownReference
from mq_server.mailroom import Mailroom
from mq_server.message import parse_fields
from mq_server.store import Store
from tests.support import ask, commit, git, python, run, said, tell
from tests.test_cli import answer, mq, process

Work = Callable[[Mailroom], Awaitable[Any]]


async def post(room: Mailroom, text: str) -> str:
    """Post a note; its id."""
    return (await room.post("narrator", sender="a", msg_type="note", payload={"text": text})).id


def texts(root: Path) -> list[str]:
    """What stands in the mailbox, in file order."""
    lines = (root / "narrator.jsonl").read_bytes().splitlines()
    return [parse_fields(line)["payload"]["text"] for line in lines]


def repository(root: Path) -> Path:
    """A production that is a repository, with one committed message."""
    ask(root, lambda room: post(room, "one"))
    git(root, "init", "-q")
    git(root, "config", "user.name", "Tester")
    git(root, "config", "user.email", "tester@example.org")
    commit(root)
    return root


@contextmanager
def stale_save(root: Path) -> Iterator[None]:
    """An editor that read the mailbox before, and saves what it has after."""
    before = (root / "narrator.jsonl").read_bytes()
    yield
    (root / "narrator.jsonl").write_bytes(before)


async def until(fact: Callable[[], bool]) -> None:
    """Wait until something is true."""
    while not fact():
        await asyncio.sleep(0.01)


# --- an editor's stale save -----------------------------------------------------------------------------------------


def test_what_nobody_had_is_appended_again_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(room: Mailroom) -> None:
        await post(room, "one")
        async with room.changes():
            with stale_save(tmp_path):
                lost = await post(room, "two")
            await until(lambda: texts(tmp_path) == ["one", "two"])
            assert [message.id for message in (await room.history("narrator")).messages][-1] == lost
            assert (await room.check()).problems == ()

    with caplog.at_level(logging.WARNING, "mq_server"):
        ask(tmp_path, work)
    assert "had vanished (note from a" in caplog.text


def test_what_a_reader_had_is_a_problem_until_it_is_decided(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        await post(room, "one")
        with stale_save(tmp_path):
            lost = await post(room, "two")
            await room.read("narrator")
        async with room.changes():
            await until(lambda: bool(room._shelf.vanished))
            page = await room.history("narrator")
            assert [lost in problem.message for problem in page.problems] == [True]
            assert texts(tmp_path) == ["one"]
            found = await room.vanished()
            assert [(each.file, each.id, each.delivered) for each in found] == [("narrator.jsonl", lost, True)]
            with pytest.raises(UnknownReference, match="mq recover"):
                await room.restore(["ZZZZ"])
            assert [each.id for each in await room.restore([lost[-6:].lower()])] == [lost]
            assert texts(tmp_path) == ["one", "two"]
            assert not (await room.history("narrator")).problems

    ask(tmp_path, work)


def test_what_is_accepted_is_not_reported_again(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        await post(room, "one")
        with stale_save(tmp_path):
            await post(room, "two")
            await post(room, "three")
            await room.read("narrator")
        assert len(await room.vanished()) == 2
        assert len(await room.accept()) == 2
        assert await room.vanished() == []
        assert texts(tmp_path) == ["one"]

    ask(tmp_path, work)


def test_a_line_that_was_edited_has_not_vanished(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        await post(room, "one")
        mailbox = tmp_path / "narrator.jsonl"
        mailbox.write_bytes(mailbox.read_bytes().replace(b'"one"', b'"One."'))
        assert await room.vanished() == []

    ask(tmp_path, work)


def test_receipts_that_vanished_are_put_back(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        await post(room, "one")
        await room.read("narrator", ack=True)
        async with room.changes():
            receipts = tmp_path / "receipts" / "narrator.jsonl"
            receipts.write_bytes(b"")
            await until(lambda: receipts.stat().st_size > 0)
            assert not (await room.read("narrator")).messages

    ask(tmp_path, work)


def test_a_room_that_starts_later_notices_too(tmp_path: Path) -> None:
    ask(tmp_path, lambda room: post(room, "one"))
    with stale_save(tmp_path):
        ask(tmp_path, lambda room: post(room, "two"))

    async def watch(room: Mailroom) -> None:
        async with room.changes():
            await until(lambda: texts(tmp_path) == ["one", "two"])

    ask(tmp_path, watch)


def test_two_rooms_put_it_back_once(tmp_path: Path) -> None:
    async def work(room: Mailroom) -> None:
        await post(room, "one")
        async with Mailroom(tmp_path) as other, room.changes(), other.changes():
            await room.history("narrator")
            await other.history("narrator")
            with stale_save(tmp_path):
                await post(room, "two")
            await until(lambda: len(texts(tmp_path)) > 1)
            await until(lambda: not room._replaced and not other._replaced)
            for each in (room, other):
                if each._rescuing is not None:
                    await each._rescuing
            assert texts(tmp_path) == ["one", "two"]

    ask(tmp_path, work)


# --- git -------------------------------------------------------------------------------------------------------------


def test_a_post_that_plain_git_overwrote_is_put_back(tmp_path: Path) -> None:
    repository(tmp_path)

    async def work(room: Mailroom) -> None:
        async with room.changes():
            await post(room, "two")
            git(tmp_path, "checkout", "-q", "--", "narrator.jsonl")
            await until(lambda: texts(tmp_path) == ["one", "two"])

    ask(tmp_path, work)


MOVES: dict[str, list[list[str]]] = {
    "checkout": [["commit", "-qam", "two"], ["checkout", "-q", "HEAD~1"]],
    "branch": [["checkout", "-qb", "other"], ["commit", "-qam", "two"], ["checkout", "-q", "main"]],
    "reset": [["commit", "-qam", "two"], ["reset", "-q", "--hard", "HEAD~1"]],
    "stash": [["stash", "-q"]],
    "revert": [["commit", "-qam", "two"], ["revert", "--no-edit", "HEAD"]],
    "staged": [["add", "-A"], ["show", "HEAD:narrator.jsonl"]],
    "amend": [["commit", "-qam", "two"], ["reset", "-q", "--hard", "HEAD~1"], ["commit", "-q", "--amend", "-mx"]],
}


@pytest.mark.parametrize("move", MOVES)
def test_what_git_still_has_is_no_alarm(tmp_path: Path, move: str) -> None:
    repository(tmp_path)

    async def work(room: Mailroom) -> None:
        await post(room, "two")
        for command in MOVES[move]:
            shown = git(tmp_path, *command)
        if move == "staged":
            (tmp_path / "narrator.jsonl").write_text(shown, encoding="utf-8")
        assert texts(tmp_path) == ["one"]
        assert await room.vanished() == []
        assert (await room.check()).problems == ()

    ask(tmp_path, work)


def test_a_rebase_and_a_popped_stash_are_no_alarm(tmp_path: Path) -> None:
    repository(tmp_path)

    async def work(room: Mailroom) -> None:
        git(tmp_path, "checkout", "-qb", "other")
        await post(room, "two")
        commit(tmp_path)
        git(tmp_path, "checkout", "-q", "main")
        await post(room, "three")
        commit(tmp_path)
        await post(room, "four")
        git(tmp_path, "stash", "-q")
        git(tmp_path, "rebase", "-q", "other")
        git(tmp_path, "stash", "pop", "-q")
        assert sorted(texts(tmp_path)) == ["four", "one", "three", "two"]
        assert await room.vanished() == []

    ask(tmp_path, work)


def test_a_reply_to_a_lost_message_is_not_taken_for_it(tmp_path: Path) -> None:
    repository(tmp_path)

    async def work(room: Mailroom) -> None:
        lost = await post(room, "two")
        await room.read("narrator")
        reply = {"sender": "b", "msg_type": "note", "payload": {"text": "three"}}
        await room.post("narrator", reply_to=lost, **reply)
        mailbox = tmp_path / "narrator.jsonl"
        lines = mailbox.read_bytes().splitlines(keepends=True)
        mailbox.write_bytes(lines[0] + lines[2])
        commit(tmp_path)
        assert [each.id for each in await room.vanished()] == [lost]

    ask(tmp_path, work)


def test_the_journal_forgets_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path)
    monkeypatch.setattr(recovering, "_TRIM_BYTES", 1000)

    async def work(room: Mailroom) -> None:
        for number in range(5):
            await post(room, f"old {number}")
        commit(tmp_path)
        journal = room._store.journal("narrator")
        while any(b'"old' in line for line in journal.lines().values()):
            last = await post(room, "new")
            await asyncio.sleep(0.001)
        assert last in journal.lines()

    ask(tmp_path, work)


def test_people_are_told_what_vanished_and_decide(tmp_path: Path) -> None:
    ask(tmp_path, lambda room: post(room, "one"))
    assert "nothing has vanished" in mq(tmp_path, "recover").stderr
    with stale_save(tmp_path):
        lost = ask(tmp_path, lambda room: post(room, "two"))
    told = mq(tmp_path, "recover")
    assert lost in told.stdout and "(never read)" in told.stdout and "--restore" in told.stderr
    assert "has vanished from here" in mq(tmp_path, "check", code=1).stdout
    assert answer(tmp_path, "recover", "--restore", lost)["restored"][0]["id"] == lost
    assert texts(tmp_path) == ["one", "two"]
    mq(tmp_path, "recover", "--restore", "--accept", code=2)
    mq(tmp_path, "recover", lost, code=2)


# --- mq git ----------------------------------------------------------------------------------------------------------


def test_git_is_run_with_the_mailboxes_held(tmp_path: Path) -> None:
    repository(tmp_path)
    hook = tmp_path / ".git" / "hooks" / "pre-commit"
    posting = f"{sys.executable} -m mq_server --root . post narrator --sender b --type note --text late"
    hook.write_text(f"#!/bin/sh\n{posting} > post.txt 2>&1\necho $? >> post.txt\n", encoding="utf-8")
    hook.chmod(0o755)
    (tmp_path / "mq.toml").write_text("lock_timeout_s = 0.3\n", encoding="utf-8")
    ended = process("--root", tmp_path, "git", "commit", "-q", "--allow-empty", "-m", "held", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    said_by_post = (tmp_path / "post.txt").read_text(encoding="utf-8")
    assert "another process has held this lock" in said_by_post and said_by_post.endswith("3\n")
    assert mq(tmp_path, "git", "log", "-1", "--format=%s").exit_code == 0
    assert process("--root", tmp_path, "git", "no-such-command", cwd=tmp_path).returncode == 1


def test_a_mailbox_that_is_made_meanwhile_waits_too(tmp_path: Path) -> None:
    repository(tmp_path)
    store = Store(tmp_path)
    with store.held_still(1.0) as names:
        assert names == ["narrator"]

        async def work(room: Mailroom) -> None:
            with pytest.raises(LockTimeout):
                await room.post("dialogist", sender="a", msg_type="note", payload={"text": "x"})

        (tmp_path / "mq.toml").write_text("lock_timeout_s = 0.1\n", encoding="utf-8")
        ask(tmp_path, work)
    assert not (tmp_path / "dialogist.jsonl").exists()
    run(store.close())


WRITER = """
import asyncio, sys
from mq_server.mailroom import Mailroom

async def main():
    root, name = sys.argv[1:]
    async with Mailroom(root) as room:
        print("ready", flush=True)
        stop = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        number = 0
        while not stop.done():
            posted = await room.post("narrator", sender=name, msg_type="note", payload={"text": f"{name} {number}"})
            print(posted.id, flush=True)
            number += 1
            await asyncio.sleep(float(PAUSE))

asyncio.run(main())
"""


class Printed:
    """What a process prints, read while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._texts: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._texts += [text.rstrip("\n") for text in self._process.stdout]

    def all(self) -> list[str]:
        """Everything, once it has ended."""
        self._reading.join()
        assert self._process.wait() == 0
        return self._texts


def play(root: Path, rounds: int, pause_s: float, step: Callable[[int], None]) -> list[str]:
    """Two processes post while `step` does something with git, so many times; the ids that were answered."""
    script = WRITER.replace("PAUSE", str(pause_s))
    with ExitStack() as stack:
        writers = [stack.enter_context(python(script, root, name)) for name in ("a", "b")]
        assert [said(writer) for writer in writers] == ["ready", "ready"]
        printed = [Printed(writer) for writer in writers]
        for number in range(rounds):
            step(number)
        for writer in writers:
            tell(writer)
        return [text for each in printed for text in each.all()]


def test_beside_mq_git_writers_at_full_speed_lose_nothing(tmp_path: Path, soak_s: float) -> None:
    repository(tmp_path)
    rounds = 4 if not soak_s else int(soak_s)

    def held(*arguments: str) -> None:
        ended = process("--root", tmp_path, "git", *arguments, cwd=tmp_path)
        assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr)

    def step(number: int) -> None:
        held("commit", "-q", "--allow-empty", "-am", f"main {number}")
        held("checkout", "-q", "--merge", "-b", f"other{number}", "HEAD~1")
        held("commit", "-q", "--allow-empty", "-am", f"other {number}")
        held("checkout", "-q", "--merge", "main")
        held("merge", "-q", "--autostash", "-m", "merge", f"other{number}")

    answered = play(tmp_path, rounds, 0.0, step)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "end")
    stored = [parse_fields(line)["id"] for line in git(tmp_path, "show", "HEAD:narrator.jsonl").encode().splitlines()]
    assert len(stored) == len(set(stored))
    assert set(answered) <= set(stored) and len(answered) > rounds
    ask(tmp_path, lambda room: _no_problems(room))


async def _no_problems(room: Mailroom) -> None:
    assert (await room.check()).problems == ()


def test_beside_plain_git_a_watching_room_puts_back_what_git_overwrote(tmp_path: Path) -> None:
    repository(tmp_path)
    git(tmp_path, "checkout", "-q", "-b", "other")
    (tmp_path / "dialogist.jsonl").write_bytes(b"")
    commit(tmp_path)
    git(tmp_path, "checkout", "-q", "main")
    answered: list[str] = []

    def step(_: int) -> None:
        git(tmp_path, "add", "-A", check=False)
        git(tmp_path, "commit", "-qm", "go on", check=False)
        git(tmp_path, "checkout", "-q", "-f", "other", check=False)
        git(tmp_path, "merge", "-q", "-m", "merge", "main", check=False)
        git(tmp_path, "checkout", "-q", "-f", "main", check=False)
        git(tmp_path, "merge", "-q", "-m", "merge", "other", check=False)

    async def work(room: Mailroom) -> None:
        async with room.changes():
            answered.extend(await asyncio.to_thread(play, tmp_path, 8, 0.02, step))
            deadline = time.monotonic() + 20
            while True:
                stored = [message.id for message in (await room.history("narrator", limit=1000)).messages]
                if set(answered) <= set(stored):
                    break
                assert time.monotonic() < deadline, set(answered) - set(stored)
                await asyncio.sleep(0.05)
            assert len(stored) == len(set(stored))

    ask(tmp_path, work)


def test_what_was_archived_before_its_first_commit_is_no_alarm(tmp_path: Path) -> None:
    repository(tmp_path)

    async def work(room: Mailroom) -> None:
        for number in range(120):
            await post(room, f"{number}")
        await room.read("narrator", ack=True, limit=1000)
        await room.archive(keep=100)
        assert len(texts(tmp_path)) == 100
        commit(tmp_path)
        git(tmp_path, "checkout", "-q", "HEAD~1")
        assert await room.vanished() == []
        git(tmp_path, "checkout", "-q", "main")
        assert len(recovering._committed(tmp_path, "narrator")) == 121

    ask(tmp_path, work)

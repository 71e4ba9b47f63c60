"""Commits of a live production: a consistent cut, its message, and what git does about it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from mq_server.git import committing
from mq_server.git.cut import cut
from mq_server.git.setup import set_up
from mq_server.repository import Repository, run_git
from mq_server.store import Store
from tests.repositories import FOLDER, answer, commit, git, mq, post, production
from tests.support import DEADLINE_S, eventually, line, python, run, said, tell, write

pytestmark = pytest.mark.usefixtures("plain_git")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A production whose first message is committed with everything else."""
    root = production(tmp_path / "r")
    post(root, "narrator", "Committed.")
    commit(root)
    return root


def blob(root: Path, name: str, revision: str = "HEAD") -> bytes:
    """A file of the production as a commit has it."""
    return run_git(["cat-file", "blob", f"{revision}:{FOLDER}/{name}"], root)


def committed(root: Path, revision: str = "HEAD") -> list[str]:
    """The paths that a commit changed, as git names them."""
    shown = run_git(["diff-tree", "-z", "-r", "--root", "--no-commit-id", "--name-only", revision], root)
    return [path.removeprefix(f"{FOLDER}/") for path in shown.decode().split("\0") if path]


def status(root: Path) -> list[str]:
    """What git finds changed: two letters and the path."""
    shown = run_git(["status", "--porcelain=v1", "-z"], root).decode()
    return [entry.replace(f"{FOLDER}/", "") for entry in shown.split("\0") if entry]


def hook(root: Path, name: str, script: str) -> None:
    """A hook of the user."""
    path = root.parents[1] / ".git" / "hooks" / name
    write(path, f"#!/bin/sh\n{script}\n".encode()).chmod(0o755)


# --- what is committed ------------------------------------------------------------------------------------------------


def test_mailboxes_and_receipts_are_committed_and_nothing_else(root: Path) -> None:
    write(root / "mq.toml", b"max_unread = 9\n")
    write(root.parent / "script.txt", b"INT. WEIGH-ROOM\n")
    git(root, "add", "../script.txt")
    post(root, "narrator", "Rain.")
    mq(root, "read", "narrator", "--ack")
    shown = mq(root, "commit")
    assert committed(root) == ["narrator.jsonl", "receipts/narrator.jsonl"]
    assert status(root) == ["A  season 1/script.txt", "?? mq.toml"]
    assert "neither mailboxes nor receipts: mq.toml\n" in shown.stderr
    assert blob(root, "narrator.jsonl") == (root / "narrator.jsonl").read_bytes()


def test_what_was_staged_before_is_brought_up_to_date(root: Path) -> None:
    post(root, "narrator", "Staged.")
    git(root, "add", "--all")
    post(root, "narrator", "Not staged.")
    mq(root, "commit")
    assert b"Not staged." in blob(root, "narrator.jsonl")
    assert not status(root)


def test_a_deleted_mailbox_is_a_deletion_and_an_archived_part_is_committed(root: Path) -> None:
    post(root, "dialogist", "Gone.")
    mq(root, "commit")
    (root / "dialogist.jsonl").unlink()
    lines = (root / "narrator.jsonl").read_bytes()
    write(root / "archive" / "2026-11" / "narrator.jsonl", lines)
    write(root / "narrator.jsonl", line(9, text="new"))
    mq(root, "commit")
    assert committed(root) == ["archive/2026-11/narrator.jsonl", "dialogist.jsonl", "narrator.jsonl"]
    assert not status(root)
    assert "1 message from 1 agent, 1 gone" in git(root, "log", "-1", "--format=%s")


def test_nothing_to_commit_is_said_with_the_exit_code_of_git(root: Path) -> None:
    before = git(root, "rev-parse", "HEAD")
    assert "nothing to commit" in mq(root, "commit", code=1).stderr
    assert answer(root, "commit", code=1) == {"commit": None, "problems": []}
    assert git(root, "rev-parse", "HEAD") == before


def test_the_first_commit_of_a_repository(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    assert "nothing to commit" in mq(root, "commit", code=1).stderr
    post(root, "narrator", "The very first.")
    mq(root, "commit")
    assert committed(root) == ["narrator.jsonl"]
    assert git(root, "log", "-1", "--format=%gs", "--walk-reflogs").startswith("commit (initial): 1 message")
    assert status(root) == ["?? .gitattributes", "?? .gitignore"]


def test_a_repository_with_longer_ids_and_a_detached_head(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    git(tmp_path / "r", "init", "--quiet", "--object-format=sha256")
    root = production(tmp_path / "r")
    for text in ("one", "two"):
        post(root, "narrator", text)
        post(root, text, text)
        mq(root, "commit")
        git(root, "checkout", "--quiet", "--detach")
    (root / "one.jsonl").unlink()
    assert "[detached HEAD " in mq(root, "commit").stdout
    assert committed(root) == ["one.jsonl"]


def test_attributes_and_filters_apply(root: Path) -> None:
    path = root / "narrator.jsonl"
    path.write_bytes((path.read_bytes() + line(2, text="from an editor")).replace(b"\n", b"\r\n"))
    mq(root, "commit")
    assert b"\r" not in blob(root, "narrator.jsonl")
    assert b"from an editor" in blob(root, "narrator.jsonl")
    assert not status(root)


def test_an_ignored_mailbox_stays_out(root: Path) -> None:
    write(root.parents[1] / ".git" / "info" / "exclude", b"private.jsonl\n")
    post(root, "private", "Not for git.")
    assert "nothing to commit" in mq(root, "commit", code=1).stderr
    git(root, "add", "--force", "private.jsonl")
    git(root, "commit", "--quiet", "--message", "tracked all the same")
    post(root, "private", "For git now.")
    mq(root, "commit")
    assert committed(root) == ["private.jsonl"]


def test_a_torn_last_line_is_left_out_and_told(root: Path) -> None:
    post(root, "narrator", "Whole.")
    with (root / "narrator.jsonl").open("ab") as file:
        file.write(b'{"id":"01')
    post(root, "dialogist", "Whole too.")
    shown = mq(root, "commit")
    assert "narrator.jsonl:3: left out: the last line has no end" in shown.stderr
    assert blob(root, "narrator.jsonl") == (root / "narrator.jsonl").read_bytes().removesuffix(b'{"id":"01')
    assert status(root) == [" M narrator.jsonl"]


def test_problems_are_listed_and_nothing_is_committed_but_by_force(root: Path) -> None:
    write(root / "schemas" / "note.json", b'{"required": ["mood"]}')
    write(root / "dialogist.jsonl", b"<<<<<<< HEAD\n")
    before = git(root, "rev-parse", "HEAD")
    shown = mq(root, "commit", code=1)
    assert "mq: dialogist.jsonl:1: git conflict marker" in shown.stderr
    assert "mq: narrator.jsonl:1: payload.mood: field required" in shown.stderr
    assert "nothing was committed" in shown.stderr
    assert len(answer(root, "commit", code=1)["problems"]) == 2
    assert git(root, "rev-parse", "HEAD") == before
    assert "git conflict marker" in mq(root, "commit", "--force").stderr
    assert committed(root) == ["dialogist.jsonl"]


# --- the message ------------------------------------------------------------------------------------------------------


def test_the_message_tells_the_content(root: Path) -> None:
    post(root, "continuity_service", "Rain or snow?", "--scene", "q2-s3", sender="narrator", kind="query")
    post(root, "continuity_service", "And the light?", "--scene", "q2-s4", sender="narrator", kind="query")
    post(root, "narrator", "Snow.", "--reply-to", "continuity_service:1", sender="continuity_service", kind="answer")
    mq(root, "read", "narrator", "--ack", "--limit", "1")
    mq(root, "commit")
    text = git(root, "log", "-1", "--format=%B")
    refs = [message["ref"] for message in answer(root, "history", "continuity_service")["messages"]]
    last = answer(root, "history", "narrator")["messages"][-1]["id"]
    assert text == (
        "q2-s3, q2-s4: 3 messages from 2 agents, 1 settled\n"
        "\n"
        "channel             new  from\n"
        "continuity_service    2  narrator\n"
        "narrator              1  continuity_service\n"
        "\n"
        "Opened:\n"
        f"  {refs[0]}  narrator, Rain or snow?\n"
        f"  {refs[1]}  narrator, And the light?\n"
        "\n"
        "Open questions:\n"
        f"  {refs[1]}  narrator, And the light?\n"
        "\n"
        "Settled:\n"
        "  narrator: 1 read\n"
        "\n"
        "Mq-Messages: 3\n"
        f"Mq-Last-Id: {last}\n"
        "\n"
    )


def trailers(root: Path) -> list[str]:
    """The trailers of the last commit as git finds them."""
    text = run_git(["log", "-1", "--format=%B"], root)
    return run_git(["interpret-trailers", "--parse", "--no-divider"], root, given=text).decode().splitlines()


def test_git_finds_the_trailers_under_any_message(root: Path) -> None:
    last = ""
    for number, arguments in enumerate(
        [
            (),
            ("-m", "Subject"),
            ("-m", "Subject\n\nBody.\n---\nmore\n\nSigned-off-by: T <t@example.org>"),
            ("-m", "x: y"),
        ]
    ):
        post(root, "narrator", "Key: value\n\nMq-Messages: 99", "--scene", f"s{number}")
        mq(root, "commit", *arguments)
        last = answer(root, "history", "narrator")["messages"][-1]["id"]
        assert trailers(root)[-2:] == ["Mq-Messages: 1", f"Mq-Last-Id: {last}"]
    assert git(root, "log", "-2", "--format=%s").splitlines() == ["x: y", "Subject"]
    (root / "narrator.jsonl").unlink()
    mq(root, "commit")
    assert trailers(root) == ["Mq-Messages: 0"]


def test_a_given_message_replaces_subject_and_body(root: Path) -> None:
    post(root, "narrator", "Rain.")
    mq(root, "commit", "-m", "  The rain scene — été\n\n\n\nAll of it.  ")
    assert git(root, "log", "-1", "--format=%B").startswith("  The rain scene — été\n\nAll of it.\n\nMq-Messages: 1\n")
    assert "message is empty" in mq(root, "commit", "-m", " \n", code=3).stderr


def test_a_long_or_strange_content_makes_an_orderly_message(root: Path) -> None:
    for number in range(12):
        post(root, f"agent_{number}", "# word " * 40 + "\x1b[31m", "--scene", f"scene-{number}")
    mq(root, "commit")
    lines = git(root, "log", "-1", "--format=%B").splitlines()
    assert lines[0] == "scene-0, scene-1, scene-2 and 9 more scenes: 12 messages from 1 agent"
    assert max(map(len, lines)) <= 72
    assert "  and 2 more" in lines
    assert not any(each.startswith("#") or "\x1b" in each for each in lines)


def test_json_tells_what_became_of_it(root: Path) -> None:
    post(root, "narrator", "Rain.")
    shown = answer(root, "commit")
    assert shown["commit"] == git(root, "rev-parse", "HEAD").strip()
    assert shown["branch"] == "main"
    assert shown["messages"] == 1
    assert shown["message"].startswith("1 message from 1 agent\n")
    assert shown["paused_ms"] < DEADLINE_S * 1000


# --- git's own ways ---------------------------------------------------------------------------------------------------


def test_what_is_in_progress_is_finished_first(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "draft")
    post(root, "narrator", "On the draft.")
    commit(root)
    git(root, "checkout", "--quiet", "main")
    post(root, "writer", "On main.")
    commit(root)
    git(root, "merge", "--quiet", "--no-commit", "--no-ff", "draft")
    assert "A merge is in progress" in mq(root, "commit", code=3).stderr
    git(root, "merge", "--abort")
    write(root / "x.txt", b"one")
    commit(root)
    git(root, "checkout", "--quiet", "draft")
    write(root / "x.txt", b"two")
    commit(root)
    git(root, "cherry-pick", "main", codes=(1,))
    assert "A cherry-pick is in progress" in mq(root, "commit", code=3).stderr
    git(root, "cherry-pick", "--quit")
    assert "There are files with conflicts" in mq(root, "commit", code=3).stderr


def test_without_an_identity_git_says_so_and_nothing_has_changed(root: Path) -> None:
    git(root, "config", "--unset", "user.name")
    git(root, "config", "user.useConfigOnly", "true")
    post(root, "narrator", "Rain.")
    before = git(root, "rev-parse", "HEAD")
    assert "tell me who you are" in mq(root, "commit", code=3).stderr
    assert git(root, "rev-parse", "HEAD") == before
    assert status(root) == [" M narrator.jsonl"]


def test_commits_are_signed_where_that_is_asked_for(root: Path) -> None:
    git(root, "config", "commit.gpgSign", "true")
    git(root, "config", "gpg.program", "no-such-program")
    post(root, "narrator", "Rain.")
    assert "no-such-program" in mq(root, "commit", code=3).stderr


def test_hooks_run_and_may_refuse(root: Path) -> None:
    post(root, "narrator", "Rain.")
    hook(root, "pre-commit", 'echo "$MQ_COMMIT: not on a Sunday" >&2; exit 1')
    assert "1: not on a Sunday" in mq(root, "commit", code=3).stderr
    hook(root, "pre-commit", "git diff --cached --name-only -z > ../seen")
    hook(root, "commit-msg", 'echo "Reviewed-by: nobody" >> "$1"')
    hook(root, "post-commit", "exit 1")
    mq(root, "commit")
    assert "narrator.jsonl\0" in (root.parents[2] / "seen").read_text(encoding="utf-8")
    assert trailers(root)[-1] == "Reviewed-by: nobody"


def test_the_check_that_git_setup_hooks_in_leaves_the_work_to_the_commit(root: Path) -> None:
    set_up(Repository.around(root))
    write(root / "dialogist.jsonl", b"<<<<<<< HEAD\n")
    assert "nothing was committed" in mq(root, "commit", code=1).stderr
    mq(root, "commit", "--force")
    assert committed(root) == ["dialogist.jsonl"]


def test_a_commit_that_somebody_else_makes_meanwhile_is_not_undone(root: Path) -> None:
    hook(root, "pre-commit", 'git update-ref HEAD "$(git commit-tree "HEAD^{tree}" -p HEAD -m other)"')
    post(root, "narrator", "Rain.")
    assert "if somebody else has just done so, try again" in mq(root, "commit", code=3).stderr
    assert git(root, "log", "-1", "--format=%s") == "other\n"


def test_an_index_in_use_is_told_and_the_commit_stands(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "_INDEX_PATIENCE_S", 0.0)
    lock = write(root.parents[1] / ".git" / "index.lock", b"")
    post(root, "narrator", "Rain.")
    assert "the commit stands, but git's index is behind" in mq(root, "commit").stderr
    lock.unlink()
    git(root, "reset", "--quiet")
    assert not status(root)


def test_without_a_repository_git_says_so(tmp_path: Path) -> None:
    post(tmp_path / "mailboxes", "narrator")
    assert "not a git repository" in mq(tmp_path / "mailboxes", "commit", code=3).stderr


# --- while agents post ------------------------------------------------------------------------------------------------

SLOW_FILTER = """
import pathlib, sys, time
folder, deadline = pathlib.Path(sys.argv[1]), time.monotonic() + 30
(folder / "begun").touch()
while not (folder / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.01)
sys.stdout.buffer.write(sys.stdin.buffer.read())
"""


def test_posting_goes_on_while_git_takes_its_time(root: Path, tmp_path: Path) -> None:
    script = write(tmp_path / "slow.py", SLOW_FILTER.encode())
    command = [sys.executable, script, tmp_path]
    git(root, "config", "filter.slow.clean", " ".join(f"'{Path(part).as_posix()}'" for part in command))
    write(root.parents[1] / ".git" / "info" / "attributes", b"*.jsonl filter=slow\n")
    post(root, "narrator", "Before.")
    arguments = [sys.executable, "-m", "mq_server", "--root", str(root), "commit"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as committing_process:
        eventually((tmp_path / "begun").exists)
        post(root, "narrator", "Meanwhile.")
        (tmp_path / "go").touch()
        _, words = committing_process.communicate(timeout=DEADLINE_S)
    assert committing_process.returncode == 0, words
    assert b"Before." in blob(root, "narrator.jsonl")
    assert b"Meanwhile." not in blob(root, "narrator.jsonl")
    assert status(root) == [" M narrator.jsonl"]


def test_a_file_replaced_while_it_is_read_is_cut_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mq_server.git import cut as module

    contents, read = [b"replaced\n", b"and again\n"], module._content

    def replacing(file: module._Seen) -> bytes:
        found = read(file)
        if contents:
            write(root / "narrator.jsonl", contents.pop(0))
        return found

    monkeypatch.setattr(module, "_content", replacing)
    store = Store(root)
    assert cut(store, 1.0).contents == {"narrator.jsonl": b"and again\n"}
    run(store.close())


WRITER = """
import asyncio, sys, threading
from mq_server.mailroom import Mailroom
root, me = sys.argv[1:]
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
async def main():
    async with Mailroom(root) as room:
        print("ready", flush=True)
        answered = []
        while not over.is_set():
            names = ["left", "right"] if len(answered) % 2 else [me]
            posted = await room.post(names, sender=me, msg_type="note", payload={"text": "x" * 500})
            answered.append(posted.id)
            if len(answered) % 5 == 0:
                await room.read(me, limit=5, ack=True)
    print(*answered, flush=True)
asyncio.run(main())
"""
WRITERS = ("left", "right", "third")


def messages(data: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(each) for each in data.splitlines()]


def ids(data: bytes) -> list[str]:
    return [each["id"] for each in messages(data)]


def test_writers_at_full_speed_lose_nothing_and_every_commit_is_consistent(root: Path) -> None:
    write(root / "mq.toml", b'durability = "os"\n')
    with ExitStack() as running:
        writers = [running.enter_context(python(WRITER, root, name)) for name in WRITERS]
        assert [said(writer) for writer in writers] == ["ready"] * len(WRITERS)
        eventually(lambda: all((root / f"{name}.jsonl").exists() for name in WRITERS))
        commits = [answer(root, "commit") for _ in range(4)]
        for writer in writers:
            tell(writer)
        answered = [each for writer in writers for each in said(writer).split()]
    commits.append(answer(root, "commit"))
    for made in commits:
        tree = f"{made['commit']}:{FOLDER}"
        names = run_git(["ls-tree", "-r", "-z", "--full-tree", "--name-only", tree], root).decode().split("\0")
        logs = {name: blob(root, name, made["commit"]) for name in names if name.endswith(".jsonl")}
        assert {f"{name}.jsonl" for name in WRITERS} < logs.keys()
        assert all(data.endswith(b"}\n") and ids(data) for data in logs.values())
        left, right = ({each["id"] for each in messages(logs[f"{name}.jsonl"]) if "to" in each} for name in WRITERS[:2])
        assert left == right
    last = [ids(blob(root, f"{name}.jsonl")) for name in WRITERS]
    assert all(len(found) == len(set(found)) for found in last)
    assert set(answered) == set().union(*last)
    assert sum(made["messages"] for made in commits) == len(set(answered))
    assert status(root) == ["?? mq.toml"]

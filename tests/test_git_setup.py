"""Telling git of mailboxes: what is set, what is left alone, and that it can all be taken back."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mq_server.git.setup import set_up, undo
from mq_server.repository import Repository
from tests.repositories import FOLDER, answer, commit, git, mq, post, production, repository
from tests.support import write

pytestmark = pytest.mark.usefixtures("plain_git")
posix_only = pytest.mark.skipif(os.name == "nt", reason="programs that are scripts, and names Windows does not allow")


def state(top: Path) -> dict[str, bytes]:
    """The files that the set-up touches, with their content."""
    files = [top / ".git" / "config", *(top / ".git" / "info").iterdir(), *(top / ".git" / "hooks").glob("pre-commit")]
    return {path.name: path.read_bytes() for path in files}


def states(steps: object) -> dict[str, str]:
    """What became of each thing, by the end of its name."""
    return {Path(step["what"]).name: step["state"] for step in steps["steps"]}  # type: ignore[index]


def attribute(root: Path, path: str, name: str = "merge") -> str:
    return git(root, "check-attr", name, "--", path).strip().rpartition(": ")[2]


def wrapped(folder: Path) -> Path:
    """A program that is this Python, in a folder of an awkward name."""
    program = write(folder / "python", b'#!/bin/sh\nexec "' + sys.executable.encode() + b'" "$@"\n')
    program.chmod(0o755)
    return program


# --- what is set ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FOLDER, ".", "a", pytest.param('x "y" [z]*\\', marks=posix_only)])
def test_the_mailboxes_receipts_and_archives_of_the_production_are_merged_by_message_and_nothing_else(
    tmp_path: Path, name: str
) -> None:
    root = production(tmp_path / "repository", name)
    mq(root, "git-setup")
    for path in ("narrator.jsonl", "receipts/narrator.jsonl", "archive/2026-09/narrator.jsonl"):
        assert attribute(root, path) == "mailbox"
    assert attribute(root, "mq.toml") == "unspecified"
    if name != ".":
        assert attribute(root.parent, "narrator.jsonl") == "unspecified"
        assert attribute(root.parent, "other/narrator.jsonl") == "unspecified"


def test_it_outranks_the_union_that_is_tracked_and_receipts_stay_out_of_diffs(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    mq(root, "init")
    assert attribute(root, "narrator.jsonl") == "union"
    mq(root, "git-setup")
    assert attribute(root, "narrator.jsonl") == "mailbox"
    assert attribute(root, "narrator.jsonl", "diff") == "mailbox"
    assert attribute(root, "receipts/narrator.jsonl", "diff") == "unset"


def test_it_says_what_it_did_and_the_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    said = mq(root, "git-setup").stdout
    assert "set      .git/hooks/pre-commit  a commit of mailboxes with problems is refused\n" in said
    before = state(tmp_path / "repository")
    assert set(states(answer(root, "git-setup")).values()) == {"kept"}
    assert state(tmp_path / "repository") == before


def test_outside_a_repository_it_says_so(tmp_path: Path) -> None:
    assert "not a git repository" in mq(tmp_path, "git-setup", code=3).stderr


def test_init_mentions_it_within_a_repository(tmp_path: Path) -> None:
    assert "git-setup" in mq(production(tmp_path / "repository"), "init").stdout
    assert "git-setup" not in mq(tmp_path / "elsewhere", "init").stdout


def test_a_work_tree_beside_the_first_shares_it(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    mq(root, "init")
    commit(root)
    git(root, "worktree", "add", "--quiet", "-b", "beside", str(tmp_path / "beside"))
    beside = tmp_path / "beside" / FOLDER
    assert states(answer(beside, "git-setup"))["pre-commit"] == "set"
    assert attribute(root, "narrator.jsonl") == attribute(beside, "narrator.jsonl") == "mailbox"
    assert set(states(answer(root, "git-setup")).values()) == {"kept"}
    mq(beside, "git-setup", "--undo")
    assert attribute(root, "narrator.jsonl") == "union"


# --- what git runs ----------------------------------------------------------------------------------------------------


@posix_only
def test_the_program_may_lie_wherever_and_its_work_tree_hold_modules_of_any_name(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    for module in ("click", "json", "re", "mq_server"):
        write(tmp_path / "repository" / f"{module}.py", b"raise SystemExit('imported from the work tree')\n")
    interpreter = wrapped(tmp_path / 'ä b\'s "$HOME" `x` 50%A \\')
    set_up(Repository.around(root), str(interpreter))
    post(root, "narrator", "Rain.")
    commit(root)
    assert "\n+    Rain.\n" in git(root, "show")
    for name in ("ours", "theirs"):
        git(root, "checkout", "--quiet", "-b", name, "main")
        post(root, "narrator", f"By {name}.")
        git(root, "commit", "--quiet", "--no-verify", "--all", "--message", name)
    git(root, "merge", "--quiet", "--no-edit", "ours")
    texts = (root / "narrator.jsonl").read_text("utf-8")
    assert texts.index("Rain.") < texts.index("By ours.") < texts.index("By theirs.")


def test_a_program_that_has_moved_is_set_anew(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    set_up(Repository.around(root), "/gone/python")
    renewed = [step.state for step in set_up(Repository.around(root))]
    assert renewed == ["set", "set", "kept", "set"]
    assert b"/gone" not in b"".join(state(tmp_path / "repository").values())


def test_a_commit_of_a_mailbox_with_a_problem_is_refused_and_any_other_is_not(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    mq(root, "git-setup")
    write(root / "narrator.jsonl", b'{"torn\n')
    git(root, "add", "--all")
    refused = subprocess.run(["git", "commit", "-m", "x"], cwd=root, capture_output=True, encoding="utf-8", check=False)
    assert refused.returncode != 0
    assert f"{FOLDER}/narrator.jsonl:1: torn line" in refused.stdout + refused.stderr
    assert "git commit --no-verify" in refused.stderr
    git(root, "reset", "--quiet")
    write(tmp_path / "repository" / "script.txt", b"INT. WEIGH-ROOM\n")
    git(tmp_path / "repository", "add", "script.txt")
    git(root, "commit", "--quiet", "--message", "elsewhere")


@posix_only
def test_a_commit_goes_through_when_the_program_is_gone(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    set_up(Repository.around(root), "/gone/python")
    write(root / "narrator.jsonl", b'{"torn\n')
    commit(root)


# --- what is left alone -----------------------------------------------------------------------------------------------


def test_a_hook_that_is_there_is_left_alone_and_one_is_told_what_to_add(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    hook = write(tmp_path / "repository" / ".git" / "hooks" / "pre-commit", b"#!/bin/sh\nexit 0\n")
    done = mq(root, "git-setup")
    assert "left     .git/hooks/pre-commit" in done.stdout
    assert f"-m mq_server --root './{FOLDER}' check || exit 1" in done.stderr
    assert hook.read_bytes() == b"#!/bin/sh\nexit 0\n"
    line = done.stderr.split("add to it: ")[1].splitlines()[0]
    write(hook, f"#!/bin/sh\n{line}\n".encode())
    hook.chmod(0o755)
    assert states(answer(root, "git-setup"))["pre-commit"] == "kept"
    write(root / "narrator.jsonl", b'{"torn\n')
    git(root, "add", "--all")
    git(root, "commit", "--message", "x", codes=(1,))
    mq(root, "git-setup", "--undo")
    assert line in hook.read_text("utf-8")


def test_hooks_stand_where_the_repository_says(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    git(root, "config", "core.hooksPath", ".hooks")
    mq(root, "git-setup")
    hook = tmp_path / "repository" / ".hooks" / "pre-commit"
    assert hook.is_file()
    assert os.name == "nt" or hook.stat().st_mode & stat.S_IXUSR
    mq(root, "git-setup", "--undo")
    assert not hook.exists()


def test_a_folder_of_hooks_for_all_repositories_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = tmp_path / "hooks"
    settings = write(tmp_path / "settings", f"[core]\n\thooksPath = {hooks.as_posix()}\n".encode())
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    done = mq(production(tmp_path / "repository"), "git-setup")
    assert "core.hooksPath names a folder of other repositories too" in done.stderr
    assert not hooks.exists()


def test_settings_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    root = production(tmp_path / "repository")
    git(root, "config", "diff.mailbox.textconv", "mine")
    done = mq(root, "git-setup")
    assert "left     diff.mailbox" in done.stdout
    assert "set      merge.mailbox" in done.stdout
    mq(root, "git-setup", "--undo")
    assert git(root, "config", "diff.mailbox.textconv").strip() == "mine"


# --- taking it back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", [False, True])
def test_undo_takes_away_what_was_added_and_nothing_else(tmp_path: Path, foreign: bool) -> None:
    root, top = production(tmp_path / "repository"), tmp_path / "repository"
    if foreign:
        git(root, "config", "diff.other.textconv", "cat")
        write(top / ".git" / "info" / "attributes", b"*.png diff=other\n")
        write(top / ".git" / "hooks" / "pre-commit", b"#!/bin/sh\nexit 0\n")
    before = state(top)
    mq(root, "git-setup")
    assert state(top) != before
    assert "removed  merge.mailbox\n" in mq(root, "git-setup", "--undo").stdout
    assert state(top) == before
    assert "nothing to undo" in mq(root, "git-setup", "--undo").stderr
    assert state(top) == before


def test_lines_that_somebody_put_around_ours_stay(tmp_path: Path) -> None:
    root, top = production(tmp_path / "repository"), tmp_path / "repository"
    mq(root, "git-setup")
    hook, attributes = top / ".git" / "hooks" / "pre-commit", top / ".git" / "info" / "attributes"
    for path in (hook, attributes):
        write(path, path.read_bytes() + b"# mine\n")
    set_up(Repository.around(root), "/elsewhere/python")
    assert hook.read_bytes().endswith(b"# mine\n")
    assert os.name == "nt" or hook.stat().st_mode & stat.S_IXUSR
    mq(root, "git-setup", "--undo")
    assert hook.read_bytes() == b"#!/bin/sh\n# mine\n"
    assert attributes.read_bytes() == b"# mine\n"


def test_productions_of_one_repository_share_the_settings(tmp_path: Path) -> None:
    top = repository(tmp_path / "repository")
    first, second = top / "a", top / "b's"
    for root in (first, second):
        root.mkdir()
        mq(root, "git-setup")
    hook = (top / ".git" / "hooks" / "pre-commit").read_text("utf-8")
    assert hook.count("\ncheck ") == 2
    undo(Repository.around(first))
    assert attribute(first, "narrator.jsonl") == "unspecified"
    assert attribute(second, "narrator.jsonl") == "mailbox"
    assert git(top, "config", "merge.mailbox.driver")
    write(second / "narrator.jsonl", b'{"torn\n')
    git(top, "add", "--all")
    git(top, "commit", "--message", "x", codes=(1,))
    undo(Repository.around(second))
    assert git(top, "config", "merge.mailbox.driver", codes=(1,)) == ""
    assert not (top / ".git" / "hooks" / "pre-commit").exists()

"""The repository around a production, and git run in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mq_server.repository import GitError, Repository, run_git


def repository(folder: Path) -> Path:
    """A new repository."""
    folder.mkdir(parents=True, exist_ok=True)
    run_git(["init", "--quiet", "--initial-branch=main"], folder)
    return folder


def test_a_production_may_be_the_whole_repository_or_a_folder_of_it(tmp_path: Path) -> None:
    top = repository(tmp_path / "ä b")
    (top / "season 1" / "mailboxes").mkdir(parents=True)
    assert Repository.around(top).path("narrator.jsonl") == "narrator.jsonl"
    inner = Repository.around(top / "season 1" / "mailboxes")
    assert inner.path("receipts/narrator.jsonl") == "season 1/mailboxes/receipts/narrator.jsonl"
    assert inner.top == top.resolve()


def test_what_git_says_is_what_the_error_says(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="not a git repository"):
        Repository.around(tmp_path)
    with pytest.raises(GitError, match="There is no folder"):
        Repository.around(tmp_path / "nowhere")
    found = Repository.around(repository(tmp_path / "r"))
    with pytest.raises(GitError, match="no revision 'main'"):
        found.commit_of("main")
    with pytest.raises(GitError, match="no revision '--help'"):
        found.commit_of("--help")


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="git is not installed"):
        Repository.around(tmp_path)

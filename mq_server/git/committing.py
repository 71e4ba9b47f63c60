"""Committing a live production: what its mailboxes and receipts held at one moment, and nothing else.

What is posted meanwhile is of the next commit, and what else is staged stays staged. What is checked is what gets
committed, and not what is in the folder by then; so a pre-commit hook finds MQ_COMMIT set in its environment, and one
that runs `mq check` may leave that out.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mq_server import config
from mq_server.appendlog import GONE_S
from mq_server.checking import Checking
from mq_server.errors import MailError, Problem
from mq_server.git.comparison import Comparison, log_name
from mq_server.git.cut import Cut, cut
from mq_server.git.draft import Draft, blob_id, said
from mq_server.git.past import Snapshot, Tree
from mq_server.git.ranges import HEAD, compare_trees
from mq_server.git.wording import body, subject, trailers
from mq_server.index import Filter
from mq_server.message import Message
from mq_server.repository import GitError, Repository
from mq_server.schemas import Schemas
from mq_server.store import Store

_LOCK_TIMEOUT_S = 60.0
_INDEX_PATIENCE_S = 5.0
_PAUSE_S = 0.05
_QUESTION = "query"
_UNFINISHED = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}


class NothingToCommit(MailError):
    """Mailboxes and receipts are as the last commit has them."""

    def __init__(self) -> None:
        super().__init__("nothing to commit: mailboxes and receipts are as in the last commit")


class CheckFailed(MailError):
    """What would be committed has problems."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("nothing was committed, since the files have problems; mend them, or commit with --force")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What became of it.

    `torn` are last lines left out, `problems` those that were committed with `force`, `uncommitted` the production's
    other files that differ from the commit, `paused_s` how long posting had to wait at most. `unstaged` has git's words
    if the commit stands but the index could not be brought up to date.
    """

    commit: str
    branch: str | None
    message: str
    comparison: Comparison
    torn: tuple[Problem, ...]
    problems: tuple[Problem, ...]
    uncommitted: tuple[str, ...]
    paused_s: float
    unstaged: str = ""

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]

    def as_json(self) -> dict[str, Any]:
        """The shape of the answer."""
        return {
            "commit": self.commit,
            "branch": self.branch,
            "message": self.message,
            **self.comparison.stat_json(),
            "left_out": [str(problem) for problem in self.torn],
            "problems": [str(problem) for problem in self.problems],
            "uncommitted": list(self.uncommitted),
            "paused_ms": round(self.paused_s * 1000, 1),
        }


def commit(root: Path, *, message: str | None = None, force: bool = False) -> Committed:
    """Commit a production's mailboxes and receipts as they are at one moment. Not for a running event loop.

    Args:
        root: Its folder.
        message: Subject and body, in the place of what is written from the content; the trailers are added.
        force: Commit problems too.

    Raises:
        NothingToCommit: Nothing has changed.
        CheckFailed: What would be committed has problems.
        GitError: Something else is in progress, a hook refused, or git did; nothing was committed.
    """
    if message is not None and not message.strip():
        raise GitError("The message is empty; leave -m away to have one written")
    repository = Repository.around(root)
    _refuse_if_unfinished(repository)
    head = repository.git("rev-parse", "--verify", "--quiet", HEAD, codes=(0, 1)).decode("ascii").strip() or None
    before = Tree(repository, head)
    taken = _cut(root, before)
    with tempfile.TemporaryDirectory(prefix="mq-commit-") as folder:
        draft = Draft(before, Path(folder))
        draft.stage(taken.contents)
        tree = draft.tree()
        if tree == draft.tree_before:
            raise NothingToCommit
        after = Tree(repository, tree)
        problems, questions, newest = asyncio.run(_read(after, root))
        if problems and not force:
            raise CheckFailed(problems)
        comparison = compare_trees(before, after)
        text = _message(repository, message, comparison, questions, newest)
        made, text = draft.commit(text)
        unstaged = _update_index(repository, draft.entries())
    return Committed(
        commit=made,
        branch=repository.git("symbolic-ref", "--quiet", "--short", HEAD, codes=(0, 1)).decode().strip() or None,
        message=text,
        comparison=comparison,
        torn=taken.torn,
        problems=problems,
        uncommitted=tuple(_uncommitted(repository)),
        paused_s=taken.paused_s,
        unstaged=unstaged,
    )


def _cut(root: Path, before: Tree) -> Cut:
    store = Store(root)
    filled = [name for name, blob in before.files.items() if log_name(name) and blob.id != blob_id(b"", len(blob.id))]
    try:
        taken = cut(store, _LOCK_TIMEOUT_S)
        if not all(map(taken.contents.get, filled)):
            # A file that is gone or empty may be about to be written anew: by git, or by an editor that saves it.
            time.sleep(GONE_S)
            taken = cut(store, _LOCK_TIMEOUT_S)
        return taken
    finally:
        asyncio.run(store.close())


class _Checked(Snapshot, Checking):
    """What is about to be committed, with the settings and schemas that hold now."""

    async def look(self) -> tuple[tuple[Problem, ...], list[Message], str]:
        """Its problems, the questions that nobody has answered, and the newest message's id."""
        problems = (await self.check()).problems

        def unanswered() -> list[Message]:
            index = self._index
            asked = index.timeline(Filter(msg_type=_QUESTION))
            return self._shelf.load(
                [each for each in asked if not index.is_answered(index.channels[each.channel].identity(each.row))]
            )

        questions = await self._shelf.consistent(None, unanswered)
        newest = (await self.activity(limit=1)).messages
        return problems, questions, newest[-1].id if newest else ""


async def _read(tree: Tree, root: Path) -> tuple[tuple[Problem, ...], list[Message], str]:
    async with _Checked(tree, config=config.load(root), schemas=Schemas(root)) as checked:
        return await checked.look()


def _refuse_if_unfinished(repository: Repository) -> None:
    asked = [argument for name in _UNFINISHED for argument in ("--git-path", name)]
    paths = said(repository, "rev-parse", *asked).splitlines()
    for path, what in zip(paths, _UNFINISHED.values(), strict=True):
        if (repository.top / path).exists():
            raise GitError(f"{what.capitalize()} is in progress: finish it or give it up with git, then commit again")
    if repository.git("ls-files", "--unmerged"):
        raise GitError("There are files with conflicts: resolve them and `git add` them, then commit again")


def _message(
    repository: Repository, given: str | None, comparison: Comparison, questions: list[Message], newest: str
) -> str:
    added = trailers(comparison, newest)
    if given is None:
        last = "\n".join(f"{key}: {value}" for key, value in added)
        return "\n\n".join(part for part in (subject(comparison), body(comparison, questions), last) if part) + "\n"
    # Git knows where trailers go that the text may already have.
    options = [option for key, value in added for option in ("--trailer", f"{key}: {value}")]
    text = repository.git("stripspace", given=given.encode("utf-8", "surrogateescape"))
    text = repository.git("interpret-trailers", "--no-divider", "--if-exists=replace", *options, given=text)
    return text.decode("utf-8", "replace")


def _update_index(repository: Repository, entries: bytes) -> str:
    """Let the index have what was committed, so that `git status` tells the truth; what went wrong, if anything."""
    deadline = time.monotonic() + _INDEX_PATIENCE_S
    while True:
        try:
            repository.git("update-index", "-z", "--index-info", given=entries)
            repository.git("update-index", "-q", "--refresh", codes=(0, 1))
        except GitError as error:  # another git command may just be using it
            if time.monotonic() > deadline:
                return str(error)
            time.sleep(_PAUSE_S)
        else:
            return ""


def _uncommitted(repository: Repository) -> Iterator[str]:
    """The production's files other than mailboxes and receipts that the last commit does not have as they are."""
    prefix = repository.path(".")
    options = ["--porcelain=v1", "-z", "--no-renames", "--untracked-files=all"]
    try:
        found = said(repository, "--literal-pathspecs", "status", *options, "--", prefix)
    except GitError:  # git crashes where a file is cut short under its hands; the commit stands, and this is a remark
        return
    for entry in found.split("\0"):
        if entry:
            name = str(PurePosixPath(entry[3:]).relative_to(repository.prefix))
            if not log_name(name):
                yield name

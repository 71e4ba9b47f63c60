"""A commit in the making: mailboxes and receipts beside the index, with git's own steps kept.

Attributes and filters apply, hooks run, commit.gpgSign is heeded, and HEAD moves only if it is where it was. What else
is staged in the real index is neither committed nor touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from mq_server.git.comparison import log_name
from mq_server.git.past import Blob, Tree
from mq_server.git.ranges import HEAD
from mq_server.git.setup import COMMITTING
from mq_server.repository import GitError, Repository

_NEW_FILE_MODE = "100644"
_SHA1_DIGITS = 40


class Draft:
    """A commit in the making, in an index of its own.

    Args:
        before: The production in the commit that it comes after.
        folder: For the index and the message while they are made.
    """

    def __init__(self, before: Tree, folder: Path) -> None:
        self.before = before
        repository, head = before.repository, before.id
        find = ["rev-parse", f"{head}^{{tree}}"] if head else ["hash-object", "-t", "tree", "--stdin"]
        self.tree_before = said(repository, *find)
        self._repository = repository
        self._head = head
        self._folder = folder
        self._settings = {"GIT_INDEX_FILE": str(folder / "index"), "GIT_EDITOR": ":", COMMITTING: "1"}
        self._blobs: dict[str, Blob | None] = {}

    def stage(self, contents: Mapping[str, bytes]) -> None:
        """Put these mailboxes and receipts in; those that HEAD has and that are no longer there go."""
        before, repository = self.before, self._repository
        new = {repository.path(name): name for name in contents if name not in before.files}
        asked = "".join(f"{path}\0" for path in new).encode("utf-8")
        ignored = repository.git("check-ignore", "-z", "--stdin", given=asked, codes=(0, 1)) if new else b""
        left_out = {new[path] for path in ignored.decode("utf-8").split("\0") if path}
        for name, content in contents.items():
            if name not in left_out:
                known = before.files.get(name)
                self._blobs[name] = Blob(known.mode if known else _NEW_FILE_MODE, self._stored(name, content))
        for name in before.files:
            if log_name(name) and name not in contents:
                self._blobs[name] = None
        repository.git("read-tree", self._head or "--empty", settings=self._settings)
        repository.git("update-index", "-z", "--index-info", given=self.entries(), settings=self._settings)

    def entries(self) -> bytes:
        """What was put in and taken out, as `git update-index --index-info` takes it."""
        none = Blob("0", "0" * len(self._head or ""))
        entries = ((name, blob or none) for name, blob in self._blobs.items())
        return b"".join(
            f"{blob.mode} {blob.id}\t{self._repository.path(name)}\0".encode("utf-8", "surrogateescape")
            for name, blob in entries
        )

    def tree(self) -> str:
        """The id of the whole tree."""
        return said(self._repository, "write-tree", settings=self._settings)

    def commit(self, text: str) -> tuple[str, str]:
        """Make the commit and move HEAD to it; its id, and its message as the hooks have left it.

        Raises:
            GitError: A hook refused, git did, or HEAD has moved meanwhile.
        """
        repository = self._repository
        path = self._folder / "COMMIT_EDITMSG"
        path.write_text(text, encoding="utf-8", newline="\n")
        self._hook("pre-commit")
        self._hook("prepare-commit-msg", str(path), "message")
        self._hook("commit-msg", str(path))
        options = ["-p", self._head] if self._head else []
        if said(repository, "config", "--type=bool", "--default=false", "commit.gpgSign") == "true":
            options.append("-S")
        # The tree is written again: a hook may have changed what is staged, as it may for `git commit`.
        arguments = ["commit-tree", self.tree(), *options, "-F", str(path)]
        made = said(repository, "-c", "i18n.commitEncoding=utf-8", *arguments)
        text = path.read_text(encoding="utf-8", errors="replace")
        reason = f"commit{'' if self._head else ' (initial)'}: {text.partition(chr(10))[0]}"
        try:
            repository.git("update-ref", "-m", reason, HEAD, made, self._head or "0" * len(made))
        except GitError as error:
            raise GitError(f"{error}. Nothing was committed; if somebody else has just done so, try again") from error
        # The commit is made: what goes wrong from here on does not change that.
        with suppress(GitError):
            self._hook("post-commit")
        with suppress(GitError):
            repository.git("maintenance", "run", "--auto", "--quiet")
        return made, text

    def _stored(self, name: str, content: bytes) -> str:
        """The id of a content in git, put there if it is not what HEAD has."""
        known = self.before.files.get(name)
        if known and blob_id(content, len(known.id)) == known.id:
            return known.id
        path = self._repository.path(name)
        return said(self._repository, "hash-object", "-w", "--stdin", "--path", path, given=content)

    def _hook(self, name: str, *arguments: str) -> None:
        path = self._repository.top / said(self._repository, "rev-parse", "--git-path", f"hooks/{name}")
        if path.is_file():
            self._repository.git("hook", "run", "--ignore-missing", name, "--", *arguments, settings=self._settings)


def blob_id(content: bytes, digits: int) -> str:
    """The id that git gives a content.

    Args:
        content: The bytes.
        digits: How many hexadecimal digits an id of the repository has: SHA-1's 40, or SHA-256's 64.
    """
    algorithm = "sha1" if digits == _SHA1_DIGITS else "sha256"
    return hashlib.new(algorithm, b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def said(
    repository: Repository,
    *arguments: str,
    given: bytes | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What git says, as text without the last line end.

    Raises:
        GitError: It failed.
    """
    answer = repository.git(*arguments, given=given, settings=settings)
    return answer.decode("utf-8", "surrogateescape").removesuffix("\n")

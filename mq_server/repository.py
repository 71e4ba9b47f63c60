"""The git repository that a production lies in, and how git is run in it.

Git is run as a program, never through a shell, with its messages in English and without asking for anything.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from mq_server.errors import MailError

_CLOCK_S = 3600
"""How far a committer's clock may be behind the one that stamped a message."""


class GitError(MailError):
    """Git is missing, there is no repository, or a git command failed; the text has git's own words."""


class Repository:
    """The work tree around a production.

    Args:
        top: The work tree's uppermost folder.
        root: The production's folder, within it.
    """

    def __init__(self, top: Path, root: Path) -> None:
        self.top = top
        self.root = root
        self.prefix = PurePosixPath(root.relative_to(top).as_posix())
        """Where the production lies in the repository; `.` if it is the uppermost folder."""

    @classmethod
    def around(cls, root: Path) -> Repository:
        """The repository that a folder lies in.

        Args:
            root: The production's folder.

        Raises:
            GitError: There is none, or no git.
        """
        root = root.resolve()
        top = run_git(["rev-parse", "--show-toplevel"], root).decode("utf-8").rstrip("\n")
        return cls(Path(top).resolve(), root)

    @classmethod
    def holding(cls, root: Path) -> Repository:
        """The repository that a folder lies in or lay in, for whoever only reads what is committed.

        Args:
            root: The production's folder. It need not be there now, and the repository may be a bare one.

        Raises:
            GitError: There is none, or no git.
        """
        root = root.resolve()
        there = next(folder for folder in (root, *root.parents) if folder.is_dir())
        bare = run_git(["rev-parse", "--is-bare-repository"], there).strip() == b"true"
        found = run_git(["rev-parse", "--absolute-git-dir" if bare else "--show-toplevel"], there)
        return cls(Path(found.decode("utf-8").rstrip("\n")).resolve(), root)

    def path(self, name: str) -> str:
        """The path of one of the production's files as git names it, from the uppermost folder.

        Args:
            name: Relative to the production, with forward slashes: `narrator.jsonl`.
        """
        return (self.prefix / name).as_posix()

    def git(
        self,
        *arguments: str,
        given: bytes | None = None,
        codes: Sequence[int] = (0,),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> bytes:
        """Run a git command in the uppermost folder.

        Args:
            arguments: As one types them after `git`.
            given: What it reads on stdin; nothing if left out.
            codes: The exit codes that are no failure.
            settings: Environment variables, such as GIT_INDEX_FILE.

        Returns:
            What it wrote to stdout.

        Raises:
            GitError: It failed.
        """
        return run_git(arguments, self.top, given=given, codes=codes, settings=settings)

    def remembers(self, name: str, ids: Iterable[str], since_us: int) -> set[str]:
        """Which lines git still has in any version of a file: committed on any branch, staged, stashed or in a reflog.

        Versions of its archived parts count as well.

        Args:
            name: The file, relative to the production.
            ids: The ids that the lines begin with.
            since_us: When the oldest of them was written, in microseconds since 1970: older commits cannot have it.

        Raises:
            GitError: Git failed.
        """
        paths = [self.path(name), f":(glob){self.path(f'archive/*/{name}')}"]
        missing = set(ids)
        since = f"--since=@{since_us // 1_000_000 - _CLOCK_S}"
        staged = self.git("ls-files", "--stage", "-z", "--", *paths)
        # -m: a stash is a merge, whose own content shows in the differences to its parents only.
        history = ["log", "--all", "--reflog", "-m", since, "--format=", "--raw", "--no-abbrev", "--no-renames"]
        changes = self.git(*history, "--", *paths, codes=(0, 128))
        versions = [entry.split(b" ", 2)[1] for entry in staged.split(b"\0") if entry]
        for change in changes.splitlines():
            if change.startswith(b":"):
                _, _, before, after, _ = change.split(b" ", 4)
                versions += [after, before]
        for version in dict.fromkeys(versions):
            if not missing:
                break
            if version.strip(b"0"):
                data = self.git("cat-file", "blob", version.decode("ascii"))
                missing = {each for each in missing if _begins_a_line(each, data) < 0}
        return set(ids) - missing

    def committed(self, name: str) -> bytes:
        """What the present commit has of a file and of its archived parts.

        Args:
            name: The file, relative to the production.

        Raises:
            GitError: Git failed, or there is no commit.
        """
        listed = self.git("ls-tree", "-r", "-z", "HEAD", "--", self.path(name), self.path("archive"))
        entries = [entry.split(b"\t", 1) for entry in listed.split(b"\0") if entry]
        ends = (f"/{name}".encode(), self.path(name).encode())
        blobs = [head.split()[2].decode("ascii") for head, path in entries if path.endswith(ends)]
        return b"".join(self.git("cat-file", "blob", blob) for blob in blobs)

    def commit_of(self, revision: str) -> str:
        """The full id of the commit that a revision names.

        Raises:
            GitError: It names none.
        """
        arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
        found = run_git(arguments, self.top, codes=(0, 1, 128)).decode("ascii").strip()
        if not found:
            raise GitError(f"There is no revision {revision!r}. Name a commit, a branch or a tag; `git log` lists them")
        return found


def git_program() -> str:
    """Where git is.

    Raises:
        GitError: It is not there.
    """
    from shutil import which

    program = which("git")
    if program is None:
        raise GitError("git is not installed, or not on the PATH")
    return program


def _begins_a_line(message_id: str, data: bytes) -> int:
    """Where a line of that id is; below 0 if nowhere. A reply to it, or a copy of it, is not it."""
    return max(data.find(f'{{"id":{space}"{message_id}"'.encode()) for space in ("", " "))


def run_git(
    arguments: Sequence[str],
    folder: Path,
    *,
    given: bytes | None = None,
    codes: Sequence[int] = (0,),
    settings: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Run git in a folder; what it wrote to stdout.

    Args:
        arguments: As one types them after `git`.
        folder: Where.
        given: What it reads on stdin; nothing if left out.
        codes: The exit codes that are no failure.
        settings: Environment variables, such as GIT_INDEX_FILE.

    Raises:
        GitError: It failed, or there is no git.
    """
    program = git_program()
    environment = os.environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **settings}
    try:
        finished = subprocess.run(
            [program, *arguments],
            cwd=folder,
            env=environment,
            input=b"" if given is None else given,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise GitError(f"There is no folder {folder}") from error
    if finished.returncode not in codes:
        words = finished.stderr.decode("utf-8", "replace").strip() or f"exit code {finished.returncode}"
        raise GitError(f"git {arguments[0]}: {words}")
    return finished.stdout

"""A production as it stands in a commit, read straight from git's objects: no checkout, and no way to change it.

A `Tree` is the folder in a commit; a `Snapshot` answers from it what the mailroom on a checkout of that commit would
answer, with the same index. The commit's own mq.toml and schemas hold. What is momentary, such as leases and who waits,
belongs to no commit: nobody waits there, and nothing is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

from mq_server import config as config_module
from mq_server import schemas as schemas_module
from mq_server.appendlog import AppendLog
from mq_server.blocks import Block
from mq_server.board import SceneBoard
from mq_server.config import Config
from mq_server.errors import MailError, Problem
from mq_server.logfile import Change, Look, Tail, View
from mq_server.queries import Queries
from mq_server.repository import GitError, Repository
from mq_server.schemas import Schema, Schemas
from mq_server.stamp import Fingerprint
from mq_server.store import ARCHIVE, RECEIPTS, RUNTIME, SUFFIX, Store
from mq_server.writer import Append, Stored

_FILE_MODES = ("100644", "100755")


class PastIsFixed(MailError):
    """Somebody tried to write to what is committed."""

    def __init__(self) -> None:
        super().__init__("What is committed cannot be changed; leave --at away to work with the files as they are")


class Blob(NamedTuple):
    """A file as git has it: its mode, and the id of its content."""

    mode: str
    id: str


class Tree:
    """A production's folder in a commit.

    Args:
        repository: Where the production lies.
        treeish: A commit or a tree, by its full id; none for one that holds nothing.

    Raises:
        GitError: There is no such thing.
    """

    def __init__(self, repository: Repository, treeish: str | None) -> None:
        self.repository = repository
        self.id = treeish
        self.files: dict[str, Blob] = {}
        """By their names relative to the production, with forward slashes."""
        prefix = "" if repository.prefix == PurePosixPath(".") else str(repository.prefix)
        found = b""
        if treeish is not None:
            folder = repository.git("rev-parse", "--verify", "--quiet", f"{treeish}:{prefix}", codes=(0, 1))
            found = repository.git("ls-tree", "-r", "-z", "--full-tree", folder.decode().strip()) if folder else b""
        for entry in found.split(b"\0"):
            about, _, name = entry.partition(b"\t")
            mode, _, identity = about.decode("ascii").partition(" blob ")
            if mode in _FILE_MODES:
                self.files[name.decode("utf-8", "surrogateescape")] = Blob(mode, identity)

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of files; those that are not there are left out.

        Args:
            names: Relative to the production.

        Raises:
            GitError: An object is missing.
        """
        wanted = {name: self.files[name].id for name in names if name in self.files}
        contents = read_objects(self.repository, wanted.values())
        return {name: contents[identity] for name, identity in wanted.items()}


def read_objects(repository: Repository, ids: Iterable[str]) -> dict[str, bytes]:
    """The content of objects by their ids, in one call of `git cat-file --batch`.

    Raises:
        GitError: One is missing.
    """
    wanted = list(dict.fromkeys(ids))
    answer = repository.git("cat-file", "--batch", given="".join(f"{each}\n" for each in wanted).encode("ascii"))
    contents: dict[str, bytes] = {}
    at = 0
    for each in wanted:
        end = answer.index(b"\n", at)
        size = answer[at:end].rpartition(b" ")[2]
        if not size.isdigit():
            raise GitError(f"The repository has lost an object: {answer[at:end].decode('utf-8', 'replace')}")
        contents[each] = answer[end + 1 : end + 1 + int(size)]
        at = end + 1 + int(size) + 1
    return contents


class Snapshot(Queries, SceneBoard):
    """A production at a commit: whatever can be looked up, and nothing that writes, reads as a reader, or waits.

    Args:
        tree: The folder in the commit.
        config: Other settings than the commit's own.
        schemas: Other schemas than the commit's own.

    Raises:
        GitError: An object is missing.
        ConfigError: The mq.toml there cannot be used.
    """

    def __init__(self, tree: Tree, *, config: Config | None = None, schemas: Schemas | None = None) -> None:
        root = tree.repository.root
        contents = tree.read(filter(_is_read, tree.files))
        if config is None:
            config = config_module.parsed(root / config_module.FILE_NAME, contents.get(config_module.FILE_NAME, b""))
        self.is_empty = not tree.files
        """Whether there was no such folder then."""
        store = _Files(root, contents)
        super().__init__(root, store=store, config=config, schemas=schemas or _Schemas(root, contents))

    @classmethod
    def at(cls, root: Path, revision: str) -> Self:
        """The production in a folder as it stood at a revision.

        Args:
            root: The folder. It need not be there now.
            revision: A commit, a branch, a tag, or what else git takes for one.

        Raises:
            GitError: There is no repository, or no such revision.
            ConfigError: The mq.toml there cannot be used.
        """
        repository = Repository.holding(root)
        return cls(Tree(repository, repository.commit_of(revision)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._shelf.close(), self._store.close())


def _is_read(name: str) -> bool:
    """Whether the mailroom reads a file of this name, relative to the production."""
    *folders, file_name = name.split("/")
    suffixes = {"": SUFFIX, RECEIPTS: SUFFIX, ARCHIVE: SUFFIX, schemas_module.FOLDER: ".json"}
    folder = folders[0] if folders else ""
    within = len(folders) < (3 if folder == ARCHIVE else 2)
    return name == config_module.FILE_NAME or (within and file_name.endswith(suffixes.get(folder, "/")))


class _Files(Store):
    """The files of a commit, in the place of those of a folder."""

    def __init__(self, root: Path, contents: Mapping[str, bytes]) -> None:
        # Leases and who waits are looked for in a folder that never exists.
        super().__init__(root / RUNTIME / "committed")
        self._contents = contents
        names: dict[str, set[str]] = {}
        for path in contents:
            *folders, file_name = path.split("/")
            for depth, name in enumerate([*folders, file_name]):
                names.setdefault("/".join(folders[:depth]), set()).add(name)
        self._folders = {folder: frozenset(found) for folder, found in names.items()}

    def mailbox(self, channel: str) -> AppendLog:
        return self._file(f"{channel}{SUFFIX}")

    def receipts(self, channel: str) -> AppendLog:
        return self._file(f"{RECEIPTS}/{channel}{SUFFIX}")

    def archive(self, month: str, channel: str) -> AppendLog:
        return self._file(f"{ARCHIVE}/{month}/{channel}{SUFFIX}")

    def _file(self, name: str) -> AppendLog:
        return _File(self.root / name, self._contents.get(name))

    def _names_in(self, folder: str) -> frozenset[str]:
        return self._folders.get(folder, frozenset())

    def prepare(self) -> None:
        raise PastIsFixed

    def has_runtime(self) -> bool:
        return False

    def submit(self, append: Append) -> asyncio.Future[Stored]:
        raise PastIsFixed


class _File(AppendLog):
    """One file of a commit; None if the commit has none of that name."""

    def __init__(self, path: Path, content: bytes | None) -> None:
        super().__init__(path, path, path)
        self._content = content or b""
        seen = None if content is None else Fingerprint(len(content), 0, 0, 0)
        self._all = Change(self, View(seen, settled=True), True, 0, 1)

    def glance(self, view: View) -> Change | Look:
        return Look.SAME if view == self._all.view else self._all

    def is_as_seen(self, view: View) -> bool:
        return view == self._all.view

    def examine(self, view: View) -> Change:
        return self._all

    def blocks(self, change: Change) -> Iterator[Block]:
        yield Block(0, 1, self._content)

    def read_spans(self, spans: list[tuple[int, int]]) -> list[bytes]:
        return [self._content[offset : offset + length] for offset, length in spans]

    def tail(self) -> Tail:
        raise PastIsFixed


class _Schemas(Schemas):
    """The schemas of a commit."""

    def __init__(self, root: Path, contents: Mapping[str, bytes]) -> None:
        super().__init__(root)
        parts = ((name.rpartition("/"), data) for name, data in contents.items())
        self._contents = {name: data for (folder, _, name), data in parts if folder == schemas_module.FOLDER}
        self._known: dict[str, Schema | list[Problem]] = {}

    def _files(self) -> list[Path]:
        return sorted(Path(name) for name in self._contents if name.endswith(".json") and name[0] != ".")

    def _load(self, msg_type: str) -> Schema | list[Problem] | None:
        name = f"{msg_type}.json"
        if msg_type not in self._known and name in self._contents:
            path = f"{schemas_module.FOLDER}/{name}"
            self._known[msg_type] = schemas_module.parsed(path, self._contents[name])
        return self._known.get(msg_type)

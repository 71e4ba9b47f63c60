"""Two states of a production by the names that git takes: a revision and the files now, or two revisions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mq_server.blocks import patiently
from mq_server.git.comparison import Comparison, compare, log_name
from mq_server.git.past import Tree, read_objects
from mq_server.repository import GitError, Repository
from mq_server.store import ARCHIVE, RECEIPTS, SUFFIX

HEAD = "HEAD"
_SHORT = 7


class Side(NamedTuple):
    """One of the states: what the caller called it, and the id of the commit; none before the first."""

    name: str
    commit: str | None

    def __str__(self) -> str:
        if self.commit is None or self.commit.startswith(self.name):
            return self.name
        return f"{self.name} ({self.commit[:_SHORT]})"


class Difference(NamedTuple):
    """A comparison, and what was compared: `until` is None for the files as they are now."""

    comparison: Comparison
    since: Side
    until: Side | None = None

    @property
    def words(self) -> str:
        """`since HEAD (1a2b3c4)`, `from main (1a2b3c4) to draft (5d6e7f8)`."""
        return f"since {self.since}" if self.until is None else f"from {self.since} to {self.until}"

    @property
    def argument(self) -> str:
        """What one gives `mq diff` for it."""
        since, until = ((side.commit or side.name)[:_SHORT] if side else "" for side in (self.since, self.until))
        return f"{since}..{until}" if until else since


def difference(root: Path, text: str | None = None) -> Difference:
    """Compare two states of a production.

    Args:
        root: Its folder.
        text: `A..B` for two revisions, `A...B` for B since it left A, `A` for A and the files now; HEAD if left out,
            and where a side of the dots is.

    Raises:
        GitError: There is no repository, or no such revision.
    """
    since, dots, until = _parts(text or HEAD)
    repository = Repository.holding(root) if dots else Repository.around(root)
    if not dots:
        born = text is not None or repository.git("rev-parse", "--verify", "--quiet", HEAD, codes=(0, 1))
        commit = repository.commit_of(since) if born else None
        tree = Tree(repository, commit)
        before = tree.read(filter(log_name, tree.files))
        return Difference(compare(before, working_files(root)), Side(since, commit))
    first, last = repository.commit_of(since), repository.commit_of(until)
    if dots == "...":
        found = repository.git("merge-base", first, last, codes=(0, 1)).decode("ascii").split()
        if not found:
            raise GitError(f"{since} and {until} have no common beginning; compare them with {since}..{until}")
        first = found[0]
        since = f"where {until} left {since}"
    comparison = compare_trees(Tree(repository, first), Tree(repository, last))
    return Difference(comparison, Side(since, first), Side(until, last))


def compare_trees(before: Tree, after: Tree) -> Comparison:
    """What was said between two states that git has.

    Raises:
        GitError: An object is missing.
    """
    sides = [{name: blob.id for name, blob in tree.files.items() if log_name(name)} for tree in (before, after)]
    contents = read_objects(after.repository, [each for side in sides for each in side.values()])
    return compare(*({name: contents[identity] for name, identity in side.items()} for side in sides))


def working_files(root: Path) -> dict[str, bytes]:
    """The mailboxes and receipts of a folder as they are now, by their names relative to it."""
    found: dict[str, bytes] = {}
    for path in log_paths(root):
        try:
            found[path.relative_to(root).as_posix()] = patiently(path.read_bytes)
        except FileNotFoundError:
            continue  # gone meanwhile
    return found


def log_paths(root: Path) -> list[Path]:
    """The mailboxes, archived parts of mailboxes, and receipts of a folder."""
    patterns = (f"*{SUFFIX}", f"{RECEIPTS}/*{SUFFIX}", f"{ARCHIVE}/*/*{SUFFIX}")
    found = (path for pattern in patterns for path in root.glob(pattern))
    return sorted(path for path in found if log_name(path.relative_to(root).as_posix()) and path.is_file())


def _parts(text: str) -> tuple[str, str, str]:
    since, dots, until = text.partition("...")
    if not dots:
        since, dots, until = text.partition("..")
    return since or HEAD, dots, until or HEAD

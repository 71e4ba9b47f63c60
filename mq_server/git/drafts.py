"""Drafts: what a message was written from, as `path#L10-L20@commit`."""

from __future__ import annotations

import re
from pathlib import Path

from mq_server.errors import InvalidRequest
from mq_server.repository import Repository

_GIVEN = re.compile(r"(?P<path>.+?)(?P<lines>#L[1-9][0-9]*(?:-L[1-9][0-9]*)?)?")
_STAMPED = re.compile(r".+@[0-9a-f]{7,64}")
_COMMIT_LENGTH = 12


def stamped(draft: str) -> str:
    """A draft with the commit that the repository stands at, its path from the uppermost folder.

    Args:
        draft: A file, with or without `#L10-L20`; or one that bears its commit already, which is kept as it is.

    Raises:
        InvalidRequest: There is no such file.
        GitError: It does not lie in a repository that has a commit.
    """
    given = _GIVEN.fullmatch(draft)
    path = Path(given["path"] if given else draft)
    if not path.exists():
        if _STAMPED.fullmatch(draft):
            return draft
        raise InvalidRequest([f"draft {draft!r}: there is no file {path}"])
    repository = Repository.around(path.resolve().parent)
    lines = (given["lines"] if given else "") or ""
    return f"{repository.path(path.name)}{lines}@{repository.commit_of('HEAD')[:_COMMIT_LENGTH]}"

"""What this machine has written to one log and no commit holds yet: `.mq/journal/<name>.jsonl`, the same lines again.

Git and editors replace files: what was appended between their look at a file and their save of it is gone from it. The
journal still has it. It is written after the log, so whatever stands in it was in the log once, and it is not synced:
it guards against programs, not against power cuts. A line is taken out when a commit holds it, or when somebody says
that it may be forgotten. Whoever writes or shortens it holds the log's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from mq_server.kept import KeptFile
from mq_server.names import ID_LENGTH, is_id

LIMIT_BYTES = 64 * 1024 * 1024
_HEAD = b'{"id":"'
log = logging.getLogger(__name__)


class Journal:
    """The journal of one log.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = KeptFile(path, appends=True)
        self.size_bytes = 0
        """What this process has written to it since it last read it, and what it read; others write too."""

    def append(self, lines: bytes) -> None:
        """Add whole lines. That it fails is no reason to refuse a post."""
        try:
            self._file.write(lines)
            self.size_bytes += len(lines)
        except OSError as error:
            log.warning("%s: %s. What is posted now is not guarded against git and editors", self.path, error.strerror)

    def lines(self) -> dict[str, bytes]:
        """The lines by id, in the order in which they were written; torn ones are left out.

        Raises:
            OSError: It cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        self.size_bytes = len(data)
        found = {}
        for line in data.split(b"\n")[:-1]:
            message_id = line[len(_HEAD) : len(_HEAD) + ID_LENGTH].decode("ascii", "replace")
            if line.startswith(_HEAD) and line.endswith(b"}") and is_id(message_id):
                found[message_id] = line + b"\n"
        return found

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Take out what is not wanted, and the oldest of what is too much. The log's lock must be held.

        Args:
            wanted: Whether the line of an id is to stay.

        Raises:
            OSError: It cannot be written.
        """
        kept = [line for message_id, line in self.lines().items() if wanted(message_id)]
        size = sum(map(len, kept))
        dropped = 0
        while size > LIMIT_BYTES // 2 and self.size_bytes > LIMIT_BYTES:
            size -= len(kept[dropped])
            dropped += 1
        if dropped:
            log.warning("%s: too long; its oldest %d lines are no longer guarded. Commit them", self.path, dropped)
        new = self.path.with_suffix(".new")
        new.write_bytes(b"".join(kept[dropped:]))
        new.replace(self.path)
        self.size_bytes = size

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        self._file.close()

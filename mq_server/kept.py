"""A small file of our own that is written at every post: stamps and journals. Its handle is kept open.

Whoever deletes or replaces the file gives its name to another one or to none, which is looked at before each write;
whoever moves its folder also moves the lock that is held for writing, and the owner of that lock closes this.
"""

from __future__ import annotations

import os
from pathlib import Path

_KEEPS = os.name != "nt"
"""Windows refuses to delete or replace a file that anybody holds open."""
_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)


class KeptFile:
    """A file that is only written here, at its end or, overwriting what stands there, at its start.

    Whoever writes holds a lock for it.

    Args:
        path: The file; made, with its folder, by the first write.
        appends: Whether it is written at its end.
    """

    def __init__(self, path: Path, *, appends: bool) -> None:
        self.path = path
        self._appends = appends
        self._name = os.fspath(path)
        self._handle: int | None = None
        self._inode = 0

    def write(self, data: bytes) -> None:
        """Write some bytes.

        Raises:
            OSError: The system refused; a part of them may have been written.
        """
        handle = self._handle
        if handle is None or not self._is_current():
            self.close()
            handle = self._handle = self._opened()
            self._inode = os.fstat(handle).st_ino
        try:
            if self._appends or not _KEEPS:
                os.write(handle, data)
            else:
                os.pwrite(handle, data, 0)
        finally:
            if not _KEEPS:
                self.close()

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _is_current(self) -> bool:
        try:
            return os.stat(self._name).st_ino == self._inode  # noqa: PTH116 - every post comes here
        except FileNotFoundError:
            return False

    def _opened(self) -> int:
        flags = _FLAGS | (os.O_APPEND if self._appends else 0)
        try:
            return os.open(self.path, flags, 0o666)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, flags, 0o666)

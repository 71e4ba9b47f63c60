"""The names in a folder, listed anew only when it may have changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

_DOUBT_NS = 50_000_000  # a clock that ticks every few milliseconds gives two changes one time
_SECOND_NS = 1_000_000_000
_LISTED_FOR_S = 1.0
_NONE: frozenset[str] = frozenset()


class Listing:
    """The names in one folder.

    A folder's times tell when a name came or went, unless they are so recent that another change may bear the same
    ones, or are whole seconds, as FAT and HFS+ keep them. And some systems do not touch them at all: once a second it
    is listed whatever they say.

    Args:
        folder: The folder; it may be missing, come and go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._names = _NONE
        self._seen: tuple[int, int, int] | None = None
        self._is_missing = False
        self._listed_s = 0.0

    def names(self) -> frozenset[str]:
        """The names now: the same object as long as they are the same; none where there is no such folder.

        Raises:
            OSError: It cannot be listed.
        """
        if self._is_missing and not os.access(self._folder, os.F_OK):  # which raises nothing, and that takes its time
            return _NONE
        try:
            stat = os.stat(self._folder)  # noqa: PTH116 - asked before every answer
            seen = stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
            now_s = time.monotonic()
            if seen == self._seen and now_s - self._listed_s < _LISTED_FOR_S:
                return self._names
            now_ns = time.time_ns()
            names = frozenset(os.listdir(self._folder))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            self._seen, self._names, self._is_missing = None, _NONE, True
            return _NONE
        is_sure = now_ns - max(seen[:2]) > _DOUBT_NS and seen[0] % _SECOND_NS != 0
        if names != self._names:
            self._names = names
        self._seen, self._listed_s, self._is_missing = seen if is_sure else None, now_s, False
        return self._names

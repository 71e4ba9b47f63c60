"""Work in a thread that lets the event loop have its turns.

The interpreter changes threads at the wish of those who wait, after 5 ms by default. An event loop has to ask several
times on the way of one call, since it gives its turn up whenever it asks the system for anything: beside a thread that
is busy others would wait for 20 to 80 ms. With turns of a millisecond they wait for 5 to 10.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

_TURN_S = 0.001
P = ParamSpec("P")
T = TypeVar("T")


async def aside(work: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
    """Do what keeps the processor busy in a thread; everything else goes on meanwhile."""

    def in_short_turns() -> T:
        with _turns.short():
            return work(*arguments, **named)

    return await asyncio.to_thread(in_short_turns)


class _Turns:
    """How long a thread keeps the interpreter: short turns as long as anybody works aside, then as it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = 0
        self._usual_s = 0.0

    @contextmanager
    def short(self) -> Iterator[None]:
        """Short turns within a context."""
        with self._lock:
            if not self._working:
                self._usual_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual_s, _TURN_S))
            self._working += 1
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1
                if not self._working:
                    sys.setswitchinterval(self._usual_s)


_turns = _Turns()

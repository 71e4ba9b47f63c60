"""Work in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from mq_server.aside import aside
from tests.support import run


def test_turns_are_short_until_the_last_work_has_ended() -> None:
    usual_s = sys.getswitchinterval()
    may_end = threading.Event()

    def long_work(name: str, *, of: str) -> tuple[str, float]:
        may_end.wait()
        return f"{name} of {of}", sys.getswitchinterval()

    async def go() -> None:
        long_one = asyncio.create_task(aside(long_work, "work", of="mine"))
        assert await aside(sys.getswitchinterval) <= 0.001
        may_end.set()
        said, turn_s = await long_one
        assert said == "work of mine"
        assert turn_s <= 0.001
        assert sys.getswitchinterval() == usual_s
        with pytest.raises(ValueError, match="no number"):
            await aside(int, "no number")
        assert sys.getswitchinterval() == usual_s

    run(go())


def test_turns_that_are_shorter_already_stay() -> None:
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        assert run(aside(sys.getswitchinterval)) == pytest.approx(1e-4, rel=0.1)
    finally:
        sys.setswitchinterval(usual_s)

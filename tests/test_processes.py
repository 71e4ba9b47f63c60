"""Many processes on one folder, some of them killed: every answered post is there, whole and once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from subprocess import Popen

import pytest

from mq_server.mailroom import Mailroom
from mq_server.message import Unreadable, parse_line
from tests.support import eventually, python, run, said, tell

POSTER = """
import asyncio, sys
from mq_server.mailroom import Mailroom
root, name, callers, count, pause_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
async def main():
    async with Mailroom(root) as room:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        async def call(caller):
            for number in range(count):
                channels = ["alpha", "beta"] if number % 5 == 0 else ["alpha" if (number + caller) % 2 else "beta"]
                text = f"{name} {caller} {number} " + "x" * (number * 7919 % 9000)
                posted = await room.post(channels, sender="a", msg_type="plain", payload={"text": text})
                print(posted.id, ",".join(channels), flush=True)
                await asyncio.sleep(pause_s)
        await asyncio.gather(*(call(caller) for caller in range(callers)))
asyncio.run(main())
print("done", flush=True)
"""


def start(
    stack: ExitStack, root: Path, name: str, callers: int, count: int = 10**9, pause_s: float = 0.0
) -> Popen[str]:
    process = stack.enter_context(python(POSTER, root, name, callers, count, pause_s))
    assert said(process) == "ready"
    return process


class Answers:
    """What a process prints, read while it runs: (id, channels) of every post that was answered."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process
        self._texts: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            self._texts.append(text)

    def count(self) -> int:
        """How many lines it has printed so far."""
        return len(self._texts)

    def all(self) -> list[tuple[str, list[str]]]:
        """All of them, once the process has ended. A line cut off by its end is no answer."""
        self._thread.join()
        words = [text.split() for text in self._texts if text.endswith("\n")]
        return [
            (message_id, channels.split(",")) for message_id, channels in (pair for pair in words if len(pair) == 2)
        ]


def mailbox(root: Path, channel: str) -> tuple[Counter[str], list[int], set[int]]:
    """The ids in a file, the timestamps in its order, and the numbers of the lines that cannot be read."""
    ids: Counter[str] = Counter()
    times: list[int] = []
    unreadable = set()
    for number, text in enumerate((root / f"{channel}.jsonl").read_bytes().split(b"\n"), start=1):
        if text:
            try:
                message = parse_line(text, channel, number)
            except Unreadable:
                unreadable.add(number)
                continue
            ids[message.id] += 1
            times.append(message.time_us)
    return ids, times, unreadable


def check(root: Path, answered: list[tuple[str, list[str]]], *, in_order: bool = True) -> int:
    """Every answered id once in each of its mailboxes, in order, and no torn line unreported; how many are torn."""
    torn = 0

    async def reported() -> set[tuple[str, int]]:
        async with Mailroom(root) as room:
            return {(problem.path, problem.line) for problem in (await room.check()).problems}

    problems = run(reported())
    assert len({message_id for message_id, _ in answered}) == len(answered)
    for channel in ("alpha", "beta"):
        ids, times, unreadable = mailbox(root, channel)
        expected = {message_id for message_id, channels in answered if channel in channels}
        assert expected <= ids.keys(), f"{len(expected - ids.keys())} answered posts are missing from {channel}"
        assert max(ids.values()) == 1
        assert not in_order or all(earlier <= later for earlier, later in pairwise(times))
        assert {(f"{channel}.jsonl", number) for number in unreadable} <= problems
        torn += len(unreadable)
    return torn


def quick(root: Path) -> Path:
    """A production without syncs: that a post survives a power cut is not what these tests can show."""
    root.mkdir()
    (root / "mq.toml").write_text('durability = "os"\n')
    return root


def test_eight_processes_post_into_the_same_mailboxes(tmp_path: Path) -> None:
    root, count = quick(tmp_path / "room"), 60
    with ExitStack() as stack:
        processes = [start(stack, root, f"p{number}", 1, count) for number in range(8)]
        printed = [Answers(process) for process in processes]
        for process in processes:
            tell(process)
        answered = [answer for each in printed for answer in each.all()]
    assert len(answered) == 8 * count
    assert check(root, answered) == 0
    total = sum(len((root / f"{name}.jsonl").read_bytes().splitlines()) for name in ("alpha", "beta"))
    assert total == sum(len(channels) for _, channels in answered)


def test_two_processes_with_eight_callers_each_write_in_groups_on_disk(tmp_path: Path) -> None:
    with ExitStack() as stack:
        processes = [start(stack, tmp_path, f"p{number}", 8, 12) for number in range(2)]
        printed = [Answers(process) for process in processes]
        for process in processes:
            tell(process)
        answered = [answer for each in printed for answer in each.all()]
    assert len(answered) == 2 * 8 * 12
    assert check(tmp_path, answered) == 0


READER = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        await room.wait("alpha", timeout_s=0)
        print("ready", flush=True)
        while True:
            page = await room.wait("alpha", ack=True, limit=7, timeout_s=20)
            for message in page.messages:
                print(message.id, "alpha", flush=True)
asyncio.run(main())
"""


def test_a_reader_that_waits_gets_every_post_of_other_processes_once(tmp_path: Path) -> None:
    root = quick(tmp_path / "room")
    with ExitStack() as stack:
        reader = stack.enter_context(python(READER, root))
        assert said(reader) == "ready"
        received = Answers(reader)
        processes = [start(stack, root, f"p{number}", 2, 20, pause_s=0.005) for number in range(4)]
        printed = [Answers(process) for process in processes]
        for process in processes:
            tell(process)
        posted = [message_id for each in printed for message_id, channels in each.all() if "alpha" in channels]
        eventually(lambda: received.count() >= len(posted))
        reader.kill()
        assert Counter(message_id for message_id, _ in received.all()) == Counter(posted)


def test_deleting_the_runtime_folder_under_running_processes_costs_no_post(tmp_path: Path) -> None:
    root = quick(tmp_path / "room")
    with ExitStack() as stack:
        processes = [start(stack, root, f"p{number}", 2, 30, pause_s=0.005) for number in range(4)]
        printed = [Answers(process) for process in processes]
        for process in processes:
            tell(process)
        while any(process.poll() is None for process in processes):
            shutil.rmtree(root / ".mq", ignore_errors=True)
            time.sleep(0.2)
        answered = [answer for each in printed for answer in each.all()]
    assert len(answered) == 4 * 2 * 30
    check(root, answered, in_order=False)


@pytest.mark.soak
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_processes_killed_at_any_moment_cost_no_answered_post(tmp_path: Path, soak_s: float) -> None:
    root = quick(tmp_path / "room")
    chance = random.Random(7)
    killed = 0
    with ExitStack() as stack:
        # Short pauses, so that a process that replaces a killed one finds time to start.
        lasting = [start(stack, root, f"lasting{number}", 2, pause_s=0.004) for number in range(4)]
        victims = [start(stack, root, f"victim{number}", 2, pause_s=0.004) for number in range(4)]
        printed = [Answers(process) for process in (*lasting, *victims)]
        for process in (*lasting, *victims):
            tell(process)
        deadline = time.monotonic() + soak_s
        while time.monotonic() < deadline or killed < 4:
            time.sleep(chance.uniform(0.005, 0.1))
            number = chance.randrange(4)
            os.kill(victims[number].pid, signal.SIGKILL)
            victims[number].wait()
            killed += 1
            victims[number] = start(stack, root, f"victim{number}-{killed}", 2, pause_s=0.004)
            printed.append(Answers(victims[number]))
            tell(victims[number])
        for process in (*lasting, *victims):
            process.kill()
            process.wait()
        answered = [answer for each in printed for answer in each.all()]
    assert len(answered) > 50
    check(root, answered)

"""Many processes claim from one mailbox, some of them killed or stopped: everything is done, nothing by two at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from subprocess import Popen
from typing import Any, NamedTuple

import orjson
import pytest

from mq_server.mailroom import Mailroom
from tests.support import eventually, known_id, line, python, run, said, tell, write

LONG_S = 90.0
WORKER = """
import asyncio, json, os, random, sys, time
from mq_server.errors import MailError, NotSettled
from mq_server.mailroom import Mailroom

root, log_path, name, lease_s, work_s = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5])
chance = random.Random(name)

async def main():
    log = open(log_path, "ab", buffering=0)

    def note(what, message_id, token, **keys):
        line = {"what": what, "id": message_id, "token": token, "at": time.monotonic(), "worker": name} | keys
        log.write(json.dumps(line).encode() + b"\\n")

    async with Mailroom(root) as room:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        while True:
            try:
                limit = chance.randint(1, 3)
                page = await room.wait("narrator", lease_s=lease_s, limit=limit, consumer=name, timeout_s=5)
                answered = time.monotonic()
                held = room._store.leases("narrator").of("narrator")
                for lease in page.leases:
                    message_id, _, token = lease.name.partition("@")
                    delivery = next((each for each in held.values() if each.token == token), None)
                    if delivery is not None:  # else somebody has deleted the file since
                        note("claimed", message_id, token, from_s=answered, until_s=delivery.deadline.until_s)
                for lease in page.leases:
                    message_id, _, token = lease.name.partition("@")
                    await asyncio.sleep(chance.uniform(0, work_s))
                    how = chance.choice(["ack", "ack", "ack", "release"])
                    note("settling", message_id, token)
                    await room.settle("narrator", consumer=name, **{how: lease.name})
                    note(how, message_id, token)
            except NotSettled:
                note("late", "", "")
            except MailError as error:
                note("failed", "", "", error=str(error))
asyncio.run(main())
"""


class Hold(NamedTuple):
    """The time in which a worker held a message for certain: from the answer until it settled it or the lease ended."""

    from_s: float
    until_s: float
    worker: str


class Swarm:
    """Workers that claim, work and settle, and what they noted."""

    def __init__(self, stack: ExitStack, folder: Path, lease_s: float, work_s: float) -> None:
        self.root = folder / "room"
        self.root.mkdir()
        (self.root / "mq.toml").write_text('durability = "os"\nmax_deliveries = 0\n')
        self._stack, self._folder, self._times = stack, folder, (lease_s, work_s)
        self._count = 0

    def start(self) -> Popen[str]:
        """A worker that begins once it is told to."""
        self._count += 1
        name = f"w{self._count}"
        log_path = self._folder / f"{name}.log"
        return self._stack.enter_context(python(WORKER, self.root, log_path, name, *self._times))

    def begun(self, count: int) -> list[Popen[str]]:
        """So many workers at work."""
        workers = [self.start() for _ in range(count)]
        for worker in workers:
            assert said(worker) == "ready"
        for worker in workers:
            tell(worker)
        return workers

    def notes(self) -> Iterator[dict[str, Any]]:
        for path in self._folder.glob("w*.log"):
            for text in path.read_bytes().split(b"\n")[:-1]:
                yield orjson.loads(text)

    def holds(self) -> dict[str, list[Hold]]:
        """By message, in order of time."""
        notes = list(self.notes())
        # A worker that was killed or refused in between may have settled at any moment after it began to.
        ended: dict[tuple[str, str], float] = {}
        for note in notes:
            if note["what"] == "settling":
                ended[note["id"], note["token"]] = note["at"]
        holds: dict[str, list[Hold]] = {}
        for note in notes:
            if note["what"] == "claimed":
                until_s = min(note["until_s"], ended.get((note["id"], note["token"]), note["until_s"]))
                if until_s > note["from_s"]:
                    holds.setdefault(note["id"], []).append(Hold(note["from_s"], until_s, note["worker"]))
        return {message_id: sorted(each) for message_id, each in holds.items()}

    def unread(self) -> int:
        """How many messages are unread for the reader, held or not."""

        async def count() -> int:
            async with Mailroom(self.root) as room:
                await room._shelf.refresh(["narrator"])
                return len(room._shelf.unread("narrator", "narrator"))

        return run(count())

    def acked(self) -> list[str]:
        path = self.root / "receipts" / "narrator.jsonl"
        texts = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        receipts = map(orjson.loads, dict.fromkeys(texts))  # a line that stands twice is one
        return [message_id for receipt in receipts for message_id in receipt["ids"]]

    def check(self, count: int) -> None:
        """Everything was handled and acknowledged, and nothing was held by two at once."""
        assert [note for note in self.notes() if note["what"] == "failed"] == []
        expected = {known_id(number) for number in range(count)}
        assert sorted(self.acked()) == sorted(expected), "each was acknowledged, and once"
        holds = self.holds()
        assert holds.keys() == expected
        for message_id, each in holds.items():
            for one, next_one in pairwise(each):
                assert one.until_s <= next_one.from_s, f"{message_id}: {one} and {next_one} at once"


def fill(root: Path, count: int) -> None:
    write(root / "narrator.jsonl", *(line(number, id=known_id(number)) for number in range(count)))


def claims(swarm: Swarm) -> int:
    return sum(note["what"] == "claimed" for note in swarm.notes())


def is_done(swarm: Swarm, count: int) -> bool:
    return len(set(swarm.acked())) == count


def test_eight_processes_share_a_mailbox_and_nothing_is_held_by_two_at_once(tmp_path: Path) -> None:
    count = 60
    with ExitStack() as stack:
        swarm = Swarm(stack, tmp_path, lease_s=0.3, work_s=0.02)
        fill(swarm.root, count)
        workers = swarm.begun(8)
        eventually(lambda: is_done(swarm, count), LONG_S)
        for worker in workers:
            worker.kill()
            worker.wait()
        swarm.check(count)
        assert len({hold.worker for each in swarm.holds().values() for hold in each}) >= 4, "they shared"
        assert swarm.unread() == 0


def test_leases_that_are_too_short_for_the_work_end_in_redelivery_and_never_in_two_holders(tmp_path: Path) -> None:
    count = 16
    with ExitStack() as stack:
        swarm = Swarm(stack, tmp_path, lease_s=0.05, work_s=0.1)
        fill(swarm.root, count)
        workers = swarm.begun(4)
        eventually(lambda: is_done(swarm, count), LONG_S)
        for worker in workers:
            worker.kill()
            worker.wait()
        swarm.check(count)
        assert any(note["what"] == "late" for note in swarm.notes())
        assert claims(swarm) > count


@pytest.mark.soak
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and SIGSTOP")
def test_processes_killed_and_stopped_at_any_moment_lose_nothing_and_never_share(tmp_path: Path, soak_s: float) -> None:
    chance = random.Random(11)
    count = int(20 * soak_s)
    with ExitStack() as stack:
        swarm = Swarm(stack, tmp_path, lease_s=0.25, work_s=0.05)
        fill(swarm.root, count)
        workers = swarm.begun(8)
        spare = [swarm.start() for _ in range(2)]
        deadline = time.monotonic() + soak_s
        killed = stopped = 0
        while time.monotonic() < deadline or killed < 3 or stopped < 3:
            before = claims(swarm)
            number = chance.randrange(8)
            if chance.random() < 0.4:
                os.kill(workers[number].pid, signal.SIGKILL)
                workers[number].wait()
                workers[number] = spare.pop(0)
                assert said(workers[number]) == "ready"
                tell(workers[number])
                spare.append(swarm.start())
                killed += 1
            else:
                os.kill(workers[number].pid, signal.SIGSTOP)
                time.sleep(chance.uniform(0.1, 0.5))  # longer than its leases, now and then
                os.kill(workers[number].pid, signal.SIGCONT)
                stopped += 1
            if not is_done(swarm, count):
                eventually(lambda before=before: claims(swarm) > before or is_done(swarm, count), LONG_S)
        eventually(lambda: is_done(swarm, count), LONG_S)
        for worker in (*workers, *spare):
            worker.kill()
            worker.wait()
        swarm.check(count)
        assert swarm.unread() == 0


@pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be deleted there")
def test_the_runtime_folder_deleted_under_claiming_processes_costs_redelivery_at_worst(tmp_path: Path) -> None:
    count = 24
    with ExitStack() as stack:
        swarm = Swarm(stack, tmp_path, lease_s=0.3, work_s=0.02)
        fill(swarm.root, count)
        workers = swarm.begun(3)
        for _ in range(10):
            before = claims(swarm)
            shutil.rmtree(swarm.root / ".mq", ignore_errors=True)
            eventually(lambda before=before: claims(swarm) > before or is_done(swarm, count), LONG_S)
        eventually(lambda: is_done(swarm, count), LONG_S)
        for worker in workers:
            worker.kill()
            worker.wait()
        assert [note for note in swarm.notes() if note["what"] == "failed"] == []
        assert set(swarm.acked()) == {known_id(number) for number in range(count)}
        assert swarm.unread() == 0

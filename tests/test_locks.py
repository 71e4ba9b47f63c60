"""Locks between threads and processes."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from mq_server import locks
from mq_server.errors import LockTimeout, MailError, WriteFailed
from tests.support import DEADLINE_S, eventually, new_lock, python, said, tell

HOLD = """
import sys
from pathlib import Path
from mq_server.locks import FileLock
with FileLock(Path(sys.argv[1])).held(30):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""

COUNT = """
import sys
from pathlib import Path
from mq_server.locks import FileLock
lock, counter, total = FileLock(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
done = 0
while True:
    with lock.held(30):
        number = int(counter.read_text())
        if number == total:
            break
        counter.write_text(str(number + 1))
    done += 1
print(done, flush=True)
"""


def test_eight_processes_exclude_each_other_and_each_gets_its_share(tmp_path: Path) -> None:
    counter, total = tmp_path / "counter", 1600
    counter.write_text("0")
    with ExitStack() as stack:
        processes = [stack.enter_context(python(COUNT, tmp_path / "x.lock", counter, total)) for _ in range(8)]
        for process in processes:
            assert said(process) == "ready"
        for process in processes:
            tell(process)
        counts = [int(said(process)) for process in processes]
    assert sum(counts) == int(counter.read_text()) == total
    assert min(counts) > total / 8 / 10, counts


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    lock = new_lock(tmp_path / "x.lock")
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock.held(10):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lock_held_too_long_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with python(HOLD, path) as holder:
        assert said(holder) == "held"
        began = time.monotonic()
        words = r"x\.lock: another process has held this lock for 0\.2 s\. Nothing was written; try again"
        with pytest.raises(LockTimeout, match=words), new_lock(path).held(0.2):
            pass
        assert 0.2 <= time.monotonic() - began < 2
        tell(holder)
        assert said(holder) == "released"
        with new_lock(path).held(5):
            pass


def test_a_thread_waits_for_another_no_longer_than_it_may(tmp_path: Path) -> None:
    lock = new_lock(tmp_path / "x.lock")
    outcome: list[BaseException | None] = []

    def attempt() -> None:
        try:
            with lock.held(0.05):
                outcome.append(None)
        except LockTimeout as error:
            outcome.append(error)

    with lock.held(5):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert isinstance(outcome[0], LockTimeout)


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with python(HOLD, path) as holder:
        assert said(holder) == "held"
        os.kill(holder.pid, signal.SIGKILL)
        with new_lock(path).held(5):
            pass


@pytest.mark.parametrize("whole_folder", [False, True])
def test_a_kept_handle_of_a_deleted_lock_file_is_given_up(tmp_path: Path, whole_folder: bool) -> None:
    path = tmp_path / "locks" / "x.lock"
    ours = new_lock(path)
    with ours.held(5):
        pass
    if whole_folder:
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    with python(HOLD, path) as holder:
        assert said(holder) == "held"
        with pytest.raises(LockTimeout), ours.held(0.1):
            pass
        tell(holder)
        assert said(holder) == "released"
    with ours.held(5):
        pass


def test_a_lock_file_deleted_while_it_is_held_does_not_lock_the_holder_out_afterwards(tmp_path: Path) -> None:
    lock = new_lock(tmp_path / "x.lock")
    with lock.held(5):
        lock.path.unlink()
    with lock.held(5):
        assert lock.path.exists()


def test_who_only_reads_makes_no_lock_and_keeps_no_handle(tmp_path: Path) -> None:
    lock = new_lock(tmp_path / "locks" / "x.lock")
    with pytest.raises(WriteFailed), lock.held(5, make=False):
        pass
    assert not lock.path.parent.exists()
    with new_lock(lock.path).held(5), pytest.raises(LockTimeout), lock.held(0.05, make=False):
        pass
    with lock.held(5, make=False), pytest.raises(LockTimeout), new_lock(lock.path).held(0.05):
        pass
    with new_lock(lock.path).held(5):
        pass
    assert lock._handle is None


def test_an_error_within_frees_the_lock(tmp_path: Path) -> None:
    lock = new_lock(tmp_path / "x.lock")
    with pytest.raises(ZeroDivisionError), lock.held(5):
        raise ZeroDivisionError
    with new_lock(lock.path).held(5):
        pass


def test_a_file_where_the_folder_of_locks_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("not a folder")
    lock = new_lock(tmp_path / "locks" / "x.lock")
    with pytest.raises(WriteFailed, match="a file stands where a folder is needed"), lock.held(1):
        pass


def test_a_file_system_that_has_no_locks_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(handle: int) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "try_lock", no_lock)
    words = r"x\.lock: this file system cannot lock files \(.*No locks available\); use a local disk"
    with pytest.raises(MailError, match=words), new_lock(tmp_path / "x.lock").held(1):
        pass


def test_a_task_gives_up_in_time_behind_one_that_is_just_given_the_lock(tmp_path: Path) -> None:
    lock = new_lock(tmp_path / "x.lock")

    async def check() -> None:
        end = asyncio.Event()

        async def hold() -> None:
            async with lock.held_by_task(5):
                await end.wait()

        await lock.acquire_by_task(5)
        holder = asyncio.create_task(hold())
        await asyncio.sleep(0)
        lock.release_by_task()  # from now on it is nobody's, but promised
        with pytest.raises(LockTimeout):
            await lock.acquire_by_task(0.05)
        end.set()
        await holder
        async with lock.held_by_task(5):
            pass

    asyncio.run(asyncio.wait_for(check(), 20))


def test_what_can_be_done_meanwhile_is_done_once_and_only_while_somebody_else_holds_the_lock(tmp_path: Path) -> None:
    lock, other = new_lock(tmp_path / "x.lock"), new_lock(tmp_path / "x.lock")
    done: list[str] = []

    async def check() -> None:
        async def meanwhile() -> None:
            done.append("meanwhile")

        async def take() -> None:
            await lock.acquire_by_task(DEADLINE_S, meanwhile)
            done.append("held")
            lock.release_by_task()

        await take()
        assert done == ["held"]
        async with other.held_by_task(DEADLINE_S):
            taking = asyncio.create_task(take())
            while len(done) < 2:
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)  # in which it tries some more
        await taking
        assert done == ["held", "meanwhile", "held"]

    asyncio.run(asyncio.wait_for(check(), DEADLINE_S))


def test_what_fails_meanwhile_leaves_the_lock_to_others(tmp_path: Path) -> None:
    lock, other = new_lock(tmp_path / "x.lock"), new_lock(tmp_path / "x.lock")

    async def check() -> None:
        async def meanwhile() -> None:
            raise FileNotFoundError

        async with other.held_by_task(DEADLINE_S):
            with pytest.raises(FileNotFoundError):
                await lock.acquire_by_task(DEADLINE_S, meanwhile)
        async with lock.held_by_task(DEADLINE_S):
            pass

    asyncio.run(asyncio.wait_for(check(), DEADLINE_S))


def test_who_waits_looks_again_soon_and_then_lets_the_event_loop_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, other = new_lock(tmp_path / "x.lock"), new_lock(tmp_path / "x.lock")
    pauses_s: list[float] = []
    monkeypatch.setattr(locks.time, "sleep", pauses_s.append)

    async def check() -> None:
        async with other.held_by_task(DEADLINE_S):
            taking = asyncio.create_task(lock.acquire_by_task(DEADLINE_S))
            while not pauses_s:
                await asyncio.sleep(0)
            assert not taking.done(), "who holds it goes on"
        await taking
        lock.release_by_task()

    asyncio.run(asyncio.wait_for(check(), DEADLINE_S))
    assert max(pauses_s) <= 0.0001


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_share_its_parents_lock(tmp_path: Path) -> None:
    lock, told = new_lock(tmp_path / "x.lock"), tmp_path / "told"
    with lock.held(5):
        pass
    child = os.fork()
    if not child:  # the child never returns into pytest
        try:
            with lock.held(5):
                told.write_text("held")
                while not (tmp_path / "end").exists():
                    time.sleep(0.002)
        finally:
            os._exit(0)
    eventually(lambda: told.exists() and told.read_text() == "held")
    with pytest.raises(LockTimeout), lock.held(0.1):
        pass
    (tmp_path / "end").touch()
    os.waitpid(child, 0)
    with lock.held(5):
        pass

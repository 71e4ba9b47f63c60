"""Who waits right now: seen by other processes, and gone with the process that waited."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from mq_server import listing
from mq_server.mailroom import Mailroom
from mq_server.names import format_time
from mq_server.presence import Presence
from mq_server.watch import Subscription
from tests.support import DEADLINE_S, ask, eventually, line, output, python, said, write

WAITER = """
import asyncio, json, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        print("ready", flush=True)
        page = await room.wait(json.loads(sys.argv[2]), timeout_s=60, **json.loads(sys.argv[3]))
        print(len(page.messages), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


def production(root: Path, *channels: str) -> Path:
    """A folder with mailboxes that hold nothing yet."""
    for channel in channels or ("narrator",):
        long_ago = 1_700_000_000  # so that nobody has to look twice whether somebody writes just now
        os.utime(write(root / f"{channel}.jsonl"), (long_ago, long_ago))
    return root


def post(root: Path, channel: Any = "narrator") -> list[int]:
    """Post, and say how many waited in each mailbox."""
    posted = ask(root, lambda room: room.post(channel, sender="a", msg_type="note", payload={"text": "x"}))
    return [recipient.waiting for recipient in posted.recipients]


def seen(root: Path, channel: str = "narrator") -> int:
    """How many wait, as a process sees it that does not."""
    return Presence(root / ".mq" / "waiting", "onlooker", lambda: True).count(channel)


def files(root: Path) -> list[Path]:
    return [path for path in (root / ".mq" / "waiting").rglob("*") if path.is_file()]


@contextmanager
def waiter(root: Path, channel: str = '"narrator"', question: str = "{}") -> Iterator[Popen[str]]:
    with python(WAITER, root, channel, question) as process:
        assert said(process) == "ready"
        yield process


# --- across processes ------------------------------------------------------------------------------------------------


def test_a_process_that_waits_is_seen_by_others_until_it_has_something(tmp_path: Path) -> None:
    production(tmp_path, "narrator", "dialogist")
    with waiter(tmp_path) as process:
        eventually(lambda: seen(tmp_path) == 1)
        assert seen(tmp_path, "dialogist") == 0
        assert post(tmp_path, ["dialogist", "narrator"]) == [0, 1]
        assert said(process) == "1"
        assert process.poll() is None, "it lives on, and waits no more"
        assert seen(tmp_path) == 0
        assert files(tmp_path) == []
        assert post(tmp_path) == [0]


def test_the_directory_shows_who_waits_also_where_there_is_no_mailbox_yet(tmp_path: Path) -> None:
    production(tmp_path, "narrator")
    with waiter(tmp_path, '["narrator", "unborn"]'):
        eventually(lambda: seen(tmp_path, "narrator") == seen(tmp_path, "unborn") == 1)
        directory = ask(tmp_path, lambda room: room.directory())
        assert {state.channel: state.waiting for state in directory.channels} == {"narrator": 1, "unborn": 1}
        assert post(tmp_path, "unborn") == [1]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_process_that_is_killed_waits_no_more_and_leaves_nothing(tmp_path: Path) -> None:
    production(tmp_path)
    with waiter(tmp_path) as killed, waiter(tmp_path) as other:
        eventually(lambda: seen(tmp_path) == 2)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait(DEADLINE_S)
        assert len(files(tmp_path)) == 2
        assert seen(tmp_path) == 1
        assert len(files(tmp_path)) == 1, "what the dead one left is removed"
        os.kill(other.pid, signal.SIGKILL)
        other.wait(DEADLINE_S)
        assert post(tmp_path) == [0]
        assert files(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="needs SIGSTOP")
def test_a_process_that_is_stopped_still_waits(tmp_path: Path) -> None:
    production(tmp_path)
    with waiter(tmp_path) as process:
        eventually(lambda: seen(tmp_path) == 1)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            assert post(tmp_path) == [1]
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert said(process) == "1"


def test_each_process_counts_once_and_those_of_one_s_own_each(tmp_path: Path) -> None:
    production(tmp_path)

    async def work(room: Mailroom) -> None:
        async with Mailroom(tmp_path) as other:
            own = [asyncio.ensure_future(room.wait("narrator", reader=f"reader{n}", timeout_s=20)) for n in range(3)]
            far = [asyncio.ensure_future(other.wait("narrator", reader=f"reader{n}", timeout_s=20)) for n in range(2)]
            while (room._store.presence.count("narrator"), other._store.presence.count("narrator")) != (4, 3):
                await asyncio.sleep(0.001)
            assert seen(tmp_path) == 2
            own[0].cancel()
            await asyncio.wait([own[0]])
            assert (room._store.presence.count("narrator"), seen(tmp_path)) == (3, 2)
            for task in (own[1], own[2]):
                task.cancel()
            await asyncio.wait(own)
            assert seen(tmp_path) == 1
            for task in far:
                task.cancel()
            await asyncio.wait(far)
            assert (seen(tmp_path), files(tmp_path)) == (0, [])

    ask(tmp_path, work)


def test_a_wait_that_times_out_is_seen_no_more(tmp_path: Path) -> None:
    production(tmp_path)
    page = ask(tmp_path, lambda room: room.wait("narrator", timeout_s=0.05))
    assert page.timed_out
    assert (seen(tmp_path), files(tmp_path)) == (0, [])


def test_a_file_stays_from_one_wait_to_the_next_and_goes_with_the_process(tmp_path: Path) -> None:
    folder = tmp_path / ".mq" / "waiting"
    presence, other = Presence(folder, "one", lambda: True), Presence(folder, "two", lambda: True)
    with presence.waiting_for(["narrator"]):
        assert other.count("narrator") == 1
    inode = (folder / "narrator" / "one").stat().st_ino
    with presence.waiting_for(["narrator"]):
        assert other.count("narrator") == 1
        assert (folder / "narrator" / "one").stat().st_ino == inode
    assert (other.count("narrator"), files(tmp_path)) == (0, []), "who finds it unlocked takes it for a dead one's"
    with presence.waiting_for(["narrator"]):
        assert other.count("narrator") == 1
    presence.close()
    assert files(tmp_path) == []


def test_who_waits_is_listed_only_when_somebody_came_or_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".mq" / "waiting"
    presence, other = Presence(folder, "one", lambda: True), Presence(folder, "two", lambda: True)
    with presence.waiting_for(["narrator"]):
        pass
    old_ns = time.time_ns() - 10**9
    os.utime(folder / "narrator", ns=(old_ns, old_ns + 1))
    lists, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: lists.append(path) or listdir(path))
    monkeypatch.setattr(listing, "_DOUBT_NS", 0)
    monkeypatch.setattr(listing, "_LISTED_FOR_S", 100)
    for _ in range(5):
        with presence.waiting_for(["narrator"]):
            assert other.count("narrator") == 1
    assert len(lists) == 1
    write(folder / "narrator" / "4711-dead")
    assert other.count("narrator") == 0
    assert len(lists) == 2
    presence.close()


# --- crashes and races -----------------------------------------------------------------------------------------------

COUNTER = """
import sys
from pathlib import Path
from mq_server.presence import Presence
def hang(*_, **__):
    print("hanging", flush=True)
    sys.stdin.readline()
Path.unlink = hang
Presence(Path(sys.argv[1]) / ".mq" / "waiting", "counter", lambda: True).count("narrator")
"""


def leave_behind(root: Path) -> Path:
    """What a process leaves that was killed while it waited."""
    return write(root / ".mq" / "waiting" / "narrator" / "4711-dead")


def test_a_process_that_is_killed_while_it_counts_leaves_nothing_locked(tmp_path: Path) -> None:
    production(tmp_path)
    left = leave_behind(tmp_path)
    with python(COUNTER, tmp_path) as process:
        assert said(process) == "hanging"
        assert left.exists()
        process.kill()
        process.wait(DEADLINE_S)
    assert (seen(tmp_path), files(tmp_path)) == (0, [])


def test_those_who_count_all_the_time_keep_nobody_from_being_seen(tmp_path: Path) -> None:
    folder = tmp_path / ".mq" / "waiting"
    script = """
import os
import sys
from pathlib import Path
from mq_server.presence import Presence
presence = Presence(Path(sys.argv[1]), str(os.getpid()), lambda: True)
print("ready", flush=True)
while True:
    presence.count("narrator")
"""
    presence, other = Presence(folder, "one", lambda: True), Presence(folder, "two", lambda: True)
    with ExitStack() as stack:
        for _ in range(2):
            assert said(stack.enter_context(python(script, folder))) == "ready"
        unseen = 0
        for _ in range(300):
            with presence.waiting_for(["narrator"]):
                unseen += other.count("narrator") == 0
        assert unseen == 0
        presence.close()
    assert (other.count("narrator"), files(tmp_path)) == (0, [])


def test_what_lies_about_among_those_who_wait_counts_for_nothing(tmp_path: Path) -> None:
    production(tmp_path)
    leave_behind(tmp_path)
    (tmp_path / ".mq" / "waiting" / "narrator" / "folder").mkdir()
    (tmp_path / ".mq" / "waiting" / "Not A Name").mkdir()
    write(tmp_path / ".mq" / "waiting" / "a file", b"x")
    assert seen(tmp_path) == 0
    directory = ask(tmp_path, lambda room: room.directory())
    assert [state.channel for state in directory.channels] == ["narrator"]


def test_deleting_the_runtime_folder_ends_no_wait(tmp_path: Path) -> None:
    production(tmp_path)
    with waiter(tmp_path) as process:
        eventually(lambda: seen(tmp_path) == 1)
        shutil.rmtree(tmp_path / ".mq")
        post(tmp_path)
        assert said(process) == "1"


# --- who is not counted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ({}, 1),
        ({"caller": "narrator"}, 1),
        ({"reader": "editor"}, 1),
        ({"caller": "dialogist", "reader": "dialogist"}, 1),
        ({"lease_s": 5}, 1),
        ({"ack": True, "sender": "b"}, 1),
        ({"caller": "dialogist"}, 0),
        ({"since": format_time(0)}, 0),
    ],
)
def test_who_only_looks_is_not_said_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: dict[str, Any], count: int
) -> None:
    production(tmp_path)
    asleep = asyncio.Event()
    sleep = Subscription.changed

    async def changed(self: Subscription, timeout_s: float | None) -> set[str]:
        asleep.set()
        return await sleep(self, timeout_s)

    monkeypatch.setattr(Subscription, "changed", changed)

    async def work(room: Mailroom) -> None:
        wait = asyncio.ensure_future(room.wait("narrator", timeout_s=20, **question))
        await asleep.wait()
        assert (room._store.presence.count("narrator"), seen(tmp_path)) == (count, count)
        wait.cancel()
        await asyncio.wait([wait])
        assert room._store.presence.count("narrator") == 0

    ask(tmp_path, work)


def test_reading_is_not_waiting(tmp_path: Path) -> None:
    production(tmp_path)
    ask(tmp_path, lambda room: room.read("narrator"))
    ask(tmp_path, lambda room: room.wait("narrator", timeout_s=0))
    assert not (tmp_path / ".mq" / "waiting").exists()


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_wait_makes_no_production(tmp_path: Path) -> None:
    root = tmp_path / "below" / "production"
    assert ask(root, lambda room: room.wait("narrator", timeout_s=0.02)).timed_out
    assert not (tmp_path / "below").exists()


def test_a_wait_before_the_production_is_made_is_ended_by_its_first_message(tmp_path: Path) -> None:
    root = tmp_path / "production"
    with waiter(root) as process:
        post(root)
        assert said(process) == "1"


async def until_seen(room: Mailroom, channel: str) -> None:
    """Wait until others see it."""
    wait = asyncio.ensure_future(room.wait(channel, timeout_s=DEADLINE_S))
    while not seen(room.root, channel):
        await asyncio.sleep(0.001)
    wait.cancel()
    await asyncio.wait([wait])


@pytest.mark.parametrize(
    "work",
    [
        lambda room: until_seen(room, "narrator"),
        lambda room: room.wait("dialogist", timeout_s=0, ack=True),
        lambda room: room.read("dialogist"),
        lambda room: room.read("dialogist", lease_s=5),
        lambda room: room.acknowledge("dialogist", "dialogist:1"),
        lambda room: room.settle("dialogist", ack="dialogist:1"),
        lambda room: room.settle("narrator", seek="now"),
        lambda room: room.post("narrator", sender="a", msg_type="note", payload={"text": "x"}),
        lambda room: room.post("narrator", sender="a", msg_type="note", payload={"text": "x"}, dedup_key="k"),
    ],
)
def test_whatever_makes_the_runtime_folder_tells_git_of_it(
    tmp_path: Path, work: Callable[[Mailroom], Awaitable[Any]]
) -> None:
    production(tmp_path)
    write(tmp_path / "dialogist.jsonl", line(0))
    ask(tmp_path, work)
    assert (tmp_path / ".mq").is_dir()
    assert (tmp_path / ".gitignore").read_text() == ".mq/\n"
    assert "*.jsonl text eol=lf merge=union" in (tmp_path / ".gitattributes").read_text()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    production(tmp_path)

    async def work(room: Mailroom) -> None:
        await room.directory()
        await room.read("narrator")
        await room.history("narrator")
        assert room._store.presence.count("narrator") == 0

    ask(tmp_path, work)
    assert [path.name for path in tmp_path.iterdir()] == ["narrator.jsonl"]


UNWRITABLE = """
import asyncio, concurrent.futures.thread, difflib, os, sys  # what is imported later may not be readable for that user
from pathlib import Path
import watchfiles
from mq_server import payloads
from mq_server.mailroom import Mailroom
folder = Path(sys.argv[1])
for path in [folder, *folder.rglob("*")]:
    path.chmod(0o555 if path.is_dir() else 0o444)
if os.geteuid() == 0:
    os.seteuid(65534)
async def main():
    async with Mailroom(folder) as room:
        print(len((await room.read("narrator")).messages), flush=True)
        print(len((await room.wait("narrator", timeout_s=20)).messages), flush=True)
        print((await room.wait("dialogist", timeout_s=0.05)).timed_out, flush=True)
        wait = asyncio.ensure_future(room.wait("dialogist", timeout_s=20))
        await asyncio.sleep(0)
        print([state.waiting for state in (await room.directory()).channels], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(len((await wait).messages), flush=True)
asyncio.run(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize("used_before", [False, True])
def test_who_may_not_write_reads_and_waits_all_the_same(public_folder: Path, used_before: bool) -> None:
    production(public_folder, "dialogist", "narrator")
    write(public_folder / "narrator.jsonl", line(0))
    if used_before:
        with waiter(public_folder, '"dialogist"'):
            eventually(lambda: seen(public_folder, "dialogist") == 1)
    with python(UNWRITABLE, public_folder) as process:
        assert [said(process) for _ in range(3)] == ["1", "1", "True"]
        assert said(process).startswith("[")
        for path in (public_folder, public_folder / "dialogist.jsonl"):
            path.chmod(0o777)
        write(public_folder / "dialogist.jsonl", line(1))
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert said(process) == "1"
    for path in public_folder.rglob("*"):
        path.chmod(0o777)


def test_a_file_in_the_place_of_the_folder_keeps_nobody_from_waiting_or_posting(tmp_path: Path) -> None:
    production(tmp_path)
    write(tmp_path / ".mq" / "waiting", b"")
    assert ask(tmp_path, lambda room: room.wait("narrator", timeout_s=0.02)).timed_out
    assert [state.waiting for state in ask(tmp_path, lambda room: room.directory()).channels] == [0]
    assert post(tmp_path) == [0]


FORBIDDEN = """
import asyncio, concurrent.futures.thread, difflib, os, sys
from pathlib import Path
from mq_server import payloads
from mq_server.mailroom import Mailroom
from mq_server.posting import Posting
folder = Path(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
async def main():
    async with Mailroom(folder) as room:
        posted = await room.post("unborn", sender="a", msg_type="note", payload={"text": "x"})
        print(posted.recipients[0].waiting, [state.waiting for state in (await room.directory()).channels])
asyncio.run(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_who_may_not_see_who_waits_posts_all_the_same(public_folder: Path) -> None:
    public_folder.joinpath("narrator.jsonl").touch()
    with waiter(public_folder, '"unborn"'):
        eventually(lambda: seen(public_folder, "unborn") == 1)
        for path in [public_folder, *public_folder.rglob("*")]:
            path.chmod(0o777)
        for folder in (public_folder / ".mq" / "waiting" / "unborn", public_folder / ".mq" / "waiting"):
            folder.chmod(0o700)
            assert output(FORBIDDEN, public_folder) == "0 [0, 0]\n"
            folder.chmod(0o777)

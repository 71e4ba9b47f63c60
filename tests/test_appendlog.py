"""One append-only file: what an append promises, what a reader sees."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mq_server import appendlog, blocks, logfile
from mq_server.appendlog import AppendLog
from mq_server.errors import FileVanished, WriteFailed
from mq_server.stamp import Fingerprint
from tests.support import LogReader, append, close_locks, eventually, examples, line, new_log, output, write

ONE, TWO, THREE = line(1), line(2), line(3)
LONG_AGO_NS = 1_700_000_000_000_000_000


def aged(path: Path) -> Path:
    """Make a file look as if nobody had touched it for long, so that nobody waits for it to become quiet."""
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


def stood(data: bytes) -> list[tuple[int, int, bytes]]:
    """(offset, number, bytes) of the lines in a file, found the simple way."""
    found, offset = [], 0
    for number, whole in enumerate(data.split(b"\n"), start=1):
        start = 3 if number == 1 and whole.startswith(b"\xef\xbb\xbf") else 0
        text = whole[start:].removesuffix(b"\r")
        if text.strip():
            found.append((offset + start, number, text))
        offset += len(whole) + 1
    return found


# --- appending -------------------------------------------------------------------------------------------------------


def test_appends_are_whole_lines_in_order(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    assert append(log, ONE) == 1
    assert append(log, TWO + THREE) == 2
    assert append(log, ONE) == 4
    assert log.path.read_bytes() == ONE + TWO + THREE + ONE


def test_writers_take_turns_without_reading_the_file_again(tmp_path: Path) -> None:
    logs = [new_log(tmp_path) for _ in range(3)]
    reader = LogReader(new_log(tmp_path))
    for number in range(12):
        assert append(logs[number % 3], line(number)) == number + 1
        assert len(reader.take()) == number + 1
    assert reader.rereads == 1


def test_an_append_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    writes: list[bytes] = []
    real_write = os.write

    def counting(handle: int, data: bytes) -> int:
        writes.append(data)
        return real_write(handle, data)

    monkeypatch.setattr(os, "write", counting)
    append(log, TWO + THREE)
    assert [data for data in writes if data.startswith(b"{")] == [TWO + THREE]


def test_a_sync_after_the_lock_makes_it_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, steps = new_log(tmp_path), []
    monkeypatch.setattr(appendlog, "_fdatasync", lambda _: steps.append("file"))
    monkeypatch.setattr(os, "fsync", lambda _: steps.append("folder"))
    with log.lock.held(5):
        first = log.append(log.tail(), ONE, 0)
    other = new_log(tmp_path)
    with other.lock.held(5):
        second = other.append(other.tail(), TWO, 0)
    assert steps == []
    log.sync(first)
    assert steps == ["file", "folder", "folder"]
    other.sync(second)
    assert steps[3:] == ["file"], "only a new file's name needs its folder synced"


def test_a_sync_that_fails_says_that_the_line_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    append(log, ONE)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(appendlog, "_fdatasync", broken)
    with log.lock.held(5):
        written = log.append(log.tail(), TWO, 0)
    with pytest.raises(WriteFailed, match="The message is in the file, but the disk did not confirm it"):
        log.sync(written)
    with pytest.raises(OSError):
        os.fstat(written.handle)
    assert log.path.read_bytes() == ONE + TWO


# --- torn tails ------------------------------------------------------------------------------------------------------


def test_append_after_a_torn_tail_keeps_both_lines(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    with log.path.open("ab") as file:
        file.write(TWO[:30])
    assert append(log, THREE) == 3
    assert log.path.read_bytes() == ONE + TWO[:30] + b"\n" + THREE
    assert append(log, ONE) == 4


@pytest.mark.parametrize("before", [b"", ONE, b"\xef\xbb\xbf", ONE[:-1] + b"\r\n"])
def test_a_line_torn_at_any_byte_is_repaired_by_a_line_feed(tmp_path: Path, before: bytes) -> None:
    for cut in range(len(TWO) + 1):
        log = new_log(tmp_path, f"cut{cut}")
        data = before + TWO[:cut]
        with log.lock.held(5):
            pass  # so that the reader finds a lock and may adopt the file
        aged(write(log.path, data))
        reader = LogReader(new_log(tmp_path, f"cut{cut}"))
        assert reader.take() == stood(data)
        append(log, THREE)
        ended = data + (b"\n" if data and not data.endswith(b"\n") else b"")
        assert log.path.read_bytes() == ended + THREE
        assert reader.take() == stood(ended + THREE)
        close_locks()


@given(st.binary(max_size=60), st.lists(st.booleans(), min_size=1, max_size=3))
@examples(60)
def test_whatever_stands_at_the_end_nothing_is_glued_to_it(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, batches: list[bool]
) -> None:
    log = new_log(tmp_path_factory.mktemp("log"))
    with log.lock.held(5):
        pass  # so that the reader finds a lock and may adopt the file
    aged(write(log.path, data))
    reader = LogReader(new_log(log.path.parent))
    reader.take()
    for number, batch in enumerate(batches):
        lines = line(number) + line(number + 100) if batch else line(number)
        at = append(log, lines)
        found = {number: text for _, number, text in reader.take()}
        assert [found[at + step] for step in range(len(lines.splitlines()))] == lines.splitlines()
    assert log.path.read_bytes().startswith(data)
    assert reader.take() == stood(log.path.read_bytes())
    close_locks()


# --- what the system refuses -----------------------------------------------------------------------------------------

FILE_SIZE_LIMIT = """
import resource, sys
from pathlib import Path
from mq_server.errors import WriteFailed
from tests.support import append, close_locks, line, new_log
log = new_log(Path(sys.argv[1]))
append(log, line(1))
before = log.path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, resource.RLIM_INFINITY))
try:
    append(log, line(2))
except WriteFailed as error:
    print(error)
assert log.path.read_bytes() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert append(log, line(3)) == 2
assert log.path.read_bytes().startswith(before)
close_locks()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_write_cut_short_by_the_file_size_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    text = output(FILE_SIZE_LIMIT, tmp_path)
    assert "narrator.jsonl: File too large. Nothing was posted; the file has reached the size" in text


def full_disk(part: int) -> Callable[[int, bytes], int]:
    """An `os.write` that takes `part` bytes and then finds the disk full."""
    real_write, left = os.write, part

    def writing(handle: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real_write(handle, data[:left])
        left -= count
        return count

    return writing


@pytest.mark.parametrize("part", [0, 1, 60])
@pytest.mark.parametrize("before", [b"", ONE, ONE + TWO[:20]])
def test_a_full_disk_leaves_nothing_behind_and_the_next_append_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, part: int
) -> None:
    log = new_log(tmp_path)
    if before:
        aged(write(log.path, before))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_disk(part))
        with pytest.raises(WriteFailed, match=r"narrator\.jsonl: No space left on device\. Nothing was posted; free"):
            append(log, TWO)
    assert (log.path.read_bytes() if before else b"") == before
    assert log.path.exists() == bool(before)
    append(log, THREE)
    assert log.path.read_bytes().endswith(THREE)
    assert [text for _, _, text in LogReader(log).take()] == [*(before.splitlines()), THREE[:-1]]


def test_what_others_wrote_behind_a_failed_write_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    full = full_disk(10)

    def writing(handle: int, data: bytes) -> int:
        try:
            return full(handle, data)
        except OSError:
            with log.path.open("ab") as file:
                file.write(b"\nfrom somebody else\n")
            raise

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", writing)
        with pytest.raises(WriteFailed):
            append(log, TWO)
    assert b"from somebody else\n" in log.path.read_bytes()
    append(log, THREE)
    assert THREE[:-1] in [text for _, _, text in LogReader(log).take()]


def test_a_folder_where_the_mailbox_should_be_is_a_clear_error(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.path.mkdir()
    with pytest.raises(WriteFailed, match="a folder stands where a file is needed; move it away"):
        append(log, ONE)


@pytest.mark.skipif(os.name == "nt", reason="replaces a file that is open")
def test_an_editor_that_holds_the_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    refusals = iter([True, True, False])
    real_open = os.open

    def refusing(path: Path, flags: int, *rest: int) -> int:
        if Path(path) == log.path and next(refusals, False):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, flags, *rest)

    monkeypatch.setattr(blocks, "IN_USE_S", 10.0)
    monkeypatch.setattr(os, "open", refusing)
    assert append(log, TWO) == 2
    refusals = itertools.repeat(True)
    monkeypatch.setattr(blocks, "IN_USE_S", 0.02)
    with pytest.raises(WriteFailed, match="make it writable for this user, and close programs that hold it open"):
        append(log, THREE)


# --- others at the same file -----------------------------------------------------------------------------------------


def at_the_write(log: AppendLog, monkeypatch: pytest.MonkeyPatch, *, act: Callable[[], None], after: bool) -> None:
    """Let somebody act once, just before or just after the log's next write."""
    real_write, acted = log._write, []

    def writing(handle: int, data: bytes, size: int, *, created: bool) -> None:
        if not after and not acted:
            acted.append(act())
        real_write(handle, data, size, created=created)
        if after and not acted:
            acted.append(act())

    monkeypatch.setattr(log, "_write", writing)


@pytest.mark.skipif(os.name == "nt", reason="replaces a file that is open")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("stale", [ONE + TWO, TWO, b"", ONE + TWO[:-1], ONE + TWO + line(8) + line(9)])
def test_a_file_replaced_under_an_append_gets_the_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool, stale: bytes
) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    append(log, TWO)

    def save_by_rename() -> None:
        write(tmp_path / "saved", stale).replace(log.path)

    at_the_write(log, monkeypatch, act=save_by_rename, after=after)
    at = append(log, THREE)
    assert log.path.read_bytes() == stale + (b"\n" if stale and not stale.endswith(b"\n") else b"") + THREE
    assert {number: text for _, number, text in LogReader(log).take()}[at] == THREE[:-1]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("foreign", "at"), [(TWO, 3), (TWO + TWO, 4), (TWO[:-1], 3), (b"\n", 3), (b"\r\n\r\n", 4), (b"x", 3)]
)
def test_somebody_who_appends_at_the_same_moment_costs_no_line_and_no_right_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: bytes, at: int, after: bool
) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    reader.take()

    def write_behind() -> None:
        with log.path.open("ab") as file:
            file.write(foreign)

    at_the_write(log, monkeypatch, act=write_behind, after=after)
    number = append(log, THREE)
    assert number == (2 if after else at)
    assert (number, THREE[:-1]) in [(number, text) for _, number, text in reader.take()]
    assert reader.take() == stood(log.path.read_bytes())
    assert append(new_log(tmp_path), ONE) == log.path.read_bytes().count(b"\n")
    assert reader.take() == stood(log.path.read_bytes())


def test_a_file_emptied_under_an_append_gets_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    at_the_write(log, monkeypatch, act=lambda: os.truncate(log.path, 0), after=False)
    append(log, THREE)
    assert [text for _, _, text in LogReader(log).take()].count(THREE[:-1]) >= 1


def test_a_file_that_never_stays_is_given_up_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    monkeypatch.setattr(logfile, "QUIET_S", 0.001)
    monkeypatch.setattr(log, "_landed", lambda *_, **__: None)
    with pytest.raises(FileVanished, match=r"narrator\.jsonl: the file keeps changing while we write to it"):
        append(log, TWO)


def test_a_file_that_is_rewritten_all_the_time_is_given_up_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    monkeypatch.setattr(appendlog, "_SETTLE_LIMIT_S", 0.2)
    monkeypatch.setattr(logfile, "QUIET_S", 60.0)
    write(log.path, TWO)
    with pytest.raises(FileVanished):
        append(log, THREE)
    assert log.path.read_bytes() == TWO


def test_a_file_that_somebody_writes_in_steps_is_left_alone_until_it_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "QUIET_S", 0.5)  # a busy machine makes steps longer than they are meant to be
    log = new_log(tmp_path)
    append(log, ONE)
    done = threading.Event()

    def save_slowly() -> None:
        with log.path.open("wb") as file:
            for step in (ONE[:20], ONE[20:], TWO[:20], TWO[20:]):
                file.write(step)
                file.flush()
                done.wait(0.02)

    saver = threading.Thread(target=save_slowly)
    saver.start()
    eventually(lambda: log.path.stat().st_size < len(ONE))
    append(log, THREE)
    saver.join()
    assert log.path.read_bytes() == ONE + TWO + THREE


def test_a_missing_file_that_is_known_is_waited_for(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    log.path.unlink()
    threading.Timer(0.2, lambda: write(log.path, ONE + TWO)).start()
    append(log, THREE)
    assert log.path.read_bytes() == ONE + TWO + THREE


def test_a_file_that_stays_away_is_created_after_a_second(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    log.path.unlink()
    began = time.monotonic()
    assert append(log, TWO) == 1
    assert 0.9 <= time.monotonic() - began < 5
    assert log.path.read_bytes() == TWO


def test_a_file_that_has_long_been_gone_is_created_at_once(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    append(log, ONE)
    log.path.unlink()
    aged(tmp_path)
    began = time.monotonic()
    append(log, TWO)
    assert time.monotonic() - began < 0.5


def test_a_file_that_appears_while_we_create_it_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path)
    real_open, acted = log._open, []

    def opening(tail: logfile.Tail) -> int | None:
        if not acted:
            acted.append(aged(write(log.path, ONE)))
        return real_open(tail)

    monkeypatch.setattr(log, "_open", opening)
    append(log, TWO)
    assert log.path.read_bytes() == ONE + TWO


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n" + ONE + b"\n  \n\t\n" + TWO,
        ONE[:-1] + b"\r\n" + TWO[:-1] + b"\r\n",
        ONE[:-1] + b"\r\n\r\n" + TWO,
        b"\xef\xbb\xbf" + ONE + TWO,
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\n" + ONE,
        ONE + TWO[:-1],
        ONE[:-1] + b"\r",
        b"\r",
        ONE + b"\xef\xbb\xbf" + TWO,
        b"<<<<<<< HEAD\n" + ONE + b"=======\n" + TWO + b">>>>>>> x\n",
    ],
)
def test_a_file_is_read_as_people_leave_it(tmp_path: Path, data: bytes) -> None:
    log = new_log(tmp_path)
    aged(write(log.path, data))
    reader = LogReader(log)
    assert reader.take() == stood(data)
    append(log, THREE)
    assert reader.take() == stood(log.path.read_bytes())


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 100_000])
def test_blocks_of_any_size_give_the_same_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    data = b"\xef\xbb\xbf" + ONE + b"\n" + TWO[:-1] + b"\r\n" + b"x" * 500 + b"\n" + THREE[:-1]
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
    log = new_log(tmp_path)
    aged(write(log.path, data))
    assert LogReader(log).take() == stood(data)
    assert append(log, ONE) == 6


def save_in_place(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def save_by_rename(path: Path, data: bytes) -> None:
    write(path.with_suffix(".tmp"), data).replace(path)


TICK_NS = 10_000_000


@pytest.fixture
def coarse_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose clock for files ticks every 10 ms, as older ones do; times that were set are exact still."""
    exact: set[int] = set()
    real_set_mtime = appendlog.set_mtime

    def set_mtime(handle: int, time_ns: int) -> None:
        exact.add(time_ns)
        real_set_mtime(handle, time_ns)

    def of(stat: os.stat_result) -> Fingerprint:
        mtime_ns = stat.st_mtime_ns if stat.st_mtime_ns in exact else stat.st_mtime_ns // TICK_NS * TICK_NS
        return Fingerprint(stat.st_size, mtime_ns, stat.st_ctime_ns // TICK_NS * TICK_NS, stat.st_ino)

    monkeypatch.setattr(appendlog, "set_mtime", set_mtime)
    monkeypatch.setattr(Fingerprint, "of", of)


@pytest.mark.parametrize("save", [save_in_place, save_by_rename])
def test_a_change_of_the_same_size_within_the_same_tick_is_seen(
    tmp_path: Path, save: Callable[[Path, bytes], None], coarse_clock: None
) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    for number in range(40):
        append(log, line(number))
        reader.take()
        data = log.path.read_bytes().replace(b"message", (b"MESSAGE", b"MeSsAgE")[number % 2])
        save(log.path, data)
        assert reader.take() == stood(data)
        save(log.path, data.swapcase())
        assert reader.take() == stood(data.swapcase())
        save(log.path, data)
        aged(log.path)


def test_a_change_right_after_a_read_is_seen_though_the_clock_did_not_tick(tmp_path: Path, coarse_clock: None) -> None:
    log = new_log(tmp_path)
    reader = LogReader(log)
    for number in range(100):
        data = line(number % 7) + line(8)
        save_in_place(write(log.path, ONE + TWO), data)
        assert reader.take() == stood(data)


def test_a_file_that_others_wrote_is_read_once_and_then_known(tmp_path: Path) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    aged(write(log.path, ONE + TWO))
    reader.take()
    reader.take()
    assert reader.rereads == 1
    assert reader.view.generation != logfile.UNSTAMPED, "the reader has stamped it"
    append(log, THREE)
    assert reader.take() == stood(ONE + TWO + THREE)
    assert reader.rereads == 1, "so that what we append needs no re-reading"


def test_a_file_changed_just_now_is_looked_at_again_but_taken_in_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    monkeypatch.setattr(logfile, "QUIET_S", 60.0)
    write(log.path, ONE + TWO)
    for _ in range(5):
        assert reader.take() == stood(ONE + TWO)
    assert reader.rereads == 1 and not reader.view.settled
    monkeypatch.setattr(logfile, "QUIET_S", 0.0)
    assert reader.take() == stood(ONE + TWO)
    assert reader.rereads == 1 and reader.view.settled
    append(log, THREE)
    assert reader.take() == stood(ONE + TWO + THREE)
    assert reader.rereads == 1


def test_who_only_reads_makes_nothing(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    aged(write(log.path, ONE))
    assert LogReader(log).take() == stood(ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["narrator.jsonl"]


def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    log, other = new_log(tmp_path), new_log(tmp_path)
    reader = LogReader(other)
    append(log, ONE)
    reader.take()
    change = other.glance(reader.view) if append(log, TWO) else None
    assert isinstance(change, logfile.Change) and not change.replaced
    save_by_rename(log.path, ONE + TWO)
    with pytest.raises(FileNotFoundError):
        list(change.blocks())
    assert reader.take() == stood(ONE + TWO)


def test_a_file_cut_shorter_while_it_is_read_gives_what_is_left(tmp_path: Path) -> None:
    log, other = new_log(tmp_path), new_log(tmp_path)
    reader = LogReader(other)
    append(log, ONE + TWO)
    change = other.glance(reader.view)
    assert isinstance(change, logfile.Change)
    os.truncate(log.path, len(ONE))
    assert [text for block in change.blocks() for _, _, text in block.lines()] == [ONE[:-1]]
    assert reader.take() == stood(ONE)


def test_what_this_process_wrote_last_is_taken_in_without_reading_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(tmp_path)
    reader = LogReader(log)
    with monkeypatch.context() as patched:
        patched.setattr(logfile, "opened", None)
        append(log, ONE)
        assert reader.take() == stood(ONE)
        append(log, TWO)
        assert reader.take() == stood(ONE + TWO)
    append(new_log(tmp_path), THREE)
    assert reader.take() == stood(ONE + TWO + THREE), "another process wrote"
    append(new_log(tmp_path), ONE)
    append(log, TWO)
    assert reader.take() == stood(ONE + TWO + THREE + ONE + TWO), "another process wrote before"
    append(log, THREE)
    save_in_place(log.path, log.path.read_bytes().replace(b"message", b"MESSAGE"))
    assert reader.take() == stood((ONE + TWO + THREE + ONE + TWO + THREE).replace(b"message", b"MESSAGE"))
    assert reader.rereads == 2


def test_what_is_appended_to_a_torn_line_is_read(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    reader = LogReader(log)
    aged(write(log.path, ONE + TWO[:-1]))
    reader.take()
    append(log, THREE)
    assert reader.take() == stood(ONE + TWO + THREE)
    append(log, ONE)
    assert reader.take() == stood(ONE + TWO + THREE + ONE)


def test_a_deleted_and_a_restored_file_are_seen(tmp_path: Path) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    assert len(reader.take()) == 1
    moved = log.path.rename(tmp_path / "away")
    assert reader.take() == []
    moved.rename(log.path)
    assert len(reader.take()) == 1


def test_a_reader_between_a_write_and_its_stamp_waits_for_the_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    reader.take()
    in_between, go_on = threading.Event(), threading.Event()
    real_landed = log._landed

    def landed(*arguments: object, **named: object) -> object:
        in_between.set()
        assert go_on.wait(10)
        return real_landed(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "_landed", landed)
    monkeypatch.setattr(logfile, "_READER_LOCK_S", 10.0)
    writer = threading.Thread(target=append, args=(log, TWO))
    writer.start()
    assert in_between.wait(10)
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.append(len(reader.take())))
    taker.start()
    go_on.set()
    taker.join()
    writer.join()
    assert taken == [2]
    assert reader.rereads == 1


def test_a_reader_who_gets_no_lock_reads_all_the_same(tmp_path: Path) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    with log.lock.held(5):
        aged(write(log.path, ONE + TWO))
        assert reader.take() == stood(ONE + TWO)
    append(log, THREE)
    assert reader.take() == stood(ONE + TWO + THREE)


READ_ONLY = """
import os, sys
from pathlib import Path
from mq_server.errors import WriteFailed
from tests.support import LogReader, append, line, new_log, write
folder = Path(sys.argv[1])
write(folder / "narrator.jsonl", line(1))
folder.chmod(0o555)
if os.geteuid() == 0:
    os.seteuid(65534)
log = new_log(folder)
reader = LogReader(log)
assert len(reader.take()) == 1
assert len(reader.take()) == 1
try:
    append(log, line(2))
except WriteFailed as error:
    print(error)
assert len(reader.take()) == 1
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_a_folder_that_may_only_be_read_is_read(public_folder: Path) -> None:
    assert "Permission denied. Nothing was written; make it writable for this user" in output(READ_ONLY, public_folder)


def test_spans_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    lines = [line(number, text="x" * (number * 700)) for number in range(12)]
    append(log, b"".join(lines))
    offsets = list(itertools.accumulate(map(len, lines), initial=0))
    spans = [(offsets[number], len(lines[number])) for number in (0, 1, 5, 6, 11)]
    assert log.read_spans(spans) == [lines[number] for number in (0, 1, 5, 6, 11)]
    assert log.read_spans([]) == []
    assert log.read_span(offsets[3], 10) == lines[3][:10]
    assert log.read_span(10**9, 10) == b""


# --- stamps that lie -------------------------------------------------------------------------------------------------


def stamp_path(log: AppendLog) -> Path:
    return log.path.parent / ".mq" / "stamps" / "narrator.stamp"


def corrupt(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:5] + bytes([data[5] ^ 1]) + data[6:])


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        corrupt,
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * 4096),
        lambda path: shutil.rmtree(path.parent.parent),
    ],
)
def test_a_lost_stamp_costs_a_reading_and_nothing_else(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    reader.take()
    spoil(stamp_path(log))
    assert reader.take() == stood(ONE)
    assert append(log, TWO) == 2
    assert reader.take() == stood(ONE + TWO)
    rereads = reader.rereads
    append(new_log(tmp_path), THREE)
    assert reader.take() == stood(ONE + TWO + THREE)
    assert reader.rereads == rereads, "the new stamp is good"


def test_an_edit_is_seen_though_the_stamps_were_deleted_before_the_next_append(tmp_path: Path) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    append(log, TWO)
    reader.take()
    shutil.rmtree(tmp_path / ".mq")
    save_in_place(log.path, THREE + TWO)
    append(log, ONE)
    assert reader.take() == stood(THREE + TWO + ONE)


def test_an_edit_is_seen_though_an_old_stamp_was_put_back(tmp_path: Path) -> None:
    log, reader = new_log(tmp_path), LogReader(new_log(tmp_path))
    append(log, ONE)
    old = stamp_path(log).read_bytes()
    save_in_place(log.path, TWO)
    append(log, ONE)
    reader.take()
    stamp_path(log).write_bytes(old)
    save_in_place(log.path, THREE + ONE)
    append(log, TWO)
    assert reader.take() == stood(THREE + ONE + TWO)


def test_the_next_writer_knows_the_last_timestamp(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    append(log, ONE, newest_us=7)
    with log.lock.held(5):
        assert new_log(tmp_path).tail().newest_us == 7
    append(log, TWO, newest_us=5)
    with log.lock.held(5):
        assert log.tail().newest_us == 5, "the last line counts, not the greatest"
    stamp_path(log).unlink()
    with log.lock.held(5):
        assert new_log(tmp_path).tail().newest_us == 1_790_000_000_002_000


@pytest.mark.parametrize(
    ("data", "newest_us"),
    [
        (b"\xef\xbb\xbf" + ONE, 1_790_000_000_001_000),
        (ONE + b"garbage\n", 1_790_000_000_001_000),
        (ONE + TWO[:-9], 1_790_000_000_001_000),
        (ONE[:-1] + b"\r\n", 1_790_000_000_001_000),
        (b"", 0),
        (b"garbage\n", 0),
    ],
)
def test_the_last_timestamp_is_found_in_the_file(tmp_path: Path, data: bytes, newest_us: int) -> None:
    log = new_log(tmp_path)
    aged(write(log.path, data))
    with log.lock.held(5):
        assert log.tail().newest_us == newest_us


# --- everything at once ----------------------------------------------------------------------------------------------

_folders = itertools.count()


class Anything(RuleBasedStateMachine):
    """We append, others do whatever they like; a reader's view is always what stands in the file."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    @initialize()
    def start(self) -> None:
        self.root = Anything.folder / str(next(_folders))
        self.root.mkdir()
        self.logs = [new_log(self.root), new_log(self.root)]
        self.path = self.logs[0].path
        self.readers = [LogReader(new_log(self.root)), LogReader(new_log(self.root))]

    def next_line(self) -> bytes:
        self.number += 1
        return line(self.number)

    @rule(writer=st.integers(0, 1), count=st.integers(1, 3))
    def append(self, writer: int, count: int) -> None:
        before = self.path.read_bytes() if self.path.exists() else b""
        lines = b"".join(self.next_line() for _ in range(count))
        at = append(self.logs[writer], lines)
        ended = before + (b"\n" if before and not before.endswith(b"\n") else b"")
        assert self.path.read_bytes() == ended + lines
        assert at == ended.count(b"\n") + 1

    @rule(whole=st.booleans())
    def foreign_append(self, whole: bool) -> None:
        with self.path.open("ab") as file:
            file.write(self.next_line() if whole else self.next_line()[:25])

    @precondition(lambda self: self.path.exists())
    @rule(save=st.sampled_from([save_in_place, save_by_rename]), change=st.integers(0, 4))
    def edit(self, save: Callable[[Path, bytes], None], change: int) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        middle = len(lines) // 2
        edited = [
            [text.replace(b"message", b"MESSAGE") for text in lines],
            lines[:middle] + lines[middle + 1 :],
            [*lines[:middle], self.next_line(), *lines[middle:]],
            [text.replace(b"\n", b"\r\n") for text in lines],
            lines[::-1],
        ][change]
        save(self.path, b"".join(edited))

    @precondition(lambda self: self.path.exists())
    @rule()
    def delete(self) -> None:
        self.path.unlink()

    @rule()
    def lose_the_stamps(self) -> None:
        shutil.rmtree(self.root / ".mq", ignore_errors=True)

    @rule()
    def time_passes(self) -> None:
        if self.path.exists():
            aged(self.path)
        time.sleep(logfile.QUIET_S / 4)

    @rule()
    def only_one_reads(self) -> None:
        self.readers[0].take()

    @rule()
    def both_read(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        for reader in self.readers:
            assert reader.take() == stood(data)

    @invariant()
    def the_first_sees_what_stands(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        assert self.readers[0].take() == stood(data)

    def teardown(self) -> None:
        close_locks()


def test_a_reader_sees_what_stands_whatever_anybody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coarse_clock: None
) -> None:
    monkeypatch.setattr(logfile, "QUIET_S", 0.015)  # a shorter wait, but longer than a tick, which it is there for
    monkeypatch.setattr(appendlog, "GONE_S", 0.03)
    Anything.folder = tmp_path
    run_state_machine_as_test(Anything, settings=settings(examples(40), stateful_step_count=15))


# --- a line by its number -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stamped", [False, True])
@given(
    texts=st.lists(st.sampled_from([b"", b" ", b"a", b"bb\r", b"c" * 9]), max_size=12),
    end=st.sampled_from([b"", b"\n"]),
    mark=st.sampled_from([b"", blocks.BOM]),
    size=st.integers(10, 40),
)
@examples(60)
def test_a_line_is_found_by_its_number_from_either_end(
    tmp_path_factory: pytest.TempPathFactory, stamped: bool, texts: list[bytes], end: bytes, mark: bytes, size: int
) -> None:
    path = write(tmp_path_factory.mktemp("lines") / "x.jsonl", mark + b"\n".join(texts) + end)
    data = path.read_bytes()
    expected = {number: text for _, number, text in blocks.Block(0, 1, data).lines()}
    line_feeds = data.count(b"\n") if stamped and (not data or data.endswith(b"\n")) else None
    with pytest.MonkeyPatch.context() as patch, blocks.opened(path) as handle:
        patch.setattr(blocks, "_BLOCK_BYTES", size)
        for number in range(1, len(texts) + 4):
            assert blocks.read_line(handle, len(data), number, line_feeds) == expected.get(number, b"")


def test_a_line_near_the_end_is_found_without_reading_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_log(tmp_path / "narrator.jsonl")
    texts = [line(number) for number in range(100)]
    for text in texts:
        append(log, text)
    read = 0
    real_read = blocks.read_at

    def counted(handle: int, offset: int, length: int) -> bytes:
        nonlocal read
        data = real_read(handle, offset, length)
        read += len(data)
        return data

    monkeypatch.setattr(blocks, "read_at", counted)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1000)
    assert log.line(98) == texts[97].rstrip()
    assert read < 3000
    assert log.line(3) == texts[2].rstrip()
    assert read < 6000
    with log.path.open("ab") as file:  # nobody has stamped that
        file.write(texts[0])
    assert (log.line(101), log.line(102)) == (texts[0].rstrip(), b"")

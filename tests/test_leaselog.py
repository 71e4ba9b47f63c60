"""The file of leases: what stands in it, line by line, whoever writes and however it is exchanged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import leaselog
from mq_server.leaselog import LeaseLog, News, Wrote
from tests.support import close_locks, closed_in_the_end

ONE, TWO, THREE = b'{"op":1}', b'{"op":2}', b'{"op":3}'


@pytest.fixture(params=[True, False], ids=["handles are kept", "as on Windows"])
def keeps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(leaselog, "_KEEPS_HANDLE", request.param)
    return bool(request.param)


def opened(root: Path) -> LeaseLog:
    log = LeaseLog(root / "narrator.log")
    closed_in_the_end(log)
    return log


def write(log: LeaseLog, line: bytes) -> Wrote:
    """Write a line for certain, as `Leases` does."""
    while True:
        wrote = log.write(line + b"\n")
        if wrote is not Wrote.NOWHERE:
            return wrote
        log.news()


def lines(log: LeaseLog) -> list[bytes]:
    """The whole lines as somebody reads them who comes now."""
    news = opened(log.path.parent).news()
    return news.lines if news else []


@pytest.mark.usefixtures("keeps")
def test_what_was_written_behind_what_was_read_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = opened(tmp_path), opened(tmp_path)
    assert write(log, ONE) is Wrote.NEXT
    reads = []
    real = leaselog.read_at
    monkeypatch.setattr(leaselog, "read_at", lambda *arguments: reads.append(arguments) or real(*arguments))
    assert write(log, TWO) is Wrote.NEXT
    assert log.news() is None
    assert not reads
    assert other.news() == News(True, [ONE, TWO])


@pytest.mark.usefixtures("keeps")
def test_what_others_wrote_meanwhile_is_read_with_what_was_written(tmp_path: Path) -> None:
    log, other = opened(tmp_path), opened(tmp_path)
    write(log, ONE)
    other.news()
    write(other, TWO)
    assert write(log, THREE) is Wrote.AMONG_OTHERS
    assert log.news() == News(False, [TWO, THREE])
    assert other.news() == News(False, [THREE])


@pytest.mark.usefixtures("keeps")
def test_a_file_that_is_exchanged_is_known_by_its_header(tmp_path: Path) -> None:
    log, other = opened(tmp_path), opened(tmp_path)
    write(log, ONE)
    other.news()
    assert log.rewrite([TWO])
    assert other.news() == News(True, [TWO])
    assert write(other, THREE) is Wrote.NEXT
    assert log.news() == News(True, [TWO, THREE])
    assert log.kept_bytes == other.kept_bytes == len(TWO) + 1


@pytest.mark.skipif(os.name == "nt", reason="no handle is kept there")
def test_what_is_written_to_a_file_that_was_exchanged_stands_nowhere(tmp_path: Path) -> None:
    log, other = opened(tmp_path), opened(tmp_path)
    write(log, ONE)
    other.news()
    write(other, ONE)
    log.news()
    log.rewrite([ONE, ONE])
    assert other.write(TWO + b"\n") is Wrote.NOWHERE
    assert lines(log) == [ONE, ONE]
    assert write(other, TWO) is Wrote.NEXT
    assert lines(log) == [ONE, ONE, TWO]


@pytest.mark.usefixtures("keeps")
def test_a_deleted_file_is_empty_and_what_is_written_then_stands_in_a_new_one(tmp_path: Path) -> None:
    log, other = opened(tmp_path), opened(tmp_path)
    write(log, ONE)
    other.news()
    log.path.unlink()
    assert write(log, TWO) is Wrote.NEXT
    assert lines(log) == [TWO]
    assert other.news() == News(True, [TWO])


def test_the_file_is_opened_once(tmp_path: Path, keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log, other = opened(tmp_path), opened(tmp_path)
    write(log, ONE)
    write(other, TWO)
    log.news()
    count = 0
    real = os.open

    def counting(*arguments: Any) -> int:
        nonlocal count
        count += 1
        return real(*arguments)

    monkeypatch.setattr(leaselog.os, "open", counting)
    for _ in range(5):
        write(log, ONE)
        other.news()
    assert count == (0 if keeps else 10)


@pytest.mark.skipif(os.name == "nt", reason="no fork there")
def test_a_forked_child_opens_the_file_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    write(log, ONE)
    handle = log._handle
    pid = os.getpid()
    monkeypatch.setattr(leaselog.os, "getpid", lambda: pid + 1)
    assert handle is not None
    kept = os.dup(handle)  # the parent's
    try:
        assert write(log, TWO) is Wrote.NEXT
        assert os.lseek(kept, 0, os.SEEK_CUR) < log.read_bytes, "its place is left alone"
    finally:
        os.close(kept)
    assert lines(log) == [ONE, TWO]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["write", "news", "rewrite", "unlink", "tear"])), max_size=20)
)
@pytest.mark.usefixtures("keeps")
def test_whoever_reads_step_by_step_knows_what_stands_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    root = tmp_path_factory.mktemp("leases")
    logs = [opened(root) for _ in range(3)]
    known: list[list[bytes]] = [[] for _ in logs]

    def look(who: int) -> None:
        news = logs[who].news()
        if news is not None:
            known[who] = news.lines if news.anew else known[who] + news.lines

    for number, (who, step) in enumerate(steps):
        look(who)
        if step == "write":
            line = b'{"op":%d}' % number
            while (wrote := logs[who].write(line + b"\n")) is Wrote.NOWHERE:
                look(who)
            if wrote is Wrote.NEXT:
                known[who].append(line)
        elif step == "rewrite" and logs[who].path.exists():
            logs[who].rewrite(known[who][-2:])
        elif step == "unlink":
            logs[who].path.unlink(missing_ok=True)
        elif step == "tear" and logs[who].path.exists():
            with logs[who].path.open("ab") as file:
                file.write(b'{"op"')
        if step != "news":
            look(who)
        news = opened(root).news()
        assert known[who] == (news.lines if news else [])
    close_locks()

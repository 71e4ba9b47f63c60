"""The names in a folder: listed when they may have changed, and then only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mq_server import listing
from mq_server.listing import Listing


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed, one for each time."""
    folders: list[str] = []
    real_listdir = os.listdir

    def counting(folder: Any) -> list[str]:
        folders.append(folder)
        return real_listdir(folder)

    monkeypatch.setattr(os, "listdir", counting)
    return folders


def age(folder: Path, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 10) -> None:
    """Let it be a while since the folder changed, by the clock that its times are compared with."""
    changed_ns = folder.stat().st_mtime_ns
    monkeypatch.setattr(listing.time, "time_ns", lambda: changed_ns + int(seconds * 1e9))


def test_names_are_listed_once_and_are_then_the_same_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: list[str]
) -> None:
    monkeypatch.setattr(listing, "_LISTED_FOR_S", 1e9)
    (tmp_path / "a").touch()
    age(tmp_path, monkeypatch)
    folder = Listing(tmp_path)
    names = folder.names()
    assert names == {"a"}
    assert all(folder.names() is names for _ in range(5))
    assert len(listed) == 1


def test_what_comes_and_goes_is_seen(tmp_path: Path) -> None:
    folder = Listing(tmp_path / "within")
    assert folder.names() == set()
    (tmp_path / "within").mkdir()
    for number in range(50):
        (tmp_path / "within" / f"{number}").touch()
        assert folder.names() == {f"{number}"}
        (tmp_path / "within" / f"{number}").rename(tmp_path / "within" / "moved")
        assert folder.names() == {"moved"}
        (tmp_path / "within" / "moved").unlink()
        assert folder.names() == set()
    (tmp_path / "within").rmdir()
    assert folder.names() == set()
    (tmp_path / "within").touch()
    assert folder.names() == set(), "a file has no names in it"


def test_a_change_within_the_same_tick_of_the_clock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path.stat()
    monkeypatch.setattr(os, "stat", lambda path: stat)  # its times stay as they are
    folder = Listing(tmp_path)
    assert folder.names() == set()
    monkeypatch.setattr(listing.time, "time_ns", lambda: stat.st_mtime_ns + 1_000_000)
    assert folder.names() == set()
    (tmp_path / "a").touch()
    assert folder.names() == {"a"}


def test_times_that_are_kept_in_whole_seconds_are_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_LISTED_FOR_S", 1e9)
    folder = Listing(tmp_path)
    for name in "abc":
        (tmp_path / name).touch()
        os.utime(tmp_path, ns=(1_700_000_000_000_000_000,) * 2)
        stat = tmp_path.stat()
        monkeypatch.setattr(listing.time, "time_ns", lambda stat=stat: stat.st_ctime_ns + 10**10)
        assert name in folder.names()


def test_a_folder_whose_times_never_change_is_listed_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: list[str]
) -> None:
    stat = tmp_path.stat()
    now_s = 100.0
    age(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "stat", lambda path: stat)
    monkeypatch.setattr(listing.time, "monotonic", lambda: now_s)
    folder = Listing(tmp_path)
    folder.names()
    (tmp_path / "a").touch()
    now_s += 0.9
    assert folder.names() == set() and len(listed) == 1
    now_s += 0.2
    assert folder.names() == {"a"} and len(listed) == 2

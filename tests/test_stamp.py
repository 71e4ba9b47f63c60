"""Stamps: what a file looked like, kept beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server.stamp import Fingerprint, Stamp, StampFile, new_generation, set_mtime

NUMBER = st.integers(0, 2**63 - 1)
STAMPS = st.builds(
    Stamp,
    st.builds(Fingerprint, NUMBER, st.integers(-(2**63), 2**63 - 1), NUMBER, st.integers(0, 2**128 - 1)),
    NUMBER,
    NUMBER,
    NUMBER,
)


@given(STAMPS, STAMPS)
def test_a_stamp_comes_back_and_all_are_of_one_length(one: Stamp, other: Stamp) -> None:
    assert Stamp.decode(one.encode()) == one
    assert len(one.encode()) == len(other.encode())


@given(STAMPS, STAMPS, st.integers(0, 250))
def test_a_stamp_written_half_over_another_is_none(one: Stamp, other: Stamp, cut: int) -> None:
    mixed = one.encode()[:cut] + other.encode()[cut:]
    assert Stamp.decode(mixed) in (None, one, other)
    assert Stamp.decode(one.encode()[:-1]) is None


@pytest.mark.parametrize("data", [b"", b"\0" * 300, b"7" * 300, b"\n", "ü".encode() * 150])
def test_foreign_bytes_are_no_stamp(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.stamp"
    path.write_bytes(data)
    stamp = Stamp(Fingerprint(1, 2, 3, 4), 5, 6, 7)
    file = StampFile(path)
    assert file.read(None) is None
    file.write(stamp)
    assert StampFile(path).read(None) == stamp, "what stood there before must not outlast a new stamp"


def test_a_stamp_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "x.stamp").mkdir()
    StampFile(tmp_path / "x.stamp").write(Stamp(Fingerprint(1, 2, 3, 4), 5, 6, 7))
    assert StampFile(tmp_path / "x.stamp").read(None) is None


def test_a_generation_is_never_given_twice() -> None:
    seen = {new_generation(None)}
    for _ in range(5):
        generation = new_generation(None)
        while generation in seen:  # the clock did not tick meanwhile
            generation = new_generation(None)
        seen.add(generation)
        assert new_generation(Stamp(Fingerprint(1, 2, 3, 4), generation, 0, 0)) > generation
        assert new_generation(Stamp(Fingerprint(1, 2, 3, 4), 2**62, 0, 0)) > 2**62


def test_the_time_of_an_open_file_is_set_to_the_nanosecond(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    handle = os.open(path, os.O_RDWR)
    set_mtime(handle, 1_790_000_000_123_456_700)
    os.close(handle)
    assert path.stat().st_mtime_ns == 1_790_000_000_123_456_700


def test_a_folder_has_no_fingerprint_and_a_missing_file_none(tmp_path: Path) -> None:
    assert Fingerprint.at(tmp_path / "x") is None
    with pytest.raises(IsADirectoryError):
        Fingerprint.at(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="this is not a file"):
            Fingerprint.at(tmp_path / "pipe")

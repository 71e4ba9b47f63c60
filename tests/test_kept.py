"""Small files of our own that are held open: they are always the ones that have the name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mq_server import kept
from mq_server.kept import KeptFile


@pytest.fixture(params=[True, False], ids=["kept", "closed after each write"])
def keeps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways, as POSIX systems and Windows have it."""
    monkeypatch.setattr(kept, "_KEEPS", request.param)
    return bool(request.param)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[KeptFile, KeptFile]]:
    """One that is written at its start and one that is written at its end, in a folder that is not there yet."""
    both = KeptFile(tmp_path / "x" / "start", appends=False), KeptFile(tmp_path / "x" / "end", appends=True)
    yield both
    for file in both:
        file.close()


def test_what_is_written_stands_at_the_start_or_at_the_end(files: tuple[KeptFile, KeptFile], keeps: bool) -> None:
    for data in (b"one", b"two", b"3"):
        for file in files:
            file.write(data)
    assert [file.path.read_bytes() for file in files] == [b"3wo", b"onetwo3"]


def test_several_processes_write_to_one_file(files: tuple[KeptFile, KeptFile], keeps: bool) -> None:
    others = KeptFile(files[0].path, appends=False), KeptFile(files[1].path, appends=True)
    for data in (b"one", b"two"):
        for file in (*files, *others):
            file.write(data)
    assert [file.path.read_bytes() for file in files] == [b"two", b"oneonetwotwo"]
    for file in others:
        file.close()


def test_a_file_that_was_deleted_or_replaced_is_made_or_opened_anew(
    files: tuple[KeptFile, KeptFile], keeps: bool
) -> None:
    for file in files:
        file.write(b"one")
        file.path.unlink()
        file.write(b"two")
        assert file.path.read_bytes() == b"two"
        new = file.path.with_name("new")
        new.write_bytes(b"9")
        new.replace(file.path)
        file.write(b"3")
    assert [file.path.read_bytes() for file in files] == [b"3", b"93"]


def test_a_file_that_has_another_name_as_well_is_left_when_its_own_is_given_away(
    files: tuple[KeptFile, KeptFile], keeps: bool
) -> None:
    for file in files:
        file.write(b"one")
        snapshot = file.path.with_name("snapshot")
        os.link(file.path, snapshot)
        new = file.path.with_name("new")
        new.write_bytes(b"")
        new.replace(file.path)
        file.write(b"two")
        assert (snapshot.read_bytes(), file.path.read_bytes()) == (b"one", b"two")
        snapshot.unlink()


@pytest.mark.skipif(os.name == "nt", reason="no handle is kept there")
def test_the_handle_is_kept_until_it_is_closed(
    files: tuple[KeptFile, KeptFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real_open = os.open

    def counting(path: Path, flags: int, *rest: int) -> int:
        opened.append(path)
        return real_open(path, flags, *rest)

    files[0].write(b"one")
    monkeypatch.setattr(os, "open", counting)
    files[0].write(b"two")
    assert not opened
    files[0].close()
    files[0].write(b"3")
    assert opened == [files[0].path]

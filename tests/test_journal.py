"""The journal: what was written once more, and how it stays short."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mq_server import journal as journal_module
from mq_server.journal import Journal
from tests.support import known_id, line


def journal(tmp_path: Path, *lines: bytes) -> Journal:
    """A journal of these lines."""
    found = Journal(tmp_path / "journal" / "narrator.jsonl")
    for each in lines:
        found.append(each)
    return found


def test_lines_are_found_by_their_ids_in_order(tmp_path: Path) -> None:
    found = journal(tmp_path, line(1, id=known_id(1)) + line(0, id=known_id(0)), line(2, id=known_id(2)))
    assert list(found.lines()) == [known_id(1), known_id(0), known_id(2)]
    assert found.lines()[known_id(0)] == line(0, id=known_id(0))
    assert Journal(tmp_path / "none.jsonl").lines() == {}


def test_what_is_torn_or_no_line_of_ours_is_left_out(tmp_path: Path) -> None:
    found = journal(tmp_path, line(0, id=known_id(0)), b"\n", b"nonsense\n", b'{"id":"short"}\n', line(1)[:40])
    assert list(found.lines()) == [known_id(0)]


def test_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    found = journal(tmp_path, *(line(number, id=known_id(number)) for number in range(4)))
    found.keep(lambda each: each in (known_id(1), known_id(3)))
    assert list(Journal(found.path).lines()) == [known_id(1), known_id(3)]
    assert found.size_bytes == found.path.stat().st_size
    found.append(line(4, id=known_id(4)))
    assert len(found.lines()) == 3


def test_what_is_too_much_goes_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [line(number, id=known_id(number)) for number in range(10)]
    found = journal(tmp_path, *lines)
    monkeypatch.setattr(journal_module, "LIMIT_BYTES", sum(map(len, lines)) - 1)
    with caplog.at_level(logging.WARNING):
        found.keep(lambda _: True)
    kept = list(found.lines())
    assert kept == [known_id(number) for number in range(10)][-len(kept) :], "the oldest go first"
    assert 0 < len(kept) <= 5
    assert "no longer guarded" in caplog.text


def test_a_journal_that_cannot_be_written_refuses_no_post(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal").write_text("a file where a folder is needed")
    found = journal(tmp_path)
    found.append(line(0))
    assert "not guarded" in caplog.text

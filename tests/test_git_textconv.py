"""Diffs that read: a mailbox as text that git compares, and what git makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mq_server.git.textconv import WIDTH, readable
from mq_server.message import encode_line
from mq_server.render.text import columns
from tests.repositories import commit, git, mq, production
from tests.support import fields, known_id, write

PARAGRAPH = "Rain on the slates, all afternoon, and nobody in the weigh-room says a word about the empty pane."


def message(number: int, text: str = "", **keys: object) -> bytes:
    """A line that is the same in every run; `number` sets its time and its id."""
    return encode_line(fields(number, id=known_id(number), text=text or f"Message {number}.", **keys))


def text_of(*lines: bytes) -> str:
    return "\n".join(readable(b"".join(lines)))


# --- the text ---------------------------------------------------------------------------------------------------------


def test_a_message_reads_as_people_read_it() -> None:
    text = text_of(message(1, "First.\nSecond.", scene="q2-s3", reply_to=known_id(9), urgent=True))
    assert text == (
        "scene_director → narrator · note · q2-s3 · 2026-09-21 14:13:20Z · "
        f"{known_id(1)[-8:]}\n  answers {known_id(9)[-8:]} · urgent\n\n    First.\n    Second."
    )


def test_prose_is_broken_at_one_width_and_a_dialogue_stands_in_lines() -> None:
    lines = [{"who": "Vreni", "text": "Tea."}, {"who": "Kreszenz", "text": "No."}]
    text = text_of(message(1, PARAGRAPH), message(2, msg_type="dialogue", payload={"lines": lines}))
    assert max(map(columns, text.splitlines())) <= WIDTH
    assert "    Rain on the slates, all afternoon, and nobody in the weigh-room says a word\n    about the" in text
    assert "    VRENI: Tea.\n    KRESZENZ: No." in text


def test_who_it_went_to_is_read_from_the_line_since_git_does_not_tell_the_file() -> None:
    assert text_of(message(1, channel="dialogist")).startswith("scene_director → dialogist ·")
    both = message(1, to=["narrator", "dialogist"])
    assert text_of(both).startswith("scene_director → narrator, dialogist ·")
    bare = fields(1)
    del bare["channel"]
    assert text_of(encode_line(bare)).startswith("scene_director → ? ·")


def test_a_line_put_in_above_changes_nothing_below() -> None:
    below = text_of(message(3, reply_to=known_id(1)), message(4))
    assert text_of(message(1), message(2), message(3, reply_to=known_id(1)), message(4)).endswith(below)


def test_an_edit_shows_wherever_it_is_made() -> None:
    long = {f"key {number}": "value " * 30 for number in range(20)}
    payload = {"lines": [{"who": "Vreni", "text": "Tea."}], "notes": long}
    edited = payload | {"notes": long | {"key 19": "another"}}
    texts = [text_of(message(1, msg_type="dialogue", payload=each)) for each in (payload, edited)]
    assert texts[0] != texts[1]
    assert "another" in texts[1]
    assert text_of(message(1, mood=long)) != text_of(message(1, mood=long | {"key 19": "another"}))


def test_what_cannot_be_read_is_shown_as_it_stands() -> None:
    text = text_of(message(1), b"\n", message(2)[:60] + b"\n", b"<<<<<<< ours\n", b"\xff{}\n")
    assert "\nline 3: torn line: it breaks off before its end\n\n    {" in text
    assert "\nline 4: git conflict marker: keep one line for each message" in text
    assert "\n    <<<<<<< ours\n" in text
    assert "    \\xff{}" in text


def test_nothing_acts_on_the_terminal() -> None:
    escape = "\x1b]0;owned\x07\u202etxt"
    lines = [message(1, escape, sender=escape, scene=escape, extra=escape), b'{"torn \x1b[2J\x9b\n']
    text = text_of(*lines)
    assert not set(text) & {"\x1b", "\x07", "\u202e", "\x9b"}
    assert "␛]0;owned␇" in text


def test_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    plain = message(1) + message(2)
    assert text_of(b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n")) == text_of(plain.rstrip(b"\n")) == text_of(plain)
    assert text_of(b"") == ""


# --- in git -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, plain_git: None) -> Path:
    """A production in a repository that was set up, with one commit."""
    root = production(tmp_path / "repository")
    mq(root, "init")
    write(root / "narrator.jsonl", message(1, "Rain."), message(4, "More rain."))
    write(root / "receipts" / "narrator.jsonl", b"{}\n")
    commit(root, "first")
    mq(root, "git-setup")
    git(root, "config", "core.hooksPath", "nowhere")  # the check before a commit takes time, and is tested elsewhere
    return root


def changed(diff: str) -> list[str]:
    """The lines that a diff adds or takes away."""
    lines = [line for line in diff.splitlines() if line.startswith(("+", "-"))]
    return [line for line in lines if not line.startswith(("+++", "---"))]


def test_git_shows_a_message_that_a_merge_put_in_between_and_nothing_else(root: Path) -> None:
    write(root / "narrator.jsonl", message(1, "Rain."), message(2, "Snow,\nafter all."), message(4, "More rain."))
    for command in (["diff"], ["log", "-p", "-1"], ["show", "HEAD"]):
        if command[0] == "log":
            commit(root, "second")
        lines = [line for line in changed(git(root, *command)) if line != "+"]
        assert lines == [f"+{line}" for line in text_of(message(2, "Snow,\nafter all.")).splitlines() if line]


def test_git_shows_an_edit_and_a_torn_line(root: Path) -> None:
    write(root / "narrator.jsonl", message(1, "Sleet."), message(4, "More rain."), message(5)[:30])
    removed, added, _, torn, *_ = changed(git(root, "diff"))
    assert (removed, added) == ("-    Rain.", "+    Sleet.")
    assert torn == "+line 3: torn line: it breaks off before its end"


def test_git_shows_nothing_of_receipts_but_that_they_changed(root: Path) -> None:
    write(root / "receipts" / "narrator.jsonl", b"{}\n{}\n")
    assert changed(git(root, "diff")) == []
    assert "Binary files" in git(root, "diff")


def test_git_caches_the_text_and_the_cache_says_the_same(root: Path) -> None:
    write(root / "narrator.jsonl", message(1, "Rain."))
    commit(root, "second")
    fresh = git(root, "show", "HEAD")
    assert git(root, "for-each-ref", "refs/notes/textconv/mailbox")
    assert git(root, "show", "HEAD") == fresh
    git(root, "config", "diff.mailbox.textconv", "false")
    assert git(root, "show", "--no-textconv", "HEAD") != fresh


def test_the_text_is_utf8_with_plain_line_ends_whatever_the_locale(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", message(1, "Köbi → „Tee“"))
    command = [sys.executable, "-m", "mq_server", "textconv", str(file)]
    printed = subprocess.run(command, env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert "    Köbi → „Tee“\n".encode() in printed.stdout
    assert b"\r" not in printed.stdout

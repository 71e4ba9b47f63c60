"""Merging mailboxes: as a function, whatever the sides did; and by git itself, whatever git calls it for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mq_server.blocks import BOM
from mq_server.delivery import receipt_fields
from mq_server.git.merging import Merged, merge, when_of
from mq_server.message import encode_line
from mq_server.names import format_time
from tests.repositories import commit, git, mq, production
from tests.support import START_US, examples, fields, known_id, write


def message(number: int, text: str = "", **keys: object) -> bytes:
    """A line that is the same in every run, without its end; `number` sets its time and its id."""
    return encode_line(fields(number, id=known_id(number), text=text or f"message {number}", **keys)).rstrip(b"\n")


def receipt(number: int, reason: str = "") -> bytes:
    """The same for a receipt."""
    stamped = format_time(START_US + number * 1000)
    line = receipt_fields(
        known_id(number), stamped, "narrator", "narrator", "worker", "ack", [known_id(1)], reason=reason
    )
    return encode_line(line).rstrip(b"\n")


def file(*lines: bytes) -> bytes:
    """A file of these lines."""
    return b"".join(line + b"\n" for line in lines)


def of(*numbers: int) -> bytes:
    """A file of the messages of these numbers."""
    return file(*map(message, numbers))


TORN = message(900)[:80]


def both_ways(base: bytes, ours: bytes, theirs: bytes) -> bytes:
    """The merged file, which is the same in either direction, and stays when it is merged again."""
    merged = merge(base, ours, theirs)
    assert merged.conflicts == 0, merged.data
    assert merge(base, theirs, ours) == merged
    assert merge(base, merged.data, theirs) == merge(base, ours, merged.data) == merged
    return merged.data


# --- what the sides did, one thing at a time --------------------------------------------------------------------------


def test_what_both_sides_appended_stands_in_the_order_of_time_behind_the_fork() -> None:
    assert both_ways(of(1, 2), of(1, 2, 4, 6), of(1, 2, 3, 5)) == of(1, 2, 3, 4, 5, 6)


def test_lines_before_the_fork_keep_their_place_whatever_their_time() -> None:
    assert both_ways(of(9, 2, 5), of(9, 2, 5, 7), of(9, 2, 5, 6)) == of(9, 2, 5, 6, 7)


def test_messages_of_one_moment_stand_in_the_order_of_their_ids() -> None:
    time_ = format_time(START_US)
    low, high = sorted((message(3, timestamp=time_), message(4, timestamp=time_)), key=lambda line: line[:40])
    assert both_ways(b"", file(high), file(low)) == file(low, high)


def test_two_sides_that_both_made_the_file_merge() -> None:
    assert both_ways(b"", of(1, 3), of(2, 3)) == of(1, 2, 3)


def test_a_line_that_both_sides_got_stands_once() -> None:
    assert both_ways(of(1), of(1, 2, 4), of(1, 3, 4)) == of(1, 2, 3, 4)


def test_lines_that_repeat_become_one() -> None:
    assert both_ways(of(1, 2), of(1, 2, 3, 3, 1), of(1, 2, 4, 2, 4)) == of(1, 2, 3, 4)


def test_an_edit_on_one_side_stands_and_the_other_side_s_lines_too() -> None:
    base, edited = of(1, 2, 3), file(message(1), message(2, "edited"), message(3))
    assert both_ways(base, edited, of(1, 2, 3, 4)) == edited + of(4)
    again = file(message(1, "mended"), message(2), message(3), message(5))
    assert both_ways(base, edited, again) == file(message(1, "mended"), message(2, "edited"), message(3), message(5))


def test_a_line_that_one_side_took_away_stays_away() -> None:
    assert both_ways(of(1, 2, 3), of(1, 3, 4), of(1, 2, 3, 5)) == of(1, 3, 4, 5)
    assert both_ways(of(1, 2, 3, 4), of(2, 3, 4), of(1, 2, 3, 5)) == of(2, 3, 5)


def test_a_mailbox_whose_oldest_lines_were_archived_merges_with_one_that_grew() -> None:
    everything, kept = range(1, 200), range(150, 200)
    assert both_ways(of(*everything), of(*kept), of(*everything, 200, 201)) == of(*kept, 200, 201)
    assert both_ways(of(*everything), of(*kept, 200), of(*everything, 201)) == of(*kept, 200, 201)
    assert both_ways(of(*everything), of(*kept), of(*range(120, 200))) == of(*kept)


def test_what_an_earlier_merge_put_between_lines_stays_there() -> None:
    assert both_ways(of(1, 4), of(1, 2, 4), of(1, 4, 5)) == of(1, 2, 4, 5)


def test_unknown_keys_and_the_bytes_of_a_line_are_kept() -> None:
    spaced = message(2).replace(b'","', b'",  "').replace(b'"payload"', b'"mood":"wistful","payload"')
    assert both_ways(of(1), of(1, 3), file(message(1), spaced)) == file(message(1), spaced, message(3))


def test_receipts_merge_like_messages() -> None:
    base, ours, theirs = receipt(1), receipt(3), receipt(2)
    assert both_ways(file(base), file(base, ours), file(base, theirs)) == file(base, theirs, ours)
    merged = merge(file(base), file(receipt(1, "late")), file(receipt(1, "wrong")))
    assert merged.conflicts == 1


# --- conflicts --------------------------------------------------------------------------------------------------------


def test_a_line_edited_on_both_sides_is_a_conflict_and_all_else_is_merged() -> None:
    ours = file(message(1), message(2, "ours"), message(3), message(5))
    theirs = file(message(1), message(2, "theirs"), message(3), message(4))
    expected = [message(1), b"<<<<<<< ours", message(2, "ours"), b"=======", message(2, "theirs"), b">>>>>>> theirs"]
    assert merge(of(1, 2, 3), ours, theirs) == Merged(file(*expected) + of(3, 4, 5), 1)
    assert merge(of(1, 2, 3), ours, theirs, marker_size=9).data.count(b"\n=========\n") == 1


def test_a_line_edited_on_one_side_and_taken_away_on_the_other_is_a_conflict() -> None:
    merged = merge(of(1, 2, 3), of(1, 3), file(message(1), message(2, "theirs"), message(3), message(4)))
    expected = [message(1), b"<<<<<<< ours", b"=======", message(2, "theirs"), b">>>>>>> theirs", message(3)]
    assert merged == Merged(file(*expected, message(4)), 1)


def test_one_id_that_both_sides_gave_to_different_lines_is_a_conflict() -> None:
    assert merge(of(1), file(message(1), message(2, "a")), file(message(1), message(2, "b"))).conflicts == 1


def test_a_conflict_that_stands_unresolved_in_the_file_is_merged_as_lines() -> None:
    conflict = merge(of(1, 2), file(message(1), message(2, "a")), file(message(1), message(2, "b"))).data
    assert both_ways(conflict, conflict + of(4), conflict + of(3)) == conflict + of(3, 4)
    assert both_ways(conflict, of(1, 2), conflict + of(3)) == of(1, 2, 3)


# --- what can't be read -----------------------------------------------------------------------------------------------


def test_a_torn_line_stays_behind_the_line_it_follows() -> None:
    assert both_ways(of(1), file(message(1), message(2), TORN, message(5)), of(1, 3)) == file(
        message(1), message(2), TORN, message(3), message(5)
    )
    assert both_ways(of(1), file(message(1), TORN), of(1, 2)) == file(message(1), TORN, message(2))
    assert both_ways(b"", file(TORN), of(2)) == file(TORN, message(2))


def test_a_torn_end_is_never_glued_to_what_the_other_side_appended() -> None:
    assert both_ways(of(1) + TORN, of(1) + TORN + b"\n" + of(3), of(1) + TORN + b"\n" + of(2)) == file(
        message(1), TORN, message(2), message(3)
    )


def test_torn_lines_of_both_sides_stay_and_one_that_was_mended_is_gone() -> None:
    other = message(901)[:90]
    assert both_ways(of(1), file(message(1), TORN), file(message(1), other)) == file(message(1), TORN, other)
    assert both_ways(file(message(1), TORN), file(message(1), message(900)), file(message(1), TORN, message(2))) == of(
        1, 2, 900
    )


def test_equal_lines_that_cannot_be_read_stay_apart() -> None:
    theirs = file(message(1), message(5), b"}", message(2), b"}")
    assert both_ways(of(1), of(1, 3), theirs) == file(message(1), message(2), b"}", message(3), message(5), b"}")


def test_a_message_that_somebody_broke_across_lines_stays_together() -> None:
    broken = [b"{", b'  "id": "x",', b"", b"}"]
    ours = file(message(1), *broken, message(3))
    theirs = file(message(1), b"[", b"]", message(2))
    assert both_ways(of(1), ours, theirs) == file(message(1), b"[", b"]", *broken, message(2), message(3))


# --- line ends --------------------------------------------------------------------------------------------------------


def test_line_ends_and_a_byte_order_mark_of_one_side_change_nothing() -> None:
    theirs = BOM + of(1, 2, 4).replace(b"\n", b"\r\n")
    assert both_ways(of(1, 2), of(1, 2, 3), theirs) == of(1, 2, 3, 4)
    assert both_ways(of(1, 2), of(1, 2, 3).rstrip(b"\n"), of(1, 2, 4).rstrip(b"\n")) == of(1, 2, 3, 4)


def test_a_file_that_has_them_on_both_sides_keeps_them() -> None:
    def dressed(data: bytes) -> bytes:
        return BOM + data.replace(b"\n", b"\r\n")

    assert both_ways(dressed(of(1)), dressed(of(1, 3)), dressed(of(1, 2))) == dressed(of(1, 2, 3))


# --- whatever the sides did -------------------------------------------------------------------------------------------

NUMBERS = st.integers(0, 15)
LINES = st.one_of(
    st.builds(message, NUMBERS),
    st.builds(message, NUMBERS, st.sampled_from(["edited", "again"])),
    st.sampled_from([TORN, b"}", b"", b"=======", message(3)[:60]]),
)
FILES = st.lists(LINES, max_size=8)


@st.composite
def edited_from(draw: st.DrawFn, base: list[bytes]) -> list[bytes]:
    """A version of a file: lines taken away, edited, put in, appended."""
    lines: list[bytes] = []
    for line in base:
        done = draw(st.sampled_from(["keep", "keep", "keep", "remove", "replace", "insert"]))
        if done != "remove":
            lines.append(draw(LINES) if done == "replace" else line)
        if done == "insert":
            lines.append(draw(LINES))
    return lines + draw(FILES)


@st.composite
def versions(draw: st.DrawFn, count: int = 2) -> list[bytes]:
    """A base and versions that come from it."""
    base = draw(FILES)
    files = [base, *(draw(edited_from(base)) for _ in range(count))]
    return [draw(st.sampled_from([b"", b"", BOM])) + file(*lines) for lines in files]


def lines_of(data: bytes) -> list[bytes]:
    return data.removeprefix(BOM).split(b"\n")


def without_repeats(data: bytes) -> bytes:
    """A file whose lines stand once each.

    If one side takes one of two equal lines away and the other adds a third, nobody can tell which is which.
    """
    mark = BOM if data.startswith(BOM) else b""
    return mark + b"".join(dict.fromkeys(data.removeprefix(BOM).splitlines(keepends=True)))


def is_plain(data: bytes) -> bool:
    """Whether all of a file can be read, or it is in the order of time: else a line that can't be read may move."""
    found = [when_of(line) for line in lines_of(data)[:-1]]
    dated = [when for when in found if when]
    return None not in found or dated == sorted(dated)


def without_markers(merged: Merged) -> list[bytes]:
    return sorted(line for line in lines_of(merged.data) if not line.startswith((b"<<<<<<<", b">>>>>>>", b"=======")))


@given(versions())
@examples(300)
def test_the_merge_does_not_depend_on_whose_side_is_whose(files: list[bytes]) -> None:
    base, ours, theirs = files
    forth, back = merge(base, ours, theirs), merge(base, theirs, ours)
    assert forth.conflicts == back.conflicts
    if forth.conflicts:
        assert without_markers(forth) == without_markers(back)
    else:
        assert forth == back


@given(versions())
@examples(300)
def test_merging_again_changes_nothing(files: list[bytes]) -> None:
    base, ours, theirs = map(without_repeats, files)
    assert merge(base, ours, ours).data == ours
    assert merge(base, base, ours).data == merge(base, ours, base).data == ours
    merged = merge(base, ours, theirs)
    assume(not merged.conflicts and merged.data != base)  # a side that ends up as the base says nothing
    for side in (ours, theirs):
        again = merge(base, merged.data, side)
        assert sorted(lines_of(again.data)) == sorted(lines_of(merged.data))
        if all(map(is_plain, (base, ours, theirs))):
            assert again == merged
        assert merge(side, merged.data, side) == merged


@given(versions())
@examples(300)
def test_every_line_is_there_unless_a_side_took_it_away(files: list[bytes]) -> None:
    base, ours, theirs = (set(lines_of(data)) for data in files)
    merged = set(lines_of(merge(*files).data))
    assert (ours & theirs) | (ours - base) | (theirs - base) <= merged
    conflicted = {b"<<<<<<< ours", b"=======", b">>>>>>> theirs"}
    assert merged - conflicted <= ours | theirs
    kept = (merged & base) - ours - theirs
    assert kept <= {b"", b"======="}


@given(versions())
@examples(200)
def test_every_message_stands_once(files: list[bytes]) -> None:
    base, ours, theirs = files
    assume(base not in (ours, theirs) and ours != theirs)
    merged = merge(base, ours, theirs)
    assume(not merged.conflicts)
    readable = [line for line in lines_of(merged.data) if when_of(line)]
    shared = itertools.takewhile(lambda each: each[0] == each[1] == each[2], zip(*map(lines_of, files), strict=False))
    repeated = len(before := [each[0] for each in shared if when_of(each[0])]) - len(set(before))
    assert len(readable) - len(set(readable)) == repeated


@given(st.sets(NUMBERS), st.lists(st.sets(NUMBERS), min_size=3, max_size=3))
@examples(100)
def test_three_branches_give_the_same_file_in_whatever_order_they_are_merged(
    base: set[int], added: Sequence[set[int]]
) -> None:
    start = of(*sorted(base))
    branches = [of(*sorted(base), *sorted(numbers - base)) for numbers in added]
    outcomes = set()
    for first, second, third in itertools.permutations(branches):
        outcomes.add(merge(start, merge(start, first, second).data, third).data)
    assert len(outcomes) == 1


@pytest.mark.parametrize("archived", [False, True])
def test_a_long_mailbox_is_merged_in_seconds(archived: bool) -> None:
    count = 100_000
    line = message(0)
    base = b"".join(line.replace(known_id(0).encode(), b"%026d" % number) + b"\n" for number in range(count))
    ours = base[base.index(b"\n", len(base) // 2) + 1 :] if archived else base
    ours, theirs = ours + of(count + 1, count + 3), base + of(count, count + 2)
    started = time.process_time()
    merged = merge(base, ours, theirs)
    assert time.process_time() - started < 2
    assert merged.data.endswith(of(count, count + 1, count + 2, count + 3))


# --- by git -----------------------------------------------------------------------------------------------------------

MAILBOXES = ("narrator.jsonl", "receipts/narrator.jsonl")


def save(root: Path, *numbers: int) -> None:
    """A mailbox of these messages, and a receipt for each."""
    write(root / MAILBOXES[0], of(*numbers))
    write(root / MAILBOXES[1], file(*map(receipt, numbers)))


def assert_saved(root: Path, *numbers: int) -> None:
    assert (root / MAILBOXES[0]).read_bytes() == of(*numbers)
    assert (root / MAILBOXES[1]).read_bytes() == file(*map(receipt, numbers))


def is_set_up(root: Path) -> Path:
    """The clone merges by message; the check before each commit, which takes time, is tested elsewhere."""
    mq(root, "git-setup")
    git(root, "config", "core.hooksPath", "nowhere")
    return root


def branch(root: Path, name: str, *numbers: int, start: str = "main") -> None:
    """A commit on a branch of its own, with these messages."""
    git(root, "checkout", "--quiet", "-B", name, start)
    save(root, *numbers)
    commit(root, name)


@pytest.fixture
def root(tmp_path: Path, plain_git: None) -> Path:
    """A production in a repository that was not set up: from `main` come `ours` and `theirs`, which is checked out."""
    root = production(tmp_path / "repository")
    mq(root, "init")
    save(root, 1, 2)
    commit(root, "main")
    branch(root, "ours", 1, 2, 3, 5)
    branch(root, "theirs", 1, 2, 4)
    return root


@pytest.mark.parametrize("sides", [("ours", "theirs"), ("theirs", "ours")])
def test_git_merges_by_message_in_either_direction(root: Path, sides: tuple[str, str]) -> None:
    git(is_set_up(root), "checkout", "--quiet", sides[0])
    git(root, "merge", "--quiet", "--no-edit", sides[1])
    assert_saved(root, 1, 2, 3, 4, 5)


def test_a_rebase_puts_commit_after_commit_into_the_order_of_time(root: Path) -> None:
    branch(root, "ours", 1, 2, 3, 5, 6, start="ours")
    git(is_set_up(root), "rebase", "--quiet", "theirs")
    assert_saved(root, 1, 2, 3, 4, 5, 6)
    git(root, "checkout", "--quiet", "HEAD~1")
    assert_saved(root, 1, 2, 3, 4, 5)


def test_a_cherry_pick_brings_what_its_commit_brought_and_the_branch_merges_later(root: Path) -> None:
    branch(root, "ours", 1, 2, 3, 5, 6, start="ours")
    git(is_set_up(root), "checkout", "--quiet", "theirs")
    git(root, "cherry-pick", "ours")
    assert_saved(root, 1, 2, 4, 6)
    git(root, "merge", "--quiet", "--no-edit", "ours")
    assert_saved(root, 1, 2, 3, 4, 5, 6)


def test_a_stash_comes_back_into_a_mailbox_that_grew(root: Path) -> None:
    save(is_set_up(root), 1, 2, 4, 7)
    git(root, "stash", "--quiet")
    save(root, 1, 2, 4, 6)
    commit(root)
    git(root, "stash", "pop", "--quiet")
    assert_saved(root, 1, 2, 4, 6, 7)


def test_clones_that_pull_from_each_other_end_up_with_the_same_files(root: Path, tmp_path: Path) -> None:
    git(is_set_up(root), "checkout", "--quiet", "main")
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", "--branch", "main", str(root.parents[1]), str(other))
    for setting in ("user.name", "user.email"):
        git(other, "config", setting, "other@example.org")
    other_root = is_set_up(other / root.relative_to(root.parents[1]))
    branch(other_root, "main", 1, 2, 4, 6)
    branch(root, "main", 1, 2, 3, 5)
    git(other, "pull", "--quiet", "--no-rebase", "--no-edit", "origin", "main")
    git(root, "pull", "--quiet", str(other), "main")
    for each in (root, other_root):
        assert_saved(each, 1, 2, 3, 4, 5, 6)


def test_a_branch_that_archived_merges_with_one_that_grew(root: Path) -> None:
    branch(is_set_up(root), "ours", 2, 5)
    write(root / "archive" / "2026-09" / "narrator.jsonl", of(1))
    commit(root)
    git(root, "merge", "--quiet", "--no-edit", "theirs")
    assert_saved(root, 2, 4, 5)
    assert (root / "archive" / "2026-09" / "narrator.jsonl").read_bytes() == of(1)


def test_a_conflict_stands_between_markers_until_somebody_settles_it(root: Path) -> None:
    git(is_set_up(root), "checkout", "--quiet", "ours")
    for name in ("ours", "theirs"):
        git(root, "checkout", "--quiet", name)
        data = (root / MAILBOXES[0]).read_bytes().replace(message(2), message(2, name))
        write(root / MAILBOXES[0], data)
        commit(root)
    said = git(root, "merge", "ours", codes=(1,))
    assert "CONFLICT (content): Merge conflict in season 1" in said
    markers = [b"<<<<<<< ours", message(2, "theirs"), b"=======", message(2, "ours"), b">>>>>>> theirs"]
    assert (root / MAILBOXES[0]).read_bytes() == file(message(1), *markers) + of(3, 4, 5)
    problems = mq(root, "check", code=1).stdout
    assert [number for number in range(1, 10) if f"narrator.jsonl:{number}: git conflict" in problems] == [2, 4, 6]
    write(root / MAILBOXES[0], file(message(1), message(2, "ours")) + of(3, 4, 5))
    commit(root, "merged")
    mq(root, "check")


def test_a_merge_that_fails_is_never_taken_for_done(root: Path) -> None:
    is_set_up(root)
    versions = [str(write(root.parent / name, of(1))) for name in ("base", "ours")]
    failed = mq(root, "merge-driver", *versions, str(root / "nowhere"), "7", "narrator.jsonl", code=129)
    assert "narrator.jsonl could not be merged" in failed.stderr
    git(root, "config", "merge.mailbox.driver", "exit 129")
    before = git(root, "rev-parse", "HEAD")
    git(root, "merge", "ours", codes=(1, 2, 128))  # older versions of git take it for a conflict
    assert git(root, "rev-parse", "HEAD") == before
    assert git(root, "status", "--porcelain")


@pytest.mark.parametrize("sides", [("ours", "theirs"), ("theirs", "ours")])
def test_a_clone_without_the_set_up_merges_too_and_loses_nothing(
    root: Path, tmp_path: Path, sides: tuple[str, str]
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(root.parents[1]), str(clone))
    for setting in ("user.name", "user.email"):
        git(clone, "config", setting, "other@example.org")
    git(clone, "checkout", "--quiet", sides[0])
    git(clone, "merge", "--quiet", "--no-edit", f"origin/{sides[1]}")
    merged = clone / root.relative_to(root.parents[1])
    assert sorted((merged / MAILBOXES[0]).read_bytes().splitlines()) == of(1, 2, 3, 4, 5).splitlines()
    assert sorted((merged / MAILBOXES[1]).read_bytes().splitlines()) == sorted(map(receipt, range(1, 6)))
    mq(merged, "check")


def test_a_clone_without_the_set_up_keeps_both_forms_of_a_line_and_the_check_says_so(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "edited", "main")
    write(root / MAILBOXES[0], file(message(1), message(2, "edited")))
    commit(root)
    git(root, "merge", "--quiet", "--no-edit", "theirs")
    assert set((root / MAILBOXES[0]).read_bytes().splitlines()) == {message(2, "edited"), *of(1, 2, 4).splitlines()}
    assert mq(root, "check", code=1).stdout.count("stands on another line with different content") == 2

"""The index of a mailbox, kept for the next process."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import indexfile, intake
from mq_server.columns import ChannelIndex, Names
from mq_server.logfile import View
from mq_server.mailbox import Mailbox
from mq_server.mailroom import Mailroom
from mq_server.names import format_time, id_number
from mq_server.stamp import Fingerprint
from mq_server.store import Store
from tests.support import START_US, append, ask, closed_in_the_end, examples, known_id, line, new_log, run, write

OLD_S = 1000.0
ID_A = known_id(0)


@pytest.fixture(autouse=True)
def short_ones_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq_server.mailbox._KEPT_ROWS", 1)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the lines that were indexed."""
    numbers: list[int] = []
    real = intake.taken_in

    def counting(lines: Any) -> Any:
        some = list(lines)
        numbers.extend(number for _, number, _ in some)
        return real(some)

    monkeypatch.setattr("mq_server.columns.taken_in", counting)
    return numbers


def facts(index: ChannelIndex) -> dict[str, object]:
    """Everything an index says."""
    rows = range(len(index))
    return {
        "places": [(index.path(row), index.offsets[row], index.lengths[row], index.lines[row]) for row in rows],
        "keys": [index.key(row) for row in rows],
        "texts": [(index.sender(row), index.msg_type(row), index.scene(row)) for row in rows],
        "order": list(index.by_time()),
        "sums": [index.sum_before(index.key(row)) for row in rows] + [index.sum_before((2**62, 0))],
        "rows": dict(index.rows),
        "ends": [list(index.ends_with(known_id(number)[-4:])) for number in range(8)],
        "replies": {parent: sorted(children) for parent, children in index.replies.items() if children},
        "links": (dict(index.parents), index.replaces, index.expires_us, index.urgent),
        "keyed": [index.keyed(index._names.known(sender), "k") for sender in "abcx"],
        "problems": sorted(index.problems),
        "at_line": [index.at_line(number) for number in range(40)],
        "archived_at_line": [list(index.archived_at_line(number)) for number in range(40)],
        "archived": index.archived,
    }


def process(root: Path, names: Names | None = None, *, distrusts: bool = False) -> dict[str, object]:
    """What a process that begins now says of the narrator's mailbox; it leaves its index behind, unless it distrusts
    everything."""

    async def work() -> dict[str, object]:
        store = Store(root)
        mailbox = Mailbox(store, "narrator", names or Names())
        if distrusts:
            mailbox.distrust()
            mailbox._kept_rows = 1 << 40
        try:
            assert await mailbox.keep_up(store.months())
            await mailbox.kept()
            return facts(mailbox.reading)
        finally:
            await store.close()

    return run(work())


def afresh(root: Path) -> dict[str, object]:
    """What the files say."""
    return process(root, distrusts=True)


def kept(root: Path) -> Path:
    return root / ".mq/index/narrator.bin"


def aged(path: Path) -> None:
    """Let a file have been saved a while ago, as files of earlier processes mostly were."""
    seconds = path.stat().st_mtime - OLD_S
    os.utime(path, (seconds, seconds))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".mq").mkdir()
    append(new_log(tmp_path), b"".join(line(number, id=known_id(number)) for number in range(20)))
    return tmp_path


def test_the_next_process_indexes_nothing(root: Path, taken: list[int]) -> None:
    first = process(root)
    assert taken == list(range(1, 21))
    assert kept(root).exists()
    taken.clear()
    assert process(root) == first
    assert not taken


def test_the_next_process_indexes_what_was_appended_meanwhile(root: Path, taken: list[int]) -> None:
    process(root)
    append(new_log(root), line(20, id=known_id(20), reply_to=known_id(3)))
    taken.clear()
    found = process(root)
    assert taken == [21]
    assert found == afresh(root)


def test_the_history_of_a_long_mailbox_is_indexed_once(root: Path, taken: list[int]) -> None:
    first = ask(root, lambda room: room.history("narrator", limit=3))
    assert len(taken) == 20
    taken.clear()
    assert ask(root, lambda room: room.history("narrator", limit=3)) == first
    assert not taken


def test_a_check_reads_the_lines_whatever_was_kept(root: Path, taken: list[int]) -> None:
    process(root)
    taken.clear()
    assert ask(root, Mailroom.check).messages == 20
    assert taken == list(range(1, 21))


def test_an_edit_of_the_same_size_between_two_processes_is_noticed(root: Path) -> None:
    process(root)
    path = root / "narrator.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"sender":"scene_director"', b'"sender":"scene_DIRECTOR"', 1))
    found = process(root)
    assert found == afresh(root)
    assert found["texts"][0][0] == "scene_DIRECTOR"  # type: ignore[index]


def test_a_mailbox_that_was_put_in_place_of_another_is_read(root: Path) -> None:
    process(root)
    path = root / "narrator.jsonl"
    seen = path.stat()
    other = write(root / "other", path.read_bytes().replace(b"scene_director", b"scene_DIRECTOR"))
    os.utime(other, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    other.replace(path)
    assert process(root) == afresh(root)


def test_a_mailbox_whose_end_a_power_cut_took_is_read(root: Path, taken: list[int]) -> None:
    path = root / "narrator.jsonl"
    last = line(19, id=known_id(19))

    async def work() -> None:
        store = Store(root)
        mailbox = Mailbox(store, "narrator", Names())
        await mailbox.keep_up([])
        await mailbox.kept()
        path.write_bytes(path.read_bytes()[: -len(last)] + bytes(len(last)))
        aged(path)
        mailbox.view, mailbox._kept_rows = View(Fingerprint.at(path), settled=True), 0  # as if it looked the same
        mailbox._keep()
        await mailbox.kept()
        await store.close()

    run(work())
    taken.clear()
    assert len(process(root)["places"]) == 19  # type: ignore[arg-type]
    assert taken


def test_an_index_from_a_copied_folder_is_not_believed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    process(root)
    append(new_log(root), line(30, id=known_id(30)))
    there = tmp_path_factory.mktemp("there") / "production"
    shutil.copytree(root, there)
    append(new_log(there), line(31, id=known_id(31)))
    assert process(there) == afresh(there)
    shutil.copy2(kept(there), kept(root))
    assert process(root) == afresh(root)
    shutil.rmtree(root / ".mq/stamps")
    assert process(root) == afresh(root)


def test_an_index_of_another_channel_is_not_believed(root: Path) -> None:
    process(root)
    (root / "narrator.jsonl").rename(root / "dialogist.jsonl")
    shutil.copy2(kept(root), kept(root).with_name("dialogist.bin"))
    index = ChannelIndex("dialogist", "dialogist.jsonl", Names(), lambda at, length: b"")
    assert load(root, "dialogist", index) is None


def load(root: Path, channel: str, index: ChannelIndex) -> tuple[View, dict[str, View]] | None:
    store = Store(root)
    closed_in_the_end(store.mailbox(channel))
    return store.kept_index(channel).load(index, index._names, lambda view: True, lambda path: lambda at, length: b"")


def damages(data: bytes) -> Iterator[bytes]:
    """A kept file that is no good."""
    yield b""
    yield from (data[:size] for size in range(1, len(data), 97))
    yield data[:-1]
    yield data + b"x"
    for place in range(0, len(data), 61):
        yield data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def test_a_damaged_file_is_as_good_as_none(root: Path, taken: list[int]) -> None:
    first = process(root)
    whole = kept(root).read_bytes()
    for damaged in damages(whole):
        kept(root).write_bytes(damaged)
        assert load(root, "narrator", ChannelIndex("narrator", "", Names(), lambda at, length: b"")) is None
    for expected in (20, 0):
        taken.clear()
        assert process(root) == first
        assert len(taken) == expected


def test_who_is_cancelled_takes_no_news_along(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(root)

    async def cancelled(self: Mailbox) -> bool:
        raise asyncio.CancelledError

    async def work() -> None:
        store = Store(root)
        mailbox = Mailbox(store, "narrator", Names())
        with monkeypatch.context() as patch:
            patch.setattr(Mailbox, "refresh", cancelled)
            with pytest.raises(asyncio.CancelledError):
                await mailbox.keep_up([])
        assert not mailbox.has_kept_up([])
        assert await mailbox.keep_up([])
        assert mailbox.has_kept_up([])
        assert len(mailbox.reading) == 20
        await store.close()

    run(work())


def test_an_index_that_was_found_wrong_is_written_anew(root: Path, taken: list[int]) -> None:
    process(root)

    async def work() -> None:
        store = Store(root)
        mailbox = Mailbox(store, "narrator", Names())
        await mailbox.keep_up([])
        await mailbox.kept()
        kept(root).write_bytes(kept(root).read_bytes()[:-1] + b"?")  # as a power cut may leave it
        mailbox.distrust()
        await mailbox.keep_up([])
        await mailbox.kept()
        await store.close()

    run(work())
    taken.clear()
    process(root)
    assert not taken


def test_a_file_of_another_version_is_replaced(root: Path, monkeypatch: pytest.MonkeyPatch, taken: list[int]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(indexfile, "_FIRST_LINE", indexfile._FIRST_LINE.replace(b"mq-index 1", b"mq-index 0"))
        first = process(root)
    for expected in (20, 0):
        taken.clear()
        assert process(root) == first
        assert len(taken) == expected


def test_names_have_the_numbers_of_the_process_that_reads(root: Path) -> None:
    append(new_log(root), line(20, sender="a", dedup_key="k", scene="s1"))
    process(root)
    names = Names()
    for text in ("s1", "zz", "a"):
        names.number(text)
    found = process(root, names)
    assert found == afresh(root)
    assert found["keyed"] == [20, None, None, None]


def test_without_runtime_state_nothing_is_kept(tmp_path: Path) -> None:
    aged(write(tmp_path / "narrator.jsonl", line(1)))
    process(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["narrator.jsonl"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that may only be read")
def test_a_folder_that_may_only_be_read_is_read(root: Path) -> None:
    (root / ".mq").chmod(0o500)
    assert process(root) == process(root)
    (root / ".mq").chmod(0o700)
    assert not kept(root).exists()


def test_what_cannot_be_written_is_left_out(root: Path) -> None:
    kept(root).parent.write_bytes(b"no folder")
    assert process(root) == process(root)


def test_nothing_is_written_while_somebody_else_writes_it(root: Path) -> None:
    store = Store(root)
    with store.kept_index("narrator")._lock.held(1):
        process(root)
        assert not kept(root).exists()
    process(root)
    assert [path.name for path in kept(root).parent.iterdir()] == ["narrator.bin"]
    run(store.close())


def test_an_index_is_kept_again_when_an_eighth_has_come(root: Path) -> None:
    async def work() -> list[int]:
        store = Store(root)
        mailbox = Mailbox(store, "narrator", Names())
        kept_at = []
        for number in range(20, 40):
            before = mailbox._kept_rows
            await mailbox.keep_up([])
            await mailbox.kept()
            if mailbox._kept_rows != before:
                kept_at.append(len(mailbox.reading))
            append(new_log(root), line(number))
        await store.close()
        return kept_at

    assert run(work()) == [20, 23, 27, 31, 36]


def test_of_several_processes_one_keeps_what_has_come(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = indexfile._write
    monkeypatch.setattr(indexfile, "_write", lambda *given: (written.append(given), real(*given))[1])

    async def work() -> None:
        stores = [Store(root) for _ in range(3)]
        mailboxes = [Mailbox(store, "narrator", Names()) for store in stores]
        for count in (1, 2, 3):
            for mailbox in mailboxes:
                await mailbox.keep_up([])
                await mailbox.kept()
                assert mailbox._kept_rows == len(mailbox.reading)
            assert len(written) == count
            append(new_log(root), b"".join(line(20 * count + number) for number in range(20)))
        for store in stores:
            await store.close()

    run(work())


def test_an_index_may_grow_while_it_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexfile, "_SLICE", 3)
    expected = afresh(root)
    view, names = View(settled=True), Names()
    data = (root / "narrator.jsonl").read_bytes()
    index = ChannelIndex("narrator", "narrator.jsonl", names, lambda at, length: data[at : at + length])
    index.extend(new_lines(data))
    snapshot = indexfile.Snapshot.of(index, view, {})
    for number in range(20, 60):  # also over the places where the tables are made anew
        index.add(0, number + 1, line(number, urgent=True, reply_to=ID_A)[:-1])
    store = Store(root)
    store.kept_index("narrator").save(snapshot, names, anew=True)
    run(store.close())
    found = ChannelIndex("narrator", "narrator.jsonl", Names(), lambda at, length: data[at : at + length])
    assert load(root, "narrator", found) == (view, {})
    assert facts(found) == expected


def new_lines(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    for number, text in enumerate(data.splitlines(keepends=True), 1):
        yield offset, number, text[:-1]
        offset += len(text)


def test_an_index_whose_rows_changed_while_it_was_written_is_not_kept(root: Path) -> None:
    data = line(1, id=ID_A, text="a")
    index = ChannelIndex("narrator", "narrator.jsonl", Names(), lambda at, length: data[at : at + length])
    index.extend(new_lines(data))
    snapshot = indexfile.Snapshot.of(index, View(settled=True), {})
    index.add(0, 2, line(1, id=ID_A, text="b")[:-1])
    store = Store(root)
    store.kept_index("narrator").save(snapshot, index._names, anew=True)
    run(store.close())
    assert not list(kept(root).parent.iterdir())


LINE = st.builds(
    lambda time, identity, sender, others: line(time, id=known_id(identity), sender=sender, **others),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from("abc"),
    st.fixed_dictionaries(
        {},
        optional={
            "reply_to": st.integers(0, 9).map(known_id) | st.just("nothing"),
            "replaces": st.integers(0, 9).map(known_id),
            "expires_at": st.integers(0, 9).map(lambda number: format_time(START_US + number)) | st.just("soon"),
            "dedup_key": st.just("k"),
            "urgent": st.just(True),
            "scene": st.sampled_from(["s1", "s2"]),
            "text": st.sampled_from(["", "x"]),
        },
    ),
) | st.sampled_from([b"\n", b"garbage\n", b"=======\n"])
LINES = st.lists(LINE, min_size=1, max_size=5).map(b"".join)


def appended(root: Path, lines: bytes) -> None:
    append(new_log(root), lines)


def edited(root: Path, lines: bytes) -> None:
    path = root / "narrator.jsonl"
    path.write_bytes((path.read_bytes() if path.exists() else b"") + lines)
    aged(path)


def overwritten(root: Path, lines: bytes) -> None:
    aged(write(root / "narrator.jsonl", lines))


def swapped(root: Path, lines: bytes) -> None:
    path = root / "narrator.jsonl"
    if path.exists():  # the same bytes in another order
        path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))


def torn(root: Path, lines: bytes) -> None:
    edited(root, lines[:-7])


def archived(root: Path, lines: bytes) -> None:
    path = root / "archive/2026-01/narrator.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((path.read_bytes() if path.exists() else b"") + lines)
    aged(path)


def moved(root: Path, lines: bytes) -> None:
    path = root / "narrator.jsonl"
    if path.exists():
        archived(root, path.read_bytes())
        path.unlink()
        aged(write(path, lines))


def removed(root: Path, lines: bytes) -> None:
    (root / "narrator.jsonl").unlink(missing_ok=True)


def forgotten(root: Path, lines: bytes) -> None:
    shutil.rmtree(root / ".mq/stamps", ignore_errors=True)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([appended, appended, edited, overwritten, swapped, torn, archived, moved, removed, forgotten]),
        LINES,
        st.booleans(),
    ),
    min_size=1,
    max_size=7,
)


@examples(60)
@given(STEPS)
def test_a_process_that_goes_on_says_what_one_that_reads_everything_says(
    steps: list[tuple[Callable[[Path, bytes], None], bytes, bool]],
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / ".mq").mkdir()
        appended(root, line(0))
        for step, lines, begins in steps:
            step(root, lines)
            if begins:
                assert any_process(root) == any_process(root, distrusts=True)
        assert any_process(root) == any_process(root, distrusts=True)


def any_process(root: Path, *, distrusts: bool = False) -> object:
    """The same as `process`, also where there may be no file."""
    exists = any(root.rglob("narrator.jsonl"))
    return process(root, distrusts=distrusts) if exists else None


def test_the_loop_is_free_while_an_index_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    real = indexfile._write
    monkeypatch.setattr(
        indexfile, "_write", lambda *given: (threads.append(threading.current_thread()), real(*given))[1]
    )
    asyncio.run(asyncio.sleep(0))
    process(root)
    assert threads
    assert threading.main_thread() not in threads


def test_rows_are_found_by_the_ids_of_a_kept_index(root: Path) -> None:
    process(root)
    rows = process(root)["rows"]
    assert rows == {id_number(known_id(number)): number for number in range(20)}

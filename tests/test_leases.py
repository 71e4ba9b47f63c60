"""Leases: who fetched what, who holds what until when, as noted in a file that may be lost or damaged at any time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import leaselog as leaselog_module
from mq_server import leases as leases_module
from mq_server.errors import WriteFailed
from mq_server.leases import Deadline, Leases, Named
from mq_server.names import id_number, id_text
from tests.support import DEADLINE_S, close_locks, closed_in_the_end, known_id

A, B, C = (id_number(known_id(number)) for number in range(3))
READER = "narrator"


class Clock:
    """Stands in for `time` in the leases: the two clocks of a machine, set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_s = 1_790_000_000.0
        self.boot = "first boot"

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return int(self.wall_s * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases_module, "time", clock)
    monkeypatch.setattr(leases_module, "boot_id", lambda: clock.boot)
    return clock


def opened(root: Path) -> Leases:
    """The leases of a channel as another process would have them: nothing shared but the file."""
    leases = Leases(root / "leases" / "narrator.log", root / "locks" / "narrator.lock")
    closed_in_the_end(leases)
    return leases


@contextmanager
def held(leases: Leases) -> Iterator[Leases]:
    """Under the lock and up to date, as a writer must be."""
    with leases.lock.held(DEADLINE_S):
        leases.refresh()
        yield leases


def claim(leases: Leases, *ids: int, consumer: str = "one", lease_s: float = 60.0) -> str:
    with held(leases):
        return leases.claim(READER, consumer, named(*ids), lease_s)[0]


def noted(leases: Leases, reader: str, consumer: str, ids: Named) -> None:
    """Messages are given to a reader, and that is noted."""
    note = leases.fetch(reader, consumer, ids)
    if note is not None:
        note()


def named(*ids: int) -> dict[int, str]:
    return {identity: id_text(identity) for identity in ids}


def holders(leases: Leases) -> dict[int, str]:
    leases.refresh()
    return {identity: delivery.holder() for identity, delivery in leases.of(READER).items() if delivery.holder()}


def counts(leases: Leases) -> dict[int, int]:
    leases.refresh()
    return {identity: delivery.deliveries for identity, delivery in leases.of(READER).items()}


def lines(leases: Leases) -> list[Any]:
    return [orjson.loads(text) for text in leases.path.read_bytes().splitlines()]


def append(leases: Leases, text: bytes) -> None:
    with leases.path.open("ab") as file:
        file.write(text)


def event(op: str = "claim", **keys: Any) -> bytes:
    """A line as `claim` writes it, with some keys changed; a key that is None is left out."""
    usual = {"op": op, "reader": READER, "ids": [known_id(0)], "consumer": "one", "time_us": 1, "token": "t"}
    usual |= {"boot": leases_module.boot_id(), "until_s": leases_module.time.monotonic() + 60, "span_s": 60}
    return orjson.dumps({key: value for key, value in (usual | keys).items() if value is not None}) + b"\n"


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_a_deadline_counts_on_the_clock_that_nobody_can_set(clock: Clock) -> None:
    deadline = Deadline.after(60)
    for wall_s in (0.0, 1e6, 4e9):
        clock.wall_s = wall_s
        assert deadline.left_s() == 60
    clock.now_s += 59
    assert deadline.left_s() == 1
    clock.now_s += 1
    assert deadline.left_s() == 0
    clock.now_s += 1e9
    assert deadline.left_s() == 0


def test_a_deadline_of_another_boot_is_over(clock: Clock) -> None:
    deadline = Deadline.after(60)
    clock.boot = "second boot"
    assert deadline.left_s() == 0
    clock.boot = "first boot"
    assert deadline.left_s() == 60


def test_where_boots_have_no_name_a_clock_that_has_started_anew_ends_deadlines(clock: Clock) -> None:
    clock.boot = ""
    deadline = Deadline.after(60)
    assert deadline.left_s() == 60
    clock.now_s = 3.0
    assert deadline.left_s() == 0


def test_a_deadline_of_no_time_is_over_at_once(clock: Clock) -> None:
    assert Deadline.after(0).left_s() == 0
    assert Deadline().left_s() == 0


# --- what is noted ---------------------------------------------------------------------------------------------------


def test_the_file_says_what_happened_line_by_line(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    with held(leases):
        noted(leases, READER, "one", named(A))
        token, _ = leases.claim(READER, "one", named(A, B), 60)
        leases.extend(READER, named(A), 90)
        leases.release(READER, named(B), 5)
        leases.settle(READER, named(A))
        leases.forget(READER, named(B))
    header, *events = lines(leases)
    assert list(header) == ["generation", "kept_bytes"]
    stamp = {"consumer": "one", "time_us": 1_790_000_000_000_000}
    until = {"boot": "first boot", "until_s": 1060.0, "span_s": 60}
    a, b = known_id(0), known_id(1)
    assert events == [
        {"op": "fetch", "reader": READER, "ids": [a]} | stamp,
        {"op": "claim", "reader": READER, "ids": [a, b]} | stamp | {"token": token} | until,
        {"op": "extend", "reader": READER, "ids": [a]} | until | {"until_s": 1090.0, "span_s": 90},
        {"op": "release", "reader": READER, "ids": [b]} | until | {"until_s": 1005.0, "span_s": 5},
        {"op": "settle", "reader": READER, "ids": [a]},
        {"op": "forget", "reader": READER, "ids": [b]},
    ]


def test_a_claim_is_held_until_its_deadline_and_counted(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    first = claim(leases, A, B)
    assert holders(leases) == {A: "one", B: "one"}
    assert leases.withheld(READER) == {A: 60, B: 60}
    clock.now_s += 61
    assert holders(leases) == {} and leases.withheld(READER) == {}
    second = claim(leases, A, consumer="two", lease_s=10)
    assert holders(leases) == {A: "two"} and counts(leases) == {A: 2, B: 1}
    assert leases.of(READER)[A].token == second != first


def test_extending_and_releasing_move_the_deadline(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    claim(leases, A, B, C)
    clock.now_s += 50
    with held(leases):
        leases.extend(READER, named(A), 60)
        leases.release(READER, named(B), 30)
        leases.release(READER, named(C), 0)
    assert holders(leases) == {A: "one"}
    assert leases.withheld(READER) == {A: 60, B: 30}
    assert not leases.of(READER)[B].token, "with the lease of what was given back nothing can be done"
    assert counts(leases) == {A: 1, B: 1, C: 1}
    clock.now_s += 30
    assert leases.withheld(READER) == {A: 30}


def test_what_is_forgotten_counts_from_the_beginning(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    claim(leases, A, B)
    with held(leases):
        leases.forget(READER, named(A))
    assert holders(leases) == {B: "one"} and counts(leases) == {B: 1}
    assert leases.withheld(READER) == {B: 60}
    claim(leases, A)
    assert counts(leases) == {A: 1, B: 1}


def test_what_is_settled_is_held_by_nobody_and_if_delivered_again_counts_from_the_beginning(
    tmp_path: Path, clock: Clock
) -> None:
    leases = opened(tmp_path)
    for _ in range(3):
        claim(leases, A)
        clock.now_s += 61
    claim(leases, A)
    with held(leases):
        leases.settle(READER, named(A, B))
        leases.settle(READER, named(A))
    assert holders(leases) == {} and leases.withheld(READER) == {}
    assert (leases.of(READER)[A].consumer, leases.of(READER)[A].deliveries) == ("one", 4), "as the sender is shown"
    assert [line["op"] for line in lines(leases)[1:]] == ["claim"] * 4 + ["settle"], "and said once"
    claim(leases, A, consumer="two")
    assert counts(opened(tmp_path)) == {A: 1}
    assert holders(leases) == {A: "two"}


def test_readers_have_their_deliveries_apart(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    claim(leases, A)
    with held(leases):
        leases.claim("editor", "three", named(A, B), 60)
    assert holders(leases) == {A: "one"}
    assert set(leases.of("editor")) == {A, B} and set(leases.readers()) == {READER, "editor"}
    assert leases.withheld("nobody") == {} and leases.of("nobody") == {}


def test_a_fetch_that_is_noted_late_came_first_all_the_same(tmp_path: Path, clock: Clock) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    note = one.fetch(READER, "one", named(A))
    assert note and one.of(READER)[A].fetched_by == "one", "here it is known before it is noted"
    clock.wall_s += 1
    claim(two, A, consumer="two")
    assert two.of(READER)[A].fetched_by == "two"
    with held(one):
        note()
    for leases in (one, two, opened(tmp_path)):
        leases.refresh()
        delivery = leases.of(READER)[A]
        assert (delivery.fetched_us, delivery.fetched_by) == (1_790_000_000_000_000, "one")
        assert (delivery.consumer, delivery.deliveries) == ("two", 1)


def test_the_first_fetch_is_what_counts_and_is_written_once(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    for consumer in ("one", "two"):
        with held(leases):
            noted(leases, READER, consumer, named(A))
        clock.wall_s += 1
    assert len(lines(leases)) == 2
    delivery = leases.of(READER)[A]
    assert (delivery.fetched_us, delivery.fetched_by, delivery.deliveries) == (1_790_000_000_000_000, "one", 0)
    claim(leases, A, consumer="two")
    assert leases.of(READER)[A].fetched_by == "one"
    assert leases.last_fetched_us[READER] == 1_790_000_002_000_000


# --- several processes -----------------------------------------------------------------------------------------------


def test_each_sees_what_the_other_wrote(tmp_path: Path, clock: Clock) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    for _ in range(3):
        claim(one, A)
        assert holders(two) == {A: "one"}
        with held(two):
            two.release(READER, named(A), 0)
        assert holders(one) == {}
    assert counts(one) == counts(two) == {A: 3}
    assert counts(opened(tmp_path)) == {A: 3}, "also who comes later"


def test_a_line_that_its_writer_did_not_end_is_closed_off_and_ignored(tmp_path: Path, clock: Clock) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    claim(one, A)
    append(one, event(ids=[known_id(1)])[:-1])
    assert holders(two) == {A: "one"}, "it was never answered for"
    claim(two, C, consumer="two")
    for leases in (one, two, opened(tmp_path)):
        found = holders(leases)
        assert (found[A], found[C]) == ("one", "two")


def test_half_a_line_is_closed_off_and_what_comes_after_it_is_read(tmp_path: Path, clock: Clock) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    claim(one, A)
    append(one, event(ids=[known_id(1)])[:40])
    claim(two, C, consumer="two")
    for leases in (one, two, opened(tmp_path)):
        assert holders(leases) == {A: "one", C: "two"}


GARBAGE = [
    b"\n",
    b"\xff\xfe\x00\n",
    b"[]\n",
    b"null\n",
    b"{}\n",
    b'{"op":"claim"}\n',
    b'{"op":["claim"],"reader":"narrator","ids":[]}\n',
    *(event(op=op) for op in ("nod", "kept", "last")),
    *(event(reader=reader) for reader in (None, 7, ["narrator"], {})),
    *(event(ids=ids) for ids in (None, "x", 7, [7], [None], ["!"], ["x" * 300], [known_id(0) + "Z"], [known_id(0), 1])),
    *(event(time_us=time_us) for time_us in (None, "soon", -1, 10**18, 1.5, True)),
    *(event(consumer=consumer) for consumer in (None, 7, ["one"])),
    *(event(token=token) for token in (None, 7, [])),
    *(event(op=op, until_s=until_s) for op in ("claim", "extend", "release") for until_s in (None, "later", [], True)),
    *(event(span_s=span_s) for span_s in (None, "long", {})),
    *(event(boot=boot) for boot in (None, 7)),
]


@pytest.mark.parametrize("text", GARBAGE)
def test_a_line_that_is_no_event_changes_nothing(tmp_path: Path, text: bytes) -> None:
    leases = opened(tmp_path)
    claim(leases, B, consumer="two")
    before = leases.path.read_bytes()
    append(leases, text)
    claim(leases, C, consumer="two")
    for each in (leases, opened(tmp_path)):
        assert holders(each) == {B: "two", C: "two"}
        assert not each.withheld(READER).keys() - {B, C}
        assert set(each.readers()) == {READER}
    assert leases.path.read_bytes().startswith(before + text), "and is left where it is"


def test_what_an_event_does_not_know_it_passes_over(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    claim(leases, B, C)
    both = [known_id(0), known_id(1)]
    append(leases, event("extend", ids=both, until_s=1300.0, span_s=300))
    assert leases.withheld(READER) == {B: 60, C: 60}
    leases.refresh()
    assert leases.withheld(READER) == {B: 300, C: 60}
    append(leases, event("release", ids=both, until_s=1000.0, span_s=0))
    assert holders(leases) == {C: "one"}


@given(st.lists(st.one_of(st.sampled_from(GARBAGE), st.binary(max_size=60)), max_size=8), st.integers(0, 400))
def test_whatever_stands_in_the_file_nobody_fails(
    tmp_path_factory: pytest.TempPathFactory, garbage: list[bytes], kept: int
) -> None:
    leases = opened(tmp_path_factory.mktemp("leases"))
    claim(leases, A)
    reader = opened(leases.path.parent.parent)
    holders(reader)
    leases.path.write_bytes(leases.path.read_bytes()[:kept] + b"".join(garbage))
    everybody = (reader, leases, opened(leases.path.parent.parent))
    for each in everybody:
        each.refresh()
        each.withheld(READER)
    for each in everybody:
        token = claim(each, B, C, consumer="two")
        assert (holders(each)[B], each.of(READER)[C].token) == ("two", token)
        with held(each):
            each.compact(lambda *_: False)
    close_locks()


# --- the header ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"\n", b'{"generation":"0123', b"x" * 200, b"\n" * 200, event() * 3])
def test_a_file_without_a_header_says_nothing_and_is_started_anew(tmp_path: Path, content: bytes) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    claim(one, A)
    assert holders(two) == {A: "one"}
    one.path.write_bytes(content)
    assert holders(one) == holders(two) == {}
    claim(two, B, consumer="two")
    for leases in (one, two, opened(tmp_path)):
        assert holders(leases) == {B: "two"}
        with held(leases):
            leases.compact(lambda *_: False)


def test_a_file_whose_writer_died_before_its_first_line_is_no_hindrance(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    leases.path.parent.mkdir(parents=True)
    leases.path.touch()
    claim(leases, A)
    assert holders(opened(tmp_path)) == {A: "one"}


def test_a_file_that_was_cut_off_is_read_from_its_start(tmp_path: Path, clock: Clock) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    claim(one, A)
    size = one.path.stat().st_size
    claim(one, B)
    assert holders(two) == {A: "one", B: "one"}
    one.path.write_bytes(one.path.read_bytes()[:size])
    assert holders(two) == {A: "one"}
    claim(one, C)
    assert holders(two) == holders(one) == {A: "one", C: "one"}


def test_a_deleted_file_is_forgotten_and_made_again(tmp_path: Path, clock: Clock) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    claim(one, A)
    assert holders(two) == {A: "one"}
    one.path.unlink()
    assert holders(one) == holders(two) == {} and counts(one) == {}
    claim(two, B)
    assert holders(one) == {B: "one"}


def test_a_file_put_in_its_place_is_read_from_its_start(tmp_path: Path, clock: Clock) -> None:
    leases, other = opened(tmp_path), opened(tmp_path / "other")
    claim(leases, A)
    claim(other, B, C, consumer="two")
    other.path.replace(leases.path)
    assert holders(leases) == {B: "two", C: "two"}
    claim(leases, A)
    assert holders(opened(tmp_path)) == {A: "one", B: "two", C: "two"}


def test_a_file_deleted_between_looking_and_writing_is_made_again_with_what_is_written(
    tmp_path: Path, clock: Clock
) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    claim(one, A)
    with held(one):
        one.path.unlink()
        one.claim(READER, "one", named(B), 60)
    assert holders(one) == holders(two) == {B: "one"}


def test_an_event_written_into_a_file_that_is_deleted_meanwhile_is_written_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = opened(tmp_path)
    claim(leases, A)
    real_write, left = leases_module.os.write, [3]

    def deleting(handle: int, data: bytes) -> int:
        written = real_write(handle, data)
        if left[0]:
            left[0] -= 1
            leases.path.unlink()
        return written

    monkeypatch.setattr(leases_module.os, "write", deleting)
    claim(leases, B)
    assert left == [0]
    assert holders(opened(tmp_path)) == {B: "one"} and counts(leases) == {B: 1}


def test_a_claim_that_a_full_disk_takes_half_of_is_refused_and_the_next_stands(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = opened(tmp_path)
    claim(leases, A)
    real_write, left = leases_module.os.write, [50]

    def filling_up(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] = 0
        return real_write(handle, data[:50])

    with monkeypatch.context() as patched, pytest.raises(WriteFailed, match="No space left"):
        patched.setattr(leases_module.os, "write", filling_up)
        claim(leases, B)
    assert holders(leases) == {A: "one"}
    claim(leases, C)
    assert holders(leases) == holders(opened(tmp_path)) == {A: "one", C: "one"}


def test_reading_while_somebody_deletes_and_writes_never_fails(tmp_path: Path) -> None:
    writer, reader = opened(tmp_path), opened(tmp_path)
    done, failures = threading.Event(), list[BaseException]()

    def follow() -> None:
        try:
            while not done.is_set():
                reader.refresh()
                reader.withheld(READER)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    for _ in range(300):
        claim(writer, A)
        writer.path.unlink()
    done.set()
    thread.join()
    assert not failures


# --- compaction ------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compact every file that has grown to twice what was kept, however small."""
    monkeypatch.setattr(leases_module, "_COMPACT_BYTES", 0)


def state(leases: Leases) -> dict[str, Any]:
    leases.refresh()
    return {reader: dict(leases.of(reader)) for reader in leases.readers() if leases.of(reader)} | {
        "last": leases.last_fetched_us
    }


def test_a_file_is_compacted_when_it_has_grown_and_keeps_what_is_of_use(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "_COMPACT_BYTES", 10_000)
    one, two = opened(tmp_path), opened(tmp_path)
    sizes = []
    while len(sizes) < 400:
        with held(one):
            one.claim(READER, "one", named(A, B), 60)
            one.release(READER, named(A), 10)
            noted(one, "editor", "two", named(C))
            before = state(one)
            one.compact(lambda *_: False)
            assert state(one) == before
        assert state(two) == before
        sizes.append(one.path.stat().st_size)
        clock.now_s += 1
        clock.wall_s += 1
    assert max(sizes) < 12_000
    assert sum(later < earlier for earlier, later in pairwise(sizes)) > 3
    assert state(opened(tmp_path)) == before


def test_what_is_settled_is_left_out(tmp_path: Path, clock: Clock, at_once: None) -> None:
    leases = opened(tmp_path)
    claim(leases, A, B)
    with held(leases):
        leases.settle(READER, named(A))
        leases.compact(lambda reader, identity: (reader, identity) == (READER, A))
    for each in (leases, opened(tmp_path)):
        assert holders(each) == {B: "one"} and counts(each) == {B: 1}
        assert each.last_fetched_us == {READER: 1_790_000_000_000_000}


def test_a_lease_is_kept_by_who_believes_its_message_settled(tmp_path: Path, clock: Clock, at_once: None) -> None:
    leases = opened(tmp_path)
    claim(leases, A)
    with held(leases):
        leases.release(READER, named(A), 0)
        leases.claim(READER, "two", named(B), 60)
        leases.compact(lambda *_: True)
    assert holders(leases) == {B: "two"}
    assert counts(leases) == {B: 1}


def test_that_something_was_settled_survives_compaction(tmp_path: Path, clock: Clock, at_once: None) -> None:
    leases = opened(tmp_path)
    claim(leases, A)
    with held(leases):
        leases.settle(READER, named(A))
        leases.compact(lambda *_: False)
    claim(leases, A)
    assert counts(opened(tmp_path)) == {A: 1}


def test_a_small_file_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    leases = opened(tmp_path)
    claim(leases, A)
    before = leases.path.read_bytes()
    with held(leases):
        leases.compact(lambda *_: True)
    assert leases.path.read_bytes() == before


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError, OSError])
def test_a_compaction_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, clock: Clock, at_once: None, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    leases = opened(tmp_path)

    def refuse(*_: object) -> None:
        raise error(1, "not now")

    with held(leases), monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        leases.claim(READER, "one", named(A), 60)
        leases.compact(lambda *_: False)
        assert holders(leases) == {A: "one"}
    claim(leases, B)
    assert holders(opened(tmp_path)) == {A: "one", B: "one"}


def test_the_folder_may_be_deleted_before_a_compaction(tmp_path: Path, clock: Clock, at_once: None) -> None:
    leases = opened(tmp_path)
    with held(leases):
        leases.claim(READER, "one", named(A), 60)
        leases.path.unlink()
        leases.path.parent.rmdir()
        leases.compact(lambda *_: False)
    assert holders(leases) == {}
    claim(leases, B)
    assert holders(leases) == {B: "one"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fetch", "claim", "extend", "release", "settle", "forget", "compact", "pass"]),
        st.integers(0, 2),
        st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=3, unique=True),
        st.sampled_from([0, 5, 60]),
    ),
    max_size=25,
)


@given(STEPS)
def test_whoever_writes_and_whoever_compacts_all_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, list[int], float]]
) -> None:
    root, clock = tmp_path_factory.mktemp("leases"), Clock()
    writers = [opened(root) for _ in range(3)]
    plain = opened(root / "plain")  # is never compacted
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(leases_module, "_COMPACT_BYTES", 0)
        patched.setattr(leases_module, "time", clock)
        patched.setattr(leases_module.os, "urandom", lambda count: bytes(count) if count == 4 else b"\x01" * count)
        for number, (op, who, ids, span_s) in enumerate(steps):
            patched.setattr(leaselog_module, "_new_header", _numbered_header(number))
            for leases in (writers[who], plain):
                with held(leases):
                    if op == "claim":
                        leases.claim(READER, f"c{who}", named(*ids), span_s)
                    elif op == "fetch":
                        noted(leases, READER, f"c{who}", named(*ids))
                    elif op in ("extend", "release"):
                        getattr(leases, op)(READER, named(*ids), span_s)
                    elif op in ("settle", "forget"):
                        getattr(leases, op)(READER, named(*ids))
                    elif op == "compact" and leases is not plain:
                        leases.compact(lambda *_: False)
            if op == "pass":
                clock.now_s += span_s
            expected = state(plain).get(READER, {})
            for leases in (*writers, opened(root)):
                assert state(leases).get(READER, {}) == expected
                assert leases.withheld(READER) == plain.withheld(READER)
                assert leases.claimed(READER) == plain.claimed(READER)
    close_locks()


def _numbered_header(number: int) -> Any:
    return lambda kept_bytes: leaselog_module._HEADER % (b"%016x" % number, kept_bytes)

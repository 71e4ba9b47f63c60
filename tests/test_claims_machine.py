"""Claims against a model: whatever happens in whatever order, who holds what, what is unread and how often it was
delivered is what a few lines of Python say."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mq_server import leases as leases_module
from mq_server import room as room_module
from mq_server import settling as settling_module
from mq_server import store as store_module
from mq_server.errors import NotSettled
from mq_server.mailroom import Mailroom
from mq_server.names import id_number, parse_time
from tests.support import DEADLINE_S

CHANNEL = "narrator"
CONSUMERS = ("one", "two", "three")
MAX_DELIVERIES = 3
TOO_OFTEN = f"delivered {MAX_DELIVERIES} times without being settled"
T = TypeVar("T")


class Clock:
    """Stands in for `time`: the clock that counts and the clock on the wall, moved by the rules."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.ahead_s = 0.0
        self.boot = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return time.time_ns() + int(self.ahead_s * 1e9)


@dataclass
class Known:
    """What the model knows of one message."""

    time_us: int
    settled: str = ""
    reopened: bool = False
    count: int = 0
    consumer: str = ""
    token: str = ""
    until_s: float = 0.0
    boot: int = -1

    def forget(self) -> None:
        """As if never delivered."""
        self.count, self.consumer, self.token, self.until_s = 0, "", "", 0.0

    def settle(self, op: str) -> None:
        """Done with."""
        self.settled = op
        self.forget()


@dataclass
class Model:
    """One reader's mailbox and its dead letters."""

    messages: dict[str, Known] = field(default_factory=dict)
    seek_us: int = 0
    letters: dict[tuple[str, str], bool] = field(default_factory=dict)
    """By message and reason, whether it is unread."""

    def is_passed(self, known: Known) -> bool:
        return known.time_us < self.seek_us and not known.reopened

    def is_unread(self, known: Known) -> bool:
        return not known.settled and not self.is_passed(known)

    def reject(self, message_id: str, reason: str) -> None:
        self.messages[message_id].settle("reject")
        self.letters[message_id, reason] = True


class Claims(RuleBasedStateMachine):
    """Several consumers of one reader, at two mailrooms on one folder."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mq-claims-"))
        self.root = self.folder / "room"
        self.root.mkdir()
        (self.root / "mq.toml").write_text(f'durability = "os"\nmax_deliveries = {MAX_DELIVERIES}\n')
        self.clock = Clock()
        self.patched = pytest.MonkeyPatch()
        for module in (leases_module, room_module, settling_module, store_module):
            self.patched.setattr(module, "time", self.clock)
        self.patched.setattr(leases_module, "boot_id", lambda: f"boot {self.clock.boot}")
        self.patched.setattr(leases_module, "_COMPACT_BYTES", 2000)
        self.runner = asyncio.Runner()
        self.rooms = [Mailroom(self.root) for _ in range(2)]
        self.model = Model()
        self.leases: list[tuple[str, str]] = []
        """Every lease there ever was, and its message."""

    def teardown(self) -> None:
        for room in self.rooms:
            self.run(room.close())
        self.runner.close()
        self.patched.undo()
        shutil.rmtree(self.folder)

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(DEADLINE_S):
                return await work

        return self.runner.run(bounded())

    def left_s(self, known: Known) -> float:
        return known.until_s - self.clock.now_s if known.boot == self.clock.boot else 0.0

    def holder(self, known: Known) -> str:
        return known.consumer if self.left_s(known) > 0 else ""

    # --- what happens -------------------------------------------------------------------------------------------------

    def post(self, where: int) -> None:
        posted = self.run(self.rooms[where].post(CHANNEL, sender="a", msg_type="x", payload={}))
        self.model.messages[posted.id] = Known(posted.message.time_us)

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        for _ in range(count):
            self.post(0)

    @precondition(lambda self: len(self.model.messages) < 8)
    @rule(where=st.integers(0, 1))
    def post_one(self, where: int) -> None:
        self.post(where)

    @rule(
        where=st.integers(0, 1),
        consumer=st.sampled_from(CONSUMERS),
        limit=st.integers(1, 3),
        lease_s=st.sampled_from([1.0, 10.0, 60.0]),
    )
    def claim(self, where: int, consumer: str, limit: int, lease_s: float) -> None:
        page = self.run(self.rooms[where].wait(CHANNEL, consumer=consumer, limit=limit, lease_s=lease_s, timeout_s=0))
        for message_id, known in self.model.messages.items():
            if self.model.is_unread(known) and known.count >= MAX_DELIVERIES and self.left_s(known) <= 0:
                self.model.reject(message_id, TOO_OFTEN)
        free = [
            (message_id, known)
            for message_id, known in self.model.messages.items()
            if self.model.is_unread(known) and self.left_s(known) <= 0
        ][:limit]
        assert [message.id for message in page.messages] == [message_id for message_id, _ in free]
        assert page.timed_out is not bool(free)
        for lease, (message_id, known) in zip(page.leases, free, strict=True):
            known.count += 1
            assert lease.deliveries == known.count
            known.consumer, known.token = consumer, lease.name
            known.until_s, known.boot = self.clock.now_s + lease_s, self.clock.boot
            self.leases.append((lease.name, message_id))

    def settle(self, where: int, op: str, name: str, message_id: str, consumer: str, **options: Any) -> bool:
        """Settle one message, and check that it works exactly when the model says so."""
        known = self.model.messages[message_id]
        by_lease = "@" in name
        holder = self.holder(known)
        may = self.model.is_unread(known) or (op == "ack" and not known.settled)
        if by_lease:
            may = may and bool(holder) and known.token == name
        elif holder or op in ("release", "extend"):
            may = may and holder == consumer
        else:
            may = may and known.consumer != consumer  # else its lease has expired
        try:
            settled = self.run(self.rooms[where].settle(CHANNEL, **{op: name}, consumer=consumer, **options))
        except NotSettled:
            assert not may, f"{op} {name} by {consumer}"
            return False
        assert may, f"{op} {name} by {consumer}"
        assert settled.done == {op: (message_id,)}
        return True

    @precondition(lambda self: self.leases)
    @rule(
        where=st.integers(0, 1),
        op=st.sampled_from(["ack", "ack", "release", "reject", "extend"]),
        which=st.integers(0, 5),
        by=st.sampled_from(["lease", "lease", "lease", "holder", "another"]),
        span_s=st.sampled_from([1.0, 10.0]),
    )
    def settle_one(self, where: int, op: str, which: int, by: str, span_s: float) -> None:
        """With one of the last leases, be it over or not; or without it."""
        lease, message_id = self.leases[-1 - which % len(self.leases)]
        known = self.model.messages[message_id]
        if self.model.is_passed(known) and not self.holder(known):
            by = "lease"  # who had it last may be forgotten by now
        name = lease if by == "lease" else message_id
        consumer = known.consumer or "one" if by != "another" else CONSUMERS[which % 3]
        options = {"release": {"delay_s": span_s - 1}, "extend": {"lease_s": span_s}, "reject": {"reason": "no"}}
        if not self.settle(where, op, name, message_id, consumer, **options.get(op, {})):
            return
        if op == "ack":
            known.settle("ack")
        elif op == "reject":
            self.model.reject(message_id, "no")
        elif op == "extend":
            known.until_s = self.clock.now_s + span_s
        else:
            known.consumer, known.token = "", ""
            known.until_s, known.boot = self.clock.now_s + span_s - 1, self.clock.boot

    @rule(where=st.integers(0, 1), which=st.integers(0, 7))
    def reopen(self, where: int, which: int) -> None:
        message_id, known = list(self.model.messages.items())[which % len(self.model.messages)]
        try:
            self.run(self.rooms[where].settle(CHANNEL, reopen=message_id))
        except NotSettled:
            assert self.model.is_unread(known)
            return
        assert not self.model.is_unread(known)
        known.settled, known.reopened = "", True
        known.forget()

    @precondition(lambda self: self.model.letters)
    @rule(where=st.integers(0, 1), which=st.integers(0, 7))
    def reopen_a_dead_letter(self, where: int, which: int) -> None:
        message_id, reason = list(self.model.letters)[which % len(self.model.letters)]
        known = self.model.messages[message_id]
        letters = self.run(self.rooms[where].read("dead_letters", since="1970-01-01T00:00:00Z")).messages
        (letter,) = (each.id for each in letters if (each.reply_to, each.payload["reason"]) == (message_id, reason))
        try:
            self.run(self.rooms[where].settle("dead_letters", reopen=letter))
        except NotSettled:
            assert self.model.is_unread(known)
            return
        assert not self.model.is_unread(known)
        known.settled, known.reopened = "", True
        known.forget()
        self.model.letters[message_id, reason] = False

    @rule(
        where=st.integers(0, 1), to=st.sampled_from(["beginning", "now", "message", "message"]), which=st.integers(0, 7)
    )
    def seek(self, where: int, to: str, which: int) -> None:
        message_id = list(self.model.messages)[which % len(self.model.messages)]
        settled = self.run(self.rooms[where].settle(CHANNEL, seek=message_id if to == "message" else to))
        assert settled.seek is not None
        self.model.seek_us = parse_time(settled.seek)
        for known in self.model.messages.values():
            if known.settled or not self.holder(known):
                known.forget()
            known.settled, known.reopened = "", False
            if to == "now" and known.time_us >= self.model.seek_us:
                known.settle("ack")
        if to == "message":
            assert self.model.seek_us == self.model.messages[message_id].time_us
        if to == "beginning":
            assert self.model.seek_us == 0

    @rule(where=st.integers(0, 1))
    def read_and_acknowledge(self, where: int) -> None:
        consumer = CONSUMERS[where]
        page = self.run(self.rooms[where].read(CHANNEL, ack=True, limit=2, consumer=consumer))
        for message in page.messages:
            known = self.model.messages[message.id]
            assert self.model.is_unread(known) and (self.left_s(known) <= 0 or known.consumer == consumer)
            known.settle("ack")

    @rule(span_s=st.sampled_from([0.5, 5.0, 30.0, 100.0]))
    def pass_time(self, span_s: float) -> None:
        self.clock.now_s += span_s

    @rule(ahead_s=st.sampled_from([0.0, -3600.0, 2.0, 1e6, -1e8]))
    def set_the_clock(self, ahead_s: float) -> None:
        self.clock.ahead_s = ahead_s

    @rule()
    def restart_the_machine(self) -> None:
        self.clock.boot += 1
        self.clock.now_s = 10.0

    @rule(where=st.integers(0, 1))
    def restart_a_process(self, where: int) -> None:
        self.run(self.rooms[where].close())
        self.rooms[where] = Mailroom(self.root)

    @rule()
    def delete_the_runtime_folder(self) -> None:
        shutil.rmtree(self.root / ".mq", ignore_errors=True)
        for known in self.model.messages.values():
            known.forget()

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def unread_is_what_the_model_says(self) -> None:
        for room in self.rooms:
            for consumer in CONSUMERS[:2]:
                page = self.run(room.read(CHANNEL, consumer=consumer))
                assert [message.id for message in page.messages] == [
                    message_id
                    for message_id, known in self.model.messages.items()
                    if self.model.is_unread(known) and (self.left_s(known) <= 0 or known.consumer == consumer)
                ]

    @invariant()
    def holders_and_counts_are_what_the_model_says(self) -> None:
        for room in self.rooms:
            deliveries = room._leases(CHANNEL).of(CHANNEL)
            for message_id, known in self.model.messages.items():
                if self.model.is_unread(known):
                    found = deliveries.get(id_number(message_id), leases_module.Delivery())
                    assert found.holder() == self.holder(known)
                    assert (0 if found.settled else found.deliveries) == known.count
                    assert found.deadline.left_s() == max(0.0, self.left_s(known))

    @invariant()
    def dead_letters_are_what_the_model_says(self) -> None:
        for room in self.rooms:
            letters = self.run(room.read("dead_letters", since="1970-01-01T00:00:00Z")).messages
            about = sorted((letter.reply_to, letter.payload["reason"]) for letter in letters)
            assert about == sorted(self.model.letters)
            unread = self.run(room.read("dead_letters")).messages
            assert sorted((letter.reply_to, letter.payload["reason"]) for letter in unread) == sorted(
                letter for letter, is_unread in self.model.letters.items() if is_unread
            )

    @invariant()
    def there_are_no_problems(self) -> None:
        for room in self.rooms:
            ahead = [
                problem for problem in room._shelf.problems() if "ahead of this machine's clock" not in str(problem)
            ]
            assert not ahead


@pytest.mark.timeout(900)
def test_claims_do_what_the_model_says(pytestconfig: pytest.Config) -> None:
    is_soak = pytestconfig.getoption("--soak")
    run_state_machine_as_test(
        Claims,
        settings=settings(
            max_examples=100 if is_soak else 25,
            stateful_step_count=50 if is_soak else 30,
            suppress_health_check=list(HealthCheck),
        ),
    )

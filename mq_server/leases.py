"""What is momentary about delivery: who fetched what, who holds what until when, how often it was delivered.

One file a channel, `.mq/leases/<channel>.log`, of this machine only (`leaselog` says how it is written). Each line but
the first is an event:

    {"op":"fetch",  "reader","ids","consumer","time_us"}                  given to a reader for the first time
    {"op":"claim",  "reader","ids","consumer","time_us","token",DEADLINE} held by a consumer, nobody else gets it
    {"op":"extend", "reader","ids",DEADLINE}                              held for longer
    {"op":"release","reader","ids",DEADLINE}                              held by nobody, not delivered before then
    {"op":"settle", "reader","ids"}                                       held by nobody, its count is over
    {"op":"forget", "reader","ids"}                                       as if never delivered

A deadline is `"boot","until_s","span_s"`: seconds on the clock that counts from the start of the machine, which all its
processes share and which nobody can set. One of another boot is over.

A line that is no event is ignored. A file that has grown is written anew with what is still of use. Losing it costs
redeliveries, never a message and never an acknowledgement.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mq_server.errors import WriteFailed
from mq_server.leaselines import event_of
from mq_server.leaselog import LeaseLog, Wrote
from mq_server.locks import FileLock
from mq_server.names import id_text

_COMPACT_BYTES = 128 * 1024
_ATTEMPTS = 20


class Deadline(NamedTuple):
    """A point in time that no change of the clock moves, and how long it was ahead when it was set, in seconds."""

    boot: str = ""
    until_s: float = 0.0
    span_s: float = 0.0

    @classmethod
    def after(cls, span_s: float) -> Deadline:
        """The one that many seconds from now."""
        return cls(boot_id(), time.monotonic() + span_s, span_s)

    def left_s(self) -> float:
        """How many seconds are left; 0 when it is over."""
        if self.boot != boot_id():
            return 0.0
        left_s = self.until_s - time.monotonic()
        # More than it was set to: the clock has started anew on a system that does not tell one boot from another.
        return left_s if 0 < left_s <= self.span_s + 1 else 0.0


_OVER = Deadline()
_deadline_of = itemgetter(*Deadline._fields)
Named = Mapping[int, str]
"""Messages, by their ids as numbers and as text."""


class Delivery(NamedTuple):
    """How far one message has come on its way to one reader, on this machine. Messages that came together share one."""

    fetched_us: int = 0
    fetched_by: str = ""
    claimed_us: int = 0
    deliveries: int = 0
    """How often it was claimed."""
    consumer: str = ""
    """Who claimed it last; empty when nobody did, or it was given back."""
    token: str = ""
    deadline: Deadline = _OVER
    settled: bool = False
    """Whether its reader was done with it. If it is delivered once more, that counts as the first time."""

    def holder(self) -> str:
        """The consumer that holds it now, or nothing."""
        return self.consumer if self.consumer and self.deadline.left_s() else ""


_NEVER = Delivery()
_KEPT = {name: "count" if name == "deliveries" else name for name in Delivery._fields if name != "deadline"}
"""What a compacted file says of a delivery, besides its deadline: by field, the key."""


@dataclass(slots=True)
class _Deliveries:
    """Those to one reader, by id."""

    known: dict[int, Delivery] = field(default_factory=dict)
    timed: dict[int, Deadline] = field(default_factory=dict)
    """What has a deadline that may not be over yet."""
    claimed: set[int] = field(default_factory=set)
    """What was claimed and has not been settled since."""

    def change(self, ids: Iterable[int], changed: Callable[[Delivery], Delivery]) -> None:
        """Let each of some messages come further.

        Args:
            ids: Which.
            changed: Makes of how far one had come how far it has come.
        """
        known, timed, claimed = self.known, self.timed, self.claimed
        before: Delivery | None = None
        after, is_timed, is_claimed = _NEVER, False, False
        for identity in ids:
            delivery = known.get(identity, _NEVER)
            if delivery is not before:  # those that share one go on sharing
                before, after = delivery, changed(delivery)
                is_timed, is_claimed = after.deadline is not _OVER, after.deliveries > 0 and not after.settled
            known[identity] = after
            if is_timed:
                timed[identity] = after.deadline
            else:
                timed.pop(identity, None)
            if is_claimed:
                claimed.add(identity)
            else:
                claimed.discard(identity)


class Leases:
    """The deliveries of one channel, as this machine's processes have noted them.

    Args:
        path: The file.
        lock_path: The sidecar that whoever writes holds.
    """

    def __init__(self, path: Path, lock_path: Path) -> None:
        self.path = path
        self.lock = FileLock(lock_path)
        self.last_fetched_us: dict[str, int] = {}
        """Per reader, when it last got something new."""
        self._log = LeaseLog(path)
        self._readers: dict[str, _Deliveries] = {}
        self._events: dict[str, Callable[[_Deliveries, Iterable[int], dict[str, Any]], None]] = {
            "fetch": self._fetch,
            "claim": self._claim,
            "extend": self._extend,
            "release": self._release,
            "settle": self._settle,
            "forget": self._forget,
            "kept": self._kept,
            "last": self._last,
        }

    def of(self, reader: str) -> Mapping[int, Delivery]:
        """What is known of a reader's messages, by id. Not to be changed by the caller."""
        return self._of(reader).known

    def claimed(self, reader: str) -> Mapping[int, Delivery]:
        """What of it was claimed and has not been settled since, be it held still or not."""
        of = self._of(reader)
        return {identity: of.known[identity] for identity in of.claimed}

    def readers(self) -> Iterable[str]:
        """The readers that anything is known of."""
        return self._readers

    def withheld(self, reader: str) -> dict[int, float]:
        """The messages that are held by a consumer or not to be delivered yet, and for how many seconds more."""
        timed = self._of(reader).timed
        left_s = {deadline: deadline.left_s() for deadline in set(timed.values())}
        for identity in [identity for identity, deadline in timed.items() if not left_s[deadline]]:
            del timed[identity]
        return {identity: left_s[deadline] for identity, deadline in timed.items()}

    def close(self) -> None:
        """Give the kept handles back."""
        self.lock.close()
        self._log.close()

    def _of(self, reader: str) -> _Deliveries:
        return self._readers.get(reader) or _Deliveries()

    # --- reading --------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what was written since.

        Raises:
            OSError: The file cannot be read.
        """
        news = self._log.news()
        if news is None:
            return
        if news.anew:
            self.last_fetched_us, self._readers = {}, {}
        for line in news.lines:
            event = event_of(line)
            if event is not None:
                self._apply(*event)

    def _apply(self, ids: Iterable[int], event: dict[str, Any]) -> None:
        self._events[event["op"]](self._readers.setdefault(event["reader"], _Deliveries()), ids, event)

    def _fetch(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        time_us, consumer = event["time_us"], event["consumer"]

        def fetched(known: Delivery) -> Delivery:
            # It may be noted behind a claim that came later.
            if 0 < known.fetched_us <= time_us:
                return known
            return known._replace(fetched_us=time_us, fetched_by=consumer)

        of.change(ids, fetched)
        self._note_fetch(event)

    def _claim(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        time_us, consumer, token = event["time_us"], event["consumer"], event["token"]
        deadline = _deadline(event)

        def claimed(known: Delivery) -> Delivery:
            fetched_us, fetched_by = known[:2] if known.fetched_us else (time_us, consumer)
            deliveries = 1 if known.settled else known.deliveries + 1
            return Delivery._make((fetched_us, fetched_by, time_us, deliveries, consumer, token, deadline, False))

        of.change(ids, claimed)
        self._note_fetch(event)

    def _extend(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        deadline = _deadline(event)
        of.change(_those(of, ids), lambda known: known._replace(deadline=deadline))

    def _release(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        deadline = _deadline(event)
        of.change(_those(of, ids), lambda known: known._replace(consumer="", token="", deadline=deadline))

    def _settle(self, of: _Deliveries, ids: Iterable[int], _: dict[str, Any]) -> None:
        of.change(_those(of, ids), lambda known: Delivery._make((*known[:5], "", _OVER, True)))

    def _forget(self, of: _Deliveries, ids: Iterable[int], _: dict[str, Any]) -> None:
        of.claimed.difference_update(ids)
        for identity in ids:
            of.known.pop(identity, None)
            of.timed.pop(identity, None)

    def _kept(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        """What a compacted file starts with: deliveries as they stood."""
        stood = {name: event[key] for name, key in _KEPT.items()}
        of.change(ids, lambda _: Delivery(**stood, deadline=_deadline(event)))

    def _last(self, _: _Deliveries, __: Iterable[int], event: dict[str, Any]) -> None:
        """And when the reader last fetched anything."""
        self._note_fetch(event)

    def _note_fetch(self, event: dict[str, Any]) -> None:
        reader, time_us = event["reader"], event["time_us"]
        if time_us > self.last_fetched_us.get(reader, -1):
            self.last_fetched_us[reader] = time_us

    # --- writing; the caller holds the lock and has refreshed --------------------------------------------------------

    def fetch(self, reader: str, consumer: str, ids: Named) -> Callable[[], None] | None:
        """Know that messages were given to a reader; those that were before are left out. It needs no lock.

        Returns:
            What notes it, under the lock; None if all of them were given before.
        """
        known = self.of(reader)
        fresh = {each: text for each, text in ids.items() if each not in known or not known[each].fetched_us}
        if not fresh:
            return None
        fields = {"consumer": consumer, "time_us": _now_us()}
        self._apply(fresh, {"op": "fetch", "reader": reader} | fields)
        return partial(self._append, "fetch", reader, fresh, **fields)

    def claim(self, reader: str, consumer: str, ids: Named, lease_s: float) -> tuple[str, list[int]]:
        """Lease messages to a consumer; the token of the lease, and how often each was claimed by now."""
        token = os.urandom(4).hex()
        stamp = {"consumer": consumer, "time_us": _now_us(), "token": token}
        self._append("claim", reader, ids, **stamp, **Deadline.after(lease_s)._asdict())
        known = self.of(reader)
        # None are known if somebody has just deleted the file.
        return token, [known[identity].deliveries if identity in known else 1 for identity in ids]

    def extend(self, reader: str, ids: Named, lease_s: float) -> None:
        """Let leases end that many seconds from now."""
        self._append("extend", reader, ids, **Deadline.after(lease_s)._asdict())

    def release(self, reader: str, ids: Named, delay_s: float) -> None:
        """Give leased messages back; they are withheld from everybody for `delay_s`."""
        self._append("release", reader, ids, **Deadline.after(delay_s)._asdict())

    def settle(self, reader: str, ids: Named) -> None:
        """End the leases of what a reader is done with, and its count of deliveries; the rest is left out."""
        claimed = self._of(reader).claimed
        ids = {identity: text for identity, text in ids.items() if identity in claimed}
        if ids:
            self._append("settle", reader, ids)

    def forget(self, reader: str, ids: Named) -> None:
        """Start the count of deliveries anew."""
        known = self.of(reader)
        ids = {identity: text for identity, text in ids.items() if identity in known}
        if ids:
            self._append("forget", reader, ids)

    def _append(self, op: str, reader: str, ids: Named, **fields: Any) -> None:
        event = {"op": op, "reader": reader, "ids": [*ids.values()]} | fields
        line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
        try:
            for _ in range(_ATTEMPTS):
                wrote = self._log.write(line)
                if wrote is Wrote.NEXT:
                    self._apply(ids, event)
                    return
                self.refresh()
                if wrote is Wrote.AMONG_OTHERS:
                    return
            raise FileNotFoundError(errno.ENOENT, "it was removed again and again")
        except OSError as error:
            raise WriteFailed(self.path, error) from error

    def compact(self, is_settled: Callable[[str, int], bool]) -> None:
        """Write the file anew without what has become useless, if it has grown enough. The lock must be held.

        Args:
            is_settled: Whether a reader is done with a message.
        """
        if self._log.read_bytes < max(_COMPACT_BYTES, 2 * self._log.kept_bytes):
            return
        lines: list[bytes] = []
        for reader, of in self._readers.items():
            last = {"op": "last", "reader": reader, "ids": [], "time_us": self.last_fetched_us.get(reader, 0)}
            lines.append(orjson.dumps(last))
            left_s = self.withheld(reader)
            for identity, delivery in of.known.items():
                # A lease counts whatever is known here: another process may have reopened what was settled.
                if identity in left_s or not is_settled(reader, identity):
                    event = {"op": "kept", "reader": reader, "ids": [id_text(identity)]}
                    event |= {key: getattr(delivery, field) for field, key in _KEPT.items()}
                    lines.append(orjson.dumps(event | delivery.deadline._asdict()))
        if self._log.rewrite(lines):
            with suppress(OSError):
                self.refresh()


def _those(of: _Deliveries, ids: Iterable[int]) -> list[int]:
    """The messages that an event is about, as far as they are known."""
    return [*filter(of.known.__contains__, ids)]


def _deadline(event: dict[str, Any]) -> Deadline:
    return Deadline._make(_deadline_of(event))


def _now_us() -> int:
    return time.time_ns() // 1000


@cache
def boot_id() -> str:
    """What tells this run of the machine from the one before; empty on a system that has no word for it."""
    if sys.platform == "win32":
        import winreg

        place = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
            return str(winreg.QueryValueEx(key, "BootId")[0])
        return ""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""

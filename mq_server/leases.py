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
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mq_server.errors import WriteFailed
from mq_server.leaselog import LeaseLog, Wrote
from mq_server.locks import FileLock
from mq_server.names import id_number, id_text, is_id

_COMPACT_BYTES = 128 * 1024
_ATTEMPTS = 20
_NUMBER_END = 1 << 57  # as microseconds that is the year 6536, which a time can still be written for
_DEADLINE = ("boot", "until_s", "span_s")
_NEEDS = {
    "fetch": ("consumer", "time_us"),
    "claim": ("consumer", "time_us", "token", *_DEADLINE),
    "extend": _DEADLINE,
    "release": _DEADLINE,
    "settle": (),
    "forget": (),
    "kept": ("fetched_us", "fetched_by", "claimed_us", "consumer", "token", "count", "settled", *_DEADLINE),
    "last": ("time_us",),
}
"""The keys of every kind of event, besides the reader and the ids."""


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
Named = Mapping[int, str]
"""Messages, by their ids as numbers and as text."""


@dataclass(slots=True)
class Delivery:
    """How far one message has come on its way to one reader, on this machine."""

    fetched_us: int = 0
    fetched_by: str = ""
    claimed_us: int = 0
    consumer: str = ""
    """Who claimed it last; empty when nobody did, or it was given back."""
    token: str = ""
    deadline: Deadline = _OVER
    count: int = 0
    """How often it was claimed."""
    settled: bool = False
    """Whether its reader was done with it. If it is delivered once more, that counts as the first time."""

    def holder(self) -> str:
        """The consumer that holds it now, or nothing."""
        return self.consumer if self.consumer and self.deadline.left_s() else ""


@dataclass(slots=True)
class _Deliveries:
    """Those to one reader, by id."""

    known: dict[int, Delivery] = field(default_factory=dict)
    timed: dict[int, Delivery] = field(default_factory=dict)
    """What has a deadline that may not be over yet."""
    claimed: dict[int, Delivery] = field(default_factory=dict)
    """What was claimed and has not been settled since."""

    def set_deadline(self, identity: int, delivery: Delivery, deadline: Deadline) -> None:
        delivery.deadline = deadline
        self.timed[identity] = delivery


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
        return self._of(reader).claimed

    def readers(self) -> Iterable[str]:
        """The readers that anything is known of."""
        return self._readers

    def withheld(self, reader: str) -> dict[int, float]:
        """The messages that are held by a consumer or not to be delivered yet, and for how many seconds more."""
        timed = self._of(reader).timed
        left = {identity: delivery.deadline.left_s() for identity, delivery in timed.items()}
        for identity in [identity for identity, left_s in left.items() if not left_s]:
            del timed[identity], left[identity]
        return left

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
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue  # torn: what it said is lost, which costs a redelivery at most
            if _is_event(event):
                self._apply(list(map(id_number, event["ids"])), event)

    def _apply(self, ids: Iterable[int], event: dict[str, Any]) -> None:
        self._events[event["op"]](self._readers.setdefault(event["reader"], _Deliveries()), ids, event)

    def _fetch(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        for identity in ids:
            delivery = of.known.setdefault(identity, Delivery())
            # It may be noted behind a claim that came later.
            if not 0 < delivery.fetched_us <= event["time_us"]:
                delivery.fetched_us, delivery.fetched_by = event["time_us"], event["consumer"]
        self._note_fetch(event)

    def _claim(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        time_us, consumer, token = event["time_us"], event["consumer"], event["token"]
        deadline = _deadline(event)
        for identity in ids:
            delivery = of.known.get(identity)
            if delivery is None:
                delivery = of.known[identity] = Delivery()
            if not delivery.fetched_us:
                delivery.fetched_us, delivery.fetched_by = time_us, consumer
            if delivery.settled:
                delivery.settled, delivery.count = False, 0
            delivery.claimed_us, delivery.consumer, delivery.token = time_us, consumer, token
            delivery.count += 1
            of.claimed[identity] = delivery
            of.set_deadline(identity, delivery, deadline)
        self._note_fetch(event)

    def _extend(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        deadline = _deadline(event)
        for identity, delivery in _those(of, ids):
            of.set_deadline(identity, delivery, deadline)

    def _release(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        deadline = _deadline(event)
        for identity, delivery in _those(of, ids):
            delivery.consumer, delivery.token = "", ""
            of.set_deadline(identity, delivery, deadline)

    def _settle(self, of: _Deliveries, ids: Iterable[int], _: dict[str, Any]) -> None:
        for identity, delivery in _those(of, ids):
            delivery.token, delivery.settled, delivery.deadline = "", True, _OVER
            of.timed.pop(identity, None)
            of.claimed.pop(identity, None)

    def _forget(self, of: _Deliveries, ids: Iterable[int], _: dict[str, Any]) -> None:
        for identity in ids:
            for deliveries in (of.known, of.timed, of.claimed):
                deliveries.pop(identity, None)

    def _kept(self, of: _Deliveries, ids: Iterable[int], event: dict[str, Any]) -> None:
        """What a compacted file starts with: deliveries as they stood."""
        for identity in ids:
            delivery = of.known[identity] = Delivery(
                fetched_us=event["fetched_us"],
                fetched_by=event["fetched_by"],
                claimed_us=event["claimed_us"],
                consumer=event["consumer"],
                token=event["token"],
                count=event["count"],
                settled=event["settled"],
            )
            of.set_deadline(identity, delivery, _deadline(event))
            of.claimed.pop(identity, None)
            if delivery.count and not delivery.settled:
                of.claimed[identity] = delivery

    def _last(self, _: _Deliveries, __: Iterable[int], event: dict[str, Any]) -> None:
        """And when the reader last fetched anything."""
        self._note_fetch(event)

    def _note_fetch(self, event: dict[str, Any]) -> None:
        reader = event["reader"]
        self.last_fetched_us[reader] = max(event["time_us"], self.last_fetched_us.get(reader, 0))

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

    def claim(self, reader: str, consumer: str, ids: Named, lease_s: float) -> str:
        """Lease messages to a consumer; the token of the lease."""
        token = os.urandom(4).hex()
        stamp = {"consumer": consumer, "time_us": _now_us(), "token": token}
        self._append("claim", reader, ids, **stamp, **Deadline.after(lease_s)._asdict())
        return token

    def extend(self, reader: str, ids: Named, lease_s: float) -> None:
        """Let leases end that many seconds from now."""
        self._append("extend", reader, ids, **Deadline.after(lease_s)._asdict())

    def release(self, reader: str, ids: Named, delay_s: float) -> None:
        """Give leased messages back; they are withheld from everybody for `delay_s`."""
        self._append("release", reader, ids, **Deadline.after(delay_s)._asdict())

    def settle(self, reader: str, ids: Named) -> None:
        """End the leases of what a reader is done with, and its count of deliveries; the rest is left out."""
        claimed = self.claimed(reader)
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
            for identity, kept in of.known.items():
                # A lease counts whatever is known here: another process may have reopened what was settled.
                if kept.deadline.left_s() or not is_settled(reader, identity):
                    event = {
                        "op": "kept",
                        "reader": reader,
                        "ids": [id_text(identity)],
                        "fetched_us": kept.fetched_us,
                        "fetched_by": kept.fetched_by,
                        "claimed_us": kept.claimed_us,
                        "consumer": kept.consumer,
                        "token": kept.token,
                        "count": kept.count,
                        "settled": kept.settled,
                    }
                    lines.append(orjson.dumps(event | kept.deadline._asdict()))
        if self._log.rewrite(lines):
            with suppress(OSError):
                self.refresh()


def _is_event(event: Any) -> bool:
    """Whether a line says something that can be applied as a whole: it may be garbage, or of another version."""
    if type(event) is not dict or not isinstance(event.get("op"), str) or event["op"] not in _NEEDS:
        return False
    ids = event.get("ids")
    if type(event.get("reader")) is not str or type(ids) is not list:
        return False
    return all(type(each) is str and is_id(each) for each in ids) and all(
        _fits(key, event.get(key)) for key in _NEEDS[event["op"]]
    )


def _fits(key: str, value: Any) -> bool:
    if key == "settled":
        return type(value) is bool
    if key.endswith("_s"):
        return type(value) in (int, float)
    if key.endswith("_us") or key == "count":
        return type(value) is int and 0 <= value < _NUMBER_END
    return type(value) is str


def _those(of: _Deliveries, ids: Iterable[int]) -> Iterable[tuple[int, Delivery]]:
    """The deliveries that an event is about, as far as they are known."""
    return [(identity, of.known[identity]) for identity in ids if identity in of.known]


def _deadline(event: dict[str, Any]) -> Deadline:
    return Deadline(event["boot"], event["until_s"], event["span_s"])


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

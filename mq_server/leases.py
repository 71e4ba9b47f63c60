"""What is momentary about delivery: who fetched what, who holds what until when, how often it was delivered.

One file a channel, `.mq/leases/<channel>.log`, of this machine only. Its first line names the generation and says how
many bytes of it were kept from the one before; each other line is an event:

    {"op":"fetch",  "reader","ids","consumer","time_us"}                  given to a reader for the first time
    {"op":"claim",  "reader","ids","consumer","time_us","token",DEADLINE} held by a consumer, nobody else gets it
    {"op":"extend", "reader","ids",DEADLINE}                              held for longer
    {"op":"release","reader","ids",DEADLINE}                              held by nobody, not delivered before then
    {"op":"settle", "reader","ids"}                                       held by nobody, its count is over
    {"op":"forget", "reader","ids"}                                       as if never delivered

A deadline is `"boot","until_s","span_s"`: seconds on the clock that counts from the start of the machine, which all its
processes share and which nobody can set. One of another boot is over.

Who writes holds the channel's lease lock. A line without its end is of a writer that died before it answered: it is
closed off by the next and ignored, as is a line that is no event. A file that has grown is written anew with what is
still of use, and exchanged by rename; whoever read the old one sees another generation and reads the new one. A file
without a header says nothing, and the next event starts it anew. Losing the file costs redeliveries, never a message
and never an acknowledgement.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mq_server.errors import WriteFailed
from mq_server.locks import FileLock
from mq_server.names import id_number, id_text, is_id

_HEADER = b'{"generation":"%s","kept_bytes":"%012d"}\n'
_HEADER_BYTES = len(_HEADER % (b"0123456789abcdef", 0))
_IS_HEADER = re.compile(rb'\{"generation":"[0-9a-f]{16}","kept_bytes":"([0-9]{12})"\}\n')
_COMPACT_BYTES = 128 * 1024
_ATTEMPTS = 20
_APPEND = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_ANEW = _APPEND | os.O_CREAT | os.O_TRUNC
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
        self._deliveries: dict[str, dict[int, Delivery]] = {}
        self._timed: dict[str, dict[int, Delivery]] = {}
        self._generation = b""
        self._offset = 0
        self._seen: tuple[int, int, int] | None = None
        self._torn = False
        self._events: dict[str, Callable[[dict[int, Delivery], dict[str, Any]], None]] = {
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
        return self._deliveries.get(reader, {})

    def readers(self) -> Iterable[str]:
        """The readers that anything is known of."""
        return self._deliveries

    def withheld(self, reader: str) -> dict[int, float]:
        """The messages that are held by a consumer or not to be delivered yet, and for how many seconds more."""
        timed = self._timed.setdefault(reader, {})
        left = {identity: delivery.deadline.left_s() for identity, delivery in timed.items()}
        for identity in [identity for identity, left_s in left.items() if not left_s]:
            del timed[identity], left[identity]
        return left

    # --- reading --------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what was written since.

        Raises:
            OSError: The file cannot be read.
        """
        try:
            status = self.path.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return
            with self.path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
                if header != self._generation or not header or status.st_size < self._offset:
                    self._reset()
                    if not _IS_HEADER.fullmatch(header):
                        self._seen = seen
                        return
                    self._generation, self._offset = header, _HEADER_BYTES
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            self._reset()
            return
        whole, feed, rest = data.rpartition(b"\n")
        for line in whole.split(b"\n"):
            self._apply(line)
        self._offset += len(whole) + len(feed)
        self._torn = bool(rest)
        self._seen = seen

    def _reset(self) -> None:
        self.last_fetched_us, self._deliveries, self._timed = {}, {}, {}
        self._generation, self._offset, self._seen, self._torn = b"", 0, None, False

    def _apply(self, line: bytes) -> None:
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            return  # torn: what it said is lost, which costs a redelivery at most
        if _is_event(event):
            self._events[event["op"]](self._deliveries.setdefault(event["reader"], {}), event)

    def _fetch(self, known: dict[int, Delivery], event: dict[str, Any]) -> None:
        for identity in map(id_number, event["ids"]):
            delivery = known.setdefault(identity, Delivery())
            if not delivery.fetched_us:
                delivery.fetched_us, delivery.fetched_by = event["time_us"], event["consumer"]
        self._note_fetch(event)

    def _claim(self, known: dict[int, Delivery], event: dict[str, Any]) -> None:
        deadline = _deadline(event)
        for identity in map(id_number, event["ids"]):
            delivery = known.setdefault(identity, Delivery())
            if delivery.settled:
                delivery.settled, delivery.count = False, 0
            delivery.claimed_us, delivery.consumer = event["time_us"], event["consumer"]
            delivery.token, delivery.count = event["token"], delivery.count + 1
            self._set_deadline(event["reader"], identity, delivery, deadline)
        self._fetch(known, event)

    def _extend(self, known: dict[int, Delivery], event: dict[str, Any]) -> None:
        for identity, delivery in _those(known, event):
            self._set_deadline(event["reader"], identity, delivery, _deadline(event))

    def _release(self, known: dict[int, Delivery], event: dict[str, Any]) -> None:
        for identity, delivery in _those(known, event):
            delivery.consumer, delivery.token = "", ""
            self._set_deadline(event["reader"], identity, delivery, _deadline(event))

    def _settle(self, known: dict[int, Delivery], event: dict[str, Any]) -> None:
        for identity, delivery in _those(known, event):
            delivery.token, delivery.settled = "", True
            self._set_deadline(event["reader"], identity, delivery, _OVER)

    def _forget(self, known: dict[int, Delivery], event: dict[str, Any]) -> None:
        for identity in map(id_number, event["ids"]):
            known.pop(identity, None)
            self._timed.get(event["reader"], {}).pop(identity, None)

    def _kept(self, known: dict[int, Delivery], event: dict[str, Any]) -> None:
        """What a compacted file starts with: deliveries as they stood."""
        for identity in map(id_number, event["ids"]):
            delivery = known[identity] = Delivery(
                fetched_us=event["fetched_us"],
                fetched_by=event["fetched_by"],
                claimed_us=event["claimed_us"],
                consumer=event["consumer"],
                token=event["token"],
                count=event["count"],
                settled=event["settled"],
            )
            self._set_deadline(event["reader"], identity, delivery, _deadline(event))

    def _last(self, _: dict[int, Delivery], event: dict[str, Any]) -> None:
        """And when the reader last fetched anything."""
        self._note_fetch(event)

    def _set_deadline(self, reader: str, identity: int, delivery: Delivery, deadline: Deadline) -> None:
        delivery.deadline = deadline
        self._timed.setdefault(reader, {})[identity] = delivery

    def _note_fetch(self, event: dict[str, Any]) -> None:
        reader = event["reader"]
        self.last_fetched_us[reader] = max(event["time_us"], self.last_fetched_us.get(reader, 0))

    # --- writing; the caller holds the lock and has refreshed --------------------------------------------------------

    def fetch(self, reader: str, consumer: str, ids: Iterable[int]) -> None:
        """Note that messages were given to a reader; those that were before are left out."""
        known = self.of(reader)
        fresh = [identity for identity in ids if identity not in known or not known[identity].fetched_us]
        if fresh:
            self._append("fetch", reader, fresh, consumer=consumer, time_us=_now_us())

    def claim(self, reader: str, consumer: str, ids: Iterable[int], lease_s: float) -> str:
        """Lease messages to a consumer; the token of the lease."""
        token = os.urandom(4).hex()
        stamp = {"consumer": consumer, "time_us": _now_us(), "token": token}
        self._append("claim", reader, ids, **stamp, **Deadline.after(lease_s)._asdict())
        return token

    def extend(self, reader: str, ids: Iterable[int], lease_s: float) -> None:
        """Let leases end that many seconds from now."""
        self._append("extend", reader, ids, **Deadline.after(lease_s)._asdict())

    def release(self, reader: str, ids: Iterable[int], delay_s: float) -> None:
        """Give leased messages back; they are withheld from everybody for `delay_s`."""
        self._append("release", reader, ids, **Deadline.after(delay_s)._asdict())

    def settle(self, reader: str, ids: Iterable[int]) -> None:
        """End the leases of what a reader is done with, and its count of deliveries; the rest is left out."""
        known = self.of(reader)
        ids = [
            identity for identity in ids if identity in known and known[identity].count and not known[identity].settled
        ]
        if ids:
            self._append("settle", reader, ids)

    def forget(self, reader: str, ids: Iterable[int]) -> None:
        """Start the count of deliveries anew."""
        known = self.of(reader)
        ids = [identity for identity in ids if identity in known]
        if ids:
            self._append("forget", reader, ids)

    def _append(self, op: str, reader: str, ids: Iterable[int], **fields: Any) -> None:
        event = {"op": op, "reader": reader, "ids": [id_text(identity) for identity in ids]} | fields
        line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
        try:
            for _ in range(_ATTEMPTS):
                stands = self._write(line)
                self.refresh()
                if stands:
                    return
            raise FileNotFoundError(errno.ENOENT, "it was removed again and again")
        except OSError as error:
            raise WriteFailed(self.path, error) from error

    def _write(self, line: bytes) -> bool:
        """Write a line; false if the file was removed or replaced meanwhile, as when somebody deletes the folder."""
        data = b"\n" * self._torn + line if self._generation else _new_header(0) + line
        try:
            handle = os.open(self.path, _APPEND if self._generation else _ANEW, 0o666)
        except FileNotFoundError:
            # Somebody who deletes the folder right now may come between any two steps.
            with suppress(FileNotFoundError, FileExistsError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            return False
        try:
            while data:  # a full disk takes a part; the next write says so
                data = data[os.write(handle, data) :]
            return os.fstat(handle).st_ino == self.path.stat().st_ino
        except FileNotFoundError:
            return False
        finally:
            os.close(handle)

    def compact(self, is_settled: Callable[[str, int], bool]) -> None:
        """Write the file anew without what has become useless, if it has grown enough. The lock must be held.

        Args:
            is_settled: Whether a reader is done with a message.
        """
        header = _IS_HEADER.fullmatch(self._generation)
        kept_bytes = int(header[1]) if header else 0
        if self._offset < max(_COMPACT_BYTES, 2 * kept_bytes):
            return
        lines = []
        for reader, known in self._deliveries.items():
            last = {"op": "last", "reader": reader, "ids": [], "time_us": self.last_fetched_us.get(reader, 0)}
            lines.append(orjson.dumps(last))
            for identity, kept in known.items():
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
        data = b"".join(line + b"\n" for line in lines)
        data = _new_header(len(data)) + data
        new = self.path.with_suffix(".new")
        # Windows refuses to replace a file that somebody reads just now, a disk may be full, the folder deleted: the
        # next write tries again.
        with suppress(OSError):
            new.write_bytes(data)
            new.replace(self.path)
            self.refresh()


def _new_header(kept_bytes: int) -> bytes:
    return _HEADER % (os.urandom(8).hex().encode(), kept_bytes)


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


def _those(known: dict[int, Delivery], event: dict[str, Any]) -> Iterable[tuple[int, Delivery]]:
    """The deliveries that an event is about, as far as they are known."""
    return [(identity, known[identity]) for identity in map(id_number, event["ids"]) if identity in known]


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

"""What was said between two states of a production, across all its mailboxes: a comparison of messages, not of lines.

Messages are compared by id, wherever they stand: a line that has moved, within its file or into the archive, is no
change. The states are the files' bytes, from commits or from the folder; this module reads neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from mq_server.blocks import Block
from mq_server.delivery import Receipt, parse_receipt
from mq_server.errors import InvalidName, Problem
from mq_server.message import Message, Unreadable, parse_fields, parse_line
from mq_server.names import check_name
from mq_server.store import ARCHIVE, RECEIPTS, SUFFIX, is_month


class LogName(NamedTuple):
    """What a file of a production holds: a channel's messages, present or archived, or its receipts."""

    channel: str
    is_receipts: bool


def log_name(name: str) -> LogName | None:
    """What a file holds by its name, relative to the production; None if it is neither mailbox nor receipts."""
    path = PurePosixPath(name)
    folders = path.parts[:-1]
    archived = len(folders) == 2 and folders[0] == ARCHIVE and is_month(folders[1])
    if path.suffix != SUFFIX or not (folders in ((), (RECEIPTS,)) or archived):
        return None
    try:
        return LogName(check_name("channel", path.stem), folders == (RECEIPTS,))
    except InvalidName:
        return None


class Edited(NamedTuple):
    """A message whose line was changed by hand."""

    before: Message
    after: Message


class Settled(NamedTuple):
    """What one reader of a channel has settled, in numbers of messages; and how often it has sought."""

    channel: str
    reader: str
    read: int = 0
    rejected: int = 0
    reopened: int = 0
    sought: int = 0

    @property
    def name(self) -> str:
        """The reader, and of what if it is not the channel's own."""
        return self.reader if self.reader == self.channel else f"{self.reader} of {self.channel}"

    def words(self) -> str:
        """`4 read, 1 rejected`."""
        counted = [
            (self.read, "read"),
            (self.rejected, "rejected"),
            (self.reopened, "reopened"),
            (self.sought, "sought to a time" if self.sought == 1 else "times sought to a time"),
        ]
        return ", ".join(f"{number:,} {what}" for number, what in counted if number)

    def as_json(self) -> dict[str, Any]:
        """The shape within the answer."""
        return {key: value for key, value in self._asdict().items() if value or key in ("read", "rejected")}


class Count(NamedTuple):
    """How much is new in a channel, was edited in it, and is gone from it."""

    channel: str
    messages: int = 0
    edited: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference: everything in (timestamp, id) order, each message once however many mailboxes it went to.

    `gone` are messages that stand no more in one of their mailboxes, `copied` those that were there before and now
    stand in further ones. `counts` are by channel, where a message counts in each of its mailboxes. `problems` are
    lines of the later state that cannot be read.
    """

    messages: tuple[Message, ...] = ()
    edited: tuple[Edited, ...] = ()
    gone: tuple[Message, ...] = ()
    copied: tuple[Message, ...] = ()
    settled: tuple[Settled, ...] = ()
    counts: tuple[Count, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.messages or self.edited or self.gone or self.copied or self.settled)

    def by_sender(self) -> list[tuple[str, str, int]]:
        """(sender, type, number) of the new messages, sorted."""
        counted = Counter((message.sender, message.msg_type) for message in self.messages)
        return [(sender, msg_type, number) for (sender, msg_type), number in sorted(counted.items())]

    def total(self) -> str:
        """The new messages in a few words, with what else there is: `12 messages from 5 agents, 1 edited`."""
        senders = len({message.sender for message in self.messages})
        said = [f"{count(len(self.messages), 'message')} from {count(senders, 'agent')}"] if self.messages else []
        said += [f"{len(self.edited):,} edited"] if self.edited else []
        said += [f"{len(self.gone):,} gone"] if self.gone else []
        said += [f"{len(self.copied):,} copied to further mailboxes"] if self.copied else []
        handled = sum(each.read + each.rejected for each in self.settled)
        said += [f"{handled:,} settled"] if handled else []
        return ", ".join(said) or ("receipts only" if self.settled else "no change")

    def stat_json(self) -> dict[str, Any]:
        """The numbers."""
        return {
            "messages": len(self.messages),
            "edited": len(self.edited),
            "gone": len(self.gone),
            "channels": [each._asdict() for each in self.counts],
            "senders": [
                {"sender": sender, "msg_type": msg_type, "messages": number}
                for sender, msg_type, number in self.by_sender()
            ],
            "settled": [each.as_json() for each in self.settled],
        }

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        shown: dict[str, Any] = {
            "messages": [message.as_json() for message in self.messages],
            "edited": [{"before": each.before.as_json(), "after": each.after.as_json()} for each in self.edited],
            "gone": [message.as_json() for message in self.gone],
            "settled": [each.as_json() for each in self.settled],
        }
        if self.copied:
            shown["copied"] = [message.as_json() for message in self.copied]
        if self.problems:
            shown["problems"] = [str(problem) for problem in self.problems]
        return shown


def count(number: int, noun: str) -> str:
    """`1 message`, `2,000 messages`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --- comparing --------------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """One line, its number, and the id of what it holds."""

    id: str
    number: int
    data: bytes


_Key = tuple[str, str]
_Lines = dict[_Key, _Line]
"""The lines of one state by (channel, id); of different lines of one id, the bytewise greatest."""


def compare(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Comparison:
    """What was said between two states.

    Args:
        before: The files' contents by their names relative to the production. Others than logs are ignored.
        after: The same, later.
    """
    problems: list[Problem] = []
    old, new, old_receipts, new_receipts = _Lines(), _Lines(), _Lines(), _Lines()
    for name in sorted(before.keys() | after.keys()):
        log = log_name(name)
        if log is None:
            continue
        olds, news = (old_receipts, new_receipts) if log.is_receipts else (old, new)
        identify = _receipt_id if log.is_receipts else _message_id
        first, last = before.get(name, b""), after.get(name, b"")
        read = list(_read(name, first, identify, []))
        _add(olds, log.channel, read)
        if (first.endswith(b"\n") or not first) and last.startswith(first):
            # The usual case, a file that has only grown: what was there before is not read twice.
            start, line_feeds = len(first), first.count(b"\n")
            read += _read(name, last[start:], identify, problems, line_feeds + 1)
        else:
            read = list(_read(name, last, identify, problems))
        _add(news, log.channel, read)
    known = {identity for _, identity in old}
    counted: dict[str, Counter[str]] = {}

    def found(keys: Iterable[_Key], what: str, lines: _Lines) -> tuple[Message, ...]:
        """The messages at some keys, each once: the first by channel name, as everywhere."""
        chosen: dict[str, str] = {}
        for channel, identity in sorted(keys):
            counted.setdefault(channel, Counter())[what] += 1
            chosen.setdefault(identity, channel)
        return _ordered(_message(channel, lines[channel, identity]) for identity, channel in chosen.items())

    edited = [key for key in old.keys() & new.keys() if old[key].data != new[key].data]
    after_edit = found(edited, "edited", new)
    return Comparison(
        messages=found((key for key in new if key[1] not in known), "messages", new),
        edited=tuple(Edited(_message(each.channel, old[each.channel, each.id]), each) for each in after_edit),
        gone=found(old.keys() - new.keys(), "gone", old),
        copied=found((key for key in new.keys() - old.keys() if key[1] in known), "copied", new),
        settled=_settled(
            (channel, parse_receipt(new_receipts[channel, identity].data))
            for channel, identity in sorted(new_receipts.keys() - old_receipts.keys())
        ),
        counts=tuple(
            Count(channel, numbers["messages"], numbers["edited"], numbers["gone"])
            for channel, numbers in sorted(counted.items())
        ),
        problems=tuple(sorted(problems)),
    )


def _read(
    name: str, data: bytes, identify: Callable[[bytes], str], problems: list[Problem], first_line: int = 1
) -> Iterator[_Line]:
    """The lines of a file that can be read; of the others a Problem each."""
    for _, number, line in Block(0 if first_line == 1 else 1, first_line, data).lines():
        try:
            yield _Line(identify(line), number, line)
        except (Unreadable, ValueError) as error:
            problems.append(Problem(name, number, str(error)))


def _message_id(line: bytes) -> str:
    return str(parse_fields(line)["id"])


def _receipt_id(line: bytes) -> str:
    return parse_receipt(line).id


def _add(lines: _Lines, channel: str, read: Iterable[_Line]) -> None:
    for line in read:
        key = channel, line.id
        if key not in lines or line.data > lines[key].data:
            lines[key] = line


def _message(channel: str, line: _Line) -> Message:
    message = parse_line(line.data, channel, line.number)
    return message._replace(amended=True) if message.replaces is not None else message


def _ordered(messages: Iterable[Message]) -> tuple[Message, ...]:
    return tuple(sorted(messages, key=lambda message: (message.time_us, message.id)))


def _settled(receipts: Iterable[tuple[str, Receipt]]) -> tuple[Settled, ...]:
    """Receipts by channel and reader, the channel's own reader first. A message that was settled twice counts once."""
    ids: dict[tuple[str, str], dict[str, set[int]]] = {}
    sought: Counter[tuple[str, str]] = Counter()
    for channel, receipt in receipts:
        key = channel, receipt.reader
        ids.setdefault(key, {}).setdefault(receipt.op, set()).update(receipt.ids)
        sought[key] += receipt.op == "seek"
    return tuple(
        Settled(
            *key,
            read=len(ids[key].get("ack", ())),
            rejected=len(ids[key].get("reject", ())),
            reopened=len(ids[key].get("reopen", ())),
            sought=sought[key],
        )
        for key in sorted(ids, key=lambda key: (key[0], key[1] != key[0], key[1]))
    )

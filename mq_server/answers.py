"""What the façade answers: frozen values, each with `as_json()`, the shape that tools and `--json` show.

`next` is always a token for the same question's next page, and None where there is none. `problems` are those of the
files that the answer was read from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson

from mq_server.errors import Problem
from mq_server.message import Message
from mq_server.outcomes import Holding, Lease

MAX_PROBLEMS = 10
ABBREVIATED_CHARACTERS = 280
T = TypeVar("T")


class Page(NamedTuple):
    """Messages of one or more channels.

    `leases` stand beside the messages when they were claimed. `remaining` counts what the question would still give.
    `merged` says that the place a token named has moved and the page starts at the newest place known unchanged, so
    that some messages may come again but none is left out.
    """

    messages: tuple[Message, ...] = ()
    next: str | None = None
    remaining: int = 0
    problems: tuple[Problem, ...] = ()
    merged: bool = False
    timed_out: bool | None = None
    peek: bool = False
    leases: tuple[Lease, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The shape of the tools' answers."""
        entries = [message.as_json() for message in self.messages]
        for entry, lease in zip(entries, self.leases, strict=False):
            entry |= lease.as_json()
        shown: dict[str, Any] = {"messages": entries}
        if self.timed_out is not None:
            shown["timed_out"] = self.timed_out
        if self.next is not None:
            shown["next"] = self.next
        shown["remaining"] = self.remaining
        if self.merged:
            shown["merged"] = True
        if self.peek:
            shown["peek"] = True
        return shown | problems_json(self.problems)


class ThreadPage(NamedTuple):
    """A thread, or its newest part: messages with their depth, parents before children."""

    root: str
    messages: tuple[Message, ...]
    depths: tuple[int, ...]
    total: int
    participants: tuple[str, ...]
    channels: tuple[str, ...]
    missing_parent: str | None = None
    next: str | None = None
    remaining: int = 0
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The shape of the tool's answer."""
        entries = [
            message.as_json() | {"depth": depth} for message, depth in zip(self.messages, self.depths, strict=True)
        ]
        shown: dict[str, Any] = {
            "root": self.root,
            "total": self.total,
            "participants": list(self.participants),
            "channels": list(self.channels),
            "messages": entries,
            "remaining": self.remaining,
        }
        if self.missing_parent is not None:
            shown["missing_parent"] = self.missing_parent
        if self.next is not None:
            shown["next"] = self.next
        return shown | problems_json(self.problems)


class Activity(NamedTuple):
    """A timeline over channels, oldest first; long payloads are abbreviated in its JSON.

    `next` goes into `since` for what comes after. `more` says that there is more of what was asked for: after this
    page, or, when the newest were asked for, before it.
    """

    messages: tuple[Message, ...]
    next: str
    more: bool = False
    problems: tuple[Problem, ...] = ()
    merged: bool = False

    def as_json(self) -> dict[str, Any]:
        """The shape of the tool's answer."""
        shown: dict[str, Any] = {"messages": [abbreviated(message) for message in self.messages]}
        shown |= {"next": self.next, "more": self.more}
        if self.merged:
            shown["merged"] = True
        return shown | problems_json(self.problems)


class Hit(NamedTuple):
    """A message that a search found, with the text around the first place."""

    message: Message
    snippet: str

    def as_json(self) -> dict[str, Any]:
        """The message's keys without its payload, and the snippet."""
        shown = self.message.as_json()
        del shown["payload"]
        return shown | {"snippet": self.snippet}


class Hits(NamedTuple):
    """What a search found, newest first. `next` goes into `until` for older ones."""

    hits: tuple[Hit, ...]
    next: str | None = None
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The shape of the tool's answer."""
        shown: dict[str, Any] = {"hits": [hit.as_json() for hit in self.hits]}
        if self.next is not None:
            shown["next"] = self.next
        return shown | problems_json(self.problems)


class ChannelState(NamedTuple):
    """One line of the directory."""

    channel: str
    description: str = ""
    group: str = ""
    messages: int = 0
    unread: int = 0
    waiting: int = 0
    last: Message | None = None

    def as_json(self) -> dict[str, Any]:
        """The shape within the tool's answer."""
        shown: dict[str, Any] = {"channel": self.channel}
        if self.description:
            shown["description"] = self.description
        if self.group:
            shown["group"] = self.group
        shown |= {"messages": self.messages, "unread": self.unread, "waiting": self.waiting}
        if self.last is not None:
            shown["last"] = self.last.heading()
        return shown


class Directory(NamedTuple):
    """Who is here, what waits for the asker, what it holds and still wants to know, what it said last.

    `types` are the names of the production's own message types, or the fields of the types that were asked for.
    """

    you: str | None
    channels: tuple[ChannelState, ...]
    types: Mapping[str, str] | Sequence[str] = ()
    holds: tuple[Holding, ...] = ()
    unanswered: tuple[Message, ...] = ()
    last_posts: tuple[Message, ...] = ()
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The shape of the tool's answer."""
        shown: dict[str, Any] = {"you": self.you} if self.you else {}
        shown["channels"] = [channel.as_json() for channel in self.channels]
        if self.types:
            shown["types"] = dict(self.types) if isinstance(self.types, Mapping) else list(self.types)
        if self.holds:
            shown["holds"] = [holding.as_json() for holding in self.holds]
        if self.unanswered:
            shown["unanswered"] = [message.heading() for message in self.unanswered]
        if self.you:
            shown["last_posts"] = [message.heading() for message in self.last_posts]
        return shown | problems_json(self.problems)


class Sent(NamedTuple):
    """That a message was sent: when, in microseconds since 1970, and by whom."""

    time_us: int
    sender: str


class Traffic(NamedTuple):
    """Who wrote when, each message once; and per sender and mailbox how often."""

    sent: tuple[Sent, ...]
    pairs: Mapping[tuple[str, str], int]


class Report(NamedTuple):
    """What `mq check` found."""

    channels: int
    messages: int
    problems: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Every problem, none left out."""
        return {
            "channels": self.channels,
            "messages": self.messages,
            "problems": [str(problem) for problem in self.problems],
        }


def problems_json(problems: Sequence[Problem]) -> dict[str, Any]:
    """`{"problems": [...]}` with the first few and how many more, or nothing when all is well."""
    if not problems:
        return {}
    shown = [str(problem) for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"… and {len(problems) - MAX_PROBLEMS} more: run `mq check`")
    return {"problems": shown}


def abbreviated(message: Message) -> dict[str, Any]:
    """The message's JSON with long texts and lists cut short; `abbreviated` then names the call for all of it."""
    shown = message.as_json()
    shown["payload"], cut = _shorten(message.payload)
    if cut:
        call = f"read_messages(channel={message.channel!r}, since={message.timestamp!r}, limit=1)"
        shown["abbreviated"] = f"{call} gives all of it"
    return shown


def _shorten(value: Any) -> tuple[Any, bool]:
    if isinstance(value, str) and len(value) > ABBREVIATED_CHARACTERS:
        return f"{value[:ABBREVIATED_CHARACTERS]}… [{len(value) - ABBREVIATED_CHARACTERS} more characters]", True
    if isinstance(value, list):
        items = [_shorten(item) for item in value[:3]]
        more = [f"… [{len(value) - 3} more]"] if len(value) > 3 else []
        return [item for item, _ in items] + more, bool(more) or any(cut for _, cut in items)
    if isinstance(value, dict):
        pairs = {key: _shorten(item) for key, item in value.items()}
        return {key: item for key, (item, _) in pairs.items()}, any(cut for _, cut in pairs.values())
    return value, False


def fitting(entries: Sequence[T], shape: Callable[[T], dict[str, Any]], limit_bytes: int | None) -> int:
    """How many of the entries fit into `limit_bytes` of JSON; at least one, so that every page goes on."""
    if limit_bytes is None:
        return len(entries)
    size = 0
    for count, entry in enumerate(entries):
        size += len(orjson.dumps(shape(entry))) + 1
        if size > limit_bytes and count:
            return count
    return len(entries)

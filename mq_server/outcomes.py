"""What became of a post, a claim, a settlement: frozen values, each with `as_json()`, the shape that tools show."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mq_server.errors import NotSettled
from mq_server.message import Message


class Recipient(NamedTuple):
    """How a message met a mailbox it was posted to.

    `waiting` counts who waited for it, `unread` what its own reader has to read, this message included; `last_read` is
    when that reader last took or settled anything.
    """

    channel: str
    created: bool = False
    waiting: int = 0
    unread: int | None = None
    last_read: str | None = None

    def as_json(self) -> dict[str, Any]:
        """`created` only when the post made the mailbox; `unread` and `last_read` only where they are known."""
        shown: dict[str, Any] = {"channel": self.channel, "waiting": self.waiting}
        if self.created:
            shown["created"] = True
        if self.unread is not None:
            shown["unread"] = self.unread
        if self.last_read is not None:
            shown["last_read"] = self.last_read
        return shown


class Unanswered(NamedTuple):
    """A question without a reply in time: how to go on, and what lies unread for the asker (`others`) meanwhile.

    `unread` counts all of it.
    """

    question: str
    asker: str
    unread: int
    others: tuple[Message, ...] = ()

    def go_on(self) -> str:
        """The call that goes on waiting."""
        return f"wait_for_messages(channel={self.asker!r}, reply_to={self.question!r}, ack=true)"

    def meanwhile(self) -> str:
        """What lies unread, in words; empty when nothing does."""
        if not self.unread:
            return ""
        listed = "; ".join(f"{message.ref} {message.msg_type} from {message.sender}" for message in self.others)
        return f". Unread in {self.asker} meanwhile: {self.unread} ({listed}). Somebody may be waiting for you"

    def as_json(self) -> dict[str, Any]:
        """The shape within the tool's answer."""
        shown = {"timed_out": True, "go_on": self.go_on(), "unread": self.unread}
        if self.others:
            shown["others"] = [message.heading() for message in self.others]
        return shown


class Posted(NamedTuple):
    """A stored message; `message` is the copy in the first of its mailboxes.

    `duplicate` says that it was posted before under the same `dedup_key`, and `differs` that it says something else
    than what was to be posted now. `advice` is what the poster should know of the scene. `reply` and `unanswered` are
    of a post that waited for a reply.
    """

    message: Message
    recipients: tuple[Recipient, ...]
    duplicate: bool = False
    differs: bool = False
    advice: str | None = None
    reply: Message | None = None
    unanswered: Unanswered | None = None

    @property
    def id(self) -> str:
        """The message's id."""
        return self.message.id

    @property
    def ref(self) -> str:
        """The message's ref."""
        return self.message.ref

    def as_json(self) -> dict[str, Any]:
        """The shape of the tool's answer."""
        message = self.message
        shown: dict[str, Any] = {"id": message.id, "ref": message.ref, "timestamp": message.timestamp}
        if message.scene is not None:
            shown["scene"] = message.scene
        shown["recipients"] = [recipient.as_json() for recipient in self.recipients]
        if self.duplicate:
            shown["duplicate"] = True
        if self.differs:
            shown["differs"] = "this dedup_key stands for another message, given here; use a new key for a new one"
        if self.advice is not None:
            shown["advice"] = self.advice
        if self.reply is not None:
            shown["reply"] = self.reply.as_json()
        if self.unanswered is not None:
            shown["reply"] = self.unanswered.as_json()
        return shown


class Lease(NamedTuple):
    """The hold that a claim has on a message: `name` settles exactly this delivery."""

    name: str
    lease_s: float
    deliveries: int

    def as_json(self) -> dict[str, Any]:
        """What a claimed message shows besides its own keys."""
        return {"lease": self.name, "lease_s": self.lease_s, "deliveries": self.deliveries}


class Refusal(NamedTuple):
    """A message that was not settled, and why."""

    id: str
    why: str

    def as_json(self) -> dict[str, Any]:
        """Both."""
        return {"id": self.id, "why": self.why}


DONE = {"ack": "acked", "release": "released", "reject": "rejected", "reopen": "reopened", "extend": "extended"}
"""What has become of a message after each kind of settlement."""


class Settled(NamedTuple):
    """What was settled, and what was not.

    `done` has the ids by what was done (`ack`, `release`, `reject`, `reopen`, `extend`), `dead_letters` the ids of the
    copies of what was rejected, `seek` the time where the reader starts anew.
    """

    channel: str
    reader: str
    done: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    dead_letters: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    seek: str | None = None

    def require_all(self) -> None:
        """Insist that nothing was refused.

        Raises:
            NotSettled: Something was.
        """
        if self.refused:
            raise NotSettled([f"{refusal.id}: {refusal.why}" for refusal in self.refused])

    def as_json(self) -> dict[str, Any]:
        """The shape of the tool's answer."""
        shown: dict[str, Any] = {"channel": self.channel, "reader": self.reader}
        shown |= {DONE[op]: list(ids) for op, ids in self.done.items()}
        if self.seek is not None:
            shown["seek"] = self.seek
        if self.dead_letters:
            shown["dead_letters"] = list(self.dead_letters)
        if self.refused:
            shown["refused"] = [refusal.as_json() for refusal in self.refused]
        return shown


class Holding(NamedTuple):
    """A message that is held by a consumer, or withheld from all of them (`consumer` is empty) for `left_s` more."""

    message: Message
    reader: str
    consumer: str
    left_s: float
    deliveries: int

    def as_json(self) -> dict[str, Any]:
        """The shape within answers."""
        shown = self.message.heading() | {"channel": self.message.channel, "reader": self.reader}
        if self.consumer:
            shown["held_by"] = self.consumer
        return shown | {"left_s": round(self.left_s, 1), "deliveries": self.deliveries}


class Step(NamedTuple):
    """Something that happened to a message on its way to a reader: what, when and by which consumer."""

    did: str
    timestamp: str
    consumer: str
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """The shape within the tool's answer."""
        shown = {"did": self.did, "timestamp": self.timestamp, "by": self.consumer}
        return shown | ({"reason": self.reason} if self.reason else {})


class Progress(NamedTuple):
    """How far a message has come on its way to one reader of one mailbox.

    `state` is `stored`, `fetched`, `claimed`, `withheld` (given back, not delivered for `left_s`), `acked`, `rejected`,
    `passed` (a seek has passed over it) or `expired`. What was fetched and claimed is known on the machine where it
    happened, and until it is settled.
    """

    channel: str
    ref: str
    reader: str
    state: str
    waiting: int = 0
    steps: tuple[Step, ...] = ()
    deliveries: int = 0
    left_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The shape within the tool's answer."""
        shown: dict[str, Any] = {"channel": self.channel, "ref": self.ref, "reader": self.reader, "state": self.state}
        if self.state in _ON_THE_WAY:
            shown["waiting"] = self.waiting
        if self.left_s:
            shown["left_s"] = round(self.left_s, 1)
        if self.deliveries:
            shown["deliveries"] = self.deliveries
        return shown | {"steps": [step.as_json() for step in self.steps]}


_ON_THE_WAY = ("stored", "fetched", "claimed", "withheld")


class Status(NamedTuple):
    """A message and how far it has come, per mailbox and reader."""

    message: Message
    progress: tuple[Progress, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape of the resource and of `mq status --json`."""
        return {"message": self.message.as_json(), "progress": [each.as_json() for each in self.progress]}


class Vanished(NamedTuple):
    """A line that this machine wrote, that is gone from its file and that git does not have either.

    `file` is relative to the production. `delivered` says that a reader got the message before; `what` is it in a few
    words.
    """

    file: str
    id: str
    what: str
    delivered: bool

    def as_json(self) -> dict[str, Any]:
        """The shape of `mq recover --json`."""
        return {"file": self.file, "id": self.id, "what": self.what, "delivered": self.delivered}


class ReaderStatus(NamedTuple):
    """How far one reader of a channel has come."""

    reader: str
    unread: int
    last_read: str | None = None

    def as_json(self) -> dict[str, Any]:
        """`last_read` only when it is known."""
        shown: dict[str, Any] = {"reader": self.reader, "unread": self.unread}
        return shown | ({"last_read": self.last_read} if self.last_read else {})


class ChannelStatus(NamedTuple):
    """How far the readers of a channel have come, and what is held by whom."""

    channel: str
    messages: int
    waiting: int
    readers: tuple[ReaderStatus, ...]
    held: tuple[Holding, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape of `mq status CHANNEL --json`."""
        return {
            "channel": self.channel,
            "messages": self.messages,
            "waiting": self.waiting,
            "readers": [reader.as_json() for reader in self.readers],
            "held": [holding.as_json() for holding in self.held],
        }

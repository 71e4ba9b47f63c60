"""What an agent knows when it thinks: the mail before it and the conversation it belongs to.

Agents keep no notes of their own. Whatever one of them needs to decide it reads from the thread, so mail that is
delivered a second time, or to a restarted agent, is answered exactly as it would have been the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Payload = dict[str, Any]

PREVIOUS: Final = "previous"
"""As `Draft.reply_to`: the draft before this one in the same turn."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A message as the tools answer with it, reduced to what the craft looks at."""

    id: str
    sender: str
    msg_type: str
    payload: Payload
    reply_to: str | None = None

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> Mail:
        """Take over one message of a tool's answer."""
        return cls(
            message["id"], message["sender"], message["msg_type"], dict(message["payload"]), message.get("reply_to")
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """A message an agent means to post.

    Args:
        msg_type: Its type.
        payload: Its payload.
        to: Channels; none means the sender of what it replies to.
        reply_to: The id replied to, or `PREVIOUS`.
    """

    msg_type: str
    payload: Payload
    to: tuple[str, ...]
    reply_to: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What an agent decides on reading one message: what to post now, and what it still waits for."""

    drafts: tuple[Draft, ...] = ()
    awaits: tuple[str, ...] = ()

    def following(self, posted: Sequence[str]) -> tuple[Draft, str] | None:
        """The next draft to post, with the id it replies to; None when all are posted.

        Args:
            posted: The ids of those posted so far, in order.
        """
        if len(posted) == len(self.drafts):
            return None
        draft = self.drafts[len(posted)]
        return draft, posted[-1] if draft.reply_to == PREVIOUS else draft.reply_to


class Conversation:
    """A thread in the order its messages were minted, and the questions the craft asks of it.

    Args:
        mails: The thread's messages in any order; repetitions are dropped.
    """

    def __init__(self, mails: Iterable[Mail]) -> None:
        self._by_id = {mail.id: mail for mail in sorted(mails, key=lambda mail: mail.id)}

    def __iter__(self) -> Iterator[Mail]:
        return iter(self._by_id.values())

    @property
    def round(self) -> int:
        """The version being worked on: one more than the times it was sent back."""
        return 1 + len(self.all("feedback", "quality_assessor"))

    def get(self, message_id: object) -> Mail | None:
        """The message with this id, if it is in the thread."""
        return self._by_id.get(message_id) if isinstance(message_id, str) else None

    def all(self, msg_type: str, sender: str | None = None) -> list[Mail]:
        """All messages of a type, oldest first."""
        return [mail for mail in self if mail.msg_type == msg_type and sender in (None, mail.sender)]

    def last(self, msg_type: str, sender: str | None = None) -> Mail | None:
        """The newest message of a type."""
        return next(reversed(self.all(msg_type, sender)), None)

    def version(self, msg_type: str, version: int) -> Mail | None:
        """The newest message of a type that was made for this version of the scene."""
        made = [mail for mail in self.all(msg_type) if mail.payload.get("version") == version]
        return next(reversed(made), None)

    def answer(self, msg_type: str, sender: str, reply_to: str) -> Mail | None:
        """What a sender has replied to a message with this type of its own."""
        return next((mail for mail in self.all(msg_type, sender) if mail.reply_to == reply_to), None)

    def is_cleared_up(self, about: str, asker: str) -> bool:
        """Whether the asker has asked about a message and somebody has answered."""
        query = self.answer("query", asker, about)
        return query is not None and any(mail.reply_to == query.id for mail in self.all("answer"))

    def points_for(self, agent: str) -> list[Payload]:
        """The points of criticism addressed to an agent so far, of every round."""
        points = [point for mail in self.all("feedback", "quality_assessor") for point in mail.payload["points"]]
        return [point for point in points if agent in point["to"]]

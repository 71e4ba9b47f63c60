"""Request and reply: a post that waits for its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mq_server.errors import NoReply
from mq_server.message import Message
from mq_server.outcomes import Posted
from mq_server.posting import Posting

if TYPE_CHECKING:
    from pydantic import BaseModel


class Asking(Posting):
    """The part of the façade that asks."""

    async def ask(
        self,
        channel: str | Iterable[str] | None = None,
        *,
        sender: str | None = None,
        payload: Mapping[str, Any] | BaseModel,
        timeout_s: float = 25.0,
        **options: Any,
    ) -> Message:
        """Post a message and wait for the first reply to it in the asker's own mailbox, which counts as read then.

        Args:
            channel: Whom to ask.
            sender: Who asks; the reply is expected in the mailbox of that name.
            payload: The question.
            timeout_s: How long to wait, in seconds.
            options: What else `post` takes. With a `dedup_key` the call may be repeated until the reply is there: the
                question is posted once.

        Returns:
            The reply.

        Raises:
            NoReply: There was none in time. The error says what lies unread for the asker meanwhile.
            MailError: As of `post`.
        """
        posted: Posted = await self.post(channel, sender=sender, payload=payload, wait_reply_s=timeout_s, **options)
        if posted.unanswered is not None:
            unanswered = posted.unanswered
            raise NoReply(posted.id, timeout_s, unanswered.go_on(), unanswered.meanwhile())
        assert posted.reply is not None, "a post that waits gives a reply, or says that there is none"
        return posted.reply

"""Waiting for the reply to a post."""

from __future__ import annotations

from mq_server.columns import Place
from mq_server.message import Message
from mq_server.outcomes import Posted, Unanswered
from mq_server.reading import Reader
from mq_server.selecting import Question

_LOOKED_AT = 50
_SHOWN = 5


class Replying(Reader):
    """The part of the façade that waits for replies."""

    async def _with_reply(self, posted: Posted, timeout_s: float) -> Posted:
        """The same with the first reply in the sender's mailbox, or with what is unread there when none came."""
        asker, question = posted.message.sender, posted.id
        if posted.duplicate:
            given = await self._reply_given(asker, question)
            if given is not None:
                return posted._replace(reply=given)
        page = await self.wait(asker, reader=asker, reply_to=question, ack=True, limit=1, timeout_s=timeout_s)
        if page.messages:
            return posted._replace(reply=page.messages[0])
        given = await self._reply_given(asker, question)  # taken meanwhile by somebody else who reads for the asker
        if given is not None:
            return posted._replace(reply=given)
        asked = {recipient.channel for recipient in posted.recipients}
        look = Question(asker, None, None, None, asker, False, _LOOKED_AT, None, None)
        page = await self._shelf.consistent([asker], lambda: self._page(look))
        others = sorted(page.messages, key=lambda message: message.sender not in asked)[:_SHOWN]
        unread = len(page.messages) + page.remaining
        return posted._replace(
            unanswered=Unanswered(question=question, asker=asker, unread=unread, others=tuple(others))
        )

    async def _reply_given(self, asker: str, question: str) -> Message | None:
        """The reply that has been handed over to the asker before; the first of several."""

        def answer() -> list[Message]:
            index = self._index.channels.get(asker)
            if index is None:
                return []
            amendments, state = self._index.amendments(), self._shelf.reader_state(asker, asker)
            asked = amendments.versions(self._original(question))
            replies = {index.identity(row) for version in asked for row in index.replies.get(version, ())}
            versions = {version for reply in replies for version in amendments.versions(amendments.original(reply))}
            given = []
            for row in (index.rows[identity] for identity in versions if identity in index.rows):
                if state.is_settled(index.identity(row), index.times_us[row]):
                    receipt = state.settled.get(index.identity(row))
                    given.append((receipt.time_us if receipt else 0, row))
            return self._shelf.load([Place(asker, min(given)[1])]) if given else []

        replies = await self._shelf.consistent(None, answer)
        return replies[0] if replies else None

"""Messages as the page gets them: the fields it sorts and filters by, and the HTML that an export would show.

The HTML is safe by construction: `render.markup` escapes whatever is not markup of its own making. The page inserts it
as it is, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mq_server.errors import MailError
from mq_server.mailroom import Mailroom
from mq_server.message import Message
from mq_server.names import is_id
from mq_server.render.agents import hue_of, initials
from mq_server.render.html import Found, message_html
from mq_server.render.parts import about_of
from mq_server.render.text import visible_line
from mq_server.render.transcript import gist

_GIST = 80


async def shown(room: Mailroom, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages for the page, in the order given.

    Args:
        room: Where what they refer to is looked up.
        messages: The messages.
    """
    found = await _found(room, messages)
    return [fragment(message, found) for message in messages]


def fragment(message: Message, found: Found) -> dict[str, Any]:
    """One message for the page.

    Args:
        message: The message.
        found: The messages that its links may lead to.
    """
    return heading(message) | {
        "html": message_html(message, found, marks=["amended"] if message.amended else ()),
        "reply_to": message.reply_to,
    }


def heading(message: Message) -> dict[str, Any]:
    """What a message is, in brief: everything as text."""
    return {
        "id": message.id,
        "ref": message.ref,
        "timestamp": message.timestamp,
        "time_us": message.time_us,
        "channel": message.channel,
        "to": list(message.to or (message.channel,)),
        "sender": message.sender,
        "by": visible_line(message.sender),
        "hue": hue_of(message.sender),
        "initials": initials(message.sender),
        "type": visible_line(message.msg_type),
        "scene": message.scene,
        "gist": visible_line(gist(message, _GIST)),
    }


async def _found(room: Mailroom, messages: Sequence[Message]) -> dict[str, Message]:
    """What the messages refer to, and themselves."""
    found = {message.id: message for message in messages}
    for named in _named(messages):
        if named not in found and is_id(named):
            try:
                found[named] = await room.message(named)
            except MailError:  # it stands in no mailbox; its id is shown instead of a link
                continue
    return found


def _named(messages: Iterable[Message]) -> set[str]:
    named: set[str] = set()
    for message in messages:
        names = (message.reply_to, message.replaces, about_of(message), message.payload.get("of"))
        named.update(each for each in names if isinstance(each, str))
    return named

"""What the tests of the exports share: messages, editions, and texts that try to be markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from mq_server.message import Message
from mq_server.names import format_time
from mq_server.render.edition import Edition, Entry, edition
from mq_server.scenes import SceneState
from tests.support import START_US, known_id

SCENE = "q2-s3"
HOSTILE = (
    "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'`&lt; onload=x [x](javascript:alert(1)) "
    "<!-- ]]> --> ![i](http://x/y) **b** _u_ `c` | a | \u202eevil\u202c \x1b[31m \x00 \u200b"
)


def said(number: int, msg_type: str, payload: dict[str, Any], **fields: Any) -> Message:
    """A message; its number gives its id, its time and its line."""
    usual: dict[str, Any] = {
        "id": known_id(number),
        "timestamp": format_time(START_US + number * 1_000_000),
        "channel": "narrator",
        "sender": "scene_director",
        "scene": SCENE,
        "line": number,
    }
    return Message(**usual | fields, msg_type=msg_type, payload=payload)


def edition_of(messages: Iterable[Message], *states: SceneState, title: str = "A title", **options: Any) -> Edition:
    """An edition of messages in this order."""
    entries = [Entry(message=message) for message in messages]
    return edition(entries, states, title=title, what="scene q2-s3", **options)


def everything_hostile(text: str) -> list[Message]:
    """Messages of every type with a text wherever a text can stand."""
    payloads: dict[str, dict[str, Any]] = {
        "brief": {"title": text, "text": text, text: text},
        "scene_plan": {"title": text, "text": text, "beats": [text]},
        "scene_breakdown": {"setting": text, "beats": [text, text], "characters": [text]},
        "character_direction": {"directions": [{"who": text, "text": text, text: text}]},
        "narration": {"text": text, "passages": [{text: text}] * 9},
        "dialogue": {"lines": [{"who": text, "text": text, "parenthetical": text}, {"who": text, "text": text}]},
        "scene": {
            "version": 1,
            "title": text,
            "blocks": [{"kind": kind, "who": text, "text": text} for kind in ("action", "parenthetical", "line", "x")],
        },
        "shot_list": {"shots": [{"shot": text, "text": text, text: text}]},
        "score": {"of": text, "score": 0.5, "rubric": {text: 0.5}, "notes": text},
        "finalize": {"of": text, "text": text},
        "feedback": {"of": text, "text": text},
        "anything": {text: {text: [text, {text: [text]}]}, "n": [1, None, True]},
        text: {"title": text, "text": text},
        "empty": {},
    }
    return [
        said(
            number,
            msg_type,
            payload,
            sender=text,
            scene=text,
            reply_to=text if number % 2 else known_id(number - 1),
            replaces=text if number == 3 else None,
            drafts=(text,),
            expires_at=text if number == 4 else None,
            to=(text, text) if number == 5 else None,
            extra={text: text},
        )
        for number, (msg_type, payload) in enumerate(payloads.items(), 1)
    ]


MARKUP = [
    *"!@>#=~.()[]{}*_\\`|<&\"'$:;/-+^1aAé \n\t\u202e\x1b",
    *("[[", "]]", "/*", "*/", "**", "__", "===", "---", "```", "INT. ", "ext ", "I/E", "TO:", "FADE IN:", "  "),
    *("<script>", "</script>", "<!--", "-->", "&#60;", "](x)", "http://x", "www.x", "javascript:", "onerror=", "!["),
    *("1. ", "\n\n"),
]
markup = st.lists(st.sampled_from(MARKUP), min_size=1, max_size=12).map("".join)
"""Text made of what markup languages are made of."""

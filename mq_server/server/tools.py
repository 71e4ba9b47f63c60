"""The tools as models see them: names, descriptions and schemas. Every byte here costs every agent on every turn.

Names, descriptions and input schemas together stay under 6,000 bytes of JSON (a test measures it), so they say what a
model must know to call rightly, and errors say the rest.
"""

from __future__ import annotations

from typing import Any

from mcp_types import Tool, ToolAnnotations

MAX_WAIT_S = 50
"""Under the 60 s after which common clients give up on a call."""

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_REF = {"type": "string", "description": "id or ref of a message"}
_CHANNELS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_ACK = {
    "anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}],
    "description": "ids to settle first; true settles what is returned",
}


def _limit(default: int) -> dict[str, Any]:
    return {"type": "integer", "default": default}


_READ: dict[str, Any] = {
    "since": {"type": "string", "description": "id, ref, time or next: from there, read or not"},
    "msg_type": _TEXT,
    "sender": _TEXT,
    "reader": {"type": "string", "description": "whose unread; default: the channel's own"},
    "ack": _ACK,
    "limit": _limit(50),
    "lease_s": _NUMBER | {"description": "claim: yours alone so long"},
    "consumer": _TEXT,
}
_IDS = {"type": "array", "items": {"type": "string"}}


def _tool(
    name: str,
    title: str,
    description: str,
    arguments: dict[str, Any],
    required: list[str],
    answer: dict[str, Any],
    *,
    read_only: bool,
    idempotent: bool = True,
) -> Tool:
    schema: dict[str, Any] = {"type": "object", "properties": arguments, "additionalProperties": False}
    if required:
        schema["required"] = required
    return Tool(
        name=name,
        title=title,
        description=description,
        input_schema=schema,
        output_schema={"type": "object", "properties": answer, "required": list(answer)[:1]},
        annotations=ToolAnnotations(
            title=title,
            read_only_hint=read_only,
            destructive_hint=False,
            idempotent_hint=idempotent,
            open_world_hint=False,
        ),
    )


_MESSAGE = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "ref": _TEXT,
        "timestamp": _TEXT,
        "channel": _TEXT,
        "sender": _TEXT,
        "msg_type": _TEXT,
        "scene": _TEXT,
        "reply_to": _TEXT,
        "payload": {"type": "object"},
    },
    "required": ["id", "ref", "timestamp", "channel", "sender", "msg_type"],
}
_MESSAGES = {"type": "array", "items": _MESSAGE}
_PROBLEMS = {"type": "array", "items": _TEXT}
_COUNT = {"type": "integer"}
_FLAG = {"type": "boolean"}
_PAGE = {
    "messages": _MESSAGES,
    "timed_out": _FLAG,
    "next": _TEXT,
    "remaining": _COUNT,
    "merged": _FLAG,
    "peek": _FLAG,
    "problems": _PROBLEMS,
}

TOOLS: tuple[Tool, ...] = (
    _tool(
        "list_channels",
        "Who is here",
        "Call first, or when you have lost the thread: who you are, who is here, what is unread, what "
        "you hold, asked and posted.",
        {
            "reader": {"type": "string", "description": "you, unless this connection knows"},
            "msg_type": {"type": "string", "description": "tell its fields"},
        },
        [],
        {
            "channels": {"type": "array"},
            "you": _TEXT,
            "holds": {"type": "array"},
            "unanswered": {"type": "array"},
            "types": {"anyOf": [{"type": "array", "items": _TEXT}, {"type": "object"}]},
            "last_posts": {"type": "array"},
            "problems": _PROBLEMS,
        },
        read_only=True,
    ),
    _tool(
        "post_message",
        "Post a message",
        "Post to one or more channels. On return it is safely on disk. Answer a message with reply_to; channel then "
        "defaults to its sender, scene to its scene. Payloads: note, feedback, query, answer {text}; narration {text}; "
        "dialogue {lines:[{who,text,parenthetical?}]}; scene {version,title?,blocks:[{kind:action|line|parenthetical,"
        "who?,text}]}; score {of,score:0..1,rubric?,notes?}; finalize {of,score?}; other types: any object.",
        {
            "channel": _CHANNELS | {"description": 'name, list, or "*" for everybody else'},
            "msg_type": _TEXT,
            "payload": {"type": "object"},
            "reply_to": _REF,
            "sender": {"type": "string", "description": "you, unless this connection knows"},
            "scene": _TEXT,
            "urgent": {"type": "boolean", "description": "delivered first"},
            "expires_in_s": _NUMBER,
            "dedup_key": {"type": "string", "description": "makes a retry safe"},
            "wait_reply_s": _NUMBER | {"maximum": MAX_WAIT_S},
        },
        ["msg_type", "payload"],
        {
            "id": _TEXT,
            "ref": _TEXT,
            "timestamp": _TEXT,
            "scene": _TEXT,
            "recipients": {"type": "array"},
            "duplicate": _FLAG,
            "differs": _TEXT,
            "advice": _TEXT,
            "reply": {"type": "object"},
        },
        read_only=False,
        idempotent=False,
    ),
    _tool(
        "read_messages",
        "Read a mailbox",
        "Unread messages of a channel (yours: ack them when done, or they come again), or with since, those from a "
        "place on. Somebody else's channel without reader: a peek.",
        {"channel": _TEXT, **_READ},
        ["channel"],
        _PAGE,
        read_only=False,
    ),
    _tool(
        "wait_for_messages",
        "Wait for messages",
        "As read_messages, but waits until there is something. On timed_out call again.",
        {
            "channel": _CHANNELS | {"description": "name, list or glob"},
            **_READ,
            "reply_to": _REF | {"description": "only answers to this message"},
            "timeout_s": _NUMBER | {"maximum": MAX_WAIT_S, "default": 25},
        },
        ["channel"],
        _PAGE,
        read_only=False,
    ),
    _tool(
        "settle_messages",
        "Settle messages",
        "ack: done. release: give back what you claimed, after delay_s. reject: refuse for good (reason; goes to "
        "dead_letters). reopen: unread again. extend: claimed for lease_s more. seek: beginning, now, id or time.",
        {
            "channel": _TEXT,
            "ack": _IDS,
            "release": _IDS,
            "reject": _IDS,
            "reopen": _IDS,
            "extend": _IDS,
            "seek": _TEXT,
            "reader": _TEXT,
            "consumer": _TEXT,
            "reason": _TEXT,
            "delay_s": _NUMBER,
            "lease_s": _NUMBER,
        },
        ["channel"],
        {
            "channel": _TEXT,
            "reader": _TEXT,
            **dict.fromkeys(["acked", "released", "rejected", "reopened", "extended", "dead_letters"], _IDS),
            "seek": _TEXT,
            "refused": {"type": "array"},
        },
        read_only=False,
    ),
    _tool(
        "get_channel_history",
        "History of a channel",
        "The newest messages of a channel, oldest first, read or not. before=next pages back.",
        {"channel": _TEXT, "limit": _limit(50), "before": _REF},
        ["channel"],
        _PAGE,
        read_only=True,
    ),
    _tool(
        "get_conversation_thread",
        "A whole conversation",
        "The thread of a message across channels: parents before children, with depth. before=next pages back.",
        {"message_id": _REF, "limit": _limit(50), "before": _REF},
        ["message_id"],
        {
            "messages": _MESSAGES,
            "root": _TEXT,
            "total": _COUNT,
            "participants": {"type": "array", "items": _TEXT},
            "channels": {"type": "array", "items": _TEXT},
            "missing_parent": _TEXT,
            "next": _TEXT,
            "remaining": _COUNT,
            "problems": _PROBLEMS,
        },
        read_only=True,
    ),
    _tool(
        "get_all_activity",
        "Activity everywhere",
        "One timeline over all channels, oldest first: the newest, or with since=next what came after. Long payloads "
        "are abbreviated.",
        {
            "since": {"type": "string", "description": "id, ref, time or next"},
            "limit": _limit(100),
            "channel": {"type": "string", "description": "name or glob"},
            "sender": _TEXT,
            "msg_type": _TEXT,
            "scene": _TEXT,
        },
        [],
        {"messages": _MESSAGES, "next": _TEXT, "more": _FLAG, "merged": _FLAG, "problems": _PROBLEMS},
        read_only=True,
    ),
    _tool(
        "search_messages",
        "Search",
        'Messages with all words of the query ("a phrase" in quotes), newest first. until=next for older ones.',
        {
            "query": _TEXT,
            "channel": {"type": "string", "description": "name or glob"},
            "sender": _TEXT,
            "msg_type": _TEXT,
            "scene": _TEXT,
            "since": _TEXT,
            "until": _TEXT,
            "limit": _limit(20),
        },
        ["query"],
        {"hits": {"type": "array"}, "next": _TEXT, "problems": _PROBLEMS},
        read_only=True,
    ),
)
BY_NAME = {tool.name: tool for tool in TOOLS}

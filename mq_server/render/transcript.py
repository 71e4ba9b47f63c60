"""Messages as people read them in a terminal: who to whom, what kind, when, and the payload in the form of its type.

    scene_director → narrator, dialogist · scene_breakdown · q2-s3 · 2026-11-22 13:12:52Z · narrator:4~K3QF

        INT. WEIGH-ROOM – LATE AFTERNOON
        1. Kreszenz arrives with the jar.

In a thread each level of replies has a bar in front (`│ `), on every line: a text cannot pass for a message, since a
heading follows its bars directly and a body is indented. A payload that is not as its type says, and whatever it holds
beyond, is shown as plain keys and values. All text is made safe for the terminal (`render.text`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mq_server.message import Message
from mq_server.names import format_time, parse_time
from mq_server.render.forms import shaped
from mq_server.render.parts import has_form, parts_of
from mq_server.render.plain import capped, readable
from mq_server.render.text import columns, cut, visible_line, wrap

DEFAULT_WIDTH = 80
_INDENT = "    "
_BAR = "│ "
_SEPARATOR = " · "
_MOST_BARS = 8
_ID_END = 8
_ONE_LINE = 10_000


class Entry(NamedTuple):
    """One message, rendered: heading lines, body lines, and the bars of its depth in front of each of them."""

    heading: tuple[str, ...]
    body: tuple[str, ...]
    bars: str = ""

    def lines(self) -> list[str]:
        """All its lines."""
        return [f"{self.bars}{line}".rstrip() for line in (*self.heading, *self.body)]


def transcript(messages: Sequence[Message], depths: Sequence[int] | None = None, *, width: int = DEFAULT_WIDTH) -> str:
    """A conversation as text.

    Args:
        messages: In the order in which they are to be read.
        depths: Per message, how many replies lie between it and its thread's root; without it nothing has bars.
        width: Columns.
    """
    refs = refs_of(messages)
    entries = [
        entry(message, width=width, depth=depth, refs=refs)
        for message, depth in zip(messages, depths or [0] * len(messages), strict=True)
    ]
    return "\n\n".join("\n".join(each.lines()) for each in entries) + "\n" if entries else ""


def refs_of(messages: Iterable[Message]) -> dict[str, str]:
    """Ids to refs, so that entries can name other messages by their place."""
    return {message.id: message.ref for message in messages}


def entry(
    message: Message,
    *,
    width: int = DEFAULT_WIDTH,
    depth: int = 0,
    refs: Mapping[str, str] | None = None,
    whole: bool = False,
) -> Entry:
    """One message.

    Args:
        message: The message.
        width: Columns, bars included.
        depth: How many replies lie between it and its thread's root.
        refs: The refs of messages it may name, by id; others are named by the end of their id.
        whole: Show long values, too, that a type's form has no place for.
    """
    bars = _BAR * min(depth, _MOST_BARS, max(width // 10, 0))
    room = width - columns(bars)
    names = refs or {}
    lines = (f"{_INDENT}{line}" for line in body(message, width=room - len(_INDENT), refs=names, whole=whole))
    return Entry(tuple(_flow(headline(message, names), room)), ("", *lines), bars)


def summary(
    message: Message, *, width: int = DEFAULT_WIDTH, refs: Mapping[str, str] | None = None, text: str | None = None
) -> Entry:
    """One message in brief: its heading, and one line of what it says.

    Args:
        message: The message.
        width: Columns.
        refs: As for `entry`.
        text: What to show of it; by default the beginning of its payload.
    """
    shown = gist(message, width - len(_INDENT)) if text is None else visible_line(text)
    body = wrap(shown, width - len(_INDENT)) if text else [shown]
    return Entry(tuple(_flow(headline(message, refs), width)), tuple(f"{_INDENT}{line}" for line in body))


def headline(message: Message, refs: Mapping[str, str] | None = None) -> list[str]:
    """What the heading says, part by part: who to whom, type, scene, UTC time, ref, and what is special about it.

    A message whose line is not known (0) is named by the end of its id.
    """
    names = refs or {}
    to = ", ".join(map(visible_line, message.to or (message.channel,)))
    parts = [f"{visible_line(message.sender)} → {to}", visible_line(message.msg_type)]
    if message.scene is not None:
        parts.append(visible_line(message.scene))
    parts += [shown_time(message), visible_line(message.ref if message.line else message.id[-_ID_END:])]
    if message.reply_to is not None:
        parts.append(f"answers {_name(message.reply_to, names)}")
    if message.replaces is not None:
        parts.append(f"corrects {_name(message.replaces, names)}")
    if message.urgent:
        parts.append("urgent")
    if message.expires_at is not None:
        parts.append(f"expires {utc(message.expires_at)}")
    if message.drafts:
        parts.append(f"from {', '.join(map(visible_line, message.drafts))}")
    if message.dedup_key is not None:
        parts.append(f"key {visible_line(message.dedup_key)}")
    return parts


def shown_time(message: Message) -> str:
    """When it was posted, in UTC, to the second: `2026-11-22 13:12:52Z`."""
    return utc(message.timestamp)


def utc(time: str) -> str:
    """A timestamp in UTC, to the second; one that is none, as it stands."""
    try:
        return f"{format_time(parse_time(time))[:19].replace('T', ' ')}Z"
    except ValueError:  # written by hand
        return visible_line(time)


def body(
    message: Message, *, width: int = DEFAULT_WIDTH, refs: Mapping[str, str] | None = None, whole: bool = False
) -> list[str]:
    """The payload as its type is read, then what it and the line hold beyond.

    Args:
        message: The message.
        width: Columns.
        refs: As for `entry`.
        whole: As for `entry`.
    """
    lines, rest = _shaped(message, width, refs or {})
    beyond = readable if whole else capped
    more = beyond(rest, width) if lines and has_form(message.msg_type) else readable(rest, width)
    more += beyond(message.extra, width)
    return [*lines, *([""] if lines and more else []), *more] or ["(empty)"]


def gist(message: Message, width: int) -> str:
    """The payload in one line of at most `width` columns, for lists."""
    lines, rest = _shaped(message, _ONE_LINE, {})
    words = (" ".join(line.split()) for line in lines or readable(rest, _ONE_LINE))
    return cut(" / ".join(line for line in words if line), width)


def _shaped(message: Message, width: int, refs: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    """The payload in the form of its type; and what of it that leaves."""
    parts, rest = parts_of(message.msg_type, message.payload)
    if isinstance(rest.get("of"), str):
        rest["of"] = _name(rest["of"], refs)
    return shaped(parts, width, lambda named: _name(named, refs)), rest


def _flow(parts: Sequence[str], width: int) -> list[str]:
    """Parts in a row, broken between two of them where a line would be too long."""
    lines = [parts[0]]
    for part in parts[1:]:
        if columns(lines[-1]) + columns(_SEPARATOR) + columns(part) <= width:
            lines[-1] += f"{_SEPARATOR}{part}"
        else:
            lines.append(f"  {part}")
    return [piece for line in lines for piece in wrap(line, width, hang=len(_INDENT))]


def _name(message_id: str, refs: Mapping[str, str]) -> str:
    return refs.get(message_id) or visible_line(message_id[-_ID_END:])

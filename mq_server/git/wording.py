"""The message of a commit, written from what it holds: subject, table, threads, questions, trailers."""

from __future__ import annotations

from collections.abc import Sequence

from mq_server.git.comparison import Comparison, count
from mq_server.message import Message
from mq_server.render.text import columns, cut, padded, visible_line
from mq_server.render.transcript import gist

MESSAGES_TRAILER = "Mq-Messages"
LAST_ID_TRAILER = "Mq-Last-Id"
_WIDTH = 72
_SCENES = 3
_ROWS = 50
_LISTED = 10
_FINALIZE = "finalize"


def subject(comparison: Comparison) -> str:
    """One line: which scenes, how many messages, from how many agents."""
    scenes = list(dict.fromkeys(visible_line(each.scene) for each in comparison.messages if each.scene))
    total = comparison.total() if comparison else "files rewritten, nothing said"
    if not scenes:
        return total
    more = len(scenes) - _SCENES
    named = ", ".join(scenes[:_SCENES]) + (f" and {count(more, 'more scene')}" if more > 0 else "")
    return cut(f"{named}: {total}", _WIDTH)


def body(comparison: Comparison, questions: Sequence[Message]) -> str:
    """What is in it, in paragraphs.

    Args:
        comparison: What was said since the commit before.
        questions: Those nobody has answered yet, oldest first.
    """
    opened = [each for each in comparison.messages if each.reply_to is None and each.replaces is None]
    finalised = [each for each in comparison.messages if each.msg_type == _FINALIZE]
    paragraphs = [
        _table(comparison),
        _listed("Opened:", opened),
        _listed("Finalised:", finalised),
        _listed("Open questions:", questions),
        _listed("Edited by hand:", [each.after for each in comparison.edited]),
        _listed("Gone:", comparison.gone),
        _section("Settled:", [f"{each.name}: {each.words()}" for each in comparison.settled], 0),
    ]
    return "\n\n".join("\n".join(paragraph) for paragraph in paragraphs if paragraph)


def trailers(comparison: Comparison, last_id: str) -> list[tuple[str, str]]:
    """What programs read: how many messages are new, and the id of the newest."""
    counted = [(MESSAGES_TRAILER, str(len(comparison.messages)))]
    return [*counted, (LAST_ID_TRAILER, last_id)] if last_id else counted


def _table(comparison: Comparison) -> list[str]:
    senders: dict[str, set[str]] = {}
    for message in comparison.messages:
        for channel in message.to or (message.channel,):
            senders.setdefault(channel, set()).add(visible_line(message.sender))
    rows = [
        (each.channel, f"{each.messages:,}", ", ".join(sorted(senders.get(each.channel, ()))))
        for each in comparison.counts
        if each.messages
    ]
    if not rows:
        return []
    heads = ("channel", "new", "from")
    names, numbers = (max(columns(row[place]) for row in (heads, *rows)) for place in (0, 1))
    lines = [cut(f"{padded(name, names)}  {new.rjust(numbers)}  {who}", _WIDTH) for name, new, who in (heads, *rows)]
    more = len(rows) - _ROWS
    return lines[: _ROWS + 1] + ([f"and {count(more, 'more channel')}"] if more > 0 else [])


def _listed(title: str, messages: Sequence[Message]) -> list[str]:
    return _section(title, list(map(_line, messages[:_LISTED])), len(messages))


def _line(message: Message) -> str:
    return f"{visible_line(message.ref)}  {visible_line(message.sender)}, {gist(message, _WIDTH)}"


def _section(title: str, lines: Sequence[str], total: int) -> list[str]:
    """A title, and lines indented below it, so that none of them passes for a trailer or a comment."""
    shown = [cut(f"  {line}", _WIDTH) for line in lines[:_LISTED]]
    more = max(total, len(lines)) - len(shown)
    return [title, *shown, *([f"  and {more:,} more"] if more else [])] if shown else []

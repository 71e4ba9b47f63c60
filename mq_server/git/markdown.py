"""A comparison as Markdown for a pull request's text, since hosting sites show mailboxes as lines of JSON.

Whoever can post can put any text into a message. All of it stands in code: names in code spans, texts in fences that no
text can close, where neither markup nor HTML nor a mention of somebody's account means anything. What would be longer
than hosting sites accept is abbreviated, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mq_server.git.comparison import Comparison, count
from mq_server.message import Message
from mq_server.render.text import cut, visible_line
from mq_server.render.transcript import body, gist, headline, refs_of

LIMIT_CHARACTERS = 60_000
"""GitHub takes 65,536 characters (docs.github.com, "body is too long"), GitLab more; this leaves room for one's own."""
_WIDTH = 88
_LINES = (None, 40, 12, 4, 1)
"""How many lines of each text are shown, from all of them to what fits however much there is."""
_ROWS = 40
_TICKS = re.compile("`+")


class _Section(NamedTuple):
    """A heading, and what stands below it, each as text for a number of lines."""

    heading: str
    entries: Sequence[Callable[[int | None], str]]


def markdown(
    comparison: Comparison,
    words: str,
    argument: str,
    *,
    stat: bool = False,
    limit_characters: int = LIMIT_CHARACTERS,
) -> str:
    """The text of a pull request: a table, then the conversation.

    Args:
        comparison: What was said.
        words: Between what, such as `since main`.
        argument: What one gives `mq diff` to see it all.
        stat: Only the table.
        limit_characters: At most so many.
    """
    refs = refs_of([*comparison.gone, *(each.after for each in comparison.edited), *comparison.messages])
    head = f"**{comparison.total()}** {code(words)}\n"
    table = _table(comparison)
    if stat:
        return f"{head}\n{table}"
    sections = [
        _Section("Conversation", [_entry(message, refs) for message in comparison.messages]),
        _Section("Edited", [_edit(each.before, each.after, refs) for each in comparison.edited]),
        _Section("Gone", [_brief(message, refs) for message in comparison.gone]),
        _Section("Copied to further mailboxes", [_brief(message, refs) for message in comparison.copied]),
        _Section("Settled", [_line(f"{each.name}: {each.words()}") for each in comparison.settled]),
    ]
    for lines in _LINES:
        note = ""
        if lines is not None:
            shown = f"the first {lines} lines" if lines > 1 else "one line"
            note = f"_Abbreviated to {shown} of each message. All of it: {code(f'mq diff {argument}')}_\n"
        start = "\n".join([head, *([note] if note else []), table])
        rest = _sections(sections, lines, limit_characters - len(start))
        if rest is not None:
            return "\n".join([start, *rest])
    return "\n".join([start, *_fitting(sections, limit_characters - len(start) - 100 * len(sections))])


def code(text: str) -> str:
    """Text as a code span, whatever is in it."""
    shown = visible_line(text) or " "
    ticks = "`" * (1 + max(map(len, _TICKS.findall(shown)), default=0))
    space = " " if len(ticks) > 1 or shown.strip() != shown else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def _cell(text: str) -> str:
    # A bar ends a cell, in a code span too, and what escapes it depends on the backslashes before it.
    return code(text.replace("|", "¦"))


def fenced(lines: Iterable[str]) -> str:
    """Lines as a block of code that none of them can end."""
    text = "\n".join(lines)
    fence = "`" * (1 + max([2, *map(len, _TICKS.findall(text))]))
    return f"{fence}text\n{text}\n{fence}"


def _table(comparison: Comparison) -> str:
    rows = ["| channel | new | edited | gone |", "|---|---:|---:|---:|"]
    rows += [
        f"| {_cell(each.channel)} | {each.messages:,} | {each.edited or ''} | {each.gone or ''} |"
        for each in comparison.counts[:_ROWS]
    ]
    if len(comparison.counts) > _ROWS:
        rows.append(f"| and {len(comparison.counts) - _ROWS:,} more | | | |")
    senders = comparison.by_sender()
    if senders:
        rows += ["", "| sender | type | new |", "|---|---|---:|"]
        rows += [f"| {_cell(sender)} | {_cell(kind)} | {number:,} |" for sender, kind, number in senders[:_ROWS]]
        if len(senders) > _ROWS:
            rows.append(f"| and {len(senders) - _ROWS:,} more | | |")
    return "\n".join(rows if comparison.counts else rows[:0]) + "\n"


def _sections(sections: Iterable[_Section], lines: int | None, budget: int) -> list[str] | None:
    """All sections; None if they take more characters than the budget has."""
    parts: list[str] = []
    for section in sections:
        for number, entry in enumerate(section.entries):
            parts += [f"### {section.heading}\n"] if number == 0 else []
            parts.append(f"{entry(lines)}\n")
            budget -= len(parts[-1]) + 1
            if budget < 0:
                return None
        budget -= 4 + len(section.heading)
    return parts


def _fitting(sections: Sequence[_Section], budget: int) -> list[str]:
    """The newest entries of every section that fit; what there is less of leaves its room to the others."""
    parts: dict[str, list[str]] = {}
    filled = sorted((section for section in sections if section.entries), key=lambda section: len(section.entries))
    for number, section in enumerate(filled):
        share = budget // (len(filled) - number)
        kept: list[str] = []
        used = 0
        for entry in reversed(section.entries):
            text = f"{entry(_LINES[-1])}\n"
            if used + len(text) + 1 > share:
                break
            kept.insert(0, text)
            used += len(text) + 1
        budget -= used
        left_out = len(section.entries) - len(kept)
        note = [f"_… {count(left_out, 'earlier one')} left out_\n"] if left_out else []
        parts[section.heading] = [f"### {section.heading}\n", *note, *kept]
    return [part for section in sections for part in parts.get(section.heading, ())]


def _heading(message: Message, refs: dict[str, str]) -> str:
    who, *others = headline(message, refs)
    return " · ".join([f"**{code(who)}**", *map(code, others)])


def _body(message: Message, refs: dict[str, str], lines: int | None) -> str:
    if lines == 1:
        return code(gist(message, _WIDTH))
    said = body(message, width=_WIDTH, refs=refs)
    if lines is not None and len(said) > lines:
        said = [*said[:lines], f"… {count(len(said) - lines, 'more line')}"]
    return fenced(said)


def _entry(message: Message, refs: dict[str, str]) -> Callable[[int | None], str]:
    return lambda lines: f"{_heading(message, refs)}\n\n{_body(message, refs, lines)}"


def _edit(before: Message, after: Message, refs: dict[str, str]) -> Callable[[int | None], str]:
    return lambda lines: (
        f"{_heading(after, refs)}\n\nbefore:\n\n{_body(before, refs, lines)}\n\nafter:\n\n{_body(after, refs, lines)}"
    )


def _brief(message: Message, refs: dict[str, str]) -> Callable[[int | None], str]:
    return lambda _: f"- {code(cut(' · '.join(headline(message, refs)), 200))}: {code(gist(message, _WIDTH))}"


def _line(text: str) -> Callable[[int | None], str]:
    return lambda _: f"- {code(text)}"

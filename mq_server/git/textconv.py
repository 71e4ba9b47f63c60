"""A mailbox as git shows it in diffs: messages as people read them, one below the other. No I/O.

Git compares two such texts and caches them by the file's content. So the text depends on nothing but that content: not
on the file's name, a terminal's width or the time zone. A message is named by the end of its id and not by its line,
which would change with every line that a merge puts in above. Nothing is left out or shortened, so that what was
edited shows; and nothing acts on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator

from mq_server.blocks import Block
from mq_server.message import Unreadable, parse_fields, parse_line
from mq_server.render.plain import prose
from mq_server.render.text import visible_line
from mq_server.render.transcript import entry

WIDTH = 80
_INDENT = "    "


def readable(data: bytes) -> Iterator[str]:
    """The lines of the text, without their ends.

    Args:
        data: A mailbox. What can't be read in it is shown as it stands, below its line number and what is wrong.
    """
    first = True
    for _, number, line in Block(0, 1, data).lines():
        if not first:
            yield ""
        first = False
        try:
            shown = _entry(line)
        except Unreadable as fault:
            raw = prose(line.decode("utf-8", "backslashreplace"), WIDTH - len(_INDENT))
            shown = [f"line {number}: {visible_line(str(fault))}", "", *(f"{_INDENT}{part}".rstrip() for part in raw)]
        yield from shown


def _entry(line: bytes) -> list[str]:
    channel = parse_fields(line).get("channel") or "?"  # the file's name would outrank it, and is not known
    return entry(parse_line(line, channel, 0), width=WIDTH, whole=True).lines()

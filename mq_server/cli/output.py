"""What the commands print: entries, lines and JSON on stdout, remarks and problems on stderr.

Colours are rich's business, which is imported only if stdout is a terminal; it heeds NO_COLOR and TERM.
"""

from __future__ import annotations

import logging
import sys
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mq_server.cli.edge import complain
from mq_server.render.text import escaped_json, visible

if TYPE_CHECKING:
    from rich.console import Console

    from mq_server.errors import Problem
    from mq_server.message import Message
    from mq_server.render.transcript import Entry

_MAX_WIDTH = 100
_PLAIN_WIDTH = 80
_PALETTE = ("cyan", "magenta", "yellow", "green", "blue", "red")


class Screen:
    """Stdout, as wide as it is and in colour if that is a terminal."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.width = _terminal_width() if self.is_terminal else _PLAIN_WIDTH
        self._refs: dict[str, str] = {}
        self.used = False
        """Whether a message has been printed."""
        self._console: Console | None = None

    def line(self, text: str = "", style: str = "", *, front: str = "", marked: Sequence[str] = ()) -> None:
        """A line.

        Args:
            text: The line, safe for a terminal.
            style: As rich names it.
            front: What stands before it, unobtrusively.
            marked: Words to point out.
        """
        if not self.is_terminal:
            print(f"{front}{text}".rstrip())
            return
        from rich.console import Console
        from rich.text import Text

        if self._console is None:
            self._console = Console(highlight=False, soft_wrap=True)
        shown = Text.assemble((front, "dim"), (text, style))
        if marked:
            shown.highlight_words(marked, "bold", case_sensitive=False)
        self._console.print(shown)

    def entry(self, message: Message, depth: int = 0) -> None:
        """A whole message."""
        from mq_server.render.transcript import entry

        self._refs[message.id] = message.ref
        self._print(entry(message, width=self.width, depth=depth, refs=self._refs), message.sender)

    def summary(self, message: Message, text: str | None = None, marked: Sequence[str] = ()) -> None:
        """A message in brief.

        Args:
            message: The message.
            text: What to show of it; by default the beginning of its payload.
            marked: Words to point out.
        """
        from mq_server.render.transcript import summary

        self._refs[message.id] = message.ref
        self._print(summary(message, width=self.width, refs=self._refs, text=text), message.sender, marked)

    def _print(self, entry: Entry, sender: str, marked: Sequence[str] = ()) -> None:
        if self.used:
            self.line()
        self.used = True
        colour = _PALETTE[zlib.crc32(sender.encode(errors="replace")) % len(_PALETTE)]
        for line in entry.heading:
            self.line(line, f"bold {colour}", front=entry.bars)
        for line in entry.body:
            self.line(line, front=entry.bars, marked=marked)


def _terminal_width() -> int:
    from shutil import get_terminal_size

    return min(get_terminal_size().columns, _MAX_WIDTH)


def print_json(document: dict[str, Any], *, one_line: bool = False) -> None:
    """One JSON document.

    Args:
        document: What to print.
        one_line: On one line, also for a terminal.
    """
    import orjson

    pretty = sys.stdout.isatty() and not one_line
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 if pretty else None).decode()
    print(escaped_json(text))


def flush() -> None:
    """Hand over what was printed so far; whoever waits for it reads along."""
    sys.stdout.flush()


def remark(text: str) -> None:
    """Something beside the answer, on stderr."""
    complain(text)


class Problems(logging.Handler):
    """Tells of problems in the files, each once, whether an answer or the log brings them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: set[str] = set()

    def tell(self, problems: Iterable[Problem | str]) -> None:
        """Those that have not been told yet."""
        for text in map(str, problems):
            if text not in self.told:
                self.told.add(text)
                complain(text)

    def emit(self, record: logging.LogRecord) -> None:
        """One that the log brings."""
        self.tell([record.getMessage()])


class SafeFormatter(logging.Formatter):
    """A log line without anything that acts on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback keeps its lines."""
        return visible(super().format(record))

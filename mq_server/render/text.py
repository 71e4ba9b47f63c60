"""Text on a terminal: what may not act on it is shown instead, and lines are broken by columns.

Whoever can post can put any character into a field. An escape sequence could rewrite the screen, a bidirectional
override could turn a name around, an invisible character could make two names look alike. All of them are shown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

TAB_COLUMNS = 4
_MIN_WIDTH = 16

# Control characters (C0 but tab and line feed, DEL, C1); characters that are invisible or change the direction of
# others (Unicode's Bidi_Control and Default_Ignorable_Code_Point, but for the variation selectors of emoji); half
# surrogates. Joiners stand between letters of Persian or within an emoji, and nowhere between ASCII characters.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "|(?<![^\x00-\x7f\u200b-\u200f])[\u200c\u200d]"
    "|[\u200c\u200d](?![^\x00-\x7f\u200b-\u200f])"
)
_LINE_END = re.compile("\r\n|[\u2028\u2029]")
_WORDS = re.compile(" +|[^ ]+")  # no break at a no-break space; tabs and line ends are gone by then


def visible(text: str) -> str:
    """Text over several lines whose control, direction and invisible characters are shown: `␛`, `\\u202e`.

    Line ends (also CR LF and Unicode's) and tabs stay what they are.
    """
    return _UNSAFE.sub(_shown, _LINE_END.sub("\n", text))


def visible_line(text: str) -> str:
    """The same for a name or a heading, which is one line: tabs and line ends are shown too."""
    return _UNSAFE.sub(_shown, text).replace("\n", "␊").replace("\t", "␉")


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of the control characters
    if code == 0x7F:
        return "␡"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escaped_json(document: str) -> str:
    """JSON whose unsafe characters are escaped. They can stand in its strings only, so it means what it meant."""
    return _UNSAFE.sub(_json_escape, document)


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def columns(text: str) -> int:
    """How many columns a line of text takes: two for a wide character, none for one that combines."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """A line shortened to `width` columns, with an ellipsis where something is missing."""
    if columns(text) <= width:
        return text
    return f"{next(_pieces(text, max(width - 1, 1))).rstrip()}…"


def padded(text: str, width: int) -> str:
    """A line filled up with spaces to `width` columns."""
    return text + " " * (width - columns(text))


def wrap(text: str, width: int, *, label: str = "", hang: int = 0) -> list[str]:
    """Break text into lines of at most `width` columns. Its own line ends and its indentation are kept.

    Args:
        text: As `visible` gives it.
        width: Columns; at least 16 are used, however narrow the terminal.
        label: What stands in front of the first line.
        hang: Columns by which the other lines are indented.
    """
    width = max(width, _MIN_WIDTH)
    margin = " " * min(hang, width // 2)
    first, *others = (paragraph.expandtabs(TAB_COLUMNS) for paragraph in text.split("\n"))
    lines = _wrap(label, first, margin, width)
    for paragraph in others:
        lines += _wrap(margin, paragraph, margin, width)
    return lines


def _wrap(start: str, paragraph: str, margin: str, width: int) -> list[str]:
    """One paragraph; `start` stands in front of its first line, `margin` in front of the others."""
    if columns(start) + columns(paragraph) <= width:
        return [f"{start}{paragraph}".rstrip()]
    words = paragraph.lstrip(" ")
    indent = " " * min(len(paragraph) - len(words), width // 4)
    start, margin = start + indent, margin + indent
    lines: list[str] = []
    line, used = start, columns(start)
    for word in _WORDS.findall(words):
        size = columns(word)
        if word[0] == " ":
            if line not in (start, margin):
                line, used = line + word, used + size
            continue
        if used + size > width:
            if line != margin:
                lines.append(line.rstrip())
            line, used = margin, len(margin)
            if used + size > width:
                *full, word = _pieces(word, width - used)
                lines += [margin + piece for piece in full]
                size = columns(word)
        line, used = line + word, used + size
    return [*lines, line.rstrip()]


def _pieces(text: str, width: int) -> Iterator[str]:
    """Text cut into pieces of at most `width` columns, at least one character each."""
    start = used = 0
    for number, character in enumerate(text):
        size = _columns(character)
        if used + size > width and number > start:
            yield text[start:number]
            start, used = number, 0
        used += size
    yield text[start:]

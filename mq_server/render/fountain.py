"""An edition as a screenplay in Fountain (fountain.io/syntax), which screenwriting programs open.

Of a scene its versions are given, each under a section heading of its own, or the one to which the edition is confined;
of a whole production the version of each scene that stands. Where a scene has no version yet, narrations and dialogues
take its place in the order in which they were written. Everything else that was said is left out.

What a message says can't become markup: `!` keeps an action from being read as a cue, a heading or a transition, `@`
marks a cue that is not in plain capitals, stars and underscores are escaped. Fountain has no escape for a line of
dialogue that begins as a heading does, nor for `[[`: the one gets a zero-width space in front, the other a space
between its brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mq_server.message import Message
from mq_server.render.edition import Edition, Section
from mq_server.render.parts import Script, Speech, script_of
from mq_server.render.text import visible, visible_line
from mq_server.scenes import VERSION, figure

_PAGE_BREAK = "==="
_ZERO_WIDTH = "\u200b"
_PLAIN_CUE = re.compile(r"[A-Z](?:[^\W_]|[ .'’-])*")
_SCENE_HEADING = re.compile(r"(?:INT|EXT|EST|I/E)(?:[./ ]|$)|FADE IN:", re.IGNORECASE)
_MARKED = re.compile(r"[!@>#=~.]")
_CUE = re.compile(r"[A-Z][^a-z]*(?:\(.*\))?\s*\^?")
_EXTENDED = re.compile(r"[^()]*[^()\s][^()]*(?:\([^()]+\))?")  # VRENI, VRENI (V.O.)


def fountain(edition: Edition) -> str:
    """The screenplay; empty if nothing in the edition is script."""
    wanted = {section.scene: _scripts(edition, section) for section in edition.sections}
    bodies = [_section(edition, section, wanted[section.scene]) for section in edition.sections]
    chosen = [message for messages in wanted.values() for message in messages]
    if not chosen:
        return ""
    parts = [_title_page(edition, chosen), f"\n{_PAGE_BREAK}\n\n".join(filter(None, bodies))]
    return "\n".join(parts)


def _scripts(edition: Edition, section: Section) -> list[Message]:
    """The messages of a section that make its screenplay."""
    written = [each.message for each in section.entries if script_of(each.message.msg_type, each.message.payload)]
    versions = [message for message in written if message.msg_type == VERSION]
    if not versions or section.scene is None:
        return written
    if edition.final is None and len(edition.sections) > 1 and section.standing is not None:
        standing = [message for message in versions if message.id == section.standing.id]
        return standing or versions[-1:]
    return versions


def _section(edition: Edition, section: Section, messages: list[Message]) -> str:
    """One scene."""
    if not messages:
        return ""
    lines: list[str] = []
    title = section.title or section.scene
    if len(edition.sections) > 1 and title:
        lines += [f"# {_inline(title)}", ""]
    is_versions = section.scene is not None and messages[0].msg_type == VERSION
    if not is_versions:
        lines += [_heading(section, messages[0]), ""]
    for number, message in enumerate(messages):
        script = script_of(message.msg_type, message.payload) or Script(())
        if is_versions:
            lines += [_PAGE_BREAK, ""] * bool(number) + _version(edition, section, message, script)
        previous: str | Speech = ""
        for element in script.elements:
            shown = _element(element, previous)
            if shown:
                lines += [*shown, ""]
                previous = element
    return "\n".join(lines)


def _version(edition: Edition, section: Section, message: Message, script: Script) -> list[str]:
    """What stands above a version: a section and a note, which are not printed, and the scene heading."""
    known = section.version(message)
    number = known.version if known else script.version
    judged = "" if known is None or known.score is None else f", scored {figure(known.score)}"
    lines = []
    if edition.final is None and number is not None:
        lines += [f"## Version {number}", ""]
    lines += [f"[[{visible_line(message.ref)} by {_inline(message.sender)}{judged}]]", ""]
    return [*lines, _heading(section, message), ""]


def _title_page(edition: Edition, chosen: Iterable[Message]) -> str:
    """Keys and values up to the first empty line."""
    messages = list(chosen)
    authors = dict.fromkeys(writer for section in edition.sections for writer in section.writers)
    page = {
        "Title": edition.title,
        "Credit": "Written by",
        "Author": ", ".join(authors),
        "Source": edition.what,
        "Draft date": max(message.timestamp for message in messages)[:10],
    }
    return "".join(f"{key}: {_inline(value) or '?'}\n" for key, value in page.items())


def _heading(section: Section, message: Message) -> str:
    """The scene heading: where it is set, or else what the scene is called; forced where it does not begin as one."""
    text = _inline(section.setting(message) or section.title or section.scene or "Untitled").upper().lstrip(". ")
    if text.endswith("#"):
        text = f"{text[:-1]} #"  # a number between two of them would be the scene's
    return text if re.match(r"(?:INT|EXT)[. ]", text) else f".{text or '?'}"


def _element(element: str | Speech, previous: str | Speech) -> list[str]:
    if isinstance(element, Speech):
        lines = [_cue(element.who)]
        for text, is_parenthetical in element.spoken:
            lines += [_parenthetical(text)] if is_parenthetical else _dialogue(text)
        return lines
    # After a parenthetical that nothing follows, some programs go on waiting for the line.
    return _action(element, isinstance(previous, Speech) and previous.spoken[-1].is_parenthetical)


def _action(text: str, forced: bool) -> list[str]:
    lines = [line.rstrip() for line in _plain(text).split("\n")]
    shown: list[str] = []
    for paragraph in _paragraphs(lines):
        mark = "!" if forced or any(_is_markup(line.strip()) for line in paragraph) else ""
        shown += [""] * bool(shown) + [f"{mark}{line}" for line in paragraph]
    return shown


def _cue(who: str) -> str:
    """Who speaks, in capitals. Where a sign would be taken for markup, one that looks alike stands for it."""
    name = _inline(who).upper().replace("^", "ˆ") or "?"  # a caret at its end would set two speeches side by side
    if not _EXTENDED.fullmatch(name):
        name = name.replace("(", "（").replace(")", "）")
    is_plain = _PLAIN_CUE.fullmatch(name.partition("(")[0].rstrip()) and not _SCENE_HEADING.match(name)
    return name if is_plain and name.isupper() else f"@{name}"


def _parenthetical(text: str) -> str:
    inner = " ".join(_plain(text).split())
    if inner.startswith("(") and inner.endswith(")"):
        inner = inner[1:-1]
    return f"({inner})"


def _dialogue(text: str) -> list[str]:
    """A speech has no paragraphs: an empty line would end it."""
    lines = [line.strip() for line in _plain(text).split("\n")]
    shown = [f"{_ZERO_WIDTH}{line}" if _MARKED_SPEECH.match(line) else line for line in lines if line]
    return shown or ["…"]


_MARKED_SPEECH = re.compile(rf"[!@>#=~(]|\.[^\W_]|{_SCENE_HEADING.pattern}", re.IGNORECASE)


def _is_markup(line: str) -> bool:
    """Whether a line of action would be read as something else."""
    return bool(
        _MARKED.match(line)
        or _SCENE_HEADING.match(line)
        or _CUE.fullmatch(line)
        or line.partition("(")[0].isupper()
        or line.endswith("TO:")
    )


def _inline(text: str) -> str:
    """A text within a line."""
    return " ".join(_plain(visible_line(text)).split())


def _plain(text: str) -> str:
    """Text without emphasis, notes and comments."""
    lines = (_line(line) for line in visible(text).expandtabs(4).split("\n"))
    return "\n".join(lines)


def _line(line: str) -> str:
    if line.count("_") > 1:
        line = line.replace("_", "\\_")
    return re.sub(r"\[(?=\[)", "[ ", line.replace("*", "\\*"))


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    paragraph: list[str] = []
    for line in lines:
        if line:
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []
    if paragraph:
        yield paragraph

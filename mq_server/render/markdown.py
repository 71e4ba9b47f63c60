"""An edition as Markdown: a transcript that GitHub and GitLab show with working links, and that reads well as it is.

A heading per scene and per message. A message's heading ends in its ref, which makes it unique, and consists of nothing
else that hosting sites make anchors of in different ways; replies link to it. Text is escaped, so that it can be
neither markup nor HTML: it has no headings, links, lists, tables or code of its own, only paragraphs and line ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mq_server.message import Message
from mq_server.render.edition import Edition, Section
from mq_server.render.parts import (
    Beats,
    Directions,
    Final,
    Judgement,
    Labelled,
    Part,
    Prose,
    Script,
    Setting,
    Shots,
    Speech,
    Speeches,
    Title,
    about_of,
    has_form,
    parts_of,
)
from mq_server.render.plain import capped, readable
from mq_server.render.text import visible, visible_line
from mq_server.render.transcript import shown_time, utc
from mq_server.scenes import PASS_SCORE, SceneVersion, figure

_SEPARATOR = " · "
_BREAK = "\\\n"
_WIDTH = 100
_PLAIN_NAME = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
# Anywhere: what begins emphasis, code, links, tables, formulas and templates. An underscore within a word does not.
_ANYWHERE = re.compile(r"[\\`*\[\]{}|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
# At the start of a line: headings, lists, rules, fences, definition lists and includes of GitLab.
_AT_START = re.compile(r"[#+=:-]|(?<![0-9])[0-9]{1,9}(?=[.)])")
_BACKTICKS = re.compile("`+")


def markdown(edition: Edition) -> str:
    """The transcript."""
    blocks = [f"# {inline(edition.title) or 'Untitled'}", _SEPARATOR.join(_about(edition))]
    named = [section for section in edition.sections if section.entries]
    if len(named) > 1:
        blocks.append("\n".join(f"- {_contents(section)}" for section in named))
    for section in named:
        blocks += _section(edition, section, alone=len(named) == 1)
    return "\n\n".join(block for block in blocks if block) + "\n"


def inline(text: str) -> str:
    """Text within a line, escaped."""
    return _escaped_line(" ".join(visible_line(text).split()))


def paragraphs(text: str) -> str:
    """Text with its paragraphs and line ends, escaped."""
    lines = [_escaped_line(line.strip()) for line in visible(text).expandtabs(1).split("\n")]
    found = "\n".join(lines).strip("\n")
    return re.sub(r"(?<=[^\n])\n(?=[^\n])", lambda _: _BREAK, re.sub(r"\n{3,}", "\n\n", found))


def _escaped_line(line: str) -> str:
    escaped = _ANYWHERE.sub(r"\\\g<0>", line)
    start = _AT_START.match(escaped)
    if start:
        digits = start[0].isdigit()
        escaped = f"{start[0]}\\{escaped[start.end() :]}" if digits else f"\\{escaped}"
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- scenes -----------------------------------------------------------------------------------------------------------


def _about(edition: Edition) -> list[str]:
    if edition.final is not None:
        version = edition.final
        judged = "" if version.score is None else f", {figure(version.score)}"
        return [inline(edition.what), f"version {version.version}, final{judged}"]
    count = len(edition.entries)
    about = [inline(edition.what), f"{count:,} {'message' if count == 1 else 'messages'}"]
    return [*about, edition.span] if edition.span else about


def _contents(section: Section) -> str:
    count = f"{len(section.entries):,} {'message' if len(section.entries) == 1 else 'messages'}"
    heading = _scene_heading(section)
    name = f"[{heading}](#{_anchor(heading)})" if _is_linkable(section) else heading
    title = f", {inline(section.title)}" if section.title else ""
    return f"{name}{title}: {count}{f', {section.state.status}' if section.state else ''}"


def _scene_heading(section: Section) -> str:
    return "Without a scene" if section.scene is None else f"Scene {inline(section.scene)}"


def _is_linkable(section: Section) -> bool:
    return section.scene is None or _PLAIN_NAME.fullmatch(section.scene) is not None


def _section(edition: Edition, section: Section, *, alone: bool) -> list[str]:
    blocks = []
    if edition.final is None and not (alone and section.scene is None):
        blocks.append(f"## {_scene_heading(section)}")
        state = section.state
        if state is not None:
            count = f"{state.iterations} {'version' if state.iterations == 1 else 'versions'}"
            title = [f"**{inline(section.title)}**"] if section.title and section.title.strip() else []
            blocks.append(_SEPARATOR.join([*title, state.status, count]))
            blocks.append(_versions(edition, section, state.versions))
    if edition.final is not None and section.entries:
        setting = section.setting(section.entries[0].message)
        blocks.append(f"**{inline(setting)}**" if setting and setting.strip() else "")
        return [*blocks, *_payload(edition, section.entries[0].message)]
    for entry in section.entries:
        blocks += _message(edition, entry.message)
    return blocks


def _versions(edition: Edition, section: Section, versions: Sequence[SceneVersion]) -> str:
    """How the versions of a scene were scored, as a table."""
    rows = []
    state = section.state
    for version in versions:
        judged = "–"
        if version.score is not None:
            judged = f"{figure(version.score)} {'≥' if version.passed else '<'} {PASS_SCORE:.2f}"
        marks = ["best"] if state and state.best and state.best.id == version.id else []
        if state and state.finalised and state.finalised.version.id == version.id:
            marks.append(f"final, by {inline(state.finalised.sender)}")
        scorers = ", ".join(inline(given.sender) for given in version.scored_by)
        rows.append([_link(edition, version.id, f"version {version.version}"), judged, scorers, ", ".join(marks)])
    return _table(["", "score", "scored by", ""], rows) if rows else ""


# --- messages ---------------------------------------------------------------------------------------------------------


def _message(edition: Edition, message: Message) -> list[str]:
    return [f"### {_heading(message)}", _headline(edition, message), *_payload(edition, message)]


def _heading(message: Message) -> str:
    """Who and what and where; only where, if the others hold what sites make different anchors of."""
    plain = _PLAIN_NAME.fullmatch(message.sender) and _PLAIN_NAME.fullmatch(message.msg_type)
    return f"{message.sender}: {message.msg_type}, {inline(message.ref)}" if plain else inline(message.ref)


def _anchor(heading: str) -> str:
    """What GitHub and GitLab make of a heading of plain names."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _headline(edition: Edition, message: Message) -> str:
    """What else there is to know about it: to whom, when, which message it answers."""
    to = ", ".join(map(inline, message.to or (message.channel,)))
    parts = [f"to {to}"]
    if _heading(message) == inline(message.ref):
        parts = [f"{inline(message.sender)} to {to}", inline(message.msg_type)]
    parts.append(shown_time(message))
    if message.reply_to is not None:
        parts.append(f"answers {_link(edition, message.reply_to)}")
    about = about_of(message)
    if about is not None and about != message.reply_to:
        parts.append(f"about {_link(edition, about)}")
    if message.replaces is not None:
        parts.append(f"corrects {_name(edition, message.replaces)}")
    if message.urgent:
        parts.append("urgent")
    if message.expires_at is not None:
        parts.append(f"expires {inline(utc(message.expires_at))}")
    if message.drafts:
        parts.append(f"from drafts {', '.join(map(inline, message.drafts))}")
    return f"*{_SEPARATOR.join(parts)}*" if "*" not in "".join(parts) else _SEPARATOR.join(parts)


def _name(edition: Edition, message_id: str) -> str:
    found = edition.found.get(message_id)
    return inline(found.ref if found else message_id[-8:])


def _link(edition: Edition, message_id: str, label: str = "") -> str:
    found = edition.found.get(message_id)
    name = label or _name(edition, message_id)
    return f"[{name}](#{_anchor(_heading(found))})" if found else name


def _payload(edition: Edition, message: Message) -> list[str]:
    parts, rest = parts_of(message.msg_type, message.payload)
    blocks = [block for part in parts for block in _part(edition, part)]
    if about_of(message) is not None:
        del rest["of"]  # the headline names it
    more = _more(rest) if parts and has_form(message.msg_type) else readable(rest, _WIDTH)
    more += _more(message.extra)
    return [*blocks, *_beyond(more)] or ["*(empty)*"]


def _part(edition: Edition, part: Part) -> list[str]:
    match part:
        case Title(text):
            return [f"**{inline(text)}**" if text.strip() else ""]
        case Prose(text):
            return [paragraphs(text)]
        case Setting(text):
            return [f"**{inline(text)}**" if text.strip() else ""]
        case Beats(beats):
            return ["\n".join(f"{number}. {_cell(beat)}" for number, beat in enumerate(beats, 1))]
        case Directions(directions):
            return [block for each in directions for block in (_said(each), *_beyond(_more(each.beyond)))]
        case Speeches(speeches):
            return ["\n\n".join(map(_said, speeches))]
        case Shots(shots):
            rows = [[str(n), _cell(each.label), _shot(each)] for n, each in enumerate(shots, 1)]
            return [_table(["", "shot", "what it shows"], rows)]
        case Script():
            return _script(part)
        case Judgement(score, of, rubric):
            judged = f" of {_link(edition, of)}" if of else ""
            rows = [[_cell(name), f"{value:g}"] for name, value in rubric]
            return [f"**{score:g}**{judged}", *([_table(["rubric", ""], rows)] if rows else [])]
        case Final(of, score):
            return [f"**Final:** {_link(edition, of)}{'' if score is None else f', {score:g}'}"]


def _script(script: Script) -> list[str]:
    version = "" if script.version is None else f"version {script.version}"
    title = f"**{inline(script.title)}**" if script.title and script.title.strip() else ""
    blocks = [", ".join(part for part in (title, version) if part)]
    for element in script.elements:
        if isinstance(element, Speech):
            said = [f"*({inline(text)})*" if aside else paragraphs(text) for text, aside in element.spoken]
            speech = _BREAK.join([f"**{_speaker(element.who)}**", *filter(None, said)])
            blocks.append("\n".join(f"> {line}".rstrip() for line in speech.split("\n")))
        else:
            blocks.append(paragraphs(element))
    return blocks


def _said(labelled: Labelled) -> str:
    aside = f" *({inline(labelled.aside)})*" if labelled.aside and labelled.aside.strip() else ""
    return f"**{_speaker(labelled.label)}**{aside}: {paragraphs(labelled.text)}"


def _speaker(name: str) -> str:
    return inline(name) or "?"


def _shot(shot: Labelled) -> str:
    return "<br>".join([_cell(shot.text), *map(_cell, _more(shot.beyond))])


def _more(fields: Mapping[str, Any]) -> list[str]:
    return capped(fields, _WIDTH, hint="")


def _cell(text: str) -> str:
    """Text in a row of a table or a list, over several lines if it has them."""
    return "<br>".join(_escaped_line(line.strip()) for line in visible(text).strip().split("\n")) or "–"


def _table(heading: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(heading), *rows]
    width = len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * width, *lines[1:]])


def _beyond(lines: Sequence[str]) -> list[str]:
    """Keys and values: in a row if each takes a line, and else as they are, in a block of code."""
    if not lines:
        return []
    if all(re.match(r"\S", line) for line in lines):
        return [f"<sub>{_SEPARATOR.join(map(inline, lines))}</sub>"]
    fence = "`" * max(3, *(len(run) + 1 for line in lines for run in _BACKTICKS.findall(line)), 3)
    return ["\n".join([f"{fence}text", *lines, fence])]

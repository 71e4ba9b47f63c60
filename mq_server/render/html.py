"""A message as a piece of HTML, the same in an exported page and in a browser that follows a production.

`message.css` goes with it. The class `hue-N` on an element gives it the colours of an agent. Names of agents and types
are attributes (`data-sender`, `data-type`) and never classes, so that nobody's name can pass for one of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from mq_server.message import Message
from mq_server.render.agents import hue_of, initials
from mq_server.render.markup import Html, element, join, text
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
    parts_of,
)
from mq_server.render.text import visible, visible_line
from mq_server.render.transcript import utc
from mq_server.scenes import PASS_SCORE, figure

_MOST_LEVELS = 4
_DEEPEST = 12
_FOLDED_ABOVE = 240
Found = Mapping[str, Message]
"""The messages that may be linked to, by id: themselves, or what corrects them."""


def anchor(message: Message) -> str:
    """The id of a message's element."""
    return f"m-{message.id}"


def message_html(
    message: Message, found: Found, *, depth: int = 0, classes: str = "", marks: Sequence[str] = ()
) -> Html:
    """A message as an `article`.

    Args:
        message: The message.
        found: The messages that its links may lead to.
        depth: How many replies lie between it and its thread's root.
        classes: Further classes of the element.
        marks: What is special about it beyond what it says itself, such as "final".
    """
    own = f"message hue-{hue_of(message.sender)} depth-{min(depth, _MOST_LEVELS)} {classes}".rstrip()
    return element(
        "article",
        element("span", initials(message.sender), class_="avatar", aria_hidden="true"),
        element("header", *_heading(message, found, marks), class_="heading"),
        payload_html(message, found),
        class_=own,
        id=anchor(message),
        data_sender=message.sender,
        data_type=message.msg_type,
        aria_label=f"{message.msg_type} from {message.sender}",
    )


def link(message_id: str, found: Found, label: str = "") -> Html:
    """A link to a message; what it is called, where it isn't at hand."""
    there = found.get(message_id)
    if there is None:
        return element("span", label or message_id[-8:], class_="ref")
    return element("a", label or there.ref, href=f"#{anchor(there)}", class_="ref")


def agent(name: str) -> Html:
    """An agent's name in its colour."""
    return element("bdi", visible_line(name), class_=f"agent hue-{hue_of(name)}")


def moment(timestamp: str) -> Html:
    """When it was, in UTC."""
    shown = utc(timestamp)
    return element("time", shown, datetime=_machine_readable(timestamp))


def gauge(score: float, label: str = "") -> Html:
    """A score from 0 to 1 as a bar beside what it takes to pass."""
    full = round(100 * min(max(score, 0), 1), 1)
    bar = element(
        "svg",
        element("rect", class_="rail", width=100, height=8, rx=2),
        element("rect", class_="full", width=full, height=8, rx=2),
        element("rect", class_="mark", x=round(100 * PASS_SCORE, 1) - 0.5, width=1, height=8),
        viewBox="0 0 100 8",
        role="img",
        aria_label=f"{label}{figure(score)} of 1; {PASS_SCORE:.2f} passes",
        class_=f"gauge {'passed' if score >= PASS_SCORE else 'failed'}",
        preserveAspectRatio="none",
    )
    return element("span", bar, element("span", figure(score), class_="figure", aria_hidden="true"), class_="scored")


# --- the heading ------------------------------------------------------------------------------------------------------


def _heading(message: Message, found: Found, marks: Sequence[str]) -> list[Html]:
    to = join((element("bdi", visible_line(name)) for name in message.to or (message.channel,)), ", ")
    first = [
        agent(message.sender),
        element("span", text("to "), to, class_="to"),
        element("span", visible_line(message.msg_type), class_="type"),
        *(element("span", mark, class_="mark") for mark in marks),
    ]
    second = [
        moment(message.timestamp),
        element("a", message.ref, href=f"#{anchor(message)}", class_="ref", aria_label=f"link to {message.ref}"),
    ]
    if message.reply_to is not None:
        second.append(element("span", text("answers "), link(message.reply_to, found)))
    about = about_of(message)
    if about is not None and about != message.reply_to:
        second.append(element("span", text("about "), link(about, found)))
    if message.replaces is not None:
        there = found.get(message.replaces)
        named = message.replaces if there is None or there.id == message.id else there.ref
        second.append(element("span", f"corrects {named[-8:] if named == message.replaces else named}"))
    if message.expires_at is not None:
        second.append(element("span", f"expires {utc(message.expires_at)}"))
    if message.drafts:
        second.append(element("span", f"from drafts {', '.join(map(visible_line, message.drafts))}"))
    if message.urgent:
        first.append(element("span", "urgent", class_="mark"))
    return [element("span", join(first, " "), class_="who"), element("span", join(second, " "), class_="where")]


def _machine_readable(timestamp: str) -> str | None:
    try:
        return datetime.fromisoformat(timestamp).isoformat()
    except ValueError:
        return None


# --- the payload ------------------------------------------------------------------------------------------------------


def payload_html(message: Message, found: Found) -> Html:
    """What a message says, in the form of its type.

    Args:
        message: The message.
        found: The messages that its links may lead to.
    """
    parts, rest = parts_of(message.msg_type, message.payload)
    if about_of(message) is not None:
        del rest["of"]  # the heading names it
    shown = [_part(part, found) for part in parts] + _fields(rest | dict(message.extra))
    return element("div", *(shown or [element("p", "(empty)", class_="empty")]), class_="payload")


def _part(part: Part, found: Found) -> Html:
    match part:
        case Title(title):
            return element("h3", visible_line(title), dir="auto")
        case Prose(prose):
            return element("div", *_paragraphs(prose), class_="prose")
        case Setting(setting):
            return element("p", visible_line(setting), class_="setting", dir="auto")
        case Beats(beats):
            return element("ol", *(element("li", beat, dir="auto") for beat in beats), class_="beats")
        case Directions(directions):
            return _labelled(directions, "directions")
        case Speeches(speeches):  # what a line holds beyond is for programs: the beat it belongs to, the take
            return _labelled((each._replace(beyond={}) for each in speeches), "speeches")
        case Shots(shots):
            return _shots(shots)
        case Script():
            return _script(part)
        case Judgement():
            return _judgement(part, found)
        case Final(of, score):
            judged = [] if score is None else [text(" "), gauge(score)]
            return element("p", element("strong", "Final: "), link(of, found), *judged, class_="final")


def _paragraphs(prose: str) -> list[Html]:
    """What empty lines separate."""
    lines = ("" if line.isspace() else line for line in visible(prose).split("\n"))
    found = (paragraph.strip("\n") for paragraph in "\n".join(lines).split("\n\n"))
    return [element("p", *_lines(paragraph), dir="auto") for paragraph in found if paragraph]


def _lines(paragraph: str) -> list[Html]:
    lines = text(paragraph).split("\n")
    return [Html(line) if number == 0 else Html(f"<br>{line}") for number, line in enumerate(lines)]


def _labelled(items: Iterable[Labelled], kind: str) -> Html:
    pairs = []
    for each in items:
        aside = [element("span", f"({each.aside}) ", class_="aside")] if each.aside else []
        pairs.append(element("dt", visible_line(each.label), dir="auto"))
        pairs.append(element("dd", *aside, *_lines(each.text), *_fields(each.beyond), dir="auto"))
    return element("dl", *pairs, class_=kind)


def _shots(shots: Iterable[Labelled]) -> Html:
    rows = (
        element(
            "tr",
            element("td", str(number), class_="number"),
            element("th", visible_line(shot.label), scope="row", dir="auto"),
            element("td", *_lines(shot.text), *_fields(shot.beyond), dir="auto"),
        )
        for number, shot in enumerate(shots, 1)
    )
    heading = element("tr", *(element("th", name, scope="col") for name in ("#", "Shot", "What it shows")))
    return element("table", element("thead", heading), element("tbody", *rows), class_="shots")


def _script(script: Script) -> Html:
    title = [visible_line(script.title)] if script.title else []
    version = [] if script.version is None else [f"version {script.version}"]
    heading = [element("h3", ", ".join(title + version), dir="auto")] if title or version else []
    blocks = (
        _speech(each) if isinstance(each, Speech) else element("div", *_paragraphs(each), class_="action")
        for each in script.elements
    )
    return element("div", *heading, *blocks, class_="script")


def _speech(speech: Speech) -> Html:
    said = (
        element("p", f"({spoken})", class_="aside", dir="auto")
        if is_parenthetical
        else element("p", *_lines(spoken), dir="auto")
        for spoken, is_parenthetical in speech.spoken
    )
    return element("div", element("p", visible_line(speech.who), class_="cue", dir="auto"), *said, class_="speech")


def _judgement(judgement: Judgement, found: Found) -> Html:
    of = [text(" of "), link(judgement.of, found)] if judgement.of else []
    rows = (
        element("tr", element("th", visible_line(name), scope="row", dir="auto"), element("td", gauge(value)))
        for name, value in judgement.rubric
    )
    rubric = [element("table", element("tbody", *rows), class_="rubric")] if judgement.rubric else []
    return element("div", element("p", gauge(judgement.score), *of, class_="total"), *rubric, class_="judgement")


# --- what has no form -------------------------------------------------------------------------------------------------


def _fields(fields: Mapping[str, Any]) -> list[Html]:
    """Keys and values; those that take much room are folded."""
    return [_members(fields, 0)] if fields else []


def _members(fields: Mapping[str, Any], level: int) -> Html:
    pairs = []
    for key, value in fields.items():
        name = visible_line(key)
        plain = not isinstance(value, dict | list) or not value
        if plain or level >= _DEEPEST or len(orjson.dumps(value)) <= _FOLDED_ABOVE:
            pairs.append(element("div", element("dt", name), element("dd", _value(value, level), dir="auto")))
        else:
            amount = f"{len(value):,} {'entry' if len(value) == 1 else 'entries'}"
            summary = element("summary", name, element("span", f" {amount}", class_="amount"))
            pairs.append(element("div", element("dd", element("details", summary, _value(value, level)), dir="auto")))
    return element("dl", *pairs, class_="fields")


def _value(value: Any, level: int) -> Html:
    if isinstance(value, str) and value:
        return join(_lines(value))
    if not isinstance(value, dict | list) or not value or level >= _DEEPEST:
        return element("code", orjson.dumps(value).decode())
    if isinstance(value, dict):
        return _members(value, level + 1)
    if all(isinstance(item, str | int | float) for item in value) and sum(len(str(item)) for item in value) <= 120:
        return text(", ".join(item if isinstance(item, str) else orjson.dumps(item).decode() for item in value))
    return element("ul", *(element("li", _value(item, level + 1)) for item in value))

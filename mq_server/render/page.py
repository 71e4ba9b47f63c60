"""An edition as one web page that needs nothing else: no network, no script, no other file.

Contents and filters stand beside the conversation; the filters are check boxes and rules of the style sheet (`:has`),
so the page's Content-Security-Policy forbids every script, and every style but its own.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from mq_server.render.agents import hue_of
from mq_server.render.chart import activity_chart
from mq_server.render.edition import Edition, Section, ThreadSummary
from mq_server.render.html import agent, anchor, gauge, link, message_html, payload_html
from mq_server.render.markup import Html, element, join, text
from mq_server.render.text import visible_line
from mq_server.render.transcript import gist
from mq_server.scenes import SceneState, SceneVersion, figure

_MOST_CHIPS = 40
_MOST_THREADS = 100
_GIST = 60
_DETAILED = 8


@cache
def stylesheet(name: str) -> str:
    """A style sheet of this package: `message.css` for messages anywhere, `page.css` for this page."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class Filter(NamedTuple):
    """A row of check boxes, and the class of the messages that belong to each value."""

    title: str
    mark: str
    classes: dict[str, str]
    chips: tuple[tuple[str, str, int], ...]
    """Per check box: its class, its label and how many messages it stands for."""


def page(edition: Edition) -> str:
    """The page."""
    messages = [entry.message for entry in edition.entries]
    filters: list[Filter] = []
    if edition.final is None and len(messages) > 1:
        filters = [
            _filter("Agents", "a", (message.sender for message in messages)),
            _filter("Types", "t", (message.msg_type for message in messages)),
        ]
    style = Html(stylesheet("message.css") + stylesheet("page.css") + _rules(filters))
    policy = f"default-src 'none'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", visible_line(edition.title)),
        element("style", style),
    )
    sections = [
        _section(edition, section, number, filters)
        for number, section in enumerate(edition.sections, 1)
        if section.entries
    ]
    main = element("main", _cover(edition), *(sections or [_nothing()]), id="conversation")
    skip = element("a", "To the conversation", href="#conversation", class_="skip")
    if edition.final is not None:
        body = element("body", main, class_="alone")
    else:
        body = element("body", skip, _side(edition, filters), main)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _hash(style: str) -> str:
    return f"sha256-{b64encode(sha256(style.encode()).digest()).decode()}"


def _nothing() -> Html:
    return element("p", "There are no messages.", class_="nothing")


def _amount(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- beside the conversation ------------------------------------------------------------------------------------------


def _side(edition: Edition, filters: Sequence[Filter]) -> Html:
    contents = element(
        "nav",
        element("h2", "Contents"),
        element("ol", *(_contents(edition, section, n) for n, section in enumerate(edition.sections, 1))),
        aria_label="Contents",
    )
    rows = (
        element(
            "fieldset",
            element("legend", each.title),
            element("div", *(_chip(each, chip) for chip in each.chips), class_="chips"),
        )
        for each in filters
    )
    reset = [element("button", "Show all messages", type="reset")] if filters else []
    return element("form", contents, *rows, *reset, class_="side", autocomplete="off")


def _contents(edition: Edition, section: Section, number: int) -> Html:
    name = section.title or section.scene or "Without a scene"
    slug = [element("bdi", visible_line(section.scene), class_="slug"), text(" ")] if section.scene else []
    label = [*slug, *([element("bdi", visible_line(name)), text(" ")] if name != section.scene else [])]
    entry = element("a", *label, _count(len(section.entries)), href=f"#s{number}")
    below = []
    if section.state is not None and section.state.versions and len(edition.sections) <= _DETAILED:
        below.append(element("ol", *(_version(edition, section, version) for version in section.state.versions)))
    threads = [thread for thread in section.threads() if thread.messages > 1]
    if len(threads) > 1:
        links = [_thread(thread) for thread in threads[:_MOST_THREADS]]
        more = len(threads) - _MOST_THREADS
        if more > 0:
            links.append(element("li", f"and {more:,} more", class_="count"))
        summary = element("summary", _amount(len(threads), "thread"))
        below.append(element("details", summary, element("ol", *links)))
    return element("li", entry, *below)


def _version(edition: Edition, section: Section, version: SceneVersion) -> Html:
    marks = ", ".join(_marks(section, version.id))
    about = ", ".join(part for part in ("" if version.score is None else figure(version.score), marks) if part)
    label = join([text(f"version {version.version} "), element("span", about, class_="count")])
    there = edition.found.get(version.id)
    return element("li", element("a", label, href=f"#{anchor(there)}") if there else label)


def _thread(thread: ThreadSummary) -> Html:
    about = element("bdi", gist(thread.root, _GIST))
    return element("li", element("a", about, " ", _count(thread.messages), href=f"#{anchor(thread.root)}"))


def _count(number: int) -> Html:
    return element("span", f"{number:,}", class_="count", aria_label=_amount(number, "message"))


def _filter(title: str, mark: str, values: Iterable[str]) -> Filter:
    """The check boxes of the most frequent values; the others share one."""
    counts = Counter(values)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    shown = ordered if len(ordered) <= _MOST_CHIPS else ordered[: _MOST_CHIPS - 1]
    classes = {value: f"{mark}{number}" for number, value in enumerate(shown)}
    chips = [(classes[value], value, counts[value]) for value in sorted(shown)]
    others = ordered[len(shown) :]
    if others:
        classes |= dict.fromkeys(others, f"{mark}x")
        chips.append((f"{mark}x", f"{len(others):,} others", sum(counts[value] for value in others)))
    return Filter(title, mark, classes, tuple(chips))


def _chip(row: Filter, chip: tuple[str, str, int]) -> Html:
    own, label, count = chip
    hue = f" hue-{hue_of(label)}" if row.mark == "a" and own != "ax" else ""
    dot = [element("span", class_=f"dot{hue}")] if row.mark == "a" else []
    box = element("input", type="checkbox", class_=f"only-{row.mark}", id=f"only-{own}")
    return element("label", box, *dot, element("bdi", visible_line(label)), _count(count))


def _rules(filters: Iterable[Filter]) -> str:
    """A message is hidden when boxes of its row are checked and its own is not."""
    return "".join(
        f"body:has(.only-{row.mark}:checked):not(:has(#only-{own}:checked)) .{own}{{display:none}}\n"
        for row in filters
        for own, _, _ in row.chips
    )


# --- the conversation -------------------------------------------------------------------------------------------------


def _cover(edition: Edition) -> Html:
    about = [edition.what]
    if edition.final is not None:
        judged = "" if edition.final.score is None else f", {figure(edition.final.score)}"
        about += [f"version {edition.final.version}, final{judged}", edition.final.ref]
    else:
        about += [_amount(len(edition.entries), "message")] + ([edition.span] if edition.span else [])
    chart: list[Html] = []
    if edition.final is None and len(edition.entries) > 1:
        drawn = activity_chart([entry.message for entry in edition.entries])
        chart = [element("figure", element("figcaption", "Messages over time, UTC"), drawn)]
    return element(
        "header",
        element("h1", visible_line(edition.title), dir="auto"),
        element("p", visible_line(" · ".join(about)), class_="about"),
        *chart,
    )


def _section(edition: Edition, section: Section, number: int, filters: Sequence[Filter]) -> Html:
    if edition.final is not None:
        (entry,) = section.entries
        setting = section.setting(entry.message)
        opening = [element("p", visible_line(setting), class_="setting", dir="auto")] if setting else []
        script = payload_html(entry.message, edition.found)
        return element("section", *opening, element("article", script, id=anchor(entry.message)), id=f"s{number}")
    shown = []
    for entry in section.entries:
        message = entry.message
        classes = " ".join(
            row.classes[value] for row, value in zip(filters, (message.sender, message.msg_type), strict=False)
        )
        marks = _marks(section, message.id)
        shown.append(message_html(message, edition.found, depth=entry.depth, classes=classes, marks=marks))
    return element("section", _opening(edition, section), *shown, id=f"s{number}")


def _marks(section: Section, message_id: str) -> list[str]:
    state = section.state
    if state is None:
        return []
    marks = ["best"] if state.best is not None and state.best.id == message_id else []
    return marks + ["final"] * (state.finalised is not None and state.finalised.version.id == message_id)


def _opening(edition: Edition, section: Section) -> Html:
    """How the scene stands."""
    name = section.title or section.scene or "Without a scene"
    alone = len(edition.sections) == 1 and name == edition.title  # the page's own heading says it
    title = element("h2", visible_line(name), dir="auto", class_="unseen" if alone else None)
    state = section.state
    if state is None:
        return element("header", title, class_="opening")
    standing = " · ".join([state.scene, state.status, _amount(state.iterations, "version")])
    parts = [title, element("p", visible_line(standing), class_="standing")]
    if state.versions:
        parts.append(element("table", element("tbody", *_versions(edition, section, state)), class_="versions"))
    for feedback in state.open_feedback:
        by = element("p", text("open feedback by "), agent(feedback.sender), " ", link(feedback.id, edition.found))
        parts.append(element("div", by, element("p", feedback.text, dir="auto"), class_="open"))
    if state.advice is not None:
        parts.append(element("p", visible_line(state.advice)))
    return element("header", *parts, class_="opening")


def _versions(edition: Edition, section: Section, state: SceneState) -> Iterable[Html]:
    for version in state.versions:
        marks = _marks(section, version.id)
        scorers = join((agent(given.sender) for given in version.scored_by), ", ")
        score = gauge(version.score) if version.score is not None else text("no score yet")
        yield element(
            "tr",
            element("th", link(version.id, edition.found, f"version {version.version}"), scope="row"),
            element("td", score),
            element("td", scorers, class_="by"),
            element("td", join((element("span", mark, class_="mark") for mark in marks), " ")),
        )

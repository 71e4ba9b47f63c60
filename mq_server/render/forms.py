"""Payloads on a terminal in the form of their type: prose, speeches, scripts, lists, scores.

What a payload holds is `parts`' business; what its parts leave is shown by the caller as keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

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
)
from mq_server.render.plain import capped, prose
from mq_server.render.text import columns, padded, visible, visible_line, wrap


def shaped(parts: Sequence[Part], width: int, name: Callable[[str], str]) -> list[str]:
    """The lines of a payload's parts.

    Args:
        parts: As `parts_of` gives them.
        width: Columns.
        name: What a message is called that the payload names by its id.
    """
    return _paragraphs(_part(part, width, name) for part in parts)


def _part(part: Part, width: int, name: Callable[[str], str]) -> list[str]:
    match part:
        case Title(text):
            return [visible_line(text)]
        case Prose(text) | Setting(text):
            return prose(text, width)
        case Beats(beats):
            margin = len(f"{len(beats)}. ")
            numbered = enumerate(beats, 1)
            return [line for n, beat in numbered for line in _item(f"{n}.".rjust(margin - 1), beat, width, margin)]
        case Directions(directions):
            return _paragraphs(
                [*_item(f"{each.label}:", each.text, width), *_beyond(each, width)] for each in directions
            )
        case Speeches(speeches):
            return [line for each in speeches for line in _item(_cue(each), each.text, width)]
        case Shots(shots):
            return [line for n, each in enumerate(shots, 1) for line in _shot(n, each, width)]
        case Script():
            return _script(part, width)
        case Judgement(score, of, rubric):
            return _score(score, name(of) if of else None, rubric)
        case Final(of, score):
            return [f"final: {name(of)}{'' if score is None else f', score {score:g}'}"]


def _cue(speech: Labelled) -> str:
    return f"{speech.label.upper()}{f' ({speech.aside})' if speech.aside else ''}:"


def _shot(number: int, shot: Labelled, width: int) -> list[str]:
    lines = _item(f"{number}. {shot.label}:", shot.text, width, len(f"{number}. "))
    return lines + _beyond(shot, width)


def _script(script: Script, width: int) -> list[str]:
    """Action over the full width, the cue of whoever speaks, the speech indented on both sides."""
    version = "" if script.version is None else f"version {script.version}"
    title = visible_line(script.title).upper() if script.title else ""
    lines = [", ".join(part for part in (title, version) if part)]
    for element in script.elements:
        lines += ["", *(_speech(element, width) if isinstance(element, Speech) else prose(element, width))]
    return lines


def _speech(speech: Speech, width: int) -> list[str]:
    margin = " " * (width // 6)
    lines = [f"{margin * 2}{visible_line(speech.who.upper())}"]
    between = False
    for text, is_parenthetical in speech.spoken:
        lines += [""] * (between and not is_parenthetical)
        inset = margin * 3 if is_parenthetical else margin * 2
        inset = inset[: len(inset) // 2]
        shown = prose(f"({text})" if is_parenthetical else text, width - 2 * len(inset))
        lines += [f"{inset}{line}".rstrip() for line in shown]
        between = not is_parenthetical
    return lines


def _score(score: float, of: str | None, rubric: Sequence[tuple[str, float]]) -> list[str]:
    names = [visible_line(name) for name, _ in rubric]
    room = max(map(columns, names), default=0)
    lines = [f"  {padded(name, room)}  {value:g}" for name, (_, value) in zip(names, rubric, strict=True)]
    return [f"score {score:g}{f' of {of}' if of else ''}", *lines]


def _item(label: str, text: str, width: int, hang: int = 2) -> list[str]:
    return wrap(visible(text), width, label=f"{visible_line(label)} ", hang=hang)


def _beyond(element: Labelled, width: int) -> list[str]:
    """What an element of a list holds beyond what has been shown of it."""
    return [f"  {line}" for line in capped(dict[str, Any](element.beyond), width - 2)]


def _paragraphs(blocks: Iterable[list[str]]) -> list[str]:
    lines: list[str] = []
    for block in blocks:
        lines += [""] * bool(lines) + block
    return lines

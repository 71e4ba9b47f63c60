"""Payloads in the form of their type: prose, speeches, scripts, lists, scores.

Each form takes what it shows out of the fields it is given. What is left, and a payload that is not as its type says,
is shown by the caller as keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mq_server.render.plain import capped, prose
from mq_server.render.text import columns, padded, visible, visible_line, wrap

_Fields = dict[str, Any]


def shaped(msg_type: str, fields: dict[str, Any], width: int) -> list[str]:
    """The lines of a payload in the form of its type; of a type without one, its title and text.

    Args:
        msg_type: The type.
        fields: The payload; what is shown is taken out.
        width: Columns.
    """
    return _FORMS.get(msg_type, _text)(fields, width)


def has_form(msg_type: str) -> bool:
    """Whether messages of the type have a form of their own."""
    return msg_type in _FORMS


def _text(fields: _Fields, width: int) -> list[str]:
    """A title, then prose."""
    lines = [visible_line(fields.pop("title"))] if _is_text(fields.get("title")) else []
    if _is_text(fields.get("text")):
        lines += [""] * bool(lines) + prose(fields.pop("text"), width)
    return lines


def _beats(fields: _Fields, width: int) -> list[str]:
    if not _all(fields.get("beats"), _is_text):
        return []
    lines = _text(fields, width)
    if _is_text(fields.get("setting")):
        lines += [""] * bool(lines) + prose(fields.pop("setting"), width)
    lines += [""] * bool(lines)
    beats = fields.pop("beats")
    margin = len(f"{len(beats)}. ")
    for number, beat in enumerate(beats, 1):
        lines += _labelled(f"{number}.".rjust(margin - 1), beat, width, margin)
    return lines


def _directions(fields: _Fields, width: int) -> list[str]:
    if not _all(fields.get("directions"), lambda each: _has_texts(each, "who", "text")):
        return []
    return _paragraphs(
        [*_labelled(f"{each['who']}:", each["text"], width), *_beyond(each, ("who", "text"), width)]
        for each in fields.pop("directions")
    )


def _dialogue(fields: _Fields, width: int) -> list[str]:
    if not _all(fields.get("lines"), lambda each: _has_texts(each, "who", "text")):
        return []
    lines = []
    for each in fields.pop("lines"):
        aside = f" ({each['parenthetical']})" if _is_text(each.get("parenthetical")) else ""
        lines += _labelled(f"{each['who'].upper()}{aside}:", each["text"], width)
    return lines


def _shots(fields: _Fields, width: int) -> list[str]:
    if not _all(fields.get("shots"), lambda each: _has_texts(each, "shot", "text")):
        return []
    lines = []
    for number, each in enumerate(fields.pop("shots"), 1):
        lines += _labelled(f"{number}. {each['shot']}:", each["text"], width, len(f"{number}. "))
        lines += _beyond(each, ("shot", "text"), width)
    return lines


def _scene(fields: _Fields, width: int) -> list[str]:
    """A script: action over the full width, the cue of whoever speaks, the speech indented on both sides."""
    if not _all(fields.get("blocks"), lambda each: _has_texts(each, "kind", "text")):
        return []
    title = visible_line(fields.pop("title")) if _is_text(fields.get("title")) else ""
    version = f"version {fields.pop('version')}" if type(fields.get("version")) is int else ""
    lines = [", ".join(part for part in (title.upper(), version) if part)]
    margin = " " * (width // 6)
    speaker, previous = None, "action"
    for block in fields.pop("blocks"):
        kind, who = block["kind"], block.get("who")
        if kind not in ("line", "parenthetical"):
            lines += ["", *prose(block["text"], width)]
        else:
            if previous == "action" or who != speaker or kind == "parenthetical":
                lines += ["", f"{margin * 2}{visible_line(str(who or '?').upper())}"]
            elif previous == "line":
                lines.append("")
            text = f"({block['text']})" if kind == "parenthetical" else block["text"]
            inset = margin * 3 if kind == "parenthetical" else margin * 2
            inset = inset[: len(inset) // 2]
            lines += [f"{inset}{line}".rstrip() for line in prose(text, width - 2 * len(inset))]
        speaker, previous = who, kind if kind in ("line", "parenthetical") else "action"
    return lines


def _score(fields: _Fields, width: int) -> list[str]:
    if not _is_number(fields.get("score")):
        return []
    of = f" of {fields.pop('of')}" if _is_text(fields.get("of")) else ""
    lines = [f"score {fields.pop('score'):g}{of}"]
    rubric = fields.get("rubric")
    if isinstance(rubric, dict) and rubric and all(map(_is_number, rubric.values())):
        del fields["rubric"]
        names = [visible_line(name) for name in rubric]
        room = max(map(columns, names))
        lines += [f"  {padded(name, room)}  {value:g}" for name, value in zip(names, rubric.values(), strict=True)]
    if _is_text(fields.get("notes")):
        lines += ["", *prose(fields.pop("notes"), width)]
    return lines


def _finalize(fields: _Fields, width: int) -> list[str]:
    if not _is_text(fields.get("of")):
        return []
    score = f", score {fields.pop('score'):g}" if _is_number(fields.get("score")) else ""
    lines = [f"final: {fields.pop('of')}{score}"]
    return lines + (["", *prose(fields.pop("text"), width)] if _is_text(fields.get("text")) else [])


_FORMS: Mapping[str, Callable[[_Fields, int], list[str]]] = {
    "brief": _text,
    "narration": _text,
    "note": _text,
    "feedback": _text,
    "query": _text,
    "answer": _text,
    "scene_plan": _beats,
    "scene_breakdown": _beats,
    "character_direction": _directions,
    "dialogue": _dialogue,
    "shot_list": _shots,
    "scene": _scene,
    "score": _score,
    "finalize": _finalize,
}


def _labelled(label: str, text: str, width: int, hang: int = 2) -> list[str]:
    return wrap(visible(text), width, label=f"{visible_line(label)} ", hang=hang)


def _beyond(part: Mapping[str, Any], shown: Sequence[str], width: int) -> list[str]:
    """What an element of a list holds beyond what has been shown of it."""
    rest = {key: value for key, value in part.items() if key not in shown}
    return [f"  {line}" for line in capped(rest, width - 2)]


def _paragraphs(blocks: Iterable[list[str]]) -> list[str]:
    lines: list[str] = []
    for block in blocks:
        lines += [""] * bool(lines) + block
    return lines


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(fits, value))


def _has_texts(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and all(_is_text(value.get(key)) for key in keys)

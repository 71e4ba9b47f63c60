"""What a payload holds, part by part: a title, prose, speeches, a script, shots, a score. No output format.

Terminal, Markdown, Fountain and HTML all show these parts, each in its own way. A payload that is not as its type says
gives no parts: it stays whole in what is left over, which every format shows as keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from mq_server.message import Message

_Fields = dict[str, Any]

# --- the parts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Title:
    """What a message calls itself, in a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Prose:
    """Text in its own paragraphs."""

    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and when a scene is, as a scene heading says it."""

    text: str


@dataclass(frozen=True, slots=True)
class Beats:
    """What happens, step by step."""

    beats: tuple[str, ...]


class Labelled(NamedTuple):
    """A text with what it belongs to in front (a character, a shot), and what its element holds beyond."""

    label: str
    text: str
    beyond: Mapping[str, Any]
    aside: str | None = None


@dataclass(frozen=True, slots=True)
class Directions:
    """How each character plays it."""

    directions: tuple[Labelled, ...]


@dataclass(frozen=True, slots=True)
class Speeches:
    """Lines of dialogue; `aside` is the parenthetical."""

    speeches: tuple[Labelled, ...]


@dataclass(frozen=True, slots=True)
class Shots:
    """How a scene is filmed; a label says what kind of shot it is."""

    shots: tuple[Labelled, ...]


class Spoken(NamedTuple):
    """A piece of a speech."""

    text: str
    is_parenthetical: bool = False


@dataclass(frozen=True, slots=True)
class Speech:
    """What one character says until somebody else speaks or something happens."""

    who: str
    spoken: tuple[Spoken, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A version of a scene. A text among its elements is action."""

    elements: tuple[str | Speech, ...]
    title: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A score of a message; `of` is its id as it was written."""

    score: float
    of: str | None = None
    rubric: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Final:
    """Which message stands, by its id."""

    of: str
    score: float | None = None


Part: TypeAlias = Title | Prose | Setting | Beats | Directions | Speeches | Shots | Script | Judgement | Final


class Parts(NamedTuple):
    """The parts of a payload in order, and the fields that none of them shows."""

    parts: tuple[Part, ...]
    rest: dict[str, Any]


# --- taking a payload apart -------------------------------------------------------------------------------------------


def parts_of(msg_type: str, payload: Mapping[str, Any]) -> Parts:
    """A payload's parts.

    Args:
        msg_type: Its type; one without a form of its own gives its title and text.
        payload: The payload.
    """
    rest = dict(payload)
    return Parts(tuple(_FORMS.get(msg_type, _text)(rest)), rest)


def has_form(msg_type: str) -> bool:
    """Whether messages of the type have a form of their own."""
    return msg_type in _FORMS


def about_of(message: Message) -> str | None:
    """The id of the message that one is about, where a heading says so because no part does."""
    of = message.payload.get("of")
    return str(of) if is_text(of) and message.msg_type not in ("score", "finalize") else None


def is_script(msg_type: str) -> bool:
    """Whether a screenplay takes anything of messages of this type."""
    return msg_type in ("scene", "narration", "dialogue")


def script_of(msg_type: str, payload: Mapping[str, Any]) -> Script | None:
    """What a screenplay takes of a message: a scene, a narration's action, a dialogue's speeches; None of others."""
    if not is_script(msg_type):
        return None
    for part in parts_of(msg_type, payload).parts:
        if isinstance(part, Script):
            return part
        if isinstance(part, Prose):
            return Script((part.text,))
        if isinstance(part, Speeches):
            blocks = [block for speech in part.speeches for block in _blocks(speech)]
            return Script(tuple(_elements(blocks)))
    return None


def _text(fields: _Fields) -> list[Part]:
    return [*_taken(fields, "title", Title), *_taken(fields, "text", Prose)]


def _beats(fields: _Fields) -> list[Part]:
    if not _all(fields.get("beats"), is_text):
        return []
    return [*_text(fields), *_taken(fields, "setting", Setting), Beats(tuple(fields.pop("beats")))]


def _directions(fields: _Fields) -> list[Part]:
    labelled = _labelled(fields, "directions", "who")
    return [Directions(labelled)] if labelled else []


def _dialogue(fields: _Fields) -> list[Part]:
    labelled = _labelled(fields, "lines", "who", "parenthetical")
    return [Speeches(labelled)] if labelled else []


def _shots(fields: _Fields) -> list[Part]:
    labelled = _labelled(fields, "shots", "shot")
    return [Shots(labelled)] if labelled else []


def _scene(fields: _Fields) -> list[Part]:
    if not _all(fields.get("blocks"), lambda each: _has_texts(each, "kind", "text")):
        return []
    title = fields.pop("title") if is_text(fields.get("title")) else None
    version = fields.pop("version") if type(fields.get("version")) is int else None
    return [Script(tuple(_elements(fields.pop("blocks"))), title, version)]


def _score(fields: _Fields) -> list[Part]:
    if not is_number(fields.get("score")):
        return []
    of = fields.pop("of") if is_text(fields.get("of")) else None
    rubric = fields.get("rubric")
    measured: tuple[tuple[str, float], ...] = ()
    if isinstance(rubric, dict) and rubric and all(map(is_number, rubric.values())):
        measured = tuple(fields.pop("rubric").items())
    return [Judgement(fields.pop("score"), of, measured), *_taken(fields, "notes", Prose)]


def _finalize(fields: _Fields) -> list[Part]:
    if not is_text(fields.get("of")):
        return []
    score = fields.pop("score") if is_number(fields.get("score")) else None
    return [Final(fields.pop("of"), score), *_taken(fields, "text", Prose)]


_FORMS: Mapping[str, Callable[[_Fields], list[Part]]] = {
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


def _taken(fields: _Fields, key: str, part: Callable[[str], Part]) -> list[Part]:
    return [part(fields.pop(key))] if is_text(fields.get(key)) else []


def _labelled(fields: _Fields, key: str, label: str, aside: str = "") -> tuple[Labelled, ...]:
    if not _all(fields.get(key), lambda each: _has_texts(each, label, "text")):
        return ()
    found = []
    for each in fields.pop(key):
        beyond = {name: value for name, value in each.items() if name not in (label, "text")}
        own = beyond.pop(aside) if is_text(beyond.get(aside)) else None
        found.append(Labelled(each[label], each["text"], beyond, own))
    return tuple(found)


def _blocks(speech: Labelled) -> list[dict[str, Any]]:
    line = {"kind": "line", "who": speech.label, "text": speech.text}
    return [line] if speech.aside is None else [{**line, "kind": "parenthetical", "text": speech.aside}, line]


def _elements(blocks: list[dict[str, Any]]) -> Iterator[str | Speech]:
    """Blocks as action and speeches; an unknown kind is action."""
    who, spoken = "", list[Spoken]()
    for block in blocks:
        kind, speaker = block["kind"], str(block.get("who") or "?")
        speaks = kind in ("line", "parenthetical")
        if spoken and (not speaks or speaker != who):
            yield Speech(who, tuple(spoken))
            spoken = []
        if speaks:
            who = speaker
            spoken.append(Spoken(block["text"], kind == "parenthetical"))
        else:
            yield block["text"]
    if spoken:
        yield Speech(who, tuple(spoken))


# --- what is what -----------------------------------------------------------------------------------------------------


def is_text(value: object) -> bool:
    """Whether it is text, and not an empty one."""
    return isinstance(value, str) and value != ""


def is_number(value: object) -> bool:
    """Whether it is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(fits, value))


def _has_texts(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and all(is_text(value.get(key)) for key in keys)

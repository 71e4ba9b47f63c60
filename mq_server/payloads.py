"""The typed payloads: a pydantic model for each message type of a production, and the registry that finds them.

Fields beyond a model's own are kept, so that agents may say more than the exports and the scene board read. A type
without a model carries any JSON object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mq_server.errors import InvalidRequest
from mq_server.message import check_finite, plain_payload

Text = Annotated[str, StringConstraints(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Payload(BaseModel):
    """The base of all payload models. A subclass names its `msg_type`; models of your own are registered with it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    msg_type: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get("msg_type"):
            MODELS[cls.msg_type] = cls


MODELS: dict[str, type[Payload]] = {}
"""The model of each message type that has one."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Brief(Payload):
    """What the writer wants: a quest, a scene, a character."""

    msg_type = "brief"
    text: Text
    title: str | None = None
    quest: str | None = None
    characters: list[str] | None = None


class ScenePlan(Payload):
    """The beats of a scene, in order."""

    msg_type = "scene_plan"
    beats: Annotated[list[Text], Field(min_length=1)]
    title: str | None = None
    text: str | None = None


class SceneBreakdown(Payload):
    """What each department needs to know to make the scene."""

    msg_type = "scene_breakdown"
    beats: Annotated[list[Text], Field(min_length=1)]
    characters: list[str] | None = None
    setting: str | None = None
    title: str | None = None


class Direction(_Part):
    """How one character plays it."""

    who: Text
    text: Text


class CharacterDirection(Payload):
    """What each character wants and hides."""

    msg_type = "character_direction"
    directions: Annotated[list[Direction], Field(min_length=1)]


class Narration(Payload):
    """Prose."""

    msg_type = "narration"
    text: Text


class Line(_Part):
    """One speech."""

    who: Text
    text: Text
    parenthetical: str | None = None


class Dialogue(Payload):
    """Speeches in order."""

    msg_type = "dialogue"
    lines: Annotated[list[Line], Field(min_length=1)]


class Block(_Part):
    """One element of a script."""

    kind: Literal["action", "line", "parenthetical"]
    text: Text
    who: str | None = None


class Scene(Payload):
    """An assembled version of a scene."""

    msg_type = "scene"
    version: Annotated[int, Field(ge=1)]
    blocks: Annotated[list[Block], Field(min_length=1)]
    title: str | None = None


class Shot(_Part):
    """One set-up of the camera."""

    shot: Text
    text: Text


class ShotList(Payload):
    """How a scene is filmed."""

    msg_type = "shot_list"
    shots: Annotated[list[Shot], Field(min_length=1)]


class Score(Payload):
    """A judgement of one scene; 0.8 passes."""

    msg_type = "score"
    of: Text
    score: Fraction
    rubric: dict[str, Fraction] | None = None
    notes: str | None = None


class Finalize(Payload):
    """The version that stands."""

    msg_type = "finalize"
    of: Text
    score: Fraction | None = None


class Note(Payload):
    """A remark to anyone."""

    msg_type = "note"
    text: Text


class Feedback(Payload):
    """What to change, and why."""

    msg_type = "feedback"
    text: Text
    of: str | None = None


class Query(Payload):
    """A question that wants an answer."""

    msg_type = "query"
    text: Text


class Answer(Payload):
    """The answer to a query."""

    msg_type = "answer"
    text: Text


def checked_payload(msg_type: str | None, payload: object) -> tuple[str, dict[str, Any]]:
    """The type and the plain payload that are to be stored.

    Args:
        msg_type: The type; may be left out when `payload` is a model.
        payload: A `Payload` model, another pydantic model, or a mapping.

    Raises:
        InvalidRequest: Every field that is wrong, and the fields of the type.
    """
    if isinstance(payload, BaseModel):
        own_type = payload.msg_type if isinstance(payload, Payload) else ""
        if msg_type and own_type and msg_type != own_type:
            raise InvalidRequest([f"msg_type is {msg_type!r}, but the payload is a {own_type!r}"])
        msg_type = msg_type or own_type
        check_finite(payload.model_dump(exclude_unset=True))  # the JSON form has null in their place
        payload = payload.model_dump(mode="json", exclude_unset=True, exclude={"msg_type"})
    if not isinstance(msg_type, str) or not msg_type.strip():
        raise InvalidRequest(["msg_type is missing: name the kind of message, such as 'note'"])
    if not isinstance(payload, Mapping):
        hint = '; write {"text": …} for plain text' if isinstance(payload, str) else ""
        raise InvalidRequest([f"payload must be a JSON object, not {_kind(payload)}{hint}"])
    plain = plain_payload(payload)
    model = MODELS.get(msg_type)
    if model is not None:
        try:
            model.model_validate(plain, strict=True)
        except ValidationError as error:
            faults = [f"payload.{_path(fault['loc'])}: {fault['msg'].lower()}" for fault in error.errors()]
            raise InvalidRequest([*faults, f"a {msg_type!r} payload is {fields_of(msg_type)}"]) from error
    return msg_type, plain


def fields_of(msg_type: str) -> str:
    """The fields of a type in one line, such as `{text}` or `{of, score: 0..1, rubric?}`; empty if it has no model."""
    model = MODELS.get(msg_type)
    return "" if model is None else _outline(model)


def _outline(model: type[BaseModel]) -> str:
    shown = []
    for name, info in model.model_fields.items():
        text = name if info.is_required() else f"{name}?"
        annotation = str(info.annotation)
        part = next((p for p in (Direction, Line, Block, Shot) if f".{p.__name__}]" in annotation), None)
        if part is not None:
            text += f": [{_outline(part)}]"
        elif "list[" in annotation:
            text += ": [text]"
        elif "Literal" in annotation:
            text += ": " + annotation.partition("[")[2].rstrip("]").replace("'", "").replace(", ", "|")
        elif info.annotation is int:
            text += ": number"
        elif "float" in annotation:
            text += ": {name: 0..1}" if "dict" in annotation else ": 0..1"
        shown.append(text)
    return "{" + ", ".join(shown) + "}"


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _kind(value: object) -> str:
    names = {str: "text", list: "a list", tuple: "a list", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)

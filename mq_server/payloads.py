"""The typed payloads: a pydantic model for each message type of a production, and the registry that finds them.

Fields beyond a model's own are kept, so that agents may say more than the exports and the scene board read. A
production may add a JSON Schema for a type (`schemas`); where a type has both, a payload must fit both, for the sake of
what reads the models. A type with neither carries any JSON object, unless types are strict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from mq_server import outline
from mq_server.errors import InvalidRequest, UnknownType, did_you_mean
from mq_server.message import check_finite, plain_payload
from mq_server.names import DEAD_LETTER
from mq_server.schemas import Schema, Schemas, kind_of, place

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


def checked_payload(
    msg_type: str | None, payload: object, schemas: Schemas | None = None, *, strict: bool = False
) -> tuple[str, dict[str, Any]]:
    """The type and the plain payload that are to be stored.

    Args:
        msg_type: The type; may be left out when `payload` is a model.
        payload: A `Payload` model, another pydantic model, or a mapping.
        schemas: The production's own schemas.
        strict: Whether a type with neither a model nor a schema is refused.

    Raises:
        InvalidRequest: Every field that is wrong, and the fields of the type.
        SchemaError: The type's schema cannot be used.
    """
    if not isinstance(payload, dict) and isinstance(payload, BaseModel):  # pydantic's own check is a slow one
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
        raise InvalidRequest([f"payload must be a JSON object, not {kind_of(payload)}{hint}"])
    plain = plain_payload(payload)
    schema = schemas.get(msg_type) if schemas else None
    if strict and not is_known(msg_type, schema):
        raise InvalidRequest([f"{unknown_type(msg_type, schemas)}; or add schemas/{msg_type}.json"])
    faults = payload_faults(msg_type, plain, schema)
    if faults:
        raise InvalidRequest([*faults, expected(msg_type, schema)])
    return msg_type, plain


def payload_faults(msg_type: str, plain: Mapping[str, Any], schema: Schema | None = None) -> list[str]:
    """Every field of a stored payload that its model or its schema finds wrong.

    Args:
        msg_type: The type, which finds the model.
        plain: The payload.
        schema: The type's schema, if it has one.

    Raises:
        SchemaError: The schema turns out not to work.
    """
    faults: list[str] = []
    model = MODELS.get(msg_type)
    if model is not None:
        try:
            model.model_validate(plain, strict=True)
        except ValidationError as error:
            faults = [f"{place('payload', fault['loc'])}: {fault['msg'].lower()}" for fault in error.errors()]
    if schema is not None:
        faults += schema.faults(plain)
    return list(dict.fromkeys(faults))


def expected(msg_type: str, schema: Schema | None = None) -> str:
    """What a payload of a type looks like, as the last of its faults: `a 'note' payload is {text}`."""
    return f"a {msg_type!r} payload is {fields_of(msg_type, schema)}"


def is_known(msg_type: str, schema: Schema | None = None) -> bool:
    """Whether a message of this type is allowed when types are strict."""
    return msg_type in MODELS or schema is not None or msg_type == DEAD_LETTER


def unknown_type(msg_type: str, schemas: Schemas | None = None) -> str:
    """What is said of a type that is not known, where types are strict."""
    known = known_types(schemas)
    near = did_you_mean(msg_type, known)
    return f"msg_type {msg_type!r} is unknown, and mq.toml says strict_types.{near} Known types: {', '.join(known)}"


def known_types(schemas: Schemas | None = None) -> list[str]:
    """The types whose fields are laid down: by a model, then by the production's own schemas."""
    return list(dict.fromkeys([*MODELS, *(schemas.names() if schemas else ())]))


def fields_of(msg_type: str, schema: Schema | None = None) -> str:
    """The fields of a type in one line, such as `{text}` or `{of, score: 0..1, rubric?}`; empty if none are laid down.

    Args:
        msg_type: The type, which finds the model.
        schema: The type's schema, if it has one.
    """
    documents = _documents(msg_type, schema)
    return outline.outline(*documents) if documents else ""


def json_schema(msg_type: str, schemas: Schemas | None = None) -> dict[str, Any]:
    """The whole JSON Schema of a type: its model's, its file's, or what demands both.

    Args:
        msg_type: The type.
        schemas: The production's own schemas.

    Raises:
        UnknownType: It has neither.
        SchemaError: Its file cannot be used.
    """
    documents = _documents(msg_type, schemas.get(msg_type) if schemas else None)
    if not documents:
        raise UnknownType(msg_type, known_types(schemas))
    if len(documents) == 1:
        (only,) = documents
        return dict(only) if isinstance(only, Mapping) else {"allOf": [only]}
    # An identity of its own keeps the references within each part leading to where they did.
    parts = [
        {"$id": f"urn:mq:{kind}:{msg_type}", **part} if isinstance(part, Mapping) else part
        for kind, part in zip(("model", "schema"), documents, strict=True)
    ]
    return {"$schema": _DIALECT, "allOf": parts}


_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _documents(msg_type: str, schema: Schema | None) -> list[outline.Schema]:
    model = MODELS.get(msg_type)
    documents: list[outline.Schema] = [] if model is None else [_model_schema(model)]
    return documents if schema is None else [*documents, schema.document]


def _model_schema(model: type[BaseModel]) -> dict[str, Any]:
    try:
        return model.model_json_schema()
    except PydanticInvalidForJsonSchema:  # a model of somebody's own, with a field that only Python can say
        fields = model.model_fields.items()
        required = [name for name, info in fields if info.is_required()]
        return {"type": "object", "properties": {name: {} for name, _ in fields}, "required": required}

"""A JSON Schema as the fields of a form."""

from __future__ import annotations

from typing import Any

import pytest

from mq_server.monitor.fields import fields_of
from mq_server.payloads import MODELS, json_schema


def kinds(fields: list[dict[str, Any]] | None) -> dict[str, str]:
    """Each field's kind, with a star if it is required."""
    return {field["name"]: field["kind"] + "*" * field["required"] for field in fields or []}


@pytest.mark.parametrize("msg_type", sorted(name for name, model in MODELS.items() if "mq_server" in model.__module__))
def test_every_built_in_type_is_a_form_without_json(msg_type: str) -> None:
    fields = fields_of(json_schema(msg_type))
    assert fields
    assert "json" not in str(kinds(fields))
    assert "'kind': 'json'" not in str(fields)


def test_the_fields_of_the_built_in_types() -> None:
    assert kinds(fields_of(json_schema("score"))) == {
        "of": "text*",
        "score": "number*",
        "rubric": "named",
        "notes": "text",
    }
    lines = fields_of(json_schema("dialogue"))
    assert lines is not None
    assert kinds(lines) == {"lines": "rows*"}
    assert kinds(lines[0]["row"]["fields"]) == {"who": "text*", "text": "text*", "parenthetical": "text"}
    scene = fields_of(json_schema("scene"))
    assert scene is not None
    blocks = next(field for field in scene if field["name"] == "blocks")["row"]["fields"]
    assert blocks[0] == {
        "name": "kind",
        "required": True,
        "kind": "choice",
        "choices": ["action", "line", "parenthetical"],
    }
    version = next(field for field in scene if field["name"] == "version")
    assert version == {"name": "version", "required": True, "kind": "number", "whole": True, "least": 1}
    brief = fields_of(json_schema("brief"))
    assert kinds(brief) == {"text": "text*", "title": "text", "quest": "text", "characters": "rows"}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "text"),
        ({"type": ["string", "null"]}, "text"),
        ({"type": ["string", "integer"]}, "json"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number"),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, "json"),
        ({"const": 3}, "choice"),
        ({"enum": ["a", 1, True]}, "choice"),
        ({"enum": ["a", None]}, "json"),
        ({"type": "boolean"}, "check"),
        ({"type": "array"}, "json"),
        ({"type": "array", "items": {"type": "string"}}, "rows"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}, "json"),
        ({"type": "object"}, "json"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "named"),
        ({"type": "object", "properties": {"x": {"type": "string"}}}, "group"),
        ({"$ref": "#/$defs/one"}, "check"),
        ({"$ref": "#/$defs/round"}, "json"),
        ({"$ref": "#/$defs/none"}, "json"),
        ({"$ref": "elsewhere.json"}, "json"),
        ({"$ref": "#/$defs/self"}, "group"),
        (True, "json"),
        ({}, "json"),
    ],
)
def test_what_a_form_cannot_ask_for_is_json(schema: Any, kind: str) -> None:
    definitions = {
        "one": {"type": "boolean"},
        "round": {"$ref": "#/$defs/round"},
        "self": {"type": "object", "properties": {"self": {"$ref": "#/$defs/self"}}},
    }
    fields = fields_of({"type": "object", "properties": {"x": schema}, "$defs": definitions})
    assert kinds(fields) == {"x": kind}


def test_a_type_with_a_model_and_a_schema_has_the_fields_of_both() -> None:
    own = {
        "$defs": {"short": {"type": "string", "maxLength": 20}},
        "properties": {"mood": {"$ref": "#/$defs/short"}, "text": {"title": "What to say"}},
        "required": ["mood"],
    }
    fields = fields_of({"allOf": [json_schema("note"), own]})
    assert kinds(fields) == {"text": "text*", "mood": "text*"}


@pytest.mark.parametrize("schema", [True, {}, {"type": "object"}, {"allOf": [True]}, {"properties": 3}])
def test_a_schema_without_fields_has_no_form(schema: Any) -> None:
    assert fields_of(schema) is None

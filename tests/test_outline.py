"""A JSON Schema in one line."""

from __future__ import annotations

from typing import Any

import pytest

from mq_server.outline import outline


def fields(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"properties": properties, "required": required or []}


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        (fields(["a"], a=TEXT, b=TEXT), "{a, b?}"),
        (fields(["a", "z"], a={"type": "integer"}, b={"type": "boolean"}), "{a: number, b?: true|false, z: any}"),
        (fields(a={"type": "number", "minimum": 0, "maximum": 0.5}), "{a?: 0..0.5}"),
        (fields(a={"enum": ["x", 2, None]}, b={"const": "y"}), "{a?: x|2, b?: y}"),
        (fields(a={"type": "array", "items": TEXT}, b={"type": "array"}), "{a?: [text], b?: list}"),
        (fields(a={"items": fields(["b"], b=TEXT)}), "{a?: [{b}]}"),
        (
            fields(a={"type": "object"}, b={"additionalProperties": {"type": "number"}}),
            "{a?: object, b?: {name: number}}",
        ),
        (fields(["a"], a={"type": ["string", "null"]}, b={"type": ["string", "null"]}), "{a: text|null, b?}"),
        (fields(["a"], a={"anyOf": [TEXT, fields(["b"], b=TEXT)]}), "{a: text|{b}}"),
        (fields(a={"$ref": "#/$defs/x~1y"}) | {"$defs": {"x/y": {"type": "number"}}}, "{a?: number}"),
        (fields(a={"allOf": [{"$ref": "#/$defs/t"}]}) | {"$defs": {"t": TEXT}}, "{a?}"),
        ({"allOf": [fields(["a"], a=TEXT), fields(b=TEXT)]}, "{a, b?}"),
        ({"$ref": "#/$defs/o", "required": ["b"], "$defs": {"o": fields(["a"], a=TEXT, b=TEXT)}}, "{a, b}"),
        ({"oneOf": [fields(["a"], a=TEXT), fields(["b"], b=TEXT)]}, "{a}|{b}"),
        (fields(a=False, b=True), "{b?: any}"),
        (fields(a={"$ref": "https://example.org/x"}), "{a?: any}"),
        ({}, "any JSON object"),
        (True, "any JSON object"),
        (False, "nothing at all"),
    ],
)
def test_a_schema_is_told_in_one_line(schema: Any, line: str) -> None:
    assert outline(schema) == line


def test_several_schemas_are_put_together_field_by_field() -> None:
    assert outline(fields(["a"], a=TEXT, b=TEXT), fields(["b", "c"], c={"type": "number"})) == "{a, b, c: number}"
    assert outline(True, fields(["a"], a=TEXT)) == "{a}"


def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    tree = fields(["name"], name=TEXT, kids={"type": "array", "items": {"$ref": "#"}})
    assert outline(tree) == "{name, kids?: [{name, kids?: [{name, kids?: […]}]}]}"
    assert outline({"$ref": "#"}) == "any JSON object"
    wide = fields(**{f"f{number}": {"$ref": "#"} for number in range(50)})
    assert len(outline(wide)) < 5000

"""A JSON Schema in one line, such as `{of, score: 0..1, rubric?: {name: 0..1}}`, for errors and lists of types.

A name alone is text, `?` marks what may be left out, `|` stands between alternatives, `[x]` is a list of x. What the
line has no room for is `…`. The schema must be a valid one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

Schema = Mapping[str, Any] | bool
_KINDS = {"string": "text", "integer": "number", "boolean": "true|false", "object": "object", "array": "list"}
_DEPTH = 5
_PARTS = 60
_HOPS = 10
_MORE = "…"


def outline(*schemas: Schema) -> str:
    """What a value looks like that fits all of these schemas.

    Args:
        schemas: Each with the references within itself; an object's fields are put together from all of them.
    """
    if False in schemas:
        return "nothing at all"
    drawn = [Drawing(schema) for schema in schemas]
    fields: dict[str, tuple[bool, str]] = {}
    for drawing in drawn:
        _merge(fields, drawing.fields_of(drawing.root))
    if fields:
        return _braced(fields)
    return next((text for drawing in drawn if (text := drawing.of(drawing.root)) != "any"), "any JSON object")


class Drawing:
    """Draws the parts of one schema; stops after so many, since a schema that refers to itself has no end.

    Args:
        root: The whole schema, in which its references are looked up.
    """

    def __init__(self, root: Schema) -> None:
        self.root = root
        self._left = _PARTS

    def of(self, schema: object) -> str:
        """A part of the schema, or the whole of it."""
        return "|".join(self._choices(schema, 0))

    def fields_of(self, schema: object, depth: int = 0) -> dict[str, tuple[bool, str]]:
        """An object's fields: whether each is required, and its outline; empty if the schema names none."""
        schema = self._resolved(schema)
        if not isinstance(schema, Mapping):
            return {}
        found: dict[str, tuple[bool, str]] = {}
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        properties = schema.get("properties", {})
        for name, part in {**properties, **{name: True for name in names if name not in properties}}.items():
            if part is False:
                continue
            choices = self._choices(part, depth + 1)
            if name not in names:  # that an optional field may be null goes without saying
                choices = [choice for choice in choices if choice != "null"] or choices
            found[name] = name in names, "|".join(choices)
        for part in schema.get("allOf", ()):
            if depth < _DEPTH:
                _merge(found, self.fields_of(part, depth + 1))
        return found

    def _choices(self, schema: object, depth: int) -> list[str]:
        self._left -= 1
        if self._left < 0 or depth > _DEPTH:
            return [_MORE]
        schema = self._resolved(schema)
        if not isinstance(schema, Mapping):
            return ["any"]
        if "const" in schema:
            return [_value(schema["const"])]
        if "enum" in schema:
            return [_value(value) for value in schema["enum"]]
        fields = self.fields_of(schema, depth)
        if fields:
            return [_braced(fields)]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return list(dict.fromkeys(text for part in schema[key] for text in self._choices(part, depth + 1)))
        combined = (self._choices(part, depth + 1) for part in schema.get("allOf", ()))
        kinds = list(dict.fromkeys(self._kinds(schema, depth)))
        return kinds if kinds != ["any"] else next((choices for choices in combined if choices != ["any"]), kinds)

    def _kinds(self, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
        given = schema.get("type")
        kinds = given if isinstance(given, list) else [given or _implied(schema)]
        named = schema.get("additionalProperties")
        for kind in kinds:
            if kind == "array" and isinstance(schema.get("items"), Mapping):
                yield f"[{'|'.join(self._choices(schema['items'], depth + 1))}]"
            elif kind == "object" and isinstance(named, Mapping):
                yield f"{{name: {'|'.join(self._choices(named, depth + 1))}}}"
            elif kind == "number" and {"minimum", "maximum"} <= schema.keys():
                yield f"{schema['minimum']}..{schema['maximum']}"
            else:
                yield _KINDS.get(kind, kind) if isinstance(kind, str) else "any"

    def _resolved(self, schema: object) -> object:
        """What a reference leads to; itself if it is none."""
        from urllib.parse import unquote

        for _ in range(_HOPS):
            if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
                return schema
            found: Any = self.root
            for step in schema["$ref"].removeprefix("#").split("/")[1:]:
                key = unquote(step).replace("~1", "/").replace("~0", "~")
                found = found.get(key, True) if isinstance(found, Mapping) else True
            beside = {key: value for key, value in schema.items() if key in ("properties", "required", "allOf")}
            own_name = not schema["$ref"].startswith("#/") and schema["$ref"] != "#"
            schema = True if own_name else {"allOf": [found, beside]} if beside else found
        return True


def _merge(fields: dict[str, tuple[bool, str]], others: Mapping[str, tuple[bool, str]]) -> None:
    for name, (required, text) in others.items():
        before = fields.get(name, (False, "any"))
        fields[name] = required or before[0], before[1] if text == "any" else text


def _braced(fields: Mapping[str, tuple[bool, str]]) -> str:
    shown = [
        f"{name}{'' if required else '?'}{'' if text == 'text' else f': {text}'}"
        for name, (required, text) in fields.items()
    ]
    return "{" + ", ".join(shown) + "}"


def _implied(schema: Mapping[str, Any]) -> str:
    """The type that a schema without `type` speaks of."""
    signs = {"array": ("items",), "object": ("additionalProperties",), "number": ("minimum", "maximum")}
    return next((kind for kind, keys in signs.items() if not schema.keys().isdisjoint(keys)), "any")


def _value(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode("utf-8")

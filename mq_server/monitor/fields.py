"""A JSON Schema as the fields of a form. What a form cannot ask for is a field for JSON; the server checks either.

A field is `{"name", "kind", "required", "title"?, "hint"?, "default"?}` and what its kind adds:

    text     `long`: whether it runs over several lines
    number   `whole`; `least`, `most`: the bounds, where there are some
    choice   `choices`: the values, as JSON
    check    true or false
    rows     `row`: the field that every row is, a group for several columns
    named    `value`: the field of each value; the names are free
    group    `fields`
    json     anything
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Field = dict[str, Any]
_LONG = frozenset({"text", "notes", "description", "summary", "content", "body", "beats", "prompt"})
_DEEPEST = 4
_HOPS = 10
_SCALARS = {"string": "text", "integer": "number", "number": "number", "boolean": "check"}


def fields_of(schema: object) -> list[Field] | None:
    """The fields of a payload, in the schema's order; None if the schema names none.

    Args:
        schema: The schema of a message type, found to be one; or `allOf` of several, with the references within each.
    """
    found: dict[str, Field] = {}
    for part in _parts(schema):
        for field in _group(part, _Root(part), 0):
            known = found.get(field["name"])
            if known is None or known["kind"] == "json":
                found[field["name"]] = field | {"required": field["required"] or bool(known and known["required"])}
            else:
                known["required"] = known["required"] or field["required"]
    return list(found.values()) or None


class _Root:
    """Where the references of a schema lead."""

    def __init__(self, document: object) -> None:
        self._document = document

    def resolved(self, schema: object) -> Mapping[str, Any]:
        """A schema without a reference at its top; empty if it leads nowhere, or is no object."""
        for _ in range(_HOPS):
            if not isinstance(schema, Mapping):
                return {}
            reference = schema.get("$ref")
            if reference is None:
                return schema
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            target = self._at(reference)
            schema = {**target, **beside} if isinstance(target, Mapping) else None
        return {}

    def _at(self, reference: object) -> object:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        found: object = self._document
        for step in filter(None, reference[1:].split("/")):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found


def _parts(schema: object) -> Iterable[object]:
    if isinstance(schema, Mapping) and "properties" not in schema and isinstance(schema.get("allOf"), list):
        return list(schema["allOf"])
    return [schema]


def _group(schema: object, root: _Root, depth: int) -> list[Field]:
    resolved = root.resolved(schema)
    properties, required = resolved.get("properties"), resolved.get("required")
    if not isinstance(properties, Mapping):
        return []
    needed = required if isinstance(required, list) else []
    return [_field(str(name), part, root, depth, required=name in needed) for name, part in properties.items()]


def _field(name: str, schema: object, root: _Root, depth: int, *, required: bool) -> Field:
    outer = root.resolved(schema)
    inner = _without_null(outer, root)
    field: Field = {"name": name, "required": required} | _kind(name, inner, root, depth)
    said = {**inner, **outer}
    # Pydantic makes a title of every name; only one that says more is worth showing.
    title, hint, default = said.get("title"), said.get("description"), said.get("default")
    if isinstance(title, str) and title.casefold().replace(" ", "_") != name.casefold() and "properties" not in inner:
        field["title"] = title
    if isinstance(hint, str) and "properties" not in inner:
        field["hint"] = hint
    if isinstance(default, str | int | float | bool):
        field["default"] = default
    return field


def _without_null(schema: Mapping[str, Any], root: _Root) -> Mapping[str, Any]:
    """What a value is that may also be null: in a form it is left out instead."""
    for key in ("anyOf", "oneOf"):
        alternatives = schema.get(key)
        if isinstance(alternatives, list):
            left = [each for each in map(root.resolved, alternatives) if each.get("type") != "null"]
            return left[0] if len(left) == 1 else schema
    kinds = schema.get("type")
    if isinstance(kinds, list):
        left_kinds = [kind for kind in kinds if kind != "null"]
        return {**schema, "type": left_kinds[0]} if len(left_kinds) == 1 else schema
    return schema


def _kind(name: str, schema: Mapping[str, Any], root: _Root, depth: int) -> Field:
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, list) and all(isinstance(each, str | int | float | bool) for each in choices):
        return {"kind": "choice", "choices": choices}
    kind = schema.get("type")
    if "enum" in schema or "anyOf" in schema or "oneOf" in schema or not isinstance(kind, str) or depth >= _DEEPEST:
        return {"kind": "json"}
    if kind in _SCALARS:
        return {"kind": _SCALARS[kind]} | _bounds(name, kind, schema)
    if kind == "array" and "prefixItems" not in schema and isinstance(schema.get("items"), Mapping):
        row = _field(name, schema["items"], root, depth + 1, required=True)
        return {"kind": "json"} if row["kind"] in ("json", "rows", "named") else {"kind": "rows", "row": row}
    if kind == "object":
        fields, others = _group(schema, root, depth + 1), schema.get("additionalProperties")
        if fields:
            return {"kind": "group", "fields": fields}
        value = _field("", others, root, depth + 1, required=True) if isinstance(others, Mapping) else {"kind": "json"}
        if value["kind"] in ("text", "number", "choice", "check"):
            return {"kind": "named", "value": value}
    return {"kind": "json"}


def _bounds(name: str, kind: str, schema: Mapping[str, Any]) -> Field:
    if kind == "string":
        most = schema.get("maxLength")
        return {"long": name in _LONG or (isinstance(most, int) and most > 200)}
    if kind == "boolean":
        return {}
    bounds = {"least": schema.get("minimum"), "most": schema.get("maximum")}
    return {"whole": kind == "integer"} | {key: value for key, value in bounds.items() if value is not None}

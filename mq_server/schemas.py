"""A production's own message types: JSON Schemas in `schemas/<msg_type>.json`, and what they find wrong with a payload.

A schema is read when a message of its type is checked and read again when its file has changed, so a running server
takes an edited one at once. `jsonschema` is imported when there is a schema to check with. References within a file are
followed; nothing is ever fetched. A name that is not made of letters, digits, `_`, `-` and `.` has no schema.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mq_server.errors import Problem, SchemaError, did_you_mean
from mq_server.listing import Listing
from mq_server.outline import Drawing

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator
    from referencing import Resource

FOLDER = "schemas"
_SUFFIX = ".json"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?")
_NAME_RULE = "use 1 to 64 letters, digits, _, - and ., as the msg_type is written"
_SHOWN_CHARACTERS = 200
_NO_DRAFT: Any = None
KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a JSON object",
    "array": "a list",
}
"""What the types of JSON are called in a sentence."""
_SENTENCES = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} fields",
    "maxProperties": "must have at most {} fields",
    "pattern": "must match the pattern {}",
    "const": "must be {}",
}


class Schema:
    """The schema of one message type.

    Args:
        path: Its file, as a Problem names it.
        document: The schema, found to be one.
        validator: Checks by it.
    """

    def __init__(self, path: str, document: dict[str, Any] | bool, validator: Validator) -> None:
        self.path = path
        self.document = document
        self._validator = validator

    def faults(self, payload: Mapping[str, Any]) -> list[str]:
        """Every wrong field of a payload by its place, and what was expected.

        Raises:
            SchemaError: The schema turns out not to work.
        """
        try:
            return _sentences(self._validator.iter_errors(payload), "payload", self.document)
        except RecursionError:
            text = "refers to itself without end, or is too deep for this payload"
            raise SchemaError([Problem(self.path, 0, text)]) from None
        except re.error as error:  # older drafts don't check the patterns of patternProperties
            raise SchemaError([Problem(self.path, 0, f"{error.pattern!r} is no pattern: {error}")]) from None


class Schemas:
    """The schemas of a production.

    Args:
        root: The production's folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._prefix = f"{self._folder}{os.sep}"
        self._listing = Listing(self._folder)
        self._read: dict[str, tuple[tuple[int, int, int], Schema | list[Problem]]] = {}

    def get(self, msg_type: str) -> Schema | None:
        """The schema of a type as its file stands now; None if it has none.

        Raises:
            SchemaError: The file is no JSON Schema.
        """
        found = self._load(msg_type)
        if found is None or not _NAME.fullmatch(msg_type):
            return None
        if isinstance(found, list):
            raise SchemaError(found)
        return found

    def names(self) -> list[str]:
        """The types that have a schema, usable or not."""
        return [path.stem for path in self._files() if _NAME.fullmatch(path.stem)]

    def problems(self) -> list[Problem]:
        """What is wrong with the files in the folder."""
        found: list[Problem] = []
        for path in self._files():
            if not _NAME.fullmatch(path.stem):
                text = f"{path.stem!r} cannot be a type with a schema: {_NAME_RULE}; the file is not read"
                found.append(Problem(f"{FOLDER}/{path.name}", 0, text))
                continue
            loaded = self._load(path.stem)
            found += loaded if isinstance(loaded, list) else []
        return found

    def _files(self) -> list[Path]:
        try:
            entries = list(self._folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path for path in entries if path.suffix == _SUFFIX and not path.name.startswith("."))

    def _load(self, msg_type: str) -> Schema | list[Problem] | None:
        name = f"{msg_type}{_SUFFIX}"
        try:
            # Asked for by its name, a file system that ignores case would give another type's file.
            if name not in self._listing.names():
                return None
            status = os.stat(f"{self._prefix}{name}")  # noqa: PTH116 - every post comes here
            fingerprint = status.st_mtime_ns, status.st_size, status.st_ino
            known = self._read.get(msg_type)
            if known and known[0] == fingerprint:
                return known[1]
            loaded = parsed(f"{FOLDER}/{name}", (self._folder / name).read_bytes())
        except FileNotFoundError:  # gone since it was listed
            return None
        except OSError as error:
            return [Problem(f"{FOLDER}/{name}", 0, f"cannot be read: {error.strerror or error}")]
        self._read[msg_type] = fingerprint, loaded
        return loaded


def parsed(path: str, data: bytes) -> Schema | list[Problem]:
    """The schema that a file holds, or what is wrong with it.

    Args:
        path: What Problems call it.
        data: Its bytes.
    """
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        return [Problem(path, error.lineno, f"not valid JSON: {error.msg} (column {error.colno})")]
    if not isinstance(document, dict | bool):
        return [Problem(path, 0, f"a JSON Schema is an object, true or false, not {kind_of(document)}")]

    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing.jsonschema import EMPTY_REGISTRY, specification_with

    chosen: type[Validator] | None = Draft202012Validator
    if isinstance(document, dict) and "$schema" in document:
        draft = document["$schema"]
        chosen = validator_for(document, default=_NO_DRAFT) if isinstance(draft, str) else None
        if chosen is None:
            return [Problem(path, 0, f"$schema {draft!r} is no draft known here; leave it out for the newest")]
    assert chosen is not None
    meta = chosen(chosen.META_SCHEMA, format_checker=chosen.FORMAT_CHECKER)
    try:
        faults = _sentences(meta.iter_errors(document), "", chosen.META_SCHEMA)
        if not faults:
            resource = specification_with(str(chosen.META_SCHEMA["$schema"])).create_resource(document)
            faults = [*dict.fromkeys(_lost_references(resource, EMPTY_REGISTRY.resolver_with_root(resource)))]
    except RecursionError:
        faults = ["nested too deep"]
    if faults:
        return [Problem(path, 0, fault) for fault in faults]
    return Schema(path, document, chosen(document, registry=EMPTY_REGISTRY))


def _lost_references(schema: Resource[Any], resolver: Any) -> Iterator[str]:
    from referencing.exceptions import Unresolvable

    if isinstance(schema.contents, dict):
        for key in ("$ref", "$dynamicRef"):
            reference = schema.contents.get(key)
            if isinstance(reference, str):
                try:
                    resolver.lookup(reference)
                except Unresolvable:
                    where = "nowhere" if reference.startswith("#") else "out of the file, and nothing is fetched"
                    yield f"{key} {reference!r} leads {where}"
    for part in schema.subresources():
        yield from _lost_references(part, resolver.in_subresource(part))


# --- what is wrong, in words ------------------------------------------------------------------------------------------


def place(root: str, path: Iterable[int | str]) -> str:
    """Where something stands in a document: `payload.lines[0].who`."""
    return "".join([root, *(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)]).removeprefix(".")


def kind_of(value: object) -> str:
    """What kind of value it is, in a word or two."""
    names = {str: "text", list: "a list", tuple: "a list", type(None): "null", bool: "true or false"}
    if isinstance(value, Mapping):
        return "a JSON object"
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _sentences(errors: Iterable[ValidationError], root: str, document: Any) -> list[str]:
    found = (sentence for error in errors for sentence in _of_error(error, root, document))
    return list(dict.fromkeys(found))


def _of_error(error: ValidationError, root: str, document: Any) -> Iterator[str]:
    keyword, wanted, value, schema = _parts(error)
    path = list(error.absolute_path)
    where = place(root, path) or "the schema"
    if "propertyNames" in error.absolute_schema_path:
        where = f"{where}: the name {value!r}"
    if keyword == "required" and isinstance(wanted, list):
        for name in wanted:
            if name not in value:
                yield f"{place(root, [*path, name])}: field required"
        return
    if keyword == "additionalProperties" and wanted is False:
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name in value:
            if name not in known and not any(re.search(pattern, name) for pattern in patterns):
                yield f"{place(root, [*path, name])}: there is no such field.{did_you_mean(name, known)}".rstrip(".")
        return
    if keyword == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        text = f"must be {' or '.join(KINDS.get(str(kind), str(kind)) for kind in kinds)}, not {kind_of(value)}"
    elif keyword == "enum":
        text = f"must be one of {', '.join(map(_shown, wanted))}, not {_shown(value)}"
    elif keyword in ("anyOf", "oneOf") and error.context:
        text = f"must be {Drawing(document).of({keyword: wanted})}"
        if "any" in text:  # what an alternative says is not to be drawn, or in another document
            parts = [part for inner in error.context for part in _of_error(inner, "", document)]
            text = " or ".join(dict.fromkeys(part.partition(": ")[2] for part in parts))
    elif keyword == "oneOf":
        text = f"must be only one of {Drawing(document).of({keyword: wanted})}"
    elif keyword in _SENTENCES and not isinstance(wanted, bool):
        text = _SENTENCES[keyword].format(_shown(wanted))
    elif keyword == "format":
        text = f"{_shown(value)} is no {wanted}"
    elif schema is False:
        text = f"{_shown(value)} is not allowed"  # the field goes unnamed: the library does not say which
    else:
        text = _cut(error.message.removeprefix(repr(value)).strip())
    yield f"{where}: {text}"


def _parts(error: ValidationError) -> tuple[str, Any, Any, Any]:
    return str(error.validator), error.validator_value, error.instance, error.schema


def _shown(value: object) -> str:
    return _cut(orjson.dumps(value).decode("utf-8"))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"

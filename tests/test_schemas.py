"""A production's own schemas: how their files are read, and what they find wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mq_server.errors import InvalidRequest, SchemaError
from mq_server.mailroom import Mailroom
from mq_server.schemas import Schemas
from tests.support import output, run, write


def put(root: Path, msg_type: str, document: object) -> Path:
    return write(root / "schemas" / f"{msg_type}.json", json.dumps(document).encode())


def faults(root: Path, document: object, payload: dict[str, Any]) -> list[str]:
    put(root, "x", document)
    schema = Schemas(root).get("x")
    assert schema is not None
    return schema.faults(payload)


def refusal(root: Path, content: bytes | object) -> str:
    """What a post is told when its schema is this."""
    write(root / "schemas" / "x.json", content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(SchemaError) as caught:
        Schemas(root).get("x")
    assert [str(problem) for problem in Schemas(root).problems()]
    return str(caught.value)


# --- what is wrong with a payload ------------------------------------------------------------------------------------


def test_every_wrong_field_is_named_by_its_place_with_what_was_expected(tmp_path: Path) -> None:
    person = {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who", "age"]}
    document = {
        "type": "object",
        "properties": {"people": {"type": "array", "items": {"$ref": "#/$defs/person"}}, "wind": {"maximum": 12}},
        "required": ["title"],
        "$defs": {"person": person},
    }
    payload = {"people": [{"who": 3, "age": 1}, "x", {"who": "a"}], "wind": 13}
    assert faults(tmp_path, document, payload) == [
        "payload.people[0].who: must be text, not a number",
        "payload.people[1]: must be a JSON object, not text",
        "payload.people[2].age: field required",
        "payload.wind: must be at most 12",
        "payload.title: field required",
    ]


@pytest.mark.parametrize(
    ("rule", "value", "words"),
    [
        ({"enum": ["clear", "grey"]}, "blue", 'must be one of "clear", "grey", not "blue"'),
        ({"const": 1}, 2, "must be 1"),
        ({"type": ["integer", "null"]}, 1.5, "must be a whole number or null, not a number"),
        ({"exclusiveMinimum": 0}, 0, "must be more than 0"),
        ({"minLength": 2}, "x", "must have at least 2 characters"),
        ({"pattern": "^a"}, "b", 'must match the pattern "^a"'),
        ({"minItems": 1}, [], "must have at least 1 items"),
        ({"uniqueItems": True}, [1, 1], "has non-unique elements"),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, [], "must be text|number"),
        ({"oneOf": [{"type": "number"}, {"minimum": 0}]}, 3, "must be only one of number"),
        ({"oneOf": [{"not": {}}, {"type": "string", "pattern": "a"}]}, 3, " or must be text, not a number"),
        ({"propertyNames": {"maxLength": 2}}, {"long": 1}, ": the name 'long': must have at most 2 characters"),
        ({"not": {"type": "string"}}, "a" * 1000, "should not be valid under"),
    ],
)
def test_what_was_expected_is_said_in_plain_words(tmp_path: Path, rule: object, value: object, words: str) -> None:
    (fault,) = faults(tmp_path, {"properties": {"a": rule}}, {"a": value})
    assert fault.startswith("payload.a: ")
    assert words in fault
    assert len(fault) < 300


def test_a_value_that_is_never_allowed_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path, {"properties": {"a": False}}, {"a": 3}) == ["payload: 3 is not allowed"]


def test_a_field_that_does_not_exist_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    document = {"properties": {"colour": {}}, "patternProperties": {"^x-": {}}, "additionalProperties": False}
    assert faults(tmp_path, document, {"color": 1, "x-y": 1, "zzz": 1}) == [
        "payload.color: there is no such field. Did you mean 'colour'?",
        "payload.zzz: there is no such field",
    ]


def test_another_draft_is_heeded(tmp_path: Path) -> None:
    tuples = {"properties": {"a": {"items": [{"type": "string"}]}}}
    old = {"$schema": "http://json-schema.org/draft-07/schema#"} | tuples
    assert faults(tmp_path, old, {"a": [1]}) == ["payload.a[0]: must be text, not a number"]
    assert "properties.a.items: must be a JSON object" in refusal(tmp_path, tuples)


def test_a_schema_that_refers_to_itself_follows_a_payload_down(tmp_path: Path) -> None:
    tree = {"$id": "tree", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    assert faults(tmp_path, tree, {"kids": [{"kids": [{"kids": 3}]}]}) == [
        "payload.kids[0].kids[0].kids: must be a list, not a number"
    ]
    put(tmp_path, "loop", {"$ref": "#"})
    loop = Schemas(tmp_path).get("loop")
    assert loop is not None
    with pytest.raises(SchemaError, match=r"schemas/loop\.json: refers to itself without end"):
        loop.faults({})


# --- files that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{\n"type": \n}', "schemas/x.json:3: not valid JSON"),
        (b'{"title": "\xff"}', "schemas/x.json:1: not valid JSON"),
        (b"", "schemas/x.json:1: not valid JSON"),
        ([], "schemas/x.json: a JSON Schema is an object, true or false, not a list"),
        (
            {"properties": {"a": 5}},
            "schemas/x.json: properties.a: must be a JSON object or true or false, not a number",
        ),
        ({"properties": {"a": {"type": "strin"}}}, 'properties.a.type: must be one of "array"'),
        ({"properties": {"a": {"pattern": "("}}}, 'properties.a.pattern: "(" is no regex'),
        ({"required": "a"}, "schemas/x.json: required: must be a list, not text"),
        ({"$schema": "http://example.org/mine"}, "$schema 'http://example.org/mine' is no draft known here"),
        ({"$schema": 7}, "$schema 7 is no draft known here"),
        ({"items": {"$ref": "#/$defs/gone"}}, "schemas/x.json: $ref '#/$defs/gone' leads nowhere"),
        ({"items": {"$ref": "http://127.0.0.1:9/a.json"}}, "leads out of the file, and nothing is fetched"),
        ({"items": {"$ref": "other.json"}}, "$ref 'other.json' leads out of the file"),
    ],
)
def test_a_file_that_is_no_schema_is_told_with_its_place(tmp_path: Path, content: object, words: str) -> None:
    text = refusal(tmp_path, content)
    assert words in text
    assert text.endswith("remove it to leave the type unchecked")


def test_every_fault_of_a_schema_is_told(tmp_path: Path) -> None:
    text = refusal(tmp_path, {"required": "a", "properties": {"b": 7}})
    assert "required: " in text
    assert "properties.b: " in text


def test_a_property_that_is_called_like_a_reference_is_none(tmp_path: Path) -> None:
    document = {"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "x"}]}
    assert faults(tmp_path, document, {"$ref": "x"}) == []


def test_a_schema_nested_without_measure_is_refused_not_followed(tmp_path: Path) -> None:
    deep = b'{"not":' * 900 + b"{}" + b"}" * 900
    assert "nested too deep" in refusal(tmp_path, deep)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a file that may not be read")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    put(tmp_path, "x", {}).chmod(0)
    with pytest.raises(SchemaError, match=r"schemas/x\.json: cannot be read: Permission denied"):
        Schemas(tmp_path).get("x")


def test_a_folder_in_the_place_of_a_schema_is_told_and_forgotten_when_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "schemas" / "x.json"
    folder.mkdir(parents=True)
    schemas = Schemas(tmp_path)
    with pytest.raises(SchemaError, match=r"schemas/x\.json: cannot be read"):
        schemas.get("x")
    folder.rmdir()
    assert schemas.get("x") is None


# --- which files count -----------------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    write(tmp_path / "schemas" / "x.json", b'\xef\xbb\xbf{"required": ["a"]}')
    schema = Schemas(tmp_path).get("x")
    assert schema is not None
    assert schema.faults({}) == ["payload.a: field required"]


def test_a_type_has_the_schema_of_its_exact_name(tmp_path: Path) -> None:
    put(tmp_path, "Scene.plan-2", {})
    put(tmp_path, "x", {})
    schemas = Schemas(tmp_path)
    assert schemas.names() == ["Scene.plan-2", "x"]
    assert schemas.get("Scene.plan-2") is not None
    write(tmp_path / "y.json", b"{}")
    for name in ("scene.plan-2", "X", "", "../y", "schemas/x", "x\0", "x" * 300, "nul", "."):
        assert schemas.get(name) is None


def test_a_file_whose_name_no_type_can_have_is_a_problem_and_others_are_none(tmp_path: Path) -> None:
    put(tmp_path, "two words", {})
    for name in ("README.md", ".hidden.json", "x.json~"):
        write(tmp_path / "schemas" / name, b"no schema")
    (tmp_path / "schemas" / "parts").mkdir()
    (problem,) = Schemas(tmp_path).problems()
    assert str(problem).startswith("schemas/two words.json: 'two words' cannot be a type with a schema")
    assert Schemas(tmp_path).names() == []


def test_without_a_folder_there_are_no_schemas(tmp_path: Path) -> None:
    schemas = Schemas(tmp_path / "nowhere")
    assert (schemas.get("x"), schemas.names(), schemas.problems()) == (None, [], [])


# --- posts -----------------------------------------------------------------------------------------------------------


def test_a_running_mailroom_takes_a_new_an_edited_and_a_removed_schema_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with Mailroom(tmp_path) as room:

            async def post(**payload: Any) -> None:
                await room.post("narrator", sender="a", msg_type="x", payload=payload)

            await post()
            path = put(tmp_path, "x", {"required": ["a"]})
            with pytest.raises(InvalidRequest, match=r"payload\.a: field required; a 'x' payload is \{a: any\}"):
                await post(b=1)
            edited = path.with_name("edited")
            edited.write_text('{"required": ["b"]}')
            os.utime(edited, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # of the same size and time
            edited.replace(path)
            with pytest.raises(InvalidRequest, match=r"payload\.b: field required"):
                await post(a=1)
            path.write_text("{")
            with pytest.raises(SchemaError, match=r"schemas/x\.json:1: not valid JSON"):
                await post(b=1)
            path.unlink()
            await post()
            assert (await room.history("narrator")).messages[-1].payload == {}
            assert len((await room.history("narrator")).messages) == 2

    run(work())


def test_a_type_with_a_model_too_must_fit_both(tmp_path: Path) -> None:
    put(tmp_path, "note", {"properties": {"mood": {"type": "string"}}, "required": ["text", "mood"]})

    async def work() -> None:
        async with Mailroom(tmp_path) as room:
            with pytest.raises(InvalidRequest) as caught:
                await room.post("narrator", sender="a", msg_type="note", payload={})
            assert caught.value.faults == (
                "payload.text: field required",
                "payload.mood: field required",
                "a 'note' payload is {text, mood}",
            )
            await room.post("narrator", sender="a", msg_type="note", payload={"text": "x", "mood": "grey"})

    run(work())


def test_a_post_without_a_schema_to_check_it_imports_no_validator(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from mq_server.mailroom import Mailroom
async def main():
    async with Mailroom(sys.argv[1]) as room:
        for msg_type in ("note", "x"):
            await room.post("narrator", sender="a", msg_type=msg_type, payload={"text": "x"})
            print("jsonschema" in sys.modules)
asyncio.run(main())
"""
    put(tmp_path, "x", {})
    assert output(script, tmp_path).split() == ["False", "True"]

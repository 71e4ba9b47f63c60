"""The typed payloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mq_server import payloads, vetting
from mq_server.errors import InvalidRequest
from mq_server.payloads import MODELS, Narration, Note, Payload, Score, fields_of
from mq_server.schemas import Schemas
from mq_server.vetting import checked_payload
from tests.support import output, write

GOOD: dict[str, dict[str, Any]] = {
    "brief": {"text": "A quest."},
    "scene_plan": {"beats": ["one", "two"]},
    "scene_breakdown": {"beats": ["one"], "characters": ["Vreni"]},
    "character_direction": {"directions": [{"who": "Vreni", "text": "hides it"}]},
    "narration": {"text": "Nebel."},
    "dialogue": {"lines": [{"who": "Vreni", "text": "Ja.", "parenthetical": "leise"}]},
    "scene": {"version": 1, "blocks": [{"kind": "action", "text": "Rain."}]},
    "shot_list": {"shots": [{"shot": "wide", "text": "the harbour"}]},
    "score": {"of": "x", "score": 1, "rubric": {"voice": 0.5}},
    "finalize": {"of": "x"},
    "note": {"text": "x"},
    "feedback": {"text": "x"},
    "query": {"text": "x"},
    "answer": {"text": "x"},
}


def faults(msg_type: str | None, payload: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        checked_payload(msg_type, payload)
    return str(caught.value)


def test_there_is_a_model_for_every_type_of_a_production() -> None:
    assert set(GOOD) == set(MODELS)


@pytest.mark.parametrize("msg_type", sorted(GOOD))
def test_a_good_payload_is_stored_as_it_was_given_with_what_else_it_says(msg_type: str) -> None:
    payload = GOOD[msg_type] | {"mood": {"grey": [1, None]}}
    assert checked_payload(msg_type, payload) == (msg_type, payload)


@pytest.mark.parametrize("msg_type", sorted(GOOD))
def test_a_payload_that_misses_a_field_is_told_the_fields_of_its_type(msg_type: str) -> None:
    text = faults(msg_type, {})
    assert "field required" in text
    assert f"a {msg_type!r} payload is {fields_of(msg_type)}" in text


@pytest.mark.parametrize(
    ("msg_type", "payload", "words"),
    [
        ("dialogue", {"lines": []}, "payload.lines: list should have at least 1 item"),
        ("dialogue", {"lines": [{"who": "a"}]}, "payload.lines[0].text: field required"),
        ("dialogue", {"lines": ["a"]}, "payload.lines[0]: "),
        ("scene", {"version": 0, "blocks": [{"kind": "action", "text": "x"}]}, "payload.version: "),
        ("scene", {"version": 1, "blocks": [{"kind": "song", "text": "x"}]}, "payload.blocks[0].kind: "),
        ("score", {"of": "x", "score": 1.5}, "payload.score: input should be less than or equal to 1"),
        ("score", {"of": "x", "score": 0.5, "rubric": {"voice": 2}}, "payload.rubric.voice: "),
        ("score", {"of": "", "score": 0.5}, "payload.of: "),
    ],
)
def test_a_wrong_field_is_named_by_its_place(msg_type: str, payload: dict[str, Any], words: str) -> None:
    assert words in faults(msg_type, payload)


def test_the_fields_of_a_type_are_told_in_one_line() -> None:
    assert fields_of("note") == "{text}"
    assert fields_of("score") == "{of, score: 0..1, rubric?: {name: 0..1}, notes?}"
    assert fields_of("dialogue") == "{lines: [{who, text, parenthetical?}]}"
    assert fields_of("scene") == "{version: number, blocks: [{kind: action|line|parenthetical, text, who?}], title?}"
    assert fields_of("weather") == ""


def test_a_model_brings_its_type_and_leaves_out_what_was_not_set() -> None:
    assert checked_payload(None, Score(of="x", score=0.5)) == ("score", {"of": "x", "score": 0.5})
    assert checked_payload("note", Note(text="x", extra=1)) == ("note", {"text": "x", "extra": 1})
    assert "msg_type is 'note', but the payload is a 'narration'" in faults("note", Narration(text="x"))


def test_a_number_that_json_cannot_carry_is_refused_in_a_model_too() -> None:
    assert "payload.weight is nan" in faults(None, Note(text="x", weight=float("nan")))


def test_a_model_of_ones_own_is_registered_by_its_type(own_models: None) -> None:
    class Weather(Payload):
        msg_type = "weather"
        wind: int

    assert checked_payload(None, Weather(wind=3)) == ("weather", {"wind": 3})
    assert checked_payload("weather", {"wind": 3}) == ("weather", {"wind": 3})
    assert "payload.wind: field required; a 'weather' payload is {wind: number}" in faults("weather", {})


def test_a_model_that_only_python_can_say_still_names_its_fields(own_models: None) -> None:
    class Odd(Payload):
        msg_type = "odd"
        rule: Callable[[], None]
        text: str = ""

    assert fields_of("odd") == "{rule: any, text?: any}"


def test_strict_types_are_those_with_a_model_or_a_schema_and_dead_letters(tmp_path: Path) -> None:
    write(tmp_path / "schemas" / "weather.json", json.dumps({"required": ["wind"]}).encode())
    schemas = Schemas(tmp_path)
    for msg_type, payload in (("note", {"text": "x"}), ("weather", {"wind": 1}), ("dead_letter", {"any": 1})):
        assert checked_payload(msg_type, payload, schemas, strict=True) == (msg_type, payload)
    assert checked_payload("wether", {}, schemas) == ("wether", {})
    with pytest.raises(InvalidRequest) as caught:
        checked_payload("wether", {}, schemas, strict=True)
    text = str(caught.value)
    assert text.startswith("msg_type 'wether' is unknown, and mq.toml says strict_types. Did you mean 'weather'?")
    assert text.endswith("query, answer, weather; or add schemas/wether.json")


VETTING = """
import json, sys
from mq_server.errors import InvalidRequest
from mq_server.vetting import checked_payload
for given in json.loads(sys.argv[1]):
    try:
        print(json.dumps(checked_payload(*given)[1]))
    except InvalidRequest as error:
        print(error)
    print("mq_server.payloads" in sys.modules, "pydantic" in sys.modules)
"""


@pytest.mark.parametrize(
    ("msg_type", "payload", "asked"),
    [
        ("note", {"text": "x"}, False),
        ("weather", {"wind": 3, "text": ""}, False),
        ("note", {"text": ""}, True),
        ("note", {"text": "x", "mood": "grey"}, True),
        ("note", {"text": 3}, True),
        ("finalize", {"text": "x"}, True),
        ("finalize", {"of": "x"}, True),
    ],
)
def test_a_new_process_asks_the_models_only_if_one_may_have_something_to_say(
    msg_type: str, payload: dict[str, Any], asked: bool
) -> None:
    said, imported = output(VETTING, json.dumps([[msg_type, payload]])).splitlines()
    assert imported.split() == [str(asked)] * 2
    try:
        expected = json.dumps(checked_payload(msg_type, payload)[1])
    except InvalidRequest as error:
        expected = str(error)
    assert said == expected


def test_what_is_known_of_the_models_without_them_is_true() -> None:
    assert set(GOOD) == vetting.MODEL_TYPES
    for name in vetting.TEXT_TYPES:
        assert payloads.payload_faults(name, {"text": "x"}) == []
    other = vetting.MODEL_TYPES - vetting.TEXT_TYPES
    assert all(payloads.payload_faults(name, {"text": "x"}) for name in other)

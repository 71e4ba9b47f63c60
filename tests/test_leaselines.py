"""Lines of a lease log: what is an event and what is passed over."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from mq_server.leaselines import event_of
from mq_server.names import id_number
from tests.support import known_id

CLAIM = {
    "op": "claim",
    "reader": "narrator",
    "ids": [known_id(0), known_id(1)],
    "consumer": "one",
    "time_us": 1_790_000_000_000_000,
    "token": "0a1b2c3d",
    "boot": "a boot",
    "until_s": 1000.5,
    "span_s": 60.0,
}


def line(**keys: Any) -> bytes:
    return orjson.dumps(CLAIM | keys)


def test_an_event_is_given_with_its_ids_as_numbers() -> None:
    assert event_of(line()) == ([id_number(known_id(0)), id_number(known_id(1))], CLAIM)


def test_a_number_of_seconds_may_be_whole_and_unknown_keys_stay() -> None:
    found = event_of(line(until_s=1000, span_s=60, later="version"))
    assert found is not None and found[1]["later"] == "version"


@pytest.mark.parametrize("key", CLAIM)
def test_an_event_needs_all_its_keys(key: str) -> None:
    assert event_of(orjson.dumps({name: value for name, value in CLAIM.items() if name != key})) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"op": "kept"},
        {"op": []},
        {"op": None},
        {"reader": 1},
        {"ids": known_id(0)},
        {"ids": {known_id(0): 1}},
        {"ids": [known_id(0), None]},
        {"ids": [known_id(0), known_id(0).lower()]},
        {"ids": [known_id(0)[:-1]]},
        {"time_us": -1},
        {"time_us": 1 << 57},
        {"time_us": 1.5},
        {"time_us": True},
        {"until_s": "1"},
        {"span_s": True},
    ],
)
def test_what_has_a_wrong_value_is_no_event(keys: dict[str, Any]) -> None:
    assert event_of(line(**keys)) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b'"claim"', b"\xff", line()[:-1]])
def test_what_is_no_object_is_no_event(text: bytes) -> None:
    assert event_of(text) is None

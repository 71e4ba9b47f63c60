"""The line and its codec: bytes, ids, times, names, references."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mq_server import message as message_module
from mq_server.errors import InvalidName, InvalidRequest
from mq_server.message import (
    MAX_DEPTH,
    STORED_KEYS,
    Draft,
    Message,
    Unreadable,
    encode_line,
    fault_in,
    fault_of,
    parse_fields,
    parse_line,
    plain_payload,
)
from mq_server.names import (
    Reference,
    check_name,
    format_time,
    id_number,
    id_text,
    is_id,
    mint_id,
    parse_reference,
    parse_time,
)

ID = "01KB3Q5R6S7T8V9W0X1Y2Z3A4B"
OTHER_ID = "01KA3Q5R6S7T8V9W0X1Y2Z3A4B"
TIME = "2026-11-22T13:12:52.123456Z"
USUAL: dict[str, Any] = {
    "id": ID,
    "timestamp": TIME,
    "channel": "narrator",
    "sender": "scene_director",
    "msg_type": "note",
    "payload": {"text": "x"},
}


def message(**changes: Any) -> Message:
    return Message(**(USUAL | changes))


# --- the line --------------------------------------------------------------------------------------------------------


def test_the_line_is_these_bytes() -> None:
    expected = (
        '{"id":"01KB3Q5R6S7T8V9W0X1Y2Z3A4B","timestamp":"2026-11-22T13:12:52.123456Z","channel":"narrator",'
        '"sender":"scene_director","msg_type":"scene_breakdown","scene":"q2-s3","reply_to":"01KA3Q5R6S7T8V9W0X1Y2Z3A4B",'
        '"payload":{"text":"Zwölf Möwen über dem „Kai“ 🜂","beats":["a",1,0.5,true,null]}}\n'
    )
    payload = {"text": "Zwölf Möwen über dem „Kai“ 🜂", "beats": ["a", 1, 0.5, True, None]}
    written = message(msg_type="scene_breakdown", scene="q2-s3", reply_to=OTHER_ID, payload=payload)
    assert encode_line(written.stored()) == expected.encode()


def test_keys_stand_in_their_order_with_unknown_ones_before_the_payload() -> None:
    written = message(
        scene="s1",
        reply_to=OTHER_ID,
        to=("narrator", "dialogist"),
        urgent=True,
        expires_at=TIME,
        dedup_key="k",
        replaces=OTHER_ID,
        drafts=("a",),
        extra={"mood": "grey", "aaa": 1},
    )
    assert tuple(written.stored()) == (*STORED_KEYS, "mood", "aaa", "payload")


def test_unset_keys_are_left_out() -> None:
    assert tuple(message().stored()) == ("id", "timestamp", "channel", "sender", "msg_type", "payload")


def test_an_unknown_key_survives_reading_and_writing_and_is_shown() -> None:
    line = encode_line(USUAL | {"mood": {"grey": [1, 2]}})
    read = parse_line(line[:-1], "narrator", 7)
    assert read.extra == {"mood": {"grey": [1, 2]}}
    assert read.as_json()["mood"] == {"grey": [1, 2]}
    assert parse_line(encode_line(read.stored())[:-1], "narrator", 7) == read


def test_an_answer_shows_the_ref_after_the_id_and_the_payload_last() -> None:
    shown = parse_line(encode_line(USUAL | {"mood": 1})[:-1], "narrator", 42, amended=True).as_json()
    assert list(shown) == ["id", "ref", "timestamp", "channel", "sender", "msg_type", "mood", "amended", "payload"]
    assert shown["ref"] == "narrator:42~3A4B"
    assert shown["amended"] is True


def test_the_file_outranks_the_channel_in_the_line() -> None:
    assert parse_line(encode_line(USUAL)[:-1], "dialogist", 1).channel == "dialogist"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=4))
def test_any_payload_is_one_line_and_comes_back_as_it_was(payload: dict[str, Any]) -> None:
    line = encode_line(message(payload=plain_payload(payload)).stored())
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert parse_line(line[:-1], "narrator", 1).payload == payload


@given(st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x80)))
def test_characters_are_never_escaped(text: str) -> None:
    assert text.encode() in encode_line({"text": text})


# --- what JSON cannot carry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"a": {"b": [1.0, math.nan]}}, r"payload\.a\.b\[1\] is nan, which JSON cannot carry"),
        ({"a": math.inf}, "payload.a is inf"),
        ({"a": (-math.inf,), "b": None}, r"payload\.a\[0\] is -inf"),
        ({"a": "half \ud800 a pair"}, "surrogates"),
        ({"half \ud800": 1}, "surrogates"),
        ({"a": 2**64}, "64-bit"),
        ({"a": -(2**63) - 1}, "64-bit"),
        ({1: "a"}, "must be str"),
        ({"a": {1, 2}}, "not JSON serializable: set"),
        ({"a": object()}, "not JSON serializable"),
    ],
)
def test_a_payload_that_json_cannot_carry_is_refused(payload: dict[Any, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        plain_payload(payload)


def test_a_null_beside_real_numbers_is_no_nan() -> None:
    assert plain_payload({"a": None, "b": 0.5}) == {"a": None, "b": 0.5}


def test_tuples_become_lists() -> None:
    assert plain_payload({"a": (1, (2,))}) == {"a": [1, [2]]}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_a_payload_may_be_nested_deeply_but_not_endlessly() -> None:
    deep = nested(MAX_DEPTH - 1)
    line = encode_line(message(payload=plain_payload(deep)).stored())
    assert parse_line(line[:-1], "narrator", 1).payload == deep
    with pytest.raises(InvalidRequest, match="nested more than 99 levels deep"):
        plain_payload(nested(MAX_DEPTH))
    circle: dict[str, Any] = {}
    circle["a"] = circle["b"] = circle
    with pytest.raises(InvalidRequest, match="cannot be stored as JSON"):
        plain_payload(circle)


@pytest.mark.parametrize("levels", [MAX_DEPTH, 300])
def test_a_stored_line_nested_too_deep_is_unreadable_and_not_a_crash_later(levels: int) -> None:
    line = orjson.dumps(USUAL)[:-1] + b',"more":' + b"[" * levels + b"]" * levels + b"}"
    with pytest.raises(Unreadable, match="nested more than 100 levels"):
        parse_fields(line)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert plain_payload({"a": [[]] * 500}) == {"a": [[]] * 500}


# --- ids and times ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**48 * 1000 - 1))
def test_the_milliseconds_of_an_id_are_those_of_its_timestamp(time_us: int) -> None:
    minted = mint_id(time_us)
    assert is_id(minted)
    assert id_number(minted) >> 80 == time_us // 1000


def test_ids_of_one_moment_differ_whatever_anybody_seeds() -> None:
    ids = []
    for _ in range(1000):
        random.seed(1)
        ids.append(mint_id(1_795_391_748_303_148))
    random.seed()
    assert len(set(ids)) == 1000 and all(map(is_id, ids))
    assert {letter for minted in ids for letter in minted[10:]} == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nobody forks here")
def test_a_forked_process_mints_other_ids_than_its_parent() -> None:
    script = """
import os
from mq_server.names import mint_id

reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, mint_id(0).encode())
    os._exit(0)
print(mint_id(0), os.read(reading, 100).decode())
os.wait()
"""
    ids = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.split()
    assert len(ids) == 2 and ids[0] != ids[1]


@given(st.integers(0, 2**128 - 1))
def test_an_id_and_its_number_are_the_same_thing(number: int) -> None:
    text = id_text(number)
    assert is_id(text)
    assert id_number(text) == number


@given(st.lists(st.integers(0, 2**128 - 1), min_size=2))
def test_ids_sort_as_their_numbers(numbers: list[int]) -> None:
    assert sorted(map(id_text, numbers)) == [id_text(number) for number in sorted(numbers)]


@given(st.integers(0, 253402300799999999))
def test_a_time_is_rfc_3339_in_utc_with_microseconds_and_comes_back(time_us: int) -> None:
    text = format_time(time_us)
    assert len(text) == 27 and text[10] == "T" and text[19] == "." and text[-1] == "Z"
    assert parse_time(text) == time_us


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    assert parse_time("2026-11-22T14:12:52.123456+01:00") == parse_time(TIME)


@pytest.mark.parametrize("text", ["2026-11-22T13:12:52", "2026-11-22", "yesterday", "", "1969-12-31T23:59:59Z"])
def test_a_time_needs_a_zone_and_a_year_after_1970(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


def test_a_draft_gets_its_time_and_expiry_together() -> None:
    draft = Draft(sender="a", msg_type="note", payload={}, urgent=False, expires_in_us=1_500_000)
    minted = draft.message(ID, parse_time(TIME), "narrator", 3)
    assert minted.expires_at == "2026-11-22T13:12:53.623456Z"
    assert minted.urgent is None


_TEXTS = st.none() | st.text(min_size=1, max_size=5)
DRAFTS = st.builds(
    Draft,
    sender=st.text(max_size=5),
    msg_type=st.text(max_size=5),
    payload=st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.none() | st.integers(0, 9)),
    scene=_TEXTS,
    reply_to=_TEXTS,
    to=st.none() | st.tuples(st.text(), st.text()),
    urgent=st.none() | st.booleans(),
    expires_in_us=st.none() | st.integers(0, 10**12),
    dedup_key=_TEXTS,
    replaces=_TEXTS,
    drafts=st.none() | st.tuples(st.text()),
)


@given(DRAFTS, st.integers(0, 10**16))
def test_the_line_of_a_draft_is_that_of_its_message(draft: Draft, time_us: int) -> None:
    encode, length = draft.encoder()
    message = draft.message(ID, time_us, "narrator", 3)
    assert encode(ID, time_us, "narrator") == encode_line(message.stored())
    assert length + len("narrator") == len(encode(ID, time_us, "narrator"))
    assert (message.line, message.amended, message.extra) == (3, False, {})


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["narrator", "a", "7", "0-_", "agent_2", "a" * 64, "com10", "console", "receipts"])
def test_these_are_names(name: str) -> None:
    assert check_name("channel", name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "Narrator", "_a", "-a", "a" * 65, "a.b", "a b", "ä", "a/b", "a\\b", "..", "../etc/passwd", "a\n", "a\0"),
        *("*", ".hidden", "C:", "a:b", "narrator.jsonl", "ａ", "a\u200b", None, 7, b"a", ["a"]),
    ],
)
def test_these_are_no_names(name: object) -> None:
    with pytest.raises(InvalidName, match="use 1 to 64 of a-z, 0-9, _ and -, starting with a letter or digit"):
        check_name("channel", name)


@pytest.mark.parametrize("name", ["con", "prn", "aux", "nul", "com0", "com1", "com9", "lpt0", "lpt1", "lpt9"])
def test_a_windows_device_is_no_name(name: str) -> None:
    with pytest.raises(InvalidName, match="is a device on Windows; choose another name"):
        check_name("channel", name)


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ID, Reference(ID)),
        (ID.lower(), Reference(ID)),
        (f" {ID}\n", Reference(ID)),
        ("3A4B", Reference("3A4B")),
        ("3a4b", Reference("3A4B")),
        ("Z3A4B", Reference("Z3A4B")),
        ("narrator:42", Reference("", "narrator", 42)),
        ("narrator:42~3A4B", Reference("3A4B", "narrator", 42)),
        ("narrator:42~3a4b", Reference("3A4B", "narrator", 42)),
        (f"narrator:42~{ID}", Reference(ID, "narrator", 42)),
    ],
)
def test_a_message_is_named_in_four_ways(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "3A4", "narrator", "narrator:", "narrator:0", "narrator:-1", "narrator:x", "Narrator:1", "../a:1"),
        *("UUUU", "narrator:42~", "narrator:42~IIII", "n.file.0", ID + "0", "a b c d", None, 42, "2026-11-22"),
        "narrator:1" + "0" * 13,
    ],
)
def test_anything_else_names_no_message(text: object) -> None:
    assert parse_reference(text) is None


# --- lines that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [[1], "text", 7, None, True])
def test_a_line_that_is_no_object_says_so(value: object) -> None:
    assert fault_of(value) == "not a JSON object"


@pytest.mark.parametrize("key", ["id", "timestamp", "sender", "msg_type", "payload"])
def test_a_missing_key_is_named(key: str) -> None:
    fields = {name: value for name, value in USUAL.items() if name != key}
    assert fault_of(fields) == f"'{key}' is missing"


@pytest.mark.parametrize("value", [None, 7, "", ["x"], {}, True])
@pytest.mark.parametrize("key", ["id", "timestamp", "sender", "msg_type"])
def test_a_required_key_must_be_text(key: str, value: object) -> None:
    assert fault_of(USUAL | {key: value}) == f"'{key}' must be a non-empty string"


@pytest.mark.parametrize("value", [None, 7, "text", ["x"], True])
def test_a_payload_must_be_an_object(value: object) -> None:
    assert fault_of(USUAL | {"payload": value}) == "'payload' must be a JSON object"


@pytest.mark.parametrize("value", [7, ["x"], {}, True])
@pytest.mark.parametrize("key", ["channel", "scene", "reply_to", "expires_at", "dedup_key", "replaces"])
def test_an_optional_key_must_be_text(key: str, value: object) -> None:
    assert fault_of(USUAL | {key: value}) == f"'{key}' must be a string"


@pytest.mark.parametrize("value", [7, "narrator", {}, True, ["a", 1]])
@pytest.mark.parametrize("key", ["to", "drafts"])
def test_a_list_of_names_must_be_one(key: str, value: object) -> None:
    assert fault_of(USUAL | {key: value}) == f"'{key}' must be a list of strings"


@pytest.mark.parametrize("value", [1, "true", []])
def test_urgent_must_be_true_or_false(value: object) -> None:
    assert fault_of(USUAL | {"urgent": value}) == "'urgent' must be true or false"


@pytest.mark.parametrize("value", ["8" + ID[1:], ID[:-1], ID + "0", ID.lower(), "O" * 26])
def test_an_id_must_be_a_ulid(value: str) -> None:
    assert fault_of(USUAL | {"id": value}) == f"'id' {value!r} is not a ULID"


@pytest.mark.parametrize("value", ["2026-11-22T13:12:52", "1969-01-01T00:00:00Z", "soon"])
def test_a_timestamp_must_be_one(value: str) -> None:
    assert fault_of(USUAL | {"timestamp": value}).startswith(f"'timestamp' {value!r} is not an RFC 3339 time")


@pytest.mark.parametrize("key", ["channel", "scene", "reply_to", "to", "urgent", "drafts"])
def test_null_is_as_good_as_absent(key: str) -> None:
    assert fault_of(USUAL | {key: None}) == ""


def why_unreadable(line: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        parse_fields(line)
    return str(caught.value)


@pytest.mark.parametrize("marker", [b"<<<<<<< HEAD", b"<<<<<<<", b"=======", b">>>>>>> feature/x", b"||||||| 1a2b3c4"])
def test_a_conflict_marker_is_recognised_as_a_line(marker: bytes) -> None:
    assert why_unreadable(marker).startswith("git conflict marker")


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "=======", ">>>>>>> theirs", "a\n=======\nb"])
def test_a_conflict_marker_within_a_text_is_text(text: str) -> None:
    line = encode_line(USUAL | {"payload": {"text": text}})
    assert parse_fields(line[:-1])["payload"] == {"text": text}


@pytest.mark.parametrize("line", [b"======= x", b"<<<<<<<<", b"=====", b"<<<<<<<HEAD"])
def test_what_only_looks_like_a_marker_is_a_broken_line(line: bytes) -> None:
    assert why_unreadable(line).startswith("torn line")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (encode_line(USUAL)[:-20], "torn line"),
        (encode_line(USUAL)[20:-1], "not valid JSON"),
        (encode_line(USUAL)[:-1] * 2, "not valid JSON"),
        (b"\0" * 40, "torn line"),
        (b"\xff\xfe{\0}\0", "torn line"),
        (b'{"id": "\xff"}', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b"{}", "'id' is missing"),
        (b"[" * 2000, "torn line"),
        (b"[" * 2000 + b"]" * 2000 + b"}", "not valid JSON"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(line: bytes, words: str) -> None:
    assert words in why_unreadable(line)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_the_codec_fail_in_another_way(line: bytes) -> None:
    try:
        parse_fields(line)
    except Unreadable as error:
        assert str(error)


@given(JSON)
def test_no_json_at_all_makes_the_check_fail_in_another_way(value: object) -> None:
    assert isinstance(fault_of(value), str)


@given(st.sampled_from(sorted([*USUAL, *STORED_KEYS])), JSON)
def test_no_value_of_a_known_key_makes_the_check_fail_in_another_way(key: str, value: object) -> None:
    line = orjson.dumps(USUAL | {key: value})
    try:
        read = parse_line(line, "narrator", 1)
    except Unreadable:
        return
    assert orjson.loads(encode_line(read.stored()))["id"] == read.id


ANY_FIELDS = st.builds(
    lambda changes, missing: {key: value for key, value in (USUAL | changes).items() if key not in missing},
    st.dictionaries(
        st.sampled_from([*STORED_KEYS, "payload", "mood"]),
        JSON | st.sampled_from(["1970-W01-1Z", "1970-01-01T00:00:00+01:00", TIME, TIME[:-1], ID, ID.lower(), "8" * 26]),
        max_size=3,
    ),
    st.sets(st.sampled_from([*USUAL]), max_size=1),
)


@given(ANY_FIELDS)
def test_what_is_a_message_at_a_glance_is_one(fields: dict[str, Any]) -> None:
    assert fault_in(fields, orjson.dumps(fields)) == fault_of(fields)


def test_most_lines_are_seen_to_be_messages_at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_module, "fault_of", pytest.fail)
    for extra in ({}, {"scene": "s3", "reply_to": ID}, {"payload": {"places": [{"x": 1}], "n": None}}):
        assert parse_fields(orjson.dumps(USUAL | extra)) == USUAL | extra

"""`mq check` and the message types: what is wrong in the files, and what payloads may say."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mq_server import checking
from mq_server.answers import Report
from mq_server.errors import InvalidRequest, SchemaError, UnknownType
from mq_server.mailroom import Mailroom
from mq_server.message import Message
from mq_server.names import format_time
from tests.support import append, ask, known_id, line, new_log, write

NUMBER = {known_id(number): number for number in range(1000)}
PROPS = {"type": "object", "properties": {"props": {"type": "array", "minItems": 1}}, "required": ["props"]}


def said(number: int, **keys: Any) -> bytes:
    """Message `number`; `replaces` is given as a number."""
    if "replaces" in keys:
        keys["replaces"] = known_id(keys["replaces"])
    return line(number, id=known_id(number), **keys)


def numbers(messages: Iterable[Message]) -> list[int]:
    return [NUMBER[message.id] for message in messages]


def schema(root: Path, msg_type: str, document: object) -> None:
    write(root / "schemas" / f"{msg_type}.json", json.dumps(document).encode())


def problems(root: Path, *paths: Any) -> list[str]:
    return [str(problem) for problem in check(root, *paths).problems]


# --- files -----------------------------------------------------------------------------------------------------------


def check(root: Path, *paths: Any) -> Report:
    report: Report = ask(root, lambda room: room.check(paths))
    return report


def damaged(root: Path) -> None:
    """A production with everything that people do to files."""
    good = [said(number) for number in range(8)]
    write(
        root / "narrator.jsonl",
        *(b"\xef\xbb\xbf", good[0][:-1], b"\r\n\n  \n", b"<<<<<<< HEAD\n", good[1], b"=======\n", good[2]),
        *(b">>>>>>> theirs\n", b"[]\n", b'{"id": 7}\n', good[3], good[3], said(4, text="other"), good[4], good[5][:-9]),
    )
    write(root / "dialogist.jsonl", good[6], line(7, id=known_id(7), mood="grey")[:-1])
    write(root / "receipts" / "narrator.jsonl", b"{}\n")
    write(root / "Bad Name.jsonl", good[0])
    (root / "folder.jsonl").mkdir()


EXPECTED = [
    "Bad Name.jsonl: channel 'Bad Name' is not a valid name: use 1 to 64 of a-z, 0-9, _ and -, starting with a letter "
    "or digit; the file is not read",
    "folder.jsonl: cannot be read: this is not a file",
    "narrator.jsonl:4: git conflict marker: keep one line for each message, and take the markers out",
    "narrator.jsonl:6: git conflict marker: keep one line for each message, and take the markers out",
    "narrator.jsonl:8: git conflict marker: keep one line for each message, and take the markers out",
    "narrator.jsonl:9: not a JSON object",
    "narrator.jsonl:10: 'id' must be a non-empty string",
    *(
        f"narrator.jsonl:{number}: id {known_id(4)} stands on another line with different content: keep one of them"
        for number in (13, 14)
    ),
    "narrator.jsonl:15: torn line: it breaks off before its end",
    "receipts/narrator.jsonl:1: 'id' must be a string",
]


def test_every_problem_is_reported_and_stops_nothing_else(tmp_path: Path) -> None:
    damaged(tmp_path)
    report = check(tmp_path)
    assert [str(problem) for problem in report.problems] == EXPECTED
    assert (report.channels, report.messages) == (2, 7)

    async def work(room: Mailroom) -> None:
        assert numbers((await room.history("narrator")).messages) == [0, 1, 2, 3, 4]
        assert numbers((await room.activity()).messages) == [0, 1, 2, 3, 4, 6, 7]
        assert (await room.history("dialogist")).messages[1].extra == {"mood": "grey"}

    ask(tmp_path, work)


def test_every_answer_shows_the_problems_of_what_it_was_read_from(tmp_path: Path) -> None:
    damaged(tmp_path)

    async def work(room: Mailroom) -> None:
        everything = set(EXPECTED)
        for answer in (await room.activity(), await room.thread(known_id(6)), await room.search("message")):
            assert {str(problem) for problem in answer.problems} == everything
            assert answer.as_json()["problems"][-1] == "… and 1 more: run `mq check`"
        assert {str(problem) for problem in (await room.directory()).problems} == everything
        ours = {text for text in EXPECTED if "narrator.jsonl" in text}
        for page in (await room.read("narrator"), await room.history("narrator"), await room.wait("narrator")):
            assert {str(problem) for problem in page.problems} == ours
        assert (await room.read("dialogist")).problems == ()

    ask(tmp_path, work)


def test_a_check_may_be_of_some_files_only(tmp_path: Path) -> None:
    damaged(tmp_path)
    for name in ("narrator", "narrator.jsonl", tmp_path / "narrator.jsonl"):
        assert {problem.path for problem in check(tmp_path, name).problems} == {"narrator.jsonl"}
    assert {problem.path for problem in check(tmp_path, "receipts/narrator").problems} == {"receipts/narrator.jsonl"}
    assert check(tmp_path, "dialogist").problems == ()
    for name in ("nobody", "mq.toml", "../x"):
        with pytest.raises(InvalidRequest, match="is no mailbox, receipts or schema file of"):
            check(tmp_path, name)


def test_a_check_reads_again_whatever_the_stamps_say(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", said(0), said(1))

    async def work(room: Mailroom) -> None:
        await room.activity()
        path = tmp_path / "narrator.jsonl"
        before, data = path.stat(), path.read_bytes()
        with path.open("r+b") as file:
            file.write(data.replace(b'"id"', b'"di"', 1))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        report = await room.check()
        assert [str(problem) for problem in report.problems] == ["narrator.jsonl:1: 'id' is missing"]
        assert report.messages == 1
        assert numbers((await room.history("narrator")).messages) == [1]
        path.unlink()
        assert (await room.check()).problems == ()

    ask(tmp_path, work)


def test_a_missing_production_has_no_problems_and_is_not_made(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    assert check(root) == Report(channels=0, messages=0)
    assert ask(root, lambda room: room.history("narrator")).messages == ()
    assert ask(root, lambda room: room.activity()).messages == ()
    assert not root.exists()


@pytest.mark.parametrize("ahead_s", [-10, 0, 4])
def test_a_timestamp_little_ahead_is_no_problem(tmp_path: Path, ahead_s: int) -> None:
    stamped_ahead(tmp_path, ahead_s)
    assert check(tmp_path).problems == ()


def stamped_ahead(root: Path, seconds: float) -> str:
    text = format_time(time.time_ns() // 1000 + round(seconds * 1e6))
    append(new_log(root), line(0, timestamp=text))
    return text


def test_a_timestamp_far_ahead_is_reported_and_goes_on_being_so(tmp_path: Path) -> None:
    when = stamped_ahead(tmp_path, 60)

    async def work(room: Mailroom) -> None:
        for count in range(2):
            (problem,) = (await room.read("narrator")).problems
            assert problem.line == 1
            assert problem.message == (
                f"stamped {when}, ahead of this machine's clock: later posts do not follow it; set the clock right"
            )
            posted = await room.post("narrator", sender="a", msg_type="note", payload={"text": f"{count}"})
            assert posted.message.timestamp < when

    ask(tmp_path, work)


# --- payloads --------------------------------------------------------------------------------------------------------


def test_a_payload_that_stands_wrong_is_a_problem_of_its_line_that_says_what_is_right(tmp_path: Path) -> None:
    schema(tmp_path, "prop_list", PROPS)
    write(
        tmp_path / "narrator.jsonl",
        *(said(0), said(1, payload={"txt": "x"}), said(2, msg_type="prop_list", payload={"props": []})),
        *(said(3, msg_type="weather", payload={"wind": 3}), said(4, msg_type="prop_list", payload={"props": [1]})),
    )
    assert problems(tmp_path) == [
        "narrator.jsonl:2: payload.text: field required (a 'note' payload is {text})",
        "narrator.jsonl:3: payload.props: must have at least 1 items (a 'prop_list' payload is {props: list})",
    ]


def test_wrong_payloads_are_told_by_a_check_and_by_no_other_answer(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", said(0, payload={}))

    async def work(room: Mailroom) -> None:
        assert (await room.check()).problems
        assert (await room.activity()).problems == (await room.read("narrator")).problems == ()

    ask(tmp_path, work)


def test_a_message_that_was_corrected_is_no_problem_any_more(tmp_path: Path) -> None:
    write(tmp_path / "narrator.jsonl", said(0, payload={}), said(1, payload={}))
    assert len(problems(tmp_path)) == 2
    append(new_log(tmp_path), said(2, replaces=0))
    assert [text.partition(": ")[0] for text in problems(tmp_path)] == ["narrator.jsonl:2"]


def test_unknown_types_are_problems_where_types_are_strict(tmp_path: Path) -> None:
    schema(tmp_path, "prop_list", PROPS)
    write(
        tmp_path / "narrator.jsonl",
        *(said(0, msg_type="narratoin"), said(1, msg_type="dead_letter"), said(2, msg_type="narration")),
        said(3, msg_type="prop_list", payload={"props": [1]}),
    )
    assert problems(tmp_path) == []
    write(tmp_path / "mq.toml", b"strict_types = true\n")
    (problem,) = problems(tmp_path)
    assert problem.startswith("narrator.jsonl:1: msg_type 'narratoin' is unknown")
    assert "Did you mean 'narration'?" in problem
    assert problem.endswith("answer, prop_list")


def test_a_schema_that_is_none_is_one_problem_and_its_messages_are_not_blamed(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b"strict_types = true\n")
    write(tmp_path / "schemas" / "prop_list.json", b'{\n"type": \n}')
    write(tmp_path / "narrator.jsonl", *(said(number, msg_type="prop_list") for number in range(3)))
    (problem,) = problems(tmp_path)
    assert problem.startswith("schemas/prop_list.json:3: not valid JSON")


def test_a_schema_without_end_is_a_problem_of_each_of_its_messages(tmp_path: Path) -> None:
    schema(tmp_path, "loop", {"$ref": "#"})
    write(tmp_path / "narrator.jsonl", said(0, msg_type="loop"))
    (problem,) = problems(tmp_path)
    assert problem.startswith("narrator.jsonl:1: schemas/loop.json: refers to itself without end")


def test_a_check_of_some_files_looks_at_their_payloads_only(tmp_path: Path) -> None:
    write(tmp_path / "schemas" / "bad.json", b"[]")
    for name in ("narrator", "dialogist"):
        write(tmp_path / f"{name}.jsonl", said(0, channel=name, payload={}))
    assert [text.partition(":")[0] for text in problems(tmp_path, "dialogist")] == ["dialogist.jsonl"]
    assert [text.partition(":")[0] for text in problems(tmp_path, "schemas/bad.json")] == ["schemas/bad.json"]


def test_a_long_mailbox_is_checked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_BATCH", 3)
    lines = [said(number, payload={"text": "x"} if number % 4 else {}) for number in range(11)]
    write(tmp_path / "narrator.jsonl", *lines, *(said(20 + number, replaces=number) for number in (4, 5, 6, 7, 8)))
    assert [text.partition(": ")[0] for text in problems(tmp_path)] == ["narrator.jsonl:1"]


def test_a_mailbox_that_is_replaced_during_a_check_is_checked_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_BATCH", 2)
    path = write(tmp_path / "narrator.jsonl", *(said(number, payload={}) for number in range(6)))
    wrong, replaced = checking._wrong, []

    def replacing(*arguments: Any) -> Any:
        if not replaced:
            replaced.append(path.replace(tmp_path / "gone.txt"))
            write(path, said(7), said(8, payload={}), said(9))
        return wrong(*arguments)

    monkeypatch.setattr(checking, "_wrong", replacing)
    assert [text.partition(": ")[0] for text in problems(tmp_path)] == ["narrator.jsonl:2"]
    assert replaced


# --- types -----------------------------------------------------------------------------------------------------------


def test_the_types_are_listed_with_their_fields_built_in_and_own(tmp_path: Path) -> None:
    schema(tmp_path, "prop_list", PROPS)
    schema(tmp_path, "note", {"properties": {"mood": {"enum": ["grey", "gay"]}}, "required": ["mood"]})
    write(tmp_path / "schemas" / "bad.json", b"[]")
    shown = ask(tmp_path, lambda room: room.types())
    assert shown["narration"] == "{text}"
    assert shown["prop_list"] == "{props: list}"
    assert shown["note"] == "{text, mood: grey|gay}"
    assert shown["bad"].startswith("schemas/bad.json: a JSON Schema is an object")
    assert ask(tmp_path, lambda room: room.types("prop_list")) == {"prop_list": "{props: list}"}


def test_a_type_without_fields_is_told_what_types_have_some(tmp_path: Path) -> None:
    schema(tmp_path, "prop_list", PROPS)
    for question in (lambda room: room.types("prop_lsit"), lambda room: room.schema("prop_lsit")):
        with pytest.raises(UnknownType, match=r"'prop_lsit'\. Did you mean 'prop_list'\? .*narration"):
            ask(tmp_path, question)
    write(tmp_path / "schemas" / "bad.json", b"[]")
    with pytest.raises(SchemaError, match=r"schemas/bad\.json"):
        ask(tmp_path, lambda room: room.types("bad"))


def test_the_directory_names_the_own_types(tmp_path: Path) -> None:
    assert "types" not in ask(tmp_path, lambda room: room.directory()).as_json()
    schema(tmp_path, "prop_list", PROPS)
    assert ask(tmp_path, lambda room: room.directory()).as_json()["types"] == ["prop_list"]


def test_the_schema_of_a_type_with_model_and_file_demands_both(tmp_path: Path) -> None:
    from jsonschema import Draft202012Validator

    assert ask(tmp_path, lambda room: room.schema("narration"))["required"] == ["text"]
    own = {"properties": {"lines": {"items": {"$ref": "#/$defs/line"}}}, "$defs": {"line": {"required": ["mood"]}}}
    schema(tmp_path, "dialogue", own)
    both = Draft202012Validator(ask(tmp_path, lambda room: room.schema("dialogue")))
    assert both.is_valid({"lines": [{"who": "Vreni", "text": "Ja.", "mood": "grey"}]})
    assert not both.is_valid({"lines": [{"who": "Vreni", "text": "Ja."}]})
    assert not both.is_valid({"lines": [{"who": "Vreni", "mood": "grey"}]})
    schema(tmp_path, "prop_list", PROPS)
    assert ask(tmp_path, lambda room: room.schema("prop_list")) == PROPS

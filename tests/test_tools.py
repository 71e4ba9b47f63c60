"""What models see: the tools' schemas, and what a wrong call is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mq_server.errors import InvalidRequest
from mq_server.mailroom import Mailroom
from mq_server.server.arguments import check_arguments
from mq_server.server.calls import call_tool
from mq_server.server.tools import TOOLS
from tests.serving import call, connected, failing, note, run
from tests.support import write

KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "anyOf", "items", "maximum"),
    *("default", "description"),
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-100, 100)
    | st.floats().filter(lambda number: not number.is_integer())
    | st.text("abc"),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text("abc"), value, max_size=3),
)
MAX_TOOLS = 9
MAX_BYTES = 6000


def _schemas(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _schemas(item)
    elif isinstance(value, list):
        for item in value:
            yield from _schemas(item)


def test_names_descriptions_and_input_schemas_cost_at_most_6000_bytes() -> None:
    shown = [{"name": t.name, "description": t.description, "inputSchema": t.input_schema} for t in TOOLS]
    assert len(TOOLS) <= MAX_TOOLS
    assert len(orjson.dumps(shown)) <= MAX_BYTES


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_input_schemas_are_strict_and_plain(tool: Any) -> None:
    assert tool.input_schema["additionalProperties"] is False
    for schema in _schemas(tool.input_schema):
        assert "title" not in schema
        assert schema.get("type") != "null"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_input_schemas_say_nothing_that_arguments_are_not_checked_for(tool: Any) -> None:
    arguments = tool.input_schema["properties"]
    for schema in _schemas({**tool.input_schema, "properties": list(arguments.values())}):
        assert schema.keys() <= KEYWORDS


@given(st.sampled_from(TOOLS), st.data())
def test_the_calls_that_are_refused_are_those_that_the_schema_forbids(tool: Any, data: st.DataObject) -> None:
    names = st.sampled_from([*tool.input_schema["properties"], "stranger"])
    arguments = data.draw(st.dictionaries(names, VALUES, max_size=6))
    given = {name: value for name, value in arguments.items() if value is not None}
    allowed = Draft202012Validator(tool.input_schema).is_valid(given)
    try:
        assert check_arguments(tool.name, arguments) == given
        assert allowed
    except InvalidRequest:
        assert not allowed


def test_every_tool_says_whether_it_changes_anything() -> None:
    for tool in TOOLS:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not None
        assert tool.annotations.destructive_hint is False


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("post_message", {"channle": "x", "msg_type": "note", "payload": {}}, "no argument 'channle'.*'channel'"),
        ("post_message", {"msg_type": "note"}, "payload is missing"),
        ("post_message", {"msg_type": "note", "payload": "hello"}, "payload must be a JSON object"),
        ("read_messages", {"channel": "narrator", "limit": "ten"}, "limit must be a whole number"),
        ("read_messages", {"channel": "narrator", "ack": "yes"}, "ack must be true or false or a list"),
        ("read_messages", {"channel": "narrator", "ack": ["1", 2]}, "ack.1 must be text, not 2"),
        ("read_messages", {"channel": "narrator", "limit": True}, "limit must be a whole number, not true"),
        ("wait_for_messages", {"channel": "narrator", "timeout_s": 600}, "timeout_s.*50"),
        ("get_conversation_thread", {"id": "narrator:1"}, "'id'.*'message_id'"),
        ("search_messages", {"text": "lamp"}, "query is missing"),
        ("list_channels", {"verbose": True}, "no argument 'verbose'"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong_and_shown_a_right_one(
    tool: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        check_arguments(tool, arguments)
    assert f"For example: {tool}(" in str(caught.value)


def test_one_error_lists_every_fault() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_arguments("post_message", {"chanel": 1, "payload": [], "urgent": "no", "colour": "red"})
    text = str(caught.value)
    for fault in ("'chanel'", "'colour'", "payload must be", "urgent must be", "msg_type is missing"):
        assert fault in text


def test_null_counts_as_left_out() -> None:
    assert check_arguments("read_messages", {"channel": "narrator", "since": None}) == {"channel": "narrator"}


def test_errors_of_the_mailroom_read_as_our_own_sentences(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="scene_director") as client:
            text = await failing(client, "post_message", channel="con", msg_type="score", payload={"score": 2})
            for fault in ("'con' is a device on Windows", "payload.of", "payload.score", "a 'score' payload is {of"):
                assert fault in text
            assert "For example: post_message(" in text
            assert not re.search("Error executing|Traceback|validation error", text)
            assert not (tmp_path / "con.jsonl").exists()
            spoofed = await failing(client, "post_message", channel="narrator", sender="writer", **note("me"))
            assert "known to be 'scene_director'" in spoofed
            unknown = await failing(client, "get_conversation_thread", message_id="narrator:7")
            assert "no channel 'narrator'" in unknown
            await call(client, "post_message", channel="narrator", **note("one"))
            assert "narrator" in await failing(client, "post_message", channel="narator", **note("typo"))
            assert "Did you mean 'narrator'" in await failing(client, "get_channel_history", channel="narator")

    run(scenario())


def test_the_fields_of_a_type_are_told_when_asked_for_and_when_they_are_wrong(tmp_path: Path) -> None:
    write(tmp_path / "schemas" / "weather.json", b'{"properties": {"wind": {"type": "number"}}, "required": ["wind"]}')

    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            assert (await call(client, "list_channels"))["types"] == ["weather"]
            told = await call(client, "list_channels", msg_type="weather")
            assert told["types"] == {"weather": "{wind: number}"}
            assert told["you"] == "narrator"
            assert (await call(client, "list_channels", msg_type="note"))["types"] == {"note": "{text}"}
            assert "Did you mean 'weather'" in await failing(client, "list_channels", msg_type="wether")
            wrong = await failing(client, "post_message", channel="writer", msg_type="weather", payload={"wind": "x"})
            assert wrong.startswith("payload.wind: must be a number, not text; a 'weather' payload is {wind: number}. ")
            assert "payload={wind: number}" in wrong
            write(tmp_path / "schemas" / "weather.json", b"{")
            broken = await failing(client, "post_message", channel="writer", msg_type="weather", payload={"wind": 1})
            assert broken.startswith("schemas/weather.json:1: not valid JSON")
            assert "For example" not in broken
            assert not (tmp_path / "writer.jsonl").exists()

    run(scenario())


def test_a_caller_without_identity_must_name_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory") as client:
            text = await failing(client, "post_message", channel="narrator", **note("who am I"))
            assert "sender is missing" in text
            await call(client, "post_message", channel="narrator", sender="writer", **note("me"))

    run(scenario())


def test_an_unknown_tool_names_the_known_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory") as client:
            assert "post_message" in await failing(client, "send_message", text="hi")

    run(scenario())


def test_a_number_that_json_here_cannot_carry_is_an_error_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="writer") as client:
            payload = {"text": "big", "a": 2**70}
            text = await failing(client, "post_message", channel="narrator", msg_type="note", payload=payload)
            assert "exceeds 64-bit range" in text and "For example: post_message(" in text

    run(scenario())


def test_a_payload_written_as_text_is_taken_for_what_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="writer") as client:
            await call(client, "post_message", channel="narrator", msg_type="note", payload='{"text": "Rain."}')
            assert (await call(client, "read_messages", channel="narrator", reader="narrator"))["messages"][0][
                "payload"
            ] == {"text": "Rain."}

    run(scenario())


@pytest.mark.parametrize(
    ("tool", "arguments", "shown"),
    [
        ("post_message", {"channel": "Dialogist!", "msg_type": "note", "payload": {"text": "a"}}, "channel="),
        ("post_message", {"msg_type": "note", "payload": {"text": "a"}}, "channel="),
        ("settle_messages", {"channel": "narrator"}, "ack="),
        ("list_channels", {"agent": "narrator"}, "reader="),
    ],
)
def test_the_call_that_is_shown_would_work(tmp_path: Path, tool: str, arguments: dict[str, Any], shown: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            text = await failing(client, tool, **arguments)
            assert shown in text.partition("For example: ")[2], text

    run(scenario())


def test_a_client_that_leaves_at_once_gets_nothing_settled_by_its_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        was_asked = asyncio.Event()

        async def leaves() -> dict[str, str]:
            was_asked.set()
            return {"type": "http.disconnect"}

        async with Mailroom(tmp_path) as room:
            arguments = {"channel": "narrator", "ack": True, "timeout_s": 5}
            waiting = asyncio.create_task(call_tool(room, "wait_for_messages", arguments, receive=leaves))
            for _ in range(5):  # turns of the loop, which take no time
                await asyncio.sleep(0)
            assert was_asked.is_set()
            assert (await waiting)["content"][0]["text"] == "The client has left"
            await room.post("narrator", sender="writer", **note("later"))
            assert len((await room.read("narrator")).messages) == 1

    run(scenario())

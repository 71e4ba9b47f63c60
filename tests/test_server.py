"""The server as clients meet it: every transport, both protocols, waits, resources, who may connect."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from mcp.client import Client
from mcp_types import INVALID_PARAMS, SERVER_INFO_META_KEY, PromptReference, ResourceTemplateReference
from mcp_types.methods import serialize_server_result
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from mq_server.errors import MailError
from mq_server.mailroom import Mailroom
from mq_server.server import MailroomServer, serving
from mq_server.server.calls import Caller
from mq_server.server.http import fast_loop, security
from mq_server.server.tools import TOOLS
from tests.serving import ERAS, TRANSPORTS, address, call, connected, note, run
from tests.support import write

MAX_ANSWER_BYTES = 40_000
LOOPS = {"asyncio": None, "uvloop": fast_loop()}
on_both_loops = pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_tool_answers_over_every_transport(tmp_path: Path, transport: str, era: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, transport, era, identity="narrator") as client:
            posted = await call(client, "post_message", channel="dialogist", scene="q2-s3", **note("the lamp — été"))
            assert posted["ref"].startswith("dialogist:1~")
            (recipient,) = posted["recipients"]
            assert (recipient["channel"], recipient["created"], recipient["waiting"]) == ("dialogist", True, 0)
            peek = await call(client, "read_messages", channel="dialogist")
            assert peek["peek"] is True
            assert [m["payload"] for m in peek["messages"]] == [{"text": "the lamp — été"}]
            waited = await call(client, "wait_for_messages", channel="dialogist", reader="dialogist", ack=True)
            assert [m["id"] for m in waited["messages"]] == [posted["id"]]
            assert waited["timed_out"] is False
            again = await call(client, "wait_for_messages", channel="dialogist", reader="dialogist", timeout_s=0)
            assert again == {"messages": [], "timed_out": True, "remaining": 0}
            answer = await call(client, "post_message", reply_to=posted["ref"], channel="narrator", **note("lit"))
            assert answer["scene"] == "q2-s3"
            history = await call(client, "get_channel_history", channel="dialogist")
            assert [m["sender"] for m in history["messages"]] == ["narrator"]
            thread = await call(client, "get_conversation_thread", message_id=answer["id"][-6:])
            assert [(m["id"], m["depth"]) for m in thread["messages"]] == [(posted["id"], 0), (answer["id"], 1)]
            activity = await call(client, "get_all_activity")
            assert [m["id"] for m in activity["messages"]] == [posted["id"], answer["id"]]
            assert (await call(client, "get_all_activity", since=activity["next"]))["messages"] == []
            hits = await call(client, "search_messages", query="LAMP été")
            assert [hit["snippet"] for hit in hits["hits"]] == ["the lamp — été"]
            directory = await call(client, "list_channels")
            assert directory["you"] == "narrator"
            assert {c["channel"]: c["unread"] for c in directory["channels"]} == {"dialogist": 0, "narrator": 1}
            assert [m["ref"] for m in directory["last_posts"]] == [posted["ref"], answer["ref"]]

    run(scenario())


def test_the_text_copy_says_what_the_structure_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="writer") as client:
            result = await client.call_tool("post_message", {"channel": "narrator", **note("x")})
            assert json.loads(result.content[0].text) == result.structured_content

    run(scenario())


def test_answers_stay_under_40000_bytes_and_page(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Mailroom(tmp_path) as room:
            for number in range(60):
                await room.post(
                    "narrator", sender="writer", msg_type="note", payload={"text": f"{number} " + "é" * 900}
                )
        async with connected(tmp_path, "memory", identity="narrator") as client:
            seen: list[str] = []
            since = "2000-01-01T00:00:00Z"
            while True:
                page = await call(client, "read_messages", channel="narrator", since=since)
                assert len(json.dumps(page, ensure_ascii=False).encode()) < MAX_ANSWER_BYTES
                seen += [m["payload"]["text"].split()[0] for m in page["messages"]]
                since = page["next"]
                if not page["remaining"]:
                    break
            assert seen == [str(number) for number in range(60)]
            for tool, more in (
                ("get_channel_history", {"channel": "narrator"}),
                ("get_all_activity", {}),
                ("read_messages", {"channel": "narrator"}),
                ("search_messages", {"query": "é", "limit": 60}),
            ):
                assert len(json.dumps(await call(client, tool, **more), ensure_ascii=False).encode()) < MAX_ANSWER_BYTES
            older: list[str] = []
            before: dict[str, str] = {}
            while True:
                page = await call(client, "get_channel_history", channel="narrator", **before)
                older = [m["id"] for m in page["messages"]] + older
                if "next" not in page:
                    break
                before = {"before": page["next"]}
            assert len(older) == len(set(older)) == 60

    run(scenario())


@on_both_loops
@pytest.mark.parametrize("era", ERAS)
def test_a_wait_ends_when_a_message_is_posted_by_another_client(tmp_path: Path, era: str, loop: Any) -> None:
    async def scenario() -> None:
        async with (
            serving(tmp_path) as url,
            Client(address(url, "narrator"), mode=ERAS[era]) as narrator,
            Client(address(url, "writer"), mode=ERAS[era]) as writer,
        ):
            waiting = asyncio.create_task(call(narrator, "wait_for_messages", channel="narrator", timeout_s=20))
            await _until(lambda: _waits(writer, "narrator"), 1)
            posted = await call(writer, "post_message", channel="narrator", **note("wake"))
            assert posted["recipients"][0]["waiting"] == 1
            page = await waiting
            assert [m["id"] for m in page["messages"]] == [posted["id"]]

    run(scenario(), loop)


@on_both_loops
def test_a_wait_ends_when_an_editor_changes_the_file(tmp_path: Path, loop: Any) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="narrator") as client:
            posted = await call(client, "post_message", channel="writer", **note("first"))
            waiting = asyncio.create_task(call(client, "wait_for_messages", channel="narrator", timeout_s=20))
            await _until(lambda: _waits(client, "narrator"), 1)
            line = (tmp_path / "writer.jsonl").read_bytes().replace(b'"channel":"writer"', b'"channel":"narrator"')
            (tmp_path / "narrator.jsonl").write_bytes(line)
            assert [m["id"] for m in (await waiting)["messages"]] == [posted["id"]]

    run(scenario(), loop)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["memory", "http"])
def test_a_cancelled_wait_stops_waiting(tmp_path: Path, transport: str, era: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, transport, era, identity="narrator") as client:
            await call(client, "post_message", channel="narrator", **note("settled"))
            await call(client, "read_messages", channel="narrator", ack=True)
            waiting = asyncio.create_task(call(client, "wait_for_messages", channel="narrator", timeout_s=50))
            await _until(lambda: _waits(client, "narrator"), 1)
            waiting.cancel()
            await _until(lambda: _waits(client, "narrator"), 0)

    run(scenario())


@on_both_loops
def test_whoever_is_answered_at_once_is_not_asked_whether_they_are_still_there(loop: Any) -> None:
    async def scenario() -> None:
        asked = 0

        async def receive() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            return {"type": "http.disconnect" if asked > 1 else "http.request"}

        async def answer() -> Any:
            await asyncio.sleep(0)
            return "answer"

        caller = Caller(None, receive)
        assert await caller.stays_for(answer()) == "answer" and not asked
        with pytest.raises(MailError, match="left"):
            await caller.stays_for(asyncio.Event().wait())  # type: ignore[arg-type]
        assert asked == 2
        assert asyncio.all_tasks() == {asyncio.current_task()}
        cancelled = asyncio.ensure_future(caller.stays_for(asyncio.Event().wait()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    run(scenario(), loop)


@on_both_loops
@pytest.mark.parametrize("era", ERAS)
def test_a_wait_ends_when_its_client_leaves(tmp_path: Path, era: str, loop: Any) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as url, Client(address(url, "writer")) as observer:
            await call(observer, "post_message", channel="narrator", **note("settled"))
            await call(observer, "read_messages", channel="narrator", reader="narrator", ack=True)
            async with httpx.AsyncClient(timeout=20) as http:
                headers = await _open_session(http, url, era)
                wait = _rpc(era, "tools/call", 7, name="wait_for_messages", arguments={"channel": "narrator"})
                request = asyncio.create_task(_post_until_dropped(http, url, headers, wait))
                await _until(lambda: _waits(observer, "narrator"), 1)
                request.cancel()
                await asyncio.gather(request, return_exceptions=True)
            started = time.monotonic()
            await _until(lambda: _waits(observer, "narrator"), 0)
            assert time.monotonic() - started < 10

    run(scenario(), loop)


def test_problems_are_in_answers_and_on_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="narrator") as client:
            await call(client, "post_message", channel="writer", **note("fine"))
            with (tmp_path / "writer.jsonl").open("ab") as file:
                file.write(b"<<<<<<< HEAD\n[1]\n")
            page = await call(client, "get_channel_history", channel="writer")
            assert len(page["messages"]) == 1
            assert [problem.partition(": ")[0] for problem in page["problems"]] == ["writer.jsonl:2", "writer.jsonl:3"]
            with caplog.at_level(logging.WARNING):
                await _until_true(lambda: "writer.jsonl:2: git conflict marker" in caplog.text)

    run(scenario())


def test_resources_can_be_listed_and_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="writer") as client:
            posted = await call(client, "post_message", channel="narrator", **note("the lamp"))
            uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
            assert uris == ["activity://recent", "scenes://", "mailbox://narrator"]
            templates = (await client.list_resource_templates()).resource_templates
            assert [template.uri_template for template in templates] == [
                "mailbox://{channel}",
                "thread://{message_id}",
                "message://{message_id}",
                "scenes://{scene}",
                "schema://{msg_type}",
            ]
            mailbox = (await client.read_resource("mailbox://narrator")).contents[0].text
            assert json.loads(mailbox)["messages"][0]["id"] == posted["id"]
            recent = (await client.read_resource("activity://recent")).contents[0].text
            assert json.loads(recent)["messages"][0]["id"] == posted["id"]
            thread = (await client.read_resource(f"thread://{posted['id']}")).contents[0]
            assert thread.mime_type == "text/plain"
            assert "the lamp" in thread.text
            with pytest.raises(Exception, match="There is no resource"):
                await client.read_resource("queue://narrator")

    run(scenario())


def test_the_schema_of_a_message_type_can_be_read(tmp_path: Path) -> None:
    own = {"type": "object", "properties": {"wind": {"type": "number"}}, "required": ["wind"]}
    write(tmp_path / "schemas" / "weather.json", json.dumps(own).encode())

    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="writer") as client:
            content = (await client.read_resource("schema://weather")).contents[0]
            assert (json.loads(content.text), content.mime_type) == (own, "application/schema+json")
            narration = json.loads((await client.read_resource("schema://narration")).contents[0].text)
            assert narration["required"] == ["text"]
            with pytest.raises(Exception, match=r"Did you mean 'weather'\? .*narration"):
                await client.read_resource("schema://wether")

    run(scenario())


def test_subscribers_of_the_2026_protocol_hear_of_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="writer") as client:
            root = await call(client, "post_message", channel="narrator", **note("one"))
            wanted = ["mailbox://narrator", f"thread://{root['id']}"]
            async with client.listen(resource_subscriptions=wanted) as events:
                await call(client, "post_message", channel="narrator", reply_to=root["id"], **note("two"))
                heard: set[str] = set()
                async for event in events:
                    heard.add(str(event.uri))
                    if heard == set(wanted):
                        break

    run(scenario())


def test_a_subscriber_who_comes_after_others_have_left_hears_of_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "http", identity="writer") as client:
            for channel in ("narrator", "dialogist"):
                await call(client, "post_message", channel=channel, **note("nobody listens"))
                wanted = [f"mailbox://{channel}"]
                async with client.listen(resource_subscriptions=wanted, resources_list_changed=True) as events:
                    await call(client, "post_message", channel=channel, **note("heard"))
                    assert str((await anext(aiter(events))).uri) == wanted[0]

    run(scenario())


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_subscribers_of_the_2025_protocol_hear_of_changes(tmp_path: Path, transport: str) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def on_message(message: Any) -> None:
            if getattr(message, "method", "") == "notifications/resources/updated":
                heard.put_nowait(str(message.params.uri))

        async with connected(tmp_path, transport, "2025", message_handler=on_message) as client:
            await client.subscribe_resource("mailbox://narrator")
            async with Mailroom(tmp_path) as room:
                # What is sent before the client has opened its stream is lost, as the protocol has it.
                while heard.empty():
                    await room.post("narrator", sender="writer", msg_type="note", payload={"text": "elsewhere"})
                    await asyncio.wait([asyncio.ensure_future(_until_true(lambda: not heard.empty()))], timeout=1)
            assert await heard.get() == "mailbox://narrator"
            await client.unsubscribe_resource("mailbox://narrator")

    run(scenario())


def test_prompts_are_filled_in_from_the_production(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            await call(client, "post_message", channel="dialogist", **note("hello"))
            assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["join_production", "catch_up"]
            join = (await client.get_prompt("join_production", {"agent": "narrator"})).messages[0].content.text
            assert "- dialogist" in join
            assert "wait_for_messages(channel='narrator')" in join
            catch_up = (await client.get_prompt("catch_up", {"agent": "narrator"})).messages[0].content.text
            assert "dialogist:1~" in catch_up
            with pytest.raises(Exception, match="join_production"):
                await client.get_prompt("dance", {"agent": "narrator"})

    run(scenario())


def test_names_and_ids_are_completed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, "memory", identity="narrator") as client:
            posted = await call(client, "post_message", channel="dialogist", **note("hello"))
            mailbox = ResourceTemplateReference(uri="mailbox://{channel}")
            thread = ResourceTemplateReference(uri="thread://{message_id}")
            prompt = PromptReference(name="catch_up")
            assert (await client.complete(mailbox, {"name": "channel", "value": "dia"})).completion.values == [
                "dialogist"
            ]
            assert (await client.complete(prompt, {"name": "agent", "value": ""})).completion.values == ["dialogist"]
            typed = {"name": "message_id", "value": posted["id"][:4]}
            assert (await client.complete(thread, typed)).completion.values == [posted["id"]]
            schema = ResourceTemplateReference(uri="schema://{msg_type}")
            assert (await client.complete(schema, {"name": "msg_type", "value": "fe"})).completion.values == [
                "feedback"
            ]

    run(scenario())


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_session_gets_the_same_tools(tmp_path: Path, transport: str, era: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, transport, era, identity="writer") as client:
            for _ in range(2):
                assert (await client.list_tools()).tools == list(TOOLS)
                await call(client, "post_message", channel="narrator", **note("x"))
        if transport == "http":
            async with serving(tmp_path) as url:
                for mode in (*ERAS.values(), *ERAS.values()):
                    async with Client(url, mode=mode) as client:
                        assert (await client.list_tools()).tools == list(TOOLS)
                        assert client.server_info is not None
                        assert client.server_info.name == "mq-server"

    run(scenario())


@pytest.mark.parametrize("era", ERAS)
def test_calls_and_waits_are_answered_with_plain_json(tmp_path: Path, era: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as url, httpx.AsyncClient() as http:
            headers = await _open_session(http, url, era)
            arguments = {"channel": "narrator", "reader": "narrator", "timeout_s": 0.01}
            wait = _rpc(era, "tools/call", 7, name="wait_for_messages", arguments=arguments)
            answer = await http.post(url, headers=headers, json=wait)
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["result"]["structuredContent"]["timed_out"] is True

    run(scenario())


@pytest.mark.parametrize("tool", ["list_channels", "no_such_tool"])
@pytest.mark.parametrize("version", KNOWN_PROTOCOL_VERSIONS)
def test_an_answer_is_what_the_sdk_would_make_of_it(tmp_path: Path, version: str, tool: str) -> None:
    async def scenario() -> None:
        server = MailroomServer(Mailroom(tmp_path))
        params = {"name": tool, "arguments": {}}
        context: Any = SimpleNamespace(method="tools/call", params=params, protocol_version=version, request=None)
        answer: Any = await server._answer(context, no_handler)
        stamped = version in MODERN_PROTOCOL_VERSIONS
        assert answer == serialize_server_result("tools/call", version, answer)
        assert answer.get("_meta") == ({SERVER_INFO_META_KEY: server.mcp.server_info_stamp} if stamped else None)
        assert answer["isError"] == (tool == "no_such_tool")
        await server.room.close()

    async def no_handler(_: Any) -> Any:
        raise AssertionError("the SDK has no handler for calls")

    run(scenario())


@pytest.mark.parametrize("era", ERAS)
def test_a_call_that_is_none_is_refused_as_the_protocol_says(tmp_path: Path, era: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as url, httpx.AsyncClient() as http:
            headers = await _open_session(http, url, era)
            for faulty in ({"arguments": []}, {"arguments": "x"}):
                body = _rpc(era, "tools/call", 7, name="wait_for_messages", **faulty)
                answer = await http.post(url, headers=headers, json=body)
                assert answer.json()["error"]["code"] == INVALID_PARAMS

    run(scenario())


def test_the_loop_for_serving_is_uvloop_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = pytest.importorskip("uvloop")
    assert fast_loop() is uvloop.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert fast_loop() is None


@pytest.mark.parametrize(
    ("header", "value", "status"), [("Host", "evil.example", 421), ("Origin", "http://evil.example", 403)]
)
def test_strangers_by_name_are_turned_away(tmp_path: Path, header: str, value: str, status: int) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as url, httpx.AsyncClient() as http:
            answer = await http.post(url, headers={header: value, "Content-Type": "application/json"}, content=b"{}")
            assert answer.status_code == status

    run(scenario())


def test_allowed_hosts_are_loopback_the_bound_address_and_the_named_ones() -> None:
    settings = security("0.0.0.0", ["mailroom"])
    assert {"127.0.0.1:*", "localhost", "mailroom", "mailroom:*"} <= set(settings.allowed_hosts)
    assert "0.0.0.0" not in settings.allowed_hosts
    assert "http://mailroom:*" in settings.allowed_origins
    assert "10.0.0.7:*" in security("10.0.0.7", []).allowed_hosts


# --- help ---


async def _waits(client: Client, channel: str) -> int:
    states = (await call(client, "list_channels"))["channels"]
    return sum(state["waiting"] for state in states if state["channel"] == channel)


async def _until(count: Any, wanted: int) -> None:
    while await count() != wanted:
        await asyncio.sleep(0)


async def _until_true(fact: Any) -> None:
    while not fact():
        await asyncio.sleep(0)


def _rpc(era: str, method: str, number: int, **params: Any) -> dict[str, Any]:
    if era == "2026":
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        }
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def _open_session(http: httpx.AsyncClient, url: str, era: str) -> dict[str, str]:
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    if era == "2026":
        extra = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "wait_for_messages"}
        return headers | extra
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    answer = await http.post(url, headers=headers, json=_rpc(era, "initialize", 1, **params))
    headers |= {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-06-18"}
    await http.post(url, headers=headers, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
    return headers


async def _post_until_dropped(http: httpx.AsyncClient, url: str, headers: dict[str, str], body: dict[str, Any]) -> None:
    async with http.stream("POST", url, headers=headers, json=body) as response:
        async for _ in response.aiter_bytes():
            pass

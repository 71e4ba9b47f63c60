"""Clients other than this SDK's own: the MCP SDK 1.x in an environment of its own, and Pydantic AI."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import portalocker
import pytest
from pydantic_ai import Agent, ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.function import AgentInfo, FunctionModel

from mq_server.mailroom import Mailroom
from mq_server.server import serving
from mq_server.server.tools import TOOLS
from tests.serving import run, stdio_server

MCP1 = "mcp>=1.20,<2"
CLIENT = Path(__file__).with_name("mcp1_client.py")


@pytest.fixture(scope="session")
def mcp1_python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of a virtual environment with the MCP SDK 1.x; made once and kept in pytest's cache."""
    folder = pytestconfig.cache.mkdir("mcp1")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready"
    with portalocker.Lock(folder / "lock", timeout=110):
        if not ready.exists():
            venv.create(folder / "venv", with_pip=True, clear=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", MCP1], check=True)
            ready.touch()
    return python


def _report(python: Path, *arguments: str) -> dict[str, object]:
    finished = subprocess.run(
        [python, CLIENT, *arguments], capture_output=True, encoding="utf-8", timeout=100, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout))


def _check_report(report: dict[str, object]) -> None:
    assert str(report["version"]).startswith("2025")
    assert report["tools"] == [tool.name for tool in TOOLS]
    assert report["waited"]["messages"][0]["id"] == report["posted"]["id"]
    assert report["empty"] == {"messages": [], "timed_out": True, "remaining": 0}
    failed, text = report["wrong"]
    assert failed
    assert "did you mean 'channel'" in text


@pytest.mark.timeout(240)
def test_a_client_of_sdk_1_opens_a_session_per_call_over_http(tmp_path: Path, mcp1_python: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as url:
            _check_report(await asyncio.to_thread(_report, mcp1_python, "http", url))

    run(scenario())


@pytest.mark.timeout(240)
def test_a_client_of_sdk_1_starts_a_server_per_call_over_stdio(tmp_path: Path, mcp1_python: Path) -> None:
    _check_report(_report(mcp1_python, "stdio", str(tmp_path), sys.executable))


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_a_pydantic_ai_agent_answers_its_mail(tmp_path: Path, transport: str) -> None:
    offered: set[str] = set()

    def craft(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        offered.update(tool.name for tool in info.function_tools)
        results = [part for part in messages[-1].parts if part.part_kind == "tool-return"]
        if not results:
            return ModelResponse(parts=[ToolCallPart("wait_for_messages", {"channel": "narrator", "ack": True})])
        if results[-1].tool_name == "wait_for_messages":
            asked = results[-1].content["messages"][0]
            answer = {"reply_to": asked["id"], "msg_type": "narration", "payload": {"text": "Rain, then none."}}
            return ModelResponse(parts=[ToolCallPart("post_message", answer)])
        return ModelResponse(parts=[TextPart(results[-1].content["id"])])

    async def scenario() -> None:
        async with Mailroom(tmp_path) as room:
            asked = await room.post(
                "narrator", sender="scene_director", msg_type="scene_breakdown", payload={"beats": ["rain"]}
            )
            if transport == "http":
                async with serving(tmp_path) as url, MCPToolset(f"{url}?as=narrator") as toolset:
                    answered = (await Agent(FunctionModel(craft), toolsets=[toolset]).run("work")).output
            else:
                from fastmcp.client.transports import StdioTransport

                parameters = stdio_server(tmp_path, "narrator")
                async with MCPToolset(StdioTransport(parameters.command, parameters.args)) as toolset:
                    answered = (await Agent(FunctionModel(craft), toolsets=[toolset]).run("work")).output
            thread = await room.thread(asked.id)
            assert [(m.id, m.sender) for m in thread.messages] == [
                (asked.id, "scene_director"),
                (answered, "narrator"),
            ]
            assert (await room.read("narrator")).messages == ()
        assert offered == {tool.name for tool in TOOLS}

    run(scenario())


def test_the_readme_s_agent_claims_its_mail_and_answers_it(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    block = next(each for each in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "MCPToolset" in each)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)

    def craft(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse(parts=[TextPart("done")])
        asked = str(re.search(r"'id': '(\w+)'", str(messages[0].parts[-1].content))[1])  # type: ignore[index]
        answer = {"reply_to": asked, "msg_type": "note", "payload": {"text": "Rain."}, "dedup_key": f"{asked} answer"}
        return ModelResponse(parts=[ToolCallPart("post_message", answer)])

    async def scenario() -> None:
        async with Mailroom(tmp_path) as room, serving(tmp_path) as url:
            asked = await room.post("narrator", sender="writer", msg_type="note", payload={"text": "What weather?"})
            working = asyncio.create_task(names["work"](FunctionModel(craft), "narrator", url))
            reply = await room.wait("writer", timeout_s=20)
            assert [message.reply_to for message in reply.messages] == [asked.id]
            while (await room.status(asked.id)).progress[0].state != "acked":
                await asyncio.sleep(0.01)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    run(scenario())

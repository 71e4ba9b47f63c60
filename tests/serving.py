"""Helpers for tests of the server: clients of every kind and transport, all talking to real servers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import StdioServerParameters
from mcp.client import Client
from mcp_types import CallToolResult

from mq_server.mailroom import Mailroom
from mq_server.server import MailroomServer, serving

DEADLINE_S = 30.0
TRANSPORTS = ("memory", "stdio", "http")
ERAS = {"2026": "auto", "2025": "legacy"}


def run(work: Coroutine[Any, Any, Any], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Any:
    """Run a test's coroutine with a deadline, on the event loop that `loop` makes."""

    async def bounded() -> Any:
        async with asyncio.timeout(DEADLINE_S):
            return await work

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(bounded())


@asynccontextmanager
async def connected(
    root: Path, transport: str, era: str = "2026", identity: str | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A client of a server on `root`, over any transport, speaking either protocol."""
    mode = ERAS[era]
    if transport == "memory":
        async with Client(MailroomServer(Mailroom(root), identity).mcp, mode=mode, **options) as client:
            yield client
    elif transport == "stdio":
        async with Client(stdio_server(root, identity), mode=mode, **options) as client:
            yield client
    else:
        async with serving(root) as url, Client(address(url, identity), mode=mode, **options) as client:
            yield client


def stdio_server(root: Path, identity: str | None = None) -> StdioServerParameters:
    """The command that serves one client over stdin and stdout."""
    arguments = ["-m", "mq_server", "--root", str(root), "serve", "--stdio"]
    if identity:
        arguments += ["--as", identity]
    return StdioServerParameters(command=sys.executable, args=arguments)


def address(url: str, identity: str | None) -> str:
    """The URL for a client with an identity."""
    return f"{url}?as={identity}" if identity else url


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a tool call that succeeds."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def failing(client: Client, tool: str, **arguments: Any) -> str:
    """The text of a tool call that fails."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert result.is_error
    return str(result.content[0].text)


def note(text: str) -> dict[str, Any]:
    """Arguments of a post that says something."""
    return {"msg_type": "note", "payload": {"text": text}}

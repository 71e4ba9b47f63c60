"""A client written for the MCP SDK 1.x, run by an interpreter that has it: a fresh session for every call.

Usage: python mcp1_client.py http URL | stdio ROOT SERVER_PYTHON
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


@asynccontextmanager
async def session(transport, target, server_python):
    if transport == "http":
        async with (
            streamablehttp_client(f"{target}?as=narrator") as (read, write, _),
            ClientSession(read, write) as client,
        ):
            yield client
    else:
        arguments = ["-m", "mq_server", "--root", target, "serve", "--stdio", "--as", "narrator"]
        parameters = StdioServerParameters(command=server_python, args=arguments)
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as client:
            yield client


async def main(transport, target, server_python):
    async def call(tool, arguments):
        async with session(transport, target, server_python) as client:
            info = await client.initialize()
            result = await client.call_tool(tool, arguments)
            return info.protocolVersion, result

    said = {"channel": "narrator", "msg_type": "note", "payload": {"text": "from 1.x"}}
    version, posted = await call("post_message", said)
    _, waited = await call("wait_for_messages", {"channel": "narrator", "ack": True})
    _, empty = await call("wait_for_messages", {"channel": "narrator", "timeout_s": 0})
    _, wrong = await call("post_message", {"chanel": "narrator"})
    async with session(transport, target, server_python) as client:
        await client.initialize()
        tools = [tool.name for tool in (await client.list_tools()).tools]
    report = {
        "version": version,
        "tools": tools,
        "posted": posted.structuredContent,
        "waited": waited.structuredContent,
        "empty": empty.structuredContent,
        "wrong": [wrong.isError, wrong.content[0].text],
    }
    print(json.dumps(report))


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))

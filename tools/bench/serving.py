"""Rows about the ways in: MCP over HTTP beside a tool that does nothing, and `mq post` beside a bare interpreter.

The empty tool is served by the same SDK with the same settings and the same list of tools, so the difference is ours.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tools.bench import posting
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, payload
from tools.bench.floor import line_of
from tools.bench.measuring import (
    FLOOR,
    NATS,
    OURS,
    REDIS,
    SQLITE,
    Figure,
    Row,
    Sample,
    Site,
    WrongResult,
    check,
    percentiles,
)
from tools.bench.posting import CALLERS, ids_in

_START_S = 30.0
_TOOL = "post_message"
_WARM_UP_CALLS = 5
_RUNS = 20
_RATE = Figure("per_s", "calls/s", more_is_better=True)
_EMPTY = "a tool that does nothing"
Serve = Callable[[Path, Connection], None]
"""Serves a folder and sends its URL; runs in a process of its own until that is ended."""


def serve_mailroom(folder: Path, pipe: Connection) -> None:
    """Our server."""
    from mq_server.server import run_http

    _run(run_http(folder, port=0, started=pipe.send))


def serve_empty_tool(_: Path, pipe: Connection) -> None:
    """A server whose tools do nothing."""
    _run(_serve_empty_tool(pipe))


def _run(serving: Coroutine[Any, Any, None]) -> None:
    """Serve on the event loop that `mq serve` takes."""
    from mq_server.server.http import fast_loop

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(serving)


async def _serve_empty_tool(pipe: Connection) -> None:
    import uvicorn
    from mcp.server.lowlevel import Server
    from mcp_types import CallToolResult, ListToolsResult, TextContent

    from mq_server.server.http import MCP_PATH, application, security
    from mq_server.server.tools import TOOLS

    async def list_tools(*_: Any) -> ListToolsResult:
        return ListToolsResult(tools=list(TOOLS))

    async def call_tool(*_: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(text="{}")], structured_content={"id": "", "messages": []})

    server: Server[Any] = Server(
        "empty",
        get_tool_input_schema=lambda _: None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    server.middleware.clear()
    app = application(server, security("127.0.0.1", ()))
    config = uvicorn.Config(app, log_config=None, access_log=False)
    # Event loops turn Nagle's delays off for sockets that say they are TCP; those of `socket.create_server` do not.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        pipe.send(f"http://127.0.0.1:{listener.getsockname()[1]}{MCP_PATH}")
        await uvicorn.Server(config).serve([listener])


@contextmanager
def _served(serve: Serve, folder: Path) -> Iterator[str]:
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(folder, there))
    process.start()
    try:
        if not here.poll(_START_S):
            raise WrongResult("the server did not start")
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def measure_calls(serve: Serve, clients: int, calls: int, stored: bool, site: Site) -> Sample:
    """Calls per second of `post_message` by some clients, each with one session."""
    with _served(serve, site.folder) as url:
        answers, elapsed_s = asyncio.run(_calls(url, clients, site.count(calls) // clients))
    if stored:
        check(answers, ids_in(site.folder))
    return {"per_s": (len(answers) - clients * _WARM_UP_CALLS) / elapsed_s}


async def _calls(url: str, clients: int, each: int) -> tuple[list[str], float]:
    from mcp.client import Client
    from mcp_types import CallToolResult

    answers: list[str] = []

    async def call(client: Client, number: int) -> None:
        arguments = {"channel": CHANNELS[0], "sender": SENDER, "msg_type": MSG_TYPE, "payload": payload(number)}
        result = await client.call_tool(_TOOL, arguments)
        if not isinstance(result, CallToolResult) or result.is_error or not isinstance(result.structured_content, dict):
            raise WrongResult(f"a call failed: {result}")
        answers.append(result.structured_content["id"])

    ready = asyncio.Barrier(clients)
    starts: list[float] = []
    stops: list[float] = []

    async def work(caller: int) -> None:
        async with Client(url) as client:
            for number in range(_WARM_UP_CALLS):
                await call(client, number)
            await ready.wait()
            starts.append(time.perf_counter())
            for number in range(each):
                await call(client, caller * each + number)
            stops.append(time.perf_counter())

    await asyncio.gather(*map(work, range(clients)))
    return answers, max(stops) - min(starts)


def measure_command(arguments: list[str], stored: bool, site: Site) -> Sample:
    """How long a whole process takes, from start to end; the first one is not counted.

    All find their modules compiled, as those of an installed package are, whatever PYTHONDONTWRITEBYTECODE says here.
    """
    runs = site.count(_RUNS)
    seconds = []
    before = set(ids_in(site.folder))
    with tempfile.TemporaryDirectory() as compiled:
        environment = os.environ | {"MQ_ROOT": str(site.folder), "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(-1, runs):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
    if stored and len(set(ids_in(site.folder)) - before) != runs + 1:
        raise WrongResult("a command's message is not in the mailbox")
    return percentiles(seconds[1:])


def measure_client(kind: posting.Kind, program: str, site: Site) -> Sample:
    """How long a process takes that posts one message to a peer, from start to end."""
    with kind.served(site.folder, True) as served:
        line = line_of(0).decode()
        sample = measure_command(["-c", program, str(site.folder), CHANNELS[0], line], False, site)
        if len(served.ids()) != site.count(_RUNS) + 1:
            raise WrongResult("a client's message is not there")
    return sample


_CLIENTS = {
    REDIS: """
import sys, redis
redis.Redis(unix_socket_path=sys.argv[1] + "/redis.sock").xadd(sys.argv[2], {"line": sys.argv[3]})
""",
    NATS: """
import asyncio, sys, nats
async def main():
    client = await nats.connect(open(sys.argv[1] + "/nats.url").read())
    await client.jetstream().publish("mail." + sys.argv[2], sys.argv[3].encode())
    await client.close()
asyncio.run(main())
""",
    SQLITE: """
import sys, sqlite3
with sqlite3.connect(sys.argv[1] + "/mail.db") as database:
    database.execute("INSERT INTO mail (channel, line) VALUES (?, ?)", sys.argv[2:])
""",
}
_KINDS = {REDIS: posting.REDIS_POSTS, NATS: posting.NATS_POSTS, SQLITE: posting.SQLITE_POSTS}
POST = ["-m", "mq_server", "post", CHANNELS[0], "--sender", SENDER, "--type", MSG_TYPE, "--text", payload(0)["text"]]

ROWS = (
    Row(
        name="mcp",
        title="MCP post over HTTP, one client",
        chapter="The ways in",
        figures=(_RATE,),
        contenders={
            OURS: partial(measure_calls, serve_mailroom, 1, 500, True),
            FLOOR: partial(measure_calls, serve_empty_tool, 1, 500, False),
        },
        floor=_EMPTY,
    ),
    Row(
        name="mcp-8",
        title=f"MCP post over HTTP, {CALLERS} clients",
        chapter="The ways in",
        figures=(_RATE,),
        contenders={
            OURS: partial(measure_calls, serve_mailroom, CALLERS, 1_000, True),
            FLOOR: partial(measure_calls, serve_empty_tool, CALLERS, 1_000, False),
        },
        floor=_EMPTY,
    ),
    Row(
        name="command",
        title="`mq post`, the whole process",
        chapter="The ways in",
        figures=(Figure("p50_ms", "ms", "p50"),),
        contenders={
            OURS: partial(measure_command, POST, True),
            FLOOR: partial(measure_command, ["-c", "pass"], False),
        }
        | {name: partial(measure_client, kind, _CLIENTS[name]) for name, kind in _KINDS.items()},
        floor="a Python interpreter that does nothing",
        peers=dict.fromkeys(_KINDS, "a Python process that connects, posts one message durably and ends"),
    ),
)

"""Where the time of an MCP call goes: `python -m tools.bench.calls`.

Processor time of the server over HTTP, per call: of the mailroom, of its façade within that, and of the same server
with a tool that does nothing, which is what HTTP, the protocol and the SDK cost. A session is a client that connects,
posts once and leaves. The client's own time, which is longer, is not counted.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mcp.client import Client

from mq_server.mailroom import Mailroom
from tools.bench.corpus import CHANNELS, MSG_TYPE, SENDER, payload
from tools.bench.serving import Serve, serve_empty_tool, serve_mailroom

_ROUNDS, _CALLS = 7, 50
_MODES = {"2026": "auto", "2025": "legacy"}
_MAILBOX = {"channel": CHANNELS[0], "reader": CHANNELS[0]}
_TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "post": ("post_message", {"channel": CHANNELS[0], "sender": SENDER, "msg_type": MSG_TYPE, "payload": payload(0)}),
    "read 10": ("read_messages", _MAILBOX | {"limit": 10}),
    "wait, and ack one": ("wait_for_messages", _MAILBOX | {"limit": 1, "ack": True}),
}
Times = Callable[[], tuple[float, float]]
"""Seconds of processor time so far: of the server, and of the façade within it."""


def _serve(serve: Serve, folder: Path, pipe: Connection) -> None:
    within_s = 0.0

    def timed(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def measured(*arguments: Any, **options: Any) -> Any:
            nonlocal within_s
            started = time.thread_time()
            try:
                return await method(*arguments, **options)
            finally:
                within_s += time.thread_time() - started

        return measured

    def tell() -> None:
        while pipe.recv():
            pipe.send((time.process_time(), within_s))

    for name in ("post", "read", "wait"):
        setattr(Mailroom, name, timed(getattr(Mailroom, name)))
    threading.Thread(target=tell, daemon=True).start()
    serve(folder, pipe)


@contextmanager
def _served(serve: Serve, folder: Path) -> Iterator[tuple[str, Times]]:
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(serve, folder, there))

    def times() -> tuple[float, float]:
        here.send(True)
        both: tuple[float, float] = here.recv()
        return both

    process.start()
    try:
        yield here.recv(), times
    finally:
        process.terminate()
        process.join()


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> None:
    result = await client.call_tool(tool, arguments)
    assert not getattr(result, "is_error", True), result


async def _per_call(times: Times, work: Callable[[], Awaitable[None]], calls: int) -> tuple[float, float]:
    """Microseconds of the server and of the façade for each call; the first one is not counted."""
    await work()
    server_s, facade_s = times()
    for _ in range(calls):
        await work()
    then_server_s, then_facade_s = times()
    return (then_server_s - server_s) / calls * 1e6, (then_facade_s - facade_s) / calls * 1e6


async def _round(url: str, times: Times, mode: str) -> dict[str, tuple[float, float]]:
    found = {}

    async def session() -> None:
        async with Client(url, mode=mode) as client:
            await _call(client, *_TOOLS["post"])

    async with Client(url, mode=mode) as client:
        for what, (tool, arguments) in _TOOLS.items():
            found[what] = await _per_call(times, functools.partial(_call, client, tool, arguments), _CALLS)
    found["session, with a post"] = await _per_call(times, session, _CALLS // 5)
    return found


async def _measure(ours: tuple[str, Times], floor: tuple[str, Times]) -> None:
    print("| call | protocol | µs | façade | SDK and HTTP | the rest |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for era, mode in _MODES.items():
        rounds = [(await _round(*ours, mode), await _round(*floor, mode)) for _ in range(_ROUNDS)]
        for what in rounds[0][0]:
            server, facade = min(mine[what] for mine, _ in rounds)
            empty = min(other[what][0] for _, other in rounds)
            shares = (facade, empty, max(0.0, server - facade - empty))
            print(f"| {what} | {era} | {server:,.0f} | {' | '.join(f'{share / server:.0%}' for share in shares)} |")


def main() -> None:
    """Measure in a folder of its own, and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with _served(serve_mailroom, root / "ours") as ours, _served(serve_empty_tool, root / "empty") as floor:
            asyncio.run(_measure(ours, floor))


if __name__ == "__main__":
    main()

"""What the tests of the monitor share: a served production, and a reader of its events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx

from mq_server.message import encode_line
from mq_server.server import serving
from tests.rendering import everything_hostile


class Event(NamedTuple):
    """A server-sent event."""

    name: str
    place: str
    content: dict[str, Any]


@asynccontextmanager
async def monitored(root: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the monitor of `root`."""
    async with serving(root, **options) as url, client(url) as http:
        yield http


@contextmanager
def background(root: Path, **options: Any) -> Iterator[str]:
    """A server on a thread of its own, which starts sooner than a process; gives its URL."""
    up: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        try:
            async with serving(root, **options) as url:
                stop = asyncio.Event()
                up.set_result((url, asyncio.get_running_loop(), stop))
                await stop.wait()
        finally:
            if not up.done():
                up.cancel()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(asyncio.run, serve())
        url, loop, stop = up.result(30)
        try:
            yield url
        finally:
            loop.call_soon_threadsafe(stop.set)
            ended.result(30)


def client(url: str) -> httpx.AsyncClient:
    """A client of the server with that MCP address."""
    return httpx.AsyncClient(base_url=url.removesuffix("/mcp"), timeout=20)


async def token_of(http: httpx.AsyncClient) -> dict[str, str]:
    """The header that a post needs."""
    return {"X-Mq-Token": (await http.get("/api/session")).json()["token"]}


@asynccontextmanager
async def events(
    http: httpx.AsyncClient, last: str | None = None, **parameters: str
) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a stream, as they come."""
    headers = {"Last-Event-ID": last} if last else {}
    async with http.stream("GET", "/events", headers=headers, params=parameters) as response:
        assert response.status_code == 200
        yield _parsed(response)


async def _parsed(response: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


async def heard(stream: AsyncIterator[Event], name: str = "messages") -> Event:
    """The next event of that name."""
    while True:
        event = await anext(stream)
        if event.name == name:
            return event


def write_hostile(root: Path, text: str) -> int:
    """Write messages with a text wherever a text can stand, as an editor would; how many there are."""
    root.mkdir(parents=True, exist_ok=True)
    messages = everything_hostile(text)
    with (root / "narrator.jsonl").open("ab") as file:
        file.writelines(encode_line(message.stored()) for message in messages)
    return len(messages)

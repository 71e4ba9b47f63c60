"""Streamable HTTP and the monitor: the ASGI application, who may reach it, a shutdown that does not wait for waits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from mq_server.errors import MailError
from mq_server.mailroom import Mailroom
from mq_server.monitor import Monitor

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from starlette.applications import Starlette
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mq_server.server import MailroomServer

MCP_PATH = "/mcp"
DEFAULT_PORT = 8004
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_SESSION_IDLE_S = 600.0
_GRACE_S = 1


class _Uvicorn(uvicorn.Server):
    """uvicorn, whose shutdown first answers the open waits it would otherwise wait for."""

    def __init__(
        self, config: uvicorn.Config, server: MailroomServer, monitor: Monitor, url: str, *, takes_signals: bool
    ) -> None:
        super().__init__(config)
        self.url = url
        self.up = asyncio.Event()
        self._server = server
        self._monitor = monitor
        self._takes_signals = takes_signals

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if self._takes_signals:
            with super().capture_signals():
                yield
        else:
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._monitor.close()
        self._server.end_waits()
        await super().shutdown(sockets)


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop for serving: uvloop, which serves more calls a second; None where it does not exist,
    as on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def security(host: str, allow_hosts: Sequence[str]) -> TransportSecuritySettings:
    """Which Host and Origin headers are answered: loopback, the bound address, and the names that were allowed.

    Args:
        host: The address bound to.
        allow_hosts: Further names under which clients reach this server, such as a container's.
    """
    names = [*_LOOPBACK, *allow_hosts]
    if host not in ("0.0.0.0", "::", *_LOOPBACK):
        names.append(f"[{host}]" if ":" in host else host)
    return TransportSecuritySettings(
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[f"http://{form}" for name in names for form in (name, f"{name}:*")],
    )


def application(mcp: Server[Any], allowed: TransportSecuritySettings, routes: Iterable[Route] = ()) -> Starlette:
    """The ASGI application that serves MCP at `MCP_PATH`.

    A call is answered with plain JSON: the event stream that the SDK would open for each one adds 45 to 80% to what an
    empty call costs, and nothing but the answer would come by it. Streams for what a client subscribed to remain.

    Args:
        mcp: The server.
        allowed: The Host and Origin headers that are answered on its path.
        routes: What is served beside it, which guards itself.
    """
    return mcp.streamable_http_app(
        streamable_http_path=MCP_PATH,
        json_response=True,
        transport_security=allowed,
        session_idle_timeout=_SESSION_IDLE_S,
        custom_starlette_routes=list(routes),
    )


def _with_ends(app: ASGIApp) -> ASGIApp:
    """The application, whose event streams end as a response should when a shutdown ends them.

    The SDK's stream of a 2025 session just stops then, which its client would take for a broken connection and uvicorn
    logs as an error.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        unended = False

        async def watched(message: Message) -> None:
            nonlocal unended
            unended = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        await app(scope, receive, watched)
        if unended:
            await send({"type": "http.response.body"})

    return served


async def run_http(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    allow_hosts: Sequence[str] = (),
    identity: str | None = None,
    read_only: bool = False,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve a production over streamable HTTP until SIGINT or SIGTERM.

    Args:
        root: The production's folder.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        allow_hosts: Names under which others reach this server, beyond loopback.
        identity: Who every caller is that does not say `?as=`.
        read_only: Whether the monitor only shows.
        started: Called with the URL once the server listens.

    Raises:
        ConfigError: The production's mq.toml cannot be used.
        InvalidName: `identity` is no valid name.
        OSError: The address is taken or not ours.
    """
    running = _running(root, host, port, allow_hosts, identity, takes_signals=True, read_only=read_only)
    async with running as (uvicorn_server, task):
        # What stands after the start stays to the end: a collection that looked at it too would stop every call for
        # 60 ms instead of 25.
        gc.freeze()
        if started is not None:
            started(uvicorn_server.url)
        await task


@contextlib.asynccontextmanager
async def serving(
    root: Path, *, identity: str | None = None, read_only: bool = False, port: int = 0
) -> AsyncIterator[str]:
    """A server on a free loopback port for as long as the context lasts, which gives its URL.

    Args:
        root: The production's folder.
        identity: Who every caller is that does not say `?as=`.
        read_only: Whether the monitor only shows.
        port: The port; 0 takes a free one.
    """
    running = _running(root, "127.0.0.1", port, (), identity, takes_signals=False, read_only=read_only)
    async with running as (uvicorn_server, _):
        yield uvicorn_server.url


@contextlib.asynccontextmanager
async def _running(
    root: Path,
    host: str,
    port: int,
    allow_hosts: Sequence[str],
    identity: str | None,
    *,
    takes_signals: bool,
    read_only: bool,
) -> AsyncIterator[tuple[_Uvicorn, asyncio.Task[None]]]:
    from mq_server.server import MailroomServer

    server = MailroomServer(Mailroom(root), identity)
    allowed = security(host, allow_hosts)
    monitor = Monitor(server.room, allowed, read_only=read_only)
    config = uvicorn.Config(
        _with_ends(application(server.mcp, allowed, monitor.routes)),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_S,
    )
    with _listen(host, port) as listener:
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        url = f"http://{shown}:{listener.getsockname()[1]}{MCP_PATH}"
        uvicorn_server = _Uvicorn(config, server, monitor, url, takes_signals=takes_signals)
        task = asyncio.create_task(uvicorn_server.serve([listener]))
        up = asyncio.create_task(uvicorn_server.up.wait())
        try:
            await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                await task
                raise MailError("The server did not start; its log says why")
            yield uvicorn_server, task
        finally:
            up.cancel()
            uvicorn_server.should_exit = True
            await task


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; uvicorn's own way would end the process when the address is taken."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if socket.has_dualstack_ipv6() and family == socket.AF_INET6 and host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{error.strerror}; choose another --port", f"{host}:{port}") from error
    return listener

"""The MCP server: eight tools, resources, prompts, over stdio and streamable HTTP, for clients of both protocol eras.

`tools` holds what models see, `arguments` checks calls, `calls` carries them out, `resources` serves what clients show
to people, `http` and this module connect it all to a transport. The SDK's low-level server is used, since its
high-level one makes its own schemas and error texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import SERVER_INFO_META_KEY, CallToolRequestParams, ListToolsResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mq_server import __version__
from mq_server.mailroom import Mailroom
from mq_server.names import check_name
from mq_server.server.calls import call_tool
from mq_server.server.resources import Resources
from mq_server.server.tools import TOOLS

_NEVER_CHANGES = ("server/discover", "tools/list")

__all__ = ["MailroomServer", "fast_loop", "run_http", "run_stdio", "serving"]


class MailroomServer:
    """A production's mailroom as an MCP server.

    Args:
        room: The production. It is closed when the transport ends.
        identity: Who every caller is, unless the address says so (`?as=`).
    """

    def __init__(self, room: Mailroom, identity: str | None = None) -> None:
        self.room = room
        self.resources = Resources(room)
        self._identity = None if identity is None else check_name("as", identity)
        self._answered: dict[tuple[str, str], HandlerResult] = {}
        """What never changes, as it goes over the wire, by method and version of the protocol."""
        resources = self.resources
        self.mcp: Server[None] = Server(
            "mq-server",
            version=__version__,
            title="mq-server",
            description="The mailroom of a production: channels, threads, activity, search on plain files",
            instructions="Call list_channels first. Wait for work with wait_for_messages on your own channel, answer "
            "with post_message and reply_to, and acknowledge with ack what you have done.",
            lifespan=self._lifespan,
            get_tool_input_schema=lambda _: None,  # none says that HTTP headers repeat some of the arguments
            on_list_tools=self._list_tools,
            on_list_resources=resources.list,
            on_list_resource_templates=resources.templates,
            on_read_resource=resources.read,
            on_subscribe_resource=resources.subscribe,
            on_unsubscribe_resource=resources.unsubscribe,
            on_subscriptions_listen=resources.listen,
            on_list_prompts=resources.prompts,
            on_get_prompt=resources.prompt,
            on_completion=resources.complete,
        )
        self._modern = {"resultType": "complete", "_meta": {SERVER_INFO_META_KEY: self.mcp.server_info_stamp}}
        """What an answer of the 2026 protocol has besides."""
        self.mcp.middleware[:] = [self._answer]  # the SDK's own one traces calls, which nobody collects here

    def end_waits(self) -> None:
        """Answer every open wait and end every listening stream, so that the transport can close."""
        self.room.end_waits()
        self.resources.close()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Server[None]) -> AsyncIterator[None]:
        announcing = asyncio.create_task(self.resources.announce_changes())
        try:
            yield
        finally:
            self.end_waits()
            announcing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await announcing
            await self.room.close()

    async def _list_tools(self, _: ServerRequestContext[None, Any], __: Any) -> ListToolsResult:
        return ListToolsResult(tools=list(TOOLS))

    async def _answer(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Answer calls of tools, and give what never changes as it was made the first time: every session asks for it.

        A call goes past the SDK's handlers, which would check an answer against the protocol's models and copy it
        twice: a sixth of what it costs to read ten messages. Nor is a client of the older protocols refused here that
        has not shaken hands yet: no call depends on it.
        """
        if ctx.method == "tools/call":
            return await self._call_tool(ctx)
        if ctx.method not in _NEVER_CHANGES or (ctx.params or {}).keys() - {"_meta"}:
            return await call_next(ctx)
        key = ctx.method, ctx.protocol_version
        if key not in self._answered:
            self._answered[key] = await call_next(ctx)
        return self._answered[key]

    async def _call_tool(self, context: ServerRequestContext[None, Any]) -> dict[str, Any]:
        params = CallToolRequestParams.model_validate(context.params or {}, by_name=False)
        identity, request = self._identity, context.request
        if request is not None and request.scope["query_string"]:
            identity = request.query_params.get("as") or identity
        receive = None if request is None else request.receive
        answer = await call_tool(self.room, params.name, params.arguments or {}, identity=identity, receive=receive)
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            answer |= self._modern
        return answer


async def run_stdio(root: Path, *, identity: str | None = None) -> None:
    """Serve one client over stdin and stdout until it closes them.

    Args:
        root: The production's folder.
        identity: Who the client is.

    Raises:
        ConfigError: The production's mq.toml cannot be used.
        InvalidName: `identity` is no valid name.
    """
    from mcp.server.stdio import stdio_server

    server = MailroomServer(Mailroom(root), identity)
    gc.freeze()  # as in run_http
    async with stdio_server() as (read_stream, write_stream):
        await server.mcp.run(read_stream, write_stream, server.mcp.create_initialization_options())


from mq_server.server.http import fast_loop, run_http, serving  # noqa: E402 - they build on MailroomServer

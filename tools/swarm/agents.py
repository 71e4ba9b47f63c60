"""The members of the swarm: a loop that waits for mail, and for agents a model that thinks only when mail has come.

The loop is the harness. It calls `wait_for_messages` itself, so an idle agent costs no model turn, and acknowledges
mail with the wait that follows the work, so a crash in between gets it delivered again. The model is a
`FunctionModel`: a script in the place of a language model. Its tool calls are real, over MCP, and any model could take
its place.
"""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx2
from fastmcp.exceptions import ToolError
from mcp import MCPError
from pydantic_ai import Agent, RunContext
from pydantic_ai.mcp import CallToolFunc, MCPToolset, ToolResult
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from mq_server.errors import MailError
from tools.swarm import story
from tools.swarm.conversation import Conversation, Draft, Mail
from tools.swarm.roles import ROLES, WRITER

_WAIT_S = 25
_THREAD = "get_conversation_thread"
_POST = "post_message"


class PlayFailed(MailError):
    """A play that can't go on."""


class Refused(PlayFailed):
    """The server refused a tool call."""

    def __init__(self, member: str, tool: str, reason: str) -> None:
        super().__init__(f"{member} called {tool} and was refused: {reason}")


class Unreachable(PlayFailed):
    """The server can't be connected to, or went away."""

    def __init__(self, member: str, url: str, reason: str) -> None:
        super().__init__(f"{member} has no connection to {url}: {reason.rstrip('.')}. Is `mq serve` running there?")


class Member:
    """Somebody with a mailbox: a connection of their own and the loop that waits on it.

    Args:
        name: Their channel, and the identity they connect with.
        url: The server's MCP address.
        report: Told a line about each message they post.
        pace_s: Seconds between getting a message and answering it.
    """

    def __init__(self, name: str, url: str, report: Callable[[str], None], pace_s: float) -> None:
        self.name = name
        self.state = "connecting"
        """What they are doing, for whoever wonders why the play doesn't go on."""
        self._role = ROLES[name]
        self._awaits: tuple[str, ...] = ()
        self._correspondent = ""
        self._finished: set[str | None] = set()
        self._report = report
        self._pace_s = pace_s
        self._url = f"{url}{'&' if '?' in url else '?'}{urlencode({'as': name})}"
        self._toolset: MCPToolset[None] = MCPToolset(
            self._url,
            id=name,
            tool_error_behavior="error",
            process_tool_call=self._call_for_model,
        )

    async def play(self, brief: asyncio.Future[str]) -> None:
        """Answer mail until a scene is final.

        Args:
            brief: The id of the brief that scene has to come from; other productions' endings don't end this one.

        Raises:
            Refused: The server refused a call.
            Unreachable: There is no server, or no longer.
        """
        done: list[str] = []
        async with self._connected():
            while not (brief.done() and brief.result() in self._finished):
                missing = f"; still missing: {', '.join(self._awaits)}" if self._awaits else ""
                self.state = f"waiting for mail in {self.name}{missing}"
                settled = {"ack": done} if done else {}
                mail = await self._call("wait_for_messages", {"channel": self.name, "timeout_s": _WAIT_S, **settled})
                done = []
                for message in mail["messages"]:
                    await self._take(message)
                    done.append(message["id"])
            await self._call("read_messages", {"channel": self.name, "ack": done, "limit": 1})
        self.state = "done"

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        try:
            await self._toolset.__aenter__()
        except RuntimeError as failure:  # what its client raises for a connection it can't make
            raise Unreachable(self.name, self._url, str(failure)) from failure
        try:
            try:
                yield
            finally:
                await self._toolset.__aexit__()
        except httpx2.HTTPError as failure:  # a session whose server is gone says so when it is closed
            raise Unreachable(self.name, self._url, str(failure)) from failure

    async def _take(self, message: Mapping[str, Any]) -> None:
        """Do what a message asks for."""
        mail = Mail.read(message)
        self._correspondent = mail.sender
        self.state = f"answering {mail.msg_type} from {mail.sender}"
        if mail.msg_type in self._role.heeds:
            await asyncio.sleep(self._pace_s)
            await self._answer(mail, message)
        if mail.msg_type == "finalize":
            self._finished.add(mail.payload.get("brief"))

    async def _answer(self, mail: Mail, message: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _decide(self, mail: Mail, pages: Sequence[Mapping[str, Any]], posted: Sequence[str]) -> tuple[str, Any] | None:
        """The next tool call that a message asks for, as name and arguments; None when all is done.

        Args:
            mail: The message.
            pages: The pages of its thread read so far, newest first.
            posted: The ids of what has been posted about it since.
        """
        if not pages:
            return _THREAD, {"message_id": mail.id}
        if pages[-1]["remaining"]:
            return _THREAD, {"message_id": mail.id, "before": pages[-1]["next"]}
        talk = Conversation(Mail.read(message) for page in pages for message in page["messages"])
        turn = self._role.respond(mail, talk)
        self._awaits = turn.awaits
        following = talk.unposted(self.name, turn, posted)
        return (_POST, _arguments(*following)) if following else None

    async def _call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Call a tool, and report it if it posts."""
        try:
            answer = await self._toolset.direct_call_tool(tool, arguments)
        except (ToolError, MCPError) as refusal:
            raise Refused(self.name, tool, str(refusal)) from refusal
        if tool == _POST:
            msg_type, payload = arguments["msg_type"], arguments["payload"]
            if msg_type == "finalize":
                self._finished.add(payload.get("brief"))
            self._report(f"{self.name} → {self._addressees(arguments)}  {msg_type}: {gist(payload)}")
        return answer

    def _addressees(self, arguments: Mapping[str, Any]) -> str:
        to = arguments.get("channel", self._correspondent)
        if isinstance(to, str):
            return to
        return ", ".join(to) if len(to) < len(ROLES) - 1 else "everyone"

    async def _call_for_model(
        self, context: RunContext[None], call: CallToolFunc, tool: str, arguments: dict[str, Any]
    ) -> ToolResult:
        result: ToolResult = await self._call(tool, arguments)
        return result


class ScriptedAgent(Member):
    """One of the eight: a Pydantic AI agent whose tools are the mailroom's."""

    def __init__(self, name: str, url: str, report: Callable[[str], None], pace_s: float) -> None:
        super().__init__(name, url, report, pace_s)
        self._agent: Agent[None, str] = Agent(
            FunctionModel(self._think, model_name=f"script:{name}"),
            name=name,
            instructions=f"You are {name}. {self._role.description} You get one message of your mailbox at a time.",
            toolsets=[self._toolset],
        )

    async def _answer(self, mail: Mail, message: Mapping[str, Any]) -> None:
        await self._agent.run(json.dumps(message, ensure_ascii=False))

    async def _think(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        """The model: from the mail in the prompt and the results of its tool calls to the next call, or an end."""
        parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
        prompt = next(part.content for part in parts if isinstance(part, UserPromptPart))
        results = [part for part in parts if isinstance(part, ToolReturnPart)]
        call = self._decide(
            Mail.read(json.loads(str(prompt))),
            [part.model_response_object() for part in results if part.tool_name == _THREAD],
            [part.model_response_object()["id"] for part in results if part.tool_name == _POST],
        )
        return ModelResponse([ToolCallPart(*call) if call else TextPart("Answered.")])


class Writer(Member):
    """The human, played: posts the brief, reads along, and has no model."""

    def __init__(self, url: str, report: Callable[[str], None], pace_s: float) -> None:
        super().__init__(WRITER, url, report, pace_s)

    async def commission(self, scene: str) -> str:
        """Post the brief.

        Args:
            scene: The slug that everything said about the scene will bear.

        Returns:
            The brief's id.
        """
        brief = {"channel": "story_architect", "msg_type": "brief", "payload": story.BRIEF, "scene": scene}
        async with self._connected():
            posted = await self._call(_POST, brief)
        return str(posted["id"])

    async def _answer(self, mail: Mail, message: Mapping[str, Any]) -> None:
        pages: list[Mapping[str, Any]] = []
        posted: list[str] = []
        while call := self._decide(mail, pages, posted):
            answer = await self._call(*call)
            if call[0] == _THREAD:
                pages.append(answer)
            else:
                posted.append(answer["id"])


def _arguments(draft: Draft, reply_to: str) -> dict[str, Any]:
    arguments = {"msg_type": draft.msg_type, "payload": draft.payload, "reply_to": reply_to}
    if draft.to:
        arguments["channel"] = draft.to[0] if len(draft.to) == 1 else list(draft.to)
    return arguments


def gist(payload: Mapping[str, Any]) -> str:
    """A payload in a few words, for a person who watches."""
    version = f"v{payload['version']}: " if "version" in payload else ""
    if "score" in payload:
        return f"{version}{payload['score']:.2f}"
    text = payload.get("text", "")
    for unit in ("blocks", "shots", "lines", "directions"):
        if unit in payload:
            last = payload[unit][-1]
            label = last.get("who") or last.get("shot")
            text = f"{len(payload[unit])} {unit}, the last: {f'{label}: ' if label else ''}{last['text']}"
    return textwrap.shorten(version + text, 96, placeholder=" …")

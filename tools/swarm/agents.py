"""The members of the swarm: a loop that waits for mail, and for agents a model that thinks only when mail has come.

The loop is the harness. It calls `wait_for_messages` itself, so an idle agent costs no model turn. It claims a message,
works, and settles it by its lease: acknowledged when it is answered, given back when the work failed, rejected with the
reason when it failed too often. An agent that dies at its work settles nothing; when its lease has run out, another
instance of it gets the message. Every answer is posted under a key made of the message it answers, so work that is done
twice is posted once. Who asks waits for the reply, but not for ever: then it goes back to its mailbox, so that two who
ask each other come to answer, and a late reply comes as mail.

The model is a `FunctionModel`: a script in the place of a language model. Its tool calls are real, over MCP, and any
model could take its place.
"""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
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
_ASK_S = 25
_LEASE_S = 60  # longer than all that work on one message takes, the waiting for a reply included
_TRIES = 3
_PAUSE_S = 1
_THREAD = "get_conversation_thread"
_POST = "post_message"
_QUERY = "query"


class PlayFailed(MailError):
    """A play that can't go on."""


class Refused(PlayFailed):
    """The server refused a tool call."""

    def __init__(self, member: str, tool: str, reason: str) -> None:
        super().__init__(f"{member} called {tool} and was refused: {reason}")


class GaveUp(PlayFailed):
    """A message that could not be answered, however often an agent tried; it stands in `dead_letters`."""

    def __init__(self, member: str, ref: str, reason: str) -> None:
        super().__init__(f"{member} could not answer {ref}, and nobody else will: {reason}")


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
        lease_s: Seconds that a message may take besides; then another instance gets it.
        ask_s: Seconds to wait for the reply to a question.
    """

    def __init__(
        self,
        name: str,
        url: str,
        report: Callable[[str], None],
        pace_s: float,
        *,
        lease_s: float = _LEASE_S,
        ask_s: float = _ASK_S,
    ) -> None:
        self.name = name
        self.state = "connecting"
        """What they are doing, for whoever wonders why the play doesn't go on."""
        self._role = ROLES[name]
        self._awaits: tuple[str, ...] = ()
        self._correspondent = ""
        self._finished: set[str | None] = set()
        self._report = report
        self._pace_s = pace_s
        self._lease_s = lease_s + 2 * pace_s  # one pace for the message, one for the reply to a question about it
        self._ask_s = ask_s
        self._url = f"{url}{'&' if '?' in url else '?'}{urlencode({'as': name})}"
        self._toolset: MCPToolset[None] = MCPToolset(
            self._url,
            id=name,
            tool_error_behavior="error",
            process_tool_call=self._call_for_model,
        )

    async def play(self, brief: asyncio.Future[str]) -> None:
        """Answer mail until a scene is final and no mail is left.

        Args:
            brief: The id of the brief that scene has to come from; other productions' endings don't end this one.

        Raises:
            Refused: The server refused to give mail.
            GaveUp: A message could not be answered.
            Unreachable: There is no server, or no longer.
        """
        claim = {"channel": self.name, "lease_s": self._lease_s, "limit": 1, "timeout_s": _WAIT_S}
        async with self._connected():
            while not (brief.done() and brief.result() in self._finished and await self._is_through()):
                missing = f"; still missing: {', '.join(self._awaits)}" if self._awaits else ""
                self.state = f"waiting for mail in {self.name}{missing}"
                mail = await self._call("wait_for_messages", claim)
                for message in mail["messages"]:
                    try:
                        await self._take(message)
                    except Exception as failure:  # noqa: BLE001 - whatever went wrong, somebody has to hear of it
                        await self._give_back(message, failure)
                    else:
                        await self._settle(message, "ack")
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

    async def _is_through(self) -> bool:
        """Whether nothing is unread, not even a message that a predecessor died over and still has the lease of."""
        here = await self._call("list_channels", {})
        return not any(each["unread"] for each in here["channels"] if each["channel"] == self.name)

    async def _give_back(self, message: Mapping[str, Any], failure: Exception) -> None:
        """Have a message that could not be answered delivered again in a while, or, after some tries, never."""
        reason = textwrap.shorten(f"{type(failure).__name__}: {failure}", 300)
        self._report(f"{self.name} fails at {message['msg_type']} from {message['sender']}: {reason}")
        if message["deliveries"] < _TRIES:
            await self._settle(message, "release", delay_s=_PAUSE_S)
            return
        await self._settle(message, "reject", reason=reason)
        # A scene can't do without this answer. An agent whose work is not one play would go on with its next message.
        raise GaveUp(self.name, message["ref"], reason) from failure

    async def _settle(self, message: Mapping[str, Any], how: str, **options: Any) -> None:
        # What can't be settled, since the lease has run out meanwhile, comes again, here or to another instance. That
        # costs the work once more, and posts nothing more.
        with suppress(Refused):
            await self._call("settle_messages", {"channel": self.name, how: [message["lease"]], **options})

    async def _answer(self, mail: Mail, message: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _decide(self, mail: Mail, results: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[str, Any] | None:
        """The next tool call that a message asks for, as name and arguments; None when all is done.

        Args:
            mail: The message.
            results: The tools called about it so far, with what they answered.
        """
        pages: list[Mapping[str, Any]] = []  # of the thread, newest first
        posted: list[str] = []
        for tool, result in results:
            if tool == _THREAD:
                pages.append(result)
            elif reply := _reply(result):  # which is the mail to think about now
                mail, pages, posted = Mail.read(reply), [], []
            else:
                posted.append(result["id"])
        if not pages:
            return _THREAD, {"message_id": mail.id}
        if pages[-1]["remaining"]:
            return _THREAD, {"message_id": mail.id, "before": pages[-1]["next"]}
        talk = Conversation(Mail.read(message) for page in pages for message in page["messages"])
        turn = self._role.respond(mail, talk)
        self._awaits = turn.awaits
        following = turn.following(posted)
        return (_POST, self._arguments(*following)) if following else None

    def _arguments(self, draft: Draft, reply_to: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {"msg_type": draft.msg_type, "payload": draft.payload, "reply_to": reply_to}
        if draft.to:
            arguments["channel"] = draft.to[0] if len(draft.to) == 1 else list(draft.to)
        if draft.msg_type == _QUERY:
            arguments["wait_reply_s"] = self._ask_s
        return arguments

    async def _call(self, tool: str, arguments: dict[str, Any]) -> Any:
        try:
            return await self._toolset.direct_call_tool(tool, arguments)
        except (ToolError, MCPError) as refusal:
            raise Refused(self.name, tool, str(refusal)) from refusal

    async def _post(self, arguments: dict[str, Any]) -> Any:
        """Post, and report it: beforehand, so that nobody is seen to reply to what has not been said.

        Whoever posts need not think of the key: one message of a type is the answer to another, and a second one,
        after a crash, is the same again.
        """
        msg_type, payload = arguments["msg_type"], arguments["payload"]
        addressees = self._addressees(arguments)
        self._report(f"{self.name} → {addressees}  {msg_type}: {gist(payload)}")
        if "wait_reply_s" in arguments:
            self.state = f"waiting for a reply of {addressees}"
        key = {"dedup_key": f"{arguments['reply_to']} {msg_type}"} if "reply_to" in arguments else {}
        posted = await self._call(_POST, {**arguments, **key})
        if msg_type == "finalize":
            self._finished.add(payload.get("brief"))
        if _reply(posted):
            await asyncio.sleep(self._pace_s)
        return posted

    async def _use(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Call a tool for the work on a message."""
        return await (self._post(arguments) if tool == _POST else self._call(tool, arguments))

    def _addressees(self, arguments: Mapping[str, Any]) -> str:
        to = arguments.get("channel", self._correspondent)
        if isinstance(to, str):
            return to
        return ", ".join(to) if len(to) < len(ROLES) - 1 else "everyone"

    async def _call_for_model(
        self, context: RunContext[None], call: CallToolFunc, tool: str, arguments: dict[str, Any]
    ) -> ToolResult:
        result: ToolResult = await self._use(tool, arguments)
        return result


class ScriptedAgent(Member):
    """One of the eight: a Pydantic AI agent whose tools are the mailroom's."""

    def __init__(self, name: str, url: str, report: Callable[[str], None], pace_s: float = 0.0, **times: float) -> None:
        super().__init__(name, url, report, pace_s, **times)
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
            [(part.tool_name, part.model_response_object()) for part in results],
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
            posted = await self._post(brief)
        return str(posted["id"])

    async def _answer(self, mail: Mail, message: Mapping[str, Any]) -> None:
        results: list[tuple[str, Mapping[str, Any]]] = []
        while call := self._decide(mail, results):
            results.append((call[0], await self._use(*call)))


def _reply(posted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The reply that a question got, if it got one in time."""
    reply: Mapping[str, Any] = posted.get("reply", {})
    return reply if "id" in reply else None


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

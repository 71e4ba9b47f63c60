"""What clients show to people: resources with subscriptions in both protocol eras, prompts, completion."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any
from urllib.parse import unquote

import orjson
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from mq_server.answers import Directory
from mq_server.errors import MailError
from mq_server.mailroom import Mailroom
from mq_server.message import Message

ACTIVITY = "activity://recent"
SCENES = "scenes://"
_MAILBOX, _MESSAGE, _THREAD, _SCHEMA = "mailbox://", "message://", "thread://", "schema://"
_MAX_SESSIONS = 1000
_COMPLETIONS = 100
_JSON, _PLAIN, _SCHEMA_JSON = "application/json", "text/plain", "application/schema+json"
Context = ServerRequestContext[Any, Any]

TEMPLATES = [
    ResourceTemplate(
        name="mailbox",
        uri_template="mailbox://{channel}",
        description="The newest messages of a channel",
        mime_type=_JSON,
    ),
    ResourceTemplate(
        name="thread",
        uri_template="thread://{message_id}",
        description="The conversation a message belongs to, as a transcript",
        mime_type=_PLAIN,
    ),
    ResourceTemplate(
        name="message",
        uri_template="message://{message_id}",
        description="A message, and how far it has come: fetched, claimed, acked, rejected, by whom and when",
        mime_type=_JSON,
    ),
    ResourceTemplate(
        name="scene",
        uri_template="scenes://{scene}",
        description="How a scene stands: versions, scores, open feedback, what is final",
        mime_type=_JSON,
    ),
    ResourceTemplate(
        name="schema",
        uri_template="schema://{msg_type}",
        description="The JSON Schema of a message type's payload",
        mime_type=_SCHEMA_JSON,
    ),
]
PROMPTS = [
    Prompt(
        name="join_production",
        description="Take up your place in a production",
        arguments=[PromptArgument(name="agent", description="who you are", required=True)],
    ),
    Prompt(
        name="catch_up",
        description="Go on after a break or a lost context",
        arguments=[PromptArgument(name="agent", description="who you are", required=True)],
    ),
]


_JOIN = """\
You are {agent!r} in a production whose agents talk through mailboxes. The others:
{others}

Work in a loop: wait_for_messages(channel={agent!r}) gives what is unread; do the work it asks for, answer with
post_message(reply_to=ID, …), then acknowledge it with ack=[ID] in your next wait. What you do not acknowledge comes
again. Push back when you disagree: any agent may write to any other."""

_CATCH_UP = """\
You are {agent!r} and have lost your context. {unread} messages are unread in your mailbox. You last posted:
{said}

Read get_conversation_thread of your last post, then read_messages(channel={agent!r}), and go on. The others:
{others}"""


class Resources:
    """Resources, prompts and completion of one production.

    Args:
        room: The production.
    """

    def __init__(self, room: Mailroom) -> None:
        self._room = room
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus)
        self._sessions: OrderedDict[str, tuple[ServerSession, set[str]]] = OrderedDict()
        self._listening: list[set[str]] = []
        """What the listening streams of the 2026 protocol want to hear of."""
        self._states: dict[str, object] = {}
        """Of the threads and scenes that somebody subscribed to, what they were when last looked at."""

    # --- reading --------------------------------------------------------------------------------------------------

    async def list(self, _: Context, __: Any) -> ListResourcesResult:
        """The mailboxes there are, the recent activity and the scene board."""
        directory = await self._room.directory()
        mailboxes = [
            Resource(
                name=state.channel,
                uri=f"{_MAILBOX}{state.channel}",
                description=state.description or f"The newest messages of {state.channel}",
                mime_type=_JSON,
            )
            for state in directory.channels
        ]
        activity = Resource(
            name="recent activity", uri=ACTIVITY, description="The newest messages everywhere", mime_type=_JSON
        )
        scenes = Resource(
            name="scene board",
            uri=SCENES,
            description="How every scene stands: versions, scores, open feedback, what is final",
            mime_type=_JSON,
        )
        return ListResourcesResult(resources=[activity, scenes, *mailboxes])

    async def templates(self, _: Context, __: Any) -> ListResourceTemplatesResult:
        """The kinds of resources."""
        return ListResourceTemplatesResult(resource_templates=TEMPLATES)

    async def read(self, _: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """One resource.

        Raises:
            MCPError: There is no such resource.
        """
        uri = str(params.uri)
        try:
            text, mime_type = await self._content(uri)
        except MailError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=mime_type, text=text)])

    async def _content(self, uri: str) -> tuple[str, str]:
        if uri.rstrip("/") == ACTIVITY:
            return _json((await self._room.activity()).as_json()), _JSON
        if uri.startswith(_MAILBOX):
            return _json((await self._room.history(_name(uri, _MAILBOX))).as_json()), _JSON
        if uri.startswith(_MESSAGE):
            return _json((await self._room.status(_name(uri, _MESSAGE))).as_json()), _JSON
        if uri.startswith(_THREAD):
            thread = await self._room.thread(_name(uri, _THREAD), limit=1000)
            from mq_server.render.transcript import transcript

            return transcript(thread.messages, thread.depths), _PLAIN
        if uri.startswith(SCENES):
            return _json((await self._room.scenes(_name(uri, SCENES) or None)).as_json()), _JSON
        if uri.startswith(_SCHEMA):
            return _json(await self._room.schema(_name(uri, _SCHEMA))), _SCHEMA_JSON
        known = f"{ACTIVITY}, mailbox://CHANNEL, message://MESSAGE, thread://MESSAGE, {SCENES}, scenes://SCENE, schema://MSG_TYPE"
        raise MailError(f"There is no resource {uri!r}. Resources: {known}")

    # --- subscriptions --------------------------------------------------------------------------------------------

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        """A client of the 2025 protocol wants to hear of a resource."""
        key = _session_key(context)
        _, uris = self._sessions.pop(key, (context.session, set()))
        self._sessions[key] = (context.session, {*uris, str(params.uri)})
        if len(self._sessions) > _MAX_SESSIONS:  # sessions end without a word; the oldest make room
            self._sessions.popitem(last=False)
        await self._note_state(str(params.uri))
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """A client of the 2025 protocol has heard enough."""
        key = _session_key(context)
        _, uris = self._sessions.get(key, (context.session, set()))
        uris.discard(str(params.uri))
        if not uris:
            self._sessions.pop(key, None)
        return EmptyResult()

    async def listen(self, context: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """A client of the 2026 protocol listens."""
        wanted = {str(uri) for uri in params.notifications.resource_subscriptions or ()}
        self._listening.append(wanted)
        try:
            for uri in wanted:
                await self._note_state(uri)
            return await self._listen(context, params)
        finally:
            self._listening.remove(wanted)

    async def announce_changes(self) -> None:
        """Tell subscribers what changed, until cancelled."""
        known = {state.channel for state in (await self._room.directory()).channels}
        async with self._room.changes() as changes:
            while True:
                channels = await changes.changed(None)
                if not channels:
                    return
                made = not channels <= known
                known |= channels
                if not self._listening and not self._sessions:
                    continue  # as a rule nobody does, and every post comes by here
                uris = {ACTIVITY, *(f"{_MAILBOX}{channel}" for channel in channels)}
                for uri in sorted(uris | await self._changed_states()):
                    await self._bus.publish(ResourceUpdated(uri=uri))
                    for session, wanted in list(self._sessions.values()):
                        if uri in wanted:
                            await session.send_resource_updated(uri)
                if made:
                    await self._bus.publish(ResourcesListChanged())

    def close(self) -> None:
        """End the streams of listening clients."""
        self._listen.close()

    async def _note_state(self, uri: str) -> None:
        if uri.startswith((_THREAD, SCENES)):
            self._states[uri] = await self._state(uri)

    async def _changed_states(self) -> set[str]:
        wanted = set().union(*self._listening, *(uris for _, uris in self._sessions.values()))
        changed = set()
        for uri in wanted & self._states.keys():
            state = await self._state(uri)
            if state != self._states[uri]:
                self._states[uri] = state
                changed.add(uri)
        return changed

    async def _state(self, uri: str) -> object:
        """What differs when a thread or a scene does; None while there is no such thing."""
        try:
            if uri.startswith(_THREAD):
                return (await self._room.thread(_name(uri, _THREAD), limit=1)).total
            return (await self._room.scenes(_name(uri, SCENES) or None)).as_json()
        except MailError:
            return None

    # --- prompts and completion -----------------------------------------------------------------------------------

    async def prompts(self, _: Context, __: Any) -> ListPromptsResult:
        """The prompts."""
        return ListPromptsResult(prompts=PROMPTS)

    async def prompt(self, _: Context, params: GetPromptRequestParams) -> GetPromptResult:
        """One prompt, filled in from the production as it stands.

        Raises:
            MCPError: There is no such prompt, or no agent was named.
        """
        agent = (params.arguments or {}).get("agent", "")
        try:
            directory = await self._room.directory(agent)
        except MailError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
        if params.name == "join_production":
            text = _JOIN.format(agent=agent, others=_others(directory))
        elif params.name == "catch_up":
            unread = next((state.unread for state in directory.channels if state.channel == agent), 0)
            said = (
                "\n".join(f"- {message.ref}: {message.msg_type}" for message in directory.last_posts) or "- nothing yet"
            )
            text = _CATCH_UP.format(agent=agent, others=_others(directory), unread=unread, said=said)
        else:
            raise MCPError(INVALID_PARAMS, f"There is no prompt {params.name!r}. Prompts: join_production, catch_up")
        return GetPromptResult(messages=[PromptMessage(role="user", content=TextContent(text=text))])

    async def complete(self, _: Context, params: CompleteRequestParams) -> CompleteResult:
        """Names of channels, agents, scenes and types, and recent messages, that begin like what was typed."""
        if params.argument.name in ("channel", "agent"):
            values = [state.channel for state in (await self._room.directory()).channels]
        elif params.argument.name == "message_id":
            recent = (await self._room.activity(limit=_COMPLETIONS)).messages
            values = [name for message in reversed(recent) for name in _names_of(message)]
        elif params.argument.name == "scene":
            values = [state.scene for state in (await self._room.scenes()).scenes]
        elif params.argument.name == "msg_type":
            values = list(await self._room.types())
        else:
            values = []
        typed = params.argument.value
        fitting = [value for value in values if value.startswith(typed)]
        shown = fitting[:_COMPLETIONS]
        return CompleteResult(
            completion=Completion(values=shown, total=len(fitting), has_more=len(fitting) > len(shown))
        )


def _others(directory: Directory) -> str:
    others = [state for state in directory.channels if state.channel != directory.you]
    return (
        "\n".join(f"- {state.channel}: {state.description or 'no description'}" for state in others) or "- nobody yet"
    )


def _names_of(message: Message) -> tuple[str, str]:
    return message.id, message.ref


def _name(uri: str, scheme: str) -> str:
    return unquote(uri.removeprefix(scheme)).strip("/")


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode("utf-8")


def _session_key(context: Context) -> str:
    headers = getattr(context.request, "headers", {})
    return str(headers.get("mcp-session-id", ""))

"""What the tools do: each a call of the façade, answered as structured JSON with a text copy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from mq_server.errors import InvalidRequest, MailError
from mq_server.mailroom import Mailroom
from mq_server.names import check_name
from mq_server.server.arguments import check_arguments, with_example
from mq_server.server.tools import BY_NAME

if TYPE_CHECKING:
    from starlette.types import Receive

ANSWER_BYTES = 36_000
"""What the messages of an answer may take: with the rest it stays under 40,000 bytes, where models' clients cut."""


class _Answer(Protocol):
    def as_json(self) -> dict[str, Any]: ...


class Caller:
    """Who calls, and whether they are still there.

    Args:
        name: The identity of the connection, if it has one.
        receive: What tells, over HTTP, that the client has left.
    """

    def __init__(self, name: str | None, receive: Receive | None = None) -> None:
        if name is not None:
            check_name("as", name)
        self.name = name
        self._receive = receive

    async def stays_for(self, work: Awaitable[_Answer]) -> _Answer:
        """The result of `work`, which is cancelled if the caller leaves before.

        Raises:
            MailError: The caller has left.
        """
        if self._receive is None:
            return await work
        receive, loop = self._receive, asyncio.get_running_loop()
        watches: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(None) as stay:
                # The result may be there before the loop has a turn; then nobody looks whether the caller is.
                watching = loop.call_soon(lambda: watches.append(loop.create_task(_end_at_departure(stay, receive))))
                try:
                    return await work
                finally:
                    watching.cancel()
                    for watch in watches:
                        watch.cancel()
        except TimeoutError:
            if not stay.expired():
                raise
            raise MailError("The client has left") from None


async def _end_at_departure(stay: asyncio.Timeout, receive: Receive) -> None:
    """End a stay when the client of a request, which has been read to its end, has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stay.reschedule(asyncio.get_running_loop().time())


async def _list_channels(
    room: Mailroom, caller: Caller, reader: str | None = None, msg_type: str | None = None
) -> _Answer:
    types = await room.types(msg_type) if msg_type else None
    directory = await room.directory(reader or caller.name)
    return directory._replace(types=types) if types else directory


async def _post_message(room: Mailroom, caller: Caller, **arguments: Any) -> _Answer:
    post = room.post(arguments.pop("channel", None), caller=caller.name, **arguments)
    # Only the waiting may be given up: a post that was begun is answered, or stands without an answer.
    return await (caller.stays_for(post) if "wait_reply_s" in arguments else post)


async def _read_messages(room: Mailroom, caller: Caller, **arguments: Any) -> _Answer:
    return await room.read(arguments.pop("channel"), caller=caller.name, limit_bytes=ANSWER_BYTES, **arguments)


async def _wait_for_messages(room: Mailroom, caller: Caller, **arguments: Any) -> _Answer:
    channel = arguments.pop("channel")
    return await caller.stays_for(room.wait(channel, caller=caller.name, limit_bytes=ANSWER_BYTES, **arguments))


async def _settle_messages(room: Mailroom, caller: Caller, **arguments: Any) -> _Answer:
    return await room.settle(arguments.pop("channel"), caller=caller.name, **arguments)


async def _get_channel_history(room: Mailroom, _: Caller, **arguments: Any) -> _Answer:
    return await room.history(arguments.pop("channel"), limit_bytes=ANSWER_BYTES, **arguments)


async def _get_conversation_thread(room: Mailroom, _: Caller, **arguments: Any) -> _Answer:
    return await room.thread(arguments.pop("message_id"), limit_bytes=ANSWER_BYTES, **arguments)


async def _get_all_activity(room: Mailroom, _: Caller, **arguments: Any) -> _Answer:
    return await room.activity(limit_bytes=ANSWER_BYTES, **arguments)


async def _search_messages(room: Mailroom, _: Caller, **arguments: Any) -> _Answer:
    return await room.search(arguments.pop("query"), limit_bytes=ANSWER_BYTES, **arguments)


_CALLS: dict[str, Callable[..., Awaitable[_Answer]]] = {
    "list_channels": _list_channels,
    "post_message": _post_message,
    "read_messages": _read_messages,
    "wait_for_messages": _wait_for_messages,
    "settle_messages": _settle_messages,
    "get_channel_history": _get_channel_history,
    "get_conversation_thread": _get_conversation_thread,
    "get_all_activity": _get_all_activity,
    "search_messages": _search_messages,
}


async def call_tool(
    room: Mailroom,
    name: str,
    arguments: Mapping[str, Any],
    *,
    identity: str | None = None,
    receive: Receive | None = None,
) -> dict[str, Any]:
    """Run a tool. What goes wrong is the answer's text, marked as an error, in our own words.

    Args:
        room: The production.
        name: The tool.
        arguments: As the client sent them.
        identity: Who calls, if the connection knows.
        receive: Of the HTTP request, if it is one: tells when the client has left.

    Returns:
        The answer as it goes over the wire, but for what a version of the protocol adds to every answer.
    """
    if name not in BY_NAME:
        return _failed(f"There is no tool {name!r}. Tools: {', '.join(BY_NAME)}")
    try:
        caller = Caller(identity, receive)
        answer = await _CALLS[name](room, caller, **check_arguments(name, arguments))
    except InvalidRequest as error:
        return _failed(str(error if error.example else with_example(error, name, arguments)))
    except MailError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename or room.root}: {error.strerror or error}. Nothing was lost; try again")
    shown = answer.as_json()
    text = orjson.dumps(shown).decode("utf-8")
    return {"content": [{"type": "text", "text": text}], "isError": False, "structuredContent": shown}


def _failed(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": True}

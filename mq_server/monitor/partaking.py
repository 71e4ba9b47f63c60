"""Taking part: what a person does from the page is done by the façade, as for any agent."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from mq_server.errors import InvalidRequest
from mq_server.mailroom import Mailroom
from mq_server.monitor.guard import body_of
from mq_server.names import DEAD_LETTERS

_BATCH = 500


class Partaking:
    """What the page may do.

    Args:
        room: The production.
    """

    def __init__(self, room: Mailroom) -> None:
        self._room = room

    async def post(self, request: Request) -> dict[str, Any]:
        """Post a message."""
        fields = await body_of(request)
        channel = fields.get("channel")
        if channel is not None and not _is_names(channel):
            raise InvalidRequest(["channel must be a name or a list of names"])
        payload = fields.get("payload")
        if not isinstance(payload, dict):
            raise InvalidRequest(["payload must be a JSON object"])
        posted = await self._room.post(
            channel or None,
            sender=_text(fields, "sender"),
            msg_type=_text(fields, "type"),
            payload=payload,
            reply_to=_text(fields, "reply_to"),
            scene=_text(fields, "scene"),
            dedup_key=_text(fields, "dedup_key"),
        )
        return posted.as_json()

    async def read(self, request: Request) -> dict[str, Any]:
        """Mark messages of a channel as read: those named in `ids`, or everything that is unread now."""
        fields = await body_of(request)
        channel, reader = _text(fields, "channel") or "", _text(fields, "reader")
        if fields.get("ids") is not None:
            settled = await self._room.settle(channel, ack=_ids(fields), reader=reader, caller=reader)
            return settled.as_json()
        count = 0
        while True:
            page = await self._room.read(channel, reader=reader, ack=True, limit=_BATCH, caller=reader)
            count += len(page.messages)
            if not page.remaining or not page.messages:
                return {"channel": channel, "reader": reader, "read": count}

    async def letters(self, request: Request) -> dict[str, Any]:
        """Settle dead letters: reopen what they are about, or acknowledge them as they are."""
        fields = await body_of(request)
        op, caller = _choice(fields, "op", ("reopen", "ack")), _text(fields, "caller")
        if op == "reopen":
            settled = await self._room.settle(DEAD_LETTERS, reopen=_ids(fields), caller=caller)
        else:
            settled = await self._room.settle(DEAD_LETTERS, ack=_ids(fields), reader=DEAD_LETTERS, caller=caller)
        return settled.as_json()

    async def vanished(self, request: Request) -> dict[str, Any]:
        """Decide about what has vanished: append it again, or take it as meant."""
        fields = await body_of(request)
        op, ids = _choice(fields, "op", ("restore", "accept")), _ids(fields)
        decided = await (self._room.restore(ids) if op == "restore" else self._room.accept(ids))
        return {"vanished": [each.as_json() for each in decided]}


def _choice(fields: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = _text(fields, name)
    if value not in choices:
        raise InvalidRequest([f"{name} must be {' or '.join(choices)}"])
    return value


def _ids(fields: dict[str, Any]) -> list[str]:
    ids = fields.get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids) or not ids:
        raise InvalidRequest(["ids must be a list of messages' names"])
    return ids


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest([f"{name} must be a text"])
    return value or None


def _is_names(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))

"""What the page looks up: each a question to the façade, answered as JSON with the fragments that are shown."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from mq_server import __version__
from mq_server.answers import ChannelState, Traffic
from mq_server.errors import InvalidRequest, UnknownType
from mq_server.mailroom import Mailroom
from mq_server.message import Message
from mq_server.monitor.fields import fields_of
from mq_server.monitor.fragments import heading, shown
from mq_server.monitor.guard import Guard
from mq_server.names import DEAD_LETTERS
from mq_server.render.agents import hue_of, initials
from mq_server.render.chart import activity_chart, bars_of
from mq_server.render.html import gauge
from mq_server.render.text import visible_line
from mq_server.scenes import PASS_SCORE

PAGE = 60
"""How many messages the feed loads at a time, unless asked for another number."""
THREAD = 200
"""How many messages of a thread are shown at first, and loaded at a time."""
_BEGINNING = "1970-01-01T00:00:00Z"
_MOST_AGENTS = 40
_LETTERS = 20
_LEAST_CHART, _CHART, _MOST_CHART = 240, 420, 2000


class Lookups:
    """The questions of the page.

    Args:
        room: The production.
        guard: Whose token a session is told.
    """

    def __init__(self, room: Mailroom, guard: Guard) -> None:
        self._room = room
        self._guard = guard

    async def session(self, _: Request) -> dict[str, Any]:
        """What the page needs before anything else; without a token where nobody may post."""
        config = self._room.config
        root = self._room.root.resolve()
        return {
            "token": None if self._guard.read_only else self._guard.token,
            "read_only": self._guard.read_only,
            "production": visible_line(root.parent.name if root.name == "mailboxes" else root.name),
            "version": __version__,
            "roster": list(config.channels),
            "types": await self._room.types(),
            "pass_score": PASS_SCORE,
        }

    async def channels(self, _: Request) -> dict[str, Any]:
        """The channels, as they stand."""
        directory = await self._room.directory()
        return {
            "channels": [_channel(state) for state in directory.channels],
            "problems": len(directory.problems),
        }

    async def feed(self, request: Request) -> dict[str, Any]:
        """A stretch of the timeline, oldest first: the newest, or around `before`, `after`, `at` (a time) or `row`.

        `older` and `newer` say whether it goes on there; `rows` how many rows the chosen channels have, and which of
        them the first and the last message are, whatever else is filtered: the place of the stretch in the whole.
        """
        asked = request.query_params
        channel = asked.getlist("channel") or None
        options: dict[str, Any] = {
            "channel": channel,
            "sender": asked.get("sender") or None,
            "msg_type": asked.get("type") or None,
            "limit": _number(asked.get("limit"), PAGE),
        }
        after = asked.get("after") or asked.get("at")
        if (row := asked.get("row")) is not None:
            above = _number(row, 0) - 1
            after = _BEGINNING if above < 0 else await self._room.id_at(above, channel=channel)
        if after is not None:
            activity = await self._room.activity(since=after, **options)
            newer = activity.more
            first = activity.messages[0].id if activity.messages else after
            older = bool((await self._room.activity(until=first, **options | {"limit": 1})).messages)
        else:
            before = asked.get("before")
            activity = await self._room.activity(until=before, **options)
            older, newer = activity.more, before is not None
        ends = [message.id for message in activity.messages[:1] + activity.messages[-1:]]
        places, total = await self._room.rows_before(ends, channel=channel)
        return {
            "messages": await shown(self._room, activity.messages),
            "older": older,
            "newer": newer,
            "rows": {"total": total, "first": places[0], "last": places[1]} if places else {"total": total},
        }

    async def message(self, request: Request) -> dict[str, Any]:
        """One message in its newest version."""
        message = await self._room.message(_required(request, "id"))
        return (await shown(self._room, [message]))[0]

    async def thread(self, request: Request) -> dict[str, Any]:
        """A conversation around a message: parents before children, each in brief, the chosen one in full.

        A long one comes in parts: the one that holds the message, or what is above `before`, or from `start` on.
        `earlier` and `later` say how many messages are left out on either side.
        """
        asked = request.query_params
        chosen = await self._room.message(_required(request, "id"))
        limit = _number(asked.get("limit"), THREAD)
        before, start = asked.get("before") or None, asked.get("start") or None
        page = await self._room.thread(chosen.id, before=before, start=start, limit=limit)
        parts = [page]
        if before is None and start is None and all(each.id != chosen.id for each in page.messages):
            parts = [
                await self._room.thread(chosen.id, before=chosen.id, limit=limit),
                await self._room.thread(chosen.id, start=chosen.id, limit=limit),
            ]
        messages = [
            heading(message) | {"depth": depth}
            for part in parts
            for message, depth in zip(part.messages, part.depths, strict=True)
        ]
        return {
            "root": page.root,
            "messages": messages,
            "chosen": (await shown(self._room, [chosen]))[0],
            "total": page.total,
            "earlier": parts[0].remaining,
            "later": page.total - parts[0].remaining - len(messages),
            "participants": [_agent(name) for name in page.participants],
            "channels": list(page.channels),
            "missing_parent": page.missing_parent,
        }

    async def form(self, request: Request) -> dict[str, Any]:
        """The fields of a message type, for a form; None where nothing is laid down."""
        try:
            schema = await self._room.schema(_required(request, "type"))
        except UnknownType:
            return {"fields": None}
        return {"fields": fields_of(schema)}

    async def status(self, request: Request) -> dict[str, Any]:
        """How far a message has come."""
        status = await self._room.status(_required(request, "id"))
        return {
            "message": heading(status.message),
            "progress": [each.as_json() | {"hue": hue_of(each.reader)} for each in status.progress],
        }

    async def scenes(self, _: Request) -> dict[str, Any]:
        """The scene board."""
        board = await self._room.scenes()
        found = board.as_json()
        for scene in found["scenes"]:
            for version in scene["versions"]:
                version["gauge"] = None if version["score"] is None else gauge(version["score"])
        return found

    async def traffic(self, request: Request) -> dict[str, Any]:
        """Messages over time as a chart with the place of its bars, and who wrote to whom how often."""
        since, until = request.query_params.get("since"), request.query_params.get("until")
        traffic = await self._room.traffic(since=since or None, until=until or None)
        width = min(max(_number(request.query_params.get("width"), _CHART), _LEAST_CHART), _MOST_CHART)
        return await asyncio.to_thread(_drawn, traffic, width)

    async def search(self, request: Request) -> dict[str, Any]:
        """Messages with all the words, newest first; `next` goes into `until` for older ones."""
        asked = request.query_params
        hits = await self._room.search(
            _required(request, "q"),
            channel=asked.get("channel") or None,
            sender=asked.get("sender") or None,
            msg_type=asked.get("type") or None,
            since=asked.get("since") or None,
            until=asked.get("until") or None,
            limit=_number(asked.get("limit"), 40),
        )
        found = [heading(hit.message) | {"snippet": visible_line(hit.snippet)} for hit in hits.hits]
        return {"hits": found, "next": hits.next}

    async def problems(self, _: Request) -> dict[str, Any]:
        """What is wrong: in the files, vanished, rejected; and whether the watcher looks."""
        vanished = await self._room.vanished()
        directory = await self._room.directory()
        unread = next((state.unread for state in directory.channels if state.channel == DEAD_LETTERS), 0)
        # As somebody else: a look, by which nothing counts as fetched.
        letters = (await self._room.read(DEAD_LETTERS, caller="monitor", limit=_LETTERS)).messages if unread else ()
        lost = {each.id for each in vanished}
        return {
            "damaged": [
                {"path": each.path, "line": each.line, "what": visible_line(each.message)}
                for each in directory.problems
                if not any(each.message.startswith(name) for name in lost)
            ],
            "vanished": [each.as_json() | {"what": visible_line(each.what)} for each in vanished],
            "dead_letters": {"unread": unread, "messages": [_letter(each) for each in letters]},
            "looked_s": self._room.last_look_s(),
        }


def _letter(letter: Message) -> dict[str, Any]:
    channel, reason = letter.payload.get("channel"), letter.payload.get("reason")
    return heading(letter) | {"from": visible_line(str(channel)), "reason": visible_line(str(reason))}


def _channel(state: ChannelState) -> dict[str, Any]:
    return {
        "channel": state.channel,
        "description": visible_line(state.description),
        "group": visible_line(state.group),
        "messages": state.messages,
        "unread": state.unread,
        "waiting": state.waiting,
        "last": None if state.last is None else state.last.timestamp,
    } | _agent(state.channel)


def _agent(name: str) -> dict[str, Any]:
    return {"name": name, "by": visible_line(name), "hue": hue_of(name), "initials": initials(name)}


def _drawn(traffic: Traffic, width: int) -> dict[str, Any]:
    if not traffic.sent:
        return {"total": 0, "chart": "", "bars": None, "agents": [], "channels": [], "pairs": []}
    bars = bars_of(traffic.sent, width)
    sent: dict[str, int] = {}
    received: dict[str, int] = {}
    for (sender, channel), count in traffic.pairs.items():
        sent[sender] = sent.get(sender, 0) + count
        received[channel] = received.get(channel, 0) + count
    agents = sorted(sent, key=lambda name: (-sent[name], name))[:_MOST_AGENTS]
    channels = sorted(received, key=lambda name: (-received[name], name))[:_MOST_AGENTS]
    return {
        "total": len(traffic.sent),
        "chart": activity_chart(traffic.sent, width),
        "bars": bars._asdict(),
        "agents": [_agent(name) | {"sent": sent[name]} for name in agents],
        "channels": [_agent(name) | {"received": received[name]} for name in channels],
        "pairs": [[traffic.pairs.get((agent, channel), 0) for channel in channels] for agent in agents],
        "left_out": len(sent) - len(agents),
    }


def _required(request: Request, name: str) -> str:
    value = request.query_params.get(name, "")
    if not value:
        raise InvalidRequest([f"{name} is missing"])
    return value


def _number(text: str | None, default: int) -> int:
    try:
        return default if text is None else int(text)
    except ValueError as error:
        raise InvalidRequest([f"{text!r} is no number"]) from error

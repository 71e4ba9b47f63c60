"""The monitor's routes: the page, its files, the JSON API, the events."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files

from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mq_server.mailroom import Mailroom
from mq_server.monitor.events import Events
from mq_server.monitor.guard import Guard
from mq_server.monitor.lookups import Lookups
from mq_server.monitor.partaking import Partaking
from mq_server.render.page import stylesheet

PAGE = "index.html"
_MESSAGE_SHEET = "message.css"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Monitor:
    """The monitor of a production, to be mounted beside the MCP path.

    Args:
        room: The production.
        security: The Host and Origin headers that are answered.
        read_only: Whether people may only look.
    """

    def __init__(self, room: Mailroom, security: TransportSecuritySettings, *, read_only: bool = False) -> None:
        self._events = Events(room)
        guard = Guard(security, read_only=read_only)
        lookups, partaking = Lookups(room, guard), Partaking(room)
        asked = (
            "session",
            "channels",
            "feed",
            "message",
            "thread",
            "form",
            "status",
            "scenes",
            "traffic",
            "search",
            "problems",
        )
        done = ("post", "read", "letters", "vanished")
        self.routes = [
            Route("/", guard.page(_page)),
            Route("/static/{name}", guard.page(_file)),
            Route("/events", guard.stream(self._events.answer)),
            *(Route(f"/api/{name}", guard.lookup(getattr(lookups, name))) for name in asked),
            *(Route(f"/api/{name}", guard.post(getattr(partaking, name)), methods=["POST"]) for name in done),
        ]

    def close(self) -> None:
        """End the open streams, so that the server can close."""
        self._events.close()


@cache
def _static() -> dict[str, tuple[bytes, str, str]]:
    """The page's files by name: content, media type, tag."""
    found = {_MESSAGE_SHEET: (stylesheet(_MESSAGE_SHEET).encode(), _KINDS[".css"])}
    for entry in files(__package__).joinpath("static").iterdir():
        kind = _KINDS.get(f".{entry.name.rpartition('.')[2]}")
        if kind is not None:
            found[entry.name] = (entry.read_bytes(), kind)
    return {name: (data, kind, f'"{sha256(data).hexdigest()[:20]}"') for name, (data, kind) in found.items()}


async def _page(request: Request) -> Response:
    return _answer(request, PAGE)


async def _file(request: Request) -> Response:
    return _answer(request, request.path_params["name"])


def _answer(request: Request, name: str) -> Response:
    if name not in _static():
        return Response("There is no such file", 404, media_type="text/plain")
    data, kind, tag = _static()[name]
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)

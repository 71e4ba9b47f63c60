"""Who may reach the monitor, what the browser may do with its answers, and how a failure becomes an answer.

Owns the checks of Host, Origin, `Sec-Fetch-Site` and token, and the headers of every answer. The SDK checks only its
own path, so what it checks there is checked here by the same settings.

Rules
    Host and Origin: as on the MCP path. A page of another origin on this machine may reach neither API nor events.
    Posts: JSON, from the page's own origin, with the token that the page has from `/api/session`. Another origin can
        make a browser send a request, but neither read the token nor set the header without being asked first.
    Content: no inline script or style, nothing from elsewhere, no frame around it; markup enters the page by one
        policy of trusted types alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response

from mq_server.errors import InvalidRequest, MailError, UnknownReference, UnknownScene

TOKEN_HEADER = "X-Mq-Token"
MOST_BODY_BYTES = 2 * 1024 * 1024
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types fragments",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""What every answer of the monitor bears."""

Handler = Callable[[Request], Awaitable[Any]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A request that is not answered, and why.

    Args:
        status: The HTTP status.
        why: For the person at the browser.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Guard:
    """Checks requests and makes answers.

    Args:
        security: The Host and Origin headers that are answered.
        read_only: Whether posts are refused.
    """

    def __init__(self, security: TransportSecuritySettings, *, read_only: bool) -> None:
        self._security = TransportSecurityMiddleware(security)
        self.read_only = read_only
        self.token = secrets.token_urlsafe(32)

    def page(self, handler: Endpoint) -> Endpoint:
        """An endpoint for what the browser opens itself: the page and its files."""

        async def answer(request: Request) -> Response:
            refused = await self._security.validate_request(request)
            return _guarded(await handler(request) if refused is None else refused)

        return answer

    def stream(self, handler: Endpoint) -> Endpoint:
        """An endpoint for what only the page itself may ask for, whose handler makes the answer."""

        async def answer(request: Request) -> Response:
            refused = await self._security.validate_request(request)
            if refused is None and request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                refused = _failed(403, "Only the monitor's own page may ask for this")
            return _guarded(await handler(request) if refused is None else refused)

        return answer

    def lookup(self, handler: Handler) -> Endpoint:
        """An endpoint that answers with JSON."""
        return self.stream(_as_json(handler))

    def post(self, handler: Handler) -> Endpoint:
        """An endpoint that changes something: the handler gets requests of the page alone."""

        async def checked(request: Request) -> Any:
            self._check_post(request)
            return await handler(request)

        return self.stream(_as_json(checked))

    def _check_post(self, request: Request) -> None:
        """Refuse what does not come from the page.

        Raises:
            Refused: It does not, or nobody may post.
        """
        if self.read_only:
            raise Refused(403, "This monitor only shows (--read-only)")
        if not request.headers.get("content-type", "").lower().startswith("application/json"):
            raise Refused(415, "A post is JSON")
        origin, host = request.headers.get("origin"), request.headers.get("host")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, f"{origin} is not where this page comes from")
        if not secrets.compare_digest(request.headers.get(TOKEN_HEADER, "").encode(), self.token.encode()):
            raise Refused(403, "The token is missing or old: load the page again")


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that a post brings.

    Raises:
        Refused: It is none, or too long.
    """
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MOST_BODY_BYTES:
            raise Refused(413, f"A post has at most {MOST_BODY_BYTES:,} bytes")
    try:
        fields = orjson.loads(received)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"That is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Refused(400, "A post is a JSON object")
    return fields


def _as_json(handler: Handler) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            content = await handler(request)
        except Refused as error:
            return _failed(error.status, str(error))
        except (UnknownReference, UnknownScene) as error:
            return _failed(404, str(error))
        except InvalidRequest as error:
            return _json({"error": str(error), "faults": error.faults}, 400)
        except MailError as error:
            return _failed(409, str(error))
        except OSError as error:
            return _failed(503, f"{error.filename or 'The production'}: {error.strerror or error}. Nothing was lost")
        return _json(content)

    return answer


def _json(content: Any, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def _failed(status: int, why: str) -> Response:
    return _json({"error": why}, status)


def _guarded(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response

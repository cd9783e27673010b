"""Headers that every answer carries, so that a browser makes nothing of it but what it is. Knows no routes.

An answer is data: no page may be made of it, none may frame it, and no cache may keep what it says of somebody's
video. The page of the API is the one page; it alone may load what it shows, which Swagger's files from outside are.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DOCS_PATH = "/docs"
NOTHING = "default-src 'none'; frame-ancestors 'none'"
SWAGGER = (
    "default-src 'none'; frame-ancestors 'none'; connect-src 'self'; img-src data: https://fastapi.tiangolo.com; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src 'unsafe-inline' https://cdn.jsdelivr.net"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": NOTHING,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class AnswerHeaders:
    """An ASGI layer, around all others: an answer that the envelope makes of a crash has them, too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def relay(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if scope["path"].removeprefix(scope.get("root_path", "")) == DOCS_PATH and message["status"] == 200:
                    headers["Content-Security-Policy"] = SWAGGER
            await send(message)

        await self.app(scope, receive, relay)

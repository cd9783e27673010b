"""Requests and the bytes that come with them, counted for whoever asks. Knows no routes and no accounts.

Inside the guard: whoever is not let in is not counted. Bytes count as they come, so that of a stream that lasts for
days each has its bytes on its own.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.usage.used import Charge, Used

NORMAL_CLOSE = 1000


class Metering:
    """An ASGI layer."""

    def __init__(self, app: ASGIApp, *, charge: Charge) -> None:
        self._app = app
        self._charge = charge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        owner: str = scope["state"].get("owner", "")
        answered = False

        async def counted() -> Message:
            message = await receive()
            if data := message.get("body") or message.get("bytes") or message.get("text"):
                self._charge(owner, Used(received_bytes=len(data)))
            return message

        async def watched(message: Message) -> None:
            nonlocal answered
            await send(message)
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                answered = message["status"] < 400
            elif message["type"] == "websocket.close":
                answered = message["code"] == NORMAL_CLOSE

        try:
            await self._app(scope, counted, watched)
        finally:
            self._charge(owner, Used(requests=1, failed=int(not answered)))

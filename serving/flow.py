"""A body on its way to a replica: the proxy reads no further ahead of it than a window. Knows no routes.

client -> uvicorn -> Ahead -> queues of Serve -> Taking -> whoever reads the body
                       ^----- so much was taken -----'

Serve's proxy reads a body as fast as it comes, and keeps what the replica has not fetched, without a bound (Ray 2.60):
eight fast uploads of 64 MB held nearly twice their size. So the proxy has a credit of so many bytes, as in HTTP/2 (RFC
9113, section 5.2), and the replica gives it back as it reads, in a message of our own among those of the answer. That
it may do so stands in the scope's `extensions`, where ASGI lets servers say such things, and where no client can write.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

WINDOW_BYTES = 4 * 2**20  # less, and fast uploads wait for their credit: 1 MiB is half as fast
TOLD_BYTES = WINDOW_BYTES // 4
TAKEN = "vidseq.taken"


class Ahead:
    """An ASGI layer around what carries a request to another process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["extensions"] = {**scope.get("extensions", {}), TAKEN: {}}
        body = _Body(receive, send)
        await self._app(scope, body.receive, body.send)


class _Body:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._num_ahead = 0
        self._may_read = asyncio.Event()
        self._may_read.set()

    async def receive(self) -> Message:
        await self._may_read.wait()
        message = await self._receive()
        self._num_ahead += len(message.get("body", b""))
        if self._num_ahead >= WINDOW_BYTES and message.get("more_body", False):  # else only a client's leave may come
            self._may_read.clear()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] != TAKEN:
            await self._send(message)
            return
        self._num_ahead -= message["num_bytes"]
        if self._num_ahead < WINDOW_BYTES:
            self._may_read.set()


class Taking:
    """An ASGI layer around an application, inside nothing that would not pass on a message that it does not know."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if TAKEN not in scope.get("extensions", {}):
            await self._app(scope, receive, send)
            return
        num_untold = 0

        async def taking() -> Message:
            nonlocal num_untold
            message = await receive()
            num_untold += len(message.get("body", b""))
            if num_untold >= TOLD_BYTES:
                num_told, num_untold = num_untold, 0
                await send({"type": TAKEN, "num_bytes": num_told})
            return message

        await self._app(scope, taking, send)

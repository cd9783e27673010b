"""How a service leaves: what it has begun it ends, what comes is sent elsewhere. Knows no routes and no Ray.

Envelope -> Leave -> Guard -> routes

a request in flight     is answered
a new one               503 service/leaving, with Retry-After, on a connection that closes
an open stream          is told 503 service/leaving and closed with 4503: its client resumes it elsewhere
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.parting import converse
from serving.problems import Leaving
from serving.refusals import refuse


class Drain:
    """What one replica has going on, and whether it takes more. Used in the loop that answers its requests alone."""

    def __init__(self) -> None:
        self.num_going_on = 0
        self._leaving = asyncio.Event()

    @property
    def leaving(self) -> bool:
        return self._leaving.is_set()

    def begin(self) -> None:
        """From here on nothing new is taken, and open streams end."""
        self._leaving.set()

    async def begun(self) -> None:
        """Raises Leaving once it has begun."""
        await self._leaving.wait()
        raise Leaving

    @contextmanager
    def place(self) -> Iterator[None]:
        self.num_going_on += 1
        try:
            yield
        finally:
            self.num_going_on -= 1


class Leave:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif self._drain.leaving:
            await refuse(Leaving(), scope, receive, _closing(send))
        else:
            with self._drain.place():
                await (self._converse if scope["type"] == "websocket" else self._app)(scope, receive, send)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A stream may last for days. Whatever of it was answered is kept, so it may be cut anywhere."""
        await converse(self._app, scope, receive, send, until=self._drain.begun(), ends=(Leaving,))


def _closing(send: Send) -> Send:
    """The next request on this connection would come here, too."""

    async def relay(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
        await send(message)

    return relay

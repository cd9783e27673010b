"""Rates at the door: a key that has used up what it may do hears so before its body is read. Knows no routes.

Envelope -> Guard -> Quotas -> routes

Of a body with a declared length all is counted beforehand, whether it comes or not: who promises it has asked for it.
Any other body, one that may be larger than a window has bytes (a piece of an upload), and what is said in a WebSocket,
is counted as it comes; where it becomes too much, whoever reads it hears RateExceeded, as of any other limit.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.rates import RateExceeded, Rates
from serving.refusals import refuse

COUNTED_BYTES = 256 * 1024  # what comes undeclared is counted in pieces of at least this


class Quotas:
    """An ASGI layer inside the guard, which says who it is. Bodies over `max_body_bytes` are counted as they come."""

    def __init__(self, app: ASGIApp, *, rates: Rates, max_body_bytes: int) -> None:
        self._app = app
        self._rates = rates
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner: str | None = None if scope["type"] == "lifespan" else scope["state"].get("owner")
        if owner is None:
            await self._app(scope, receive, send)
            return
        declared = _declared_bytes(scope)
        beforehand = declared is not None and declared <= self._max_body_bytes
        try:
            await self._rates.spend(owner, num_requests=1, num_bytes=declared or 0 if beforehand else 0)
        except RateExceeded as error:
            await refuse(error, scope, receive, send)
            return
        await self._app(scope, receive if beforehand else _Counted(receive, self._rates, owner).receive, send)


class _Counted:
    """What comes, counted for its owner."""

    def __init__(self, receive: Receive, rates: Rates, owner: str) -> None:
        self._receive = receive
        self._rates = rates
        self._owner = owner
        self._num_uncounted = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._num_uncounted += _num_bytes(message)
        is_last = message["type"] == "http.request" and not message.get("more_body", False)
        if self._num_uncounted >= COUNTED_BYTES or is_last:
            num_bytes, self._num_uncounted = self._num_uncounted, 0
            await self._rates.spend(self._owner, num_bytes=num_bytes)
        return message


def _num_bytes(message: Message) -> int:
    said = message.get("body") or message.get("bytes") or message.get("text") or b""
    return len(said)


def _declared_bytes(scope: Scope) -> int | None:
    """None for what is counted as it comes: a WebSocket, a body in chunks."""
    if scope["type"] == "websocket":
        return None
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return None
    declared = headers.get("content-length", "0")
    return int(declared) if declared.isdecimal() else 0  # who reads it will refuse it

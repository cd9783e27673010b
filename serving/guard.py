"""API keys at the door: who asks may, or hears no before a byte of the body is read. Knows parts of paths, no routes.

Envelope -> Guard -> routes

Inside the envelope, so that whoever is refused hears a problem with a request id, is counted, and hears it although he
still sends; outside of all that routes, parses or reads. Whoever is let in goes on without the key: nothing behind this
door sees it, so nothing can log it.

    Authorization: Bearer vsk_...                            HTTP, and WebSockets of programs
    Sec-WebSocket-Protocol: vidseq.v1, vidseq.bearer.vsk_... WebSockets of browsers, which may set no other header
"""

import asyncio
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.keyring import (
    FRESH_SECONDS,
    KeyMalformed,
    KeyMisplaced,
    KeyMissing,
    KeyRefused,
    KeyRing,
    KeysDown,
    ScopeMissing,
)
from serving.keys import Key
from serving.keys import Scope as KeyScope
from serving.parting import converse
from serving.refusals import refuse

# The part of the service, the first word of a path after /v1 -> the scope that it needs; None: any key will do.
NEEDS: dict[str, KeyScope | None] = {
    "classify": "classify",
    "jobs": "classify",
    "models": None,
    "sessions": "stream",
    "streams": "stream",
    "uploads": "classify",
    "usage": None,
    "data": None,
}
BEARER = "vidseq.bearer."  # and a key: a subprotocol that nobody speaks, and that is never answered
MARK = "vsk_"
HOW = "send the header 'Authorization: Bearer vsk_...' (the SDK takes it from VIDSEQ_API_KEY)"


class Guard:
    """An ASGI layer. Everything below `prefix` needs a key; what is beside it is open to all."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing, prefix: str) -> None:
        self._app = app
        self._keys = keys
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        part = None if scope["type"] == "lifespan" else part_of(_route_path(scope), prefix=self._prefix)
        if part is None:
            await self._app(scope, receive, send)
            return
        try:
            key = await self._keys.check(_shown(scope))
            scope["state"]["owner"] = key.key_id  # also of whom the next line refuses: he is known
            needed = NEEDS.get(part)
            if needed is not None and needed not in key.scopes:
                raise ScopeMissing(needed, key.scopes)
        except (KeyRefused, ScopeMissing, KeysDown) as error:
            await refuse(error, scope, receive, send)
            return
        _forget_key(scope)
        scope["state"]["scopes"], scope["state"]["models"] = key.scopes, key.models
        if scope["type"] == "websocket":
            await self._converse(key, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _converse(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """A stream may last for days: it ends when its key does. Its session stays, for as long as sessions do."""
        await converse(self._app, scope, receive, send, until=self._watch(key), ends=(KeyRefused, KeysDown))

    async def _watch(self, key: Key) -> None:
        while True:
            await asyncio.sleep(FRESH_SECONDS)
            await self._keys.check_again(key)


def part_of(path: str, *, prefix: str) -> str | None:
    """`/v1/sessions/a/end` is of `sessions`; None for what is not below `prefix`."""
    if not (path + "/").startswith(prefix + "/"):
        return None
    return path[len(prefix) :].strip("/").partition("/")[0]


def _route_path(scope: Scope) -> str:
    """The path without what a server in front has taken off."""
    path, taken_off = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(taken_off)


def _shown(scope: Scope) -> str:
    """The one key that was sent, whatever it is. Raises KeyMissing, KeyMalformed or KeyMisplaced."""
    if MARK in scope["path"] or MARK.encode() in unquote_to_bytes(scope["query_string"]):
        scope["path"], scope["query_string"] = scope["path"].partition(MARK)[0], b""  # the server's log reads them, too
        raise KeyMisplaced(f"a key stands in the address, where it is logged: revoke it, take another, and {HOW}")
    headers = Headers(scope=scope).getlist("authorization")
    offered: list[str] = [word for word in scope.get("subprotocols", ()) if word.startswith(BEARER)]
    shown = [_of_header(header) for header in headers] + [word.removeprefix(BEARER) for word in offered]
    if not shown:
        raise KeyMissing(f"this needs a key, and none was sent: {HOW}")
    if len(shown) > 1:
        raise KeyMalformed("more than one key was sent")
    return shown[0]


def _of_header(header: str) -> str:
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer":
        raise KeyMalformed(f"the header Authorization does not begin with Bearer: {HOW}")
    return key.strip()


def _forget_key(scope: Scope) -> None:
    """Changed in place: the envelope reads from this very scope which route was taken."""
    scope["headers"] = [
        (name, value) for name, value in scope["headers"] if name not in (b"authorization", b"sec-websocket-protocol")
    ]
    if scope["type"] == "websocket":
        scope["subprotocols"] = [word for word in scope.get("subprotocols", ()) if not word.startswith(BEARER)]

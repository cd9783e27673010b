"""API keys at the door: who asks may, or hears no before a byte of the body is read. Knows parts of paths, no routes.

Envelope -> Guard -> routes

Inside the envelope, so that whoever is refused hears a problem with a request id, is counted, and hears it although he
still sends; outside of all that routes, parses or reads. Whoever is let in goes on without the key: nothing behind this
door sees it, so nothing can log it.

    Authorization: Bearer vsk_...                            HTTP, and WebSockets of programs
    Sec-WebSocket-Protocol: vidseq.v1, vidseq.bearer.vsk_... WebSockets of browsers, which may set no other header
"""

import asyncio
import logging
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from serving import problems
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
from serving.together import beside
from vidseq.messages import SUBPROTOCOL, Failed
from vidseq.schemas import Problem

logger = logging.getLogger(__name__)

# The part of the service, the first word of a path after /v1 -> the scope that it needs; None: any key will do.
NEEDS: dict[str, KeyScope | None] = {"classify": "classify", "models": None, "sessions": "stream", "streams": "stream"}
BEARER = "vidseq.bearer."  # and a key: a subprotocol that nobody speaks, and that is never answered
PARTING_SECONDS = 5.0  # for the last words to a client who may not listen
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
            needed = NEEDS.get(part)
            if needed is not None and needed not in key.scopes:
                raise ScopeMissing(needed, key.scopes)
        except (KeyRefused, ScopeMissing, KeysDown) as error:
            await _refuse(error, scope, receive, send)
            return
        _forget_key(scope)
        scope["state"]["owner"] = key.key_id
        if scope["type"] == "websocket":
            await self._converse(key, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _converse(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """A stream may last for days: it ends when its key does. Its session stays, for as long as sessions do."""
        said = ""

        async def relay(message: Message) -> None:
            nonlocal said
            said = message["type"]
            await send(message)

        async def answer() -> None:
            await self._app(scope, receive, relay)

        try:
            await beside(answer(), self._watch(key))
        except (KeyRefused, KeysDown) as error:
            problem = _problem(error, scope)
            with suppress(OSError):  # the client has gone, or takes nothing: a timeout is an OSError, too
                await asyncio.wait_for(_end_stream(said, problem, send), PARTING_SECONDS)

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


async def _end_stream(said: str, problem: Problem, send: Send) -> None:
    """The last words to a client to whom `said` was said last."""
    if said in ("websocket.accept", "websocket.send"):
        await send({"type": "websocket.send", "text": Failed(problem=problem).model_dump_json()})
    if said != "websocket.close":
        await send({"type": "websocket.close", "code": _close_code(problem), "reason": problem.type})


async def _refuse(error: KeyRefused | ScopeMissing | KeysDown, scope: Scope, receive: Receive, send: Send) -> None:
    problem = _problem(error, scope)
    response = problems.response(problem, _headers(error))
    if scope["type"] == "http":
        await response(scope, receive, send)
    else:
        with suppress(OSError, WebSocketDisconnect):  # as above
            await asyncio.wait_for(_refuse_socket(WebSocket(scope, receive, send), problem, response), PARTING_SECONDS)


async def _refuse_socket(websocket: WebSocket, problem: Problem, response: Response) -> None:
    """In answer to the handshake. A page in a browser cannot see that: who offers our protocol is told in it."""
    offered = SUBPROTOCOL in websocket.scope.get("subprotocols", ())
    if not offered and "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
        return
    await websocket.accept(SUBPROTOCOL if offered else None)
    await websocket.send_text(Failed(problem=problem).model_dump_json())
    await websocket.close(_close_code(problem), problem.type)


def _problem(error: KeyRefused | ScopeMissing | KeysDown, scope: Scope) -> Problem:
    problem = problems.of_error(error, scope["state"]["request_id"])
    assert problem is not None, f"{type(error).__name__} is not in the table"
    if isinstance(error, KeysDown):
        logger.error("request %s: %s: %s", problem.request_id, problem.type, error.__cause__)
    else:
        logger.info("request %s: %s: %s", problem.request_id, problem.type, problem.detail)
    return problem


def _close_code(problem: Problem) -> int:
    return problems.CLOSE_CODES + problem.status


def _headers(error: KeyRefused | ScopeMissing | KeysDown) -> dict[str, str]:
    """What RFC 6750 wants of a refusal."""
    match error:
        case KeysDown():
            return {"Retry-After": "1"}
        case KeyMissing():
            return {"WWW-Authenticate": "Bearer"}
        case ScopeMissing():
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.needed}"'}
        case _:
            return {"WWW-Authenticate": 'Bearer error="invalid_token"'}

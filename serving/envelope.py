"""What goes around every answer: its request id, its count, a problem when the code broke. Knows no routes.

A WebSocket is one request: it gets an id, and is counted when it is over.

An answer may be ready before the request's body has been read: too large, too many, no such path. Closing the
connection then would destroy the answer on its way to a client that is still sending (the kernel answers unread
bytes with a reset). So the answer is sent, what still comes is thrown away for a moment, and only then the
connection is closed.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from http import HTTPMethod

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.finished import Facts, Finished, Observer

logger = logging.getLogger(__name__)

SAFE_REQUEST_ID = re.compile(r"(?!.*vsk_)[A-Za-z0-9._-]{1,64}")  # an API key would fit, and be logged
LINGER_SECONDS = 5.0
CLIENT_WENT = 499  # nginx's number for a client that did not wait for its answer


class Envelope:
    """The ASGI layer around all that can fail. Puts `request_id` and `facts` into `request.state`."""

    def __init__(self, app: ASGIApp, *, observe: Observer | None) -> None:
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        exchange = (_Exchange if scope["type"] == "http" else _Conversation)(scope, receive, send)
        scope.setdefault("state", {}).update(request_id=exchange.request_id, facts=exchange.facts)
        try:
            if isinstance(exchange, _Exchange):
                await self._guarded(scope, exchange)
            else:
                await self.app(scope, exchange.receive, exchange.send)
        finally:
            if self.observe is not None:
                self.observe(_finished(scope, exchange, seconds=time.perf_counter() - start))

    async def _guarded(self, scope: Scope, exchange: "_Exchange") -> None:
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            logger.info("request %s: the client went away", exchange.request_id)
        except Exception:
            logger.exception("request %s: unexpected error", exchange.request_id)
            if exchange.started:
                raise  # the server cuts the connection: half an answer must not look like a whole one
            crash = problems.response(problems.of_crash(exchange.request_id))
            await crash(scope, exchange.receive, exchange.send)


class _Conversation:
    """One WebSocket."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        self.facts = Facts()
        self.status = CLIENT_WENT
        self.num_bytes = 0
        self._receive, self._send = receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        self.num_bytes += len(message.get("bytes") or message.get("text") or "")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            message.setdefault("headers", [])
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        elif message["type"] == "websocket.http.response.start":  # in place of a WebSocket
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        elif message["type"] == "websocket.close":
            self.status = message["code"]
            if self.status > problems.CLOSE_CODES:
                self.facts.problem = message.get("reason") or ""
        elif message["type"] == "websocket.http.response.body":
            self.facts.problem = _type_of(message["body"])
        await self._send(message)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self.request_id = _request_id(headers.get("x-request-id"))
        self.facts = Facts()
        self.status = CLIENT_WENT
        self.num_bytes = 0
        self.started = False
        self._is_problem = False
        self._body_open = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._receive, self._send = receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        self.num_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):  # the last piece, or a disconnect
            self._body_open = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            if self._body_open:
                headers["Connection"] = "close"
            self._is_problem = headers.get("content-type") == problems.MEDIA_TYPE
        elif self._is_problem and not self.facts.problem:
            self.facts.problem = _type_of(message["body"])
        if message["type"] == "http.response.body" and self._body_open and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while self._body_open:
                    await self.receive()
        except TimeoutError:
            pass


def _finished(scope: Scope, exchange: _Exchange | _Conversation, *, seconds: float) -> Finished:
    method = scope.get("method", "")
    facts = exchange.facts
    return Finished(
        request_id=exchange.request_id,
        route=getattr(scope.get("route"), "path", ""),
        method=method if method in HTTPMethod.__members__ else "",
        status=exchange.status,
        seconds=seconds,
        key_id=scope["state"].get("owner", ""),
        bytes_received=exchange.num_bytes,
        frames_decoded=facts.frames_decoded,
        model=facts.model,
        problem=facts.problem,
        replayed=facts.replayed,
    )


def _type_of(problem: bytes) -> str:
    """Of a problem that was made here: its type. Whoever makes one has nobody to tell of it besides the client."""
    try:
        return str(json.loads(problem)["type"])
    except (ValueError, KeyError, TypeError):  # an answer in place of a WebSocket may be something else
        return ""


def _request_id(asked: str | None) -> str:
    """The client's own if it is short and harmless in a log, else a new one."""
    return asked if asked is not None and SAFE_REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex

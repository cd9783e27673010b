"""What goes around Ray Serve's own proxy: its plain-text errors become problems, its request ids safe. Knows no routes.

When no replica can answer, or one has died while it did, the proxy answers by itself, in plain text; a WebSocket it
drops without a word. It takes this layer from RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.front:layers in the
environment of Ray's nodes.
"""

import asyncio
import logging
import uuid
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.accept import lines_wanted
from serving.answer_headers import HEADERS
from serving.envelope import SAFE_REQUEST_ID
from serving.flow import Ahead
from serving.shedding import Shedding
from vidseq.messages import Failed
from vidseq.schemas import Problem

logger = logging.getLogger(__name__)

SERVES_OWN = "/-/"  # /-/healthz, which load balancers ask
RETRY_AFTER_SECONDS = "1"
TIME_LIMIT = "x-request-timeout-seconds"
# With these Serve lets any client overrule how long it may take, whether anybody notices that it has gone, and which
# replica is to answer. It takes "_" for "-".
OVERRULING = {
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
    b"x-session-id",
    b"serve-multiplexed-model-id",
}
# What Serve answers -> what we do. Its 500 is a replica that has gone: our own mistakes come as problems.
ANSWERS = {
    404: (404, "Nothing is deployed here yet."),
    408: (504, "There was no answer within the time that the service allows."),
    499: (408, "The client did not wait for the answer."),
    500: (503, "The replica that was to answer has gone."),
    503: (503, "No replica of the service can take the request now."),
}


def layers() -> list[Middleware]:
    """Called by each of Serve's proxies as it starts; the last one is the outermost."""
    from serving.counters import Figures  # brings Ray, which is there already

    return [Middleware(Ahead), Middleware(Shedding, observe=Figures().answered), Middleware(Front)]


class Front:
    """An ASGI layer. Errors that are problems already pass."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"].startswith(SERVES_OWN):
            await self.app(scope, receive, send)
            return
        request_id = _cleaned(scope)
        if scope["type"] == "websocket":
            await self._converse(scope, receive, send, request_id)
        else:
            await self._answer(scope, receive, send, request_id)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = False
        plain_status = 500  # where Serve says nothing at all

        async def relay(message: Message) -> None:
            nonlocal started, plain_status
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id  # once: the proxy appends one to the replica's
                is_problem = headers.get("content-type") == problems.MEDIA_TYPE
                started, plain_status = message["status"] < 400 or is_problem, message["status"]
            if started:
                await send(message)

        try:
            await self.app(scope, receive, relay)
        except Exception:
            if started:
                raise  # the server cuts the connection: half an answer must not look like a whole one
            logger.exception("request %s: Serve's proxy failed", request_id)
        if not started:
            await _as_response(_problem(plain_status, request_id))(scope, receive, send)

    async def _converse(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        accepted = over = False
        plain_status = 500
        taken = asyncio.Event()  # what was said last
        taken.set()

        async def watch() -> Message:
            """Who does not take what he is told is not listened to: nothing bounds the answers that wait in Serve."""
            nonlocal over
            await taken.wait()
            message = await receive()
            over = over or message["type"] == "websocket.disconnect"
            return message

        async def relay(message: Message) -> None:
            nonlocal accepted, over, plain_status
            if message["type"] == "http.response.start":  # Serve's own words, which no WebSocket can say
                plain_status = message["status"]
            if message["type"].startswith("http."):
                return
            accepted = accepted or message["type"] == "websocket.accept"
            over = over or message["type"] in ("websocket.close", "websocket.http.response.start")
            taken.clear()
            try:
                await send(message)
            except OSError:  # the client has gone. Raised into Serve's generator it would be three tracebacks
                over = True  # and no news: the replica hears of it through `watch`
            finally:
                taken.set()

        try:
            await self.app(scope, watch, relay)
        except Exception:
            logger.exception("request %s: Serve's proxy failed", request_id)
        if over:
            return
        problem = _problem(plain_status, request_id)
        with suppress(OSError):  # it may go at this moment, too
            if not accepted:
                await send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id.encode())]})
            await send({"type": "websocket.send", "text": Failed(problem=problem).model_dump_json()})
            code = problems.CLOSE_CODES + problem.status
            await send({"type": "websocket.close", "code": code, "reason": problem.type})


def _cleaned(scope: Scope) -> str:
    """The request's id, which is safe from here on; and no header left with which a client could steer Serve."""
    kept = [(name, value) for name, value in scope["headers"] if name.replace(b"_", b"-") not in OVERRULING]
    scope["headers"] = kept
    headers = MutableHeaders(scope=scope)
    # A stream lasts for as long as it lasts: what holds for it are the limits of serving.streams and serving.lines.
    if scope["type"] == "websocket" or lines_wanted(headers.get("accept", "")):
        headers[TIME_LIMIT] = "0"
    asked = headers.get("x-request-id", "")
    request_id = asked if SAFE_REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
    headers["X-Request-ID"] = request_id  # Serve writes it into its logs as it is
    return request_id


def _problem(plain_status: int, request_id: str) -> Problem:
    status, detail = ANSWERS.get(plain_status, (plain_status, "Ray Serve says no more."))
    return problems.of_status(status, detail, request_id)


def _as_response(problem: Problem) -> ASGIApp:
    headers = HEADERS | {"X-Request-ID": problem.request_id}
    if problem.retryable:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    return problems.response(problem, headers)

"""What goes around Ray Serve's own proxy: its plain-text errors become problems, its request ids safe. Knows no routes.

When no replica can answer, or one has died while it did, the proxy answers by itself, in plain text. It takes this
layer from RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.front:layers in the environment of Ray's nodes.
"""

import logging
import uuid

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.envelope import SAFE_REQUEST_ID

logger = logging.getLogger(__name__)

SERVES_OWN = "/-/"  # /-/healthz, which load balancers ask
RETRY_AFTER_SECONDS = "1"
# What Serve answers -> what we do. Its 500 is a replica that has gone: our own mistakes come as problems.
ANSWERS = {
    404: (404, "Nothing is deployed here yet."),
    408: (504, "There was no answer within the time that the service allows."),
    500: (503, "The replica that was to answer has gone."),
    503: (503, "No replica of the service can take the request now."),
}


def layers() -> list[Middleware]:
    """Called by each of Serve's proxies as it starts."""
    return [Middleware(Front)]


class Front:
    """An ASGI layer. Errors that are problems already pass."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVES_OWN):
            await self.app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if SAFE_REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        headers["X-Request-ID"] = request_id  # Serve writes it into its logs as it is
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
            await _as_problem(plain_status, request_id)(scope, receive, send)


def _as_problem(plain_status: int, request_id: str) -> ASGIApp:
    status, detail = ANSWERS.get(plain_status, (plain_status, "Ray Serve says no more."))
    problem = problems.of_status(status, detail, request_id)
    headers = {"X-Request-ID": request_id}
    if problem.retryable:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    return problems.response(problem, headers)

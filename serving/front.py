"""What goes around Ray Serve's own proxy: its plain-text errors become problems, its request ids safe. Knows no routes.

When no replica can answer, the proxy does it alone, in plain text: 408, 500, 503. It takes this layer from
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.front:layers in the environment of Ray's nodes.
"""

import uuid

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.envelope import SAFE_REQUEST_ID

SERVES_OWN = "/-/"  # /-/healthz, which load balancers ask
RETRY_AFTER_SECONDS = "1"
DETAILS = {
    404: "Nothing is deployed here yet.",
    408: "There was no answer within the time that the service allows.",
    503: "No replica of the service can take the request now.",
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
        plain_status: int | None = None

        async def relay(message: Message) -> None:
            nonlocal plain_status
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id  # once: the proxy appends one to the replica's
                if message["status"] >= 400 and headers.get("content-type") != problems.MEDIA_TYPE:
                    plain_status = message["status"]
            if plain_status is None:
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                await _as_problem(plain_status, request_id)(scope, receive, send)

        await self.app(scope, receive, relay)


def _as_problem(status: int, request_id: str) -> ASGIApp:
    if status in DETAILS:
        problem = problems.of_status(status, DETAILS[status], request_id)
    else:
        problem = problems.of_crash(request_id)
    headers = {"X-Request-ID": request_id}
    if problem.retryable:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    return problems.response(problem, headers)

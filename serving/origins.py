"""Which pages of other hosts may read our answers: those of a list, by default none (CORS). Knows no routes.

Around the envelope and the guard: a browser's question beforehand (preflight) can show no key, and a page must be able
to read a refusal, too. No cookie tells us who somebody is, so there is nothing that a page could misuse; the list
keeps a service on a private address from working for whatever page its neighbour reads.
"""

import uuid
from collections.abc import Collection
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from serving import problems
from serving.problems import ForeignOrigin

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
ASKED = ("Authorization", "Content-Digest", "Content-Type", "Idempotency-Key", "Upload-Offset", "X-Request-ID")
# What a page may read of an answer, besides what it always may.
TOLD = (
    "Idempotency-Kept",
    "Idempotency-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Upload-Length",
    "Upload-Offset",
    "WWW-Authenticate",
    "X-Request-ID",
)


def checked_origin(origin: str) -> str:
    """An origin as a browser writes it. Raises ValueError: it is none, and would never be met."""
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"{origin!r} is no origin; one looks like https://example.org or http://localhost:3000")
    if parts.username is not None or origin != origin.lower():
        raise ValueError(f"{origin!r} is no origin: browsers send it in small letters, and without a user")
    return origin


Origin = Annotated[str, AfterValidator(checked_origin)]


class Origins(CORSMiddleware):
    """An ASGI layer. A preflight that is refused is told so as a problem."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str]) -> None:
        super().__init__(app, allow_origins=allowed, allow_methods=METHODS, allow_headers=ASKED, expose_headers=TOLD)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        error = ForeignOrigin(f"{bytes(response.body).decode()}: a page may not send this here")
        problem = problems.of_error(error, uuid.uuid4().hex)
        assert problem is not None
        return problems.response(problem, {"X-Request-ID": problem.request_id, "Vary": response.headers["Vary"]})

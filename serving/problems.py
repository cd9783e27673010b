"""One table: what went wrong -> status and title, as application/problem+json (RFC 9457). Knows no routes."""

import http
import logging
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving.database.errors import DatabaseDown
from serving.jobs.errors import JobNotFound, TooManyItems, TooManyJobs, WebhookNotAllowed
from serving.keyring import KeyMissing, KeyRefused, KeysDown, ModelForbidden, ScopeMissing
from serving.rates import RateExceeded
from serving.store import StoreDown
from serving.uploads.errors import (
    StorageDown,
    StorageFull,
    UploadBusy,
    UploadDigest,
    UploadIncomplete,
    UploadNotFound,
    UploadOffset,
    UploadQuota,
    UploadTooLarge,
)
from vidseq.errors import (
    ModelNotFound,
    ModelReplaced,
    OptionError,
    PushMismatch,
    SandboxError,
    SequenceConflict,
    SessionEnded,
    SessionError,
    SessionExpired,
    SessionNotFound,
    StateError,
    TokenError,
    TooManyBytes,
    TooManySessions,
    VideoError,
    VidseqError,
)
from vidseq.messages import Failed
from vidseq.schemas import Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class UnsupportedMediaType(VidseqError):
    code = "request/unsupported-media-type"


class MalformedBody(VidseqError):
    code = "request/malformed-body"


class MalformedDigest(VidseqError):
    """The header that says what the body is."""

    code = "body/digest_malformed"


class DigestMismatch(VidseqError):
    """The body is not the one of which its header tells."""

    code = "body/digest_mismatch"


class BodyTooLarge(VidseqError):
    """What is no video, but has a limit."""

    code = "request/body-too-large"


class BodyTimeout(VidseqError):
    code = "request/body-timeout"


class ForeignOrigin(VidseqError):
    code = "request/foreign-origin"


class StreamIdle(VidseqError):
    """Nothing comes on an open connection."""

    code = "stream/idle"


class WindowExceeded(VidseqError):
    """A client does not wait for answers."""

    code = "stream/window"


class Busy(VidseqError):
    """No place for one more request, or for its bytes; `retry_after_seconds` is when to ask again."""

    code = "service/busy"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class KeyBusy(Busy):
    """One key has all the places, or bytes, that one may have."""

    code = "key/busy"


class IdempotencyKeyMalformed(VidseqError):
    code = "idempotency/malformed"


class AskedOtherwise(VidseqError):
    """The key stands for another request."""

    code = "idempotency/mismatch"


class StillRunning(VidseqError):
    """A request with this key is being executed; `retry_after_seconds` is when to ask again."""

    code = "idempotency/running"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotReady(VidseqError):
    code = "service/not-ready"


class Leaving(VidseqError):
    """The service is about to stop, and takes nothing new."""

    code = "service/leaving"

    def __init__(self) -> None:
        super().__init__("the service is stopping here: ask again, and another one answers")


class AnswerTimeout(VidseqError):
    code = "service/answer-timeout"


# The most special class counts. What is not here is our own mistake: 500, logged, and not told to the caller.
TABLE: dict[type[VidseqError], tuple[int, str]] = {
    MalformedBody: (400, "The body cannot be read"),
    MalformedDigest: (400, "The digest of the body cannot be read"),
    DigestMismatch: (400, "The body is not what was sent"),
    IdempotencyKeyMalformed: (400, "The idempotency key cannot be read"),
    KeyRefused: (401, "A key is needed"),
    ScopeMissing: (403, "The key is not for this"),
    ModelForbidden: (403, "The key is not for this model"),
    TokenError: (403, "The resume token is not good here"),
    ForeignOrigin: (403, "The page is of another origin"),
    ModelNotFound: (404, "No such model"),
    JobNotFound: (404, "No such job"),
    SessionNotFound: (404, "No such session"),
    UploadNotFound: (404, "No such upload"),
    BodyTimeout: (408, "The body came too slowly"),
    StreamIdle: (408, "The stream was idle"),
    StillRunning: (409, "The request is still running"),
    SequenceConflict: (409, "Another push is due"),
    PushMismatch: (409, "The push was another one"),
    SessionEnded: (409, "The session has ended"),
    ModelReplaced: (409, "The model was replaced"),
    UploadOffset: (409, "The next bytes begin elsewhere"),
    UploadBusy: (409, "The upload is being written to"),
    UploadIncomplete: (409, "The upload is not complete"),
    SessionExpired: (410, "The session has expired"),
    TooManyBytes: (413, "The body is too large"),
    BodyTooLarge: (413, "The body is too large"),
    TooManyItems: (413, "The job is too large"),
    UploadTooLarge: (413, "The upload is too large"),
    UnsupportedMediaType: (415, "The body is of another type"),
    OptionError: (422, "An option is wrong"),
    AskedOtherwise: (422, "The key stands for another request"),
    WebhookNotAllowed: (422, "The webhook is not allowed"),
    VideoError: (422, "The video cannot be labelled"),
    StateError: (422, "The model cannot go on from here"),
    SessionError: (422, "The session cannot go on"),
    UploadDigest: (422, "The upload is not what was said"),
    Busy: (429, "The service is full"),
    KeyBusy: (429, "The key is used too much at once"),
    RateExceeded: (429, "The key is used too much"),
    TooManyJobs: (429, "Too many jobs go on"),
    TooManySessions: (429, "Too many sessions are open"),
    WindowExceeded: (429, "Too much came at once"),
    UploadQuota: (429, "The uploads of the key are too many"),
    NotReady: (503, "The service is not ready"),
    Leaving: (503, "The service is leaving"),
    KeysDown: (503, "Keys cannot be checked now"),
    StoreDown: (503, "Sessions cannot be kept now"),
    DatabaseDown: (503, "Answers cannot be kept now"),
    SandboxError: (503, "Videos cannot be decoded now"),
    StorageDown: (503, "Uploads cannot be kept now"),
    AnswerTimeout: (504, "The answer took too long"),
    StorageFull: (507, "There is no room for uploads"),
}
CLOSE_CODES = 4000  # of a WebSocket, plus a status: these thousands are an application's own
RETRY_AFTER_SECONDS = {429: 10, 503: 1}  # where an error does not know better: sessions end, stores come back
RETRYABLE = frozenset({408, 429, 503, 504})
# What was damaged on its way may come whole the next time; what still runs will have been answered; who writes ends.
RETRYABLE_TYPES = frozenset({DigestMismatch.code, StillRunning.code, UploadBusy.code})


def of_error(error: VidseqError, request_id: str) -> Problem | None:
    """The problem that tells of `error`, or None where the caller is not to be told."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            status, title = TABLE[kind]
            problem = _problem(status, type=error.code, title=title, detail=str(error), request_id=request_id)
            if isinstance(error, SequenceConflict):
                problem = problem.model_copy(update={"expected_sequence": error.expected})
            return problem
    return None


def of_status(status: int, detail: str, request_id: str) -> Problem:
    """A problem that HTTP itself has a name for: 404 for a path, 405 for a method, 500."""
    phrase = http.HTTPStatus(status).phrase
    type = f"http/{phrase.lower().replace(' ', '-')}"
    return _problem(status, type=type, title=phrase, detail=detail, request_id=request_id)


def of_crash(request_id: str) -> Problem:
    """Our own mistake. What happened stands in the log beside the request id, not in the answer."""
    return of_status(500, "Something went wrong here. The service's log knows more.", request_id)


def failed(error: Exception, request_id: str) -> Failed:
    """The last message of an answer that has begun: any error as a problem, and logged as it would be for a request."""
    problem = of_error(error, request_id) if isinstance(error, VidseqError) else None
    if problem is None:
        logger.error("request %s: unexpected error", request_id, exc_info=error)
        problem = of_crash(request_id)
    else:
        logger.info("request %s: %s: %s", request_id, problem.type, problem.detail)
    return Failed(problem=problem)


def response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(
        problem.model_dump_json(exclude_none=True), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )


def headers_of(error: VidseqError, problem: Problem) -> dict[str, str]:
    """When to ask again, of whom something is asked that passes; and what RFC 6750 wants of a refused key."""
    match error:
        case Leaving() | NotReady():
            return {"Retry-After": "1"}
        case UploadOffset():
            return {"Upload-Offset": str(error.offset)}
        case Busy() | StillRunning() | UploadBusy():
            return {"Retry-After": str(math.ceil(error.retry_after_seconds))}
        case RateExceeded():
            limit, seconds = error.limit, math.ceil(error.retry_after_seconds)
            unit = ';qu="content-bytes"' if limit.namespace == "bytes" else ""
            return {
                "Retry-After": str(seconds),
                # draft-ietf-httpapi-ratelimit-headers-10
                "RateLimit-Policy": f'"{limit.namespace}";q={limit.amount};w={limit.get_expiry()}{unit}',
                "RateLimit": f'"{limit.namespace}";r=0;t={seconds}',
            }
        case KeyMissing():
            return {"WWW-Authenticate": "Bearer"}
        case KeyRefused():
            return {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        case ScopeMissing():
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.needed}"'}
        case ModelForbidden():
            return {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
        case _:
            seconds_by_status = RETRY_AFTER_SECONDS.get(problem.status)
            return {} if seconds_by_status is None else {"Retry-After": str(seconds_by_status)}


def install(app: FastAPI) -> None:
    """Every error of `app` as a problem; `request.state.request_id` must be set (see envelope.py)."""

    async def vidseq_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, VidseqError)
        problem = of_error(error, request.state.request_id)
        if problem is None:
            raise error
        logger.info("request %s: %s: %s", problem.request_id, problem.type, problem.detail)
        return response(problem, headers_of(error, problem))

    async def invalid_options(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await vidseq_error(request, OptionError("; ".join(map(_sentence, error.errors()))))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = f"{request.method} {request.url.path} is not answered here"
        problem = of_status(error.status_code, detail, request.state.request_id)
        return response(problem, dict(error.headers or {}))

    app.add_exception_handler(VidseqError, vidseq_error)
    app.add_exception_handler(RequestValidationError, invalid_options)
    app.add_exception_handler(HTTPException, http_error)


def _problem(status: int, *, type: str, title: str, detail: str, request_id: str) -> Problem:
    return Problem(
        type=type,
        title=title,
        status=status,
        detail=detail,
        request_id=request_id,
        retryable=status in RETRYABLE or type in RETRYABLE_TYPES,
    )


def _sentence(mistake: dict[str, object]) -> str:
    """`("query", "top_k")` and pydantic's message -> `top_k: Input should be ...`, without what was put in."""
    location = mistake["loc"]
    assert isinstance(location, tuple)
    name = ".".join(map(str, location[1:]))
    message = str(mistake["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message

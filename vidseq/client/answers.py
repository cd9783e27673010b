"""From an HTTP response to an answer or to a typed error in the server's own words. Does no I/O."""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx2
from pydantic import ValidationError

from vidseq.errors import (
    BodyTooLarge,
    ConnectionFailed,
    NotAuthorized,
    NotFound,
    Overloaded,
    RequestRejected,
    RequestTimeout,
    ServerFault,
    StatusError,
    UnexpectedAnswer,
    VideoRejected,
)
from vidseq.schemas import Answer, Problem

AnswerT = TypeVar("AnswerT", bound=Answer)

ERRORS: dict[int, type[StatusError]] = {
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotFound,
    413: BodyTooLarge,
    429: Overloaded,
    503: Overloaded,
}
MAX_WORDS = 500  # of a page that is not ours, in characters


def read_answer(response: httpx2.Response, kind: type[AnswerT]) -> AnswerT:
    """The answer as `kind`. Errors: a StatusError for 4xx and 5xx, UnexpectedAnswer for anything else."""
    if response.is_error:
        raise status_error(response)
    try:
        if response.status_code in (200, 201, 202):
            return kind.model_validate_json(response.content)
        if response.status_code == 204:
            return kind()
    except ValidationError:
        pass
    raise _unexpected(response, f"a {kind.__name__}")


def read_offset(response: httpx2.Response) -> int:
    """How many bytes of an upload are there. Raises UnexpectedAnswer: it does not say."""
    header = response.headers.get("Upload-Offset", "")
    if response.status_code != 204 or not header.isdecimal():
        raise _unexpected(response, "an Upload-Offset")
    return int(header)


def status_error(response: httpx2.Response) -> StatusError:
    """The error that the service, or something between it and us, answered with."""
    status, problem = response.status_code, _problem(response)
    pause_seconds = retry_after_seconds(response.headers.get("Retry-After"))
    if problem is not None:
        return problem_error(problem.model_copy(update={"status": status}), pause_seconds=pause_seconds)
    return _error_class(status, "")(
        status=status,
        type="about:blank",
        title=response.reason_phrase,
        detail=_words(response),
        request_id=_request_id(response),
        retry_after_seconds=pause_seconds,
    )


def problem_error(problem: Problem, *, pause_seconds: float | None = None) -> StatusError:
    """The error that the service told, over HTTP or in a stream; it asks for a pause before the next try."""
    return _error_class(problem.status, problem.type)(
        status=problem.status,
        type=problem.type,
        title=problem.title,
        detail=problem.detail,
        request_id=problem.request_id,
        retry_after_seconds=pause_seconds,
    )


def retry_after_seconds(header: str | None) -> float | None:
    """`Retry-After` is a number of seconds or a date; anything else is as good as none."""
    if header is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", header):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


@contextlib.contextmanager
def typed_errors(base_url: httpx2.URL) -> Iterator[None]:
    """What the HTTP library raises when no answer came, as errors of our tree."""
    try:
        yield
    except httpx2.DecodingError as error:
        raise UnexpectedAnswer(f"{base_url} answered with a damaged encoding: {error}") from error
    except (httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.PoolTimeout) as error:
        raise RequestTimeout(f"{base_url} did not answer in time ({type(error).__name__})") from error
    except (
        httpx2.ConnectTimeout,
        httpx2.NetworkError,
        httpx2.ProxyError,
        httpx2.RemoteProtocolError,
    ) as error:
        raise ConnectionFailed(f"no answer from {base_url}: {str(error) or type(error).__name__}") from error


def _unexpected(response: httpx2.Response, wanted: str) -> UnexpectedAnswer:
    asked = f"{response.request.method} {response.request.url.copy_with(query=None)}"
    words = response.headers.get("Location") or _words(response)
    return UnexpectedAnswer(
        f"{asked} answered {response.status_code} with something that is not {wanted}: {words!r}",
        request_id=_request_id(response),
    )


def _error_class(status: int, code: str) -> type[StatusError]:
    if status in ERRORS:
        return ERRORS[status]
    if status >= 500:
        return ServerFault
    return VideoRejected if code.startswith("video/") else RequestRejected


def _problem(response: httpx2.Response) -> Problem | None:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


def _request_id(response: httpx2.Response) -> str | None:
    # A proxy may add the header a second time; the service's own comes first.
    return next(iter(response.headers.get_list("X-Request-ID")), None)


def _words(response: httpx2.Response) -> str:
    """The text of a page that is not ours, without its HTML, on one line."""
    text = re.sub(r"(?s)<(style|script)\b.*?</\1>|<[^<>]*>", " ", response.text[: 20 * MAX_WORDS])
    return " ".join(text.split())[:MAX_WORDS]

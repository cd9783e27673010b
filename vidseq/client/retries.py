"""When to ask again, and how long to wait before: one small table. Knows our errors, not the HTTP library."""

import random
from dataclasses import dataclass

from vidseq.errors import ConnectionFailed, OptionError, ServiceError, StatusError

RETRIED_STATUSES = frozenset({429, 502, 503, 504})  # full, or something in between lost its service for a moment
RETRIED_ERRORS = (ConnectionFailed,)  # not RequestTimeout: the caller has waited as long as was asked for


@dataclass(frozen=True)
class Retries:
    """At most `max_retries` times: 0.5 s, 1 s, 2 s, ... up to 8 s, each shortened by chance by up to a half.

    `Retry-After` is waited for if it is longer, up to `max_retry_after_seconds`. All calls of the service only
    read or compute, so each is safe to repeat.
    """

    max_retries: int
    first_seconds: float = 0.5
    max_seconds: float = 8.0
    max_retry_after_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise OptionError(f"max_retries is {self.max_retries}; at least 0 is needed")

    def pause_seconds(self, error: ServiceError, *, num_failed: int) -> float | None:
        """How long to wait after the `num_failed`-th failure (counted from 1), or None to give up."""
        if num_failed > self.max_retries or not _may_pass(error):
            return None
        doubled = self.first_seconds * 2.0 ** min(num_failed - 1, 30)
        backoff_seconds = min(doubled, self.max_seconds) * random.uniform(0.5, 1.0)
        asked_seconds = error.retry_after_seconds if isinstance(error, StatusError) else None
        return max(backoff_seconds, min(asked_seconds or 0.0, self.max_retry_after_seconds))


def _may_pass(error: ServiceError) -> bool:
    if isinstance(error, StatusError):
        return error.status in RETRIED_STATUSES
    return isinstance(error, RETRIED_ERRORS)

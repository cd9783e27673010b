"""When to ask again, and how long to wait before: one small table. Knows our errors, not the HTTP library."""

import random
import time
from dataclasses import dataclass, replace

from vidseq.errors import ConnectionFailed, OptionError, RequestTimeout, ServiceError, StatusError

RETRIED_STATUSES = frozenset({429, 502, 503, 504})  # full, or something in between lost its service for a moment
# What was sent before a cut was applied after it; a stream was put aside while nothing came: ask where it stands.
# What was damaged on its way may come whole the next time.
# What still runs, for a connection that was lost or on a replica that has died, will have been answered; a connection
# that is half dead will have been cut. Both are waited for.
WAITED_TYPES = frozenset({"idempotency/running", "upload/busy"})
RETRIED_TYPES = WAITED_TYPES | {"session/sequence", "session/push-mismatch", "stream/idle", "body/digest_mismatch"}
# Of what goes on where it was cut: other bytes were the next ones; this piece came too slowly, but some of it came.
RESUMED_TYPES = frozenset({"upload/offset", "request/body-timeout"})
RETRIED_ERRORS = (ConnectionFailed,)  # not RequestTimeout: the caller has waited as long as was asked for


@dataclass(frozen=True)
class Retries:
    """At most `max_retries` times: 0.5 s, 1 s, 2 s, ... up to 8 s, each shortened by chance by up to a half.

    `Retry-After` is waited for if it is longer, up to `max_retry_after_seconds`; no try begins more than
    `max_total_seconds` after the first failure. All calls of the service only read or compute, and the pushes of a
    stream have numbers, so each is safe to repeat.
    """

    max_retries: int
    first_seconds: float = 0.5
    max_seconds: float = 8.0
    max_retry_after_seconds: float = 30.0
    max_total_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise OptionError(f"max_retries is {self.max_retries}; at least 0 is needed")

    def at_most(self, max_retries: int) -> "Retries":
        """The same with another bound; still none where retries are switched off."""
        return replace(self, max_retries=max_retries) if self.max_retries else self

    def pause_seconds(
        self,
        error: ServiceError,
        *,
        num_failed: int,
        num_waited: int = 0,
        elapsed_seconds: float = 0.0,
        resumes: bool = False,
    ) -> float | None:
        """How long to wait after the `num_failed`-th failure (counted from 1), or None to give up.

        `elapsed_seconds` is how long ago the first of them was. `num_waited` is how often an earlier try was still
        being executed: pauses grow with it, but time alone bounds it. What `resumes` does not begin anew.
        """
        if self.max_retries == 0 or num_failed > self.max_retries or not _may_pass(error, resumes=resumes):
            return None
        doubled = self.first_seconds * 2.0 ** min(num_failed + num_waited - 1, 30)
        backoff_seconds = min(doubled, self.max_seconds) * random.uniform(0.5, 1.0)
        asked_seconds = error.retry_after_seconds if isinstance(error, StatusError) else None
        pause_seconds = max(backoff_seconds, min(asked_seconds or 0.0, self.max_retry_after_seconds))
        return pause_seconds if elapsed_seconds + pause_seconds <= self.max_total_seconds else None


class Failures:
    """Those of one call so far."""

    def __init__(self, retries: Retries, *, repeatable: bool, resumes: bool = False) -> None:
        self._retries = retries
        self._repeatable = repeatable
        self._resumes = resumes
        self._num_failed = self._num_waited = 0
        self._first_at_seconds = 0.0

    @property
    def any(self) -> bool:
        return self._num_failed + self._num_waited > 0

    def pause_seconds(self, error: ServiceError) -> float:
        """How long to wait before the next try; raises `error` where there is to be none."""
        now_seconds = time.monotonic()
        if not self.any:
            self._first_at_seconds = now_seconds
        if isinstance(error, StatusError) and error.type in WAITED_TYPES:
            self._num_waited += 1
        else:
            self._num_failed += 1
        seconds = self._retries.pause_seconds(
            error,
            num_failed=self._num_failed,
            num_waited=self._num_waited,
            elapsed_seconds=now_seconds - self._first_at_seconds,
            resumes=self._resumes,
        )
        if seconds is None or not self._repeatable:
            raise error
        return seconds


def _may_pass(error: ServiceError, *, resumes: bool) -> bool:
    if isinstance(error, StatusError):
        retried = error.status in RETRIED_STATUSES or error.type in RETRIED_TYPES
        return retried or (resumes and error.type in RESUMED_TYPES)
    return isinstance(error, RETRIED_ERRORS) or (resumes and isinstance(error, RequestTimeout))

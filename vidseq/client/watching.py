"""How long to wait between two looks at a job, and for a service that is away meanwhile. Does no I/O."""

import sys
import time
from collections.abc import Callable
from typing import Any

from vidseq.client.retries import Retries
from vidseq.errors import JobUnfinished, ServiceError
from vidseq.jobs import Job

POLL_SECONDS, MAX_POLL_SECONDS = 0.5, 10.0
MAX_AWAY_SECONDS = 15 * 60.0  # a service that is started anew is back in 15 s to some minutes


class Watching:
    """One wait for a job; tells of each change. Raises JobUnfinished once it has taken `timeout_seconds`.

    Failures of a service that is away, or too full, are waited out for that long too; where there is no such end, for
    `max_away_seconds` in a row. Not where `retries` are switched off.
    """

    def __init__(
        self,
        on_progress: Callable[[Any], object] | None,
        timeout_seconds: float | None,
        retries: Retries,
        *,
        max_away_seconds: float = MAX_AWAY_SECONDS,
    ) -> None:
        self._on_progress = on_progress
        self._ends = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._retries = retries.at_most(sys.maxsize)  # time alone bounds it
        self._max_away_seconds = max_away_seconds
        self._pause_seconds = POLL_SECONDS
        self._before: Job | None = None
        self._num_failed = 0
        self._away_ends = 0.0

    def seconds_after(self, job: Job) -> float | None:
        """Until the next look, after one that found `job`; None: it has ended. Raises JobUnfinished."""
        self._num_failed = 0
        if self._on_progress is not None and job != self._before:
            self._on_progress(job)
        self._before = job
        if job.ended:
            return None
        pause_seconds, self._pause_seconds = self._pause_seconds, next_pause_seconds(self._pause_seconds)
        if self._ends is not None:
            left_seconds = self._ends - time.monotonic()
            if left_seconds <= 0:
                raise JobUnfinished(f"{job.id} is {job.state} still; it goes on, and can be waited for again")
            pause_seconds = min(pause_seconds, left_seconds)
        return pause_seconds

    def seconds_after_failure(self, error: ServiceError) -> float:
        """Until the next look, after one that failed; raises `error` where there is to be none."""
        if self._num_failed == 0:
            self._away_ends = time.monotonic() + self._max_away_seconds
        self._num_failed += 1
        # It resumes: to look begins nothing anew, so a look that took too long is waited out as well.
        pause_seconds = self._retries.pause_seconds(error, num_failed=self._num_failed, resumes=True)
        left_seconds = (self._away_ends if self._ends is None else self._ends) - time.monotonic()
        if pause_seconds is None or left_seconds <= 0:
            raise error
        return min(pause_seconds, left_seconds)


def next_pause_seconds(pause_seconds: float) -> float:
    """Between two looks at a job: it grows with the time that it takes."""
    return min(MAX_POLL_SECONDS, pause_seconds * 1.25)

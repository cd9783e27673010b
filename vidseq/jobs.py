"""What is told of jobs: videos that were handed over, to be labelled when it is their turn. Knows no HTTP, no store.

Unknown fields are ignored on reading, as in vidseq.schemas.
"""

from datetime import datetime
from typing import Literal

from vidseq.schemas import Answer, Prediction, Problem

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ItemState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
DeliveryState = Literal["pending", "delivered", "failed"]

ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})


class Job(Answer):
    """A job as it is now. `num_items` are the videos that it was made of, the other numbers those that have ended.

    It is `running` from the first item that is begun. When all have ended it is `succeeded` if each of them was
    labelled, else `failed`; the others of a failed job have their labels. At `expires_at` all of it is deleted, and
    what was not begun by then never will be.
    """

    id: str
    state: JobState
    num_items: int
    num_succeeded: int
    num_failed: int
    num_cancelled: int
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime
    webhook_url: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class JobPage(Answer):
    """Jobs, the newest first; `next` is what to ask for `after` this page, None on the last."""

    jobs: tuple[Job, ...]
    next: str | None = None


class JobResult(Answer):
    """What came of one video of a job: `predictions` if it succeeded, `problem` if it failed.

    There is one prediction for each model that was asked, in that order. `position` counts from 0 in the order in which
    the job names its videos; `custom_id` is what the job calls it; `attempts` is how often it was begun.
    """

    position: int
    custom_id: str | None
    state: ItemState
    attempts: int
    predictions: tuple[Prediction, ...] = ()
    problem: Problem | None = None

    @property
    def prediction(self) -> Prediction | None:
        """The first, which is the only one where one model was asked."""
        return next(iter(self.predictions), None)


class JobResults(Answer):
    """Results in the order of their positions; `next` is what to ask for `after` this page, None on the last."""

    results: tuple[JobResult, ...]
    next: str | None = None


class Delivery(Answer):
    """One message to a webhook. `status` is what its server answered last; `reason` why there was no answer.

    `next_attempt_at` is None once it is delivered, or given up.
    """

    id: str
    type: str
    state: DeliveryState
    attempts: int
    status: int | None
    reason: str | None
    created_at: datetime
    next_attempt_at: datetime | None


class Deliveries(Answer):
    """The messages of one job."""

    deliveries: tuple[Delivery, ...]


class JobEvent(Answer):
    """The body of a webhook's message: a job has ended. The header `webhook-id` is the same each time it is sent."""

    type: Literal["job.succeeded", "job.failed", "job.cancelled"]
    timestamp: datetime
    data: Job

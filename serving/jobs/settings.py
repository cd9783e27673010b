"""How jobs are bounded, leased, kept and told of. Knows nothing of how that is done."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from vidseq.config import Config, PositiveInt, PositiveSeconds

DAY_SECONDS = 24 * 3600.0
MAX_ITEMS = 10_000  # a job is one transaction


class WebhookSettings(Config):
    """A message that is not taken is sent again after each of `pauses_seconds`, a fifth more or less, then given up.

    A webhook may be of a private address, or of no TLS, only where `allow_private` says so: whoever can make jobs could
    otherwise make the service knock at doors that only it can reach.
    """

    allow_private: bool = False
    timeout_seconds: PositiveSeconds = 10.0
    max_at_once: PositiveInt = 8
    pauses_seconds: tuple[PositiveSeconds, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, DAY_SECONDS)


class JobSettings(Config):
    """A job has `max_items` videos at most, one key `max_unfinished` jobs that have not ended, and `max_kept_items`
    videos in all of its jobs, ended or not.

    All of a job is deleted when its time to live is over, `time_to_live_seconds` if it does not say. A replica labels
    `items_at_once` for jobs; `max_in_flight` items of one dispatcher are at replicas, or wait there. An item of which
    nobody has heard for `lease_seconds` is begun again, `max_attempts` times in all. Ended jobs keep their videos for
    `uploads_kept_seconds` more, for another job of the same ones.
    """

    max_items: Annotated[int, Field(gt=0, le=MAX_ITEMS)] = MAX_ITEMS
    max_kept_items: PositiveInt = 1_000_000
    max_unfinished: PositiveInt = 10_000
    time_to_live_seconds: PositiveSeconds = 7 * DAY_SECONDS
    max_time_to_live_seconds: PositiveSeconds = 30 * DAY_SECONDS
    items_at_once: PositiveInt = 2
    max_in_flight: PositiveInt = 16
    max_attempts: PositiveInt = 3
    lease_seconds: PositiveSeconds = 10.0
    poll_seconds: PositiveSeconds = 0.5
    uploads_kept_seconds: Annotated[float, Field(ge=0)] = 3600.0
    webhooks: WebhookSettings = WebhookSettings()

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.time_to_live_seconds > self.max_time_to_live_seconds:
            raise ValueError("time_to_live_seconds is more than max_time_to_live_seconds")
        return self

"""What requests over HTTP may cost, and to whom the answers are shown."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from serving.body import Pace
from serving.origins import Origin
from serving.rates import RateSettings
from serving.streams import StreamSettings
from vidseq.config import Config, PositiveInt, PositiveSeconds


class WebSettings(Config):
    """What requests may cost: so many videos at a time, and as many pushes. `max_arriving` is how many videos may be on
    their way or at work, `max_held_bytes` what the bodies of each kind may take together. No more videos wait for one
    answer than are labelled in `max_wait_seconds`, as it goes at the time; `min_waiting` may always wait.

    `body_timeout_seconds` runs from the headers to the last byte, `request_timeout_seconds` from there to the answer;
    of an answer in lines, from each line to the next. After `body_grace_seconds` a body is given up as soon as it has
    come more slowly, in the mean, than `min_body_bytes_per_second`.

    One key may have `key_share` of all places and bytes at once, and do in a time what `rates` says.

    `docs` shows the page of the API to everybody. `allowed_origins` are pages of other hosts, such as
    https://example.org, that may ask and read, over HTTP and WebSocket.
    """

    max_body_bytes: PositiveInt = 512 * 2**20
    max_held_bytes: PositiveInt = 2 * 2**30
    max_concurrent: PositiveInt = 64
    max_arriving: PositiveInt = 256
    max_wait_seconds: PositiveSeconds = 3.0
    min_waiting: PositiveInt = 8
    body_timeout_seconds: PositiveSeconds = 120.0
    body_grace_seconds: PositiveSeconds = 20.0
    min_body_bytes_per_second: PositiveInt = 8 * 1024
    request_timeout_seconds: PositiveSeconds = 120.0
    retry_after_seconds: PositiveSeconds = 1.0
    key_share: Annotated[float, Field(gt=0, le=1)] = 0.75
    rates: RateSettings = RateSettings()
    docs: bool = False
    allowed_origins: frozenset[Origin] = frozenset()
    streams: StreamSettings = StreamSettings()

    @property
    def pace(self) -> Pace:
        return Pace(self.body_timeout_seconds, self.body_grace_seconds, self.min_body_bytes_per_second)

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_body_bytes > self.max_held_bytes:
            raise ValueError(f"max_body_bytes {self.max_body_bytes} is more than max_held_bytes {self.max_held_bytes}")
        for name in ("bytes_per_minute", "bytes_per_hour"):
            num_bytes = getattr(self.rates, name)
            if num_bytes is not None and num_bytes < self.max_body_bytes:
                raise ValueError(f"max_body_bytes {self.max_body_bytes} is more than {name} {num_bytes}")
        return self

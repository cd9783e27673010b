"""What was done for somebody, as a sum. Knows not for whom, nor when."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Protocol

from vidseq.schemas import Prediction


@dataclass(frozen=True, kw_only=True)
class Used:
    """`failed` are those of the requests that were refused, broke or were not waited for; a stream is one request.

    `compute_seconds` are those of decoding, of the CNN and of the recurrence: of each batch, the share of its frames.
    """

    requests: int = 0
    failed: int = 0
    received_bytes: int = 0
    frames_decoded: int = 0
    frames_labelled: int = 0
    compute_seconds: float = 0.0

    def __add__(self, other: "Used") -> "Used":
        return Used(**{name: more + still for name, more, still in zip(NAMES, _all(self), _all(other), strict=True)})


NAMES = tuple(field.name for field in fields(Used))
_all = attrgetter(*NAMES)


class Charge(Protocol):
    """Told of what was done for an owner, once it was done: the seam for accounts. Called in any thread."""

    def __call__(self, owner: str, used: Used, /) -> None: ...


def uncharged(owner: str, used: Used, /) -> None:
    """The Charge of whoever keeps no accounts."""


def of_video(predictions: Sequence[Prediction]) -> Used:
    """For one that was labelled, by one model or by several that shared its decoding and its encoding."""
    first = predictions[0]
    shared_ms = first.timings.decode_ms + first.timings.encode_ms
    return Used(
        frames_decoded=first.video.frames_decoded,
        frames_labelled=sum(prediction.sampled.num_frames for prediction in predictions),
        compute_seconds=(shared_ms + sum(prediction.timings.recur_ms for prediction in predictions)) / 1000,
    )

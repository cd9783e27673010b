"""What was done for somebody, as a sum. Knows not for whom, nor when."""

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Protocol

from vidseq.schemas import Timings, VideoReport


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


def of_video(*, video: VideoReport, timings: Timings, num_labelled: int) -> Used:
    """For one that was labelled."""
    return Used(
        frames_decoded=video.frames_decoded,
        frames_labelled=num_labelled,
        compute_seconds=(timings.decode_ms + timings.encode_ms + timings.recur_ms) / 1000,
    )

"""A long video in legs that are encoded side by side, and read as one. Knows no heads.

    leg 0   decode, encode  |
    leg 1   decode . . . . . encode  |                  every leg decodes from the start, for only so is it known
    leg 2   decode . . . . . . . . . . encode  |        which frames are sampled; the backbone is what costs

Frames and features are those of one pass over the whole: which frames belong to a leg follows from their times alone.

Shape letters: T sampled frames, D feature size.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseq.encoder import Encoder
from vidseq.features.extract import Encoded, Look, Seen, encoded
from vidseq.features.row_files import Rows, Seconds, read_rows, write_rows
from vidseq.sampling import EARLY_SECONDS
from vidseq.video import Foreseeing, Frame, Reader, Verdict

_READ_FRAMES = 4096  # what lies in memory at once of a video of any length


@dataclass(frozen=True)
class Leg:
    """The `number`-th of `of` legs, from 0. All legs of a video are made by the same encoder and look."""

    number: int
    of: int

    def span(self, duration_seconds: float) -> tuple[float, float]:
        """[start, end) of its frames; what comes before or after what is declared belongs to the first and the last."""
        start = self.number * duration_seconds / self.of if self.number else -math.inf
        end = (self.number + 1) * duration_seconds / self.of if self.number + 1 < self.of else math.inf
        return start, end


class CannotDivide(Exception):
    """A video without a declared duration; or one whose frames lie so far apart that what moved cannot be known."""


def encode_leg(reader: Reader, look: Look, encoder: Encoder, leg: Leg, out: Path) -> None:
    """Write a leg's columns to a file; the last one says, too, what is to be said of the video (`Seen`).

    Raises:
        CannotDivide: the video must be encoded in one piece.
        VideoError: as `encoded`.
    """
    duration_seconds = reader.report().duration_seconds
    if duration_seconds is None or look.sampling.max_frames is not None:
        raise CannotDivide
    within = _Within(reader, *leg.span(duration_seconds), look=look, moving=encoder.motion is not None)

    def chunks() -> Iterator[tuple[Mapping[str, Rows], Seconds]]:
        num_frames = 0
        for chunk in encoded(within, look.sampling, encoder):
            own_T = chunk.seconds_T >= within.start_seconds
            num_frames += int(own_T.sum())
            yield {name: rows[own_T] for name, rows in chunk.columns.items()}, chunk.seconds_T[own_T]
        if not num_frames:
            yield _no_frames(encoder)
        if within.cut:
            raise CannotDivide

    is_last = leg.number + 1 == leg.of
    write_rows(out, chunks(), about=lambda: Seen.by(reader, stride=1).model_dump_json() if is_last else "")


def read_legs(files: Sequence[Path], *, moving: bool) -> tuple[Iterator[Encoded], Seen] | None:
    """The frames of all legs as one, chunk by chunk, and what the last one has seen; None if one is damaged."""
    names = ("feature_TD", "map_TM") if moving else ("feature_TD",)
    legs = [read_rows(file, *names) for file in files]
    if any(leg is None for leg in legs):
        return None
    kept = [leg for leg in legs if leg is not None]

    def chunks() -> Iterator[Encoded]:
        for leg in kept:
            for first in range(0, len(leg.seconds_T), _READ_FRAMES):
                part = slice(first, first + _READ_FRAMES)
                yield Encoded({name: rows[part] for name, rows in leg.columns.items()}, leg.seconds_T[part], stride=1)

    return chunks(), Seen.model_validate_json(kept[-1].about)


class _Within:
    """A Reader that shows the frames of a leg alone, and where features tell of motion, some before it.

    `cut` says that these were not enough: the first frame of the leg does not know the frame before it.
    """

    def __init__(self, reader: Reader, start_seconds: float, end_seconds: float, *, look: Look, moving: bool) -> None:
        self._reader = reader
        self.start_seconds, self.end_seconds = start_seconds, end_seconds
        rate = look.sampling.frames_per_second
        self.first_seconds = start_seconds - (0.0 if not moving else 1.0 if rate == "native" else 2 / rate)
        self.cut = False
        self._moving, self._skipped, self._taken = moving, False, False

    def frames(self, want: Callable[[float], Verdict]) -> Iterator[Frame]:
        yield from self._reader.frames(_Asked(self, want))

    def verdict(self, seconds: float, verdict: Verdict) -> Verdict:
        if verdict is Verdict.STOP or seconds >= self.end_seconds:
            return Verdict.STOP
        if verdict is Verdict.TAKE and seconds < self.first_seconds:
            self._skipped = True
            return Verdict.SKIP
        if verdict is Verdict.TAKE and not self._taken:
            self._taken = True
            self.cut = self._moving and self._skipped and seconds >= self.start_seconds
        return verdict


class _Asked:
    """What a Reader asks of every frame: of the sampling, which must hear of all, and then of the leg."""

    def __init__(self, within: _Within, want: Callable[[float], Verdict]) -> None:
        self._within, self._want = within, want

    def __call__(self, seconds: float) -> Verdict:
        return self._within.verdict(seconds, self._want(seconds))

    @property
    def not_before(self) -> float:
        due = self._want.not_before if isinstance(self._want, Foreseeing) else -math.inf
        begins, ends = self._within.first_seconds, self._within.end_seconds
        return min(max(due, begins), ends) - 2 * EARLY_SECONDS


def _no_frames(encoder: Encoder) -> tuple[Mapping[str, Rows], Seconds]:
    columns: dict[str, Rows] = {"feature_TD": np.zeros((0, encoder.feature_size), np.float32)}
    if encoder.motion is not None:
        columns["map_TM"] = np.zeros((0, encoder.encoded_size - encoder.pooled_size), np.float16)
    return columns, np.zeros(0)

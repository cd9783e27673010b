"""How soon the running action is right, and how restless labels are. Knows nothing of models.

    running action   b  b  a  b  a  a  a  a          the truth is a: detected here, where it is right and stays so
                                 ^

Shape letters: R draws, N clips, T frames of one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.targets import IGNORED
from training.measure.figures import AccuracySeen, Earliness
from training.measure.metrics.resampling import Bools, Figures, Floats, Ints, Resampling, as_interval, mean_of, measured

SHARES_SEEN = (0.10, 0.25, 0.50, 1.00)


@dataclass(frozen=True, eq=False)
class Course:
    """Label indices after each sampled frame of one clip: what is true, what was called, and when.

    What is true of a running action is the same throughout. A frame without a label is `IGNORED`, and no change to or
    from it is counted, nor of what was called there.
    """

    seconds_T: Floats
    true_T: Ints
    called_T: Ints
    group: str

    @property
    def right_T(self) -> Bools:
        right_T: Bools = self.called_T == self.true_T
        return right_T


def earliness(*, actions: Sequence[Course], frames: Sequence[Course]) -> Earliness:
    """Of running actions, and of frame labels; either may be empty."""
    value: dict[str, float] = {}
    ends: dict[str, Floats] = {}
    for courses, kind in ((actions, _of_actions), (frames, _of_frames)):
        if courses:
            figures = kind(courses)
            value |= {name: float(found) for name, found in measured(figures, num_clips=len(courses)).items()}
            ends |= Resampling([course.group for course in courses]).intervals(figures)
    seen = [
        AccuracySeen(share_seen=share, accuracy=value.pop(_seen(share)), interval=as_interval(ends.pop(_seen(share))))
        for share in (SHARES_SEEN if actions else ())
    ]
    intervals = {name: as_interval(ends_2) for name, ends_2 in ends.items()}
    return Earliness(
        accuracy_seen=tuple(seen),
        **{name: None if math.isnan(number) else number for name, number in value.items()},
        intervals={name: interval for name, interval in intervals.items() if interval is not None},
    )


def num_seen(num_frames: int, *, share: float) -> int:
    """How many frames are this share of a clip, rounded up."""
    return max(1, math.ceil(share * num_frames - 1e-9))


def detected_at(right_T: Bools) -> int | None:
    """The first frame from which on all are right; None if the last is not."""
    wrong = np.flatnonzero(~right_T)
    first = int(wrong[-1]) + 1 if len(wrong) else 0
    return first if first < len(right_T) else None


def num_flips(label_T: Ints, known_T: Bools) -> int:
    """How often one frame's label is not the last one's, both known."""
    return int(((label_T[1:] != label_T[:-1]) & known_T[1:] & known_T[:-1]).sum())


def _of_actions(courses: Sequence[Course]) -> Figures:
    right_by_share = {
        _seen(share): np.array([float(c.right_T[num_seen(len(c.right_T), share=share) - 1]) for c in courses])
        for share in SHARES_SEEN
    }
    frames = [detected_at(course.right_T) for course in courses]
    detected_N = np.array([float(frame is not None) for frame in frames])
    elapsed_N = np.array([c.seconds_T[frame or 0] - c.seconds_T[0] for c, frame in zip(courses, frames, strict=True)])
    shares = mean_of(**right_by_share, share_detected=detected_N)
    flips = _per_minute(courses, action_flips_per_minute=[course.called_T for course in courses])
    return lambda weight_RN: {
        **shares(weight_RN),
        "seconds_to_detect": _median_R(elapsed_N, weight_RN * detected_N),
        **flips(weight_RN),
    }


def _of_frames(courses: Sequence[Course]) -> Figures:
    return _per_minute(
        courses,
        frame_flips_per_minute=[course.called_T for course in courses],
        true_frame_flips_per_minute=[course.true_T for course in courses],
    )


def _per_minute(courses: Sequence[Course], **labels: Sequence[Ints]) -> Figures:
    """Flips of all clips over minutes of all clips."""
    known = [course.true_T != IGNORED for course in courses]
    minutes_N = np.array([np.diff(course.seconds_T).sum() / 60 for course in courses])
    flips = {
        name: np.array([num_flips(label_T, known_T) for label_T, known_T in zip(rows, known, strict=True)])
        for name, rows in labels.items()
    }

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        minutes_R = weight_RN @ minutes_N
        with np.errstate(divide="ignore", invalid="ignore"):  # clips of one frame last no time
            return {
                name: np.where(minutes_R > 0, weight_RN @ flip_N / minutes_R, np.nan) for name, flip_N in flips.items()
            }

    return figures


def _median_R(value_N: Floats, weight_RN: Floats) -> Floats:
    """NaN in a draw in which none has a weight."""
    order_N = np.argsort(value_N)
    below_RN = np.cumsum(weight_RN[:, order_N], axis=1)
    total_R = below_RN[:, -1]
    middle_R = (below_RN >= total_R[:, None] / 2).argmax(axis=1)
    return np.where(total_R > 0, value_N[order_N][middle_R], np.nan)


def _seen(share: float) -> str:
    return f"accuracy_at_{share:g}"

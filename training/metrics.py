"""Figures of merit from scores and targets. Knows nothing of models or of clips.

Shape letters: N clips or frames, K labels.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from sklearn.metrics import confusion_matrix, f1_score

from training.targets import IGNORED

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class ClipMetrics(BaseModel):
    """Of clips with a label: shares are 0 to 1; `confusion[i][j]` counts clips of label i that were called j."""

    num: int
    accuracy: float
    top5: float
    macro_f1: float
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


class FrameMetrics(BaseModel):
    """Of sampled frames with a label; `accuracy_foreground` leaves out the frames whose truth is the background."""

    num: int
    accuracy: float
    accuracy_foreground: float | None
    macro_f1: float


def clip_metrics(scores_NK: Floats, target_N: Ints, *, labels: Sequence[str]) -> ClipMetrics | None:
    """None where no clip has a label."""
    known_N = target_N != IGNORED
    if not known_N.any():
        return None
    scores_NK, target_N = scores_NK[known_N], target_N[known_N]
    called_N = scores_NK.argmax(axis=1)
    best_N5 = np.argsort(-scores_NK, axis=1)[:, :5]
    indices = range(len(labels))
    return ClipMetrics(
        num=len(target_N),
        accuracy=float((called_N == target_N).mean()),
        top5=float((best_N5 == target_N[:, None]).any(axis=1).mean()),
        macro_f1=_macro_f1(target_N, called_N),
        labels=tuple(labels),
        confusion=tuple(map(tuple, confusion_matrix(target_N, called_N, labels=list(indices)).tolist())),
    )


def frame_metrics(
    scores_NK: Floats, target_N: Ints, *, labels: Sequence[str], background: str | None
) -> FrameMetrics | None:
    """None where no frame has a label."""
    known_N = target_N != IGNORED
    if not known_N.any():
        return None
    called_N, target_N = scores_NK[known_N].argmax(axis=1), target_N[known_N]
    right_N = called_N == target_N
    foreground_N = target_N != (labels.index(background) if background is not None else IGNORED)
    return FrameMetrics(
        num=len(target_N),
        accuracy=float(right_N.mean()),
        accuracy_foreground=float(right_N[foreground_N].mean()) if foreground_N.any() else None,
        macro_f1=_macro_f1(target_N, called_N),
    )


def _macro_f1(target_N: Ints, called_N: Ints) -> float:
    """The mean F1 of the labels that occur in the truth."""
    return float(f1_score(target_N, called_N, labels=np.unique(target_N), average="macro", zero_division=0.0))


def expected_calibration_error(
    score_N: Floats, right_N: NDArray[np.bool_], weight_N: Floats, *, num_steps: int = 10
) -> float:
    """How far the share of right answers lies from the mean score, in the mean over equal steps of score.

    0 is perfect, 1 is sure and always wrong (arxiv:1706.04599).
    """
    step_N = np.minimum((score_N * num_steps).astype(np.int64), num_steps - 1)
    gap_by_step = np.bincount(step_N, weights=weight_N * (right_N - score_N))
    return float(np.abs(gap_by_step).sum() / weight_N.sum())


def bootstrap_interval(
    groups: Sequence[str],
    statistic: Callable[[Ints], float],
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of `statistic(indices)` when whole groups are drawn with replacement.

    Clips of one recording or one person are not independent, so groups are drawn, not clips.
    """
    names = sorted(set(groups))
    members = {name: np.array([i for i, group in enumerate(groups) if group == name]) for name in names}
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(num_resamples):
        drawn = generator.integers(len(names), size=len(names))
        values.append(statistic(np.concatenate([members[names[index]] for index in drawn])))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)

"""What was called right of segments: runs of equal frame labels. Knows nothing of models.

    truth    |  wait  |    swing    |      wait      |        edit: the order of the labels, not their times
    called   | wait |  swing  | wait | swing | wait  |        F1@50: how many meet one of the truth by half or more

Both leave out the background, and frames without a label (arxiv:1611.05267, arxiv:1903.01945).

Shape letters: N clips, T frames of one, S runs of the truth, C runs that were called.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.targets import IGNORED
from training.measure.figures import SegmentMetrics
from training.measure.metrics.resampling import Figures, Floats, Ints, Resampling, intervals_of, measured

OVERLAPS = (0.10, 0.25, 0.50)


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of one clip in their order: [start_seconds, end_seconds) and label index."""

    label_S: Ints
    start_seconds_S: Floats
    end_seconds_S: Floats


def runs(label_T: Ints, seconds_T: Floats, *, without: int = IGNORED) -> Runs:
    """Runs of equal labels over sampled frames; those of label `without`, and of `IGNORED`, are left out.

    A frame lasts until the next; the last one for the median of the others.
    """
    last_seconds = float(np.median(np.diff(seconds_T))) if len(seconds_T) > 1 else 1.0
    border_seconds_T = np.append(seconds_T, seconds_T[-1] + last_seconds)
    first_S = np.flatnonzero(np.diff(label_T, prepend=label_T[0] - 1))
    end_S = np.append(first_S[1:], len(label_T))
    kept_S = ~np.isin(label_T[first_S], (without, IGNORED))
    first_S, end_S = first_S[kept_S], end_S[kept_S]
    return Runs(label_T[first_S], border_seconds_T[first_S], border_seconds_T[end_S])


def segment_metrics(
    called: Sequence[Ints],
    targets: Sequence[Ints],
    seconds: Sequence[Floats],
    *,
    background_index: int | None,
    groups: Sequence[str] | None = None,
) -> SegmentMetrics | None:
    """None where no frame has a label. Edit is the mean over clips; F1 is from counts summed over all of them.

    Args:
        called, targets: label_T of each clip; frames whose target is `IGNORED` count in neither.
        seconds: the frames' times of each clip.
        groups: of each clip, for intervals; None leaves these out.
    """
    kept = [index for index, target_T in enumerate(targets) if (target_T != IGNORED).any()]
    if not kept:
        return None
    without = IGNORED if background_index is None else background_index
    pairs = []
    for index in kept:
        target_T = targets[index]
        called_T = np.where(target_T == IGNORED, IGNORED, called[index])
        pairs.append(tuple(runs(label_T, seconds[index], without=without) for label_T in (called_T, target_T)))
    figures = _figures(
        edit_N=np.array([edit_score(ours.label_S, truth.label_S) for ours, truth in pairs]),
        matched_N3=np.array([[num_matched(ours, truth, overlap=at) for at in OVERLAPS] for ours, truth in pairs]),
        num_N2=np.array([[len(ours.label_S), len(truth.label_S)] for ours, truth in pairs]),
    )
    values = measured(figures, num_clips=len(kept))
    ends = {} if groups is None else Resampling([groups[index] for index in kept]).intervals(figures)
    return SegmentMetrics(
        num_clips=len(kept),
        num_true=sum(len(truth.label_S) for _, truth in pairs),
        num_called=sum(len(ours.label_S) for ours, _ in pairs),
        **{name: float(value) for name, value in values.items()},
        intervals=intervals_of(ends),
    )


def edit_score(called_C: Ints, truth_S: Ints) -> float:
    """100 (1 - Levenshtein distance / the longer length); 100 where both are empty."""
    longer = max(len(called_C), len(truth_S))
    return 100.0 if longer == 0 else 100.0 * (1 - _levenshtein(called_C.tolist(), truth_S.tolist()) / longer)


def num_matched(called: Runs, truth: Runs, *, overlap: float) -> int:
    """How many of the called runs are right at this overlap (intersection over union, in seconds).

    In the order of time each takes the run of its own label, in the truth, that it overlaps most; it is right if it
    overlaps that by at least so much and no earlier one has been right by it.
    """
    taken: set[int] = set()
    for label, row_S in zip(called.label_S, _overlap_CS(called, truth), strict=True):
        own_S = np.where(truth.label_S == label, row_S, -1.0)
        best = int(own_S.argmax()) if len(own_S) else -1
        if best >= 0 and own_S[best] >= overlap - 1e-9 and best not in taken:  # sums of times are off by a rounding
            taken.add(best)
    return len(taken)


def _overlap_CS(called: Runs, truth: Runs) -> Floats:
    start_CS = np.maximum(called.start_seconds_S[:, None], truth.start_seconds_S)
    end_CS = np.minimum(called.end_seconds_S[:, None], truth.end_seconds_S)
    both_CS = np.maximum(end_CS - start_CS, 0.0)
    length_C = called.end_seconds_S - called.start_seconds_S
    overlap_CS: Floats = both_CS / (length_C[:, None] + (truth.end_seconds_S - truth.start_seconds_S) - both_CS)
    return overlap_CS


def _levenshtein(left: Sequence[int], right: Sequence[int]) -> int:
    """How many insertions, deletions and replacements make one the other."""
    row = list(range(len(right) + 1))
    for number, one in enumerate(left, start=1):
        before, row = row, [number]
        for index, other in enumerate(right):
            row.append(min(before[index + 1] + 1, row[index] + 1, before[index] + (one != other)))
    return row[-1]


def _figures(*, edit_N: Floats, matched_N3: Ints, num_N2: Ints) -> Figures:
    """F1 is 100 where there is nothing to call and nothing was called."""

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        matched_R3, num_R = weight_RN @ matched_N3, (weight_RN @ num_N2).sum(axis=1)
        f1_R3 = np.divide(200 * matched_R3, num_R[:, None], where=num_R[:, None] > 0, out=100 + 0 * matched_R3)
        names = (f"f1_at_{round(100 * overlap)}" for overlap in OVERLAPS)
        edit_R = (weight_RN @ edit_N) / weight_RN.sum(axis=1)
        return {"edit": edit_R, **dict(zip(names, f1_R3.T, strict=True))}

    return figures

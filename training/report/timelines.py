"""What was said of a clip over time beside the truth, for the clips that tell most. Knows nothing of pages or pixels.

    truth     | serve          | wait     | return        |        runs of one label, in seconds
    called    | serve      | return | wait | return       |        a run that is not the truth is marked as wrong

Shape letters: T sampled frames, A action labels, L frame labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.example import Example
from training.data.targets import IGNORED
from training.measure.figures import ClipRow
from training.measure.scores import ClipScores

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NUM_OF_EACH = 3


@dataclass(frozen=True)
class Run:
    """Neighbouring frames of one label, by its index; `IGNORED` where nobody has said one."""

    start_seconds: float
    end_seconds: float
    label: int
    wrong: bool


@dataclass(frozen=True)
class Ribbon:
    """A clip from its first sampled frame to its last; `labels` are the names of what the runs count."""

    name: str
    labels: tuple[str, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Timeline:
    """One clip, and `why` it was chosen. `truth_score` is the mean score of what is true: of its frames, or its action.

    `row` says what was called, `path` where the clip lies.
    """

    why: str
    path: Path
    row: ClipRow
    truth_score: float
    ribbons: tuple[Ribbon, ...]


@dataclass(frozen=True, eq=False)
class _Scored:
    """A clip with the scores of what is true of it, and of what is said most surely, each in the mean."""

    index: int
    row: ClipRow
    example: Example
    scores: ClipScores
    truth_score: float
    best_score: float


def choose(
    dataset: Dataset,
    scores: Sequence[ClipScores],
    rows: Sequence[ClipRow],
    *,
    several: bool,
    num_of_each: int = NUM_OF_EACH,
) -> list[Timeline]:
    """The clips whose truth got the highest and the lowest scores, and of the rest those with the least sure answers.

    Args:
        scores, rows: one for each clip of the dataset, in its order; clips without a truth are left out.
        several: whether the model says several actions of a clip.
    """
    examples = dataset.examples(range(len(dataset.clips)))
    found = [
        _scored(index, *each, several=several) for index, each in enumerate(zip(rows, examples, scores, strict=True))
    ]
    left = [clip for clip in found if clip is not None]
    orders: list[tuple[str, Callable[[_Scored], float]]] = [
        ("best", lambda clip: -clip.truth_score),
        ("worst", lambda clip: clip.truth_score),
        ("least sure", lambda clip: clip.best_score),
    ]
    chosen: list[Timeline] = []
    for why, order in orders:
        left.sort(key=order)
        chosen += [_timeline(why, clip, dataset, several=several) for clip in left[:num_of_each]]
        left = left[num_of_each:]
    return chosen


def _scored(index: int, row: ClipRow, example: Example, scores: ClipScores, *, several: bool) -> _Scored | None:
    """By its frames where they have labels, else by its action; None where there is no truth of what the model says."""
    frame_target_T = example.frame_target_T.numpy()
    known_T = frame_target_T != IGNORED
    if scores.frame_TL is not None and known_T.any():
        score_TL = scores.frame_TL[known_T]
        of_truth, best = score_TL[np.arange(len(score_TL)), frame_target_T[known_T]], score_TL.max(axis=1)
    elif scores.action_A is not None and example.action_target_A is not None:
        true_A = example.action_target_A.numpy() > 0.5
        if several:
            of_truth = np.where(true_A, scores.action_A, 1 - scores.action_A)
            best = np.maximum(scores.action_A, 1 - scores.action_A)
        else:
            of_truth, best = scores.action_A[true_A], scores.action_A.max(keepdims=True)
    else:
        return None
    return _Scored(index, row, example, scores, float(of_truth.mean()), float(best.mean()))


def _timeline(why: str, clip: _Scored, dataset: Dataset, *, several: bool) -> Timeline:
    seconds_T = dataset.features[clip.index].seconds_T
    running = () if several else _action_ribbon(clip, seconds_T, dataset.action_labels)
    return Timeline(
        why=why,
        path=dataset.clips[clip.index].path,
        row=clip.row,
        truth_score=clip.truth_score,
        ribbons=(*_frame_ribbons(clip, seconds_T, dataset.frame_labels), *running),
    )


def _frame_ribbons(clip: _Scored, seconds_T: Floats, labels: tuple[str, ...]) -> tuple[Ribbon, ...]:
    """The truth above what was said."""
    if clip.scores.frame_TL is None:
        return ()
    truth_T, called_T = clip.example.frame_target_T.numpy(), clip.scores.frame_TL.argmax(axis=1)
    said = Ribbon("frames", labels, _runs(called_T, seconds_T, wrong_T=(called_T != truth_T) & (truth_T != IGNORED)))
    if (truth_T == IGNORED).all():
        return (said,)
    return Ribbon("truth", labels, _runs(truth_T, seconds_T, wrong_T=np.zeros(len(truth_T), dtype=bool))), said


def _action_ribbon(clip: _Scored, seconds_T: Floats, labels: tuple[str, ...]) -> tuple[Ribbon, ...]:
    """The running action: what would have been said, had the clip ended there."""
    if clip.scores.action_logits_TA is None:
        return ()
    called_T, truth = clip.scores.action_logits_TA.argmax(axis=1), clip.example.action_index
    return (Ribbon("action", labels, _runs(called_T, seconds_T, wrong_T=(called_T != truth) & (truth != IGNORED))),)


def _runs(label_T: Ints, seconds_T: Floats, *, wrong_T: Bools) -> tuple[Run, ...]:
    """A frame holds until the next; the last for as long as the one before it."""
    lasting = seconds_T[-1] - seconds_T[-2] if len(seconds_T) > 1 else 1.0
    end_seconds = [*seconds_T[1:].tolist(), float(seconds_T[-1] + lasting)]
    begins_T = np.r_[True, (label_T[1:] != label_T[:-1]) | (wrong_T[1:] != wrong_T[:-1])]
    first_R = np.flatnonzero(begins_T)
    last_R = np.r_[first_R[1:], len(label_T)] - 1
    return tuple(
        Run(float(seconds_T[first]), end_seconds[last], int(label_T[first]), bool(wrong_T[first]))
        for first, last in zip(first_R, last_R, strict=True)
    )

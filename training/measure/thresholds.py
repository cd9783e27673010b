"""From which score on an action is said: thresholds found on clips not learnt from. Knows nothing of models or files.

    several actions     for each the threshold with the best F1 (arxiv:1402.1892)
    one action          unknown below the threshold that leaves most clips answered with the wanted precision
                        (arxiv:1705.08500, without its bound: with tens of clips that would answer next to nothing)

A threshold lies halfway between the two scores that it parts. The scores are those that answers carry: calibrated,
after the last frame of each clip. What is found is best for these very clips, and no better for others.

Shape letters: N clips, A action labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from training.measure.calibration import MIN_CLIPS, Course
from vidseq.config import Calibration, HeadsConfig
from vidseq.naming import DEFAULT_THRESHOLD, probabilities, temperatures_at

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """What a threshold does: of `num_clips` this share has an answer, of which the share `precision` is right."""

    unknown_below: float
    num_clips: int
    share: float
    precision: float


def tune(
    heads: HeadsConfig,
    courses: Sequence[Course],
    *,
    calibration: Calibration | None,
    unknown_precision: float | None = None,
) -> tuple[HeadsConfig, tuple[str, ...]]:
    """The heads with the thresholds that these clips ask for, and sentences for a person about what they do.

    Args:
        heads: a stated `unknown_below` is kept, and told what it does.
        courses: of clips that the scoring model has not learnt from.
        calibration: what was found on them; None where they were too few.
        unknown_precision: what share of the answers should be right; None answers every clip.
    """
    courses = [course for course in courses if course.target_A is not None]
    wanted = heads.several or heads.unknown_below is not None or unknown_precision is not None
    if not wanted or not courses:
        return heads, ()
    if calibration is None and heads.unknown_below is None:
        what = f"thresholds stay at {DEFAULT_THRESHOLD}" if heads.several else "every clip is answered"
        return heads, (f"{len(courses)} clips were held out, and {MIN_CLIPS} are needed to find thresholds: {what}",)
    score_NA, target_NA = _at_the_end(courses, calibration, several=heads.several)
    if heads.several:
        thresholds = best_thresholds(score_NA, target_NA)
        return heads.model_copy(update={"thresholds": thresholds}), (_several(heads, thresholds, target_NA),)
    score_N, right_N = score_NA.max(axis=1), target_NA[np.arange(len(score_NA)), score_NA.argmax(axis=1)]
    if unknown_precision is None:
        assert heads.unknown_below is not None, "something is wanted"
        return heads, (_said(answered(score_N, right_N, unknown_below=heads.unknown_below)),)
    found = reaching(score_N, right_N, precision=unknown_precision, lowest=1 / score_NA.shape[1])
    if found is None:
        return heads, (_unreachable(score_N, right_N, unknown_precision),)
    return heads.model_copy(update={"unknown_below": found.unknown_below}), (_said(found),)


def best_thresholds(score_NA: Floats, target_NA: Bools) -> tuple[float, ...]:
    """Of each action the threshold with the best F1, of equals the one nearest to 0.5; 0.5 where no clip shows it."""
    return tuple(_best_threshold(score_NA[:, action], target_NA[:, action]) for action in range(score_NA.shape[1]))


def reaching(score_N: Floats, right_N: Bools, *, precision: float, lowest: float) -> Answered | None:
    """The threshold that leaves most clips answered, of whose answers at least the share `precision` is right.

    None where there is none: fewer than `MIN_CLIPS` answers tell nothing. `lowest` is the least that a score can be.
    """
    order = np.argsort(-score_N, kind="stable")
    falling_N = np.append(score_N[order], lowest)
    precision_N = np.cumsum(right_N[order]) / np.arange(1, len(score_N) + 1)
    parts_N = falling_N[:-1] > falling_N[1:]  # equal scores are answered together, or not at all
    parts_N[-1] = True
    enough_N = parts_N & (precision_N >= precision) & (np.arange(1, len(score_N) + 1) >= MIN_CLIPS)
    if not enough_N.any():
        return None
    last = np.flatnonzero(enough_N)[-1]
    return answered(score_N, right_N, unknown_below=float(falling_N[last : last + 2].mean()))


def answered(score_N: Floats, right_N: Bools, *, unknown_below: float) -> Answered:
    """What a stated threshold does to these clips; without any answer no precision is known, and it is 0."""
    answered_N = score_N >= unknown_below
    precision = float(right_N[answered_N].mean()) if answered_N.any() else 0.0
    return Answered(unknown_below, len(score_N), float(answered_N.mean()), precision)


def _at_the_end(courses: Sequence[Course], calibration: Calibration | None, *, several: bool) -> tuple[Floats, Bools]:
    """score_NA and target_NA of whole clips."""
    logits_NA = torch.from_numpy(np.stack([course.action_logits_TA[-1] for course in courses])).double()
    temperature_N = None
    if calibration is not None:
        elapsed_N = np.array([course.seconds_T[-1] - course.seconds_T[0] for course in courses])
        temperature_N = temperatures_at(elapsed_N, calibration)
    target_NA = torch.stack([course.target_A for course in courses if course.target_A is not None])
    return probabilities(logits_NA, several=several, temperature_T=temperature_N).numpy(), target_NA.numpy() > 0.5


def _best_threshold(score_N: Floats, target_N: Bools) -> float:
    if not target_N.any():
        return DEFAULT_THRESHOLD
    precision_K, recall_K, score_K = precision_recall_curve(target_N, score_N)  # from each distinct score on, rising
    f1_K = 2 * precision_K * recall_K / np.maximum(precision_K + recall_K, np.finfo(np.float64).tiny)
    halfway_K = (score_K + np.append(0.0, score_K[:-1])) / 2
    best_K = halfway_K[f1_K[:-1] >= f1_K.max() - 1e-12]
    return float(best_K[np.abs(best_K - DEFAULT_THRESHOLD).argmin()])


def _several(heads: HeadsConfig, thresholds: Sequence[float], target_NA: Bools) -> str:
    each = [
        f"{label} from {threshold:.2f} on{'' if target_NA[:, action].any() else ' (no clip showed it)'}"
        for action, (label, threshold) in enumerate(zip(heads.action_labels, thresholds, strict=True))
    ]
    return f"of {len(target_NA)} clips not learnt from, these thresholds had the best F1: {', '.join(each)}"


def _said(found: Answered) -> str:
    return (
        f"an action below {found.unknown_below:.2f} is unknown: of {found.num_clips} clips not learnt from "
        f"{found.share:.0%} are answered, {found.precision:.0%} of them rightly; of other clips it may be less"
    )


def _unreachable(score_N: Floats, right_N: Bools, wanted: float) -> str:
    return (
        f"no threshold makes {wanted:.0%} of at least {MIN_CLIPS} answers right, and every clip is answered; of "
        f"{len(score_N)} clips not learnt from {right_N.mean():.0%} are answered rightly"
    )

"""Whether a score of 0.8 is right 8 times in 10. Knows nothing of how scores are made.

Shape letters: R draws, N clips, A actions, B bins of score.
"""

import numpy as np

from training.measure.figures import Band, Reliability, ReliabilityBin
from training.measure.metrics.classes import one_hot
from training.measure.metrics.resampling import Bools, Floats, Ints, Resampling, intervals_of, mean_of, measured

NUM_BINS = 15
_TINY = np.finfo(np.float64).tiny


def reliability(probability_NA: Floats, target_N: Ints, *, resampling: Resampling) -> Reliability:
    """Negative log-likelihood, Brier score and calibration error of clips that all have a label.

    The Brier score is the squared distance from the truth summed over the actions, 0 to 2; the calibration error is of
    the action that is called. Its interval leans upwards, as every resample of few clips does: compare it with `band`.
    """
    called_N, score_N = probability_NA.argmax(axis=1), probability_NA.max(axis=1)
    right_N = called_N == target_N
    told_N = np.maximum(probability_NA[np.arange(len(target_N)), target_N], _TINY)
    true_NA = one_hot(target_N, num_labels=probability_NA.shape[1])
    means = mean_of(nll=-np.log(told_N), brier=((probability_NA - true_NA) ** 2).sum(axis=1))

    def figures(weight_RN: Floats) -> dict[str, Floats]:
        return {**means(weight_RN), "ece": _ece_R(score_N, right_N, weight_RN, num_bins=NUM_BINS)}

    values = measured(figures, num_clips=len(target_N))
    return Reliability(
        **{name: float(value) for name, value in values.items()},
        band=calibrated_ece_band(score_N),
        bins=_bins(score_N, right_N),
        intervals=intervals_of(resampling.intervals(figures)),
    )


def expected_calibration_error(score_N: Floats, right_N: Bools, weight_N: Floats, *, num_bins: int = NUM_BINS) -> float:
    """How far the share of right answers lies from the mean score, in the mean over equal bins of score.

    0 is perfect, 1 is sure and always wrong (arxiv:1706.04599).
    """
    return float(_ece_R(score_N, right_N, weight_N[None], num_bins=num_bins)[0])


def calibrated_ece_band(score_N: Floats, *, num_bins: int = NUM_BINS, num_draws: int = 2000, seed: int = 0) -> Band:
    """The calibration errors that a perfectly calibrated model with just these scores would show.

    Each answer is right with the probability that its score says, drawn again and again. With few clips the error is
    far from 0 by chance alone: a model whose error lies in the band cannot be told from a perfect one.
    """
    generator = np.random.default_rng(seed)
    bin_NB = one_hot(_bin_N(score_N, num_bins=num_bins), num_labels=num_bins).astype(np.float64)
    rows = max(1, 2**22 // len(score_N))
    errors = []
    for start in range(0, num_draws, rows):
        right_RN = generator.random((min(rows, num_draws - start), len(score_N))) < score_N
        errors.append(np.abs((right_RN - score_N) @ bin_NB).sum(axis=1) / len(score_N))
    error_R = np.concatenate(errors)
    low, high = np.percentile(error_R, [2.5, 97.5])
    return Band(low=float(low), mean=float(error_R.mean()), high=float(high))


def _ece_R(score_N: Floats, right_N: Bools, weight_RN: Floats, *, num_bins: int) -> Floats:
    bin_NB = one_hot(_bin_N(score_N, num_bins=num_bins), num_labels=num_bins)
    gap_RB = weight_RN @ np.where(bin_NB, (right_N - score_N)[:, None], 0.0)
    error_R: Floats = np.abs(gap_RB).sum(axis=1) / weight_RN.sum(axis=1)
    return error_R


def _bins(score_N: Floats, right_N: Bools) -> tuple[ReliabilityBin, ...]:
    bin_N = _bin_N(score_N, num_bins=NUM_BINS)
    bins = []
    for number in range(NUM_BINS):
        here_N = bin_N == number
        bins.append(
            ReliabilityBin(
                low=number / NUM_BINS,
                high=(number + 1) / NUM_BINS,
                num=int(here_N.sum()),
                mean_score=float(score_N[here_N].mean()) if here_N.any() else None,
                share_right=float(right_N[here_N].mean()) if here_N.any() else None,
            )
        )
    return tuple(bins)


def _bin_N(score_N: Floats, *, num_bins: int) -> Ints:
    return np.minimum((score_N * num_bins).astype(np.int64), num_bins - 1)

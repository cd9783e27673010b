"""Differences between two models on the same clips are those of scikit-learn's figures, and their signs are right."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from training.measure.metrics.classes import counts, one_hot
from training.measure.metrics.resampling import Ints, Resampling
from training.measure.paired import Judged, differences

NUM_CLIPS, NUM_LABELS = 30, 3
GROUPS = [f"{number % 10}" for number in range(NUM_CLIPS)]
TRUTH_N = np.arange(NUM_CLIPS) % NUM_LABELS


def calling(share_right: float, *, seed: int) -> Ints:
    generator = np.random.default_rng(seed)
    right_N = generator.random(NUM_CLIPS) < share_right
    return np.where(right_N, TRUTH_N, generator.integers(NUM_LABELS, size=NUM_CLIPS))


def judged(called_N: Ints, *, clips: bool) -> Judged:
    true_NK, called_NK = (one_hot(index_N, num_labels=NUM_LABELS) for index_N in (TRUTH_N, called_N))
    rows = zip(true_NK[:, None], called_NK[:, None], strict=True)
    exact_N = (called_N == TRUTH_N).astype(np.float64) if clips else None
    return Judged(np.stack([counts(*row) for row in rows]), exact_N)


@pytest.mark.parametrize("unit", ["clips", "frames"])
def test_differences_are_ours_minus_theirs_in_accuracy_and_macro_f1(unit: str) -> None:
    ours_N, theirs_N = calling(0.9, seed=1), calling(0.4, seed=2)
    both = (judged(called_N, clips=unit == "clips") for called_N in (ours_N, theirs_N))
    accuracy, macro_f1 = differences(*both, unit=unit, against="other", resampling=Resampling(GROUPS))
    expected = [accuracy_score(TRUTH_N, called_N) for called_N in (ours_N, theirs_N)]
    assert accuracy.difference == pytest.approx(expected[0] - expected[1])
    expected = [f1_score(TRUTH_N, called_N, average="macro") for called_N in (ours_N, theirs_N)]
    assert macro_f1.difference == pytest.approx(expected[0] - expected[1])
    assert (accuracy.unit, accuracy.figure, macro_f1.figure, accuracy.against) == (
        unit,
        "accuracy",
        "macro_f1",
        "other",
    )


def test_a_clear_lead_has_an_interval_above_0_and_a_small_p_and_turned_round_the_same_p() -> None:
    ours, theirs = (judged(calling(share, seed=3), clips=True) for share in (0.95, 0.2))
    lead, _ = differences(ours, theirs, unit="clips", against="other", resampling=Resampling(GROUPS))
    lag, _ = differences(theirs, ours, unit="clips", against="other", resampling=Resampling(GROUPS))
    assert lead.interval[0] > 0 and lead.p < 0.01
    assert (lag.difference, lag.p) == (-lead.difference, lead.p)
    assert lag.interval == pytest.approx((-lead.interval[1], -lead.interval[0]))


def test_two_that_err_on_different_clips_are_not_told_apart() -> None:
    one_N, other_N = TRUTH_N.copy(), TRUTH_N.copy()
    one_N[:4], other_N[4:8] = (TRUTH_N[:4] + 1) % NUM_LABELS, (TRUTH_N[4:8] + 1) % NUM_LABELS
    both = (judged(called_N, clips=True) for called_N in (one_N, other_N))
    accuracy, _ = differences(*both, unit="clips", against="other", resampling=Resampling(GROUPS))
    assert accuracy.difference == 0 and accuracy.p == 1
    assert accuracy.interval[0] < 0 < accuracy.interval[1]

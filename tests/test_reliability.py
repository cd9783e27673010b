"""Calibration figures: a score of 0.8 should be right 8 times in 10, and chance alone is told beside what is not."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from training.measure.figures import Reliability
from training.measure.metrics.reliability import calibrated_ece_band, expected_calibration_error, reliability
from training.measure.metrics.resampling import Floats, Ints, Resampling


def drawn(num_clips: int, *, too_sure_by: float = 1.0, seed: int = 0) -> tuple[Floats, Ints]:
    """Probabilities of two actions, and truths drawn from them before they were made too sure."""
    logit_N = 1.5 * np.random.default_rng(seed).normal(size=num_clips)
    target_N = (np.random.default_rng(seed + 1).random(num_clips) < 1 / (1 + np.exp(-logit_N))).astype(np.int64)
    second_N = 1 / (1 + np.exp(-too_sure_by * logit_N))
    return np.stack([1 - second_N, second_N], axis=1), target_N


def of(probability_NA: Floats, target_N: Ints) -> Reliability:
    return reliability(probability_NA, target_N, resampling=Resampling([f"{n}" for n in range(len(target_N))]))


def test_the_calibration_error_is_the_mean_gap_between_score_and_share_of_right_answers() -> None:
    """15 bins: 0.50 and 0.53 share one (7/15 to 8/15), 0.94 and 1.00 the last; the middle ones gap 0.97 and 0.06."""
    score_N, right_N = np.array([0.50, 0.53, 0.94, 1.00]), np.array([True, False, True, False])
    weight_N = np.array([1.0, 1.0, 2.0, 2.0])
    expected = (abs(1 - 1.03) + abs(2 - 2 * 1.94)) / 6
    assert expected_calibration_error(score_N, right_N, weight_N) == pytest.approx(expected)


def test_a_sure_model_that_is_always_right_has_no_error_and_one_that_never_is_has_all() -> None:
    ones_N = np.ones(3)
    assert expected_calibration_error(ones_N, np.array([True] * 3), ones_N) == 0
    assert expected_calibration_error(ones_N, np.array([False] * 3), ones_N) == 1


def test_likelihood_and_brier_score_are_of_all_actions() -> None:
    probability_NA, target_N = drawn(50)
    found = of(probability_NA, target_N)
    assert found.nll == pytest.approx(log_loss(target_N, probability_NA))
    assert found.brier == pytest.approx(2 * np.mean((probability_NA[:, 1] - target_N) ** 2))


def test_a_certain_mistake_costs_much_but_not_everything() -> None:
    assert 100 < of(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])).nll < 1000


def test_the_bins_hold_all_clips_and_make_up_the_error() -> None:
    found = of(*drawn(300, too_sure_by=2))
    filled = [one for one in found.bins if one.num]
    assert len(found.bins) == 15 and sum(one.num for one in found.bins) == 300
    assert all(one.low <= one.mean_score <= one.high for one in filled)
    gaps = sum(one.num * abs(one.mean_score - one.share_right) for one in filled)
    assert found.ece == pytest.approx(gaps / 300)


def test_a_perfectly_calibrated_model_lies_in_its_band_and_one_too_sure_does_not() -> None:
    inside = [of(*drawn(200, seed=seed)) for seed in range(20)]
    assert sum(one.band.low <= one.ece <= one.band.high for one in inside) >= 17
    outside = of(*drawn(200, too_sure_by=3))
    assert outside.ece > outside.band.high


def test_the_band_narrows_with_more_clips() -> None:
    """209 clips in 15 bins err by 0.06 though they are perfect."""
    score_N = np.random.default_rng(0).uniform(0.5, 1.0, size=209)
    few, many = calibrated_ece_band(score_N), calibrated_ece_band(np.tile(score_N, 100))
    assert few.mean == pytest.approx(0.06, abs=0.015)
    assert many.mean == pytest.approx(few.mean / 10, rel=0.1)
    assert few.low < few.mean < few.high


def test_scores_of_nothing_but_0_and_1_leave_nothing_to_chance() -> None:
    band = calibrated_ece_band(np.ones(20))
    assert (band.low, band.mean, band.high) == (0, 0, 0)


def test_likelihood_and_brier_score_have_intervals() -> None:
    found = of(*drawn(100))
    assert found.intervals["nll"][0] < found.nll < found.intervals["nll"][1]
    assert found.intervals["brier"][0] < found.brier < found.intervals["brier"][1]

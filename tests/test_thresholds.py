"""Thresholds: the best F1 of each action, or as many answers as are right often enough; and what is said of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.measure.calibration import MIN_CLIPS, Course
from training.measure.thresholds import answered, best_thresholds, reaching, tune
from vidseq.config import Calibration, HeadsConfig

PLAIN = Calibration(elapsed_seconds=(0.0,), temperatures=(1.0,))
ONE = HeadsConfig(action_labels=("a", "b"))
SEVERAL = HeadsConfig(action_labels=("a", "b", "never"), several=True)


def best_threshold(scores: list[float], shown: list[int]) -> float:
    (threshold,) = best_thresholds(np.array(scores)[:, None], np.array(shown, bool)[:, None])
    return threshold


def courses(scores: list[float], right: list[int]) -> list[Course]:
    """Clips of two actions, a with this score at the end after another in the beginning; it is right or b is."""
    found = []
    for score, is_right in zip(scores, right, strict=True):
        logits_TA = np.array([[5.0, 0.0], [np.log(score / (1 - score)), 0.0]], np.float32)
        found.append(Course(np.array([3.0, 5.0]), logits_TA, torch.tensor([float(is_right), 1.0 - is_right])))
    return found


def test_scores_that_part_are_parted_in_the_middle() -> None:
    assert best_threshold([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1]) == pytest.approx(0.4)


def test_a_miss_is_taken_where_two_false_alarms_would_be_worse() -> None:
    """From 0.7 on F1 is 2/3; from 0.1 on, where the other one is, only 4/7."""
    assert best_threshold([0.1, 0.2, 0.3, 0.4, 0.7], [1, 0, 0, 0, 1]) == pytest.approx(0.55)


def test_of_equals_the_one_nearest_to_one_half_is_taken() -> None:
    """From 0.8 on one of two is found; from 0.2 on both, with two false alarms: F1 is 2/3 in either case."""
    assert best_threshold([0.2, 0.3, 0.6, 0.8], [1, 0, 0, 1]) == pytest.approx(0.7)


def test_an_action_that_no_clip_shows_keeps_one_half_and_one_that_all_show_is_said_below_them_all() -> None:
    assert best_threshold([0.1, 0.9], [0, 0]) == 0.5
    assert best_threshold([0.4, 0.9], [1, 1]) == pytest.approx(0.2)


@given(rows=st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_has_a_better_f1(rows: list[tuple[int, bool]]) -> None:
    score_N, shown_N = np.array([score / 100 for score, _ in rows]), np.array([shown for _, shown in rows])
    (found,) = best_thresholds(score_N[:, None], shown_N[:, None])

    def f1(threshold: float) -> float:
        called_N = score_N >= threshold
        return 2 * (called_N & shown_N).sum() / max(1, called_N.sum() + shown_N.sum())

    assert all(f1(found) >= f1(other / 200) - 1e-9 for other in range(200))


SCORES = np.linspace(0.95, 0.5, 20)


def test_the_threshold_answers_as_many_clips_as_it_can() -> None:
    """Of the best 14 two are wrong, 0.857; with the 15th, which is right, 0.867; with the 16th it is 0.8125."""
    right_N = np.array([1] * 12 + [0, 0, 1] + [0] * 5, bool)
    found = reaching(SCORES, right_N, precision=0.85, lowest=0.5)
    assert found.unknown_below == pytest.approx((SCORES[14] + SCORES[15]) / 2)
    assert (found.num_clips, found.share, found.precision) == (20, 0.75, pytest.approx(13 / 15))


def test_where_all_may_be_answered_the_threshold_lies_below_all_of_them() -> None:
    found = reaching(SCORES + 0.02, np.ones(20, bool), precision=0.9, lowest=0.5)
    assert found.unknown_below == pytest.approx(0.51) and found.share == 1


def test_a_few_lucky_answers_prove_nothing() -> None:
    right_N = np.arange(20) < MIN_CLIPS - 1
    assert reaching(SCORES, right_N, precision=0.95, lowest=0.5) is None
    assert reaching(SCORES, right_N, precision=0.9, lowest=0.5).share == MIN_CLIPS / 20


def test_equal_scores_are_answered_together_or_not_at_all() -> None:
    score_N, right_N = np.repeat([0.9, 0.6], [10, 4]), np.array([1] * 13 + [0], bool)
    assert reaching(score_N, right_N, precision=0.95, lowest=0.5).unknown_below == pytest.approx(0.75)


@given(
    rows=st.lists(st.tuples(st.integers(50, 99), st.booleans()), min_size=1, max_size=40),
    precision=st.floats(0.1, 1.0),
)
def test_what_is_promised_is_what_the_threshold_does(rows: list[tuple[int, bool]], precision: float) -> None:
    score_N, right_N = np.array([score / 100 for score, _ in rows]), np.array([right for _, right in rows])
    found = reaching(score_N, right_N, precision=precision, lowest=0.4)
    others = [answered(score_N, right_N, unknown_below=below / 200) for below in range(90, 200)]
    good = [one.share for one in others if one.precision >= precision and one.share * len(rows) > MIN_CLIPS - 0.5]
    assert (0.0 if found is None else found.share) == max(good, default=0.0)
    assert found is None or (found.precision >= precision and found in [*others, found])


def test_the_score_compared_is_that_of_the_end_with_the_temperature_of_its_time() -> None:
    calibration = Calibration(elapsed_seconds=(0.0, 2.0), temperatures=(9.0, 2.0))
    clips = courses([0.9] * 10 + [0.6] * 10, [1] * 10 + [0] * 10)
    heads, (sentence,) = tune(ONE, clips, calibration=calibration, unknown_precision=0.9)
    sure, unsure = (1 / (1 + (1 / score - 1) ** 0.5) for score in (0.9, 0.6))
    assert heads.unknown_below == pytest.approx((sure + unsure) / 2)
    assert sentence == (
        "an action below 0.65 is unknown: of 20 clips not learnt from 50% are answered, 100% of them rightly; "
        "of other clips it may be less"
    )


def test_a_stated_threshold_is_kept_and_told_what_it_does() -> None:
    heads = ONE.model_copy(update={"unknown_below": 0.7})
    found, (sentence,) = tune(heads, courses([0.9, 0.8, 0.6], [1, 0, 1]), calibration=None)
    assert found == heads
    assert sentence.startswith("an action below 0.70 is unknown: of 3 clips not learnt from 67% are answered, 50%")


def test_a_precision_that_cannot_be_had_is_told_and_every_clip_answered() -> None:
    found, (sentence,) = tune(ONE, courses([0.9] * 12, [1, 0] * 6), calibration=PLAIN, unknown_precision=0.9)
    assert found == ONE
    assert sentence == (
        "no threshold makes 90% of at least 10 answers right, and every clip is answered; of 12 clips not learnt from "
        "50% are answered rightly"
    )


def test_each_of_several_actions_gets_its_threshold_and_clips_without_a_label_are_not_asked() -> None:
    generator = np.random.default_rng(0)
    shown_NA = np.stack([np.arange(20) % 2, np.arange(20) % 4 == 0, np.zeros(20)], axis=1)
    logits_NA = (4.0 * shown_NA - 2 + generator.uniform(-1, 1, shown_NA.shape)).astype(np.float32)
    target_NA = torch.from_numpy(shown_NA).float()
    clips = [Course(np.zeros(1), row[None], target_A) for row, target_A in zip(logits_NA, target_NA, strict=True)]
    unlabelled = [Course(np.zeros(1), -logits_NA[:1], None)] * 50
    found, (sentence,) = tune(SEVERAL, clips + unlabelled, calibration=PLAIN)
    assert found.thresholds == pytest.approx((0.5, 0.5, 0.5), abs=0.15) and found.thresholds[2] == 0.5
    assert sentence.startswith("of 20 clips not learnt from, these thresholds had the best F1: a from 0.")
    assert sentence.endswith("never from 0.50 on (no clip showed it)")


@pytest.mark.parametrize("heads", [ONE, SEVERAL])
def test_too_few_clips_find_no_threshold_and_it_is_said(heads: HeadsConfig) -> None:
    found, (sentence,) = tune(heads, courses([0.9] * 4, [1] * 4), calibration=None, unknown_precision=0.9)
    assert found == heads and sentence.startswith("4 clips were held out, and 10 are needed to find thresholds")


def test_who_wants_no_threshold_hears_of_none() -> None:
    assert tune(ONE, courses([0.9] * 20, [1] * 20), calibration=PLAIN) == (ONE, ())
    assert tune(ONE, [], calibration=None, unknown_precision=0.9) == (ONE, ())

"""Temperatures by elapsed time: they mend scores that are too sure or too modest, and few clips do no harm."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.example import one_hot
from training.measure.calibration import MIN_CLIPS, Calibrated, Course, calibrate
from training.measure.metrics.reliability import expected_calibration_error
from vidseq.config import Calibration
from vidseq.naming import probabilities, temperatures_at

NUM_ACTIONS = 3


def courses(
    num_clips: int, *, too_sure_by: float = 1.0, num_seconds: float = 3.0, frames_per_second: int = 4, seed: int = 0
) -> list[Course]:
    """Clips whose true action is drawn from the very probabilities of their logits, which are then multiplied."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(num_clips):
        logits_A = 2 * generator.normal(size=NUM_ACTIONS)
        target = int(generator.choice(NUM_ACTIONS, p=np.exp(logits_A) / np.exp(logits_A).sum()))
        seconds_T = 5 + np.arange(int(num_seconds * frames_per_second)) / frames_per_second
        logits_TA = np.tile(too_sure_by * logits_A, (len(seconds_T), 1)).astype(np.float32)
        found.append(Course(seconds_T, logits_TA, one_hot(target, num_labels=NUM_ACTIONS)))
    return found


def several_courses(num_clips: int, *, too_sure_by: float, seed: int = 0) -> list[Course]:
    """The same where each action is drawn for itself; a clip is one frame."""
    generator = np.random.default_rng(seed)
    logits_NA = 2 * generator.normal(size=(num_clips, NUM_ACTIONS))
    target_NA = generator.random(logits_NA.shape) < 1 / (1 + np.exp(-logits_NA))
    return [
        Course(np.zeros(1), (too_sure_by * logits_A)[None].astype(np.float32), torch.from_numpy(target_A).float())
        for logits_A, target_A in zip(logits_NA, target_NA, strict=True)
    ]


def index_of(course: Course) -> int:
    return int(course.target_A.argmax())


def found_on(clips: list[Course]) -> Calibrated:
    found = calibrate(clips)
    assert found is not None
    return found


def nll(clips: list[Course], temperature: float) -> float:
    """Of the last frame of each clip."""
    rows = [course.action_logits_TA[-1] / temperature for course in clips]
    return float(np.mean([np.log(np.exp(row).sum()) - row[index_of(c)] for row, c in zip(rows, clips, strict=True)]))


@pytest.mark.parametrize("too_sure_by", [0.4, 1.0, 2.5])
def test_many_clips_tell_by_how_much_a_model_is_too_sure(too_sure_by: float) -> None:
    found = found_on(courses(1000, too_sure_by=too_sure_by))
    assert found.calibration.elapsed_seconds == (0.0, 0.5, 1.0, 2.0)
    assert found.calibration.temperatures == pytest.approx([too_sure_by] * 4, rel=0.15)


@pytest.mark.parametrize("too_sure_by", [0.4, 1.0, 2.5])
def test_of_several_actions_each_tells_by_how_much_a_model_is_too_sure(too_sure_by: float) -> None:
    found = calibrate(several_courses(500, too_sure_by=too_sure_by), several=True)
    assert found is not None and found.calibration.temperatures == pytest.approx([too_sure_by], rel=0.15)
    (stretch,) = found.stretches
    assert stretch.nll_after <= stretch.nll_before and stretch.ece_after < 0.05


def test_the_last_frames_alone_give_one_temperature_for_any_time() -> None:
    """As of a model that says nothing before it has seen the whole clip."""
    last = [Course(c.seconds_T[-1:], c.action_logits_TA[-1:], c.target_A) for c in courses(300, too_sure_by=2)]
    found = found_on(last)
    assert found.calibration.elapsed_seconds == (0.0,) and found.calibration.temperatures == pytest.approx([2], rel=0.2)


def test_each_stretch_of_time_has_a_temperature_of_its_own() -> None:
    clips = courses(1000)
    for clip in clips:
        clip.action_logits_TA[: 4 * 1] *= 3  # too sure in the first second
    assert found_on(clips).calibration.temperatures == pytest.approx([3, 3, 1, 1], rel=0.2)


@pytest.mark.parametrize("num_clips", [MIN_CLIPS, 20, 40])
def test_few_clips_do_next_to_no_harm_to_scores_that_are_right(num_clips: int) -> None:
    """On other clips. Without the prior some of these draws cost whole nats."""
    unseen = courses(2000, seed=99)
    costs = []
    for seed in range(10):
        (*_, temperature) = found_on(courses(num_clips, seed=seed)).calibration.temperatures
        costs.append(nll(unseen, temperature) - nll(unseen, 1.0))
    assert np.mean(costs) < 0.01
    assert max(costs) < 0.05


def test_a_few_clips_that_are_all_right_do_not_make_a_model_certain() -> None:
    """Their likelihood alone would be best at a temperature of 0."""
    right = [
        replace(clip, target_A=one_hot(int(clip.action_logits_TA[0].argmax()), num_labels=NUM_ACTIONS))
        for clip in courses(10)
    ]
    assert min(found_on(right).calibration.temperatures) > 0.3


def test_the_clips_themselves_are_never_less_likely_than_before() -> None:
    for seed in range(5):
        for stretch in found_on(courses(MIN_CLIPS, seed=seed)).stretches:
            assert stretch.nll_after <= stretch.nll_before + 1e-9


def calibration_error(clips: list[Course], calibration: Calibration) -> float:
    """Of the first frame of each clip."""
    logits_NA = torch.from_numpy(np.stack([clip.action_logits_TA[0] for clip in clips]))
    temperature_N = temperatures_at(np.zeros(len(clips)), calibration)
    probability_NA = probabilities(logits_NA, several=False, temperature_T=temperature_N).numpy()
    right_N = probability_NA.argmax(axis=1) == [index_of(clip) for clip in clips]
    return expected_calibration_error(probability_NA.max(axis=1), right_N, np.ones(len(clips)))


def test_a_model_that_is_too_sure_errs_less_afterwards_on_other_clips_too() -> None:
    fitted, unseen = found_on(courses(300, too_sure_by=3)).calibration, courses(1000, too_sure_by=3, seed=7)
    plain = Calibration(elapsed_seconds=(0.0,), temperatures=(1.0,))
    assert calibration_error(unseen, fitted) < 0.3 * calibration_error(unseen, plain)


def test_the_calibration_error_is_the_mean_gap_between_score_and_share_of_right_answers() -> None:
    score_N, right_N = np.array([0.55, 0.55, 0.92, 0.98, 1.0]), np.array([True, False, True, True, False])
    weight_N = np.array([1, 1, 2, 2, 2])
    low, high = abs(1 - 1.1), abs(4 - 2 * (0.92 + 0.98 + 1.0))
    assert expected_calibration_error(score_N, right_N, weight_N, num_bins=10) == pytest.approx((low + high) / 8)
    assert expected_calibration_error(np.ones(3), np.array([True] * 3), np.ones(3)) == 0


def test_a_stretch_that_few_clips_reach_belongs_to_the_one_before() -> None:
    clips = courses(20, num_seconds=1.5) + courses(MIN_CLIPS - 1, num_seconds=9, seed=1)
    found = found_on(clips)
    assert found.calibration.elapsed_seconds == (0.0, 0.5, 1.0)
    assert [stretch.num_clips for stretch in found.stretches] == [29, 29, 29]


def test_a_low_rate_leaves_no_stretch_without_frames() -> None:
    found = found_on(courses(20, num_seconds=8, frames_per_second=1))
    assert found.calibration.elapsed_seconds == (0.0, 1.0, 2.0, 4.0)


def test_a_long_clip_counts_no_more_than_a_short_one() -> None:
    """The same clips at four times the rate: the same temperatures."""
    slow, fast = (found_on(courses(50, frames_per_second=rate)).calibration for rate in (4, 16))
    assert slow.temperatures == pytest.approx(fast.temperatures, rel=1e-4)


def test_clips_without_an_action_are_not_counted() -> None:
    clips = courses(MIN_CLIPS)
    unlabelled = [Course(clip.seconds_T, 100 * clip.action_logits_TA, None) for clip in courses(30, seed=1)]
    assert found_on(clips + unlabelled) == found_on(clips)


def test_too_few_clips_calibrate_nothing() -> None:
    assert calibrate(courses(MIN_CLIPS - 1)) is None
    assert calibrate([]) is None
